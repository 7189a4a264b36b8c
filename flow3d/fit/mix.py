"""Two tracks made one: blended, one's motion on top of the other, or part by part."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..head.model import HeadModel
from ..rotations import compose, inverse
from ..track import HeadTrack
from .arkit import on_head
from .between import lerp, slerp
from .edit import Edit, check_track, series, within
from .keyframes import Keyframes
from .parts import FACE_PARTS, expression_parts, joint_part, surface_share
from .timing import resample

MODES = ("blend", "add", "take")
PARTS = frozenset({"pose", "translation", "jaw", "eyes", *FACE_PARTS})
"""`pose` is the rotation of head and neck, `translation` where the head is, `jaw` the jaw joint with the jaw* expressions
and mouthClose, `eyes` the eye joints with the eyeLook* expressions, `eyelids` and `brows` theirs, `mouth` lips and tongue,
`expression` all the rest: cheeks and nose."""
LENGTHS = ("hold", "loop")
LARGEST = 10
"""Of the weight of a track that is added."""


def mix(
    head: HeadModel,
    first: HeadTrack,
    second: HeadTrack,
    mode: str = "blend",
    weight: Edit = 0.5,
    parts: Iterable[str] = PARTS,
    shorter: str = "hold",
) -> HeadTrack:
    """The first track with the chosen parts of the second: the first's shape, camera and frame rate, the longer's length.

    blend: at `weight`, 0..1, of the way from the first to the second; rotations by slerp.
    add: `weight` times what the second changes since its first frame, on top of the first; a weight below 0 mirrors it.
    take: the chosen parts as in the second.

    Parts that are left, and everything at weight 0, keep the first's bits. A frame is as certain as the less certain of
    the two. Landmark and frame offsets go with the part of the face that they lie on; between tracks of two people only
    their change around their mean does.

    Args:
        first, second: tracks of the same head model, or bundled motions. The second is brought to the first's frame rate.
        weight: a number, or `Keyframes` to fade from one to the other.
        parts: names out of `PARTS`.
        shorter: `hold` or `loop`, what the shorter track does when it is over.

    Raises InputError for an unknown mode, part or length, a weight that is none, tracks of different head models, and
    parts of the face that a head without named expressions cannot tell apart.
    """
    parts = frozenset(parts)
    weight = 1.0 if mode == "take" else weight
    _check(head, mode, weight, parts, shorter)
    first, second = (on_head(track, head) for track in (first, second))
    for track in (first, second):
        check_track(head, track)
    first, second = _same_time(first, second, shorter)
    w = series(weight, first)
    if mode == "add":
        return _weighed(head, first, _on_top(first, second), w, parts, first)
    return _weighed(head, first, _as_the_first(first, second), w, parts, second)


def _check(head: HeadModel, mode: str, weight: Edit, parts: frozenset[str], shorter: str) -> None:
    if mode not in MODES:
        raise InputError(f"FLAME Mix: there is no mode '{mode}'. Choose one of {', '.join(MODES)}.")
    if shorter not in LENGTHS:
        raise InputError(f"FLAME Mix: a shorter track cannot '{shorter}'. Choose one of {', '.join(LENGTHS)}.")
    if parts - PARTS:
        raise InputError(f"FLAME Mix: unknown part {', '.join(sorted(parts - PARTS))}. There are {', '.join(sorted(PARTS))}.")
    low, high = (-LARGEST, LARGEST) if mode == "add" else (0, 1)
    for value in weight.values if isinstance(weight, Keyframes) else (weight,):
        if not low <= value <= high:
            raise InputError(f"FLAME Mix: the weight is {value:g}; for '{mode}' it must be between {low} and {high}.")
    if not head.expression_names and 0 < len(parts & set(FACE_PARTS)) < len(FACE_PARTS):
        raise InputError(
            f"FLAME Mix: head model '{head.name}' has no named expressions, so that {', '.join(FACE_PARTS)} cannot be told "
            "apart. Take all of them or none."
        )


def _same_time(first: HeadTrack, second: HeadTrack, shorter: str) -> tuple[HeadTrack, HeadTrack]:
    """Both as long as the longer one, at one frame rate: the first's, or, where that is a still, the second's."""
    if len(first) == 1:
        first = replace(first, fps=second.fps)
    elif len(second) > 1:
        second = resample(second, first.fps)
    n = max(len(first), len(second))

    def filled(track: HeadTrack) -> HeadTrack:
        if len(track) == n:
            return track
        return track[[i % len(track) if shorter == "loop" else min(i, len(track) - 1) for i in range(n)]]

    return filled(first), filled(second)


def _as_the_first(first: HeadTrack, second: HeadTrack) -> HeadTrack:
    """The second with offsets that fit the first's face: its own for the same person, else their change around the mean."""
    if torch.equal(first.shape, second.shape):
        return second

    def moved(start: Tensor | None, now: Tensor | None) -> Tensor | None:
        change = None if now is None else now - now.mean(0, keepdim=True)
        if start is None:
            return change
        mine = start.mean(0, keepdim=True).expand_as(start)
        return mine if change is None else mine + change

    names = ("landmark_offsets", "frame_offsets")
    surface: dict[str, Any] = {n: moved(getattr(first, n), getattr(second, n)) for n in names}
    return replace(second, **surface)


def _on_top(first: HeadTrack, second: HeadTrack) -> HeadTrack:
    """The first with what the second changes since its first frame."""

    def turned(start: Tensor, now: Tensor) -> Tensor:
        rest = now[:1].expand_as(now)
        still = (now == rest).all(-1, keepdim=True)
        return torch.where(still, start, compose(now, inverse(rest), start))

    def moved(start: Tensor | None, now: Tensor | None) -> Tensor | None:
        if now is None:
            return start
        return now - now[:1] if start is None else start + (now - now[:1])

    return replace(
        second,
        expression=first.expression + (second.expression - second.expression[:1]),
        joints=turned(first.joints, second.joints),
        rotation=turned(first.rotation, second.rotation),
        translation=first.translation + (second.translation - second.translation[:1]),
        landmark_offsets=moved(first.landmark_offsets, second.landmark_offsets),
        frame_offsets=moved(first.frame_offsets, second.frame_offsets),
    )


def _weighed(
    head: HeadModel, first: HeadTrack, end: HeadTrack, weight: Tensor, parts: frozenset[str], bound: HeadTrack
) -> HeadTrack:
    """From the first to `end` in the chosen parts, at `weight` (T,) of the way.

    Named expressions stay within 0..1, or as far beyond as those of the first and `bound` are.
    """
    if not parts or not weight.any():
        return first
    take_expression = torch.tensor([p in parts for p in expression_parts(head)], device=weight.device)
    take_joints = torch.tensor([joint_part(n) in parts for n in first.joint_names[1:]], device=weight.device)
    expression = torch.lerp(first.expression, end.expression, weight[:, None])
    if head.expression_names:
        expression = within(expression, first.expression, bound.expression)
    joints = slerp(first.joints, end.joints, weight[:, None].expand(first.joints.shape[:2]))
    moves: dict[str, Tensor | None] = {**_certainty(first, end, weight)}
    if "pose" in parts:
        moves["rotation"] = slerp(first.rotation, end.rotation, weight)
    if "translation" in parts:
        moves["translation"] = torch.lerp(first.translation, end.translation, weight[:, None])
    surface = _offsets(head, first, end, weight, parts)
    return replace(
        first,
        expression=torch.where(take_expression, expression, first.expression),
        joints=torch.where(take_joints[:, None], joints, first.joints),
        **dict[str, Any](moves | surface),
    )


def _certainty(first: HeadTrack, end: HeadTrack, weight: Tensor) -> dict[str, Tensor]:
    assert first.state is not None and end.state is not None
    assert first.confidence is not None and end.confidence is not None
    mixed = weight != 0
    return {
        "confidence": torch.where(mixed, first.confidence.minimum(end.confidence), first.confidence),
        "state": torch.where(mixed, first.state.maximum(end.state), first.state),
    }


def _offsets(
    head: HeadModel, first: HeadTrack, end: HeadTrack, weight: Tensor, parts: frozenset[str]
) -> dict[str, Tensor | None]:
    """The offsets of the surface, each vertex and landmark at the weight that the chosen parts have there."""
    if not parts & set(FACE_PARTS):
        return {}
    share = surface_share(head, parts)[:, None]  # (V, 1)
    at = {"frame_offsets": share}
    if first.landmark_offsets is not None or end.landmark_offsets is not None:
        at["landmark_offsets"] = head.dense.on(share, head.faces)  # (478, 1)
    return {n: lerp(getattr(first, n), getattr(end, n), weight[:, None, None] * s.to(weight)) for n, s in at.items()}
