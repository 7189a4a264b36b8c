"""Landmarks in JSON: a face, the faces of a picture, or the frames of a clip."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..fit.faces import Face
from ..fit.given import Landmarks
from .json_text import json_in
from .landmark_fields import (
    PIXELS,
    Field,
    a_list,
    a_list_of_numbers,
    a_number,
    a_share,
    a_side,
    an_object,
    extent_of,
    face_of,
    matrix_of,
    scores_of,
    with_depth,
    with_faces,
)  # fmt: skip

_FACE_FIELDS = ("points", "scores", "matrix", "confidence", "depth")
_FILE_FIELDS = ("frames", "faces", "units", "width", "height", "comment")


def read_json(path: Path) -> Landmarks:
    """Raises InputError for what is not JSON of the format."""
    field = Field(path.name)
    content = json_in(path, lambda name: field.wrong(f"has a {name}; write null"))
    content = an_object(content, field, _FILE_FIELDS + _FACE_FIELDS)
    forms = [name for name in ("points", "faces", "frames") if name in content]
    if len(forms) != 1:
        field.wrong("must have one of points (a face), faces (of a picture) and frames (of a clip)")
    width, height = (a_side(content.get(side), field[side]) for side in ("width", "height"))
    extent = extent_of(content.get("units", PIXELS), width, height, field)
    if forms[0] == "frames":
        frames = [_frame(frame, field["frames"][i]) for i, frame in enumerate(a_list(content["frames"], field["frames"]))]
    elif forms[0] == "faces":
        frames = [_frame(a_list(content["faces"], field["faces"]), field["faces"])]
    else:
        frames = [[_face({k: v for k, v in content.items() if k in _FACE_FIELDS}, field)]]
    return with_faces(path.name, frames, extent)


def _frame(value: object, field: Field) -> list[Face]:
    """null: no face; an object: one face; a list of objects."""
    if value is None:
        return []
    if isinstance(value, dict):
        return [_face(value, field)]
    return [_face(face, field[i]) for i, face in enumerate(a_list(value, field))]


def _face(value: object, field: Field) -> Face:
    content = an_object(value, field, _FACE_FIELDS)
    rows = [_point(point, field["points"][i]) for i, point in enumerate(a_list(content.get("points"), field["points"]))]
    known = {len(row) for row in rows if row}
    if len(known) > 1:
        field["points"].wrong("mixes [x, y] and [x, y, z]; write all of them alike")
    width = known.pop() if known else 2
    face = face_of(np.array([row or [np.nan] * width for row in rows]).reshape(-1, width), field["points"])
    if content.get("depth") is not None:
        face = with_depth(face, np.array(a_list_of_numbers(content["depth"], field["depth"])), field["depth"])
    if content.get("scores") is not None:
        face = replace(face, scores=scores_of(content["scores"], field["scores"]))
    if content.get("matrix") is not None:
        table = [a_list_of_numbers(row, field["matrix"][i]) for i, row in enumerate(a_list(content["matrix"], field["matrix"]))]
        face = replace(face, matrix=matrix_of(table, field["matrix"]))
    if content.get("confidence") is not None:
        face = replace(face, confidence=a_share(a_number(content["confidence"], field["confidence"]), field["confidence"]))
    return face


def _point(value: object, field: Field) -> list[float] | None:
    if value is None:
        return None
    numbers = a_list_of_numbers(value, field)
    if len(numbers) not in (2, 3):
        field.wrong(f"has {len(numbers)} numbers; a point is [x, y] or [x, y, z]")
    return numbers
