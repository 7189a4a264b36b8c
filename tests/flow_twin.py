"""The 3D flow once more, in NumPy and by brute force: docs/flow.md followed feature by feature, in float64."""

from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]
_CHUNK = 2_000_000  # pairs of a point and a feature at a time
LEAST_HEIGHT = 1e-6
WHOLE = 1e-3


class Found(NamedTuple):
    points: Array  # (P, 3) on the source; the points themselves where there was nothing to search
    distance: Array  # (P,) to the closest triangle, infinite where there was none


class Mesh:
    """Two shapes of one mesh, and the features of those triangles that may be searched: faces, edges, vertices."""

    def __init__(self, target: Array, source: Array, faces: NDArray[np.int64], candidates: NDArray[np.bool_]) -> None:
        self.target, self.source, self.all_faces = target, source, faces
        finite = np.isfinite(target[faces]).all((1, 2)) & np.isfinite(source[faces]).all((1, 2))
        self.searched = np.flatnonzero(candidates & finite & (height(target, faces) > LEAST_HEIGHT))
        self.faces = faces[self.searched]
        self.edges = np.unique(np.sort(self.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)), axis=0)
        self.vertices = np.unique(self.faces)
        self.normals = normals(target, self.faces)
        self.frames = frames(target, self.faces, self.normals)  # (F, 3, 3): columns e1, e2, n
        self.turns = turns(target, source, faces[finite])  # (V, 4)

    def local(self, points: Array) -> Array:
        """Points (P, 3) in the frame of each triangle: v, w and the height over its plane, (P, F, 3)."""
        away = points[:, None] - self.target[self.faces[:, 0]]
        return np.einsum("fij,pfj->pfi", np.linalg.inv(self.frames), away)

    def carried(self, point: Array, corners: NDArray[np.int64], weights: Array) -> Array:
        """A point (3,) whose closest point is the weighted mean of some vertices."""
        turn = Rotation.from_quat(mean(self.turns[corners], weights))
        return weights @ self.source[corners] + turn.apply(point - weights @ self.target[corners])


def turns(target: Array, source: Array, faces: NDArray[np.int64]) -> Array:
    """(V, 4) unit quaternions x y z w: Kabsch's rotation at each vertex, by singular values."""
    count = len(target)
    edges, size = np.zeros((count, 3, 3)), np.zeros((2, count))
    area = np.zeros((2, count, 3))
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        here = faces[:, i]
        (t1, s1), (t2, s2) = ([x[faces[:, n]] - x[here] for x in (target, source)] for n in (j, k))
        np.add.at(edges, here, s1[:, :, None] * t1[:, None] + s2[:, :, None] * t2[:, None])
        for row, (first, second) in enumerate(((t1, t2), (s1, s2))):
            np.add.at(area[row], here, np.cross(first, second))
            np.add.at(size[row], here, (first**2).sum(1) + (second**2).sum(1))
    both = np.sqrt(size.prod(0))[:, None, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        own = edges / both + area[1][:, :, None] * area[0][:, None] / both**2
    u, _, v = np.linalg.svd(np.where(both > 0, own, 0) + WHOLE * covariance(target, source))
    u[:, :, 2] *= np.sign(np.linalg.det(u @ v))[:, None]
    return Rotation.from_matrix(u @ v).as_quat()


def covariance(target: Array, source: Array) -> Array:
    finite = np.isfinite(target).all(1) & np.isfinite(source).all(1)
    if not finite.any():
        return np.zeros((3, 3))
    t, s = target[finite] - target[finite].mean(0), source[finite] - source[finite].mean(0)
    return s.T @ t / max(np.linalg.norm(t) * np.linalg.norm(s), 1e-300)


def mean(quaternions: Array, weights: Array) -> Array:
    """Of two or three quaternions (n, 4), with the signs that keep the least of their dot products largest."""
    choices = [np.array([1.0, *signs])[:, None] * quaternions for signs in product((1.0, -1.0), repeat=len(weights) - 1)]
    least = [(q @ q.T).min() for q in choices]
    return weights @ choices[int(np.argmax(least))]


def height(vertices: Array, faces: NDArray[np.int64]) -> Array:
    """(F,) twice the area over the longest edge."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    longest = np.max([np.linalg.norm(b - a, axis=1), np.linalg.norm(c - b, axis=1), np.linalg.norm(a - c, axis=1)], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.linalg.norm(np.cross(b - a, c - a), axis=1) / longest)


def normals(vertices: Array, faces: NDArray[np.int64]) -> Array:
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    n = np.cross(b - a, c - a)
    return n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-300)


def frames(vertices: Array, faces: NDArray[np.int64], up: Array) -> Array:
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return np.stack([b - a, c - a, up], -1)


def surface_field(mesh: Mesh, points: Array) -> Found:
    """Where points (P, 3) belong on the source."""
    if len(mesh.faces) == 0:
        return Found(points.copy(), np.full(len(points), np.inf))
    features = len(mesh.faces) + len(mesh.edges) + len(mesh.vertices)
    parts = [_surface_field(mesh, p) for p in np.array_split(points, max(1, len(points) * features // _CHUNK))]
    return Found(np.concatenate([p.points for p in parts]), np.concatenate([p.distance for p in parts]))


def _surface_field(mesh: Mesh, points: Array) -> Found:
    local = mesh.local(points)
    inside = (local[..., :2] > 0).all(-1) & (local[..., :2].sum(-1) < 1)
    to_face = np.where(inside, np.abs(local[..., 2]), np.inf)
    start, end = mesh.target[mesh.edges[:, 0]], mesh.target[mesh.edges[:, 1]]
    along = ((points[:, None] - start) * (end - start)).sum(-1) / ((end - start) ** 2).sum(-1)
    on_edge = start + along[..., None] * (end - start)
    to_edge = np.where((along > 0) & (along < 1), np.linalg.norm(points[:, None] - on_edge, axis=-1), np.inf)
    to_vertex = np.linalg.norm(points[:, None] - mesh.target[mesh.vertices], axis=-1)
    nearest = np.stack([to_face.min(1), to_edge.min(1), to_vertex.min(1)], 1)
    carried = np.empty_like(points)
    for i, kind in enumerate(nearest.argmin(1)):
        if kind == 0:
            f = to_face[i].argmin()
            corners, weights = mesh.faces[f], np.array([1 - local[i, f, :2].sum(), *local[i, f, :2]])
        elif kind == 1:
            e = to_edge[i].argmin()
            corners, weights = mesh.edges[e], np.array([1 - along[i, e], along[i, e]])
        else:
            corners, weights = mesh.vertices[[to_vertex[i].argmin()]], np.ones(1)
        carried[i] = mesh.carried(points[i], corners, weights)
    return Found(carried, nearest.min(1))


def distances(mesh: Mesh, point: Array) -> tuple[Array, Array]:
    """From one point to each searched triangle, and the closest point's barycentrics: (F,), (F, 3)."""
    local = mesh.local(point[None])[0]
    v, w = local[:, 0], local[:, 1]
    inside = (v >= 0) & (w >= 0) & (v + w <= 1)
    choices = [np.where(inside[:, None], np.stack([1 - v - w, v, w], 1), np.nan)]
    corners = mesh.target[mesh.faces]  # (F, 3, 3)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        start, edge = corners[:, i], corners[:, j] - corners[:, i]
        along = (((point - start) * edge).sum(1) / (edge**2).sum(1)).clip(0, 1)
        choices.append(np.zeros((len(corners), 3)))
        choices[-1][:, i], choices[-1][:, j] = 1 - along, along
    away = np.linalg.norm(np.einsum("kfc,fcx->kfx", choices, corners) - point, axis=-1)
    best = np.nanargmin(away, axis=0)
    return np.nanmin(away, axis=0), np.stack(choices)[best, np.arange(len(best))]


def is_tie(mesh: Mesh, point: Array, got: Array, near: float = 1e-6) -> bool:
    """Whether `got` is where a triangle takes the point that is as close as the closest one, to within `near` metres."""
    away, weights = distances(mesh, point)
    rows = np.flatnonzero(away < away.min() + near)
    return any(np.linalg.norm(mesh.carried(point, mesh.faces[r], weights[r]) - got) < 1e-5 for r in rows)
