"""Posed vertices against smplx's linear blend skinning, the implementation that FLAME's users know."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from comfyui_flow3d.flow3d.head.model import FLAME_PARENTS, HeadModel

lbs = pytest.importorskip("smplx.lbs", reason="smplx is not installed: pip install --no-deps smplx")

EXACT, SINGLE = 1e-7, 1e-6
"""Metres, in float64 and float32. smplx shifts every axis-angle by 1e-8, so float64 cannot agree further."""


def random_head(vertices: int = 400, parents: tuple[int, ...] = FLAME_PARENTS) -> HeadModel:
    """A head with every part of the model in use, in float64: correctives, and joints that mix many vertices."""
    g = torch.Generator().manual_seed(3)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    j = len(parents)
    weights, regressor = rand(vertices, j) ** 8, rand(j, vertices) ** 20
    return HeadModel(
        name="random",
        template=(rand(vertices, 3) - 0.5) * 0.25,
        shape_basis=randn(20, vertices, 3) * 2e-3,
        expression_basis=randn(12, vertices, 3) * 2e-3,
        pose_basis=randn(9 * (j - 1), vertices, 3) * 1e-3,
        joint_regressor=regressor / regressor.sum(1, keepdim=True),
        skin_weights=weights / weights.sum(1, keepdim=True),
        faces=torch.randint(0, vertices, (600, 3), generator=g),
        parents=parents,
        joint_names=tuple(f"joint {i}" for i in range(j)),
    )


def parameters(head: HeadModel, batch: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes, expressions and joint rotations of up to a right angle and more; the first row is all zero."""
    g = torch.Generator().manual_seed(11)

    def randn(*shape: int) -> Tensor:
        x = torch.randn(*shape, generator=g, dtype=torch.float64).to(head.dtype)
        x[0] = 0
        return x

    return randn(batch, head.n_shape), randn(batch, head.n_expression), 0.7 * randn(batch, head.n_joints - 1, 3)


def smplx_vertices(head: HeadModel, betas: Tensor, basis: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
    """smplx.lbs with the head's arrays in smplx's layouts: posed vertices, and joints after posing."""
    pose = torch.cat([joints.new_zeros(len(joints), 1, 3), joints], 1).flatten(1)
    return lbs.lbs(
        betas,
        pose,
        head.template,
        basis.permute(1, 2, 0),
        head.pose_basis.flatten(1),
        head.joint_regressor,
        torch.tensor(head.parents),
        head.skin_weights,
    )


@pytest.mark.parametrize(
    "parents",
    [FLAME_PARENTS, (-1,), (-1, 0, 1, 2, 3), (-1, 0, 0, 1, 1, 2, 4)],
    ids=["FLAME", "root alone", "chain", "tree"],
)
def test_shape_joints_and_correctives(parents: tuple[int, ...]) -> None:
    head = random_head(parents=parents)
    shape, _, joints = parameters(head)
    ours, root = head.vertices(shape, shape.new_zeros(len(shape), 0), joints)
    theirs, their_joints = smplx_vertices(head, shape, head.shape_basis, joints)
    assert (ours - theirs).abs().max() < EXACT
    assert (root - their_joints[:, 0]).abs().max() < EXACT
    if len(parents) > 1:
        assert (ours[1:] - head.vertices(shape, shape.new_zeros(len(shape), 0))[0][1:]).abs().max() > 0.01


def test_expression() -> None:
    """Where expressions leave the joints alone, ours is smplx with the two bases side by side."""
    head = random_head()
    still = head.expression_basis.clone()
    still[:, :50] = 0
    regressor = torch.where(torch.arange(400) < 50, head.joint_regressor, 0.0)
    regressor /= regressor.sum(1, keepdim=True)
    head = replace(head, expression_basis=still, joint_regressor=regressor)
    shape, expression, joints = parameters(head)
    ours, _ = head.vertices(shape, expression, joints)
    betas, basis = torch.cat([shape, expression], 1), torch.cat([head.shape_basis, head.expression_basis])
    theirs, _ = smplx_vertices(head, betas, basis, joints)
    assert (ours - theirs).abs().max() < EXACT
    assert (ours - head.vertices(shape, expression * 0, joints)[0])[1:].abs().max() > 1e-3


def test_skeleton_is_that_of_the_shape_alone() -> None:
    """An expression that would move smplx's joints does not move ours: smplx's own steps, joints from the shape."""
    head = random_head()
    shape, expression, joints = parameters(head)
    ours, root = head.vertices(shape, expression, joints)
    turns = lbs.batch_rodrigues(torch.cat([joints[:, :1] * 0, joints], 1).reshape(-1, 3)).view(len(shape), -1, 3, 3)
    skeleton = lbs.vertices2joints(
        head.joint_regressor, head.template + lbs.blend_shapes(shape, head.shape_basis.permute(1, 2, 0))
    )
    _, transforms = lbs.batch_rigid_transform(turns, skeleton, torch.tensor(head.parents), dtype=head.dtype)
    basis = torch.cat([head.shape_basis, head.expression_basis]).permute(1, 2, 0)
    rest = head.template + lbs.blend_shapes(torch.cat([shape, expression], 1), basis)
    feature = (turns[:, 1:] - torch.eye(3, dtype=head.dtype)).flatten(1)
    rest = rest + (feature @ head.pose_basis.flatten(1)).view_as(rest)
    blended = torch.einsum("vj,bjkl->bvkl", head.skin_weights, transforms)
    theirs = torch.einsum("bvkl,bvl->bvk", blended[..., :3, :3], rest) + blended[..., :3, 3]
    assert (ours - theirs).abs().max() < EXACT
    assert (root - skeleton[:, 0]).abs().max() < EXACT


def test_single_precision() -> None:
    head = random_head()
    shape, expression, joints = parameters(head)
    exact, _ = head.vertices(shape, expression, joints)
    ours, _ = head.to(dtype=torch.float32).vertices(shape.float(), expression.float(), joints.float())
    assert ours.dtype == torch.float32
    assert (ours - exact).abs().max() < SINGLE


def test_fewer_coefficients_are_the_first_ones() -> None:
    head = random_head()
    shape, expression, joints = parameters(head)
    full_shape, full_expression = shape.clone(), expression.clone()
    full_shape[:, 5:], full_expression[:, 4:] = 0, 0
    few, _ = head.vertices(shape[:, :5], expression[:, :4], joints)
    full, _ = head.vertices(full_shape, full_expression, joints)
    torch.testing.assert_close(few, full, rtol=0, atol=1e-12)


def test_offsets_are_added_before_posing() -> None:
    """Offsets equal another template with the skeleton of this one."""
    head = random_head()
    shape, expression, joints = parameters(head)
    offsets = head.expression_basis[3]
    one = torch.zeros_like(expression)
    one[:, 3] = 1
    given, root = head.vertices(shape, expression, joints, offsets)
    expressed, same_root = head.vertices(shape, expression + one, joints)
    torch.testing.assert_close(given, expressed, rtol=0, atol=1e-12)
    torch.testing.assert_close(root, same_root, rtol=0, atol=0)
    batched, _ = head.vertices(shape, expression, joints, offsets.expand(len(shape), -1, -1))
    torch.testing.assert_close(given, batched, rtol=0, atol=0)


def test_open_head(open_head: HeadModel) -> None:
    head = open_head.to(dtype=torch.float64)
    shape, expression, joints = parameters(head, batch=3)
    ours, _ = head.vertices(shape, expression * 0, joints)
    theirs, _ = smplx_vertices(head, shape, head.shape_basis, joints)
    assert (ours - theirs).abs().max() < EXACT
    expression = expression.clamp(0, 1)
    exact, _ = head.vertices(shape, expression, joints)
    single, _ = open_head.vertices(shape.float(), expression.float(), joints.float())
    assert (single - exact).abs().max() < SINGLE
