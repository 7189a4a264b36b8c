"""Displacements of the dense landmarks carried to the whole surface: kernel ridge regression on the head's own surface."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .model import HeadModel

_NEAR, _FAR, _FAR_SHARE = 0.010, 0.030, 0.2  # metres, metres, weight: two Gaussians
_RIDGE = 0.06
_OPENING = 0.5  # of jawOpen, or of 0.35 rad of the jaw joint
_RIGID = ("left_eyeball", "right_eyeball", "upper_teeth", "lower_teeth", "tongue")


def _open_mouthed(head: HeadModel) -> Tensor:
    """(V, 3) template with the mouth open: distances taken on it keep touching lips from dragging each other."""
    shape = head.template.new_zeros(1, 0)
    expression = head.template.new_zeros(1, head.n_expression)
    joints = head.template.new_zeros(1, head.n_joints - 1, 3)
    if "jawOpen" in head.expression_names:
        expression[0, head.expression_index("jawOpen")] = _OPENING
    elif "jaw" in head.joint_names:
        joints[0, head.joint_names.index("jaw") - 1, 0] = _OPENING * 0.35
    return head.vertices(shape, expression, joints)[0][0]


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    d = torch.cdist(a, b)
    return torch.exp(-((d / _NEAR) ** 2)) + _FAR_SHARE * torch.exp(-((d / _FAR) ** 2))


def _rigid_parts(head: HeadModel) -> list[Tensor]:
    """(V,) masks of what moves as a whole. Eyeballs are told by their joints where a head has no masks."""
    named = [head.masks[name] for name in _RIGID if name in head.masks]
    if named:
        return named
    eyes = [head.joint_names.index(n) for n in ("left_eye", "right_eye") if n in head.joint_names]
    return [head.skin_weights[:, j] > 0.5 for j in eyes]


def landmark_carry(head: HeadModel) -> Tensor:
    """(V, 478) weights: vertex displacements = weights @ landmark displacements. Landmarks not embedded weigh nothing.

    Raises ValueError where the head has no dense landmarks.
    """
    if head.landmarks_dense is None:
        raise ValueError(f"head '{head.name}' has no dense landmarks")
    vertices = _open_mouthed(head).double()
    found = head.landmarks_dense.found.nonzero()[:, 0]
    centres = head.landmarks_dense.on(vertices, head.faces)[found]
    gram = _kernel(centres, centres) + _RIDGE * torch.eye(len(found), dtype=torch.float64, device=head.device)
    weights = torch.zeros(len(vertices), len(head.landmarks_dense.face), dtype=torch.float64, device=head.device)
    weights[:, found] = torch.linalg.solve(gram, _kernel(centres, vertices)).T
    for part in _rigid_parts(head):
        weights[part] = weights[part].mean(0)
    return weights.to(head.dtype)
