"""What the model cannot express: landmark errors as displacements in the head frame, spread smoothly over the surface."""

import torch
from torch import Tensor

from ..head.model import FLIP, HeadModel
from ..rotations import to_matrix
from . import mediapipe_points as mp
from .gauss_newton import GaussNewton, Observations, Pose

_LIMIT = 0.012  # metres: beyond it a detection is wrong rather than a face unusual
_ELSEWHERE = 0.35  # share of the residual that is kept away from lips and eyelids, where it is mostly noise
_OVAL = 0.6  # the oval's place on the surface is the least certain


def _in_head_frame(solver: GaussNewton, shape: Tensor, x: Pose, seen: Observations) -> Tensor:
    """(n, 478, 3) metres: what must be added to the model's landmarks to meet the detected ones, parallel to the image."""
    points = solver.landmarks(shape, x)
    pixels = seen.points - solver.camera.project(points)
    shift = torch.cat([pixels * points[..., 2:] / solver.camera.focal, torch.zeros_like(points[..., :1])], -1)
    return (shift @ to_matrix(x.rotation)) * torch.tensor(FLIP, dtype=shift.dtype)


def landmark_residuals(solver: GaussNewton, shape: Tensor, x: Pose, seen: Observations) -> Tensor:
    """(n, 478, 3) metres in the head frame: the driver's residual, in full at lips and eyelids, a share of it elsewhere."""
    share = torch.full((mp.N_POINTS, 1), _ELSEWHERE, dtype=torch.float64)
    share[list(mp.OUTER_LIPS + mp.INNER_LIPS + mp.LEFT_EYE + mp.RIGHT_EYE)] = 1.0
    share[list(mp.IRISES)] = 0.0  # the gaze joints follow the irises
    return (_in_head_frame(solver, shape, x, seen) * share).clamp(-_LIMIT, _LIMIT)


def personal_offsets(head: HeadModel, solver: GaussNewton, shape: Tensor, x: Pose, seen: Observations) -> Tensor:
    """(V, 3) metres, float32: the smooth correction under which a photo's fitted landmarks meet the detected ones."""
    residual = _in_head_frame(solver, shape, x, seen)[0]
    residual[list(mp.OVAL)] *= _OVAL
    residual[list(mp.IRISES)] = 0
    return head.carry_landmarks(residual.to(head.template)).float()
