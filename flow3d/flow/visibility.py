"""Where the surface points that one frame shows are in another frame, and whether they can be seen there."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..camera import Camera
from ..render.rasterize import Fragments, rasterize

DEPTH_TOLERANCE = 0.003
"""Metres that a point may lie behind the source's z-buffer. Skin folds thinner than this are not told apart."""


class SourcePoints(NamedTuple):
    """One for each pixel of the target's fragments; off the head: the pixel's own centre, z = 0, not visible."""

    pixels: Tensor  # (B, H, W, 2)
    depth: Tensor  # (B, H, W) camera z in the source, metres
    visible: Tensor  # (B, H, W) bool


def seen_in(source: Tensor, faces: Tensor, camera: Camera, fragments: Fragments) -> SourcePoints:
    """Find the points that the fragments show on the source mesh.

    Visible are points in front of the camera and inside the image whose triangle faces the camera and which are not
    behind the source's z-buffer. The z-buffer is that of the four pixels around the point, the farthest of them.

    Args:
        source: (1, V, 3) camera frame, metres. faces: (F, 3) counter-clockwise seen from outside.
    """
    corners = source[0][faces]  # (F, 3, 3)
    seen = fragments.triangle >= 0
    triangle = fragments.triangle.clamp(min=0).long()
    points = torch.einsum("bhwc,bhwcx->bhwx", fragments.bary, corners[triangle])
    y, x = torch.meshgrid(*(torch.arange(n, device=source.device) + 0.5 for n in seen.shape[1:]), indexing="ij")
    own = torch.stack([x, y], -1).expand(*seen.shape, 2)
    pixels = torch.where((seen & (points[..., 2] > 0))[..., None], camera.project(points), own)

    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facing = (normal * corners[:, 0]).sum(-1) < 0
    inside = ((pixels >= 0) & (pixels < pixels.new_tensor([camera.width, camera.height]))).all(-1)
    behind = points[..., 2] > _farthest(rasterize(source, faces, camera).depth[0], pixels) + DEPTH_TOLERANCE
    return SourcePoints(pixels, points[..., 2], seen & inside & facing[triangle] & ~behind)


def _farthest(depth: Tensor, pixels: Tensor) -> Tensor:
    """The largest depth of the four pixels whose centres surround each place (..., 2); empty ones are infinitely far."""
    h, w = depth.shape
    depth = torch.where(depth > 0, depth, torch.inf)
    corner = (pixels - 0.5).floor().long()
    around = [
        depth[(corner[..., 1] + dy).clamp(0, h - 1), (corner[..., 0] + dx).clamp(0, w - 1)]
        for dy in (0, 1)
        for dx in (0, 1)
    ]
    return torch.stack(around).amax(0)
