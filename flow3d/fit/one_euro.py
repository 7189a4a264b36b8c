"""The One-Euro filter: a low-pass filter for streams, whose cutoff rises with speed.

Casiez, Roussel and Vogel, 1 Euro Filter: a simple speed-based low-pass filter for noisy input in interactive systems, CHI 2012
(algorithm 1): what is slow is steadied, what is fast is hardly delayed. Vectors are filtered channel by channel. A rotation is
filtered on the rotation group: what it has turned by since the last filtered one is its change, its speed is a vector, and
one cutoff, by the angle, serves all axes.
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import InputError
from ..rotations import compose, inverse

Number = TypeVar("Number", float, Tensor)


@dataclass(frozen=True)
class OneEuro:
    """How much a signal is smoothed. Raises InputError for cutoffs that are not above 0 and a beta below 0."""

    min_cutoff: float  # Hz, of a signal at rest: lower is steadier
    beta: float  # Hz more for each unit a second: higher follows better
    speed_cutoff: float = 1.0  # Hz, of the speed itself

    def __post_init__(self) -> None:
        numbers = (self.min_cutoff, self.beta, self.speed_cutoff)
        if not all(map(math.isfinite, numbers)) or self.min_cutoff <= 0 or self.speed_cutoff <= 0 or self.beta < 0:
            raise InputError(f"One-Euro filter: {self} is not possible. Cutoffs are above 0, beta is not below 0.")


@dataclass(frozen=True, eq=False)
class Filtered:
    """A signal so far: all that the filter remembers."""

    time: float  # seconds
    value: Tensor  # (..., C), or (..., 3) axis-angle, filtered
    speed: Tensor  # (..., C) a second, filtered


def filtered(settings: OneEuro, last: Filtered | None, time: float, value: Tensor) -> Filtered:
    """The next value (..., C) of a signal, seen at `time` in seconds. The first (`last` None) is taken as it is.

    Raises InputError for a time that is not later than the last, or not finite.
    """
    if last is None:
        return _first(time, value)
    step = _step(last, time)
    speed = _towards(last.speed, (value - last.value) / step, _share(step, settings.speed_cutoff))
    share = _share(step, settings.min_cutoff + settings.beta * speed.abs())
    return Filtered(time, _towards(last.value, value, share), speed)


def filtered_rotation(settings: OneEuro, last: Filtered | None, time: float, rotation: Tensor) -> Filtered:
    """The next rotation (..., 3) of a signal, axis-angle; speeds are radians a second. Otherwise as `filtered`."""
    if last is None:
        return _first(time, rotation)
    step = _step(last, time)
    turn = compose(rotation, inverse(last.value))
    speed = _towards(last.speed, turn / step, _share(step, settings.speed_cutoff))
    share = _share(step, settings.min_cutoff + settings.beta * speed.norm(dim=-1, keepdim=True))
    return Filtered(time, compose(share * turn, last.value), speed)


def _share(step: float, cutoff: Number) -> Number:
    """The share of a new value, 0..1, that a low-pass filter of `cutoff` Hz takes after `step` seconds."""
    r = 2 * math.pi * step * cutoff
    return r / (r + 1)


def _first(time: float, value: Tensor) -> Filtered:
    if not math.isfinite(time):
        raise InputError(f"The time of a frame is {time}. Give it in seconds.")
    return Filtered(time, value, torch.zeros_like(value))


def _step(last: Filtered, time: float) -> float:
    """Seconds since the last value."""
    if not time > last.time or math.isinf(time):
        raise InputError(f"A frame at {time:g} s follows one at {last.time:g} s. Each frame needs a later time than the one before.")
    return time - last.time


def _towards(last: Tensor, new: Tensor, share: Tensor | float) -> Tensor:
    return last + share * (new - last)
