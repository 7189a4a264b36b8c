"""Edits by name: turn, shift and reshape a track's head, the same in every frame or over time.

Angles in degrees, shifts in centimetres, expressions in parts of the full expression:

    yaw     positive turns the head to its own left: the nose goes to the right in the picture
    pitch   positive looks up
    roll    positive tilts the top of the head to the right in the picture (clockwise)
    x, y, z positive moves the head to the right in the picture, up, and towards the camera
    gazeYaw, gazePitch      both eyes, signs as for the head; with Left or Right appended, the subject's one eye. The lids
            follow up and down where the head's expressions can do that (see `gaze.py`)
    an expression of the head, or a slider over several (see `sliders.py`): added to what is there; mouthClose closes
    what jawOpen has opened and no more

The head turns about its own axes and its root joint, the foot of the neck, which stays where it is. Yaw comes first,
then pitch about the turned head's own axis, then roll.

What the track itself does is changed before any of these is added:

    neutralise      0..1 of the first frame's expression is taken away from every frame, jaw included, gaze not; where the
                    face's own offsets would then leave the lips apart, mouthClose brings them together
    expressionGain  times the expressions, whose rest is 0, without those of jaw and gaze
    jawGain         times the turn of the jaw joint, whose rest is a closed mouth, the jaw's expressions and mouthClose
    gazeGain        times the turn of the eyes, whose rest is straight ahead, and the eyeLook expressions
    poseGain        times the rotation of head and neck since the first frame, on the rotation group
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputError
from ..head.model import HeadModel
from ..rotations import compose, inverse
from ..track import HeadTrack
from .angles import gaze_rotation, jaw_rotation, pose_rotation
from .arkit import on_head
from .arkit_map import ARKIT_NAMES, arkit_map
from .between import scaled
from .gaze import lids_follow
from .keyframes import MAX_FRAMES, Keyframes, parse_settings
from .openings import closing
from .parts import expression_parts, joint_part
from .sliders import Axis, expression_sliders

Edit = float | Keyframes
POSE_EDITS = ("yaw", "pitch", "roll", "x", "y", "z")
GAZE_EDITS = ("gazeYaw", "gazePitch", "gazeYawLeft", "gazeYawRight", "gazePitchLeft", "gazePitchRight")
GAINS = {"expressionGain": "expression", "jawGain": "jaw", "gazeGain": "eyes", "poseGain": "pose"}
"""Names of gains, which change nothing at 1, and the parts that they act on."""
NEUTRALISE = "neutralise"
MOST = 1e5
"""An edit's largest value: what goes far beyond a head's turns and shifts ends in numbers that are not finite."""
_EYES = {"Left": "left_eye", "Right": "right_eye"}


def edit_names(head: HeadModel) -> tuple[str, ...]:
    """All names that `edit_track` knows for this head."""
    gaze = GAZE_EDITS if all(joint in head.joint_names for joint in _EYES.values()) else ()
    jaw = ("jawOpen",) if _opens_by_joint(head) else ()
    return POSE_EDITS + gaze + jaw + (NEUTRALISE, *GAINS) + tuple(_sliders(head))


def edit_track(head: HeadModel, track: HeadTrack, edits: Mapping[str, Edit], frames: int | None = None) -> HeadTrack:
    """The track with the edits made; names, units and signs are at the top of this file.

    Expressions stay within 0..1 where they began within it. In a frame where an edit is 0 (a gain 1) it changes no bit;
    where no edit does anything the track itself is returned.

    Args:
        edits: a number for all frames, or `Keyframes`.
        frames: how long a clip a still becomes; None: up to the last keyframe. A clip keeps its length.

    Raises InputError where `check_edits` does, for a track of another head model, and for a clip of not `frames` frames.
    """
    track = on_head(track, head)
    check_edits(head, edits)
    check_track(head, track)
    edits = {name: edit for name, edit in edits.items() if edit != _rest(name)}
    track = _lengthened(track, edits, frames)
    if not edits:
        return track
    values = {name: series(edit, track) for name, edit in edits.items()}
    if NEUTRALISE in values:
        track = _neutralised(head, track, values[NEUTRALISE])
    for name, part in GAINS.items():
        if name in values:
            track = _poses_amplified(track, values[name]) if part == "pose" else _amplified(head, track, part, values[name])
    weights = track.expression if head.expression_names else track.expression.new_zeros(len(track), len(ARKIT_NAMES))
    weights, gaze = _looking(head.expression_names or ARKIT_NAMES, weights, values)
    track = replace(
        track,
        rotation=_turned(track.rotation, values),
        translation=_shifted(track.translation, values),
        joints=_gazed_and_opened(head, track, gaze, values),
    )
    return _expressed(head, track, weights, values) if head.expression_names else _mapped(head, track, weights, values)


def parse_edits(settings: Sequence[str], curve: Keyframes | None = None) -> dict[str, Edit]:
    """["yaw=10", "smile: 0: 0, 24: 1"] to a dictionary; the syntax is at the top of `keyframes.py`.

    What is set twice is added, a gain multiplied. Raises InputError, naming the line, for anything else.
    """
    edits: dict[str, Edit] = {}
    for name, edit in parse_settings(settings, curve):
        edits[name] = combined(name, edits[name], edit) if name in edits else edit
    return edits


def combined(name: str, first: Edit, second: Edit) -> Edit:
    """Two edits of one name as one. Raises InputError where both have keyframes."""
    if isinstance(first, Keyframes) and isinstance(second, Keyframes):
        raise InputError(f"'{name}' has keyframes twice. Write them on one line.")
    if isinstance(second, Keyframes):
        first, second = second, first
    assert not isinstance(second, Keyframes)
    if isinstance(first, Keyframes):
        return first.times(second) if name in GAINS else first.plus(second)
    return first * second if name in GAINS else first + second


def check_edits(head: HeadModel, edits: Mapping[str, Edit]) -> None:
    """Raises InputError for an unknown name (the nearest names are offered), NaN or infinity, a neutralise outside 0..1."""
    names = edit_names(head)
    lower = {n.lower(): n for n in names}
    for name, edit in edits.items():
        if name not in names:
            near = difflib.get_close_matches(name[:60].lower(), list(lower), 3, 0.5)
            offer = f"Did you mean {', '.join(lower[n] for n in near)}?" if near else f"Use one of {', '.join(names)}."
            raise InputError(f"There is no edit '{name[:60]}' for head model '{head.name}'. {offer}")
        for value in edit.values if isinstance(edit, Keyframes) else (edit,):
            if not abs(value) <= MOST:
                raise InputError(f"Edit '{name}' is {value:g}, not a finite number up to {MOST:,.0f}. Write another.")
            if name == NEUTRALISE and not 0 <= value <= 1:
                raise InputError(f"Edit '{name}' is {value:g}; it must be between 0 and 1.")


def check_track(head: HeadModel, track: HeadTrack) -> None:
    """Raises InputError for a track of another head model."""
    other = track.head_digest and head.digest and track.head_digest != head.digest
    if other or track.expression.shape[1] != head.n_expression:
        raise InputError(
            f"The track was made with head model '{track.head_name}' ({track.head_digest[:8] or 'any'}, "
            f"{track.expression.shape[1]} expressions), not with '{head.name}' ({head.digest[:8]}, {head.n_expression}). "
            "Load the head model it was made with."
        )


def within(wanted: Tensor, *before: Tensor) -> Tensor:
    """Named expressions (T, E) kept within 0..1, or as far beyond as one of `before` already was."""
    low, high = torch.zeros_like(wanted), torch.ones_like(wanted)
    for x in before:
        low, high = low.minimum(x), high.maximum(x)
    return wanted.clamp(low, high)


def _rest(name: str) -> float:
    return 1.0 if name in GAINS else 0.0


def series(edit: Edit, track: HeadTrack) -> Tensor:
    """(T,) a number or keyframes as one value for each frame, in the track's type and place."""
    values = edit.at(len(track)) if isinstance(edit, Keyframes) else [edit] * len(track)
    return torch.as_tensor(values, dtype=torch.float64).to(track.rotation)


def _lengthened(track: HeadTrack, edits: Mapping[str, Edit], frames: int | None) -> HeadTrack:
    """A still repeated as often as its edits need; anything else as it is."""
    if frames is not None and not 1 <= frames <= MAX_FRAMES:
        raise InputError(f"A clip of {frames} frames cannot be made: 1 to {MAX_FRAMES} are possible.")
    if len(track) > 1:
        if frames not in (None, len(track)):
            raise InputError(f"The track has {len(track)} frames, not {frames}. Only a still can be made longer. Leave the number of frames at 0.")
        return track
    needed = max((len(e) for e in edits.values() if isinstance(e, Keyframes)), default=1)
    count = needed if frames is None else frames
    return track if count == 1 else track[[0] * count]


def _neutralised(head: HeadModel, track: HeadTrack, amount: Tensor) -> HeadTrack:
    """`amount` (T,) of the first frame's expression and jaw taken away."""
    column = amount[:, None]
    before = track.expression
    mine = torch.tensor([part != "eyes" for part in expression_parts(head)], device=before.device)
    less = torch.where(mine, before[:1], 0.0)
    shut = closing(head, replace(track[:1], expression=before[:1] - less))
    if shut:
        less[:, head.expression_index("mouthClose")] -= shut
    expression = _named_within(head, before - column * less, before)
    joints = track.joints
    if "jaw" in track.joint_names:
        first = track.jaw[:1].expand_as(track.jaw)
        joints = _joint_replaced(track, joints, "jaw", compose(track.jaw, scaled(first, -amount)), amount != 0)
    return replace(track, expression=torch.where(mine & (column != 0), expression, before), joints=joints)


def _amplified(head: HeadModel, track: HeadTrack, part: str, gain: Tensor) -> HeadTrack:
    """The expressions and joints of `part` times `gain` (T,), away from 0."""
    if part == "expression":
        mine = [p not in ("jaw", "eyes") for p in expression_parts(head)]
    else:
        mine = [p == part for p in expression_parts(head)]
    before, column = track.expression, gain[:, None]
    expression = _named_within(head, before * column, before)
    joints = track.joints
    for name in track.joint_names[1:]:
        if joint_part(name) == part:
            joints = _joint_replaced(track, joints, name, scaled(track.joint(name), gain), gain != 1)
    changed = torch.tensor(mine, device=before.device) & (column != 1)
    return replace(track, expression=torch.where(changed, expression, before), joints=joints)


def _poses_amplified(track: HeadTrack, gain: Tensor) -> HeadTrack:
    """The turns of head and neck since the first frame times `gain` (T,)."""

    def amplified(rotation: Tensor) -> Tensor:
        first = rotation[:1].expand_as(rotation)
        return compose(scaled(compose(rotation, inverse(first)), gain), first)

    def moved(rotation: Tensor) -> Tensor:
        return (gain != 1) & (rotation != rotation[:1]).any(-1)

    joints = track.joints
    for name in track.joint_names[1:]:
        if joint_part(name) == "pose":
            joints = _joint_replaced(track, joints, name, amplified(track.joint(name)), moved(track.joint(name)))
    turned = torch.where(moved(track.rotation)[:, None], amplified(track.rotation), track.rotation)
    return replace(track, rotation=turned, joints=joints)


def _turned(rotation: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    angles = [values.get(n, torch.zeros_like(rotation[:, 0])) for n in ("yaw", "pitch", "roll")]
    return _where_any(angles, compose(rotation, pose_rotation(*angles)), rotation)


def _shifted(translation: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    shift = [values.get(n, torch.zeros_like(translation[:, 0])) for n in "xyz"]
    x, y, z = (s / 100 for s in shift)
    return _where_any(shift, translation + torch.stack([x, -y, -z], -1), translation)


def _opens_by_joint(head: HeadModel) -> bool:
    """Whether jawOpen is a turn of the jaw joint, on a head that has names but not this one."""
    return bool(head.expression_names) and "jawOpen" not in head.expression_names and "jaw" in head.joint_names


def _looking(
    names: tuple[str, ...], weights: Tensor, values: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """Named weights (T, K) with the lids following the gaze, and the yaw and pitch (T,) that remain to each eye's joint."""
    none, gaze = torch.zeros_like(weights[:, 0]), {}
    columns = dict(zip(names, weights.unbind(1), strict=True))
    for side, joint in _EYES.items():
        yaw, pitch = (values.get(n, none) + values.get(n + side, none) for n in ("gazeYaw", "gazePitch"))
        followed, left = lids_follow(columns, side, pitch)
        columns |= {name: torch.where(pitch != 0, weight, columns[name]) for name, weight in followed.items()}
        gaze[joint] = yaw, torch.where(pitch != 0, left, pitch)
    return torch.stack(list(columns.values()), 1), gaze


def _gazed_and_opened(
    head: HeadModel, track: HeadTrack, gaze: Mapping[str, tuple[Tensor, Tensor]], values: Mapping[str, Tensor]
) -> Tensor:
    joints = track.joints
    for joint, angles in gaze.items():
        if joint in track.joint_names:
            turned = compose(track.joint(joint), gaze_rotation(*angles))
            joints = _joint_replaced(track, joints, joint, turned, torch.stack(angles).any(0))
    if "jawOpen" in values and _opens_by_joint(head):
        opened = compose(track.jaw, jaw_rotation(values["jawOpen"]))
        joints = _joint_replaced(track, joints, "jaw", opened, values["jawOpen"] != 0)
    return joints


def _where_any(values: list[Tensor], changed: Tensor, before: Tensor) -> Tensor:
    """`changed` (T, 3) in the frames where one of `values` (T,) is not 0."""
    return torch.where(torch.stack(values).any(0)[:, None], changed, before)


def _joint_replaced(track: HeadTrack, joints: Tensor, name: str, turned: Tensor, where: Tensor) -> Tensor:
    """`joints` (T, J - 1, 3) with the named joint's rotation `turned` (T, 3) in the frames `where` (T,)."""
    j = track.joint_names.index(name) - 1
    turned = torch.where(where[:, None], turned, joints[:, j])
    return torch.cat([joints[:, :j], turned[:, None], joints[:, j + 1 :]], 1)


def _named_within(head: HeadModel, wanted: Tensor, before: Tensor) -> Tensor:
    return within(wanted, before) if head.expression_names else wanted


def _sliders(head: HeadModel) -> dict[str, tuple[Axis, ...]]:
    """The sliders of a head: by its own names, or by those of ARKit's that mean something on it."""
    if head.expression_names:
        return expression_sliders(head.expression_names)
    mapping = arkit_map(head)
    return expression_sliders(tuple(n for n in ARKIT_NAMES if mapping.knows(n)))


def _expressed(head: HeadModel, track: HeadTrack, weights: Tensor, values: Mapping[str, Tensor]) -> HeadTrack:
    """The sliders added to a head's own names, `weights` (T, E), which stay within 0..1."""
    expression = track.expression
    moved = _raised(head.expression_names, weights, _sliders(head), values)
    if "mouthClose" in values and "jawOpen" in head.expression_names:
        # It is ARKit's counterpart of jawOpen: beyond that it would push the lips through each other.
        close, jaw = (head.expression_index(n) for n in ("mouthClose", "jawOpen"))
        moved[:, close] = moved[:, close].minimum(moved[:, jaw].clamp(max=1).maximum(expression[:, close]))
    return replace(track, expression=within(moved, expression))


def _mapped(head: HeadModel, track: HeadTrack, weights: Tensor, values: Mapping[str, Tensor]) -> HeadTrack:
    """The sliders added to ARKit's `weights` (T, 52) on a head without names: what the map makes of them is added to the
    track's own, and its joints turn further."""
    expression, turns = arkit_map(head).apply(_raised(ARKIT_NAMES, weights, _sliders(head), values))
    joints = torch.where(turns.any(-1, keepdim=True), compose(track.joints, turns), track.joints)
    return replace(track, expression=track.expression + expression, joints=joints)


def _raised(
    names: tuple[str, ...], expression: Tensor, sliders: Mapping[str, tuple[Axis, ...]], values: Mapping[str, Tensor]
) -> Tensor:
    """The sliders added to named weights (T, K). One with an opposite takes that away before it raises its own."""
    columns = dict(zip(names, expression.unbind(1), strict=True))
    for name, value in values.items():
        for up, down, full in sliders.get(name, ()):
            if down is None:
                columns[up] = columns[up] + full * value
                continue
            rise, fall = value.clamp(min=0), (-value).clamp(min=0)
            down_less = columns[down].clamp(min=0).minimum(rise)
            up_less = columns[up].clamp(min=0).minimum(full * fall)
            columns[up] = columns[up] + full * (rise - down_less) - up_less
            columns[down] = columns[down] + (fall - up_less / full) - down_less
    return torch.stack(list(columns.values()), 1)
