"""68 points by the package face-alignment (Bulat and Tzimiropoulos 2017): S3FD finds faces, 2DFAN-4 their landmarks.

Nothing is downloaded: the package would fetch its weights by itself, so it is only made with files that are there.
"""

import contextlib
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ..errors import Flow3DError
from .faces import Face, check_picture

POINTS, BOXES = ("2DFAN4-11f355bf06.pth.tar", "s3fd-619a316812.pth")
_PAGE = "https://www.adrianbulat.com/downloads/python-fan"
_DETECTOR_SIDE = 640  # pixels of a picture shown to S3FD, whose time and memory grow with the area
_FAINT = 0.05


class FaceAlignmentDetector:
    """Faces of 68 points, without expression, depth or pose. A `FaceDetector`.

    Args:
        points, boxes: paths of `2DFAN4-11f355bf06.pth.tar` and `s3fd-619a316812.pth`.
        max_faces: how many faces `detect` returns at most.
        min_confidence: 0..1, faces that S3FD scores below it are not reported.
        device: of the networks; None: the GPU where there is one.

    Raises:
        Flow3DError: the package is not installed, or a file cannot be read.
    """

    def __init__(
        self, points: Path, boxes: Path, max_faces: int = 1, min_confidence: float = 0.5, device: str | None = None
    ) -> None:
        self.max_faces, self.min_confidence = max_faces, min_confidence
        self._net = _load(points, boxes, device or ("cuda" if torch.cuda.is_available() else "cpu"))

    @classmethod
    def of_folders(
        cls, folders: Iterable[Path] = (), max_faces: int = 1, min_confidence: float = 0.5
    ) -> "FaceAlignmentDetector":
        """With the files from `folders` (such as ComfyUI's models/face_alignment) or torch hub's.

        Raises Flow3DError, in one sentence with name, page and folder, where one is missing.
        """
        places = list(folders)
        return cls(find_file(POINTS, places), find_file(BOXES, places), max_faces, min_confidence)

    def detect(self, image: np.ndarray) -> list[Face]:
        """Faces in `image` (H, W, 3) uint8 RGB, the largest first, at most `max_faces`; none: an empty list."""
        check_picture(image)
        boxes = [box for box in self._boxes(image) if box[4] >= self.min_confidence]
        boxes = sorted(boxes, key=lambda box: box[2] - box[0], reverse=True)[: self.max_faces]
        if not boxes:
            return []
        with _cudnn_as_it_was():
            found = self._net.get_landmarks_from_image(image, detected_faces=boxes)
        faces = [Face.of68(points.astype(np.float64), float(box[4])) for points, box in zip(found, boxes, strict=True)]
        return sorted(faces, key=lambda f: f.size, reverse=True)

    def refine(self, image: np.ndarray, face: Face) -> Face:
        """The face itself: the network has read it twice already, once mirrored."""
        return face

    def score(self, image: np.ndarray) -> float:
        """S3FD's best score, 0..1."""
        check_picture(image)
        return max((float(box[4]) for box in self._boxes(image)), default=0.0)

    def _boxes(self, image: np.ndarray) -> list[np.ndarray]:
        """(left, top, right, bottom, score) of all that S3FD takes for faces, faint ones too, in pixels of `image`."""
        scale = min(1.0, _DETECTOR_SIDE / max(image.shape[:2]))
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        small = image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        with _cudnn_as_it_was():
            found = self._net.face_detector.detect_from_image(small)
        back = np.array([1 / scale] * 4 + [1.0])
        boxes = [np.asarray(box, np.float64).reshape(-1)[:5] * back for box in found]
        return [box for box in boxes if box[2] - box[0] >= 4 and box[3] - box[1] >= 4]


def find_file(name: str, folders: Iterable[Path] = ()) -> Path:
    """The path of a file of weights, in the first of `folders` or in torch hub's. Raises Flow3DError where none has it."""
    places = [*map(Path, folders), Path(torch.hub.get_dir()) / "checkpoints"]
    for folder in places:
        if (folder / name).is_file():
            return folder / name
    raise Flow3DError(
        f"{name}, which the detector 'face-alignment' needs, is missing: get it from {_PAGE}/{name} (its authors publish it "
        f"without a licence of its own; the package is BSD-3-Clause) and put it into {' or '.join(map(str, places))}."
    )


def _load(points: Path, boxes: Path, device: str) -> Any:
    """The package's own `FaceAlignment`, with its networks from the two files."""
    try:
        from face_alignment import FaceAlignment, LandmarksType
        from face_alignment.models import FAN
    except ImportError as error:
        raise Flow3DError(
            "The detector 'face-alignment' needs the package of that name: run 'pip install face-alignment', or choose "
            "MediaPipe."
        ) from error
    if not hasattr(FaceAlignment, "_load_native"):
        raise Flow3DError("The detector 'face-alignment' needs version 1.5 of the package: run 'pip install -U face-alignment'.")

    class FromFile(FaceAlignment):
        def _load_native(self, name: str, size: int, device: str, dtype: torch.dtype) -> torch.nn.Module:
            net = FAN(size)
            with _readable(points):
                net.load_state_dict(torch.load(points, map_location=device, weights_only=True))
            return net.to(device, dtype=dtype).eval()

    detector = {"path_to_detector": str(boxes), "filter_threshold": _FAINT}
    with _cudnn_as_it_was(), _readable(boxes):
        return FromFile(LandmarksType.TWO_D, device=device, face_detector="sfd", face_detector_kwargs=detector, compile=False)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raises Flow3DError where a file of weights is none, or another network's."""
    try:
        yield
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, AttributeError, TypeError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise Flow3DError(
            f"{path}: face-alignment cannot load this file ({reason}). Delete it and get it again from {_PAGE}/{path.name}."
        ) from error


@contextlib.contextmanager
def _cudnn_as_it_was() -> Iterator[None]:
    """The package turns cuDNN's benchmark mode on for the whole process; others in it do not want that."""
    kept = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = kept
