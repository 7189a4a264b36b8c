"""Track files of every kind, told by their suffix: Flow3D's own, Live Link Face, FLAME parameters, glTF."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..errors import InputError
from ..head.model import HeadModel
from ..track import HeadTrack
from .arrays import SUFFIXES as FLAME_SUFFIXES
from .flame_params import load_flame_params
from .gltf import save_gltf
from .livelink import load_livelink, save_livelink
from .tracks import load_track, save_track

OWN, LIVELINK, GLTF = ".safetensors", ".csv", ".glb"
READ_SUFFIXES = (OWN, LIVELINK, *(s for s in FLAME_SUFFIXES if s != OWN))
WRITE_SUFFIXES = (OWN, LIVELINK, GLTF)


def read_track(
    path: Path | str, head: HeadModel | None = None, fps: float = 25.0, within: Path | None = None
) -> HeadTrack:
    """The track in a file, or in a folder of FLAME parameters.

    Args:
        head: the FLAME model that FLAME parameters belong to; other files need none.
        fps: frames a second of FLAME parameters, whose files do not say.
        within: the folder that files must lie in which the file itself names; None: the one beside its own.

    Raises InputError where `load_track`, `load_livelink` and `load_flame_params` do, and for any other suffix.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.is_dir() and suffix not in READ_SUFFIXES:
        raise InputError(f"{path.name}: a track cannot be read from '{path.suffix}'. Use {', '.join(READ_SUFFIXES)}.")
    if suffix == LIVELINK:
        return load_livelink(path)
    if suffix == OWN and not _is_foreign(path):
        return load_track(path)
    if head is None:
        raise InputError(f"{path.name}: FLAME parameters need the FLAME model they belong to. Give it as the head.")
    return load_flame_params(path, head, fps, within=within)


def write_track(track: HeadTrack, path: Path | str, head: HeadModel | None = None) -> None:
    """Write a track as the suffix says: .safetensors (everything), .csv (Live Link Face), .glb (the head in motion).

    Args:
        head: the head model of the track; .safetensors needs none, nor does .csv for a track of ARKit's expressions.

    Raises InputError where `save_livelink` and `save_gltf` do, for any other suffix, and for a .glb without a head.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == OWN:
        save_track(track, path)
    elif suffix == LIVELINK:
        save_livelink(track, path, head)
    elif suffix != GLTF:
        raise InputError(f"{path.name}: a track cannot be written as '{path.suffix}'. Use {', '.join(WRITE_SUFFIXES)}.")
    elif head is None:
        raise InputError(f"{path.name}: a .glb file holds the head itself. Give the head model of the track.")
    else:
        save_gltf(track, path, head)


def _is_foreign(path: Path) -> bool:
    """Whether a safetensors file was written by somebody else. Files that cannot be read count as ours, to be named so."""
    try:
        with safe_open(path, "pt") as f:
            return "flow3d" not in (f.metadata() or {})
    except (SafetensorError, OSError):
        return False
