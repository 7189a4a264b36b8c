"""What the fields of a landmarks file must be, whatever its form. Every error names the file and the field."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np

from ..errors import InputError
from ..fit import mediapipe_points as mp
from ..fit.faces import N_SCORES, Face
from ..fit.given import Landmarks

PIXELS, NORMALISED = UNITS = ("pixels", "normalised")
_FEWEST_POINTS = 8
_COUNTS = (mp.N_POINTS, mp.N_POINTS - len(mp.IRISES), 68)


class Field:
    """A place in a file, for messages."""

    def __init__(self, file: str, name: str = ""):
        self.file, self.name = file, name

    def __getitem__(self, key: str | int) -> "Field":
        return Field(self.file, f"{self.name}[{key}]" if isinstance(key, int) else f"{self.name}.{key}".lstrip("."))

    def wrong(self, what: str) -> NoReturn:
        raise InputError(f"{self.file}: {self.name + ' ' if self.name else ''}{what}.")


def with_faces(name: str, frames: Sequence[Sequence[Face]], extent: tuple[float, float] | None) -> Landmarks:
    if not any(frames):
        raise InputError(f"{name}: no face in any of {len(frames)} frames. Add the points of one.")
    if extent == (1.0, 1.0) and max(float(np.abs(face.seen).max()) for faces in frames for face in faces) > 10:
        raise InputError(f"{name}: units are 'normalised', but points are far beyond 1. Use 'pixels'.")
    return Landmarks(name, frames, extent)


def extent_of(units: object, width: float | None, height: float | None, field: Field) -> tuple[float, float] | None:
    if units not in UNITS:
        field["units"].wrong(f"is {shown(units)}; it must be {' or '.join(UNITS)}")
    if (width is None) != (height is None):
        field["width" if width is None else "height"].wrong("is missing; give width and height, or neither")
    if units == NORMALISED:
        return 1.0, 1.0
    return None if width is None or height is None else (width, height)


def face_of(points: np.ndarray, field: Field) -> Face:
    """A face from (n, 2) points, or (n, 3) with the depth; n is 478, 468 or 68, rows of NaN are unseen."""
    n, columns = points.shape
    if n not in _COUNTS:
        field.wrong(f"has {n} points; it must have {mp.N_POINTS} (MediaPipe), {_COUNTS[1]} (without irises) or 68 (iBUG)")
    if np.isfinite(points[:, :2]).all(1).sum() < _FEWEST_POINTS:
        field.wrong(f"has fewer than {_FEWEST_POINTS} points that are not null; place more of them")
    if n == 68:
        if columns == 3:
            field.wrong("has [x, y, z]; 68 points must be [x, y]")
        return Face.of68(points)
    whole = np.full((mp.N_POINTS, columns), np.nan)
    whole[:n] = points
    face = Face.of478(whole[:, :2])
    return face if columns == 2 else replace(face, depth=whole[:, 2])


def with_depth(face: Face, depth: np.ndarray, field: Field) -> Face:
    if not face.dense:
        field.wrong("belongs to 478 points, not to 68; leave it out")
    if len(depth) not in _COUNTS[:2]:
        field.wrong(f"has {len(depth)} numbers; it must have one for each point")
    whole = np.full(mp.N_POINTS, np.nan)
    whole[: len(depth)] = depth
    return replace(face, depth=whole)


def scores_of(value: object, field: Field) -> np.ndarray:
    """(51,) from a list in MediaPipe's order without _neutral, or from an object by ARKit's names; what is left out is 0."""
    if not isinstance(value, dict):
        values = a_list_of_numbers(value, field)
        if len(values) != N_SCORES:
            field.wrong(f"has {len(values)} numbers; it must have {N_SCORES}, or be an object of ARKit's names")
        return np.array([a_share(v, field[i]) for i, v in enumerate(values)])
    named = an_object(value, field, (*mp.BLENDSHAPES, "_neutral", "tongueOut"))
    return np.array([a_share(a_number(named.get(name, 0), field[name]), field[name]) for name in mp.BLENDSHAPES])


def matrix_of(rows: Sequence[Sequence[float]], field: Field) -> np.ndarray:
    if [len(row) for row in rows] != [4] * 4:
        field.wrong("must be 4 rows of 4 numbers")
    matrix = np.array(rows, np.float64)
    if np.linalg.norm(matrix[:3, :3], axis=0).min() < 1e-6 or np.linalg.det(matrix[:3, :3]) <= 0:
        field.wrong("must be a rotation, scaled and moved")
    return matrix


def an_object(value: object, field: Field, known: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        field.wrong(f"is {shown(value)}; it must be an object with fields such as {known[0]}")
    unknown = [name for name in value if name not in known]
    if unknown:
        field.wrong(f"has an unknown field '{unknown[0][:40]}'; use {', '.join(known[:12])}")
    return value


def a_list(value: object, field: Field) -> list[Any]:
    if not isinstance(value, list):
        field.wrong(f"is {'missing' if value is None else shown(value)}; it must be a list")
    return value


def a_list_of_numbers(value: object, field: Field) -> list[float]:
    return [a_number(v, field[i]) for i, v in enumerate(a_list(value, field))]


def a_number(value: object, field: Field) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    field.wrong(f"is {shown(value)}; it must be a finite number")


def a_share(value: float, field: Field) -> float:
    if not 0 <= value <= 1:
        field.wrong(f"is {value:g}; it must be between 0 and 1")
    return value


def a_side(value: object, field: Field) -> float | None:
    if value is None:
        return None
    number = a_number(value, field)
    if number < 1:
        field.wrong(f"is {number:g}; it must be at least 1 pixel")
    return number


def shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else text[:37] + "..."
