"""Faces in a picture: MediaPipe's face detector finds them, its landmarker reads 478 points on a crop around each.

The landmarker alone shows its network whatever its own detector cut from the whole picture. A crop of a fixed size
relative to the face costs about the same, steadies the points (moving six portraits by a few pixels moves them by 0.28%
of the distance between the eyes instead of 0.42%), and a face is read alike at any size and place.
"""

import contextlib
import os
import sys
import weakref
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

from ..errors import Flow3DError
from .faces import Face, check_picture

_DETECTOR_SIDE = 256  # pixels of a picture shown to the detector, whose network sees 128
_CROP_SIDE = 512  # pixels at most of a crop shown to the landmarker, whose networks see 256 and less
_CROP = 2.2  # side of that crop over the detected box's
_SMALLEST_TILE = 192  # pixels: a face that needs smaller tiles to be found is too small to read
_FAINT = 0.05  # detector scores below this are noise
_SURE = 0.6  # what a face in a tile must score at least: many tiles are many chances to be wrong


@dataclass(frozen=True)
class _Square:
    """A square region of a picture, in its pixels, and the detector's score for a face in it."""

    x: float  # centre
    y: float
    side: float
    score: float = 0.0

    def scaled(self, factor: float) -> "_Square":
        return replace(self, side=self.side * factor)

    def overlaps(self, other: "_Square") -> bool:
        reach = 0.35 * max(self.side, other.side)
        return abs(self.x - other.x) < reach and abs(self.y - other.y) < reach


class MediaPipeDetector:
    """MediaPipe's face landmarker on single pictures: what it finds in a frame never depends on other frames.

    Not for several threads at once. Close it, or use it as a context manager.

    Args:
        model: path of `face_landmarker.task`.
        max_faces: how many faces `detect` returns at most.
        min_confidence: 0..1, faces that the detector scores below it are not reported.

    Raises:
        Flow3DError: the model file cannot be read.
    """

    def __init__(self, model: Path, max_faces: int = 1, min_confidence: float = 0.3) -> None:
        self.max_faces, self.min_confidence = max_faces, min_confidence
        try:
            data = Path(model).read_bytes()
            with zipfile.ZipFile(model) as bundle:
                detector = bundle.read("face_detector.tflite")
            with _native_chatter_off():
                self._detector = vision.FaceDetector.create_from_options(
                    vision.FaceDetectorOptions(
                        BaseOptions(model_asset_buffer=detector), min_detection_confidence=_FAINT
                    )
                )
                self._landmarker = vision.FaceLandmarker.create_from_options(
                    vision.FaceLandmarkerOptions(
                        BaseOptions(model_asset_buffer=data),
                        num_faces=2,  # a neighbour may look into the crop
                        min_face_detection_confidence=min(min_confidence, 0.3),
                        min_face_presence_confidence=min(min_confidence, 0.5),
                        output_face_blendshapes=True,
                        output_facial_transformation_matrixes=True,
                    )
                )
                blank = _as_mediapipe(np.zeros((_DETECTOR_SIDE, _DETECTOR_SIDE, 3), np.uint8))
                self._detector.detect(blank)
                self._landmarker.detect(blank)
            self._free = weakref.finalize(self, _close_quietly, self._detector, self._landmarker)
            self._has_read = False
        except (OSError, KeyError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
            raise Flow3DError(
                f"{Path(model)}: MediaPipe cannot load this file ({error}); delete it and download it again with "
                "'flow3d doctor --download'."
            ) from error

    def __enter__(self) -> "MediaPipeDetector":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free MediaPipe's networks. The detector is of no use afterwards; closing it twice does no harm."""
        self._free()

    def detect(self, image: np.ndarray) -> list[Face]:
        """Faces in `image` (H, W, 3) uint8 RGB, the largest first, at most `max_faces`; none: an empty list.

        Looks at the whole picture; only where that shows no face, for one that fills the frame and in tiles for a
        small one. Raises InputError where the array is not such an image.
        """
        check_picture(image)
        with contextlib.nullcontext() if self._has_read else _native_chatter_off():  # the first face warns, at times
            faces = self._detect(image)
        self._has_read = self._has_read or bool(faces)
        return faces

    def _detect(self, image: np.ndarray) -> list[Face]:
        for regions in _passes(image):
            least = self.min_confidence if len(regions) == 1 else max(self.min_confidence, _SURE)
            faces = self._read(image, self._find(image, regions, least))
            if faces:
                return faces
        return []

    def score(self, image: np.ndarray) -> float:
        """The detector's best score, 0..1, for any face in the whole of `image`: what to tell where `detect` has none."""
        check_picture(image)
        return max((s.score for s in self._search(image, _whole(image))), default=0.0)

    def refine(self, image: np.ndarray, face: Face, views: int = 8) -> Face:
        """The same face read again on `views` slightly different crops, and averaged: steadier points for a still.

        Measured on six portraits: 0.28% of the distance between the eyes of jitter becomes 0.07%. A view costs about
        8 ms. The matrix is that of the first view. Returns `face` itself where no crop shows it.
        """
        check_picture(image)
        left, top, right, bottom = face.box
        home = _Square((left + right) / 2, (top + bottom) / 2, face.size, face.confidence)
        seen = []
        for i in range(views):
            angle, turn = 2.399963 * i, i / max(views - 1, 1)  # the golden angle: directions spread evenly
            shift = 0.12 * home.side * turn**0.5
            crop = replace(home, x=home.x + shift * np.cos(angle), y=home.y + shift * np.sin(angle))
            found = self._landmarks(image, crop.scaled(1.6 + 0.6 * (i * 0.618 % 1)), home)
            if found is not None:
                seen.append(found)
        if not seen:
            return face
        return replace(
            seen[0],
            points=np.mean([f.points for f in seen], 0),
            depth=np.mean([f.depth for f in seen], 0),
            scores=np.mean([f.scores for f in seen], 0),
        )

    def _find(self, image: np.ndarray, regions: list[_Square], least: float) -> list[_Square]:
        """Squares around faces that score `least` or more in any of the regions, the largest first, each face once."""
        found: list[_Square] = []
        candidates = [s for region in regions for s in self._search(image, region) if s.score >= least]
        for square in sorted(candidates, key=lambda s: s.score, reverse=True):
            if not any(square.overlaps(other) for other in found):
                found.append(square)
        return sorted(found, key=lambda s: s.side, reverse=True)

    def _search(self, image: np.ndarray, region: _Square) -> list[_Square]:
        """What the detector takes for faces in one region, faint ones too."""
        cut = _cut(image, region, _DETECTOR_SIDE)
        if region.side > max(image.shape[:2]):
            cut = _framed(cut)
        found = []
        for detection in self._detector.detect(_as_mediapipe(cut.image)).detections:
            box = detection.bounding_box
            x, y = cut.back(box.origin_x + box.width / 2, box.origin_y + box.height / 2)
            side = max(box.width / cut.scale[0], box.height / cut.scale[1])
            found.append(_Square(float(x), float(y), side, detection.categories[0].score))
        return found

    def _read(self, image: np.ndarray, squares: list[_Square]) -> list[Face]:
        """The faces in the first of the squares, until there are `max_faces`; the largest first."""
        faces: list[Face] = []
        for square in squares:
            face = self._landmarks(image, square.scaled(_CROP), square)
            if face is not None:
                faces.append(face)
            if len(faces) == self.max_faces:
                break
        return sorted(faces, key=lambda f: f.size, reverse=True)

    def _landmarks(self, image: np.ndarray, region: _Square, near: _Square) -> Face | None:
        """The face in the region that `near` means, or None where none lies there."""
        cut = _cut(image, region, _CROP_SIDE)
        height, width = cut.image.shape[:2]
        result = self._landmarker.detect(_as_mediapipe(cut.image))
        faces = []
        for landmarks, blendshapes, matrix in zip(
            result.face_landmarks, result.face_blendshapes, result.facial_transformation_matrixes, strict=True
        ):
            x, y, z = np.array([(p.x, p.y, p.z) for p in landmarks]).T
            points = np.stack(cut.back(x * width, y * height), -1)
            scores = np.array([c.score for c in blendshapes[1:]])
            faces.append(Face(points, z * width / cut.scale[0], scores, np.array(matrix, np.float64), near.score))
        return _meant(faces, near)


def _meant(faces: list[Face], square: _Square) -> Face | None:
    """The face that covers a detected square best, or None where none lies there. The landmarker may find a second, smaller
    face within a face, whose middle is even nearer."""
    best = max(faces, key=lambda f: _shared(f.box, square), default=None)
    return best if best is not None and np.linalg.norm(best.centre - (square.x, square.y)) < square.side else None


def _shared(box: tuple[float, float, float, float], square: _Square) -> float:
    """0..1, the intersection of a box (left, top, right, bottom) and a square over their union."""
    left, top, right, bottom = box
    half = square.side / 2
    width = min(right, square.x + half) - max(left, square.x - half)
    height = min(bottom, square.y + half) - max(top, square.y - half)
    both = max(width, 0) * max(height, 0)
    return both / ((right - left) * (bottom - top) + square.side**2 - both)


def _as_mediapipe(image: np.ndarray) -> mediapipe.Image:
    return mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(image))


def _whole(image: np.ndarray) -> _Square:
    height, width = image.shape[:2]
    return _Square(width / 2, height / 2, max(height, width))


def _passes(image: np.ndarray) -> Iterator[list[_Square]]:
    """Where to look, pass by pass: the whole picture; a wider view, for a face that fills it; tiles, ever smaller.

    The detector sees faces between a tenth of its picture and all of it (measured).
    """
    whole = _whole(image)
    yield [whole]
    yield [whole.scaled(1.6)]
    side = min(whole.side / 2, 1.0 * min(image.shape[:2]))
    while side >= _SMALLEST_TILE and side >= whole.side / 4:
        yield [_Square(x, y, side) for y in _steps(image.shape[0], side) for x in _steps(image.shape[1], side)]
        side /= 2


def _steps(length: int, side: float) -> np.ndarray:
    """Centres of tiles of `side` that cover `length` and overlap by half."""
    count = max(1, int(np.ceil((length - side) / (side / 2))) + 1) if length > side else 1
    return np.linspace(side / 2, length - side / 2, count) if count > 1 else np.array([length / 2])


class _Cut(NamedTuple):
    """A region of a picture as it is shown to a network, and the way back."""

    image: np.ndarray
    left: float
    top: float
    scale: tuple[float, float]  # pixels of the cut for one of the picture

    def back(self, x: float | np.ndarray, y: float | np.ndarray) -> tuple[float | np.ndarray, float | np.ndarray]:
        """Pixels of the cut to pixels of the picture."""
        return self.left + x / self.scale[0], self.top + y / self.scale[1]


def _cut(image: np.ndarray, region: _Square, most: int) -> _Cut:
    """The region's part inside the image, shrunk to at most `most` pixels a side."""
    height, width = image.shape[:2]
    half = region.side / 2
    left, right = max(round(region.x - half), 0), min(round(region.x + half), width)
    top, bottom = max(round(region.y - half), 0), min(round(region.y + half), height)
    left, top = min(left, width - 1), min(top, height - 1)
    part = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    scale = min(1.0, most / max(part.shape[:2]))
    if scale == 1:
        return _Cut(part, left, top, (1.0, 1.0))
    size = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    return _Cut(small, left, top, (size[0] / part.shape[1], size[1] / part.shape[0]))


def _framed(cut: _Cut) -> _Cut:
    """The cut with a grey border as wide as a third of its sides."""
    height, width = cut.image.shape[:2]
    x, y = width // 3, height // 3
    image = cv2.copyMakeBorder(cut.image, y, y, x, x, cv2.BORDER_CONSTANT, value=(128, 128, 128))
    return _Cut(image, cut.left - x / cut.scale[0], cut.top - y / cut.scale[1], cut.scale)


def _close_quietly(*tasks: vision.FaceDetector | vision.FaceLandmarker) -> None:
    with _native_chatter_off():
        for task in tasks:
            try:
                task.close()
            except (
                RuntimeError
            ):  # the interpreter is exiting and took MediaPipe's thread: its own __del__ would raise too
                task._handle = None


@contextlib.contextmanager
def _native_chatter_off() -> Iterator[None]:
    """Keep what MediaPipe's native code prints on start-up off the terminal; no setting of its own does."""
    try:
        kept = os.dup(2)
    except OSError:  # a program without a terminal has no stderr
        yield
        return
    if sys.stderr is not None:
        sys.stderr.flush()
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)
