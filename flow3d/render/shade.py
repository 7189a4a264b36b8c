"""A shaded render of a head: skin, lips, eyes with irises, teeth and a dark mouth, for people and detectors to look at."""

import torch
from torch import Tensor

from ..camera import Camera
from ..head.model import INNER_MOUTH, SKIN, HeadModel
from .rasterize import Fragments, rasterize

SKIN_COLOUR = (0.80, 0.62, 0.54)
LIP_COLOUR = (0.72, 0.42, 0.40)
EYE_WHITE = (0.93, 0.92, 0.91)
IRIS_COLOUR = (0.24, 0.17, 0.13)
PUPIL_COLOUR = (0.04, 0.03, 0.03)
CAVITY_COLOUR = (0.16, 0.05, 0.05)
TONGUE_COLOUR = (0.55, 0.26, 0.26)
TEETH_COLOUR = (0.90, 0.88, 0.82)
BROW_COLOUR = (0.33, 0.23, 0.19)
BROW_OPACITY = 0.7
BROW_LINE = ((-0.020, 0.0180, 0.0030), (-0.004, 0.0210, 0.0030), (0.010, 0.0205, 0.0024), (0.021, 0.0155, 0.0012))
"""An eyebrow along the brow ridge: outwards and up from the eyeball's centre, and half its width, in metres."""
BROW_REACH = 0.05  # metres from the eyeball's centre: nothing is painted beyond
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
    triangle = fragments.triangle.flatten()
    seen = (triangle >= 0).nonzero()[:, 0]
    triangle = triangle[seen].long()
    first = seen // fragments.triangle[0].numel() * len(head.template)  # the index of each mesh's vertex 0
    bary = fragments.bary.reshape(-1, 3)[seen].to(vertices.dtype)

    def at_pixels(values: Tensor) -> Tensor:
        """Vertex values (B V, C) at the pixels that are covered, (N, C)."""
        corners = head.faces[triangle] + first[:, None]
        first_two = values.index_select(0, corners[:, 0]) * bary[:, :1] + values.index_select(0, corners[:, 1]) * bary[:, 1:2]
        return first_two + values.index_select(0, corners[:, 2]) * bary[:, 2:]

    alike = torch.cat([_vertex_colours(head), head.template], 1).to(vertices).repeat(len(vertices), 1)
    values = at_pixels(torch.cat([vertex_normals(vertices, head.faces).flatten(0, 1), alike], 1))
    normal, colour, rest = values[:, :3], values[:, 3:6], values[:, 6:]
    colour = _with_brows_and_irises(head, triangle, rest, colour)
    lit = (normal @ normal.new_tensor(LIGHT)).abs()[:, None] * 0.72 + 0.30
    image = vertices.new_tensor(background).repeat(fragments.triangle.numel(), 1)
    image[seen] = (colour * lit).clamp(0, 1)
    return image.reshape(*fragments.triangle.shape, 3)


def _vertex_colours(head: HeadModel) -> Tensor:
    """(V, 3) colours of everything but brows and irises."""
    colours = head.template.new_tensor(SKIN_COLOUR).repeat(len(head.template), 1)
    inner = torch.zeros_like(head.template[:, 0], dtype=torch.bool)
    inner[head.faces[head.face_parts == INNER_MOUTH].unique()] = True
    painted = {
        "lips": LIP_COLOUR,
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


def _with_brows_and_irises(head: HeadModel, triangle: Tensor, rest: Tensor, colour: Tensor) -> Tensor:
    """Pixels' colours (N, 3) with what is finer than the mesh painted on, by the pixels' places (N, 3) on the template:
    it moves with the surface, whether joints or expressions move that."""
    for side, ball in zip((1.0, -1.0), eyeball_vertices(head), strict=True):
        if not ball.any():
            continue
        arm = rest - head.template[ball].mean(0).to(rest)
        near = (arm.norm(dim=1) < BROW_REACH).nonzero()[:, 0]
        arm, triangle_near, paint = arm[near], triangle[near], colour[near]
        angle = torch.rad2deg(torch.atan2(arm[:, :2].norm(dim=1), arm[:, 2]))
        on_eye, on_skin = ball[head.faces].all(1)[triangle_near], (head.face_parts == SKIN)[triangle_near]
        for limit, disc in ((IRIS_ANGLE, IRIS_COLOUR), (PUPIL_ANGLE, PUPIL_COLOUR)):
            paint = _mix(paint, disc, on_eye * ((limit + 1.0 - angle) / 2.0).clamp(0, 1))
        brow = (1.5 - _brow_distance(arm[:, 0] * side, arm[:, 1])).clamp(0, 1)
        colour[near] = _mix(paint, BROW_COLOUR, BROW_OPACITY * brow * on_skin * (arm[:, 2] > 0))
    return colour


def _mix(colour: Tensor, paint: tuple[float, float, float], share: Tensor) -> Tensor:
    return torch.lerp(colour, colour.new_tensor(paint).expand_as(colour), share[:, None].to(colour.dtype))


def _brow_distance(outward: Tensor, up: Tensor) -> Tensor:
    """Distance (N,) from the eyebrow's line in units of its half width there, for places (N,), (N,) from the eyeball's
    centre in metres."""
    best = torch.full_like(up, torch.inf)
    for (x0, y0, w0), (x1, y1, w1) in zip(BROW_LINE[:-1], BROW_LINE[1:], strict=True):
        dx, dy = x1 - x0, y1 - y0
        t = (((outward - x0) * dx + (up - y0) * dy) / (dx * dx + dy * dy)).clamp(0, 1)
        best = torch.minimum(best, torch.hypot(outward - x0 - t * dx, up - y0 - t * dy) / (w0 + t * (w1 - w0)))
    return best
