"""Small square views of the face in a picture, in linear light, for the photometric fit."""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..camera import Camera

_MARGIN = 0.05  # of the face's size, on each side


@dataclass(frozen=True, eq=False)
class View:
    """A square part of a picture."""

    colours: Tensor  # (side, side, 3) float32 linear, 0..1
    usable: Tensor  # (side, side) bool: wholly inside the picture, and no channel at its end
    camera: Camera


def linear(colours: NDArray[np.uint8]) -> NDArray[np.float32]:
    """sRGB bytes to linear light 0..1 (IEC 61966-2-1)."""
    x = np.arange(256, dtype=np.float32) / 255
    table = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4).astype(np.float32)
    return table[colours]


def face_square(pixels: Tensor) -> tuple[int, int, int]:
    """Left, top and side in pixels of a square around points (N, 2)."""
    low, high = pixels.amin(0), pixels.amax(0)
    side = max(2, math.ceil(float((high - low).max()) * (1 + 2 * _MARGIN)))
    left, top = ((low + high) / 2 - side / 2).floor().int().tolist()
    return left, top, side


def view(image: NDArray[np.uint8], camera: Camera, square: tuple[int, int, int], side: int) -> View:
    """`square` of a picture (H, W, 3), RGB, at `side` pixels. Parts outside the picture are not usable."""
    left, top, size = square
    height, width = image.shape[:2]
    x0, x1, y0, y1 = max(left, 0), min(left + size, width), max(top, 0), min(top + size, height)
    colours = np.zeros((size, size, 3), np.float32)
    usable = np.zeros((size, size), np.float32)
    if x1 > x0 and y1 > y0:
        inside = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
        part = image[y0:y1, x0:x1]
        colours[inside] = linear(part)
        usable[inside] = (part < 255).all(-1) & (part.max(-1) > 0)
    way = cv2.INTER_AREA if side <= size else cv2.INTER_LINEAR
    return View(
        torch.from_numpy(cv2.resize(colours, (side, side), interpolation=way)),
        torch.from_numpy(cv2.resize(usable, (side, side), interpolation=way) > 0.99),
        replace(camera, width=width, height=height).cropped(left, top, size, size).resized(side, side),
    )
