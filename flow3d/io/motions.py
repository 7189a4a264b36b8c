"""Bundled motions: short tracks of a neutral head, made by `scripts/build_motions.py`.

Their expressions are ARKit's 52 by name, so that they fit every head that has such names; a head without them takes
the pose, the eyes and the opening of the jaw.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..fit.edit import jaw_rotation
from ..fit.mediapipe_points import BLENDSHAPES
from ..head.model import HeadModel
from ..track import HeadTrack
from .tracks import load_track

FOLDER = Path(__file__).with_name("motions")
ARKIT_NAMES = (*BLENDSHAPES, "tongueOut")
"""The expression components of the files, in their order: Apple's ARBlendShapeLocation names, sorted."""


def motion_names() -> tuple[str, ...]:
    """The bundled motions, sorted."""
    return tuple(sorted(p.stem for p in FOLDER.glob("*.safetensors")))


def load_motion(name: str, head: HeadModel | None = None) -> HeadTrack:
    """A bundled motion on the components and joints of `head` (None: ARKit's 52 and FLAME's joints).

    Raises InputError for a name that is not bundled.
    """
    if name not in motion_names():
        raise InputError(f"There is no bundled motion '{name}'. There are {', '.join(motion_names())}.")
    track = load_track(FOLDER / f"{name}.safetensors")
    return track if head is None else _on_head(track, head)


def _on_head(track: HeadTrack, head: HeadModel) -> HeadTrack:
    expression = track.expression.new_zeros(len(track), head.n_expression)
    for i, name in enumerate(head.expression_names):
        if name in ARKIT_NAMES:
            expression[:, i] = track.expression[:, ARKIT_NAMES.index(name)]
    joints = torch.stack([_joint(track, n) for n in head.joint_names[1:]], 1)
    if "jawOpen" not in head.expression_names and "jaw" in head.joint_names:
        opening = track.expression[:, ARKIT_NAMES.index("jawOpen")]
        joints[:, head.joint_names.index("jaw") - 1] = jaw_rotation(opening)
    return replace(
        track,
        shape=track.shape.new_zeros(head.n_shape),
        expression=expression,
        joints=joints,
        joint_names=head.joint_names,
        head_name=head.name,
        head_digest=head.digest,
    )


def _joint(track: HeadTrack, name: str) -> Tensor:
    """(T, 3), at rest where the motion has no such joint."""
    return track.joint(name) if name in track.joint_names else torch.zeros(len(track), 3)
