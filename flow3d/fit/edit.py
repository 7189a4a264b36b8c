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
from ..rotations import compose
from ..track import HeadTrack
from .angles import gaze_rotation, jaw_rotation, pose_rotation
from .arkit import on_head

POSE_EDITS = ("yaw", "pitch", "roll", "x", "y", "z")
GAZE_EDITS = ("gazeYaw", "gazePitch", "gazeYawLeft", "gazeYawRight", "gazePitchLeft", "gazePitchRight")
ALIASES = {
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "blink": ("eyeBlinkLeft", "eyeBlinkRight"),
    "browUp": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    "frown": ("mouthFrownLeft", "mouthFrownRight"),
}
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

    Raises InputError where `check_edits` does, and for a track of another head model.
    """
    track = on_head(track, head)
    check_edits(head, edits)
    _check_track(head, track)
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


def check_edits(head: HeadModel, edits: Mapping[str, float]) -> None:
    """Raises InputError for an unknown name (the nearest names are offered) and for NaN or infinity."""
    names = edit_names(head)
    lower = {n.lower(): n for n in names}
    for name, value in edits.items():
        if name not in names:
            near = difflib.get_close_matches(name.lower(), list(lower), 3, 0.5)
            offer = f"Did you mean {', '.join(lower[n] for n in near)}?" if near else f"There are {', '.join(names)}."
            raise InputError(f"There is no edit '{name}' for head model '{head.name}'. {offer}")
        if not math.isfinite(value):
            raise InputError(f"Edit '{name}' is {value}, not a finite number.")


def _check_track(head: HeadModel, track: HeadTrack) -> None:
    other = track.head_digest and head.digest and track.head_digest != head.digest
    if other or track.expression.shape[1] != head.n_expression:
        raise InputError(
            f"The track was made with head model '{track.head_name}' ({track.head_digest[:8] or 'any'}, "
            f"{track.expression.shape[1]} expressions), not with '{head.name}' ({head.digest[:8]}, {head.n_expression}). "
            "Load the head model it was made with."
        )


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
