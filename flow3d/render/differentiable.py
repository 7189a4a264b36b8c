"""Gradients through a rasterizer: what lies at a pixel, as a smooth function of the vertices while the triangle stays.

The rasterizer tells which triangle each pixel shows. Where on the triangle the pixel lies is worked out again from the
vertices, so that colours inside the silhouette have gradients; the silhouette itself has none. This is the
"interpolation" part of Laine et al., "Modular Primitives for High-Performance Differentiable Rendering", 2020.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..camera import Camera
from .rasterize import rasterize


def visible_triangles(vertices: Tensor, faces: Tensor, camera: Camera) -> Tensor:
    """(H, W) int64: the triangle seen at each pixel's centre, -1 off the mesh.

    By nvdiffrast where it is installed and the vertices are on a CUDA device, else by `rasterize`.

    Args:
        vertices: (V, 3) camera frame, metres. faces: (F, 3).
    """
    if vertices.is_cuda and (context := _nvdiffrast_context(vertices.device)) is not None:
        return _by_nvdiffrast(context, vertices, faces, camera)
    return rasterize(vertices.detach()[None], faces, camera).triangle[0].long()


@cache
def _nvdiffrast_context(device: torch.device) -> Any | None:
    """nvdiffrast's CUDA rasterizer, or None where it is not installed."""
    try:
        import nvdiffrast.torch as nvdiffrast
    except ImportError:
        return None
    return nvdiffrast.RasterizeCudaContext(device)


def _by_nvdiffrast(context: Any, vertices: Tensor, faces: Tensor, camera: Camera) -> Tensor:
    import nvdiffrast.torch as nvdiffrast

    found, _ = nvdiffrast.rasterize(
        context, clip_space(vertices.detach().float(), camera)[None], faces.int().contiguous(), (camera.height, camera.width)
    )
    return found[0, ..., 3].long() - 1


def clip_space(vertices: Tensor, camera: Camera) -> Tensor:
    """(V, 4) homogeneous coordinates: x and y over w are -1..1 from the image's left to right and top to bottom, z over w
    is -1..1 from half the nearest vertex's depth to twice the farthest's."""
    x, y, z = vertices.unbind(-1)
    near, far = z.min() / 2, z.max() * 2
    return torch.stack(
        [
            (2 * camera.cx / camera.width - 1) * z + 2 * camera.focal / camera.width * x,
            (2 * camera.cy / camera.height - 1) * z + 2 * camera.focal / camera.height * y,
            ((far + near) * z - 2 * far * near) / (far - near),
            z,
        ],
        -1,
    )


def barycentrics(corners: Tensor, centres: Tensor, camera: Camera) -> Tensor:
    """Perspective-correct barycentrics of pixels on their triangles' planes, differentiable by the corners.

    Args:
        corners: (N, 3, 3) each pixel's triangle, camera frame, metres. centres: (N, 2) pixels.

    Returns:
        (N, 3), which sum to 1; negative where the pixel lies outside the triangle.
    """
    middle = centres.new_tensor([camera.cx, camera.cy])
    ray = (centres - middle) / camera.focal
    # Relative to the pixel's ray the numbers are small, and float32 is enough.
    a, b, c = (corners[:, k, :2] / corners[:, k, 2:] - ray for k in range(3))
    areas = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], -1)
    weights = areas / corners[:, :, 2]
    return weights / weights.sum(-1, keepdim=True)


def _cross(p: Tensor, q: Tensor) -> Tensor:
    return p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]


def pixel_centres(rows: Tensor, columns: Tensor, like: Tensor) -> Tensor:
    """(N, 2) x and y in pixels of the centres of pixels by row and column (N,), in the type of `like`."""
    return torch.stack([columns, rows], -1).to(like) + 0.5


def interpolate(values: Tensor, weights: Tensor) -> Tensor:
    """(N, C) values at pixels from those of their triangles' corners (N, 3, C), with barycentrics (N, 3)."""
    return (weights[:, :, None] * values).sum(1)
