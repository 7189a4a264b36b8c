"""The head reduced to its landmarks: what the solver evaluates and differentiates, a tenth of the mesh."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..errors import InputError
from ..head import skinning
from ..head.model import FLIP, HeadModel, Landmarks
from ..rotations import to_matrix


@dataclass(frozen=True, eq=False)
class LandmarkModel:
    """Landmarks as a linear model of shape and expression, skinned with the weights interpolated at each landmark.

    The bases are exact; the interpolated weights differ from skinning the corners first only to second order in the
    joints' angles.
    """

    template: Tensor  # (L, 3)
    shape_basis: Tensor  # (S, L, 3)
    expression_basis: Tensor  # (E, L, 3)
    skin_weights: Tensor  # (L, J)
    skeleton: Tensor  # (J, 3)
    skeleton_basis: Tensor  # (S, J, 3)
    parents: tuple[int, ...]

    @classmethod
    @lru_cache(maxsize=4)  # a stream asks for it with every frame
    def of(cls, head: HeadModel, n_shape: int) -> "LandmarkModel":
        """The 478 dense landmarks of a head with its first `n_shape` identity components, in float64 on the CPU.

        Raises InputError for a head without embedded landmarks.
        """
        if head.landmarks_dense is None:
            raise InputError(f"Head model '{head.name}' has no landmarks. Load it with load_head, which embeds them.")
        return cls.at(head, n_shape, head.landmarks_dense)

    @classmethod
    def at(cls, head: HeadModel, n_shape: int, marks: Landmarks) -> "LandmarkModel":
        """Any points on a head's surface with its first `n_shape` identity components, in float64 on the CPU."""
        head = head.to("cpu")
        marks = Landmarks(*(x.cpu() for x in marks))
        basis, regressor = head.shape_basis[:n_shape], head.joint_regressor
        return cls(
            template=marks.on(head.template, head.faces).double(),
            shape_basis=marks.on(basis, head.faces).double(),
            expression_basis=marks.on(head.expression_basis, head.faces).double(),
            skin_weights=marks.on(head.skin_weights, head.faces).double(),
            skeleton=(regressor @ head.template).double(),
            skeleton_basis=torch.einsum("jv,svx->sjx", regressor, basis).double(),
            parents=head.parents,
        )

    def posed(self, shape: Tensor, expression: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks (B, L, 3) less the root joint, with camera axes, before the head's pose; and the linear part
        (B, L, 3, 3) of the map from the resting landmark.

        Args:
            shape: (S,). expression: (B, E). joints: (B, J - 1, 3) axis-angle.
        """
        rest, skeleton, transforms = self._at_rest(shape, expression, joints)
        blended = torch.einsum("lj,bjkm->blkm", self.skin_weights, transforms)
        flip = rest.new_tensor(FLIP)
        point = (blended[..., :3] @ rest[..., None])[..., 0] + blended[..., 3] - skeleton[:, :1]
        return point * flip, blended[..., :3] * flip[:, None]

    def skeleton_shifts(self, joints: Tensor) -> Tensor:
        """d landmark / d shape by way of the skeleton alone, (B, L, 3, S) float32, with camera axes: joints (B, J - 1, 3) turn their
        landmarks about places that the shape moves, and landmarks are counted from the root joint."""
        b, j = len(joints), self.skeleton.shape[0]
        units = torch.eye(3 * j, dtype=joints.dtype).reshape(
            3 * j, j, 3
        )  # shifts are linear in the places of the joints
        turns = skinning.with_root(joints).repeat_interleave(3 * j, 0)
        shifts = skinning.joint_transforms(turns, units.repeat(b, 1, 1), self.parents)[..., 3].reshape(b, 3 * j, j, 3)
        shifts = (shifts - units[:, :1]) * shifts.new_tensor(FLIP)
        by_shape = torch.einsum("su,bujx->bjxs", self.skeleton_basis.flatten(1), shifts).float()
        return (self.skin_weights.float() @ by_shape.flatten(2)).reshape(b, -1, 3, len(self.skeleton_basis))

    def spins(
        self, shape: Tensor, expression: Tensor, joints: Tensor, chosen: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """d landmark / d joint angle, (B, L, 3, K), with camera axes, for K pairs (index into `joints`, axis); and d landmark /
        d resting landmark, as `posed` gives it.

        The angle turns the joint further about an axis of the resting head, `exp(angle) joint`: the derivative is exact
        where the joint's parents are unturned, as they are in a fit.
        """
        rest, skeleton, transforms = self._at_rest(shape, expression, joints)
        axes, flip = torch.eye(3, dtype=rest.dtype), rest.new_tensor(FLIP)
        columns = [rest.new_zeros(*rest.shape, 0)]
        for j, axis in chosen:
            turn, shift = transforms[:, j + 1, :, :3], transforms[:, j + 1, :, 3]
            arm = rest @ turn.transpose(1, 2) + shift[:, None] - skeleton[:, None, j + 1]
            column = torch.linalg.cross(axes[axis].expand_as(arm), arm) * self.skin_weights[:, j + 1, None]
            columns.append(column[..., None] * flip[:, None])
        linear = torch.einsum("lj,bjkm->blkm", self.skin_weights, transforms[..., :3])
        return torch.cat(columns, -1), linear * flip[:, None]

    def _at_rest(self, shape: Tensor, expression: Tensor, joints: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Landmarks before skinning (B, L, 3), joints (B, J, 3) and their transforms (B, J, 3, 4), head frame."""
        rest = self.template + torch.tensordot(shape, self.shape_basis, 1)
        rest = rest + torch.tensordot(expression, self.expression_basis, 1)
        skeleton = (self.skeleton + torch.tensordot(shape, self.skeleton_basis, 1)).expand(len(expression), -1, -1)
        return rest, skeleton, skinning.joint_transforms(skinning.with_root(joints), skeleton, self.parents)


def place(points: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Head points (B, L, 3) with camera axes to the camera frame: rotation (B, 3), translation (B, 3)."""
    return points @ to_matrix(rotation).transpose(-1, -2) + translation[:, None]
