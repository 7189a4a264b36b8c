"""Small repairs of MakeHuman's shapes, needed because the open head's mean face is not the face they were drawn on."""

import numpy as np
import torch
from scipy.sparse import diags

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.head.model import FLIP
from comfyui_flow3d.flow3d.render.rasterize import rasterize

from . import topology
from .anatomy import MOUTH_RIM, RING, Anatomy

LID_OVERLAP = 0.3  # a blink of 1 carries the lid this much further than it takes to close the eye
SOFTENING = 12  # rounds of smoothing of the expressions, lips and lids excepted
LIP_GAP = 0.0  # metres left between the lips where they face each other
LIP_REACH = 0.005
FOOT_REACH, FOOT_RINGS = 0.015, 6  # metres along the neck's foot, edges up the neck


def lid_gain(vertices: np.ndarray, faces: np.ndarray, eyeball: np.ndarray, blink: np.ndarray) -> np.ndarray:
    """(V,) factors on a blink's displacements (V, 3) with which 1 / (1 + LID_OVERLAP) just closes that eye.

    Renders how the lids close the eye (the mask `eyeball` (V,)), column by column: the eye of the mean face is smaller
    than that on which the blink was drawn, and of another outline.
    """
    steps = np.linspace(0, 1.6, 81)
    centre = vertices[eyeball].mean(0)
    camera = Camera(5000.0, 100.0, 100.0, 200, 200)
    moved = (vertices - centre + steps[:, None, None] * blink) * np.array(FLIP) + [0, 0, 1]
    triangle = rasterize(torch.from_numpy(moved).float(), torch.from_numpy(faces), camera).triangle
    seen = (triangle >= 0) & torch.from_numpy(eyeball[faces].all(1))[triangle.clamp(min=0).long()]
    height = seen.sum(1).numpy()  # (steps, columns)
    columns = np.flatnonzero(height[0] > 0.3 * height[0].max())
    closing = steps[(height[:, columns] > 0).sum(0).clip(max=len(steps) - 1)]
    x = (columns + 0.5 - camera.cx) / camera.focal
    curve = np.polynomial.Polynomial.fit(x, closing, 2)
    return curve((vertices[:, 0] - centre[0]).clip(x.min(), x.max())) * (1 + LID_OVERLAP)


def softened(shift: np.ndarray, faces: np.ndarray, firm: np.ndarray) -> np.ndarray:
    """Displacements (V, 3) smoothed over the surface: creases drawn for another face become folds. `firm` (V,) stays."""
    link = topology.adjacency(faces, len(shift))
    mean = diags(1 / np.asarray(link.sum(1))[:, 0]) @ link
    out = shift
    for _ in range(SOFTENING):
        out = np.where(firm[:, None], shift, 0.5 * out + 0.5 * (mean @ out))
    return out


def lips_closed(vertices: np.ndarray, head: Anatomy, jaw_open: np.ndarray) -> np.ndarray:
    """The face (V, 3) with its lips together: where they face each other, each goes half of the way."""
    rows = np.arange(MOUTH_RIM - 2 * RING, MOUTH_RIM)  # the two rings of vertices in front of the cavity's rim
    seam = np.unique(np.concatenate([head.index[rows], head.mirror[head.index[rows]]]))
    lower = jaw_open[seam, 1] < -0.5 * np.abs(jaw_open[seam, 1]).max()
    x, y = np.abs(vertices[seam, 0]), vertices[seam, 1]
    edge = {}
    for below in (True, False):
        own = lower == below
        order = np.argsort(x[own], kind="stable")
        edge[below] = np.interp(x, x[own][order], y[own][order])
    gap = np.maximum(edge[False] - edge[True] - LIP_GAP, 0)
    step = np.where(lower, gap, -gap) / 2
    apart = vertices + 0.5 * jaw_open
    weight = np.exp(-((np.linalg.norm(apart[:, None] - apart[seam], axis=-1) / LIP_REACH) ** 2))
    share = weight.max(1)
    out = vertices.copy()
    lift = (weight @ step) / np.maximum(weight.sum(1), 1e-12) * share
    moves = head.pieces["skin"]
    out[moves, 1] += lift[moves]
    return out


def foot_flattened(vertices: np.ndarray, faces: np.ndarray, head: Anatomy) -> np.ndarray:
    """The head (V, 3) with the boundary at the neck's foot brought onto its plane; the neck above follows less and less."""
    edge = vertices[head.foot] - vertices[head.foot].mean(0)
    normal = np.linalg.svd(edge)[2][2]
    off = edge @ normal
    near = vertices[:, None] - vertices[head.foot]
    weight = np.exp(-((near**2).sum(-1) / FOOT_REACH**2))
    value = weight @ off / np.maximum(weight.sum(1), 1e-12)
    value[head.foot] = off
    fade = (1 - topology.rings(faces, len(vertices), head.foot) / FOOT_RINGS).clip(0, 1) * head.pieces["skin"]
    return vertices - (fade * value)[:, None] * normal
