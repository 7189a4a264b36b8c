"""Colours of a face's skin that vary smoothly: what the photometric fit may paint on it.

The lowest modes of the mesh's graph Laplacian, each with a variance of one over its eigenvalue: power falls with the square of
the frequency, as it does in pictures. A face is one colour everywhere but for these; lips have a colour of their own.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

from ..head.model import SKIN, HeadModel
from . import mediapipe_points as mp

SKIN_ALBEDO = (0.61, 0.34, 0.25)
"""Mean linear colour. It and the light's strength cannot be told apart in a picture, so that it is a convention."""
_MODES = 120
_VARIATION = 0.15  # standard deviation of the modes together, parts of the mean
_LIPS = 0.4  # the same of the lips' own colour
_NEAR, _NEAR_OVAL = 0.02, 0.008  # metres: the face is what is near its landmarks, and hardly goes beyond its oval
_SPARE = 60  # vectors of the Krylov space beyond the modes: half of the default, for a fifth of its time
_SHIFT = -1e-3  # of the eigenvalues, so that the Laplacian has an inverse


@dataclass(frozen=True, eq=False)
class AlbedoModel:
    """`SKIN_ALBEDO * (1 + basis @ coefficients)` with coefficients (K, 3) of standard deviation 1 each."""

    vertices: Tensor  # (n,) int64: the vertices that are painted
    basis: Tensor  # (n, K)

    def colours(self, coefficients: Tensor) -> Tensor:
        """(n, 3) linear colours of the painted vertices."""
        return self.basis.new_tensor(SKIN_ALBEDO) * (1 + self.basis @ coefficients)


def face_vertices(head: HeadModel) -> Tensor:
    """(V,) bool: the face's skin, which is near the dense landmarks. Raises InputError for a head without them."""
    oval = torch.zeros_like(head.dense.found)
    oval[list(mp.OVAL)] = True
    found = head.dense.found
    distance, nearest = torch.cdist(head.template, head.dense.on(head.template, head.faces)[found]).min(1)
    near = distance < torch.where(oval[found][nearest], _NEAR_OVAL, _NEAR)
    skin = torch.zeros_like(near)
    skin[head.faces[head.face_parts == SKIN].unique()] = True
    for part in head.face_parts[head.face_parts != SKIN].unique():
        skin[head.faces[head.face_parts == part].unique()] = False
    return near & skin


def albedo_model(head: HeadModel, vertices: Tensor) -> AlbedoModel:
    """The albedo of `vertices` (n,) of a head, in its own float type."""
    n = len(vertices)
    place = torch.full((len(head.template),), -1)
    place[vertices.cpu()] = torch.arange(n)
    faces = place[head.faces.cpu()]
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    pairs = edges[(edges >= 0).all(1)].numpy()
    adjacent = sparse.coo_matrix((np.ones(2 * len(pairs)), np.concatenate([pairs, pairs[:, ::-1]]).T), (n, n)).tocsr()
    adjacent.data[:] = 1
    k = min(_MODES + 1, n - 1)
    space = min(k + _SPARE, n)
    values, modes = eigsh(sparse.csgraph.laplacian(adjacent), k=k, sigma=_SHIFT, v0=np.ones(n), ncv=space)
    lowest = values > 1e-9  # a constant is the skin's colour, which is fixed
    modes = modes[:, lowest] * np.sqrt(n / values[lowest])
    modes *= _VARIATION / np.sqrt((modes**2).sum(1).mean())
    basis = torch.from_numpy(modes).to(head.template)
    if "lips" in head.masks:
        lips = head.masks["lips"][vertices].to(basis)[:, None]
        basis = torch.cat([basis, _LIPS * lips], 1)
    return AlbedoModel(vertices, basis)
