"""Landmarks that are known before: by hand, from another program, or from another node."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from .faces import Face


@dataclass(frozen=True, eq=False)
class Landmarks:
    """The faces in each picture of a clip, as a file or another node gives them."""

    name: str  # for messages
    frames: Sequence[Sequence[Face]]  # in units of which `extent` make the picture's sides
    extent: tuple[float, float] | None  # width, height of the picture; None: points are its pixels, whatever its size

    def faces(self, frame: int, width: int, height: int) -> list[Face]:
        """The faces of one frame, the largest first, in the pixels of a picture of `width` x `height`.

        Raises InputError where the frame is not there, the picture has another form, or the points lie far off it.
        """
        if frame >= len(self.frames):
            raise InputError(
                f"{self.name}: landmarks of {len(self.frames)} frames, but the clip goes on. Give landmarks for every frame "
                "(null where there is no face), or shorten the clip."
            )
        faces = [_scaled(face, *self._scale(width, height)) for face in self.frames[frame]]
        for face in faces:
            self._check(face, frame, width, height)
        return sorted(faces, key=lambda f: f.size, reverse=True)

    def _scale(self, width: int, height: int) -> tuple[float, float]:
        if self.extent is None:
            return 1.0, 1.0
        x, y = width / self.extent[0], height / self.extent[1]
        if self.extent != (1.0, 1.0) and abs(x / y - 1) > 0.02:
            raise InputError(
                f"{self.name}: the landmarks belong to a picture of {self.extent[0]:g} x {self.extent[1]:g} pixels, but the picture "
                f"has {width} x {height}. Use the picture that they were found in."
            )
        return x, y

    def _check(self, face: Face, frame: int, width: int, height: int) -> None:
        side = max(width, height)
        if face.size < 2:
            raise InputError(
                f"{self.name}: the face in frame {frame} is {face.size:.2g} pixels large. Set the units of "
                "points from 0 to 1 to 'normalised'."
            )
        if np.linalg.svd(face.seen - face.seen.mean(0), compute_uv=False)[1] < 0.02 * face.size * len(face.seen) ** 0.5:
            raise InputError(f"{self.name}: the points of frame {frame} lie on a line. Place them on a face.")
        if np.abs(face.seen - (width / 2, height / 2)).max() > 10 * side:
            raise InputError(
                f"{self.name}: points of frame {frame} lie far outside the picture of {width} x {height} pixels. Correct them, or "
                "units, width and height."
            )

    def of_picture(self, width: int, height: int) -> "Landmarks":
        """The same landmarks; where they are pixels of a picture that is not named, of one of `width` x `height`."""
        return self if self.extent is not None else replace(self, extent=(float(width), float(height)))


class GivenFaces:
    """A detector that looks at no picture: landmarks played back, one frame a call. A `FaceDetector`."""

    def __init__(self, landmarks: Landmarks):
        self.landmarks = landmarks
        self.frames = 0  # played back so far

    def detect(self, image: np.ndarray) -> list[Face]:
        """The next frame's faces, in pixels of `image` (H, W, 3). Raises InputError as `Landmarks.faces` does."""
        height, width = image.shape[:2]
        self.frames += 1
        return self.landmarks.faces(self.frames - 1, width, height)

    def refine(self, image: np.ndarray, face: Face) -> Face:
        return face

    def score(self, image: np.ndarray) -> float:
        return 0.0

    @property
    def left(self) -> int:
        """Frames that have not been played back: more than none after a clip tell of the wrong file."""
        return len(self.landmarks.frames) - self.frames


def _scaled(face: Face, x: float, y: float) -> Face:
    """The face in a picture whose sides are `x` and `y` times as long; depth goes with the width, as MediaPipe's does."""
    if x == y == 1:
        return face
    return replace(face, points=face.points * (x, y), points68=face.points68 * (x, y), depth=face.depth * x)
