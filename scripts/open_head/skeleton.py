"""FLAME's five joints for the head: where they are, how the vertices give their places, what each one moves."""

import numpy as np
from scipy.sparse import diags

from . import topology
from .anatomy import Anatomy
from .expressions import rigid_motion


def hinge(vertices: np.ndarray, jaw_open: np.ndarray, teeth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rotation (3, 3) of the lower teeth in `jawOpen` and the point (3,) of its axis on the midline: the jaw joint."""
    turn, shift = rigid_motion(vertices[teeth], (vertices + jaw_open)[teeth])
    y, z = np.linalg.solve((np.eye(3) - turn)[1:, 1:], shift[1:])
    return turn, np.array([0.0, y, z])


def regressor_row(vertices: np.ndarray, support: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(V,) weights on the `support` vertices, as even as can be, that sum to 1 and give `place` (3,)."""
    system = np.concatenate([vertices[support].T, np.ones((1, len(support)))])
    even = np.full(len(support), 1 / len(support))
    row = np.zeros(len(vertices))
    row[support] = even + np.linalg.pinv(system) @ (np.append(place, 1.0) - system @ even)
    return row


def joint_regressor(head: Anatomy, vertices: np.ndarray, jaw: np.ndarray) -> np.ndarray:
    """(5, V): the root in the middle of the neck's foot, the neck at the skull's base, the jaw at its hinge, the eyes."""
    skin = np.flatnonzero(head.pieces["skin"] & ~head.pieces["cavity"])
    root, neck = vertices[head.foot].mean(0), vertices[head.top].mean(0)
    neck = neck + np.array([0.0, 0.015, -0.010])  # from the middle of the neck's top to the atlas
    side = np.abs(vertices[skin] - jaw)[:, 1:]
    near_jaw = skin[np.hypot(*side.T) < 0.015]
    near_jaw = near_jaw[np.abs(vertices[near_jaw, 0]) > 0.05]
    rows = [
        regressor_row(vertices, head.foot, root),
        regressor_row(vertices, head.top, neck),
        regressor_row(vertices, near_jaw, jaw),
    ]
    rows += [head.pieces[name] / head.pieces[name].sum() for name in ("left_eyeball", "right_eyeball")]
    return np.stack(rows)


def skin_weights(head: Anatomy, vertices: np.ndarray, jaw_open: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 5), rows sum to 1. The jaw moves each vertex as far as `jawOpen` does; the root holds the neck's foot."""
    n = len(vertices)
    teeth, skin = head.pieces["lower_teeth"], head.pieces["skin"]
    turn, centre = hinge(vertices, jaw_open, teeth)
    swing = (vertices - centre) @ turn.T + centre - vertices
    jaw = np.clip((jaw_open * swing).sum(1) / np.maximum((swing**2).sum(1), 1e-12), 0, 1)
    jaw = np.where(skin, _smoothed(jaw, faces, 3), jaw)
    jaw[teeth] = 1.0
    for fixed in ("upper_teeth", "left_eyeball", "right_eyeball"):
        jaw[head.pieces[fixed]] = 0.0

    above = topology.rings(faces, n, head.foot)
    below = topology.rings(faces, n, head.top)
    neck = np.isfinite(above) & skin & neck_below(head, faces)
    root = np.zeros(n)
    share = below[neck] / np.maximum(above[neck] + below[neck], 1)
    root[neck] = share
    root = _smoothed(root, faces, 6, fixed=np.union1d(head.foot, np.flatnonzero(~neck)))
    root = root * root * (3 - 2 * root)
    jaw = jaw * (1 - root)
    eyes = np.stack([head.pieces[f"{side}_eyeball"] for side in ("left", "right")], 1).astype(float)
    weights = np.concatenate([root[:, None], np.zeros((n, 1)), jaw[:, None], eyes], 1)
    weights[:, 1] = 1 - weights.sum(1)
    return weights


def neck_below(head: Anatomy, faces: np.ndarray) -> np.ndarray:
    """(V,) bool: the neck, from its foot up to and without the loop at its top."""
    free = faces[~np.isin(faces, head.top).any(1)]
    return np.isfinite(topology.rings(free, len(head.kept), head.foot[:1]))


def _smoothed(value: np.ndarray, faces: np.ndarray, steps: int, fixed: np.ndarray | None = None) -> np.ndarray:
    link = topology.adjacency(faces, len(value))
    mean = diags(1 / np.maximum(np.asarray(link.sum(1))[:, 0], 1)) @ link
    out = value.copy()
    for _ in range(steps):
        out = 0.5 * out + 0.5 * (mean @ out)
        if fixed is not None:
            out[fixed] = value[fixed]
    return out
