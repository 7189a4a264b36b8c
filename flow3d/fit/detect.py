"""Faces in a picture, by MediaPipe's face landmarker: 478 points, expression scores and a head matrix each."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

from ..errors import Flow3DError, InputError

N_POINTS, N_SCORES = 478, 51
LONGEST, SHORTEST = 1280, 256
"""Pixels: larger pictures are shrunk before detection, smaller ones enlarged."""


@dataclass(frozen=True, eq=False)
class Face:
    """One detected face, in the pixels of the picture it was found in (x right, y down, pixel centres at +0.5)."""

    points: np.ndarray  # (478, 2) float64 pixels
    depth: np.ndarray  # (478,) float64 MediaPipe's relative z in pixels, smaller is nearer
    scores: np.ndarray  # (51,) ARKit blend shapes 0..1, alphabetical, without tongueOut
    matrix: np.ndarray | None  # (4, 4) MediaPipe's canonical face (cm, y up) to a camera that looks along -z
    confidence: float  # 0..1, the face detector's score

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the points, in pixels."""
        (left, top), (right, bottom) = self.points.min(0), self.points.max(0)
        return float(left), float(top), float(right), float(bottom)

    @property
    def size(self) -> float:
        """The longer side of the box, in pixels."""
        left, top, right, bottom = self.box
        return max(right - left, bottom - top)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what native code prints on start-up off the terminal; no environment variable does."""
    sys.stderr.flush()
    kept = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


class MediaPipeDetector:
    """MediaPipe's face landmarker on single pictures: a frame's result never depends on the frame before.

    Not for several threads at once. Close it, or use it as a context manager.

    Args:
        model: path of `face_landmarker.task`. max_faces: how many faces `detect` returns at most.
        min_confidence: 0..1, faces below it are not reported.

    Raises:
        Flow3DError: the model file cannot be read.
    """

    def __init__(self, model: Path, max_faces: int = 1, min_confidence: float = 0.3) -> None:
        try:
            data = Path(model).read_bytes()
            options = vision.FaceLandmarkerOptions(
                BaseOptions(model_asset_buffer=data),
                num_faces=max(max_faces, 2),
                min_face_detection_confidence=min_confidence,
                min_face_presence_confidence=min_confidence,
                output_face_blendshapes=True,
                output_facial_transformation_matrixes=True,
            )
            with _quiet():
                self._landmarker = vision.FaceLandmarker.create_from_options(options)
                self._run(np.zeros((SHORTEST, SHORTEST, 3), np.uint8))
        except (OSError, RuntimeError, ValueError) as error:
            raise Flow3DError(f"{Path(model).name}: MediaPipe cannot load it ({error}); download it again.") from error
        self.max_faces = max_faces

    def __enter__(self) -> "MediaPipeDetector":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._landmarker.close()

    def _run(self, image: np.ndarray) -> vision.FaceLandmarkerResult:
        return self._landmarker.detect(mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(image)))

    def detect(self, image: np.ndarray) -> list[Face]:
        """Faces in `image` (H, W, 3) uint8 RGB, the largest first, at most `max_faces`; none: an empty list.

        Raises InputError where the array is not such an image.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise InputError(f"Face detection needs an RGB image (H, W, 3) of uint8, not {image.shape} {image.dtype}.")
        height, width = image.shape[:2]
        result = self._run(_at_detection_size(image))
        faces = [
            _face(*parts, width, height)
            for parts in zip(result.face_landmarks, result.face_blendshapes, result.facial_transformation_matrixes)
        ]
        return sorted(faces, key=lambda f: f.size, reverse=True)[: self.max_faces]


def _at_detection_size(image: np.ndarray) -> np.ndarray:
    """The image with its sides between SHORTEST and LONGEST where its aspect ratio lets them be."""
    height, width = image.shape[:2]
    scale = min(LONGEST / max(height, width), max(1.0, SHORTEST / min(height, width)))
    if scale == 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _face(landmarks: list, blendshapes: list, matrix: np.ndarray, width: int, height: int) -> Face:
    xyz = np.array([(p.x, p.y, p.z) for p in landmarks])
    return Face(
        points=xyz[:, :2] * (width, height),
        depth=xyz[:, 2] * width,
        scores=np.array([c.score for c in blendshapes[1:]]),
        matrix=np.array(matrix, dtype=np.float64),
        confidence=1.0,
    )
