"""Rotations as axis-angle vectors of any leading shape: they compose, they are never added.

The conversions are kornia's, which are exact near 0 and near pi; here they only learn to take any batch shape.
"""

import torch
from kornia.geometry.conversions import axis_angle_to_rotation_matrix, rotation_matrix_to_axis_angle
from torch import Tensor


def to_matrix(rotation: Tensor) -> Tensor:
    """Axis-angle (..., 3) in radians to rotation matrices (..., 3, 3)."""
    return axis_angle_to_rotation_matrix(rotation.reshape(-1, 3)).reshape(*rotation.shape[:-1], 3, 3)


def from_matrix(matrix: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) to axis-angle (..., 3) in radians, of length at most pi."""
    return rotation_matrix_to_axis_angle(matrix.reshape(-1, 3, 3)).reshape(matrix.shape[:-1])


def compose(first: Tensor, *others: Tensor) -> Tensor:
    """The product of rotations given as axis-angle (..., 3); the last one acts first on a vector."""
    product = to_matrix(first)
    for other in others:
        product = product @ to_matrix(other)
    return from_matrix(product)


def inverse(rotation: Tensor) -> Tensor:
    """The opposite rotation, axis-angle (..., 3)."""
    return -rotation


def angle(rotation: Tensor) -> Tensor:
    """The angle of a rotation, (..., 3) to (...), in radians."""
    return torch.linalg.vector_norm(from_matrix(to_matrix(rotation)), dim=-1)
