"""Bundled motions: short tracks of a neutral head with ARKit's expressions, made by `scripts/build_motions.py`."""

from pathlib import Path

from ..errors import InputError
from ..fit.arkit import on_head
from ..head.model import HeadModel
from ..track import HeadTrack
from .tracks import load_track

FOLDER = Path(__file__).with_name("motions")


def motion_names() -> tuple[str, ...]:
    """The bundled motions, sorted."""
    return tuple(sorted(p.stem for p in FOLDER.glob("*.safetensors")))


def load_motion(name: str, head: HeadModel | None = None) -> HeadTrack:
    """A bundled motion on `head`; without one, on ARKit's 52 expressions, which `retarget` fits to any head.

    Raises InputError for a name that is not bundled.
    """
    if name not in motion_names():
        raise InputError(f"There is no bundled motion '{name}'. There are {', '.join(motion_names())}.")
    track = load_track(FOLDER / f"{name}.safetensors")
    return track if head is None else on_head(track, head)
