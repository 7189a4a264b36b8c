"""What hangs on the skin: eyeballs stay spheres, teeth and tongue follow the gums."""

import numpy as np

from .anatomy import EYEBALLS, INSIDE, Anatomy

REACH, FALLOFF = 0.020, 0.010  # metres: how far from a part the gums that carry it lie


def attached(shift: np.ndarray, head: Anatomy, vertices: np.ndarray) -> np.ndarray:
    """Identity displacements (..., V, 3) made sound inside the head.

    Eyeballs shift and scale, nothing else. Teeth and tongue take the affine motion of the gums around them, since
    MakeHuman's targets move them only now and then.
    """
    out = shift.copy()
    for name in EYEBALLS:
        part = head.pieces[name]
        arm = vertices[part] - vertices[part].mean(0)
        mean = shift[..., part, :].mean(-2, keepdims=True)
        growth = ((shift[..., part, :] - mean) * arm).sum((-2, -1), keepdims=True) / (arm**2).sum()
        out[..., part, :] = mean + growth * arm
    gums = np.flatnonzero(head.pieces["cavity"])
    for name in INSIDE:
        part = np.flatnonzero(head.pieces[name])
        distance = np.linalg.norm(vertices[gums, None] - vertices[part], axis=-1).min(1)
        near = distance < REACH
        carry = _affine(vertices[gums[near]], np.exp(-((distance[near] / FALLOFF) ** 2)), vertices[part])
        out[..., part, :] = carry @ shift[..., gums[near], :]
    return out


def _affine(guides: np.ndarray, weights: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(P, G): displacements of points by the weighted least squares affine map of the guides' displacements."""
    centre = points.mean(0)
    arms = np.concatenate([np.ones((len(guides), 1)), guides - centre], 1)
    solve = np.linalg.pinv(arms * weights[:, None]) * weights
    return np.concatenate([np.ones((len(points), 1)), points - centre], 1) @ solve
