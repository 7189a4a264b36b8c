"""Pictures of a flow field: made to be looked at, with their scales in millimetres."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from ..render.maps import normal_map
from ..render.rasterize import rasterize
from ..render.shade import LIGHT, shade
from .field import FlowField
from .legend import Picture, titled, unit_of, with_arrows, with_bar, with_wheel
from .visualize import as_bytes, depth_colours, direction_colours

VIEWS = ("sheet", "direction", "depth", "arrows", "layers", "checkerboard", "visibility")
_PAPER = (26, 28, 34)
_SEEN, _UNSEEN = (0.24, 0.75, 0.62), (0.93, 0.36, 0.32)
_ARROWS = 24  # across the picture's short side
_SQUARES = 20
_LIGHT_SQUARE, _DARK_SQUARE = np.array([255.0, 244, 214]), np.array([24.0, 44, 84])
_LOOKED_AT = 8  # frames that decide the scale and the window
_MARGIN = 1.3  # of the window about the head
_SMALL = 128  # pixels: enough to know how far the surface moves


def nice_above(value: float) -> float:
    """The smallest of 1, 2, 5, 10, ... (times a power of ten) that is at least `value`; 1 for 0."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= value * (1 - 1e-9))


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` frames, evenly spread, both ends included."""
    shown = min(count, most)
    return [round(i * (count - 1) / max(1, shown - 1)) for i in range(shown)]


def around_the_head(flow: FlowField, portrait: Picture | None, size: int) -> tuple[FlowField, Picture | None]:
    """The field and its portrait seen through a square window of `size` pixels that holds the head in all frames."""
    tracks = [flow.source[:1], *(flow.target[[t]] for t in spread(len(flow), _LOOKED_AT))]
    places = torch.cat([flow.camera.project(t.vertices(flow.head)).flatten(0, 1) for t in tracks])
    low, high = places.amin(0), places.amax(0)
    limit = 2 * max(flow.camera.width, flow.camera.height)  # a head at the camera has no bounds
    side = max(8, min(limit, math.ceil(_MARGIN * float((high - low).max().nan_to_num(limit)))))
    left, top = ((low + high - side) / 2).nan_to_num(0).clamp(-limit, limit).round().int().tolist()
    zoomed = replace(flow, camera=flow.camera.cropped(left, top, side, side).resized(size, size))
    if portrait is None:
        return zoomed, None
    across = portrait.shape[1] / flow.camera.width
    first, last = ((round(x * across), round(y * across)) for x, y in ((left, top), (left + side, top + side)))
    return zoomed, _window(portrait, first, last, size)


def _window(picture: Picture, first: tuple[int, int], last: tuple[int, int], size: int) -> Picture:
    """A square of a picture between two corners x, y, its edges repeated where it ends, at `size` pixels a side."""
    h, w, _ = picture.shape
    (left, top), (right, bottom) = first, last
    pads = max(0, -top), max(0, bottom - h), max(0, -left), max(0, right - w)
    wide = cv2.copyMakeBorder(picture, *pads, cv2.BORDER_REPLICATE)
    cut = wide[top + pads[0] : bottom + pads[0], left + pads[2] : right + pads[2]]
    return _scaled(cut, size, size)


def _scaled(picture: Picture, width: int, height: int) -> Picture:
    if picture.shape[:2] == (height, width):
        return picture
    shrinks = picture.shape[1] > width
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


@dataclass(frozen=True, eq=False)
class FlowPictures:
    """Pictures (H, W, 3) uint8 of the frames of a field, of its camera's size. All frames share their scales.

    Raises InputError where the portrait is no picture.
    """

    flow: FlowField
    portrait: Picture | None = None  # what the source was fitted to, of any size; None: the source's head, shaded
    full: float = 0.0  # millimetres of the strongest colour; 0: found from the clip
    busy: Callable[[], None] = lambda: None  # called before each view; it may raise to cancel

    def __post_init__(self) -> None:
        if self.portrait is not None and (self.portrait.ndim != 3 or self.portrait.shape[2] != 3):
            raise InputError(f"3D Flow Visualize: the portrait is {self.portrait.shape}, not one picture (H, W, 3).")

    def picture(self, view: str, frame: int) -> Picture:
        """One of VIEWS of one frame. Raises InputError for another name."""
        if view not in VIEWS:
            raise InputError(f"3D Flow Visualize: the view is {view!r}, which is not one of {', '.join(VIEWS)}.")
        self.busy()
        return getattr(self, view)(frame)

    @cached_property
    def scale(self) -> float:
        """Millimetres of the strongest colour."""
        return self.full if self.full > 0 else nice_above(float(self._moves.norm(dim=-1).quantile(0.98)) * 1e3)

    @cached_property
    def depth_scale(self) -> float:
        return self.full if self.full > 0 else nice_above(float(self._moves[:, 2].abs().quantile(0.98)) * 1e3)

    @cached_property
    def _moves(self) -> Tensor:
        """(P, 3) some moves of the surface, metres."""
        small = self._small(_SMALL)
        return torch.cat(
            [small.moves(t)[small.head_mask(t)] for t in spread(len(self.flow), _LOOKED_AT)]
            + [torch.zeros(1, 3, device=self.flow.head.device)]
        )

    def _small(self, side: int) -> FlowField:
        factor = side / max(self.flow.camera.width, self.flow.camera.height)
        return self.flow.resize(*(max(1, round(n * factor)) for n in (self.flow.camera.width, self.flow.camera.height)))

    def sheet(self, frame: int) -> Picture:
        """Six views, three by two."""
        pages = [self.picture(view, frame) for view in ("arrows", "direction", "depth", "checkerboard", "visibility", "layers")]
        gap = round(6 * unit_of(*pages[0].shape[:2]))
        h, w, _ = pages[0].shape
        page = np.full((2 * h + 3 * gap, 3 * w + 4 * gap, 3), _PAPER, np.uint8)
        for i, picture in enumerate(pages):
            top, left = gap + i // 3 * (h + gap), gap + i % 3 * (w + gap)
            page[top : top + h, left : left + w] = picture
        return page

    def direction(self, frame: int) -> Picture:
        """Where the surface went in the picture, in colour."""
        move = self.flow.moves(frame)[0] * (1e3 / self.scale)
        picture = self._on_the_head(frame, direction_colours(move[..., :2]))
        return with_wheel(titled(picture, "direction", "of the move from the source"), self.scale)

    def depth(self, frame: int) -> Picture:
        """Whether the surface came nearer or went farther."""
        move = self.flow.moves(frame)[0, ..., 2] * (1e3 / self.depth_scale)
        picture = self._on_the_head(frame, depth_colours(move))
        return with_bar(titled(picture, "depth", "towards the camera, or away"), self.depth_scale)

    def arrows(self, frame: int) -> Picture:
        """Arrows over the portrait, from where the surface was to where it is."""
        pixels, mask = self.flow.pixels(frame)[0], self.flow.head_mask(frame)[0]
        h, w = mask.shape
        step = max(3, round(min(h, w) / _ARROWS))
        y, x = torch.meshgrid(torch.arange(step // 2, h, step), torch.arange(step // 2, w, step), indexing="ij")
        on = mask[y, x].cpu()
        there = torch.stack([x, y], -1)[on].double().numpy() + 0.5
        here = pixels[y, x].cpu()[on].double().numpy()
        colour = as_bytes(direction_colours(self.flow.moves(frame)[0][y, x].cpu()[on][:, :2] * (1e3 / self.scale)))
        longest = float(np.quantile(np.linalg.norm(there - here, axis=1), 0.95)) if len(here) else 0.0
        times = next((k for k in (1, 2, 5, 10, 20) if longest * k > 0.6 * step), 20 if longest > 0.05 else 1)
        base = cv2.addWeighted(self._picture, 0.72, np.full_like(self._picture, 20), 0.28, 0)
        words = "from the portrait to here" + (f", {times} times as long" if times > 1 else "")
        picture = with_arrows(base, here, here + times * (there - here), colour)
        return with_wheel(titled(picture, "arrows", words), self.scale)

    def layers(self, frame: int) -> Picture:
        """The flow at each of the N samples, the nearest first."""
        n, camera = self.flow.sampling.samples, self.flow.camera
        head = round(44 * unit_of(camera.height, camera.width))
        columns = math.ceil(math.sqrt(n * camera.width / max(1, camera.height - head)))
        rows = math.ceil(n / columns)
        w, h = camera.width // columns, (camera.height - head) // rows
        factor = min(w / camera.width, h / camera.height)
        tile = self.flow.resize(max(1, int(camera.width * factor)), max(1, int(camera.height * factor)))
        move = -tile.encode(frame)[0].reshape(n, 3, tile.camera.height, tile.camera.width) / self.flow.flow_scale
        tiles = as_bytes(direction_colours(move[:, :2].movedim(1, -1) * (1e3 / self.scale)))
        page = np.full((camera.height, camera.width, 3), _PAPER, np.uint8)
        for i, picture in enumerate(tiles[:, : max(1, h - 1), : max(1, w - 1)]):
            top, left = head + i // columns * h, i % columns * w + (camera.width - columns * w) // 2
            page[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        return titled(page, "layers", f"{n} depths, nearest first; full colour {self.scale:g} mm")

    def checkerboard(self, frame: int) -> Picture:
        """The source's pixels where they are now, with squares that lay straight on the portrait."""
        pixels, mask = self.flow.pixels(frame)[0].cpu(), self.flow.head_mask(frame)[0].cpu().numpy()
        places = pixels.numpy().astype(np.float32) - 0.5
        moved = cv2.remap(self._picture, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        side = min(mask.shape) / _SQUARES
        odd = _squares((places + 0.5) / side)[..., None]
        strength = np.where(mask, 0.34, 0.10)[..., None]
        picture = moved * (1 - strength) + (odd * _LIGHT_SQUARE + (1 - odd) * _DARK_SQUARE) * strength
        picture = np.where(mask[..., None], picture, 0.55 * picture + 0.45 * np.array(_PAPER))
        return titled(picture.round().astype(np.uint8), "source pixels", "squares lay straight on the portrait")

    def visibility(self, frame: int) -> Picture:
        """What the portrait shows of the surface, and what it hides."""
        visible, mask = self.flow.visibility(frame)[0], self.flow.head_mask(frame)[0]
        seen, unseen = (torch.tensor(c, device=mask.device) for c in (_SEEN, _UNSEEN))
        colour = torch.where(visible[..., None], seen, unseen)
        share = float(visible[mask].float().mean()) if bool(mask.any()) else 0.0
        return titled(self._on_the_head(frame, colour), "visibility", f"green: the portrait shows it ({share:.0%})")

    def _on_the_head(self, frame: int, colour: Tensor) -> Picture:
        """Colours (H, W, 3) on the target's head, lit so that its form shows, on dark paper."""
        vertices = self.flow.target[[range(len(self.flow))[frame]]].vertices(self.flow.head)
        seen = rasterize(vertices, self.flow.head.faces, self.flow.camera)
        normal = normal_map(vertices, self.flow.head.faces, seen)[0]
        light = 0.62 + 0.38 * (normal @ normal.new_tensor(LIGHT)).clamp(min=0)
        paper = torch.tensor(_PAPER, device=colour.device) / 255
        return as_bytes(torch.where((seen.triangle[0] >= 0)[..., None], colour * light[..., None], paper))

    @cached_property
    def _picture(self) -> Picture:
        camera = self.flow.camera
        if self.portrait is None:
            return as_bytes(shade(self.flow.head, self.flow.source[:1].vertices(self.flow.head), camera)[0])
        return _scaled(self.portrait, camera.width, camera.height)


def _squares(place: NDArray) -> NDArray:
    """A checkerboard of unit squares at places (..., 2), 0 or 1, with edges as soft as a pixel."""
    wave = np.sin(np.pi * place[..., 0]) * np.sin(np.pi * place[..., 1])
    return np.clip(wave * 12 + 0.5, 0, 1)
