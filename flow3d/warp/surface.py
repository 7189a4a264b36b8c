"""What a photo shows of a head: where each vertex lies in it, and which vertices it shows at all."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import spsolve

from ..camera import Camera
from ..fit import mediapipe_points as mp
from ..head.model import INNER_MOUTH, HeadModel
from ..render.rasterize import rasterize
from ..render.shade import vertex_normals
from .fields import smoothstep

Array = NDArray[np.float32]

_DEPTH_TOLERANCE = 0.004  # metres
_FACING = (0.05, 0.30)  # cosine between normal and view, from unseen to seen
_HAIRLINE, _TRAGI = 10, (234, 454)  # MediaPipe landmarks: the top of the oval, and before each ear
_SLANT = (0.2, 0.4)  # the same cosine of what bears being shown turned: at the temples, where hair begins, and on the cheeks
_CLEAR = 0.1  # beyond that cosine: none of it is continued any more
_CHEEKS = (0.0, 0.03)  # metres below the eyes
_ANCHOR = 1e-4  # keeps hidden vertices that no seen one can reach where they are


@dataclass(frozen=True, eq=False)
class SourceSurface:
    """A head in its photo.

    `pixels` are the vertices' places in the photo; a hidden vertex has the place that continues its seen neighbours
    smoothly, so that a part that turns into view shows what was beside it. In `turned_pixels` vertices that the photo
    shows at a slant are continued too: what little it shows of them does not bear being turned to the viewer.
    """

    vertices: Array  # (V, 3) metres, camera frame
    pixels: Array  # (V, 2)
    turned_pixels: Array  # (V, 2)
    seen: Array  # (V,) 0..1
    drawn_out: Array  # (V,) 0..1: how much of a turned vertex is continued rather than shown

    @classmethod
    def of(cls, head: HeadModel, vertices: torch.Tensor, camera: Camera) -> "SourceSurface":
        """The surface of a head with vertices (V, 3) in the camera frame."""
        faces = head.faces[head.face_parts != INNER_MOUTH]
        fragments = rasterize(vertices[None], faces, camera)
        pixels = camera.project(vertices).numpy()
        unhidden = _unhidden(vertices.numpy(), pixels, fragments.depth[0].numpy())
        facing = _facing(head, vertices)
        seen = unhidden * smoothstep(facing, *_FACING)
        drawn = np.zeros(len(pixels), bool)
        drawn[faces[fragments.triangle[fragments.triangle >= 0].unique().long()].unique()] = True
        filled = _extended(head, pixels, (seen > 0) | drawn).astype(np.float32)
        slant = _slant(head)
        turned = _extended(head, pixels, unhidden & (facing > slant)).astype(np.float32)
        drawn_out = 1 - unhidden * smoothstep(facing, slant, slant + _CLEAR)
        return cls(vertices.numpy(), filled, turned, seen.astype(np.float32), drawn_out.astype(np.float32))


def _facing(head: HeadModel, vertices: torch.Tensor) -> Array:
    normals = vertex_normals(vertices[None], head.faces)[0]
    view = -vertices / vertices.norm(dim=-1, keepdim=True)
    return (normals * view).sum(-1).numpy()


def _slant(head: HeadModel) -> Array:
    """(V,) the least cosine between normal and view at which a vertex bears being shown turned."""
    eyes = head.dense.on(head.template, head.faces)[[mp.RIGHT_EYE_CORNER, mp.LEFT_EYE_CORNER], 1].mean()
    cheek = smoothstep((eyes - head.template[:, 1]).numpy(), *_CHEEKS)
    return (_SLANT[0] + (_SLANT[1] - _SLANT[0]) * cheek).astype(np.float32)


def _unhidden(vertices: Array, pixels: Array, depth: Array) -> NDArray[np.bool_]:
    """(V,) whether nothing of the head lies before a vertex: the farthest of the 3 x 3 pixels about it decides."""
    height, width = depth.shape
    x, y = np.floor(pixels).astype(int).T
    behind = np.zeros(len(vertices), np.float32)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            z = depth[(y + dy).clip(0, height - 1), (x + dx).clip(0, width - 1)]
            behind = np.maximum(behind, np.where(z > 0, z, np.inf))
    return vertices[:, 2] <= behind + _DEPTH_TOLERANCE


def _extended(head: HeadModel, pixels: Array, known: NDArray[np.bool_]) -> Array:
    """Pixels (V, 2) with those of unknown vertices replaced by the harmonic extension over the mesh's edges."""
    faces = head.faces.numpy()
    a = np.concatenate([faces[:, 0], faces[:, 1], faces[:, 2]])
    b = np.concatenate([faces[:, 1], faces[:, 2], faces[:, 0]])
    rest = head.template.numpy()
    weight = 1 / np.maximum(np.linalg.norm(rest[a] - rest[b], axis=1), 1e-5)
    n = len(pixels)
    adjacency = sp.coo_matrix((np.r_[weight, weight], (np.r_[a, b], np.r_[b, a])), (n, n)).tocsr()
    degree = np.asarray(adjacency.sum(1))[:, 0]
    laplacian = sp.diags(degree * (1 + _ANCHOR) + 1e-9) - adjacency
    out = pixels.copy()
    hidden, shown = np.flatnonzero(~known), np.flatnonzero(known)
    if len(hidden) == 0 or len(shown) == 0:
        return out
    system = laplacian[hidden][:, hidden].tocsc()
    right = -(laplacian[hidden][:, shown] @ pixels[shown]) + (degree[hidden] * _ANCHOR)[:, None] * pixels[hidden]
    out[hidden] = np.stack([spsolve(system, right[:, i]) for i in range(2)], 1)
    return out


def loose_level(head: HeadModel) -> Array:
    """(V,) 0..1: 0 on the face, 1 on the scalp, behind the ears and below the chin, where hair and collars hide the
    head's own surface and what lies beside it in the photo is the better guess.

    Told from the face oval, so that it serves a head without masks.
    """
    marks = head.dense.on(head.template, head.faces).numpy()
    vertices = head.template.numpy()
    ears, chin, hairline = marks[list(_TRAGI)].mean(0), marks[mp.CHIN], marks[_HAIRLINE]
    scalp = smoothstep(vertices[:, 1], hairline[1] - 0.02, hairline[1])
    behind = 1 - smoothstep(vertices[:, 2], ears[2] - 0.010, ears[2] + 0.005)
    below = 1 - smoothstep(vertices[:, 1], chin[1] - 0.012, chin[1])
    return np.maximum(np.maximum(scalp, behind), below).astype(np.float32)


def feature_level(head: HeadModel) -> Array:
    """(V,) 0..1: 1 at the eyes and the lips, 0 beyond two centimetres from them."""
    marks = head.dense.on(head.template, head.faces)[list(mp.LEFT_EYE + mp.RIGHT_EYE + mp.OUTER_LIPS)]
    away = torch.cdist(head.template, marks).amin(1).numpy()
    return (1 - smoothstep(away, 0.010, 0.020)).astype(np.float32)
