"""A face as the fit sees it, whoever found it: MediaPipe's 478 points, or iBUG's 68."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy.spatial.transform import Rotation

from ..camera import Camera
from ..errors import InputError
from ..head.model import FLIP
from . import mediapipe_points as mp

N_SCORES = len(mp.BLENDSHAPES)
_RIGHT_EYE, _LEFT_EYE, _MOUTH = (33, 133), (263, 362), (61, 291)
_RIGHT_EYE68, _LEFT_EYE68, _MOUTH68 = (36, 39), (42, 45), (48, 54)


def _none68() -> np.ndarray:
    return np.full((68, 2), np.nan)


@dataclass(frozen=True, eq=False)
class Face:
    """One face, in the pixels of the picture it was found in (x right, y down, pixel centres at +0.5).

    NaN stands for what is not known: a point that was not seen, depth or scores that the detector does not tell. The 68
    points follow the contour that is seen, as dlib's and face-alignment's 2D ones do.
    """

    points: np.ndarray  # (478, 2) float64 pixels, MediaPipe's points
    depth: np.ndarray  # (478,) float64 MediaPipe's relative z in pixels, smaller is nearer
    scores: np.ndarray  # (51,) float64 ARKit blend shapes 0..1, alphabetical, without tongueOut
    matrix: np.ndarray | None  # (4, 4) MediaPipe's canonical face (cm, y up) before a camera that looks at the face
    confidence: float  # 0..1, the detector's score
    points68: np.ndarray = field(default_factory=_none68)  # (68, 2) float64 pixels, iBUG's points

    @classmethod
    def of478(cls, points: np.ndarray, confidence: float = 1.0) -> "Face":
        """A face of which only (478, 2) points are known."""
        return cls(points, np.full(mp.N_POINTS, np.nan), np.full(N_SCORES, np.nan), None, confidence)

    @classmethod
    def of68(cls, points: np.ndarray, confidence: float = 1.0) -> "Face":
        """A face of which only (68, 2) points are known."""
        none = np.full((mp.N_POINTS, 2), np.nan)
        return cls(none, none[:, 0], np.full(N_SCORES, np.nan), None, confidence, points)

    @property
    def dense(self) -> bool:
        """Whether any of the 478 points is known."""
        return bool(np.isfinite(self.points).any())

    @property
    def seen(self) -> np.ndarray:
        """(n, 2) the points that are known, in pixels."""
        points = np.concatenate([self.points, self.points68])
        return points[np.isfinite(points).all(1)]

    @cached_property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the points, in pixels."""
        (left, top), (right, bottom) = self.seen.min(0), self.seen.max(0)
        return float(left), float(top), float(right), float(bottom)

    @property
    def size(self) -> float:
        """The longer side of the box, in pixels."""
        left, top, right, bottom = self.box
        return max(right - left, bottom - top)

    @cached_property
    def centre(self) -> np.ndarray:
        """(2,) mean of the points, in pixels."""
        return self.seen.mean(0)

    @cached_property
    def features(self) -> np.ndarray:
        """(3, 2) pixels: the middles of the subject's right eye, left eye and mouth; NaN where not known."""
        dense = [self.points[list(pair)].mean(0) for pair in (_RIGHT_EYE, _LEFT_EYE, _MOUTH)]
        sparse = [self.points68[list(pair)].mean(0) for pair in (_RIGHT_EYE68, _LEFT_EYE68, _MOUTH68)]
        return np.where(np.isfinite(dense), dense, sparse)

    @property
    def roll(self) -> float:
        """Radians by which the face is turned in the picture, clockwise as one looks at it, by its eyes and mouth.

        0 where fewer than two of these are known.
        """
        right, left, mouth = self.features
        across = left - right
        eyes = [eye for eye in (right, left) if np.isfinite(eye).all()]
        down = mouth - np.mean(eyes, axis=0) if eyes else np.full(2, np.nan)
        return float(np.arctan2(np.nansum([across[1], -down[0]]), np.nansum([across[0], down[1]])))

    def turn(self, camera: Camera) -> np.ndarray:
        """(3, 3) the head's rotation by MediaPipe's matrix, in the frame of the camera that sees the picture.

        The matrix is measured in a view that looks straight at the face: a face away from the picture's centre that
        looks into the camera has the identity there, and is turned here. Without a matrix the face is taken to look into
        the camera, rolled as its eyes and mouth are.
        """
        left, top, right, bottom = self.box
        ray = np.array([(left + right) / 2 - camera.cx, (top + bottom) / 2 - camera.cy, camera.focal])
        view = looking_along(ray)
        if self.matrix is None:
            return view @ Rotation.from_rotvec([0.0, 0.0, self.roll]).as_matrix()
        flip = np.diag(FLIP)
        scaled = self.matrix[:3, :3]
        return view @ flip @ (scaled / np.linalg.norm(scaled, axis=0)) @ flip


def looking_along(ray: np.ndarray) -> np.ndarray:
    """(3, 3) the shortest rotation that takes the view's axis z to `ray` (3,)."""
    x, y, z = ray / np.linalg.norm(ray)
    if z <= -1 + 1e-12:
        return np.diag([1.0, -1.0, -1.0])
    skew = np.array([[0.0, 0.0, x], [0.0, 0.0, y], [-x, -y, 0.0]])  # of the axis (0, 0, 1) x ray
    return np.eye(3) + skew + skew @ skew / (1 + z)


class FaceDetector(Protocol):
    """What finds faces in pictures, (H, W, 3) uint8 RGB; also what plays back landmarks that are known already."""

    def detect(self, image: np.ndarray) -> list[Face]:
        """The faces in a picture, the largest first; none: an empty list. Raises InputError for what is no picture."""
        ...

    def refine(self, image: np.ndarray, face: Face) -> Face:
        """The same face with steadier points, for a still; `face` itself where nothing is gained."""
        ...

    def score(self, image: np.ndarray) -> float:
        """The best score, 0..1, of anything like a face: what to tell where `detect` has none."""
        ...


def check_picture(image: np.ndarray) -> None:
    """Raises InputError for what is not an RGB image (H, W, 3) of uint8."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"Face detection needs an RGB image (H, W, 3) of uint8, not {image.shape} {image.dtype}.")
