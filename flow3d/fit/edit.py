"""Edits by name: turn, shift and reshape a track's head on every frame.

Angles in degrees, shifts in centimetres, expressions in parts of the full expression:

    yaw     positive turns the head to its own left: the nose goes to the right in the picture
    pitch   positive looks up
    roll    positive tilts the top of the head to the right in the picture (clockwise)
    x, y, z positive moves the head to the right in the picture, up, and towards the camera
    gazeYaw, gazePitch      both eyes, signs as for the head; with Left or Right appended, the subject's one eye

The head turns about its own axes and its root joint, the foot of the neck, which stays where it is. Yaw comes first,
then pitch about the turned head's own axis, then roll.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputError
from ..head.model import HeadModel
from ..rotations import compose, to_matrix
from ..track import HeadTrack

POSE_EDITS = ("yaw", "pitch", "roll", "x", "y", "z")
GAZE_EDITS = ("gazeYaw", "gazePitch", "gazeYawLeft", "gazeYawRight", "gazePitchLeft", "gazePitchRight")
ALIASES = {
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "blink": ("eyeBlinkLeft", "eyeBlinkRight"),
    "browUp": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    "frown": ("mouthFrownLeft", "mouthFrownRight"),
}
FULL_JAW = 24.0
"""Degrees that `jawOpen=1` turns the jaw joint of a head without an expression of that name."""
_EYES = {"Left": "left_eye", "Right": "right_eye"}


def edit_names(head: HeadModel) -> tuple[str, ...]:
    """All names that `edit_track` knows for this head."""
    known = set(head.expression_names)
    gaze = GAZE_EDITS if all(joint in head.joint_names for joint in _EYES.values()) else ()
    aliases = tuple(a for a, targets in ALIASES.items() if known.issuperset(targets))
    jaw = ("jawOpen",) if "jawOpen" not in known and "jaw" in head.joint_names else ()
    return POSE_EDITS + gaze + aliases + jaw + head.expression_names


def edit_track(head: HeadModel, track: HeadTrack, edits: Mapping[str, float]) -> HeadTrack:
    """The track with the edits made on every frame; the units and signs are at the top of this file.

    Expressions add to what is there and stay within 0..1 where they began within it. An edit of 0 changes nothing; with
    nothing but zeros the track itself is returned.

    Raises InputError for an unknown name (the nearest names are offered) and for NaN or infinity.
    """
    _check(head, track, edits)
    edits = {name: float(value) for name, value in edits.items() if value != 0}
    if not edits:
        return track
    return replace(
        track,
        rotation=_turned(track.rotation, edits),
        translation=_shifted(track.translation, edits),
        joints=_gazed_and_opened(head, track, edits),
        expression=_expressed(head, track.expression, edits),
    )


def parse_edits(settings: list[str]) -> dict[str, float]:
    """["yaw=10", "smile=0.5"] to a dictionary; what is set twice is added. Raises InputError for anything else."""
    edits: dict[str, float] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        try:
            number = float(value)
        except ValueError:
            equals = ""
        if not equals or not name.strip():
            raise InputError(f"'{setting}' is not an edit. Write NAME=NUMBER, such as yaw=10.")
        edits[name.strip()] = edits.get(name.strip(), 0.0) + number
    return edits


def _check(head: HeadModel, track: HeadTrack, edits: Mapping[str, float]) -> None:
    names = edit_names(head)
    lower = {n.lower(): n for n in names}
    for name, value in edits.items():
        if name not in names:
            near = difflib.get_close_matches(name.lower(), list(lower), 3, 0.5)
            offer = f"Did you mean {', '.join(lower[n] for n in near)}?" if near else f"There are {', '.join(names)}."
            raise InputError(f"There is no edit '{name}' for head model '{head.name}'. {offer}")
        if not math.isfinite(value):
            raise InputError(f"Edit '{name}' is {value}, not a finite number.")
    if track.expression.shape[1] != head.n_expression:
        raise InputError(
            f"The track has {track.expression.shape[1]} expression components, head model '{head.name}' {head.n_expression}. "
            "Load the head model it was fitted with."
        )


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


def _turned(rotation: Tensor, edits: Mapping[str, float]) -> Tensor:
    angles = [edits.get(n, 0.0) for n in ("yaw", "pitch", "roll")]
    if not any(angles):
        return rotation
    return compose(rotation, pose_rotation(*rotation.new_tensor(angles)).expand_as(rotation))


def _shifted(translation: Tensor, edits: Mapping[str, float]) -> Tensor:
    x, y, z = (edits.get(n, 0.0) / 100 for n in "xyz")
    return translation + translation.new_tensor([x, -y, -z]) if x or y or z else translation


def _gazed_and_opened(head: HeadModel, track: HeadTrack, edits: Mapping[str, float]) -> Tensor:
    joints = track.joints
    for side, joint in _EYES.items():
        gaze = [edits.get(n, 0.0) + edits.get(n + side, 0.0) for n in ("gazeYaw", "gazePitch")]
        if any(gaze):
            joints = _joint_turned(track, joints, joint, gaze_rotation(*joints.new_tensor(gaze)))
    if "jawOpen" in edits and "jawOpen" not in head.expression_names:
        joints = _joint_turned(track, joints, "jaw", jaw_rotation(joints.new_tensor(edits["jawOpen"])))
    return joints


def jaw_rotation(opening: Tensor) -> Tensor:
    """How far the mouth is open (...), 0..1, to the axis-angle (..., 3) of the jaw joint in the head frame."""
    none = torch.zeros_like(opening)
    return torch.stack([math.radians(FULL_JAW) * opening, none, none], -1)


def _joint_turned(track: HeadTrack, joints: Tensor, name: str, turn: Tensor) -> Tensor:
    """`joints` (T, J - 1, 3) with the named joint turned by an axis-angle (3,) in the head frame."""
    j = track.joint_names.index(name) - 1
    turned = compose(joints[:, j], turn.expand(len(joints), 3))
    return torch.cat([joints[:, :j], turned[:, None], joints[:, j + 1 :]], 1)


def _expressed(head: HeadModel, expression: Tensor, edits: Mapping[str, float]) -> Tensor:
    known = head.expression_names
    change = expression.new_zeros(expression.shape[1])
    for name, value in edits.items():
        for target in ALIASES.get(name, (name,)) if name not in known else (name,):
            if target in known:
                change[known.index(target)] += value
    wanted = (expression + change).clamp(expression.clamp(max=0), expression.clamp(min=1))
    return torch.where(change != 0, wanted, expression)
