"""Flow To Tracks: points against a projection in NumPy, visibility against rays cast at every triangle."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_heads import still, toy_head

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.flow.field import FlowField
from comfyui_flow3d.flow3d.flow.tracks import (
    DENSE,
    GRID,
    SPARSE,
    TARGET,
    covering,
    grid_on_head,
    grid_places,
    surface_points,
    track_points,
)
from comfyui_flow3d.flow3d.head.model import HeadModel
from comfyui_flow3d.flow3d.io.motions import load_motion
from comfyui_flow3d.flow3d.track import HeadTrack

CAMERA = Camera.from_field_of_view(300, 260)
HEAD = toy_head()


def turning(count: int = 5, yaw: float = 0.9, x: float = 0.0) -> HeadTrack:
    """The toy head turns and moves, and smiles while it does."""
    t = torch.linspace(0, 1, count)[:, None]
    zero = torch.zeros(count, 1)
    return HeadTrack(
        shape=torch.zeros(3),
        expression=torch.cat([zero, zero, t], 1),
        joints=torch.zeros(count, 4, 3),
        rotation=torch.cat([zero, yaw * t, zero], 1),
        translation=torch.cat([x * t, 0.08 + zero, 1 - 0.1 * t], 1),
        camera=CAMERA,
    )


def field(**motion: float) -> FlowField:
    return FlowField(still(HEAD, CAMERA), turning(**motion), HEAD, CAMERA)


def in_video(vertices: np.ndarray, faces: np.ndarray, bary: np.ndarray, width: int, height: int) -> np.ndarray:
    """(N, 2): points of the mesh in a video that shows the picture's middle, as ComfyUI cuts it (whole pixels, then scaled)."""
    points = (vertices[HEAD.faces.numpy()[faces]] * bary[..., None]).sum(1)
    flat = CAMERA.focal * points[:, :2] / points[:, 2:] + [CAMERA.cx, CAMERA.cy]
    old, new = CAMERA.width / CAMERA.height, width / height
    x = round((CAMERA.width - CAMERA.width * (new / old)) / 2) if old > new else 0
    y = round((CAMERA.height - CAMERA.height * (old / new)) / 2) if old < new else 0
    size = np.array([CAMERA.width - 2 * x, CAMERA.height - 2 * y])
    return (flat - [x, y]) / size * [width, height]


@pytest.mark.parametrize(("width", "height"), [(300, 260), (512, 512), (256, 480), (832, 480)])
def test_points_are_where_numpy_projects_them(width: int, height: int) -> None:
    moving, camera = field(), covering(CAMERA, width, height)
    source = moving.source.vertices(HEAD)
    points = grid_on_head(HEAD, source, camera, 11)
    tracks = track_points(moving, camera, GRID, 11)
    kept = tracks.pixels.shape[1]
    assert len(points.face) * 0.9 < kept <= len(points.face) and kept > 60
    face, bary = points.face.numpy(), points.bary.double().numpy()
    first = in_video(source[0].double().numpy(), face, bary, width, height)
    rows = [np.abs(first - p).sum(1).argmin() for p in tracks.pixels[0].numpy()]
    for t in range(5):
        vertices = (source if t == 0 else moving.target[[t]].vertices(HEAD))[0].double().numpy()
        expected = in_video(vertices, face, bary, width, height)[rows]
        assert np.abs(tracks.pixels[t].numpy() - expected).max() < 0.005 * width  # ComfyUI's cut is rounded to pixels
        if (width, height) == (300, 260):
            assert np.abs(tracks.pixels[t].numpy() - expected).max() < 1e-3


def first_hit(eye_rays: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """(N,) depth of the nearest triangle along each ray (N, 3) with z = 1 from the origin; inf where there is none."""
    a, b, c = (vertices[HEAD.faces.numpy()[:, i]] for i in range(3))
    out = []
    for ray in eye_rays:
        h = np.cross(ray, c - a)
        det = ((b - a) * h).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            u = (-a * h).sum(1) / det
            q = np.cross(-a, b - a)
            v = (q @ ray) / det
            z = ((c - a) * q).sum(1) / det
        out.append(np.where((u >= 0) & (v >= 0) & (u + v <= 1) & (z > 0), z, np.inf).min())
    return np.array(out)


def test_the_grid_holds_what_rays_hit() -> None:
    source, spacing = still(HEAD, CAMERA).vertices(HEAD), 13
    places = grid_places(CAMERA, spacing).reshape(-1, 2).double().numpy()
    assert len(places) == 23 * 20 and (places[0] == 6.5).all() and (places[1] == [19.5, 6.5]).all()
    rays = np.concatenate([(places - [CAMERA.cx, CAMERA.cy]) / CAMERA.focal, np.ones((len(places), 1))], 1)
    depth = first_hit(rays, source[0].double().numpy())
    points = grid_on_head(HEAD, source, CAMERA, spacing)
    corners = source[0].double()[HEAD.faces[points.face]]
    found = torch.einsum("nc,ncx->nx", points.bary.double(), corners).numpy()
    hit = np.isfinite(depth)
    assert 50 < hit.sum() == len(found)
    assert np.abs(found - (rays * depth[:, None])[hit]).max() < 1e-5


def test_visibility_agrees_with_ray_casting() -> None:
    moving = field(yaw=1.2)
    tracks = track_points(moving, CAMERA, GRID, 7)
    assert tracks.visible[0].all()
    agreed, hidden = [], []
    for t in (2, 4):
        pixels = tracks.pixels[t].double().numpy()
        vertices = moving.target[[t]].vertices(HEAD)[0].double().numpy()
        rays = np.concatenate([(pixels - [CAMERA.cx, CAMERA.cy]) / CAMERA.focal, np.ones((len(pixels), 1))], 1)
        points = grid_on_head(HEAD, moving.source.vertices(HEAD), CAMERA, 7)
        z = (vertices[HEAD.faces.numpy()[points.face]] * points.bary.numpy()[..., None]).sum(1)[:, 2]
        assert len(z) == len(pixels)
        seen = first_hit(rays, vertices) > z - 0.003
        agreed.append(seen == tracks.visible[t].numpy())
        hidden.append(~seen)
    assert np.concatenate(agreed).mean() > 0.97  # the rest are at the silhouette, within a pixel
    assert 0.1 < np.concatenate(hidden).mean() < 0.6


def test_points_outside_the_picture_are_not_visible() -> None:
    tracks = track_points(field(yaw=0.0, x=0.2), CAMERA, GRID, 10)
    beyond = tracks.pixels[-1, :, 0] > CAMERA.width
    assert beyond.any() and not beyond.all()
    assert not tracks.visible[-1, beyond].any() and tracks.visible[-1, ~beyond].float().mean() > 0.9


def test_the_first_picture_is_the_portrait_or_the_target() -> None:
    moving = replace(field(), target=turning()[[3, 4]])
    portrait, target = (track_points(moving, CAMERA, GRID, 16, start=s) for s in ("portrait", TARGET))
    places = grid_places(CAMERA, 16).reshape(-1, 2)
    off = [(t.pixels[0][:, None] - places).norm(dim=-1).amin(1) for t in (portrait, target)]
    assert off[0].max() < 1e-2 and (off[1] > 1).float().mean() > 0.5
    assert portrait.visible[0].all() and target.visible[0].all()
    assert portrait.pixels.shape[1] > target.pixels.shape[1]  # what the turned head hides is left out


def test_a_longer_video_holds_the_last_frame_and_a_shorter_one_is_cut() -> None:
    whole = track_points(field(), CAMERA, GRID, 16)
    long, short = (track_points(field(), CAMERA, GRID, 16, length=n) for n in (9, 3))
    assert torch.equal(long.pixels[:5], whole.pixels) and (long.pixels[5:] == whole.pixels[4]).all()
    assert torch.equal(short.pixels, whole.pixels[:3]) and torch.equal(short.visible, whole.visible[:3])


def test_background_points_stay_clear_of_the_head() -> None:
    plain = track_points(field(x=0.12), CAMERA, GRID, 16)
    tracks = track_points(field(x=0.12), CAMERA, GRID, 16, background=15)
    n = plain.pixels.shape[1]
    assert torch.equal(tracks.pixels[:, :n], plain.pixels)
    still_ones, seen = tracks.pixels[:, n:], tracks.visible[:, n:]
    assert still_ones.shape[1] > 40 and (still_ones == still_ones[:1]).all() and seen[0].all()
    assert not seen[-1].all()  # the head has come before some of them
    vertices = field().source.vertices(HEAD)[0].double().numpy()
    outline = CAMERA.focal * vertices[:, :2] / vertices[:, 2:] + [CAMERA.cx, CAMERA.cy]
    width = np.ptp(outline[:, 0])
    gap = np.linalg.norm(still_ones[0].double().numpy()[:, None] - outline, axis=-1).min(1)
    assert gap.min() > 0.5 * width - 2
    grid = grid_places(CAMERA, 15).reshape(-1, 2).double().numpy()
    clear = np.linalg.norm(grid[:, None] - outline, axis=-1).min(1) > 0.5 * width + 6
    assert clear.sum() <= len(gap)


def test_landmarks_of_the_open_head(open_head: HeadModel) -> None:
    clip = load_motion("turn", open_head)[::20]
    camera = Camera.from_field_of_view(256, 256)
    clip = replace(clip, camera=camera)
    moving = FlowField(clip[:1], clip, open_head, camera)
    for name, marks in ((DENSE, open_head.dense), (SPARSE, open_head.landmarks68)):
        assert marks is not None
        tracks = track_points(moving, camera, name)
        assert 0.9 * len(marks.face) < tracks.pixels.shape[1] <= len(marks.face)
        points = surface_points(moving, camera, name, 0)
        assert torch.equal(points.face, marks.face)
        v = clip.vertices(open_head).double().numpy()
        p = np.einsum("tncx,nc->tnx", v[:, open_head.faces.numpy()[marks.face]], marks.bary.double().numpy())
        flat = camera.focal * p[..., :2] / p[..., 2:] + [camera.cx, camera.cy]
        rows = np.linalg.norm(flat[0][None] - tracks.pixels[0].double().numpy()[:, None], axis=-1).argmin(1)
        assert np.abs(flat[:, rows] - tracks.pixels.numpy()).max() < 1e-2


def test_the_neck_is_left_out(open_head: HeadModel) -> None:
    track = replace(load_motion("turn", open_head)[:1], camera=CAMERA)
    points = grid_on_head(open_head, track.vertices(open_head), CAMERA, 4)
    bare = grid_on_head(replace(open_head, masks={}), track.vertices(open_head), CAMERA, 4)
    neck = open_head.masks["neck"][open_head.faces].all(1)
    assert not neck[points.face].any() and len(bare.face) - len(points.face) == neck[bare.face].sum() > 20


def test_bad_input_is_told() -> None:
    with pytest.raises(InputError, match="no frames to follow"):
        track_points(replace(field(), target=turning()[:0]), CAMERA)
    with pytest.raises(InputError, match="has no 68 landmarks"):
        track_points(field(), CAMERA, SPARSE)
    with pytest.raises(InputError, match="more than 5000"):
        track_points(field(), covering(CAMERA, 2048, 2048), GRID, 4)
    away = Camera(CAMERA.focal, CAMERA.cx + 1000, CAMERA.cy, 300, 260)
    with pytest.raises(InputError, match="No point is seen"):
        track_points(field(), away, GRID)


def test_the_work_is_told_and_can_be_cancelled() -> None:
    told: list[tuple[int, int]] = []

    class Cancelled(Exception):
        pass

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        track_points(field(), CAMERA, GRID, progress=stop)
    assert told == [(1, 5), (2, 5), (3, 5)]
