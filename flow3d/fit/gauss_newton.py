"""Gauss-Newton on MediaPipe's 478 landmarks: one batch of frames, or the shape that they share.

Residuals are reprojection errors in hundredths of the distance between the eyes, so that all weights are free of
the image's size. Everything is float64 on the CPU: the systems are small.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..camera import Camera
from ..head.model import FLIP, HeadModel
from ..rotations import compose, inverse, to_matrix
from . import mediapipe_points as mp
from . import priors
from .landmark_model import LandmarkModel, place, projection_jacobian

MAX_SHAPE = 80
_JOINT_STEP = 1e-4  # radians, for the joints' numeric derivative
_DAMPING = 1e-4  # of each diagonal element, so that an unseen parameter stays where it is
_MAX_SHAPE_SIGMA = 3.0


@dataclass(frozen=True, eq=False)
class Observations:
    """What was seen of a face in n frames."""

    points: Tensor  # (n, 478, 2) pixels
    depth: Tensor  # (n, 478) the detector's guess of the landmarks' relief, pixels away from the viewer, free offset
    scores: Tensor  # (n, E) expected expression; zeros where the head's components have no names
    rotation: Tensor  # (n, 3) the detector's own estimate, camera frame
    trust: Tensor  # (n,) how much the fitted rotation is drawn to it, per radian; 0: it is a first guess only

    def __getitem__(self, frames: slice | Tensor) -> "Observations":
        return Observations(self.points[frames], self.depth[frames], self.scores[frames], self.rotation[frames], self.trust[frames])

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, eq=False)
class Pose:
    """The unknowns of n frames."""

    expression: Tensor  # (n, E)
    joints: Tensor  # (n, J - 1, 3)
    rotation: Tensor  # (n, 3)
    translation: Tensor  # (n, 3)

    def __getitem__(self, frames: slice | Tensor) -> "Pose":
        return Pose(self.expression[frames], self.joints[frames], self.rotation[frames], self.translation[frames])


def _free_joints(head: HeadModel) -> list[tuple[str, int, int]]:
    """(name, index into `joints`, axis) of the joint angles that are fitted: gaze, and the jaw of a head without jawOpen."""
    axes: dict[str, tuple[int, ...]] = {"left_eye": (0, 1), "right_eye": (0, 1)}
    if "jawOpen" not in head.expression_names:
        axes["jaw"] = (0, 1, 2)
    return [(n, j, a) for j, n in enumerate(head.joint_names[1:]) if n in axes for a in axes[n]]


def _weighted_step(jacobian: Tensor, residual: Tensor, weight: Tensor, prior: Tensor, away: Tensor) -> Tensor:
    """The step that minimises `|W (r + J d)|^2 + |prior (away + d)|^2`, (n, P), for J (n, L, 3, P),
    W and r (n, L, 3), prior and away (n, P) or (P,)."""
    a = (jacobian * weight[..., None]).flatten(1, 2)
    r = (residual * weight).flatten(1)
    normal = a.transpose(1, 2) @ a + torch.diag_embed(prior**2)
    gradient = (a.transpose(1, 2) @ r[..., None])[..., 0] + prior**2 * away
    normal = normal + torch.diag_embed(_DAMPING * torch.diagonal(normal, dim1=1, dim2=2) + 1e-9)
    return -torch.linalg.solve(normal, gradient)


class GaussNewton:
    """The fit of one head model in one camera's view."""

    def __init__(self, head: HeadModel, camera: Camera, eye_distance: float):
        self.camera = camera
        self.n_expression = head.n_expression
        self.model = LandmarkModel.of(head, MAX_SHAPE)
        self.to_percent = 100 / eye_distance
        self.weights = priors.landmark_weights(head)
        self.depth_weights = priors.depth_weights(self.weights)
        self.expression_prior = priors.expression_prior(head)
        self.bounded = bool(head.expression_names)
        self.free_joints = _free_joints(head)
        self.joint_prior = torch.tensor(
            [priors.JAW_PRIOR if name == "jaw" else priors.EYE_PRIOR for name, _, _ in self.free_joints],
            dtype=torch.float64,
        )

    @property
    def n_shape(self) -> int:
        return len(self.model.shape_basis)

    def start(self, seen: Observations) -> Pose:
        """A first guess: the detector's rotation and expression, the depth from the distance between the eyes."""
        corners = [mp.RIGHT_EYE_CORNER, mp.LEFT_EYE_CORNER]
        seen_eyes, own_eyes = seen.points[:, corners], self.model.template[corners]
        turn = to_matrix(seen.rotation)
        width = (own_eyes[0] - own_eyes[1]).norm() * turn[:, 0, 0].clamp(min=0.5)
        depth = self.camera.focal * width / (seen_eyes[:, 0] - seen_eyes[:, 1]).norm(dim=-1).clamp(min=2)
        offset = seen_eyes.mean(1) - torch.tensor([self.camera.cx, self.camera.cy], dtype=torch.float64)
        at_eyes = torch.cat([offset * (depth / self.camera.focal)[:, None], depth[:, None]], 1)
        root_to_eyes = (own_eyes.mean(0) - self.model.skeleton[0]) * torch.tensor(FLIP, dtype=torch.float64)
        joints = torch.zeros(len(seen), len(self.model.parents) - 1, 3, dtype=torch.float64)
        return Pose(seen.scores.clone(), joints, seen.rotation.clone(), at_eyes - turn @ root_to_eyes)

    def landmarks(self, shape: Tensor, x: Pose) -> Tensor:
        """(n, 478, 3) in the camera frame, metres."""
        return place(self.model.posed(shape, x.expression, x.joints)[0], x.rotation, x.translation)

    def residuals(self, shape: Tensor, x: Pose, seen: Observations) -> Tensor:
        """(n, 478, 3), hundredths of the distance between the eyes: in the image, and of the relief less its mean."""
        points = self.landmarks(shape, x)
        relief = points[..., 2] * (self.camera.focal / points[..., 2].mean(1, keepdim=True)) - seen.depth
        r = torch.cat([self.camera.project(points) - seen.points, relief[..., None]], -1) * self.to_percent
        return self._centred(r[..., None])[..., 0]

    def _centred(self, columns: Tensor) -> Tensor:
        """(n, 478, 3, P) with the weighted mean over the landmarks taken off the third row: the detector's relief has no
        zero."""
        share = self.depth_weights / self.depth_weights.sum()
        mean = torch.einsum("l,nlp->np", share, columns[:, :, 2])
        return torch.cat([columns[:, :, :2], (columns[:, :, 2] - mean[:, None])[:, :, None]], 2)

    def error(self, shape: Tensor, x: Pose, seen: Observations) -> Tensor:
        """(n,) mean reprojection error of the embedded landmarks, hundredths of the distance between the eyes."""
        return self.residuals(shape, x, seen)[:, self.weights > 0, :2].norm(dim=-1).mean(1)

    def _robust(self, residual: Tensor) -> Tensor:
        """(n, 478, 3): weights under which the squared residuals grow like a robust loss's."""
        less = 1 / (1 + (residual[..., :2].norm(dim=-1, keepdim=True) / priors.ROBUST_SCALE) ** 2).sqrt()
        return less * torch.stack([self.weights, self.weights, self.depth_weights], -1)

    def _pose_blocks(self, points: Tensor, x: Pose) -> tuple[Tensor, Tensor]:
        """d residual / d head point (n, L, 3, 3) and d residual / d (rotation from the left, translation) (n, L, 3, 6), the
        third row not yet centred."""
        turn = to_matrix(x.rotation)
        turned = points @ turn.transpose(-1, -2)
        placed = turned + x.translation[:, None]
        relief = torch.zeros_like(placed)[..., None, :]
        relief[..., 0, 2] = self.camera.focal / placed[..., 2].mean(1, keepdim=True)
        projection = torch.cat([projection_jacobian(placed, self.camera), relief], -2) * self.to_percent
        axes = torch.eye(3, dtype=points.dtype)
        spin = torch.stack([torch.linalg.cross(axis.expand_as(turned), turned) for axis in axes], -1)
        return projection @ turn[:, None], torch.cat([projection @ spin, projection], -1)

    def pose_step(self, shape: Tensor, x: Pose, seen: Observations) -> Pose:
        """One step of rotation and translation alone."""
        points, _ = self.model.posed(shape, x.expression, x.joints)
        _, block = self._pose_blocks(points, x)
        r = self.residuals(shape, x, seen)
        zero = torch.zeros(6, dtype=torch.float64)
        step = _weighted_step(self._centred(block), r, self._robust(r), zero, zero.expand(len(seen), 6))
        return Pose(x.expression, x.joints, compose(step[:, :3], x.rotation), x.translation + step[:, 3:])

    def _joint_block(self, shape: Tensor, points: Tensor, to_residual: Tensor, x: Pose) -> Tensor:
        """d residual / d free joint angles, (n, L, 3, number of them), by forward differences."""
        columns = []
        for _, j, axis in self.free_joints:
            joints = x.joints.clone()
            joints[:, j, axis] += _JOINT_STEP
            moved, _ = self.model.posed(shape, x.expression, joints)
            columns.append(to_residual @ ((moved - points) / _JOINT_STEP)[..., None])
        return torch.cat(columns, -1)

    def frame_step(self, shape: Tensor, x: Pose, seen: Observations) -> Pose:
        """One step of all that changes from frame to frame: expression, gaze, jaw, rotation, translation."""
        points, linear = self.model.posed(shape, x.expression, x.joints)
        to_residual, pose = self._pose_blocks(points, x)
        expression = (to_residual @ linear) @ self.model.expression_basis.permute(1, 2, 0)
        jacobian = torch.cat([expression, pose, self._joint_block(shape, points, to_residual, x)], -1)
        r = self.residuals(shape, x, seen)
        angles = torch.stack([x.joints[:, j, axis] for _, j, axis in self.free_joints], -1)
        n, unbound = len(seen), torch.zeros(len(seen), 3, dtype=torch.float64)
        off = compose(x.rotation, inverse(seen.rotation))
        prior = torch.cat(
            [self.expression_prior.expand(n, -1), seen.trust[:, None].expand(n, 3), unbound, self.joint_prior.expand(n, -1)], 1
        )
        away = torch.cat([x.expression - seen.scores, off, unbound, angles], -1)
        step = _weighted_step(self._centred(jacobian), r, self._robust(r), prior, away)
        e = self.n_expression
        return self._stepped(x, step[:, :e], step[:, e : e + 6], step[:, e + 6 :])

    def _stepped(self, x: Pose, expression: Tensor, pose: Tensor, angles: Tensor) -> Pose:
        joints = x.joints.clone()
        for k, (_, j, axis) in enumerate(self.free_joints):
            joints[:, j, axis] += angles[:, k]
        moved = x.expression + expression
        return Pose(
            moved.clamp(0, 1) if self.bounded else moved,
            joints,
            compose(pose[:, :3], x.rotation),
            x.translation + pose[:, 3:],
        )

    def shape_step(self, shape: Tensor, x: Pose, seen: Observations) -> Tensor:
        """One step of the shape (S,) that all frames share."""
        points, linear = self.model.posed(shape, x.expression, x.joints)
        to_residual, _ = self._pose_blocks(points, x)
        jacobian = self._centred((to_residual @ linear) @ self.model.shape_basis.permute(1, 2, 0))
        r = self.residuals(shape, x, seen)
        weight = self._robust(r)
        prior = torch.full_like(shape, priors.SHAPE_PRIOR * len(seen) ** 0.5)
        step = _weighted_step(
            jacobian.flatten(0, 1)[None], r.flatten(0, 1)[None], weight.flatten(0, 1)[None], prior, shape[None]
        )
        return (shape + step[0]).clamp(-_MAX_SHAPE_SIGMA, _MAX_SHAPE_SIGMA)
