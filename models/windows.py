"""Context windows: a long clip is sampled in windows that overlap, whose results are averaged at every step.

`uniform` is the plain average of X-Portrait and MagicPortrait; `pyramid` weighs a window's middle more, as FreeNoise does;
`overlap-linear` fades within the overlap alone.
"""

from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..flow3d.errors import InputError

Fusing = Literal["uniform", "pyramid", "overlap-linear"]
FUSINGS: tuple[Fusing, ...] = ("pyramid", "uniform", "overlap-linear")
Offset = Literal["none", "inside", "circular"]
OFFSETS: tuple[Offset, ...] = ("none", "inside", "circular")


@dataclass(frozen=True)
class Windows:
    """How a clip is cut into windows.

    Args:
        length: frames a window.
        overlap: frames that neighbouring windows share, at least.
        stride: 2 adds windows of every second frame, 3 also of every fourth, and so on: they see further, and cost as much
            again as the plain windows, each.
        closed_loop: the last frame is followed by the first; windows run across.
        fusing: the weights of the average.
        offset: where the windows of a step begin: at the same frames each step (`none`), at random ones but within the clip
            (`inside`), or at random ones with windows that run across the clip's end (`circular`), as X-Portrait does.
    """

    length: int = 16
    overlap: int = 4
    stride: int = 1
    closed_loop: bool = False
    fusing: Fusing = "pyramid"
    offset: Offset = "none"

    def __post_init__(self) -> None:
        if self.length < 1 or not 0 <= self.overlap < self.length:
            raise InputError(
                f"windows of {self.length} frames cannot overlap by {self.overlap}. Set 'overlap' below 'window length'."
            )
        if self.stride < 1:
            raise InputError(f"'stride' is {self.stride}. 1 is the smallest.")

    def at_step(self, frames: int, step: int, seed: int) -> list[list[int]]:
        """The windows of a step: lists of frame numbers in [0, frames), of `length` each; one of all frames where they fit in.

        The same seed and step give the same windows. Each frame is in at least one.
        """
        if frames <= self.length:
            return [list(range(frames))]
        found = []
        for every in (2**k for k in range(self.stride)):
            if frames // every < self.length and every > 1:
                break
            for phase in range(every):
                chosen = list(range(phase, frames, every))
                found += [
                    [chosen[i % len(chosen)] for i in window] for window in self._windows(len(chosen), step, seed)
                ]
        return found

    def _windows(self, frames: int, step: int, seed: int) -> list[range]:
        """Windows of neighbouring frames; numbers from `frames` on count from the clip's beginning again."""
        hop = self.length - self.overlap
        random = np.random.default_rng((seed, step))
        if self.closed_loop or self.offset == "circular":
            count = ceil(frames / hop)
            start = 0 if self.offset == "none" else int(random.integers(frames))
            return [range(start + k * frames // count, start + k * frames // count + self.length) for k in range(count)]
        last = frames - self.length
        if self.offset == "none":
            count = ceil(last / hop) + 1
            starts = [round(k * last / (count - 1)) for k in range(count)] if count > 1 else [0]
        else:
            first = -int(random.integers(hop))
            starts = [min(max(start, 0), last) for start in range(first, last + hop, hop)]
        return [range(start, start + self.length) for start in dict.fromkeys(starts)]

    def weights(self, windows: list[list[int]], frames: int) -> Tensor:
        """(W, F) how much each window counts for each frame; over the windows they sum to one."""
        table = torch.zeros(len(windows), frames, dtype=torch.float64)
        for row, window in zip(table, windows, strict=True):
            ends = torch.arange(1, len(window) + 1)
            row[window] = torch.minimum(ends, ends.flip(0)).clamp(max=self._ramp(len(window))).double()
        return (table / table.sum(0)).float()

    def _ramp(self, length: int) -> int:
        """Over how many frames the weight grows from a window's end."""
        return {"uniform": 1, "pyramid": length, "overlap-linear": self.overlap + 1}[self.fusing]


def borders(windows: list[list[int]], frames: int) -> list[bool]:
    """For each pair of frames i, i + 1: whether a window of neighbouring frames holds only one of the two."""
    crossed = [False] * (frames - 1)
    for window in windows:
        if len(window) > 1 and (window[1] - window[0]) % frames != 1:
            continue  # of every second frame or fewer: all its frames are ends
        held = set(window)
        for i in range(frames - 1):
            crossed[i] |= (i in held) != (i + 1 in held)
    return crossed
