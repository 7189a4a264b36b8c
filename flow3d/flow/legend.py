"""What is written and drawn onto pictures of the flow: titles, scales, the wheel of directions, arrows."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .visualize import as_bytes, depth_colours, direction_colours

Picture = NDArray[np.uint8]
_PLATE, _INK, _FAINT = (18, 20, 26), (244, 244, 246), (176, 180, 190)
_SHIFT = 4  # OpenCV draws at 1/16 pixel


def unit_of(height: int, width: int) -> float:
    """The size of things on a picture: 1 where its short side has 512 pixels, never so small that letters cannot be read."""
    return max(0.55, min(height, width) / 512)


def titled(picture: Picture, title: str, words: str = "") -> Picture:
    """The picture with a title, and words after it, on a plate in its upper left corner."""
    unit = unit_of(*picture.shape[:2])
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image, "RGBA")
    large, small = (ImageFont.load_default(round(size * unit)) for size in (17, 14))
    pad = round(9 * unit)
    width = draw.textlength(title, large) + (draw.textlength("  " + words, small) if words else 0)
    box = (pad, pad, pad + width + 2 * pad, pad + round(30 * unit))
    draw.rounded_rectangle(box, round(7 * unit), (*_PLATE, 190))
    middle = (box[1] + box[3]) / 2
    draw.text((2 * pad, middle), title, _INK, large, anchor="lm")
    if words:
        draw.text((2 * pad + draw.textlength(title + "  ", large), middle), words, _FAINT, small, anchor="lm")
    return np.array(image)


def with_wheel(picture: Picture, full: float) -> Picture:
    """The picture with the wheel of directions in its lower right corner; its rim is a move of `full` millimetres."""
    unit = unit_of(*picture.shape[:2])
    radius, pad = round(46 * unit), round(12 * unit)
    side = 2 * radius + 1
    if min(picture.shape[:2]) < side + 5 * pad:
        return picture  # too small to be written on
    at = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(at, at, indexing="ij")
    place = torch.stack([x, y], -1)
    wheel = as_bytes(direction_colours(place))
    cover = ((1 - place.norm(dim=-1)) * radius + 0.5).clamp(0, 1).numpy()[..., None]
    bottom, right = picture.shape[0] - pad - round(20 * unit), picture.shape[1] - pad
    plate = (right - side - 2 * pad, bottom - side - pad, right, picture.shape[0] - pad)
    image = Image.fromarray(picture)
    ImageDraw.Draw(image, "RGBA").rounded_rectangle(plate, round(8 * unit), (*_PLATE, 190))
    result = np.array(image)
    corner = (slice(bottom - side, bottom), slice(right - side - pad, right - pad))
    result[corner] = (cover * wheel + (1 - cover) * result[corner]).round()
    image = Image.fromarray(result)
    draw = ImageDraw.Draw(image, "RGBA")
    centre = (right - pad - radius - 1, bottom - radius - 1)
    half = radius / 2
    draw.ellipse((centre[0] - half, centre[1] - half, centre[0] + half, centre[1] + half), outline=(*_PLATE, 110))
    text = (centre[0], bottom + round(9 * unit))
    draw.text(text, f"{full:g} mm", _INK, ImageFont.load_default(round(14 * unit)), anchor="mm")
    return np.array(image)


def with_bar(picture: Picture, full: float) -> Picture:
    """The picture with the scale of moves towards the camera and away from it, `full` millimetres to each side."""
    unit = unit_of(*picture.shape[:2])
    height, pad = round(14 * unit), round(12 * unit)
    width = min(round(150 * unit), picture.shape[1] - 4 * pad)
    if width < 4 * height or picture.shape[0] < 5 * height:
        return picture  # too small to be written on
    right, bottom = picture.shape[1] - pad, picture.shape[0] - pad
    image = Image.fromarray(picture)
    plate = (right - width - 2 * pad, bottom - height - round(30 * unit), right, bottom)
    ImageDraw.Draw(image, "RGBA").rounded_rectangle(plate, round(8 * unit), (*_PLATE, 190))
    left, top = right - width - pad, plate[1] + round(8 * unit)
    bar = as_bytes(depth_colours(torch.linspace(-1, 1, width))).reshape(1, width, 3)
    result = np.array(image)
    result[top : top + height, left : left + width] = bar
    image = Image.fromarray(result)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(round(13 * unit))
    below = top + height + round(11 * unit)
    draw.text((left, below), f"nearer {full:g}", _INK, font, anchor="lm")
    draw.text((left + width, below), f"{full:g} mm farther", _INK, font, anchor="rm")
    return np.array(image)


def with_arrows(picture: Picture, start: NDArray, end: NDArray, colours: Picture) -> Picture:
    """Arrows from places to places (n, 2) in pixels, each in its colour (n, 3), with a dark rim."""
    unit = unit_of(*picture.shape[:2])
    canvas = picture.copy()
    for widest, paint in ((3.6, None), (1.7, colours)):
        thick = max(1, round(widest * unit))
        for a, b, colour in zip(start, end, colours if paint is None else paint, strict=True):
            ink = (20, 22, 28) if paint is None else tuple(int(c) for c in colour)
            _arrow(canvas, a, b, ink, thick, unit)
    return canvas


def _arrow(canvas: Picture, start: NDArray, end: NDArray, ink: tuple[int, ...], thick: int, unit: float) -> None:
    def place(p: NDArray) -> tuple[int, int]:
        x, y = ((p - 0.5) * (1 << _SHIFT)).round().astype(int).tolist()
        return x, y

    length = float(np.hypot(*(end - start)))
    if length < 3 * unit:
        cv2.circle(canvas, place(start), max(1, thick) << (_SHIFT - 1), ink, -1, cv2.LINE_AA, _SHIFT)
        return
    along = (end - start) / length
    across = np.array([-along[1], along[0]])
    head = min(6.5 * unit, 0.55 * length)
    cv2.line(canvas, place(start), place(end), ink, thick, cv2.LINE_AA, _SHIFT)
    for side in (-1, 1):
        cv2.line(canvas, place(end), place(end - head * (along + 0.55 * side * across)), ink, thick, cv2.LINE_AA, _SHIFT)
