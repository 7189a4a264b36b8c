"""Motions written for ARKit's 52 expressions instead of one head model, and how they fit onto a head."""

from dataclasses import replace

import torch
from torch import Tensor

from ..head.model import HeadModel
from ..track import HeadTrack
from .angles import jaw_rotation
from .mediapipe_points import BLENDSHAPES

ARKIT = "ARKit"
"""The `head_name` of a track of no particular head, whose expressions are `ARKIT_NAMES`."""
ARKIT_NAMES = (*BLENDSHAPES, "tongueOut")
"""Apple's ARBlendShapeLocation names, sorted."""


def on_head(track: HeadTrack, head: HeadModel) -> HeadTrack:
    """A track of `ARKIT_NAMES` on the components and joints of `head`, neutral in shape; any other track as it is.

    Expressions go by name. A head without those names takes the pose, the eyes and, as a turn of its jaw joint, the
    opening of the mouth.
    """
    if track.head_name != ARKIT:
        return track
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
    return track.joint(name) if name in track.joint_names else torch.zeros_like(track.rotation)
