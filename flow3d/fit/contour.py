"""The jaw line of the 68 points: on a turned head its far half lies on the silhouette, not on the jaw.

What 68-point detectors mark there is the edge of the face as one sees it. So the head gets, for some angles of yaw, the
points of its own silhouette as further landmarks, and each frame is fitted with those of its own yaw (Zhu et al. 2015,
High-Fidelity Pose and Expression Normalization, section 3.2, with the silhouette searched instead of parallels of the mesh).
"""

from functools import lru_cache

import torch
from torch import Tensor

from ..head.model import FLIP, HeadModel, Landmarks
from ..rotations import to_matrix
from .angles import pose_angles, pose_rotation

YAWS = (-60.0, -45.0, -30.0, -15.0, 15.0, 30.0, 45.0, 60.0)
"""Degrees for which the silhouette is searched; nearer to 0 the jaw line itself is seen."""
FAR_HALF = 8  # points of the jaw line on each side of the chin
N_CONTOUR = FAR_HALF * len(YAWS)
_BAND = 0.006  # metres beside the line from the face's middle in which the silhouette is searched


def far_points(yaw: float) -> list[int]:
    """Which of the 68 points lie on the far half of a head turned by `yaw` degrees: the subject's left for a positive one."""
    return list(range(17 - FAR_HALF, 17)) if yaw > 0 else list(range(FAR_HALF))


@lru_cache(maxsize=4)
def contour_landmarks(head: HeadModel) -> Landmarks:
    """(N_CONTOUR,) vertices of the resting mean head's silhouette, for each of `YAWS` its 8 far points in their order; face
    -1 where the head has no 68 points."""
    if head.landmarks68 is None:
        return Landmarks(torch.full((N_CONTOUR,), -1), torch.zeros(N_CONTOUR, 3))
    faces, flip = head.faces.cpu(), torch.tensor(FLIP)
    marks = Landmarks(*(x.cpu() for x in head.landmarks68)).on(head.template.cpu().float(), faces)
    vertices = head.template.cpu().float()
    skin = head.masks["face"].cpu() if "face" in head.masks else torch.cdist(vertices, marks).amin(1) < 0.03
    candidates = skin.nonzero()[:, 0]
    chosen = []
    for yaw in YAWS:
        turn = to_matrix(pose_rotation(*torch.tensor([[yaw], [0.0], [0.0]])))[0]
        points, seen = (((x * flip) @ turn.T)[:, :2] for x in (vertices[candidates], marks))
        chosen += [int(candidates[_outermost(points, seen.mean(0), seen[i])]) for i in far_points(yaw)]
    return _at_vertices(faces, torch.tensor(chosen))


def _outermost(points: Tensor, middle: Tensor, mark: Tensor) -> int:
    """Which of the points (n, 2) lies farthest from the middle in the direction of a mark."""
    along = torch.nn.functional.normalize(mark - middle, dim=0)
    away = points - middle
    beside = (away[:, 0] * along[1] - away[:, 1] * along[0]).abs()
    return int(torch.where(beside < _BAND, away @ along, -1.0).argmax())


def _at_vertices(faces: Tensor, vertices: Tensor) -> Landmarks:
    """Landmarks that lie on vertices (n,)."""
    where = (faces[None] == vertices[:, None, None]).flatten(1).float().argmax(1)
    return Landmarks(where // 3, torch.eye(3)[where % 3])


def chosen_contour(rotation: Tensor) -> tuple[Tensor, Tensor]:
    """Which contour each head shows: rotations (n, 3) to (n, 68) bool, the 68 points that stand where they are embedded,
    and (n, N_CONTOUR) bool, those of `contour_landmarks` that stand for the others."""
    yaw = pose_angles(rotation)[:, 0]
    nearest = (yaw[:, None] - yaw.new_tensor((0.0, *YAWS))).abs().argmin(1)
    plain = torch.ones(len(yaw), 68, dtype=torch.bool)
    contour = torch.zeros(len(yaw), len(YAWS), FAR_HALF, dtype=torch.bool)
    for i, angle in enumerate(YAWS):
        here = (nearest == i + 1).nonzero()[:, 0]
        plain[here[:, None], torch.tensor(far_points(angle))] = False
        contour[here, i] = True
    return plain, contour.flatten(1)
