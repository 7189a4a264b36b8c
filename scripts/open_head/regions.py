"""Named regions of the head as vertex masks."""

import numpy as np

from . import topology
from .anatomy import Anatomy
from .skeleton import neck_below

LIP_RINGS = 6  # edges from the cavity's rim to the border of the red
HAIRLINE, BROWS = 0.065, 0.025  # metres above the eyes
LID_TRAVEL, LID_HEIGHT = 0.003, 0.005  # metres: moved by a blink, or as near as this to an eyeball


def regions(
    head: Anatomy, vertices: np.ndarray, faces: np.ndarray, ears: np.ndarray, blink: np.ndarray
) -> dict[str, np.ndarray]:
    """(V,) bool by name. `ears` (V,) bool and `blink` (V, 3), both eyes' displacement, come from MakeHuman's targets."""
    pieces = head.pieces
    cavity = pieces["cavity"]
    inner = cavity | pieces["upper_teeth"] | pieces["lower_teeth"] | pieces["tongue"]
    outside = pieces["skin"] & ~cavity
    y, z = vertices[:, 1], vertices[:, 2]
    eye = vertices[pieces["left_eyeball"]].mean(0)
    foot = neck_below(head, faces)
    face = outside & ~foot & ~ears & (z > vertices[ears, 2].max()) & (y < eye[1] + HAIRLINE)
    neck = foot | (outside & ~face & ~ears & (y < vertices[ears, 1].min()))
    lips = outside & (topology.rings(faces, len(vertices), np.flatnonzero(cavity & _rim(head, faces))) <= LIP_RINGS)
    return {
        "face": face,
        "lips": lips,
        "eyeballs": pieces["left_eyeball"] | pieces["right_eyeball"],
        "ears": ears,
        "scalp": outside & ~face & ~ears & ~neck,
        "neck": neck,
        "inner_mouth": inner,
        "eyelids": outside & ((np.linalg.norm(blink, axis=1) > LID_TRAVEL) | _on_eyeballs(head, vertices)),
        "forehead": face & (y > eye[1] + BROWS),
        **{name: pieces[name] for name in ("left_eyeball", "right_eyeball", "upper_teeth", "lower_teeth", "tongue")},
    }


def _on_eyeballs(head: Anatomy, vertices: np.ndarray) -> np.ndarray:
    """(V,) bool: what lies close to the front of an eyeball, as lids do."""
    near = np.zeros(len(vertices), bool)
    for name in ("left_eyeball", "right_eyeball"):
        ball = vertices[head.pieces[name]]
        arm = vertices - ball.mean(0)
        radius = np.linalg.norm(ball - ball.mean(0), axis=1).mean()
        near |= (np.linalg.norm(arm, axis=1) < radius + LID_HEIGHT) & (arm[:, 2] > 0)
    return near


def _rim(head: Anatomy, faces: np.ndarray) -> np.ndarray:
    """(V,) bool: the vertices that bound the cavity."""
    touching = faces[(head.pieces["cavity"][faces].any(1)) & ~head.pieces["cavity"][faces].all(1)]
    return np.isin(np.arange(len(head.kept)), touching)
