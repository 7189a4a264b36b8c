"""Angles with names, in degrees, and the rotations they mean. The signs are those of the edits (see `edit.py`)."""

import math

import torch
from torch import Tensor

from ..rotations import compose, to_matrix

FULL_JAW = 24.0
"""Degrees that `jawOpen=1` turns the jaw joint of a head without an expression of that name."""


def pose_rotation(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Degrees (...) each, signs as at the top of this file, to `HeadTrack.rotation` (..., 3) of a head so turned."""
    yaw, pitch, roll = (torch.deg2rad(x) for x in (yaw, pitch, roll))
    none = torch.zeros_like(yaw)
    # Axes of the camera (x right, y down, z forward), which an unturned head shares.
    turns = ([none, -yaw, none], [-pitch, none, none], [none, none, roll])
    return compose(*(torch.stack(turn, -1) for turn in turns))


def pose_angles(rotation: Tensor) -> Tensor:
    """The inverse of `pose_rotation`: (..., 3) to (..., 3) yaw, pitch and roll in degrees; pitch within 90."""
    m = to_matrix(rotation)
    yaw = torch.atan2(-m[..., 0, 2], m[..., 2, 2])
    pitch = torch.asin(m[..., 1, 2].clamp(-1, 1))
    roll = torch.atan2(m[..., 1, 0], m[..., 1, 1])
    return torch.rad2deg(torch.stack([yaw, pitch, roll], -1))


def gaze_rotation(yaw: Tensor, pitch: Tensor) -> Tensor:
    """Degrees (...) each to the axis-angle (..., 3) of an eye joint, in the head frame (y up, z out of the face)."""
    yaw, pitch = torch.deg2rad(yaw), torch.deg2rad(pitch)
    none = torch.zeros_like(yaw)
    return compose(torch.stack([none, yaw, none], -1), torch.stack([-pitch, none, none], -1))


def jaw_rotation(opening: Tensor) -> Tensor:
    """How far the mouth is open (...), 0..1, to the axis-angle (..., 3) of the jaw joint in the head frame."""
    none = torch.zeros_like(opening)
    return torch.stack([math.radians(FULL_JAW) * opening, none, none], -1)
