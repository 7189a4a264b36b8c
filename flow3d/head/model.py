"""The parametric head: a template, linear bases for identity and expression, and a skeleton.

Head frame: y up, z out of the face, metres. Camera frame: OpenCV (see `camera.py`). The turn between the two is
`F = diag(1, -1, -1)`, so a head that faces the camera upright has rotation 0.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..rotations import to_matrix
from . import skinning
from .carry import landmark_carry

FLIP = (1.0, -1.0, -1.0)
"""The diagonal of F: from the head frame's axes to the camera's."""

SKIN, EYEBALLS, INNER_MOUTH = 0, 1, 2
"""Values of `HeadModel.parts`."""

FLAME_JOINTS = ("root", "neck", "jaw", "left_eye", "right_eye")
FLAME_PARENTS = (-1, 0, 1, 1, 1)


class Landmarks(NamedTuple):
    """Points on a head's surface: `face` (L,) indexes triangles, `bary` (L, 3) weighs their corners. Face -1: not embedded."""

    face: Tensor
    bary: Tensor

    @property
    def found(self) -> Tensor:
        """(L,) bool: which landmarks are embedded."""
        return self.face >= 0

    def on(self, vertices: Tensor, faces: Tensor) -> Tensor:
        """Positions (..., L, 3) on vertices (..., V, 3) of a mesh with faces (F, 3). Unembedded landmarks lie on face 0."""
        corners = vertices[..., faces[self.face.clamp(min=0)], :]
        return torch.einsum("...lcx,lc->...lx", corners, self.bary.to(vertices.dtype))


@dataclass(frozen=True, eq=False, repr=False)
class HeadModel:
    """A parametric head. All tensors share one device and one float type; `to` moves them together."""

    name: str
    template: Tensor  # (V, 3)
    shape_basis: Tensor  # (S, V, 3), one standard deviation each
    expression_basis: Tensor  # (E, V, 3)
    pose_basis: Tensor  # (9 (J - 1), V, 3); zero rows where a head has no pose correctives
    joint_regressor: Tensor  # (J, V)
    skin_weights: Tensor  # (V, J), rows sum to 1
    faces: Tensor  # (F, 3) int64, counter-clockwise seen from outside
    parents: tuple[int, ...] = FLAME_PARENTS
    joint_names: tuple[str, ...] = FLAME_JOINTS
    expression_names: tuple[str, ...] = ()  # E names where the components have a meaning, such as ARKit's
    masks: dict[str, Tensor] = field(default_factory=dict)  # name -> (V,) bool
    parts: Tensor | None = None  # (F,) int64: SKIN, EYEBALLS or INNER_MOUTH; None: all skin
    landmarks68: Landmarks | None = None
    landmarks_dense: Landmarks | None = None  # MediaPipe's 478 points
    landmark_spread: Tensor | None = None  # (478,) metres: how far views disagreed when the points were found
    digest: str = ""  # sha256 of the geometry, see `head/files.py`
    licence: str = ""

    def __repr__(self) -> str:
        """Short: ComfyUI puts every input of a failed node into its message."""
        return f"<HeadModel '{self.name}', {len(self.template)} vertices, {self.n_shape} + {self.n_expression} components>"

    @property
    def n_shape(self) -> int:
        return len(self.shape_basis)

    @property
    def n_expression(self) -> int:
        return len(self.expression_basis)

    @property
    def n_joints(self) -> int:
        return len(self.parents)

    @property
    def device(self) -> torch.device:
        return self.template.device

    @property
    def dtype(self) -> torch.dtype:
        return self.template.dtype

    @cached_property
    def face_parts(self) -> Tensor:
        """(F,) int64 part of every triangle, all SKIN for a head without parts."""
        return torch.zeros_like(self.faces[:, 0]) if self.parts is None else self.parts

    @cached_property
    def _has_correctives(self) -> bool:
        return bool(self.pose_basis.any())

    @cached_property
    def _landmark_carry(self) -> Tensor:
        return landmark_carry(self)

    def carry_landmarks(self, displacements: Tensor) -> Tensor:
        """Displacements of the dense landmarks (..., 478, 3) spread smoothly over the surface: (..., V, 3), metres."""
        return self._landmark_carry.to(displacements) @ displacements

    @property
    def dense(self) -> Landmarks:
        """`landmarks_dense`. Raises InputError where the head has none."""
        if self.landmarks_dense is None:
            raise InputError(f"Head model '{self.name}' has no landmarks. Load it with load_head, which finds them.")
        return self.landmarks_dense

    def expression_index(self, name: str) -> int:
        """The index of a named expression component. Raises ValueError where the head has no such name."""
        return self.expression_names.index(name)

    def shaped(self, shape: Tensor, expression: Tensor | None = None, offsets: Tensor | None = None) -> Tensor:
        """Vertices at rest: shape (B, <=S), expression (B, <=E), offsets (B, V, 3) or (V, 3) to (B, V, 3), head frame."""
        v = self.template + torch.einsum("bs,svx->bvx", shape, self.shape_basis[: shape.shape[1]])
        if expression is not None:
            v = v + torch.einsum("be,evx->bvx", expression, self.expression_basis[: expression.shape[1]])
        return v if offsets is None else v + offsets

    def joints_at_rest(self, shape: Tensor) -> Tensor:
        """Joint locations (B, J, 3) of the neutral head with shape (B, <=S), head frame."""
        return torch.einsum("jv,bvx->bjx", self.joint_regressor, self.shaped(shape))

    def vertices(
        self, shape: Tensor, expression: Tensor, joints: Tensor | None = None, offsets: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Posed vertices (B, V, 3) and the root joint (B, 3), both in the head frame.

        Args:
            shape: (B, <=S). expression: (B, <=E). joints: (B, J - 1, 3) axis-angle, root left out; None: at rest.
            offsets: (V, 3) or (B, V, 3) added to the neutral vertices. The skeleton is that of the shape alone.
        """
        rest = self.shaped(shape, expression, offsets)
        skeleton = self.joints_at_rest(shape)
        if joints is not None:
            turns = skinning.with_root(joints)
            if self._has_correctives:
                rest = rest + torch.einsum("bp,pvx->bvx", skinning.pose_feature(turns), self.pose_basis)
            rest = skinning.blend_skin(
                rest, skinning.joint_transforms(turns, skeleton, self.parents), self.skin_weights
            )
        return rest, skeleton[:, 0]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "HeadModel":
        """The same head with its tensors on `device` and its floats in `dtype`."""

        def move(x: Any) -> Any:
            if isinstance(x, Landmarks):
                return Landmarks(*(t.to(device=device, dtype=dtype if t.is_floating_point() else None) for t in x))
            if isinstance(x, Tensor):
                return x.to(device=device, dtype=dtype if x.is_floating_point() else None)
            if isinstance(x, dict):
                return {k: move(v) for k, v in x.items()}
            return x

        return replace(self, **{name: move(getattr(self, name)) for name in self.__dataclass_fields__})


def to_camera(vertices: Tensor, root: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """`p_cam = exp(rotation) F (p - root) + translation`.

    Args:
        vertices: (B, N, 3) head frame. root: (B, 3) the root joint. rotation, translation: (B, 3).

    Returns:
        (B, N, 3) in the camera frame, metres.
    """
    flip = vertices.new_tensor(FLIP)
    turned = ((vertices - root[:, None]) * flip) @ to_matrix(rotation).transpose(-1, -2)
    return turned + translation[:, None]
