"""Conditions of control networks: depth, normals and flow of spheres and planes, whose truth is known, and drawn contours."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import sobel
from toy_heads import sphere, still, toy_head

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.conditions.base import Condition, PosedHead
from comfyui_flow3d.flow3d.conditions.dense_flow import DenseFlow
from comfyui_flow3d.flow3d.conditions.depth import InverseDepth, LinearDepth, MetricDepth
from comfyui_flow3d.flow3d.conditions.landmark_map import LINES, PUPILS, LandmarkMap, draw_contours
from comfyui_flow3d.flow3d.conditions.normals import CONTROLNET, MAGICPORTRAIT, OPENGL, Normals, normal_colours
from comfyui_flow3d.flow3d.conditions.uniform_flow import UniformFlow
from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.flow.field import FlowField
from comfyui_flow3d.flow3d.flow.reference import surface_field
from comfyui_flow3d.flow3d.flow.sampling import Sampling
from comfyui_flow3d.flow3d.head.model import HeadModel
from comfyui_flow3d.flow3d.io.motions import load_motion
from comfyui_flow3d.flow3d.render.coverage import coverage
from comfyui_flow3d.flow3d.track import HeadTrack

CAMERA = Camera.from_field_of_view(120, 96)
RADIUS, DISTANCE = 0.12, 0.9


def rigid(vertices: torch.Tensor, faces: torch.Tensor) -> HeadModel:
    """A head model of any mesh that only turns and moves as a whole, about its own origin."""
    n = len(vertices)
    weights = torch.zeros(n, 5)
    weights[:, 0] = 1
    return replace(
        toy_head(), template=vertices.float(), faces=faces, parts=None, skin_weights=weights,
        shape_basis=torch.zeros(1, n, 3), expression_basis=torch.zeros(1, n, 3), pose_basis=torch.zeros(36, n, 3),
        joint_regressor=torch.zeros(5, n), expression_names=(),
    )  # fmt: skip


def at(head: HeadModel, *places: tuple[float, float, float], camera: Camera = CAMERA) -> HeadTrack:
    """The mesh's origin at these places, a frame each."""
    n = len(places)
    return HeadTrack(
        shape=torch.zeros(1), expression=torch.zeros(n, 1), joints=torch.zeros(n, 4, 3), rotation=torch.zeros(n, 3),
        translation=torch.tensor(places), camera=camera,
    )  # fmt: skip


def rays() -> np.ndarray:
    x, y = np.meshgrid(np.arange(CAMERA.width) + 0.5, np.arange(CAMERA.height) + 0.5)
    return np.stack([(x - CAMERA.cx) / CAMERA.focal, (y - CAMERA.cy) / CAMERA.focal, np.ones_like(x)], -1)


def ball_depth(centre: tuple[float, float, float]) -> np.ndarray:
    """(H, W) depth of a ball, nan beside it."""
    r = rays()
    a, b = (r * r).sum(-1), (r * centre).sum(-1)
    root = b * b - a * (np.dot(centre, centre) - RADIUS**2)
    with np.errstate(invalid="ignore"):
        return (b - np.sqrt(root)) / a


PLACES = ((0.02, -0.03, DISTANCE), (-0.06, 0.01, DISTANCE + 0.2))
BALL = rigid(*(lambda v, f: (v * RADIUS, f))(*sphere(160, 200)))
POSED = PosedHead(at(BALL, *PLACES), BALL, CAMERA)


def inside(depth: np.ndarray) -> np.ndarray:
    """Pixels that are on the ball with all their neighbours: the mesh's outline is not the ball's."""
    on = np.isfinite(depth)
    return on & np.roll(on, 1, 0) & np.roll(on, -1, 0) & np.roll(on, 1, 1) & np.roll(on, -1, 1)


# --- depth -----------------------------------------------------------------------------------------------------------


def test_metric_depth_of_a_ball() -> None:
    got = MetricDepth(POSED).encode().numpy()
    assert got.shape == (2, 1, 96, 120)
    for i, place in enumerate(PLACES):
        truth = ball_depth(place)
        mask = inside(truth)
        assert mask.sum() > 400 and np.abs(got[i, 0] - truth)[mask].max() < 5e-4
        assert (got[i, 0] == 0)[~np.isfinite(truth)].mean() > 0.99


@pytest.mark.parametrize("ends", [None, (0.7, 1.4)])
def test_stretched_depth_of_a_ball(ends: tuple[float, float] | None) -> None:
    inverse, linear = (kind(POSED, ends).encode().numpy() for kind in (InverseDepth, LinearDepth))
    for i, place in enumerate(PLACES):
        truth = ball_depth(place)
        near, far = ends or (place[2] - RADIUS, place[2] + RADIUS)
        mask = inside(truth)
        assert np.abs(inverse[i, 0] - (1 / truth - 1 / far) / (1 / near - 1 / far))[mask].max() < 3e-3
        assert np.abs(linear[i, 0] - (far - truth) / (far - near))[mask].max() < 3e-3
        for picture in (inverse[i, 0], linear[i, 0]):
            assert picture.min() == 0 and picture.max() <= 1 and picture[mask].min() > 0.3
            assert abs(picture.max() - (1 if ends is None else picture[mask].max())) < 0.01


def test_depth_ends_hold_for_the_whole_clip() -> None:
    near, far = POSED.depth_range()
    assert near == pytest.approx(DISTANCE - RADIUS, abs=2e-5) and far == pytest.approx(DISTANCE + 0.2 + RADIUS, abs=2e-5)
    first, second = InverseDepth(POSED, POSED.depth_range()).encode()
    assert first.max() > 0.99 and second.max() < 0.7


def tilted(slope: float) -> HeadModel:
    """A square of 0.3 m whose depth grows by `slope` for each metre to the right, facing the camera."""
    u, v = torch.meshgrid(torch.linspace(-0.15, 0.15, 7), torch.linspace(-0.15, 0.15, 7), indexing="xy")
    i = torch.arange(49).reshape(7, 7)
    a, b, c, d = (x.flatten() for x in (i[:-1, :-1], i[:-1, 1:], i[1:, 1:], i[1:, :-1]))
    faces = torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)])
    return rigid(torch.stack([u, v, -slope * u], -1).reshape(-1, 3), faces)


def test_a_plane_is_exact() -> None:
    slope = 0.6
    plane = tilted(slope)
    posed = PosedHead(at(plane, (0.0, 0.0, DISTANCE)), plane, CAMERA)
    truth = DISTANCE / (1 - slope * rays()[..., 0])
    depth = MetricDepth(posed).encode()[0, 0].numpy()
    on = depth > 0
    assert on.mean() > 0.3 and np.abs(depth - truth)[on].max() < 1e-6
    near, far = DISTANCE - slope * 0.15, DISTANCE + slope * 0.15
    inverse = InverseDepth(posed).encode()[0, 0].numpy()
    assert np.abs(inverse - (1 / truth - 1 / far) / (1 / near - 1 / far))[on].max() < 1e-5
    # The plane's right side is farther away: its front turns to the right.
    n = np.array([slope, 0, 1]) / np.hypot(slope, 1)  # right, up, towards the viewer
    got = {e: Normals(posed, e).encode()[0].movedim(0, -1).numpy()[on] for e in (OPENGL, CONTROLNET, MAGICPORTRAIT)}
    assert np.abs(got[OPENGL] - (n + 1) / 2).max() < 1e-5
    assert np.abs(got[CONTROLNET] - (n * [-1, 1, 1] + 1) / 2).max() < 1e-5
    assert np.abs(got[MAGICPORTRAIT] - n.clip(0)).max() < 1e-5


# --- normals ---------------------------------------------------------------------------------------------------------


def test_normals_of_a_ball() -> None:
    for i, place in enumerate(PLACES):
        truth = ball_depth(place)
        mask = inside(truth)
        n = (rays() * truth[..., None] - place)[mask] / RADIUS * [1, -1, -1]  # right, up, towards the viewer
        opengl, controlnet, magic = (
            Normals(POSED, e).encode([i])[0].movedim(0, -1).numpy() for e in (OPENGL, CONTROLNET, MAGICPORTRAIT)
        )
        assert np.abs(opengl[mask] - (n + 1) / 2).max() < 0.01
        assert np.abs(controlnet[mask] - (n * [-1, 1, 1] + 1) / 2).max() < 0.01
        assert np.abs(magic[mask] - n.clip(0)).max() < 0.02
        beside = ~np.isfinite(truth)
        assert np.abs(opengl[beside][0] - [0.5, 0.5, 1]).max() < 1e-6 and (magic[beside] == 0).mean() > 0.99
        assert np.abs(controlnet[beside][0] - [0.5, 0.5, 1]).max() < 1e-6


def test_controlnet_normals_lean_as_gradients_of_inverse_depth() -> None:
    """The first normal ControlNet was trained on maps of (Sobel x, Sobel y, constant) of MiDaS's inverse depth."""
    truth = ball_depth(PLACES[0])
    mask = inside(truth)
    inverse = np.where(np.isfinite(truth), 1 / truth, 0)
    colours = Normals(POSED, CONTROLNET).encode([0])[0].numpy() - 0.5
    for axis, channel in ((1, 0), (0, 1)):
        slope = sobel(inverse, axis)[mask]
        clear = np.abs(slope) > 0.02 * np.abs(slope).max()
        assert (np.sign(slope) == np.sign(colours[channel][mask]))[clear].all() and clear.sum() > 100


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(InputError, match="no normal encoding 'bae'. There are controlnet, opengl, magicportrait"):
        normal_colours(torch.zeros(2, 3), "bae")


# --- flow ------------------------------------------------------------------------------------------------------------

HEAD = toy_head()
FEW = Sampling(samples=3)


def turned() -> HeadTrack:
    track = still(HEAD, CAMERA, rotation=torch.tensor([[0.0, 0.4, 0.0]]), expression=torch.tensor([[0.7, 0.0, 0.5]]))
    return replace(track, translation=track.translation + torch.tensor([0.02, 0.0, -0.05]))


def test_uniform_sampling_is_the_reference_over_all_depths() -> None:
    field = FlowField(still(HEAD, CAMERA), turned(), HEAD, CAMERA, FEW)
    got = UniformFlow(field).encode([0])[0]
    assert got.shape == (9, 96, 120)
    source, target = field.source.vertices(HEAD)[0], field.target.vertices(HEAD)[0]
    mask = field.head_mask()[0]
    g = torch.Generator().manual_seed(0)
    on, off = (m.nonzero() for m in (mask, ~mask))
    some = torch.cat([on[torch.randperm(len(on), generator=g)[:25]], off[torch.randperm(len(off), generator=g)[:15]]])
    for row, column in some.tolist():
        ray = torch.from_numpy(rays()[row, column])
        points = ray * torch.linspace(0.65, 1.25, 3, dtype=torch.float64)[:, None]
        match = surface_field(points, target, source, HEAD.faces, HEAD.face_parts == 0)
        assert (got[:, row, column] / 10 - (match.points - points).flatten()).abs().max() < 1e-5
    off = (got - field.encode([0])[0]).abs().amax(0)[~mask]
    assert (off < 1e-4).float().mean() > 0.999  # the rest are ties
    assert not torch.allclose(got[:, mask], field.encode([0])[0][:, mask], atol=0.01)


def test_uniform_flow_of_a_move_is_the_move_everywhere() -> None:
    move = torch.tensor([0.012, -0.004, 0.02])
    source = still(HEAD, CAMERA)
    target = replace(source, translation=source.translation + move)
    flow = UniformFlow(FlowField(source, target, HEAD, CAMERA, FEW)).encode()
    assert (flow.reshape(3, 3, 96, 120) + 10 * move[:, None, None]).abs().max() < 1e-4


def test_dense_flow_of_a_moved_plane() -> None:
    """A plane that moves beside the image plane moves by focal / depth pixels a metre, from there back to here."""
    plane = tilted(0.0)
    field = FlowField(at(plane, (0.0, 0.0, 0.9)), at(plane, (0.03, -0.02, 0.9)), plane, CAMERA)
    flow = DenseFlow(field).encode()[0]
    mask = field.head_mask()[0]
    expected = torch.tensor([-0.03 * CAMERA.focal / 0.9 / 60, 0.02 * CAMERA.focal / 0.9 / 48])
    assert (flow[:, mask] - expected[:, None]).abs().max() < 1e-5 and (flow[:, ~mask] == 0).all()


def test_dense_flow_fetches_the_source() -> None:
    field = FlowField(still(HEAD, CAMERA), turned(), HEAD, CAMERA)
    y, x = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(120) + 0.5, indexing="ij")
    places = torch.stack([x, y])[None]  # a picture whose colours are its own coordinates
    own = torch.stack([x / 60 - 1, y / 48 - 1], -1)[None]
    grid = own + DenseFlow(field).encode().movedim(1, -1)
    fetched = torch.nn.functional.grid_sample(places, grid, padding_mode="border", align_corners=False)[0]
    assert (fetched.movedim(0, -1) - field.pixels()[0]).abs().max() < 1e-2


# --- contours --------------------------------------------------------------------------------------------------------


def mediapipe_edges() -> dict[tuple[int, int, int], set[frozenset[int]]]:
    """MediaPipe's own lists of connections by the colour that each group is drawn in."""
    face_landmarker = pytest.importorskip("mediapipe.tasks.python.vision.face_landmarker")
    lists = face_landmarker.FaceLandmarksConnections
    groups = {
        (10, 200, 10): lists.FACE_LANDMARKS_FACE_OVAL,
        (10, 200, 180): lists.FACE_LANDMARKS_LEFT_EYE,
        (10, 220, 180): lists.FACE_LANDMARKS_LEFT_EYEBROW,
        (180, 200, 10): lists.FACE_LANDMARKS_RIGHT_EYE,
        (180, 220, 10): lists.FACE_LANDMARKS_RIGHT_EYEBROW,
        (10, 180, 10): lists.FACE_LANDMARKS_LIPS,
    }
    return {colour: {frozenset((e.start, e.end)) for e in edges} for colour, edges in groups.items()}


def test_contours_are_mediapipes() -> None:
    drawn: dict[tuple[int, int, int], set[frozenset[int]]] = {}
    for chain, colour in LINES:
        drawn.setdefault(colour, set()).update(frozenset(e) for e in zip(chain[:-1], chain[1:], strict=True))
    assert drawn == mediapipe_edges()


def test_contours_are_drawn_where_the_landmarks_are(open_head: HeadModel) -> None:
    camera = Camera.from_field_of_view(512, 512, 16)
    posed = PosedHead(load_motion("turn", open_head)[::40], open_head, camera)
    picture = (LandmarkMap(posed).encode([1])[0].movedim(0, -1).numpy() * 255).round().astype(np.uint8)
    vertices = posed.track.vertices(open_head, slice(1, 2))[0].double().numpy()
    marks = open_head.dense
    points = (vertices[open_head.faces.numpy()[marks.face]] * marks.bary.double().numpy()[..., None]).sum(1)
    flat = camera.focal * points[:, :2] / points[:, 2:] + 256
    y, x = picture.any(-1).nonzero()
    painted, colours = np.stack([x, y], 1) + 0.5, picture[y, x]
    assert 1500 < len(painted) < 12000
    for colour, edges in mediapipe_edges().items():
        a, b = (flat[[sorted(e)[k] for e in edges]] for k in (0, 1))
        own = painted[(colours == colour).all(1)]
        t = (((own[:, None] - a) * (b - a)).sum(-1) / ((b - a) ** 2).sum(-1)).clip(0, 1)
        assert len(own) > 100 and np.linalg.norm(own[:, None] - a - t[..., None] * (b - a), axis=-1).min(1).max() < 2.9
        for place in (a + b) / 2:  # nothing is left out
            row, column = place[1].astype(int), place[0].astype(int)
            assert picture[row - 1 : row + 2, column - 1 : column + 2].any()
    for pupil, colour in PUPILS:
        around = painted[(colours == colour).all(1)]
        assert len(around) == 16 and np.abs(around.mean(0) - flat[pupil]).max() <= 1


def test_contours_beyond_the_picture_are_cut() -> None:
    points = np.random.default_rng(0).uniform(-4000, 4000, (478, 2))
    points[468] = (-1e9, 1e9)
    assert draw_contours(points, 64, 48).shape == (48, 64, 3)


# --- all of them -----------------------------------------------------------------------------------------------------


def conditions(open_head: HeadModel) -> list[Condition]:
    camera = Camera.from_field_of_view(48, 40)
    clip = replace(load_motion("nod", open_head)[::30], camera=camera)
    posed, field = PosedHead(clip, open_head, camera), FlowField(clip[:1], clip, open_head, camera, FEW)
    return [
        MetricDepth(posed), InverseDepth(posed), LinearDepth(posed), *(Normals(posed, e) for e in (OPENGL, MAGICPORTRAIT)),
        LandmarkMap(posed), DenseFlow(field), UniformFlow(field),
    ]  # fmt: skip


def test_frames_are_computed_as_they_are_asked_for(open_head: HeadModel) -> None:
    for condition in conditions(open_head):
        n, whole = len(condition), condition.encode()
        assert n > 2 and whole.shape == (n, condition.channels, 40, 48) and whole.dtype == torch.float32
        assert whole.isfinite().all() and whole.std() > 0
        for frames in ([2, 0], slice(1, 3), 1, -1):
            rows = [frames] if isinstance(frames, int) else frames
            assert torch.equal(condition.encode(frames), whole[rows])


def test_a_track_that_makes_no_picture_is_refused() -> None:
    with pytest.raises(InputError, match="not finite in frame 1 of 2"):
        PosedHead(at(BALL, PLACES[0], (0.0, float("nan"), 1.0)), BALL, CAMERA)
    with pytest.raises(InputError, match="behind the camera"):
        PosedHead(at(BALL, (0.0, 0.0, -1.0)), BALL, CAMERA)
    with pytest.raises(InputError, match="no landmarks"):
        LandmarkMap(POSED)


# --- coverage --------------------------------------------------------------------------------------------------------


def test_coverage_is_the_area_of_the_outline_in_each_pixel() -> None:
    got = coverage(POSED.vertices([0]), BALL.faces, CAMERA)[0].numpy()
    fine = 32
    centre = np.array(PLACES[0])
    x, y = ((np.arange(n * fine) + 0.5) / fine for n in (CAMERA.width, CAMERA.height))
    x, y = (x[None] - CAMERA.cx) / CAMERA.focal, (y[:, None] - CAMERA.cy) / CAMERA.focal
    r = np.stack(np.broadcast_arrays(x, y, 1.0), -1)
    hit = (r @ centre) ** 2 > (r * r).sum(-1) * (centre @ centre - RADIUS**2)
    truth = hit.reshape(CAMERA.height, fine, CAMERA.width, fine).mean((1, 3))
    edge = (truth > 0) & (truth < 1)
    assert edge.sum() > 60 and np.abs(got - truth).max() < 0.15 and np.abs(got - truth)[edge].mean() < 0.04
    assert got.sum() == pytest.approx(truth.sum(), rel=2e-3)
