"""ComfyUI's own FACE_LANDMARKS: what its nodes "Detect Face Landmarks (MediaPipe)" give, since 0.23.

The value is {"frames": a list of faces for each picture, "image_size": (height, width), ...}; a face is a dict with
landmarks_xy (478, 2) in pixels, landmarks_3d (478, 3) in the units of the detector's crop, blendshapes by ARKit's names,
score, and transformation_matrix (4, 4), which is measured in the whole picture (comfy_extras/nodes_mediapipe.py).
"""

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import InputError
from . import mediapipe_points as mp
from .faces import Face
from .given import Landmarks

_FIELD_OF_VIEW = np.radians(63.0)  # across the picture's height: the camera that MediaPipe's matrix is measured in


def landmarks_from_comfy(value: Any) -> Landmarks:
    """FACE_LANDMARKS to `Landmarks`. Raises InputError, with the field's name, for what has another form."""
    if not isinstance(value, dict) or not isinstance(value.get("frames"), (list, tuple)):
        _wrong("frames", "is missing")
    try:
        height, width = (int(side) for side in value["image_size"])
    except (KeyError, TypeError, ValueError):
        _wrong("image_size", "is not (height, width)")
    if min(height, width) < 1:
        _wrong("image_size", f"is {height} x {width}")
    frames = []
    for i, faces in enumerate(value["frames"]):
        if not isinstance(faces, (list, tuple)):
            _wrong(f"frames[{i}]", "is not a list of faces")
        frames.append([_face(face, width, height, f"frames[{i}][{j}]") for j, face in enumerate(faces)])
    return Landmarks("face landmarks", frames, (float(width), float(height)))


def _wrong(field: str, what: str) -> Any:
    raise InputError(
        f"FLAME Fit: 'face landmarks' is not what ComfyUI's node Detect Face Landmarks (MediaPipe) gives: {field} {what}. Connect that node."
    )


def _face(value: Any, width: int, height: int, field: str) -> Face:
    if not isinstance(value, dict):
        _wrong(field, "is not a face")
    points = _numbers(value.get("landmarks_xy"), (mp.N_POINTS, 2), f"{field}.landmarks_xy")
    face = Face.of478(points, float(np.clip(_numbers(value.get("score", 1.0), (), f"{field}.score"), 0, 1)))
    if value.get("landmarks_3d") is not None:
        relief = _numbers(value["landmarks_3d"], (mp.N_POINTS, 3), f"{field}.landmarks_3d")
        face = replace(face, depth=relief[:, 2] * _scale(relief[:, :2], points))
        if value.get("transformation_matrix") is not None:
            face = replace(face, matrix=_matrix(value["transformation_matrix"], face, width, height, field))
    shapes = value.get("blendshapes")
    if isinstance(shapes, dict) and set(mp.BLENDSHAPES) <= set(shapes):
        scores = _numbers([shapes[name] for name in mp.BLENDSHAPES], (len(mp.BLENDSHAPES),), f"{field}.blendshapes")
        face = replace(face, scores=scores.clip(0, 1))
    return face


def _matrix(value: Any, face: Face, width: int, height: int, field: str) -> np.ndarray:
    matrix = _numbers(value, (4, 4), f"{field}.transformation_matrix")
    if np.linalg.norm(matrix[:3, :3], axis=0).min() < 1e-6:
        _wrong(f"{field}.transformation_matrix", "is singular")
    return _seen_straight(matrix, face, width, height)


def _numbers(value: Any, shape: tuple[int, ...], field: str) -> np.ndarray:
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError, RuntimeError):
        _wrong(field, "has no numbers")
    if array.shape != shape or not np.isfinite(array).all():
        _wrong(field, f"has the shape {array.shape}, not {shape}, or a NaN")
    return array


def _scale(crop: np.ndarray, points: np.ndarray) -> float:
    """Pixels for one unit across the detector's crop, whose place in the picture (n, 2) to (n, 2) is affine."""
    affine, *_ = np.linalg.lstsq(np.c_[crop, np.ones(len(crop))], points, rcond=None)
    return float(np.linalg.norm(affine[0]))


def _seen_straight(matrix: np.ndarray, face: Face, width: int, height: int) -> np.ndarray:
    """The matrix (4, 4) as a camera that looks at the face would measure it, which is what `Face.matrix` holds.

    MediaPipe fits its canonical face to the landmarks spread out in the whole picture's view, which shears a face away from
    the middle and so turns it; the turn between that and the face seen straight is taken off.
    """
    x, y = (face.points - (width / 2, height / 2)).T
    focal = height / 2 / np.tan(_FIELD_OF_VIEW / 2)
    far = max(-float(matrix[2, 3]), 1.0)  # cm
    z = far * (1 + (face.depth - face.depth.mean()) / focal)
    sheared = np.stack([x * z / focal, -y * z / focal, -z], -1)
    straight = np.stack([x, -y, -face.depth], -1)
    turn, _ = Rotation.align_vectors(straight - straight.mean(0), sheared - sheared.mean(0))
    turned = matrix.copy()
    turned[:3, :3] = turn.as_matrix() @ matrix[:3, :3]
    return turned
