"""Landmarks in NPZ: the same fields as NumPy arrays."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..fit.faces import N_SCORES, Face
from ..fit.given import Landmarks
from .arrays import npz_arrays
from .landmark_fields import (
    PIXELS,
    Field,
    a_share,
    a_side,
    extent_of,
    face_of,
    matrix_of,
    scores_of,
    with_faces,
)

MOST_BYTES = 1 << 30
_ARRAYS = ("points", "scores", "matrix", "confidence", "units", "width", "height")


def read_npz(path: Path) -> Landmarks:
    """Raises InputError for what is no archive of plain arrays of the format."""
    arrays = npz_arrays(path, _ARRAYS, only=True, kinds="iufU")
    return _from_arrays(path.name, arrays, Field(path.name))


def _from_arrays(name: str, arrays: dict[str, np.ndarray], field: Field) -> Landmarks:
    points = _array(arrays.get("points"), field["points"])
    if points.ndim not in (2, 3, 4) or points.shape[-1] not in (2, 3):
        field["points"].wrong(f"has the shape {points.shape}; it must be (points, 2), (frames, points, 2) or (frames, faces, points, 2)")
    points = points.reshape((1,) * (3 - points.ndim) + points.shape) if points.ndim < 3 else points
    points = points[:, None] if points.ndim == 3 else points
    extras = {key: _beside(arrays[key], points.shape[:2], ends, field[key])
              for key, ends in (("scores", (N_SCORES,)), ("matrix", (4, 4)), ("confidence", ())) if key in arrays}  # fmt: skip
    frames = [
        [_of_arrays(points[i, j], {key: value[i, j] for key, value in extras.items()}, field, i, j)
         for j in range(points.shape[1]) if not np.isnan(points[i, j]).all()]
        for i in range(len(points))
    ]  # fmt: skip
    width, height = (a_side(_single(arrays.get(side), field[side]), field[side]) for side in ("width", "height"))
    units = _single(arrays["units"], field["units"]) if "units" in arrays else PIXELS
    return with_faces(name, frames, extent_of(units, width, height, field))


def _of_arrays(points: np.ndarray, extras: dict[str, np.ndarray], field: Field, i: int, j: int) -> Face:
    partly = np.isnan(points).any(1)
    if np.isinf(points).any() or not np.isnan(points[partly]).all():
        field["points"][i][j].wrong("has an infinity, or a point of which only a part is NaN; write NaN for both")
    face = face_of(points, field["points"][i][j])
    for key, value in extras.items():
        here = field[key][i][j]
        if not np.isfinite(value).all():
            here.wrong("has a NaN or an infinity")
    if "scores" in extras:
        face = replace(face, scores=scores_of(extras["scores"].tolist(), field["scores"][i][j]))
    if "matrix" in extras:
        face = replace(face, matrix=matrix_of(extras["matrix"].tolist(), field["matrix"][i][j]))
    if "confidence" in extras:
        face = replace(face, confidence=a_share(float(extras["confidence"]), field["confidence"][i][j]))
    return face


def _array(value: np.ndarray | None, field: Field) -> np.ndarray:
    if value is None:
        field.wrong("is missing")
    if value.dtype.kind not in "fiu":
        field.wrong(f"has numbers of type {value.dtype}; it must have floats")
    return value.astype(np.float64)


def _beside(value: np.ndarray, shape: tuple[int, ...], ends: tuple[int, ...], field: Field) -> np.ndarray:
    """The array of a face's property, brought to (frames, faces, ...)."""
    value, frames = _array(value, field), math.prod(shape)
    if value.size != frames * math.prod(ends) or value.shape[value.ndim - len(ends) :] != ends:
        field.wrong(f"has the shape {value.shape}; it must have {ends or 'one number'} for each face of points")
    return value.reshape(*shape, *ends)


def _single(value: np.ndarray | None, field: Field) -> object:
    if value is None:
        return None
    if value.size != 1:
        field.wrong(f"has the shape {value.shape}; it must be one value")
    return value.reshape(-1)[0].item()
