"""Depth maps of a head: in metres, and stretched over 0..1 as depth networks and MagicPortrait have them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..flow.field import ALL, Frames
from ..render.rasterize import Fragments
from .base import PosedHead

Range = tuple[float, float]


def vertex_range(vertices: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest and farthest depth of each head's vertices (n, V, 3), hidden ones too: two (n, 1, 1), metres."""
    near, far = vertices[..., 2].float().aminmax(dim=1)
    return near[:, None, None], far[:, None, None]


def inverse_depth(seen: Fragments, near: Tensor | float, far: Tensor | float) -> Tensor:
    """(n, H, W) inverse depth: 1 at `near` metres, 0 at `far` and off the head. Published depth networks are trained on
    MiDaS's estimates, which are inverse depth, stretched over each picture (Ranftl et al., TPAMI 2020)."""
    return _stretched(1 / seen.depth.clamp(min=1e-9), seen, 1 / near, 1 / far)


def linear_depth(seen: Fragments, near: Tensor | float, far: Tensor | float) -> Tensor:
    """(n, H, W) depth: 1 at `near` metres, 0 at `far` and off the head. MagicPortrait's depth map, with the ends of all of
    the frame's vertices (`render_depth` in its renderer)."""
    return _stretched(seen.depth, seen, near, far)


def _stretched(value: Tensor, seen: Fragments, one: Tensor | float, zero: Tensor | float) -> Tensor:
    span = one - zero
    span = torch.where(torch.as_tensor(span, device=value.device) == 0, 1.0, span)
    return torch.where(seen.triangle >= 0, ((value - zero) / span).clamp(0, 1), 0.0)


@dataclass(frozen=True, eq=False)
class MetricDepth:
    """Camera z in metres, 0 off the head."""

    posed: PosedHead

    @property
    def channels(self) -> int:
        return 1

    def __len__(self) -> int:
        return len(self.posed)

    def encode(self, frames: Frames = ALL) -> Tensor:
        """(n, 1, H, W) float32, metres."""
        return self.posed.seen(self.posed.vertices(frames)).depth[:, None]


@dataclass(frozen=True, eq=False)
class InverseDepth:
    """Inverse depth over 0..1, see `inverse_depth`. Networks that take RGB take it three times.

    `ends` are near and far in metres; None: those of each frame's vertices, which makes brightness follow the head's place.
    """

    posed: PosedHead
    ends: Range | None = None

    @property
    def channels(self) -> int:
        return 1

    def __len__(self) -> int:
        return len(self.posed)

    def encode(self, frames: Frames = ALL) -> Tensor:
        """(n, 1, H, W) float32, 0..1."""
        vertices = self.posed.vertices(frames)
        near, far = self.ends or vertex_range(vertices)
        return inverse_depth(self.posed.seen(vertices), near, far)[:, None]


@dataclass(frozen=True, eq=False)
class LinearDepth:
    """Depth over 0..1, see `linear_depth`; `ends` as in `InverseDepth`."""

    posed: PosedHead
    ends: Range | None = None

    @property
    def channels(self) -> int:
        return 1

    def __len__(self) -> int:
        return len(self.posed)

    def encode(self, frames: Frames = ALL) -> Tensor:
        """(n, 1, H, W) float32, 0..1."""
        vertices = self.posed.vertices(frames)
        near, far = self.ends or vertex_range(vertices)
        return linear_depth(self.posed.seen(vertices), near, far)[:, None]
