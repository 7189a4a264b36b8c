"""One affine map for each triangle: the surface field of a frame pair, once the closest triangle is known."""

from typing import NamedTuple

import torch
from torch import Tensor

MIN_HEIGHT = 1e-6
"""Metres. A triangle whose least height is under this is degenerate: its normal, or its inverse, is noise."""


class AffineMaps(NamedTuple):
    """The flow of a point p whose closest target triangle is t: `shift[t] + gain[t] @ (p - origin[t])`.

    In the words of docs/flow.md, `A = I + gain` and `b = origin + shift - A origin`; this form keeps its precision in
    float32, where b would cancel.
    """

    origin: Tensor  # (B, F, 3) the target triangle's first corner
    shift: Tensor  # (B, F, 3) from there to the source triangle's first corner
    gain: Tensor  # (B, F, 3, 3)
    normal: Tensor  # (B, F, 3) unit normals of the target
    usable: Tensor  # (B, F) bool: False where the target triangle is degenerate or not finite


def affine_maps(target: Tensor, source: Tensor, faces: Tensor) -> AffineMaps:
    """The maps from target to source, vertices (B, V, 3) in metres, triangles (F, 3). In float64, whatever comes in.

    A source triangle without a normal (degenerate) borrows that of the target.
    """
    a, e1, e2 = _edges(target, faces)
    n, usable = _unit_normal(e1, e2)
    sa, s1, s2 = _edges(source, faces)
    m, sound = _unit_normal(s1, s2)
    m = torch.where(sound[..., None], m, n)

    doubled = torch.linalg.cross(e1, e2).norm(dim=-1, keepdim=True).clamp(min=1e-300)
    along1 = torch.linalg.cross(e2, n) / doubled  # the dual basis: (p - a) . along1 is the second barycentric
    along2 = torch.linalg.cross(n, e1) / doubled
    outer = [s[..., :, None] * t[..., None, :] for s, t in ((s1, along1), (s2, along2), (m, n))]
    gain = sum(outer) - torch.eye(3, dtype=a.dtype, device=a.device)
    shift = sa - a
    usable = usable & gain.isfinite().all(-1).all(-1) & shift.isfinite().all(-1)
    return AffineMaps(a, shift, gain, n, usable)


def _edges(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a, b, c = vertices.double()[:, faces].unbind(2)
    return a, b - a, c - a


def _unit_normal(e1: Tensor, e2: Tensor) -> tuple[Tensor, Tensor]:
    """Unit normals, 0 for degenerate triangles, and which are sound."""
    normal = torch.linalg.cross(e1, e2)
    doubled = normal.norm(dim=-1)
    longest = torch.stack([e1, e2, e2 - e1]).norm(dim=-1).amax(0)
    sound = doubled > MIN_HEIGHT * longest  # False for NaN too
    return torch.where(sound[..., None], normal / doubled.clamp(min=1e-300)[..., None], 0.0), sound
