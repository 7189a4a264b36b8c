"""Plain line plots over time, drawn with OpenCV and Pillow: no plotting library is needed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PALETTE = ((214, 69, 65), (46, 140, 87), (52, 104, 192), (222, 148, 35), (129, 82, 168), (60, 160, 170))
PAPER, _PLATE, _GRID, _INK, _FAINT = (255, 255, 255), (247, 248, 250), (226, 229, 234), (38, 42, 50), (110, 116, 126)
_SHIFT = 4  # OpenCV draws at 1/16 pixel
_Number = TypeVar("_Number", float, NDArray[np.float64])


@dataclass(frozen=True, eq=False)
class Line:
    """Values over frames (T,); NaN leaves a gap."""

    name: str
    values: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Panel:
    """A plot of some lines with one unit."""

    title: str
    unit: str
    lines: Sequence[Line]
    low: float | None = None  # what the axis shows at least
    high: float | None = None


@dataclass(frozen=True, eq=False)
class Mark:
    """Frames (T,) bool that a colour marks in every panel."""

    name: str
    frames: NDArray[np.bool_]
    colour: tuple[int, int, int]


def plot(title: str, panels: Sequence[Panel], marks: Sequence[Mark], fps: float, width: int = 1024) -> NDArray[np.uint8]:
    """The panels under each other over one axis of frames and seconds, (H, W, 3) uint8 RGB, `width` pixels wide."""
    unit = width / 1024
    head, height, foot = (round(v * unit) for v in (58, 190, 46))
    page = np.full((head + height * len(panels) + foot, width, 3), PAPER, np.uint8)
    frames = max((len(line.values) for panel in panels for line in panel.lines), default=1)
    left, right = round(70 * unit), width - round(24 * unit)
    boxes = []
    for i, panel in enumerate(panels):
        top = head + i * height
        box = _Box(left, top + round(30 * unit), right, top + height - round(12 * unit), frames, unit)
        box.draw(page, panel, marks)
        boxes.append(box)
    image = Image.fromarray(page)
    draw = ImageDraw.Draw(image)
    draw.text((round(24 * unit), round(24 * unit)), title, _INK, _font(20 * unit), anchor="lm")
    shown = [(m.name, m.colour) for m in marks if m.frames.any()]
    _legend(draw, width - round(24 * unit), round(24 * unit), shown, unit)
    for box, panel in zip(boxes, panels, strict=True):
        box.label(draw, panel)
    boxes[-1].label_frames(draw, fps)
    return np.array(image)


@dataclass(frozen=True)
class _Box:
    """Where one panel's plot lies on the page, in pixels."""

    left: int
    top: int
    right: int
    bottom: int
    frames: int
    unit: float

    def x(self, frame: _Number) -> _Number:
        """A single frame stands in the middle."""
        return self.left + (self.right - self.left) * (frame + 0.5) / self.frames

    def draw(self, page: NDArray[np.uint8], panel: Panel, marks: Sequence[Mark]) -> None:
        cv2.rectangle(page, (self.left, self.top), (self.right, self.bottom), _PLATE, -1)
        for mark in marks:
            for first, last in _runs(mark.frames):
                x0, x1 = (round(self.x(f)) for f in (first - 0.5, last + 0.5))
                part = page[self.top : self.bottom + 1, x0 : max(x1, x0 + 1)]
                part[:] = (0.65 * part + 0.35 * np.array(mark.colour)).round()
        ticks, low, high = _ticks(panel)
        for value in ticks:
            y = round(self._y(value, low, high))
            cv2.line(page, (self.left, y), (self.right, y), _INK if value == 0 else _GRID, 1)
        for line, colour in zip(panel.lines, PALETTE, strict=False):
            self._draw_line(page, line.values, low, high, colour)

    def _y(self, value: _Number, low: float, high: float) -> _Number:
        return self.bottom - (self.bottom - self.top) * (value - low) / (high - low)

    def _draw_line(
        self, page: NDArray[np.uint8], values: NDArray[np.float64], low: float, high: float, colour: tuple[int, int, int]
    ) -> None:
        points = np.column_stack([self.x(np.arange(len(values), dtype=np.float64)), self._y(values, low, high)])
        thick = max(1, round(1.6 * self.unit))
        for first, last in _runs(np.isfinite(values)):
            run = ((points[first : last + 1] - 0.5) * (1 << _SHIFT)).round().astype(np.int32)
            cv2.polylines(page, [run], False, colour, thick, cv2.LINE_AA, _SHIFT)
            if len(run) == 1:
                cv2.circle(page, run[0].tolist(), round(4 * self.unit * (1 << _SHIFT)), colour, -1, cv2.LINE_AA, _SHIFT)

    def label(self, draw: ImageDraw.ImageDraw, panel: Panel) -> None:
        small = _font(13 * self.unit)
        middle = self.top - round(15 * self.unit)
        title = _font(15 * self.unit)
        draw.text((self.left, middle), panel.title, _INK, title, anchor="lm")
        after = self.left + draw.textlength(panel.title + "  ", title)
        draw.text((after, middle), panel.unit, _FAINT, small, anchor="lm")
        _legend(draw, self.right, middle, [(n.name, c) for n, c in zip(panel.lines, PALETTE, strict=False)], self.unit)
        ticks, low, high = _ticks(panel)
        for value in ticks:
            at = (self.left - round(8 * self.unit), self._y(value, low, high))
            draw.text(at, f"{value:g}", _FAINT, small, anchor="rm")

    def label_frames(self, draw: ImageDraw.ImageDraw, fps: float) -> None:
        """Numbers of frames and their seconds below the plot."""
        small = _font(13 * self.unit)
        step = max(1, int(_nice((self.frames - 1) / 8))) if self.frames > 1 else 1
        for frame in range(0, self.frames, step):
            x = self.x(frame)
            draw.text((x, self.bottom + round(14 * self.unit)), f"{frame}", _INK, small, anchor="mm")
            draw.text((x, self.bottom + round(30 * self.unit)), f"{frame / fps:.2f} s", _FAINT, small, anchor="mm")
        draw.text((self.left - round(12 * self.unit), self.bottom + round(14 * self.unit)), "frame", _FAINT, small, anchor="rm")


def _legend(
    draw: ImageDraw.ImageDraw, right: int, middle: int, entries: Sequence[tuple[str, tuple[int, int, int]]], unit: float
) -> None:
    """Names with a patch of their colours, ending at `right`."""
    font = _font(13 * unit)
    patch, gap = round(11 * unit), round(6 * unit)
    x = float(right)
    for name, colour in reversed(entries):
        x -= draw.textlength(name, font)
        draw.text((x, middle), name, _INK, font, anchor="lm")
        x -= patch + gap
        draw.rectangle((x, middle - patch // 2, x + patch - 1, middle + patch // 2), colour)
        x -= 3 * gap


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(8, round(size)))


def _runs(chosen: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last index of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], np.asarray(chosen, bool), [False]]).astype(np.int8)))
    return [(int(a), int(b) - 1) for a, b in edges.reshape(-1, 2)]


def _ticks(panel: Panel) -> tuple[list[float], float, float]:
    """Round values across the panel's range, and the range itself, which ends on them."""
    values = np.concatenate([np.asarray(line.values, np.float64) for line in panel.lines] or [np.zeros(1)])
    values = values[np.isfinite(values)]
    ends = [v for v in (panel.low, panel.high) if v is not None]
    low, high = min([*values, *ends], default=0.0), max([*values, *ends], default=1.0)
    if high - low < 1e-6 * max(1.0, abs(high)):
        low, high = low - 1, high + 1
    step = _nice((high - low) / 4)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return [round(i * step, 10) for i in range(first, last + 1)], first * step, last * step


def _nice(value: float) -> float:
    """The smallest of 1, 2, 5, 10, ... (times a power of ten) that is at least `value`."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= value * (1 - 1e-9))
