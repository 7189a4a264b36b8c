"""The 52 expressions: symmetric, with teeth that move as bone does."""

import numpy as np

from .anatomy import Anatomy

JAW_MOVES = ("jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose")


def flipped(shift: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Displacements (..., V, 3) seen in the mirror."""
    return shift[..., mirror, :] * np.array([-1.0, 1.0, 1.0])


def other_side(name: str) -> str:
    """The name of an expression's mirror image: its own where it has no side."""
    for a, b in (("Left", "Right"), ("Right", "Left")):
        if name.endswith(a):
            return name.removesuffix(a) + b
    return name


def symmetric(shifts: dict[str, np.ndarray], mirror: np.ndarray) -> dict[str, np.ndarray]:
    """Each expression averaged with the mirror image of its other side."""
    return {name: (x + flipped(shifts[other_side(name)], mirror)) / 2 for name, x in shifts.items()}


def rigid_motion(points: np.ndarray, moved: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3, 3) and shift (3,) that carry points (N, 3) onto moved ones in the least squares sense (Kabsch)."""
    a, b = points.mean(0), moved.mean(0)
    u, _, vt = np.linalg.svd((points - a).T @ (moved - b))
    u[:, 2] *= np.linalg.det(u @ vt)
    turn = (u @ vt).T
    return turn, b - turn @ a


def with_bony_teeth(shifts: dict[str, np.ndarray], head: Anatomy, vertices: np.ndarray) -> dict[str, np.ndarray]:
    """The upper teeth stay with the skull; the lower ones move rigidly with the jaw and with nothing else."""
    upper, lower = head.pieces["upper_teeth"], head.pieces["lower_teeth"]
    out = {}
    for name, shift in shifts.items():
        shift = shift.copy()
        shift[upper] = 0
        turn, move = rigid_motion(vertices[lower], (vertices + shift)[lower])
        shift[lower] = vertices[lower] @ turn.T + move - vertices[lower] if name in JAW_MOVES else 0
        out[name] = shift
    return out
