"""The lash line of a closed eye. In an open eye's photo it is a few dark pixels before the eyeball, which a closing lid
covers; without it a closed eye is a patch of skin."""

import cv2
import numpy as np
from numpy.typing import NDArray

from ..fit import mediapipe_points as mp
from .fields import Array, sample, smoothstep

_UPPER = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (263, 466, 388, 387, 386, 385, 384, 398, 362))
_LOWER = ((33, 7, 163, 144, 145, 153, 154, 155, 133), (263, 249, 390, 373, 374, 380, 381, 382, 362))
"""MediaPipe landmarks along the lids' rims, corner to corner: right eye, left eye."""
_CLOSING = (0.5, 0.95)  # share of the opening that is gone when the line appears, and is whole
_STRENGTH = 0.75


class LashLines:
    """Draws the lash lines of one photo's eyes. `marks` (478, 2) are its landmarks, pixels."""

    def __init__(self, image: NDArray[np.uint8], marks: Array):
        self.width = float(np.linalg.norm(marks[mp.RIGHT_EYE_CORNER] - marks[mp.LEFT_EYE_CORNER])) / 40
        self.openings = [_opening(marks, i) for i in range(2)]
        self.colours = [_dark(image, marks[list(_UPPER[i])], self.width) for i in range(2)]

    def draw(self, colour: NDArray[np.uint8], marks: Array) -> None:
        """Draw them into a frame (h, w, 3), in place; `marks` (478, 2) are the landmarks in its pixels."""
        for i in range(2):
            gone = 1 - _opening(marks, i) / max(self.openings[i], 1e-6)
            strength = _STRENGTH * float(smoothstep(np.float32(gone), *_CLOSING))
            if strength > 0:
                middle = np.asarray(marks[list(_UPPER[i])] + marks[list(_LOWER[i])]) / 2
                self._line(colour, middle.astype(np.float32), self.colours[i], strength)

    def _line(self, colour: NDArray[np.uint8], points: Array, ink: Array, strength: float) -> None:
        pad = int(4 * self.width) + 3
        left, top = np.floor(points.min(0)).astype(int) - pad
        right, bottom = np.ceil(points.max(0)).astype(int) + pad
        left, top = max(left, 0), max(top, 0)
        box = colour[top : max(bottom, top), left : max(right, left)]
        if box.size == 0:
            return
        mask = np.zeros(box.shape[:2], np.uint8)
        line = np.round((points - (left, top)) * 16 - 8).astype(np.int32)
        cv2.polylines(mask, [line], False, 255, max(1, round(self.width)), cv2.LINE_AA, 4)
        share = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), max(0.6, self.width / 3))[..., None] * strength
        box[:] = (box + (ink - box) * share).clip(0, 255).astype(np.uint8)


def _opening(marks: Array, eye: int) -> float:
    """The mean distance between the rims over the eye's width."""
    upper, lower = marks[list(_UPPER[eye])], marks[list(_LOWER[eye])]
    down = np.array([-(upper[-1] - upper[0])[1], (upper[-1] - upper[0])[0]])
    down = down / max(float(np.linalg.norm(down)), 1e-6) * (1 if eye == 0 else -1)
    return float(((lower - upper)[1:-1] @ down).mean() / max(float(np.linalg.norm(upper[-1] - upper[0])), 1e-6))


def _dark(image: NDArray[np.uint8], rim: Array, width: float) -> Array:
    """(3,) the darker colours along a rim."""
    along = np.concatenate([rim[:-1] + (rim[1:] - rim[:-1]) * t for t in (0, 0.25, 0.5, 0.75)])
    near = np.concatenate([along + (0, width * s) for s in (-0.5, 0, 0.5)]).astype(np.float32)
    colours = sample(image, near).astype(np.float32)
    return colours[colours.sum(1) <= np.quantile(colours.sum(1), 0.3)].mean(0)
