"""Between two moments of a head: what is linear is weighed, a rotation goes the shortest way on the rotation group."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..rotations import compose, from_matrix, inverse, to_matrix
from ..track import HeadTrack


def scaled(rotation: Tensor, factor: Tensor) -> Tensor:
    """`factor` (...) of a turn, axis-angle (..., 3); a turn by more than pi counts as the shorter one back."""
    return from_matrix(to_matrix(rotation)) * factor[..., None]


def slerp(start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    """Axis-angle (..., 3) at `weight` (...) of the way; below 0 and above 1 it goes on. Ends are kept bit for bit.

    `exp(w log(end start^-1)) start`, Shoemake's slerp written with rotations.
    """
    moved = compose(scaled(compose(end, inverse(start)), weight), start)
    w = weight[..., None]
    moved = torch.where((w == 0) | (end == start).all(-1, keepdim=True), start, moved)
    return torch.where(w == 1, end, moved)


def lerp(start: Tensor | None, end: Tensor | None, weight: Tensor) -> Tensor | None:
    """(T, ...) at `weight`, which is (T,) or as large as they are; None counts as 0, and stays None where both are."""
    if start is None and end is None:
        return None
    start = torch.zeros_like(end) if start is None else start  # type: ignore[arg-type]
    end = torch.zeros_like(start) if end is None else end
    return torch.lerp(start, end, over(weight, start))


def over(weight: Tensor, x: Tensor) -> Tensor:
    """(T,) with as many axes as `x` (T, ...), in its type."""
    return weight.to(x).reshape(*weight.shape, *[1] * (x.dim() - weight.dim()))


def between(first: HeadTrack, second: HeadTrack, weight: Tensor) -> HeadTrack:
    """Two tracks of one person and one length T, frame by frame at `weight` (T,), 0..1; the ends are kept bit for bit.

    A frame between two counts as detected where both are.
    """
    assert first.confidence is not None and second.confidence is not None
    assert first.state is not None and second.state is not None
    state = torch.where(weight <= 0, first.state, torch.where(weight >= 1, second.state, first.state.max(second.state)))
    names = ("frame_offsets", "landmark_offsets")
    surface: dict[str, Any] = {n: lerp(getattr(first, n), getattr(second, n), weight) for n in names}
    return replace(
        first,
        expression=torch.lerp(first.expression, second.expression, over(weight, first.expression)),
        joints=slerp(first.joints, second.joints, over(weight, first.joints[..., 0]).expand(first.joints.shape[:2])),
        rotation=slerp(first.rotation, second.rotation, weight.to(first.rotation)),
        translation=torch.lerp(first.translation, second.translation, over(weight, first.translation)),
        confidence=torch.lerp(first.confidence, second.confidence, weight.to(first.confidence)),
        state=state,
        **surface,
    )
