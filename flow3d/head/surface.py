"""Geometry of a head's surface in NumPy: closest points, and the mirror image of a symmetric mesh."""

import numpy as np
from scipy.spatial import cKDTree


def mirror_vertices(template: np.ndarray, faces: np.ndarray) -> np.ndarray | None:
    """(V,) the vertex in each vertex's mirror place, or None where vertices or triangles are not symmetric."""
    distance, mirror = cKDTree(template).query(template * [-1.0, 1.0, 1.0])
    if distance.max() > 1e-5 or (mirror[mirror] != np.arange(len(template))).any():
        return None
    own = {tuple(sorted(f)) for f in faces.tolist()}
    return mirror if all(tuple(sorted(f)) in own for f in mirror[faces].tolist()) else None


def closest_on_surface(triangles: np.ndarray, points: np.ndarray, candidates: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of triangles (T, 3, 3) to each of points (N, 3), and the barycentrics (N, 3) of the closest point.

    Only the triangles with the nearest centres are tried, which is enough on a mesh of even triangles.
    """
    _, near = cKDTree(triangles.mean(1)).query(points, k=min(candidates, len(triangles)))
    near = near.reshape(len(points), -1)
    bary = closest_barycentrics(triangles[near], points[:, None])
    gap = np.linalg.norm((triangles[near] * bary[..., None]).sum(-2) - points[:, None], axis=-1)
    best = gap.argmin(1)
    rows = np.arange(len(points))
    return near[rows, best], bary[rows, best]


def closest_barycentrics(triangles: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Barycentrics (..., 3) of the point of each triangle (..., 3, 3) that is closest to a point (..., 3)."""
    a, b, c = triangles[..., 0, :], triangles[..., 1, :], triangles[..., 2, :]
    options = [_plane_barycentrics(a, b, c, points)]
    for i, (p, q) in enumerate(((a, b), (b, c), (c, a))):
        length = ((q - p) ** 2).sum(-1)
        t = (((points - p) * (q - p)).sum(-1) / np.where(length > 0, length, 1)).clip(0, 1)
        edge = np.zeros((*t.shape, 3))
        edge[..., i], edge[..., (i + 1) % 3] = 1 - t, t
        options.append(edge)
    stacked = np.stack(options, -2)
    gap = np.linalg.norm(np.einsum("...oc,...cx->...ox", stacked, triangles) - points[..., None, :], axis=-1)
    gap = np.where((stacked < -1e-12).any(-1), np.inf, gap)
    return np.take_along_axis(stacked, gap.argmin(-1)[..., None, None], -2)[..., 0, :]


def _plane_barycentrics(a: np.ndarray, b: np.ndarray, c: np.ndarray, p: np.ndarray) -> np.ndarray:
    normal = np.cross(b - a, c - a)
    area = (normal**2).sum(-1)
    area = np.where(area > 0, area, 1)
    v = (np.cross(p - a, c - a) * normal).sum(-1) / area
    w = (np.cross(b - a, p - a) * normal).sum(-1) / area
    return np.stack([1 - v - w, v, w], -1)
