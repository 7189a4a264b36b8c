"""Named regions of the head as vertex masks."""

import numpy as np

from . import topology
from .anatomy import Anatomy
from .skeleton import neck_below

LIP_RINGS = 6  # edges from the cavity's rim to the border of the red
HAIRLINE = 0.065  # metres above the eyes


def regions(
    head: Anatomy, vertices: np.ndarray, faces: np.ndarray, ears: np.ndarray, blink: np.ndarray
) -> dict[str, np.ndarray]:
    """(V,) bool by name. `ears` (V,) bool and `blink` (V, 3), both eyes' displacement, come from MakeHuman's targets."""
    pieces = head.pieces
    cavity = pieces["cavity"]
    inner = cavity | pieces["upper_teeth"] | pieces["lower_teeth"] | pieces["tongue"]
    outside = pieces["skin"] & ~cavity
    neck = neck_below(head, faces)
    eye = vertices[pieces["left_eyeball"]].mean(0)
    front = vertices[ears, 2].max() - 0.005
    y, z = vertices[:, 1], vertices[:, 2]
    face = outside & ~neck & ~ears & (z > front) & (y < eye[1] + HAIRLINE)
    lips = outside & (topology.rings(faces, len(vertices), np.flatnonzero(cavity & _rim(head, faces))) <= LIP_RINGS)
    return {
        "face": face,
        "lips": lips,
        "eyeballs": pieces["left_eyeball"] | pieces["right_eyeball"],
        "ears": ears,
        "scalp": outside & ~face & ~ears & ~neck,
        "neck": neck,
        "inner_mouth": inner,
        "eyelids": outside & (np.linalg.norm(blink, axis=1) > 0.0015),
        "forehead": face & (y > eye[1] + 0.025),
        **{name: pieces[name] for name in ("left_eyeball", "right_eyeball", "upper_teeth", "lower_teeth", "tongue")},
    }


def _rim(head: Anatomy, faces: np.ndarray) -> np.ndarray:
    """(V,) bool: the vertices that bound the cavity."""
    touching = faces[(head.pieces["cavity"][faces].any(1)) & ~head.pieces["cavity"][faces].all(1)]
    return np.isin(np.arange(len(head.kept)), touching)
