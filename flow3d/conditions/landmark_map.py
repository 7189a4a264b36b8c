"""Face contours drawn on black, in the lines and colours that MediaPipe-face ControlNets are trained on (CrucibleAI's
ControlNetMediaPipeFace)."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..fit import mediapipe_points as mp
from ..flow.field import ALL, Frames
from .base import PosedHead

LEFT_BROW = ((276, 283, 282, 295, 285), (300, 293, 334, 296, 336))
RIGHT_BROW = ((46, 53, 52, 65, 55), (70, 63, 105, 66, 107))
"""The lower and the upper edge of each eyebrow."""


def _ring(points: tuple[int, ...]) -> tuple[int, ...]:
    return (*points, points[0])


LINES: tuple[tuple[tuple[int, ...], tuple[int, int, int]], ...] = (
    (_ring(mp.OVAL), (10, 200, 10)),
    (_ring(mp.LEFT_EYE), (10, 200, 180)),
    *((edge, (10, 220, 180)) for edge in LEFT_BROW),
    (_ring(mp.RIGHT_EYE), (180, 200, 10)),
    *((edge, (180, 220, 10)) for edge in RIGHT_BROW),
    (_ring(mp.OUTER_LIPS), (10, 180, 10)),
    (_ring((*mp.INNER_LIP_UPPER, *mp.INNER_LIP_LOWER[-2:0:-1])), (10, 180, 10)),
)
"""Chains of landmarks and their RGB, in the order in which they are drawn."""
PUPILS = ((mp.RIGHT_IRIS[0], (250, 200, 10)), (mp.LEFT_IRIS[0], (10, 200, 250)))
_DRAWN_FOR = 512  # pixels: on a picture with such a short side lines are 2 pixels thick and pupils squares of 4


def draw_contours(points: NDArray[np.float64], width: int, height: int) -> NDArray[np.uint8]:
    """The contours of one face.

    Args:
        points: (478, 2) pixels of a picture of `width` x `height`, pixel centres at +0.5.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    image = np.zeros((height, width, 3), np.uint8)
    pen = max(1, round(2 * min(width, height) / _DRAWN_FOR))
    places = np.clip(np.floor(points), -(2**15), 2**15).astype(np.int32)
    for chain, colour in LINES:
        cv2.polylines(image, [places[list(chain)]], False, colour, pen)
    for pupil, colour in PUPILS:
        left, top = np.maximum(places[pupil] - pen, 0)
        right, bottom = np.maximum(places[pupil] + pen, 0)
        image[top:bottom, left:right] = colour
    return image


@dataclass(frozen=True, eq=False)
class LandmarkMap:
    """The drawn contours of a head. All are drawn, hidden ones too, as a detector sees a face. Raises InputError where the
    head model has no dense landmarks."""

    posed: PosedHead

    def __post_init__(self) -> None:
        self.posed.head.dense  # noqa: B018 - refuses a head without them before the first frame

    @property
    def channels(self) -> int:
        return 3

    def __len__(self) -> int:
        return len(self.posed)

    def encode(self, frames: Frames = ALL) -> Tensor:
        """(n, 3, H, W) float32, 0..1: red, green, blue."""
        posed = self.posed
        vertices = posed.vertices(frames)
        marks = posed.camera.project(posed.head.dense.on(vertices, posed.head.faces)).double().cpu().numpy()
        images = np.zeros((len(marks), posed.camera.height, posed.camera.width, 3), np.uint8)
        for image, points in zip(images, marks, strict=True):
            image[:] = draw_contours(points, posed.camera.width, posed.camera.height)
        return torch.from_numpy(images).to(vertices.device).movedim(-1, 1).float() / 255
