"""The surface field, slow and readable: float64, every point against every triangle. See docs/flow.md for the rules."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..camera import Camera
from ..head.model import SKIN
from ..render.rasterize import Fragments
from .affine import MIN_HEIGHT
from .sampling import Sampling

_CHUNK = 250_000  # pairs of a point and a triangle in memory at a time


class Match(NamedTuple):
    """Where points belong on the source head."""

    points: Tensor  # (P, 3) on or around the source; the points themselves where there was no triangle to search
    triangle: Tensor  # (P,) int64 the triangle whose map was used, -1 where there was none
    distance: Tensor  # (P,) from the point to that triangle, metres


def surface_field(
    points: Tensor, target: Tensor, source: Tensor, faces: Tensor, candidates: Tensor | None = None
) -> Match:
    """Carry points (P, 3) from around the target mesh to around the source mesh.

    Args:
        target, source: vertices (V, 3) of the two meshes in one frame, metres. faces: (F, 3).
        candidates: (F,) bool, the triangles to search (a part of the head); None: all. Degenerate ones never are.

    It has gradients with respect to points, target and source, but where the closest triangle changes.
    """
    target, source, points = target.double(), source.double(), points.double()
    usable = (_heights(target, faces) > MIN_HEIGHT) & source[faces].isfinite().all(-1).all(-1)  # False for NaN
    searched = torch.where(usable if candidates is None else usable & candidates)[0]
    if len(searched) == 0:
        return Match(points, torch.full((len(points),), -1), torch.full((len(points),), torch.inf, dtype=torch.float64))
    rows = [_match(p, target, source, faces, searched) for p in points.split(max(1, _CHUNK // len(searched)))]
    return Match(*(torch.cat(column) for column in zip(*rows, strict=True)))


def sample_points(camera: Camera, seen: Fragments, sampling: Sampling) -> Tensor:
    """(B, H, W, N, 3) float64: the points along each pixel's ray that the encoding asks for."""
    depths = sampling.depths(seen.depth.double())
    return camera.rays(torch.float64, depths.device)[:, :, None] * depths[..., None]


def flow_at_pixels(
    target: Tensor,
    source: Tensor,
    faces: Tensor,
    parts: Tensor,
    points: Tensor,
    seen: Tensor,
) -> Tensor:
    """The flow at samples of pixels, source minus target.

    Args:
        target, source: (V, 3). faces: (F, 3). parts: (F,) each triangle's part.
        points: (P, 3) some of `sample_points`. seen: (P,) the triangle seen at the pixel of each, -1 off the head.

    Returns:
        (P, 3) float64, metres.
    """
    own = torch.where(seen >= 0, parts[seen.clamp(min=0).long()], SKIN)
    flow = torch.zeros_like(points)
    for part in own.unique():
        mine = own == part
        flow[mine] = surface_field(points[mine], target, source, faces, parts == part).points - points[mine]
    return flow


def _match(points: Tensor, target: Tensor, source: Tensor, faces: Tensor, searched: Tensor) -> Match:
    nearest = searched[_squared_distances(points, target[faces[searched]]).argmin(1)]
    weight = closest_point(points, target[faces[nearest]])
    residual = points - torch.einsum("pc,pcx->px", weight, target[faces[nearest]])
    triangle = _tie_break(residual, weight, nearest, target, faces, searched)
    return Match(_carry(points, triangle, target, source, faces), triangle, residual.norm(dim=-1))


def _squared_distances(points: Tensor, corners: Tensor) -> Tensor:
    """From each of the points (P, 3) to each of the triangles (F, 3, 3): (P, F).

    To the plane where the point's projection is inside, and otherwise to the closest of the three edges.
    """

    def dot(origin: Tensor, direction: Tensor) -> Tensor:
        """(p - origin) . direction for every point and triangle."""
        return points @ direction.T - (origin * direction).sum(-1)

    a, b, c = corners.unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    area = (normal * normal).sum(-1)
    v = dot(a, torch.linalg.cross(c - a, normal)) / area
    w = dot(a, torch.linalg.cross(normal, b - a)) / area
    inside = (v >= 0) & (w >= 0) & (v + w <= 1)
    best = torch.where(inside, dot(a, normal) ** 2 / area, torch.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        edge = end - start
        length = (edge * edge).sum(-1)
        across = dot(start, edge)
        along = (across / length).clamp(0, 1)
        to_start = (points * points).sum(-1, keepdim=True) - 2 * points @ start.T + (start * start).sum(-1)
        best = torch.minimum(best, to_start - 2 * along * across + along**2 * length)
    return best


def closest_point(points: Tensor, corners: Tensor) -> Tensor:
    """Barycentrics (P, 3) of the point closest to each of the points (P, 3) on its own triangle (P, 3, 3).

    A barycentric is exactly 0 where the closest point lies on the opposite edge.
    """
    weights = [_projection(points, corners)]
    for i, j in ((0, 1), (1, 2), (2, 0)):
        start, edge = corners[:, i], corners[:, j] - corners[:, i]
        along = (((points - start) * edge).sum(-1) / (edge * edge).sum(-1)).clamp(0, 1)
        w = torch.zeros_like(points)
        w[:, i], w[:, j] = 1 - along, along
        weights.append(w)
    choices = torch.stack(weights)  # (4, P, 3)
    distance = (torch.einsum("kpc,pcx->kpx", choices, corners) - points).norm(dim=-1)
    distance[0].masked_fill_((choices[0] < 0).any(-1), torch.inf)
    return choices[distance.argmin(0), torch.arange(len(points))]


def _projection(points: Tensor, corners: Tensor) -> Tensor:
    """Unclamped barycentrics (P, 3) of the points' orthogonal projections on the planes of the triangles (P, 3, 3)."""
    a, b, c = corners.unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    area = (normal * normal).sum(-1)
    v = (torch.linalg.cross(points - a, c - a) * normal).sum(-1) / area
    w = (torch.linalg.cross(b - a, points - a) * normal).sum(-1) / area
    return torch.stack([1 - v - w, v, w], -1)


def _tie_break(
    residual: Tensor, weight: Tensor, triangle: Tensor, target: Tensor, faces: Tensor, searched: Tensor
) -> Tensor:
    """Where the closest point lies on an edge or a corner: of the triangles there, that with the largest |n . r|."""
    tied = (weight == 0).any(-1)
    corners = faces[triangle[tied]]  # (K, 3)
    has = (corners[:, None, :, None] == faces[searched][:, None]).any(-1)  # (K, F, 3)
    meets = (has | (weight[tied] == 0)[:, None]).all(-1)  # has the corner, or both ends of the edge
    facing = (residual[tied] @ _unit_normals(target, faces)[searched].T).abs()
    chosen = triangle.clone()
    chosen[tied] = searched[facing.masked_fill(~meets, -1).argmax(1)]
    return chosen


def _carry(points: Tensor, triangle: Tensor, target: Tensor, source: Tensor, faces: Tensor) -> Tensor:
    """Barycentrics of the projection, not clamped, and the height over the plane, taken to the source's triangle."""
    corners = target[faces[triangle]]
    weight = _projection(points, corners)
    normal = _unit_normals(target, faces)[triangle]
    height = ((points - corners[:, 0]) * normal).sum(-1, keepdim=True)
    flat = torch.einsum("pc,pcx->px", weight, source[faces[triangle]])
    sound = (_heights(source, faces) > MIN_HEIGHT)[triangle]
    return flat + height * torch.where(sound[:, None], _unit_normals(source, faces)[triangle], normal)


def _unit_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    a, b, c = vertices[faces].unbind(1)
    return torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1, eps=1e-300)


def _heights(vertices: Tensor, faces: Tensor) -> Tensor:
    """(F,) each triangle's least height: twice its area over its longest edge, metres."""
    a, b, c = vertices[faces].unbind(1)
    longest = torch.stack([b - a, c - b, a - c]).norm(dim=-1).amax(0)
    return torch.linalg.cross(b - a, c - a).norm(dim=-1) / longest
