"""Some of a head's vertices and how they move with everything that the landmark solver fits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..head.model import HeadModel
from ..rotations import to_matrix
from .landmark_model import LandmarkModel
from .levenberg_marquardt import MAX_SHAPE, Pose, free_joints


@dataclass(frozen=True, eq=False)
class SurfaceModel:
    """The landmark solver's model of a head, for vertices instead of landmarks. Pose correctives are left out, as there."""

    model: LandmarkModel
    joints: tuple[tuple[int, int], ...]  # (index into `Pose.joints`, axis) of the angles that are fitted

    @classmethod
    def of(cls, head: HeadModel, vertices: Tensor, n_shape: int = MAX_SHAPE) -> "SurfaceModel":
        """`vertices` (n,) of a head, in float64 on the CPU."""
        head, vertices = head.to("cpu", torch.float64), vertices.cpu()
        basis = head.shape_basis[:n_shape]
        model = LandmarkModel(
            template=head.template[vertices],
            shape_basis=basis[:, vertices],
            expression_basis=head.expression_basis[:, vertices],
            skin_weights=head.skin_weights[vertices],
            skeleton=head.joint_regressor @ head.template,
            skeleton_basis=torch.einsum("jv,svx->sjx", head.joint_regressor, basis),
            parents=head.parents,
        )
        return cls(model, tuple((j, axis) for _, j, axis in free_joints(head)))

    def placed(self, shape: Tensor, x: Pose) -> Tensor:
        """(n, V, 3) the vertices in the camera frame, metres."""
        points, _ = self.model.posed(shape, x.expression, x.joints)
        return points @ to_matrix(x.rotation).transpose(-1, -2) + x.translation[:, None]

    def moves(self, shape: Tensor, x: Pose) -> Tensor:
        """(n, P + S, V, 3) derivatives of `placed` in the order of the solver's unknowns, float64.

        They are expression, joint angles, rotation (a turn after the one that is there), translation; then the shape.
        """
        points, _ = self.model.posed(shape, x.expression, x.joints)
        turn = to_matrix(x.rotation)[:, None]
        turned = (turn @ points[..., None])[..., 0]
        spins, linear = self.model.spins(shape, x.expression, x.joints, list(self.joints))
        to_rest = turn @ linear
        axes = torch.eye(3, dtype=points.dtype)
        spin = torch.stack([torch.linalg.cross(axis.expand_as(turned), turned) for axis in axes], 1)
        identity = torch.einsum("nvij,svj->nsvi", to_rest, self.model.shape_basis)
        identity += (turn @ self.model.skeleton_shifts(x.joints).to(turn)).permute(0, 3, 1, 2)
        return torch.cat(
            [
                torch.einsum("nvij,evj->nevi", to_rest, self.model.expression_basis),
                (turn @ spins).permute(0, 3, 1, 2),
                spin,
                axes[None, :, None].expand(len(points), -1, points.shape[1], -1),
                identity,
            ],
            1,
        )
