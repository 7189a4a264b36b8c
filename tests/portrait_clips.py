"""Clips composed of real portraits: heads cut out, moved over a background, the later ones in front."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 640, 360


@dataclass(frozen=True)
class Cutout:
    """A head and how much of each pixel is its own; its face's middle lies in the middle."""

    image: np.ndarray  # (n, n, 3) float
    alpha: np.ndarray  # (n, n, 1) 0..1


@cache
def portrait(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB"))


def cut_out(image: np.ndarray, box: tuple[float, float, float, float], face_height: float) -> Cutout:
    """The head around a face's box (left, top, right, bottom), scaled so that the box is `face_height` pixels high."""
    left, top, right, bottom = box
    half = 0.85 * max(right - left, bottom - top)
    side = round(2 * half * face_height / (bottom - top))
    scale = side / (2 * half)
    shift = side / 2 - scale * np.array([(left + right) / 2, (top + bottom) / 2])
    part = cv2.warpAffine(
        image.astype(np.float32), np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]), (side, side),
        flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    y, x = (np.mgrid[:side, :side] + 0.5) / side * 2 - 1
    alpha = np.clip((1 - np.hypot(x / 0.85, y / 0.98)) / 0.1, 0, 1)
    return Cutout(part, alpha[..., None])


def background(seed: int = 0) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) float: soft coloured patches, another for each seed."""
    rng = np.random.default_rng(seed)
    patches = rng.uniform(20, 235, (3, 5, 3)).astype(np.float32)
    return cv2.resize(patches, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).clip(0, 255)


def picture(behind: np.ndarray, heads: Sequence[tuple[Cutout, float, float]]) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) uint8: heads with their middles at (x, y), the later ones in front; they may leave the picture."""
    canvas = behind.copy()
    for head, x, y in heads:
        side = len(head.image)
        move = np.array([[1, 0, x - side / 2], [0, 1, y - side / 2]])
        image = cv2.warpAffine(head.image, move, (WIDTH, HEIGHT))
        alpha = cv2.warpAffine(head.alpha, move, (WIDTH, HEIGHT))[..., None]
        canvas = canvas * (1 - alpha) + image * alpha
    return canvas.round().clip(0, 255).astype(np.uint8)


def crossing(back: Cutout, front: Cutout, frames: int, behind: np.ndarray) -> Iterator[np.ndarray]:
    """`back` walks from left to right, `front` from right to left in front of it."""
    for a, b in crossing_places(frames):
        yield picture(behind, [(back, *a), (front, *b)])


def crossing_places(frames: int) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The middles of the two faces of `crossing` in each frame, in pixels."""
    steps = np.linspace(0, 1, frames)
    return [((110 + 420 * t, 175 + 15 * np.sin(5 * t)), (530 - 420 * t, 185 - 15 * np.sin(4 * t))) for t in steps]
