"""Contact sheets: rows of labelled pictures on one page."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..track import HeadTrack

_MARGIN, _CAPTION, _LABEL = 8, 22, 96  # pixels: around pictures, for a column's caption, for a row's label
_INK, _PAPER = (40, 40, 40), (250, 250, 250)


class Row(NamedTuple):
    """A label and pictures uint8 (H, W, 3) of any size, one a column."""

    label: str
    pictures: Sequence[np.ndarray]


def contact_sheet(rows: Sequence[Row], captions: Sequence[str], cell: int = 224) -> np.ndarray:
    """The rows under each other, each picture scaled into a square of `cell` pixels; captions stand above the columns.

    Returns:
        uint8 (H, W, 3).
    """
    columns = max(len(captions), *(len(r.pictures) for r in rows))
    step = cell + _MARGIN
    page = Image.new("RGB", (_LABEL + columns * step + _MARGIN, _CAPTION + len(rows) * step + _MARGIN), _PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    for j, caption in enumerate(captions):
        draw.text((_LABEL + j * step + cell // 2, _CAPTION // 2 + 2), caption, _INK, font, anchor="mm")
    for i, row in enumerate(rows):
        top = _CAPTION + i * step
        draw.multiline_text((_MARGIN, top + cell // 2), row.label, _INK, font, anchor="lm")
        for j, picture in enumerate(row.pictures):
            small = Image.fromarray(picture)
            small.thumbnail((cell, cell), Image.Resampling.LANCZOS)
            left = _LABEL + j * step
            page.paste(small, (left + (cell - small.width) // 2, top + (cell - small.height) // 2))
    return np.asarray(page)


def telling_frames(track: HeadTrack, count: int) -> list[int]:
    """The first frame, and of each of `count - 1` equal parts of the rest the frame that has moved most since then."""
    moved = (track.expression - track.expression[:1]).abs().sum(1) + 20 * (track.rotation - track.rotation[:1]).abs().sum(1)
    parts = [p for p in np.array_split(np.arange(1, len(track)), count - 1) if len(p)]
    return [0, *(int(p[moved[p].argmax()]) for p in parts)]
