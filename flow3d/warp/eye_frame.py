"""Coordinates of one eye of a face, told from its landmarks."""

from dataclasses import dataclass

import numpy as np

from .fields import Array

UPPER = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (263, 466, 388, 387, 386, 385, 384, 398, 362))
LOWER = ((33, 7, 163, 144, 145, 153, 154, 155, 133), (263, 249, 390, 373, 374, 380, 381, 382, 362))
"""MediaPipe landmarks of the lids' rims, from the outer corner to the inner: right eye and left eye."""


@dataclass(frozen=True, eq=False)
class EyeFrame:
    """Along the eye from the outer corner (0) to the inner (1), and down from the line of the corners, in pixels."""

    origin: Array
    along: Array  # (2,) pixels
    down: Array  # (2,) of length 1

    @classmethod
    def of(cls, marks: Array, eye: int) -> "EyeFrame":
        """The frame of the right (0) or left (1) eye of landmarks (478, 2)."""
        outer, inner = marks[UPPER[eye][0]], marks[UPPER[eye][-1]]
        along = inner - outer
        down = np.array([-along[1], along[0]], np.float32) * (1 if eye == 0 else -1)
        return cls(outer, along, down / np.float32(max(float(np.linalg.norm(down)), 1e-6)))

    @property
    def length(self) -> float:
        return max(float(np.linalg.norm(self.along)), 1e-6)

    def of_points(self, points: Array) -> Array:
        """Pixels (..., 2) to (..., 2): share of the way along, pixels down."""
        away = points - self.origin
        return np.stack([away @ self.along / self.length**2, away @ self.down], -1)

    def curve(self, marks: Array, names: tuple[int, ...], at: Array) -> Array:
        """How far down the curve through the named landmarks runs, pixels, at shares of the way along."""
        along, down = self.of_points(marks[list(names)]).T
        order = np.argsort(along)
        return np.interp(at, along[order], down[order]).astype(np.float32)


def opening(marks: Array, eye: int) -> float:
    """The mean distance between the rims over the eye's width."""
    frame = EyeFrame.of(marks, eye)
    upper, lower = (frame.of_points(marks[list(names[eye])])[1:-1, 1] for names in (UPPER, LOWER))
    return float((lower - upper).mean() / frame.length)
