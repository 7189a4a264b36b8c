"""The surface field, slow and readable: float64, every point against every triangle. See docs/flow.md for the rules."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..camera import Camera
from ..head.model import SKIN
from ..render.rasterize import Fragments
from .carry import MIN_HEIGHT
from .sampling import Sampling
from .turns import WHOLE_WEIGHT

_CHUNK = 250_000  # pairs of a point and a triangle in memory at a time


class Match(NamedTuple):
    """Where points belong on the source head."""

    points: Tensor  # (P, 3) on or around the source; the points themselves where there was no triangle to search
    triangle: Tensor  # (P,) int64 the closest triangle, -1 where there was none
    distance: Tensor  # (P,) from the point to that triangle, metres


def surface_field(
    points: Tensor, target: Tensor, source: Tensor, faces: Tensor, candidates: Tensor | None = None
) -> Match:
    """Carry points (P, 3) from around the target mesh to around the source mesh.

    Args:
        target, source: vertices (V, 3) of the two meshes in one frame, metres. faces: (F, 3).
        candidates: (F,) bool, the triangles to search (a part of the head); None: all. Degenerate ones never are.

    It has gradients with respect to points, target and source, but where the closest triangle jumps.
    """
    target, source, points = target.double(), source.double(), points.double()
    usable = (_heights(target, faces) > MIN_HEIGHT) & source[faces].isfinite().all(-1).all(-1)  # False for NaN
    searched = torch.where(usable if candidates is None else usable & candidates)[0]
    if len(searched) == 0:
        return Match(points, torch.full((len(points),), -1), torch.full((len(points),), torch.inf, dtype=torch.float64))
    turns = vertex_turns(target, source, faces)
    rows = [_match(p, target, source, faces, searched, turns) for p in points.split(max(1, _CHUNK // len(searched)))]
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


def vertex_turns(target: Tensor, source: Tensor, faces: Tensor) -> Tensor:
    """(V, 4): the rotation from target to source at each vertex (V, 3), as a unit quaternion w x y z. See docs/flow.md."""
    finite = (target + source)[faces].isfinite().all(-1).all(-1)
    corner, edges_t = _edges(target, faces[finite])
    _, edges_s = _edges(source, faces[finite])

    def around(values: Tensor) -> Tensor:
        """The sum over the triangles around each vertex, from one value for each corner of each triangle."""
        return values.new_zeros(len(target), *values.shape[1:]).index_add(0, corner, values)

    edges = around(torch.einsum("kei,kej->kij", edges_s, edges_t))
    normal_s, normal_t = (around(torch.linalg.cross(e[:, 0], e[:, 1])) for e in (edges_s, edges_t))
    size_s, size_t = (around((e * e).sum((1, 2))) for e in (edges_s, edges_t))
    known = (size_s > 0) & (size_t > 0)
    size = torch.where(known, size_s * size_t, 1.0).sqrt()[:, None, None]
    fit = (edges + normal_s[:, :, None] * normal_t[:, None, :] / size) / size
    return _quaternions(torch.where(known[:, None, None], fit, 0.0) + WHOLE_WEIGHT * _whole(target, source))


def _edges(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """The vertex (3 F,) at each corner of each triangle, and the edges (3 F, 2, 3) from there to the next and the one after."""
    turned = torch.cat([faces, faces.roll(-1, 1), faces.roll(-2, 1)])
    corners = vertices[turned]
    return turned[:, 0], corners[:, 1:] - corners[:, :1]


def _whole(target: Tensor, source: Tensor) -> Tensor:
    """(3, 3) the outer products of all vertices (V, 3), source by target, about their means and over their sizes."""
    finite = (target + source).isfinite().all(-1)
    t, s = (x[finite] - x[finite].mean(0) for x in (target, source))
    size = t.norm() * s.norm()
    return s.T @ t / size if size > 0 else target.new_zeros(3, 3)


def _quaternions(fit: Tensor) -> Tensor:
    """(..., 4): the rotations R that have the largest trace of R^T fit, fit (..., 3, 3) (Horn 1987, with Kabsch's reflections out).

    Its gradient is the first-order change of the eigenvector: `eigh`'s own is not finite where the other eigenvalues are equal.
    """
    rows = fit.unbind(-2)
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (r.unbind(-1) for r in rows)
    matrix = torch.stack([
        torch.stack([xx + yy + zz, zy - yz, xz - zx, yx - xy], -1),
        torch.stack([zy - yz, xx - yy - zz, xy + yx, xz + zx], -1),
        torch.stack([xz - zx, xy + yx, yy - xx - zz, yz + zy], -1),
        torch.stack([yx - xy, xz + zx, yz + zy, zz - xx - yy], -1),
    ], -2)  # fmt: skip
    values, vectors = torch.linalg.eigh(matrix.detach())
    largest, others = vectors[..., 3:], vectors[..., :3]
    gaps = (values[..., 3:] - values[..., :3]).clamp(min=1e-300)
    change = (others / gaps[..., None, :]) @ (others.mT @ ((matrix - matrix.detach()) @ largest))
    return torch.nn.functional.normalize((largest + change)[..., 0], dim=-1)


def _match(points: Tensor, target: Tensor, source: Tensor, faces: Tensor, searched: Tensor, turns: Tensor) -> Match:
    nearest = searched[_squared_distances(points, target[faces[searched]]).argmin(1)]
    corners = faces[nearest]
    weight = closest_point(points, target[corners])
    residual = points - torch.einsum("pc,pcx->px", weight, target[corners])
    there = torch.einsum("pc,pcx->px", weight, source[corners])
    carried = there + rotated(blended(weight, turns[corners]), residual)
    return Match(carried, nearest, residual.detach().norm(dim=-1))


def blended(weight: Tensor, turns: Tensor) -> Tensor:
    """The weighted means (P, 4), not of unit length, of three quaternions (P, 3, 4) by barycentrics (P, 3).

    Their signs are such that the least of the three dot products is as large as it can be: the corner opposite the least
    in size gives the sign to the two others.
    """
    dots = (turns * turns.roll(-1, 1)).sum(-1).abs()  # a b, b c, c a
    hub = turns[torch.arange(len(turns)), (dots.argmin(1) + 2) % 3]
    sign = torch.where((turns * hub[:, None]).sum(-1) < 0, -1.0, 1.0)
    return torch.einsum("pc,pc,pcx->px", weight, sign, turns)


def rotated(turn: Tensor, vectors: Tensor) -> Tensor:
    """Vectors (P, 3) turned by quaternions (P, 4) of any length but 0."""
    axis = turn[:, 1:]
    across = torch.linalg.cross(axis, vectors)
    turned = turn[:, :1] * across + torch.linalg.cross(axis, across)
    return vectors + 2 * turned / (turn * turn).sum(-1, keepdim=True)


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
    with torch.no_grad():
        distance = (torch.einsum("kpc,pcx->kpx", choices, corners) - points).norm(dim=-1)
        distance[0].masked_fill_((choices[0] < 0).any(-1), torch.inf)
        best = distance.argmin(0)
    return choices[best, torch.arange(len(points))]


def _projection(points: Tensor, corners: Tensor) -> Tensor:
    """Unclamped barycentrics (P, 3) of the points' orthogonal projections on the planes of the triangles (P, 3, 3)."""
    a, b, c = corners.unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    area = (normal * normal).sum(-1)
    v = (torch.linalg.cross(points - a, c - a) * normal).sum(-1) / area
    w = (torch.linalg.cross(b - a, points - a) * normal).sum(-1) / area
    return torch.stack([1 - v - w, v, w], -1)


def _heights(vertices: Tensor, faces: Tensor) -> Tensor:
    """(F,) each triangle's least height: twice its area over its longest edge, metres."""
    a, b, c = vertices[faces].unbind(1)
    longest = torch.stack([b - a, c - b, a - c]).norm(dim=-1).amax(0)
    return torch.linalg.cross(b - a, c - a).norm(dim=-1) / longest
