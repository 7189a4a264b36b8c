"""A shaded render of a head: skin, lips, eyes with irises, teeth and a dark mouth, for people and detectors to look at."""

import math

import torch
from torch import Tensor

from ..camera import Camera
from ..head.model import EYEBALLS, INNER_MOUTH, HeadModel
from .rasterize import Fragments, rasterize

SKIN_COLOUR = (0.80, 0.62, 0.54)
LIP_COLOUR = (0.72, 0.42, 0.40)
EYE_WHITE = (0.93, 0.92, 0.91)
IRIS_COLOUR = (0.24, 0.17, 0.13)
PUPIL_COLOUR = (0.04, 0.03, 0.03)
CAVITY_COLOUR = (0.16, 0.05, 0.05)
TONGUE_COLOUR = (0.55, 0.26, 0.26)
TEETH_COLOUR = (0.90, 0.88, 0.82)
BROW_COLOUR = (0.30, 0.21, 0.17)
BACKGROUND = (0.47, 0.47, 0.47)
LIGHT = (0.25, -0.45, -0.86)  # from the surface towards the light, camera frame
IRIS_ANGLE, PUPIL_ANGLE = 23.0, 9.0  # degrees from the eye's axis, seen from the eyeball's centre
"""A human iris has a radius of 5.9 mm on an eyeball of 12 mm; the open head's eyeball of 15 mm shows the same radius."""


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Area-weighted unit normals (B, V, 3) of meshes (B, V, 3) with shared faces (F, 3); 0 where a vertex has no area."""
    a, b, c = (vertices[:, faces[:, i]] for i in range(3))
    n = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for i in range(3):
        total.index_add_(1, faces[:, i], n)
    return torch.nn.functional.normalize(total, dim=-1, eps=1e-20)


def interpolate(values: Tensor, faces: Tensor, fragments: Fragments) -> Tensor:
    """Vertex values (B, V, C) at the pixels that the mesh covers: (B, H, W, C), 0 where nothing is seen."""
    out = values.new_zeros(*fragments.triangle.shape, values.shape[-1])
    seen = fragments.triangle >= 0
    mesh = seen.nonzero()[:, 0]
    corners = faces[fragments.triangle[seen].long()]
    out[seen] = (values[mesh[:, None], corners] * fragments.bary[seen][..., None].to(values.dtype)).sum(1)
    return out


def shade(
    head: HeadModel,
    vertices: Tensor,
    camera: Camera,
    fragments: Fragments | None = None,
    background: tuple[float, float, float] = BACKGROUND,
) -> Tensor:
    """Shaded renders of posed heads.

    Args:
        vertices: (B, V, 3) camera frame, metres, as `to_camera` gives them.
        fragments: what `rasterize(vertices, head.faces, camera)` gave, where it is at hand.

    Returns:
        (B, H, W, 3) colours 0..1.
    """
    fragments = fragments or rasterize(vertices, head.faces, camera)
    normals = vertex_normals(vertices, head.faces)
    colour = interpolate(_vertex_colours(head, vertices.dtype).expand(len(vertices), -1, -1), head.faces, fragments)
    _paint_eyes(head, vertices, fragments, colour)
    normal = interpolate(normals, head.faces, fragments)
    lit = (normal * normal.new_tensor(LIGHT)).sum(-1, keepdim=True).abs() * 0.72 + 0.30
    seen = (fragments.triangle >= 0)[..., None]
    return torch.where(seen, (colour * lit).clamp(0, 1), colour.new_tensor(background))


def _vertex_colours(head: HeadModel, dtype: torch.dtype) -> Tensor:
    """(V, 3) colours of everything but the irises."""
    colours = torch.tensor(SKIN_COLOUR, dtype=dtype, device=head.device).repeat(len(head.template), 1)
    inner = torch.zeros_like(head.template[:, 0], dtype=torch.bool)
    inner[head.faces[head.face_parts == INNER_MOUTH].unique()] = True
    painted = {
        "lips": LIP_COLOUR,
        "eyebrows": BROW_COLOUR,
        "inner_mouth": CAVITY_COLOUR,
        "tongue": TONGUE_COLOUR,
        "upper_teeth": TEETH_COLOUR,
        "lower_teeth": TEETH_COLOUR,
        "eyeballs": EYE_WHITE,
    }
    masks = {"inner_mouth": inner, "eyeballs": eyeball_vertices(head).any(0)} | head.masks
    for name, paint in painted.items():
        if name in masks:
            colours[masks[name]] = colours.new_tensor(paint)
    return colours


def eyeball_vertices(head: HeadModel) -> Tensor:
    """(2, V) bool: the left and the right eyeball, by mask or, without masks, by the eye joints' weights."""
    sides = []
    for side in ("left", "right"):
        mask = head.masks.get(f"{side}_eyeball")
        if mask is None and f"{side}_eye" in head.joint_names:
            mask = head.skin_weights[:, head.joint_names.index(f"{side}_eye")] > 0.5
        sides.append(torch.zeros_like(head.template[:, 0], dtype=torch.bool) if mask is None else mask)
    return torch.stack(sides)


def _paint_eyes(head: HeadModel, vertices: Tensor, fragments: Fragments, colour: Tensor) -> None:
    """Draw irises and pupils (in place), pixel by pixel, as discs about the axes of the eyes at rest: they turn with
    the eyeball, by joint or by expression."""
    balls = eyeball_vertices(head)
    if not balls.any():
        return
    on_eye = torch.zeros(len(head.faces), dtype=torch.bool, device=head.device)
    arms = torch.zeros_like(head.template)  # from the eyeball's centre, the gaze along z
    for ball in balls:
        if ball.any():
            on_eye |= ball[head.faces].all(1)
            arms[ball] = head.template[ball] - head.template[ball].mean(0)
    seen = (fragments.triangle >= 0) & on_eye[fragments.triangle.clamp(min=0).long()]
    if not seen.any():
        return
    arm = interpolate(arms.to(vertices).expand_as(vertices), head.faces, fragments)[seen]
    angle = torch.rad2deg(torch.atan2(arm[:, :2].norm(dim=1), arm[:, 2]))[:, None]
    paint = colour[seen]
    for limit, paint_colour in ((IRIS_ANGLE, IRIS_COLOUR), (PUPIL_ANGLE, PUPIL_COLOUR)):
        inside = ((limit + 1.0 - angle) / 2.0).clamp(0, 1)
        paint = paint * (1 - inside) + paint.new_tensor(paint_colour) * inside
    colour[seen] = paint

