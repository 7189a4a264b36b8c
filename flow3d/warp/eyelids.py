"""Closed eyes: the lid's skin and its lash line.

An open eye's photo shows a few pixels of the upper lid, mostly its shadow and its lashes. Drawn out over the eyeball
they become dark streaks. So a lid that is stretched takes the colour of the skin above it, the grain of the skin below
the eye and the shade of its fold, and the lashes are drawn as the line that they are.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from ..fit import mediapipe_points as mp
from .eye_frame import LOWER, UPPER, EyeFrame, opening
from .fields import Array, sample, smoothstep

_CREASE = ((33, 247, 30, 29, 27, 28, 56, 190, 133), (263, 467, 260, 259, 257, 258, 286, 414, 362))
_BELOW_BROW = ((33, 113, 225, 224, 223, 222, 221, 189, 133), (263, 342, 445, 444, 443, 442, 441, 413, 362))
"""MediaPipe landmarks from corner to corner, right eye and left eye: the upper lid's fold, and the skin between it and
the brow."""
_CHEEKS = (50, 280)
_UNDER = 0.15  # eye widths from the lower lid to plain skin
_CLOSING = (0.5, 0.95)  # share of the opening that is gone when the line appears on any eye, and is whole
_STRENGTH = 0.95
_STRETCH = (1.2, 2.0)  # of the upper lid's height, from photo to paint
_PLAIN = 0.3  # of the samples of a column, the brighter: neither shadow nor lash
_LIGHT = 0.16  # how much lighter the lid is where it bulges than at its fold
_FOLD, _FOLD_HEIGHT = 0.16, 0.14  # what the fold's shade takes; of the lid's height
_GRAIN = 3.0  # times its own mean size at most: hairs are no grain


class Eyelids:
    """Draws the closed lids of one photo's eyes. `marks` (478, 2) are its landmarks, pixels."""

    def __init__(self, image: NDArray[np.uint8], marks: Array):
        self.width = float(np.linalg.norm(marks[mp.RIGHT_EYE_CORNER] - marks[mp.LEFT_EYE_CORNER])) / 40
        self.grain, self.corner = _grain(image, marks, self.width)
        self.frames = [EyeFrame.of(marks, i) for i in range(2)]
        self.openings = [opening(marks, i) for i in range(2)]
        self.heights = [_lid_height(marks, i, _COLUMNS) for i in range(2)]
        self.skins = [_skin(image, marks, i) for i in range(2)]
        self.lashes = [_dark(image, marks[list(UPPER[i])], self.width) for i in range(2)]

    def draw(self, colour: NDArray[np.uint8], marks: Array) -> None:
        """Draw them into a frame (h, w, 3), in place; `marks` (478, 2) are the landmarks in its pixels."""
        for i in range(2):
            gone = 1 - opening(marks, i) / max(self.openings[i], 1e-6)
            strength = float(smoothstep(np.float32(gone), *_CLOSING))
            if gone > 0.05:
                self._draw_eye(colour, marks, i, strength * _STRENGTH)

    def _draw_eye(self, colour: NDArray[np.uint8], marks: Array, i: int, line: float) -> None:
        """One eye: the lid as far as it is stretched, which hides the photo's lashes, and a lash line on its rim instead;
        `line` is the least strength of it."""
        axes = EyeFrame.of(marks, i)
        box = _box(marks[list(UPPER[i] + LOWER[i] + _CREASE[i])], int(4 * self.width) + 3, colour.shape)
        part = colour[box]
        if part.size == 0:
            return
        y, x = np.mgrid[box].astype(np.float32) + 0.5
        along, down = np.moveaxis(axes.of_points(np.stack([x, y], -1)), -1, 0)
        rim, fold, lower = (axes.curve(marks, names, along) for names in (UPPER[i], _CREASE[i], LOWER[i]))
        inside = smoothstep(along, -0.02, 0.18) * (1 - smoothstep(along, 0.82, 1.02))
        stretched = smoothstep(_lid_height(marks, i, _COLUMNS) / self.heights[i], *_STRETCH)[None]
        stretched = np.interp(along, _COLUMNS, cv2.GaussianBlur(stretched, (0, 0), 1.2, borderType=cv2.BORDER_REPLICATE)[0])
        height = np.maximum(rim - fold, 1e-3)
        v = (down - fold) / height
        edge = 1 - smoothstep(down - rim, -0.5, 0.5)
        share = stretched * inside * smoothstep(v, -0.5, 0.4) * edge
        skin = np.stack([np.interp(along, _COLUMNS, c) for c in self.skins[i].T], -1)
        form = _LIGHT * (np.sin(np.pi * v.clip(0, 1)) - 0.5) - _FOLD * np.exp(-((v / _FOLD_HEIGHT) ** 2))
        skin = skin * (1 + form)[..., None] + self._grain_at(i, along, down - fold)
        mixed = part + (skin - part) * share[..., None]
        away = np.abs(down - np.minimum(rim, (rim + lower) / 2)) / max(0.5 * self.width, 0.6)
        ends = smoothstep(along, -0.02, 0.06) * (1 - smoothstep(along, 0.94, 1.02))
        ink = np.maximum(line, _STRENGTH * stretched * inside) * np.exp(-(away**2)) * ends
        part[:] = (mixed + (self.lashes[i] - mixed) * ink[..., None]).clip(0, 255).astype(np.uint8)

    def _grain_at(self, i: int, along: Array, below: Array) -> Array:
        """(h, w, 3) the photo's grain under an eye, for places (h, w) along the eye and pixels below its fold."""
        frame = self.frames[i]
        down = (_UNDER + self.openings[i]) * frame.length + below
        points = frame.origin + along[..., None] * frame.along + down[..., None] * frame.down
        return sample(self.grain, (points - self.corner).reshape(-1, 2).astype(np.float32)).reshape(*along.shape, 3)


_COLUMNS = np.linspace(0.08, 0.92, 9, dtype=np.float32)


def _box(points: Array, pad: int, size: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns about points (n, 2), within an image of that size."""
    left, top = np.maximum(np.floor(points.min(0)).astype(int) - pad, 0)
    right, bottom = np.ceil(points.max(0)).astype(int) + pad
    return slice(top, max(min(bottom, size[0]), top)), slice(left, max(min(right, size[1]), left))


def _lid_height(marks: Array, eye: int, at: Array) -> Array:
    """How high the upper lid stands between its fold and its rim, over the eye's width, at shares of the way along."""
    axes = EyeFrame.of(marks, eye)
    height = axes.curve(marks, UPPER[eye], at) - axes.curve(marks, _CREASE[eye], at)
    return np.maximum(height / axes.length, 0.02)


def _grain(image: NDArray[np.uint8], marks: Array, width: float) -> tuple[Array, Array]:
    """The fine detail of the photo under both eyes (h, w, 3), and where it begins (2,)."""
    box = _box(marks[list(LOWER[0] + LOWER[1] + _CHEEKS)], int(4 * width) + 3, image.shape)
    part = image[box].astype(np.float32)
    if part.size == 0:
        return np.zeros((1, 1, 3), np.float32), np.zeros(2, np.float32)
    detail = part - cv2.GaussianBlur(part, (0, 0), max(0.6 * width, 0.8))
    most = _GRAIN * float(np.median(np.abs(detail)))
    return detail.clip(-most, most), np.array([box[1].start, box[0].start], np.float32)


def _skin(image: NDArray[np.uint8], marks: Array, eye: int) -> Array:
    """(9, 3) the lid's colour at `_COLUMNS`: the brighter half of what lies between its fold and the brow, smoothed."""
    axes = EyeFrame.of(marks, eye)
    fold, brow = (axes.curve(marks, names[eye], _COLUMNS) for names in (_CREASE, _BELOW_BROW))
    down = fold + (brow - fold) * np.linspace(0, 0.8, 7, dtype=np.float32)[:, None]
    points = axes.origin + _COLUMNS[None, :, None] * axes.along + down[..., None] * axes.down
    colours = sample(image, points.reshape(-1, 2).astype(np.float32)).astype(np.float32).reshape(7, 9, 3)
    bright = colours.sum(-1) >= np.quantile(colours.sum(-1), 1 - _PLAIN, axis=0)
    mean = (colours * bright[..., None]).sum(0) / bright.sum(0)[:, None]
    return cv2.GaussianBlur(mean[None], (0, 0), 1.5, borderType=cv2.BORDER_REPLICATE)[0]


def _dark(image: NDArray[np.uint8], rim: Array, width: float) -> Array:
    """(3,) the darker colours along a rim."""
    along = np.concatenate([rim[:-1] + (rim[1:] - rim[:-1]) * t for t in (0, 0.25, 0.5, 0.75)])
    near = np.concatenate([along + (0, width * s) for s in (-0.5, 0, 0.5)]).astype(np.float32)
    colours = sample(image, near).astype(np.float32)
    return colours[colours.sum(1) <= np.quantile(colours.sum(1), 0.3)].mean(0)
