"""Where weight files are looked for, and what to say when one is missing."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import Flow3DError, InputError


@dataclass(frozen=True)
class Weight:
    """A weight file that a user downloads once."""

    name: str
    url: str
    sha256: str
    size: int  # bytes
    licence: str
    purpose: str


WEIGHTS = (
    Weight(
        name="face_landmarker.task",
        url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/"
        "face_landmarker.task",
        sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        size=3_758_596,
        licence="Apache-2.0",
        purpose="finds faces and their landmarks in photos and videos",
    ),
)


def weight(name: str) -> Weight:
    """The weight file called `name`. Raises InputError where Flow3D knows no such file."""
    for known in WEIGHTS:
        if known.name == name:
            return known
    raise InputError(f"Flow3D knows no weight file '{name}'; it knows {', '.join(w.name for w in WEIGHTS)}.")


def cache_folder() -> Path:
    """The user's own folder for what Flow3D downloads or computes once. It need not exist yet."""
    return Path.home() / ".cache" / "flow3d"


def weight_folders(extra: Iterable[Path] = ()) -> list[Path]:
    """Folders that are searched, in order: `extra` (such as ComfyUI's models/mediapipe), $FLOW3D_MODELS, the cache."""
    named = os.environ.get("FLOW3D_MODELS", "")
    folders = [Path(f) for f in extra] + ([Path(named).expanduser()] if named else []) + [cache_folder()]
    return list(dict.fromkeys(folders))


def find_weight(name: str, extra: Iterable[Path] = ()) -> Path:
    """The path of the weight file `name`, in the first of `weight_folders(extra)` that has it.

    Raises Flow3DError, in one sentence, where none has: what to get, where, its sha256, where to put it, its licence.
    """
    wanted = weight(name)
    folders = weight_folders(extra)
    for folder in folders:
        path = folder / name
        if path.is_file() and path.stat().st_size > 0:
            return path
    raise Flow3DError(missing_weight(wanted, folders))


def missing_weight(wanted: Weight, folders: Iterable[Path]) -> str:
    """The sentence for a weight file that is in none of `folders`."""
    places = " or ".join(str(f) for f in folders)
    return (
        f"{wanted.name} ({wanted.purpose}) is missing: run 'flow3d doctor --download', or get it from {wanted.url} "
        f"({wanted.size / 1e6:.1f} MB, sha256 {wanted.sha256}, licence {wanted.licence}) and put it into {places}."
    )


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, as lower-case hexadecimal digits."""
    h = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            h.update(block)
    return h.hexdigest()
