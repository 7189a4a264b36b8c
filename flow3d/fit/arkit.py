"""Motions written for ARKit's 52 expressions instead of one head model, and how they fit onto a head."""

from dataclasses import replace

import torch
from torch import Tensor

from ..head.model import HeadModel
from ..rotations import compose
from ..track import HeadTrack
from .arkit_map import ARKIT_NAMES as ARKIT_NAMES
from .arkit_map import arkit_map

ARKIT = "ARKit"
"""The `head_name` of a track of no particular head, whose expressions are `ARKIT_NAMES`."""


def on_head(track: HeadTrack, head: HeadModel) -> HeadTrack:
    """A track of `ARKIT_NAMES` on the components and joints of `head`, neutral in shape; any other track as it is.

    Expressions go by name, or by what the names mean on a head without them (see `arkit_map.py`), turns of its joints
    included.
    """
    if track.head_name != ARKIT:
        return track
    expression, turns = arkit_map(head).apply(track.expression)
    own = torch.stack([_joint(track, n) for n in head.joint_names[1:]], 1)
    joints = torch.where(turns.any(-1, keepdim=True), compose(own, turns), own)
    return replace(
        track,
        shape=track.shape.new_zeros(head.n_shape),
        expression=expression,
        joints=joints,
        joint_names=head.joint_names,
        head_name=head.name,
        head_digest=head.digest,
    )


def fault_on_head(track: HeadTrack, head: HeadModel) -> str:
    """What of a track does not fit a head, by the sizes of its arrays; empty where all does."""
    vertices, of_none = len(head.template), track.head_name == ARKIT
    counts = (
        ("expression components", track.expression.shape[1], len(ARKIT_NAMES) if of_none else head.n_expression),
        ("joints", track.joints.shape[1] + 1, track.joints.shape[1] + 1 if of_none else head.n_joints),
        ("vertices in its offsets", _length(track.offsets, 0, vertices), vertices),
        ("vertices in its frame offsets", _length(track.frame_offsets, 1, vertices), vertices),
    )
    for what, has, wanted in counts:
        if has != wanted:
            return f"the track has {has} {what}, where head model '{head.name}' has {wanted}"
    return ""


def _length(x: Tensor | None, axis: int, otherwise: int) -> int:
    return otherwise if x is None else x.shape[axis]


def _joint(track: HeadTrack, name: str) -> Tensor:
    """(T, 3), at rest where the motion has no such joint."""
    return track.joint(name) if name in track.joint_names else torch.zeros_like(track.rotation)
