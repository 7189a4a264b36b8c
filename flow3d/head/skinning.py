"""Linear blend skinning, as FLAME and SMPL define it (Loper et al. 2015, equations 2-6)."""

import torch
from torch import Tensor

from ..rotations import to_matrix


def joint_transforms(rotations: Tensor, joints: Tensor, parents: tuple[int, ...]) -> Tensor:
    """World transforms of the joints, relative to the rest pose.

    Args:
        rotations: (B, J, 3, 3), each joint's rotation against its parent.
        joints: (B, J, 3), joint locations at rest.
        parents: index of each joint's parent, before it in the order; -1 for the root.

    Returns:
        (B, J, 3, 4): `p_posed = M[:3, :3] p_rest + M[:3, 3]` for a point that follows one joint alone.
    """
    rotation, position = [rotations[:, 0]], [joints[:, 0]]
    for j in range(1, len(parents)):
        p = parents[j]
        rotation.append(rotation[p] @ rotations[:, j])
        position.append(position[p] + (rotation[p] @ (joints[:, j] - joints[:, p])[..., None])[..., 0])
    turn = torch.stack(rotation, 1)
    shift = torch.stack(position, 1) - (turn @ joints[..., None])[..., 0]
    return torch.cat([turn, shift[..., None]], -1)


def pose_feature(rotations: Tensor) -> Tensor:
    """What drives the pose correctives: (B, J, 3, 3) to (B, 9 (J - 1)), the rotations less the identity, root left out."""
    eye = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
    return (rotations[:, 1:] - eye).flatten(1)


def blend_skin(vertices: Tensor, transforms: Tensor, weights: Tensor) -> Tensor:
    """Vertices (B, V, 3) at rest, transforms (B, J, 3, 4), weights (V, J) to posed vertices (B, V, 3)."""
    per_vertex = torch.einsum("vj,bjkl->bvkl", weights, transforms)
    return (per_vertex[..., :3] @ vertices[..., None])[..., 0] + per_vertex[..., 3]


def with_root(joints: Tensor) -> Tensor:
    """Axis-angle joints (B, J - 1, 3) without the root to rotation matrices (B, J, 3, 3), the root unturned."""
    root = torch.zeros_like(joints[:, :1]) if joints.shape[1] else joints.new_zeros(len(joints), 1, 3)
    return to_matrix(torch.cat([root, joints], 1))
