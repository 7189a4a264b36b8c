"""Maps of a rasterized head: depth, normals and parts."""

import torch
from torch import Tensor

from .rasterize import Fragments
from .shade import vertex_normals


def relative_depth(fragments: Fragments) -> Tensor:
    """(B, H, W) depth stretched over each frame: 1 at the nearest visible point, 0 at the farthest and off the head."""
    depth = fragments.depth
    seen = fragments.triangle >= 0
    near = depth.masked_fill(~seen, torch.inf).amin((1, 2), keepdim=True)
    far = depth.amax((1, 2), keepdim=True)
    return torch.where(seen, (far - depth) / (far - near).clamp(min=1e-9), 0.0)


def normal_map(vertices: Tensor, faces: Tensor, fragments: Fragments) -> Tensor:
    """(B, H, W, 3) smooth unit normals in the camera frame (x right, y down, z forward), 0 off the head.

    Args:
        vertices: (B, V, 3) those that were rasterized. faces: (F, 3) counter-clockwise seen from outside.
    """
    corners = vertex_normals(vertices, faces)[:, faces]  # (B, F, 3, 3)
    triangle = fragments.triangle.clamp(min=0).long()
    rows = torch.arange(len(vertices), device=vertices.device)[:, None, None]
    mixed = torch.einsum("bhwc,bhwcx->bhwx", fragments.bary, corners[rows, triangle])
    return torch.nn.functional.normalize(mixed, dim=-1)


def part_map(face_parts: Tensor, fragments: Fragments) -> Tensor:
    """(B, H, W) int64: the part seen at each pixel (see `HeadModel.face_parts`), -1 off the head."""
    part = face_parts[fragments.triangle.clamp(min=0).long()]
    return torch.where(fragments.triangle >= 0, part, -1)
