"""What was seen of a face in some frames, in the form that the solver wants."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..camera import Camera
from ..head.model import HeadModel, Landmarks
from ..rotations import from_matrix
from . import mediapipe_points as mp
from .contour import N_CONTOUR, YAWS, chosen_contour, contour_landmarks, far_points
from .faces import Face

N_SPARSE = 68
N_LANDMARKS = mp.N_POINTS + N_SPARSE + N_CONTOUR
SPARSE = slice(mp.N_POINTS, mp.N_POINTS + N_SPARSE)
CONTOUR = slice(mp.N_POINTS + N_SPARSE, N_LANDMARKS)
_FAR = [i for yaw in YAWS for i in far_points(yaw)]


@dataclass(frozen=True, eq=False)
class Observations:
    """n frames of one face. Landmarks are MediaPipe's 478, iBUG's 68, and the silhouettes that stand for the far half of
    their jaw line (see `contour.py`). What is unknown is zero, and marked."""

    points: Tensor  # (n, L, 2) pixels
    known: Tensor  # (n, L) bool
    depth: Tensor  # (n, L) the detector's guess of the landmarks' relief, pixels away from the viewer, free offset
    has_depth: Tensor  # (n,) bool
    scores: Tensor  # (n, E) the detector's expression
    scored: Tensor  # (n, E) bool
    rotation: Tensor  # (n, 3) the detector's own estimate or a first guess, camera frame
    trust: Tensor  # (n,) how much the fitted rotation is drawn to it, 1 / radians; 0: it is a first guess only

    def __getitem__(self, frames: slice | Tensor) -> "Observations":
        return Observations(*(getattr(self, name)[frames] for name in self.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.points)

    def at(self, landmarks: Tensor) -> "Observations":
        """The same frames with some of the landmarks only, by index."""
        return replace(
            self, points=self.points[:, landmarks], known=self.known[:, landmarks], depth=self.depth[:, landmarks]
        )


def all_landmarks(head: HeadModel) -> Landmarks:
    """The head's landmarks in the order of `Observations`; face -1 where the head lacks one."""
    sparse = head.landmarks68
    if sparse is None:
        sparse = Landmarks(torch.full((N_SPARSE,), -1), torch.zeros(N_SPARSE, 3))
    parts = zip(head.dense, sparse, contour_landmarks(head), strict=True)
    return Landmarks(*(torch.cat([x.cpu().to(a.dtype) for x in (a, b, c)]) for a, b, c in parts))


def with_contour(seen: Observations, rotation: Tensor) -> Observations:
    """Observations as `observe` gives them, with the jaw line of the 68 points found on the silhouettes of heads turned by
    (n, 3)."""
    plain, contour = chosen_contour(rotation)
    known = seen.known.clone()
    known[:, SPARSE] &= plain
    known[:, CONTOUR] = contour & seen.known[:, SPARSE][:, _FAR]
    return replace(seen, known=known)


def observe(head: HeadModel, faces: Sequence[Face], camera: Camera) -> Observations:
    """Detected faces, in pixels of the picture that `camera` takes.

    The detector's blendshape scores count where the head has components of their names.
    """
    n = len(faces)
    sparse = np.stack([f.points68 for f in faces])
    points = np.concatenate([np.stack([f.points for f in faces]), sparse, sparse[:, _FAR]], 1)
    known = torch.from_numpy(np.isfinite(points).all(-1)) & all_landmarks(head).found
    known[:, CONTOUR] = False
    depth = torch.from_numpy(np.stack([f.depth for f in faces])).double()
    scores, scored = torch.zeros(n, head.n_expression, dtype=torch.float64), torch.zeros(n, head.n_expression, dtype=torch.bool)
    named = [(i, mp.BLENDSHAPES.index(name)) for i, name in enumerate(head.expression_names) if name in mp.BLENDSHAPES]
    if named:
        ours, theirs = map(list, zip(*named, strict=True))
        read = torch.from_numpy(np.stack([f.scores for f in faces])).double()[:, theirs]
        scores[:, ours], scored[:, ours] = read.nan_to_num(), read.isfinite()
    turns = torch.from_numpy(np.stack([f.turn(camera) for f in faces]))
    return Observations(
        points=torch.from_numpy(points).double().nan_to_num(),
        known=known,
        depth=torch.cat([depth.nan_to_num(), depth.new_zeros(n, N_SPARSE + N_CONTOUR)], 1),
        has_depth=depth.isfinite().any(1),
        scores=scores,
        scored=scored,
        rotation=from_matrix(turns),
        trust=depth.new_zeros(n),
    )
