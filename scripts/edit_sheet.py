"""A contact sheet of FLAME Edit: what each slider makes of one portrait, at 0, half and full, by the flow warp.

    python scripts/edit_sheet.py PORTRAIT -o SHEET.jpg [--rows yaw=30 smile=1 ...] [--cell PIXELS]

PORTRAIT is an image file, or `astronaut`, scikit-image's picture with the landmarks that Flow3D brings for it. Any other needs
face_landmarker.task (see `flow3d doctor`).
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from comfyui_flow3d.flow3d.animate import Portrait, open_portrait
from comfyui_flow3d.flow3d.demo import demo_portrait
from comfyui_flow3d.flow3d.fit.detect import MediaPipeDetector
from comfyui_flow3d.flow3d.fit.edit import edit_track
from comfyui_flow3d.flow3d.head.load import load_head
from comfyui_flow3d.flow3d.head.model import HeadModel
from comfyui_flow3d.flow3d.io.sheet import Row, contact_sheet
from comfyui_flow3d.flow3d.paths import find_weight
from comfyui_flow3d.flow3d.warp.renderer import FlowWarp

ROWS = (
    "yaw=30", "yaw=-30", "pitch=20", "pitch=-20", "roll=30", "x=6", "y=6", "z=15", "z=-15",
    "gazeYaw=30", "gazeYaw=-30", "gazePitch=20", "gazePitch=-20", "gazeYawLeft=30", "blink=1", "blinkRight=1", "eyelids=1",
    "squint=1", "brows=1", "brows=-1", "browUpLeft=1", "jawOpen=1", "smile=1", "frown=1", "mouthCornersLeft=1", "pucker=1",
    "funnel=1", "mouthUpperUp=1", "mouthLowerDown=1", "mouthSide=1", "jawSide=1", "jawForward=1", "puff=1", "sneer=1",
    "tongueOut=1", "neutralise=1",
)  # fmt: skip
"""Sliders and what is full: degrees, centimetres, parts."""
_WIDE = ("yaw", "pitch", "roll", "x", "y", "z")
_BLOCK = 9  # rows under each other
_LABEL = 10  # letters of a name on one line


def portrait(head: HeadModel, name: str) -> Portrait:
    """An image file's head, or the astronaut's."""
    if name == "astronaut":
        return demo_portrait(head)
    with MediaPipeDetector(find_weight("face_landmarker.task")) as detector:
        return open_portrait(head, Path(name), detector)


def about_face(
    head: HeadModel, still: Portrait, image: NDArray[np.uint8], size: float, cell: int
) -> NDArray[np.uint8]:
    """The square of `size` face heights about the portrait's face, as far as the picture goes; `cell` pixels high."""
    marks = still.track.camera.project(head.dense.on(still.track.vertices(head), head.faces))[0].numpy()
    low, high = marks.min(0), marks.max(0)
    half = size * float((high - low).max()) / 2
    left, top = np.maximum((low + high) / 2 - half, 0).astype(int)
    right, bottom = ((low + high) / 2 + half).astype(int)
    picture = Image.fromarray(image[top:bottom, left:right])
    return np.asarray(picture.resize((cell * picture.width // picture.height, cell), Image.Resampling.LANCZOS))


def sheet_rows(head: HeadModel, still: Portrait, sliders: Sequence[str], cell: int) -> list[Row]:
    """A row for each `NAME=FULL`. Raises InputError for an unknown name."""
    warp, rows = FlowWarp(head, still.image, still.track), []
    for slider in sliders:
        name, _, full = slider.partition("=")
        tracks = [edit_track(head, still.track, {name: share * float(full)}) for share in (0.0, 0.5, 1.0)]
        size = 2.0 if name in _WIDE else 1.05
        pictures = [about_face(head, still, warp.frame(track)[0], size, cell) for track in tracks]
        label = re.sub("(?<!^)(?=[A-Z])", "\n", name) if len(name) > _LABEL else name
        rows.append(Row(f"{label}\n{full}", pictures))
    return rows


def edit_sheet(rows: Sequence[Row], cell: int) -> NDArray[np.uint8]:
    """The rows in blocks beside each other, (H, W, 3)."""
    blocks = [contact_sheet(rows[i : i + _BLOCK], ["0", "half", "full"], cell) for i in range(0, len(rows), _BLOCK)]
    height = max(len(block) for block in blocks)
    return np.concatenate([np.pad(b, ((0, height - len(b)), (0, 0), (0, 0)), constant_values=250) for b in blocks], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portrait", help="an image file, or 'astronaut'")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the sheet, a .jpg or .png file")
    parser.add_argument("--rows", nargs="+", default=ROWS, metavar="NAME=FULL", help="sliders, and what is full")
    parser.add_argument("--cell", type=int, default=128, help="pixels of a picture's side")
    args = parser.parse_args()
    head = load_head("open")
    sheet = edit_sheet(sheet_rows(head, portrait(head, args.portrait), args.rows, args.cell), args.cell)
    Image.fromarray(sheet).save(args.output, quality=82)


if __name__ == "__main__":
    main()
