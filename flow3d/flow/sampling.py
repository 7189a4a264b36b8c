"""Depth-guided sampling: where along each pixel's ray the flow is asked for (FG-Portrait, CVPR 2026)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class Sampling:
    """Version 2 of the encoding's numbers; lengths in metres of camera z. Raises InputError where they make no sense."""

    samples: int = 20
    delta: float = 0.01  # on the head: this far before and behind the surface
    near: float = 0.65  # off the head
    far: float = 1.25

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InputError(f"3D flow: {self.samples} samples along a ray; it takes at least 1.")
        if not (math.isfinite(self.delta) and self.delta >= 0):
            raise InputError(f"3D flow: delta is {self.delta} m; it must be a number of at least 0.")
        if not (math.isfinite(self.far) and 0 < self.near < self.far):
            raise InputError(f"3D flow: near {self.near} m and far {self.far} m; they must satisfy 0 < near < far.")

    def span(self, depth: Tensor) -> tuple[Tensor, Tensor]:
        """First and last depth at each pixel of a depth map that is 0 off the head; same shape."""
        on = depth > 0
        return torch.where(on, depth - self.delta, self.near), torch.where(on, depth + self.delta, self.far)

    @property
    def steps(self) -> tuple[float, float]:
        """Where the first sample lies between the ends, 0 to 1, and how far apart the samples are."""
        return (0.0, 1 / (self.samples - 1)) if self.samples > 1 else (0.5, 0.0)

    def depths(self, depth: Tensor) -> Tensor:
        """All sampled depths: (...) to (..., samples), evenly spaced, both ends included; a single one in the middle."""
        low, high = self.span(depth)
        first, step = self.steps
        along = first + step * torch.arange(self.samples, dtype=depth.dtype, device=depth.device)
        return low[..., None] + (high - low)[..., None] * along
