"""The face's skin as a camera sees it: colours of pixels as a function of geometry, albedo and light, with derivatives."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp, vmap

from ..camera import Camera
from ..head.model import HeadModel, to_camera
from ..render.differentiable import barycentrics, interpolate, pixel_centres, visible_triangles
from ..render.light import reflected, shading
from ..render.shade import vertex_normals
from .albedo import SKIN_ALBEDO, AlbedoModel, albedo_model, face_vertices
from .levenberg_marquardt import Pose
from .photo_view import View
from .surface_model import SurfaceModel

_LEAST_FACING = 0.4  # cosine between normal and view: what is seen more obliquely is left out
_CHUNK = 32  # directions of derivatives at a time


@dataclass(frozen=True, eq=False)
class Appearance:
    """What a picture tells besides landmarks."""

    light: Tensor  # (9, 3) radiance in spherical harmonics, camera frame
    paint: Tensor  # (K, 3) coefficients of the albedo


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pixels of a view that show the face's skin."""

    places: Tensor  # (N, 2) int64 row and column
    corners: Tensor  # (N, 3) int64 their triangles' corners in `FaceRender.near`
    centres: Tensor  # (N, 2) pixels
    colours: Tensor  # (N, 3) linear, the picture's


class FaceRender:
    """Renders the face's skin with Gouraud shading: colours are computed at vertices and interpolated.

    Args:
        albedo: (head, vertices) to the skin's colours.
    """

    def __init__(self, head: HeadModel, albedo: Callable[[HeadModel, Tensor], AlbedoModel] = albedo_model):
        self.head = head
        face = face_vertices(head)
        touching = face[head.faces].any(1)
        self.near = head.faces[touching].unique()
        place = torch.full((len(head.template),), -1, device=head.device)
        place[self.near] = torch.arange(len(self.near), device=head.device)
        self.local = torch.full_like(head.faces, -1)
        self.local[touching] = place[head.faces[touching]]
        self.faces = self.local[touching]  # (F', 3) every triangle at a vertex of the face, in `near`
        self.whole = face[head.faces].all(1)  # (F,) bool: triangles that are painted
        self.painted = place[face]  # (n,) the face's vertices in `near`
        self.surface = SurfaceModel.of(head, self.near)
        self.albedo = albedo(head, face.nonzero()[:, 0])

    def pixels(self, view: View, shape: Tensor, x: Pose) -> Pixels:
        """The pixels of `view` that show the face of one frame, x of length 1."""
        head = self.head
        posed, root = head.vertices(*(t.to(head.template) for t in (shape[None], x.expression, x.joints)))
        vertices = to_camera(posed, root, x.rotation.to(posed), x.translation.to(posed))[0]
        triangle = visible_triangles(vertices, head.faces, view.camera)
        a, b, c = vertices[head.faces].unbind(1)
        normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
        facing = -(normal * torch.nn.functional.normalize(a + b + c, dim=-1)).sum(-1)
        shown = self.whole & (facing > _LEAST_FACING)
        rows, columns = ((triangle >= 0) & shown[triangle.clamp(min=0)] & view.usable.to(triangle.device)).nonzero(as_tuple=True)
        return Pixels(
            torch.stack([rows, columns], 1),
            self.local[triangle[rows, columns]],
            pixel_centres(rows, columns, vertices),
            view.colours.to(vertices)[rows, columns],
        )

    def vertices(self, shape: Tensor, x: Pose) -> Tensor:
        """(near, 3) the vertices of one frame, camera frame, in the head's float type."""
        return self.surface.placed(shape, x)[0].to(self.head.template)

    def moves(self, shape: Tensor, x: Pose) -> Tensor:
        """(P + S, near, 3) their derivatives, see `SurfaceModel.moves`."""
        return self.surface.moves(shape, x)[0].to(self.head.template)

    def texture(self, look: Appearance) -> Tensor:
        """(V, 3) float32 linear albedo 0..1 on the CPU, the skin's mean colour off the face."""
        out = torch.tensor(SKIN_ALBEDO).repeat(len(self.head.template), 1)
        out[self.albedo.vertices.cpu()] = self.albedo.colours(look.paint).clamp(0, 1).float().cpu()
        return out

    def _normals(self, vertices: Tensor) -> Tensor:
        """(near, 3) unit normals."""
        return vertex_normals(vertices[None], self.faces)[0]

    def _on_near(self, values: Tensor) -> Tensor:
        """Values (n, C) of the face's vertices as (near, C), 0 elsewhere."""
        return values.new_zeros(len(self.near), values.shape[1]).index_copy(0, self.painted, values)

    def colours(self, vertices: Tensor, look: Appearance, pixels: Pixels, camera: Camera) -> Tensor:
        """(N, 3) linear colours of the pixels, differentiable by everything but which triangles they show."""
        albedo = self._on_near(self.albedo.colours(look.paint))
        values = albedo * shading(self._normals(vertices), look.light)
        return interpolate(values[pixels.corners], barycentrics(vertices[pixels.corners], pixels.centres, camera))

    def geometry_columns(self, vertices: Tensor, moves: Tensor, look: Appearance, pixels: Pixels, camera: Camera) -> Tensor:
        """(N, 3, D) derivatives of `colours` as the vertices go along `moves` (D, near, 3)."""

        if not len(moves):
            return vertices.new_zeros(*pixels.colours.shape, 0)

        def along(direction: Tensor) -> Tensor:
            return jvp(lambda v: self.colours(v, look, pixels, camera), (vertices,), (direction,))[1]

        return vmap(along, out_dims=2, chunk_size=_CHUNK)(moves)

    def appearance_columns(self, vertices: Tensor, look: Appearance, pixels: Pixels, camera: Camera) -> tuple[Tensor, Tensor]:
        """(N, 3, 9) derivatives of each channel's colours by the light of that channel, and (N, 3, K) by its paint."""
        weights = barycentrics(vertices[pixels.corners], pixels.centres, camera)
        normals = self._normals(vertices)
        shade = shading(normals, look.light)
        albedo = self.albedo.colours(look.paint)
        mean = self.albedo.colours(torch.zeros_like(look.paint))
        own_harmonics, own_shade = reflected(normals)[self.painted], shade[self.painted]
        light, paint = [], []
        for k in range(3):
            by_light = self._on_near(albedo[:, k, None] * own_harmonics)
            by_paint = self._on_near(mean[:, k, None] * own_shade[:, k, None] * self.albedo.basis)
            light.append(interpolate(by_light[pixels.corners], weights))
            paint.append(interpolate(by_paint[pixels.corners], weights))
        return torch.stack(light, 1), torch.stack(paint, 1)
