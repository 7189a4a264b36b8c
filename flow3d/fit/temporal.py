"""Time in the fit: velocity and acceleration priors on everything that moves, solved for all frames of a window at once.

Each frame's own fit is summed up by its normal equations; the priors couple it to its neighbours, which makes one banded
system. The priors are robust (Cauchy): a still head stays still, and a quick nod or a blink is not ironed out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import solveh_banded
from torch import Tensor

from ..rotations import compose, inverse

_ROUNDS = 3  # of reweighting
_WINDOW, _MARGIN = 192, 16  # frames solved at once, and of those how many at each end belong to the next window
_PER_SECOND = 25.0  # frames, at which the deviations hold
_REST = 1e-6  # precision that keeps a frame without a face determined

Frames = slice
Precision = Callable[[Frames], Tensor]
"""Normal matrices (n, P, P) of some frames about the values given; zero for a frame without a face."""


@dataclass(frozen=True, eq=False)
class Channels:
    """What moves, as columns: P values a frame, of which three are a rotation, and what is expected of each."""

    acceleration: Tensor  # (P,) standard deviation per frame^2 of a head that moves little
    velocity: Tensor  # (P,) standard deviation per frame of a head that keeps still
    rotation: int  # the first of the three columns of the rotation


def _differences(values: Tensor, rotation: int) -> Tensor:
    """(T - 1, P): each frame's change to the next; rotations by their quotient."""
    change = values[1:] - values[:-1]
    turn = slice(rotation, rotation + 3)
    change[:, turn] = compose(values[1:, turn], inverse(values[:-1, turn]))
    return change


def _weights(change: Tensor, sigma: Tensor, rotation: int) -> Tensor:
    """Precisions under which squares grow like Cauchy's loss: (n, P) changes with standard deviations (P,)."""
    size = (change / sigma).square()
    size[:, rotation : rotation + 3] = size[:, rotation : rotation + 3].mean(1, keepdim=True)
    size[:, rotation + 3 : rotation + 6] = size[:, rotation + 3 : rotation + 6].mean(1, keepdim=True)
    return 1 / (sigma**2 * (1 + size))


def _step(matrix: Tensor, moved: Tensor, values: Tensor, channels: Channels) -> Tensor:
    """(T, P): the step from `values` that lessens their cost: frames' normal matrices (T, P, P) about the frames' own
    fits, `moved` (T, P) away from those, and the priors."""
    t, p = moved.shape
    change = _differences(values, channels.rotation)
    bend = change[1:] - change[:-1]
    u, w = (_weights(c, s, channels.rotation) for c, s in ((change, channels.velocity), (bend, channels.acceleration)))
    diagonal, next_one, next_two, gradient = (torch.zeros(t, p, dtype=torch.float64) for _ in range(4))
    diagonal[:-1] += u
    diagonal[1:] += u
    next_one[:-1] -= u
    gradient[:-1] -= u * change
    gradient[1:] += u * change
    diagonal[:-2] += w
    diagonal[1:-1] += 4 * w
    diagonal[2:] += w
    next_one[:-2] -= 2 * w
    next_one[1:-1] -= 2 * w
    next_two[:-2] += w
    gradient[:-2] += w * bend
    gradient[1:-1] -= 2 * w * bend
    gradient[2:] += w * bend
    gradient += (matrix @ moved[..., None])[..., 0]
    band = np.zeros((2 * p + 1, t * p))
    for k in range(p):
        own = torch.zeros(t, p, dtype=torch.float64)
        own[:, : p - k] = torch.diagonal(matrix, -k, 1, 2)
        band[k] = own.flatten().numpy()
    band[0] += (diagonal + _REST).flatten().numpy()
    band[p], band[2 * p] = next_one.flatten().numpy(), next_two.flatten().numpy()
    return torch.from_numpy(solveh_banded(band, -gradient.flatten().numpy(), lower=True, check_finite=False)).reshape(t, p)


def _added(values: Tensor, step: Tensor, rotation: int) -> Tensor:
    turn = slice(rotation, rotation + 3)
    out = values + step
    out[:, turn] = compose(step[:, turn], values[:, turn])
    return out


def _away(values: Tensor, start: Tensor, rotation: int) -> Tensor:
    turn = slice(rotation, rotation + 3)
    out = values - start
    out[:, turn] = compose(values[:, turn], inverse(start[:, turn]))
    return out


def _windows(count: int) -> Iterator[tuple[slice, slice]]:
    """(frames to solve, which of those to keep) such that every frame is kept once."""
    for first in range(0, count, _WINDOW - 2 * _MARGIN):
        start, stop = max(first - _MARGIN, 0), min(first + _WINDOW - _MARGIN, count)
        keep = min(first + _WINDOW - 2 * _MARGIN, count)
        yield slice(start, stop), slice(first - start, keep - start)


def in_time(
    values: Tensor, precision: Precision, channels: Channels, fps: float, reached: Callable[[int], None] = lambda _: None
) -> Tensor:
    """The most likely motion, given each frame's own fit.

    Args:
        values: (T, P) the frames' own fits, float64; anything sensible where there was no face.
        precision: the frames' normal matrices about `values`.
        reached: told how many frames are done, several times for each window; it may raise to cancel.

    Returns:
        (T, P).
    """
    if len(values) < 3:
        return values
    scale = _PER_SECOND / fps
    timed = Channels(channels.acceleration * scale**2, channels.velocity * scale, channels.rotation)
    out = values.clone()
    for solve, keep in _windows(len(values)):
        start = values[solve]
        if len(start) < 3:
            continue
        matrix, now = precision(solve), start
        for _ in range(_ROUNDS):
            reached(solve.start)
            moved = _away(now, start, channels.rotation)
            now = _added(now, _step(matrix, moved, now, timed), channels.rotation)
        out[solve][keep] = now[keep]
    return out
