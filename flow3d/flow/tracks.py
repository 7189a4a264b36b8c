"""Points on a head followed through a clip: where each is in every picture, and whether it is seen there."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from ..camera import Camera
from ..errors import InputError
from ..head.model import HeadModel, Landmarks
from ..render.rasterize import Fragments, rasterize
from .field import FlowField
from .visibility import seen_in

DENSE, SPARSE, GRID = "dense face", "68 landmarks", "grid"
POINT_SETS = (DENSE, SPARSE, GRID)
PORTRAIT, TARGET = "portrait", "target"
STARTS = (PORTRAIT, TARGET)
MAX_POINTS = 5000
_CLEARANCE = 0.5
"""Of the head's width in the picture: background points keep so far from it, for hair and shoulders move with it."""


@dataclass(frozen=True)
class PointTracks:
    """N points over T pictures."""

    pixels: Tensor  # (T, N, 2) x and y in pixels, pixel centres at +0.5
    visible: Tensor  # (T, N) bool

    def chosen(self, points: Tensor) -> "PointTracks":
        """Those of the points that a mask (N,) or indices name."""
        return PointTracks(self.pixels[:, points], self.visible[:, points])

    def with_more(self, more: "PointTracks") -> "PointTracks":
        """These points, then those of `more`, over the same pictures."""
        return PointTracks(torch.cat([self.pixels, more.pixels], 1), torch.cat([self.visible, more.visible], 1))


def covering(camera: Camera, width: int, height: int) -> Camera:
    """The view scaled and cut at its centre until it fills `width` x `height` pixels, as ComfyUI's video nodes cut a picture."""
    scale = max(width / camera.width, height / camera.height)
    cx, cy = (camera.cx - camera.width / 2) * scale + width / 2, (camera.cy - camera.height / 2) * scale + height / 2
    return Camera(camera.focal * scale, cx, cy, width, height)


def grid_view(camera: Camera, spacing: float) -> Camera:
    """A camera with one pixel for each point of a grid: point (i, j) is at ((i + 0.5) * spacing, (j + 0.5) * spacing)."""
    columns, rows = max(1, int(camera.width // spacing)), max(1, int(camera.height // spacing))
    return Camera(camera.focal / spacing, camera.cx / spacing, camera.cy / spacing, columns, rows)


def grid_places(camera: Camera, spacing: float) -> Tensor:
    """(rows, columns, 2) where the points of `grid_view` are, in pixels of the camera."""
    view = grid_view(camera, spacing)
    y, x = torch.meshgrid(*((torch.arange(n) + 0.5) * spacing for n in (view.height, view.width)), indexing="ij")
    return torch.stack([x, y], -1)


def grid_on_head(head: HeadModel, vertices: Tensor, camera: Camera, spacing: float) -> Landmarks:
    """The points of a regular grid that hit the head, as places on its surface. The neck is left out where the model has a
    mask of it: it turns with the head down to its foot, which clothes do not.

    Args:
        vertices: (1, V, 3) camera frame, metres. spacing: pixels between points, in x and y.
    """
    seen = rasterize(vertices, head.faces, grid_view(camera, spacing))
    on = seen.triangle[0] >= 0
    if "neck" in head.masks:
        on &= ~head.masks["neck"][head.faces].all(1)[seen.triangle[0].clamp(min=0).long()]
    return Landmarks(seen.triangle[0][on].long(), seen.bary[0][on])


def surface_points(field: FlowField, camera: Camera, name: str, spacing: float) -> Landmarks:
    """One of POINT_SETS; a grid is laid over the source as the camera sees it, `spacing` pixels apart.

    Raises InputError where the head model has no such landmarks.
    """
    if name == GRID:
        return grid_on_head(field.head, field.source[:1].vertices(field.head), camera, spacing)
    marks = field.head.dense if name == DENSE else field.head.landmarks68
    if marks is None:
        raise InputError(f"Head model '{field.head.name}' has no 68 landmarks. Choose '{DENSE}' or '{GRID}'.")
    return Landmarks(marks.face[marks.found], marks.bary[marks.found])


def project_points(head: HeadModel, vertices: Tensor, points: Landmarks, camera: Camera) -> PointTracks:
    """Points on the surface in one picture: visible in front of the camera, inside the picture, on a triangle that faces
    the camera, and not behind the z-buffer (see `seen_in`).

    Args:
        vertices: (1, V, 3) camera frame, metres.
    """
    where = Fragments(torch.zeros_like(points.bary[None, None, :, 0]), points.face[None, None], points.bary[None, None])
    found = seen_in(vertices, head.faces, camera, where)
    return PointTracks(found.pixels[0], found.visible[0] & (found.depth[0] > 0))


def background_points(head: HeadModel, source: Tensor, camera: Camera, spacing: float) -> Tensor:
    """(M, 2) pixels: the points of a regular grid that keep clear of the head.

    Args:
        source: (1, V, 3) the head in the portrait, camera frame, metres. spacing: pixels between points.
    """
    places = grid_places(camera, spacing)
    on = (rasterize(source, head.faces, camera).triangle[0] >= 0).cpu()
    if not bool(on.any()):
        return places.reshape(-1, 2)
    columns = on.any(0).nonzero()
    width = int(columns.max() - columns.min()) + 1
    distance = torch.from_numpy(distance_transform_edt(~on.numpy()))
    y, x = places[..., 1].long(), places[..., 0].long()
    return places[distance[y, x] > _CLEARANCE * width]


def still_points(head: HeadModel, vertices: Tensor, places: Tensor, camera: Camera) -> PointTracks:
    """Points that stay where they are in one picture: visible where the head (1, V, 3) does not cover them."""
    covered = rasterize(vertices, head.faces, camera).triangle[0] >= 0
    places = places.to(vertices)
    x, y = places.long().unbind(-1)
    return PointTracks(places[None], ~covered[y, x][None])


def track_points(
    field: FlowField,
    camera: Camera,
    name: str = DENSE,
    spacing: float = 24,
    background: float = 0,
    length: int | None = None,
    start: str = PORTRAIT,
    progress: Callable[[int, int], None] | None = None,
) -> PointTracks:
    """Follow points of the head through a field's target frames. Points that the first picture does not show are left out,
    as a video model has nothing to carry on from there.

    Args:
        camera: sees the pictures, see `covering`.
        name: one of POINT_SETS. spacing: pixels between the points of a grid.
        background: pixels between points that stay where they are, beside the head; 0: none.
        length: how many pictures; a field with fewer frames holds its last one. None: as many as the field has.
        start: one of STARTS: whether the first picture shows the portrait's head or the first target frame's.
        progress: called with (done, total) after each picture; it may raise to cancel.

    Raises InputError for a field without frames, for no points, and for more than MAX_POINTS.
    """
    if len(field) == 0:
        raise InputError("The field has no frames to follow points through. Connect a target track that has some.")
    head, source = field.head, field.source[:1].vertices(field.head)
    spacing, background = (min(pixels, camera.width, camera.height) for pixels in (spacing, background))
    points = surface_points(field, camera, name, spacing)
    still = background_points(head, source, camera, background) if background else torch.empty(0, 2)
    count, total = len(points.face) + len(still), length or len(field)
    if count > MAX_POINTS:
        raise InputError(f"There would be {count} points, more than {MAX_POINTS}. Set them farther apart.")
    rows: list[PointTracks] = []
    for t in range(min(total, len(field))):
        vertices = source if t == 0 and start == PORTRAIT else field.target[[t]].vertices(head)
        moving = project_points(head, vertices, points, camera)
        rows.append(moving.with_more(still_points(head, vertices, still, camera)))
        if progress:
            progress(t + 1, min(total, len(field)))
    rows += rows[-1:] * (total - len(rows))
    tracks = PointTracks(torch.cat([r.pixels for r in rows]), torch.cat([r.visible for r in rows]))
    tracks = tracks.chosen(tracks.visible[0])
    if tracks.pixels.shape[1] == 0:
        raise InputError(
            "No point is seen in the first picture. Choose other points or a smaller spacing, or a width and height that "
            "do not cut the head off."
        )
    return tracks
