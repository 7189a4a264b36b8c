"""The 3D flow once more, in NumPy and by brute force: docs/flow.md followed feature by feature, in float64."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_CHUNK = 2_000_000  # pairs of a point and a feature at a time
LEAST_HEIGHT = 1e-6


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
        own = normals(source, self.faces)
        sound = height(source, self.faces) > LEAST_HEIGHT
        self.source_frames = frames(source, self.faces, np.where(sound[:, None], own, self.normals))

    def local(self, points: Array) -> Array:
        """Points (P, 3) in the frame of each triangle: v, w and the height over its plane, (P, F, 3)."""
        away = points[:, None] - self.target[self.faces[:, 0]]
        return np.einsum("fij,pfj->pfi", np.linalg.inv(self.frames), away)

    def carried(self, points: Array, row: NDArray[np.int64]) -> Array:
        """Points (P, 3), each by the affine map of a triangle: `row` (P,) among those that are searched."""
        away = points - self.target[self.faces[row, 0]]
        local = np.linalg.solve(self.frames[row], away[..., None])
        return self.source[self.faces[row, 0]] + (self.source_frames[row] @ local)[..., 0]


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
    row = to_face.argmin(1)
    for i in np.flatnonzero(nearest.argmin(1) > 0):
        if nearest[i, 1] <= nearest[i, 2]:
            e = to_edge[i].argmin()
            shared, closest = mesh.edges[e], on_edge[i, e]
        else:
            shared = mesh.vertices[[to_vertex[i].argmin()]]
            closest = mesh.target[shared[0]]
        around = np.flatnonzero(np.isin(mesh.faces, shared).sum(1) == len(shared))
        row[i] = around[np.abs(mesh.normals[around] @ (points[i] - closest)).argmax()]
    return Found(mesh.carried(points, row), nearest.min(1))


def distances(mesh: Mesh, point: Array) -> tuple[Array, Array]:
    """From one point to each searched triangle, and the closest point on it: (F,), (F, 3)."""
    local = mesh.local(point[None])[0]
    a, b, c = (mesh.target[mesh.faces[:, i]] for i in range(3))
    inside = (local[:, :2] >= 0).all(1) & (local[:, :2].sum(1) <= 1)
    choices = [np.where(inside[:, None], point - local[:, 2:] * mesh.normals, np.inf)]
    for s, e in ((a, b), (b, c), (c, a)):
        along = (((point - s) * (e - s)).sum(1) / ((e - s) ** 2).sum(1)).clip(0, 1)
        choices.append(s + along[:, None] * (e - s))
    away = np.linalg.norm(np.stack(choices) - point, axis=-1)
    best = away.argmin(0)
    return away.min(0), np.stack(choices)[best, np.arange(len(best))]


def is_tie(mesh: Mesh, point: Array, got: Array, near: float = 1e-6) -> bool:
    """Whether `got` is where a triangle takes the point that is as good as the closest one, to within `near` metres.

    As good is a triangle that is as close, and of those that share the edge or corner that is closest, as steep to the
    residual. Where the closest point is next to a corner of that edge, the corner's triangles may have been asked.
    """
    away, closest = distances(mesh, point)
    for row in np.flatnonzero(away < away.min() + near):
        if np.linalg.norm(mesh.carried(point[None], np.array([row]))[0] - got) > 1e-5:
            continue
        weights = mesh.local(closest[row][None])[0, row, :2]
        weights = np.array([1 - weights.sum(), *weights])
        for least in (1e-12, 1e-4):
            shared = mesh.faces[row][weights > least]
            around = np.flatnonzero(np.isin(mesh.faces, shared).sum(1) == len(shared))
            steep = np.abs(mesh.normals[around] @ (point - closest[row]))
            if np.abs(mesh.normals[row] @ (point - closest[row])) > steep.max() - near:
                return True
    return False
