"""What the model cannot express: landmark errors as displacements in the head frame, spread smoothly over the surface."""

import torch
from torch import Tensor

from ..camera import Camera
from ..head.model import FLIP, HeadModel
from ..rotations import to_matrix
from . import mediapipe_points as mp
from .landmark_model import LandmarkModel, place
from .levenberg_marquardt import Pose
from .observations import Observations

_LIMIT = 0.012  # metres: beyond it a detection is wrong rather than a face unusual
_ELSEWHERE = 0.35  # share of the residual that is kept away from lips and eyelids, where it is mostly noise
_OVAL = 0.6  # the oval's place on the surface is the least certain


def _in_head_frame(head: HeadModel, camera: Camera, shape: Tensor, x: Pose, seen: Observations) -> Tensor:
    """(n, 478, 3) metres: what must be added to the model's landmarks to meet the detected ones, parallel to the image;
    0 where none was detected."""
    model = LandmarkModel.of(head, len(shape))
    points = place(model.posed(shape, x.expression, x.joints)[0], x.rotation, x.translation)
    pixels = seen.points[:, : mp.N_POINTS] - camera.project(points)
    shift = torch.cat([pixels * points[..., 2:] / camera.focal, torch.zeros_like(points[..., :1])], -1)
    shift = shift * seen.known[:, : mp.N_POINTS, None]
    return (shift @ to_matrix(x.rotation)) * torch.tensor(FLIP, dtype=shift.dtype)


def landmark_residuals(head: HeadModel, camera: Camera, shape: Tensor, x: Pose, seen: Observations) -> Tensor:
    """(n, 478, 3) metres in the head frame: the driver's residual, in full at lips and eyelids, a share of it elsewhere."""
    share = torch.full((mp.N_POINTS, 1), _ELSEWHERE, dtype=torch.float64)
    share[list(mp.OUTER_LIPS + mp.INNER_LIPS + mp.LEFT_EYE + mp.RIGHT_EYE)] = 1.0
    share[list(mp.IRISES)] = 0.0  # the gaze joints follow the irises
    return (_in_head_frame(head, camera, shape, x, seen) * share).clamp(-_LIMIT, _LIMIT)


def personal_offsets(head: HeadModel, camera: Camera, shape: Tensor, x: Pose, seen: Observations) -> Tensor:
    """(V, 3) metres, float32: the smooth correction under which a photo's fitted landmarks meet the detected ones."""
    residual = _in_head_frame(head, camera, shape, x, seen)[0]
    residual[list(mp.OVAL)] *= _OVAL
    residual[list(mp.IRISES)] = 0
    return head.carry_landmarks(residual.to(head.template)).float()
