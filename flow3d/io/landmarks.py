"""Landmarks files: where the points of faces lie, placed by hand or found by another program. docs/landmarks.md has the format."""

from pathlib import Path

from ..errors import InputError
from ..fit.given import Landmarks
from .landmark_arrays import MOST_BYTES, read_npz
from .landmark_json import read_json

SUFFIXES = (".json", ".npz")


def read_landmarks(path: Path | str) -> Landmarks:
    """Read a landmarks file, .json or .npz. Raises InputError for anything that is not one."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path.name}: not a landmarks file. Use {' or '.join(SUFFIXES)}.")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path.name}: larger than 1 GB, which no landmarks file is.")
        return read_json(path) if path.suffix.lower() == ".json" else read_npz(path)
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read ({error.strerror or error}).") from error
