"""The flow warp on pictures whose right answer is known: shaded renders of the head itself, before a known background."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.fit.edit import edit_track
from comfyui_flow3d.flow3d.head.model import INNER_MOUTH, HeadModel, Landmarks
from comfyui_flow3d.flow3d.render.rasterize import rasterize
from comfyui_flow3d.flow3d.render.shade import shade
from comfyui_flow3d.flow3d.track import HeadTrack
from comfyui_flow3d.flow3d.warp.fields import pull_push, sample, smoothstep
from comfyui_flow3d.flow3d.warp.renderer import FlowWarp
from comfyui_flow3d.flow3d.warp.surface import SourceSurface, loose_level

SIZE = 320


@pytest.fixture(scope="module")
def source(open_head: HeadModel) -> HeadTrack:
    one = torch.zeros(1, 3)
    return HeadTrack(
        torch.zeros(open_head.n_shape),
        torch.zeros(1, open_head.n_expression),
        torch.zeros(1, open_head.n_joints - 1, 3),
        one,
        torch.tensor([[0.0, 0.12, 1.15]]),
        Camera.from_field_of_view(SIZE, SIZE),
    )


def patterned(head: HeadModel, track: HeadTrack) -> np.ndarray:
    """A render of the head before a checkered background."""
    y, x = np.mgrid[: track.camera.height, : track.camera.width]
    back = 90 + 60 * ((x // 20 + y // 20) % 2)
    vertices = track.vertices(head)
    image = (255 * shade(head, vertices, track.camera)[0].numpy()).astype(np.uint8)
    empty = rasterize(vertices, head.faces, track.camera).triangle[0].numpy() < 0
    image[empty] = np.stack([back, back, back + 40], -1)[empty]
    return image


@pytest.fixture(scope="module")
def image(open_head: HeadModel, source: HeadTrack) -> np.ndarray:
    return patterned(open_head, source)


@pytest.fixture(scope="module")
def warp(open_head: HeadModel, image: np.ndarray, source: HeadTrack) -> FlowWarp:
    return FlowWarp(open_head, image, source)


def test_no_motion_is_the_photo(warp: FlowWarp, image: np.ndarray, source: HeadTrack):
    frame, mask = warp.frame(source)
    assert np.array_equal(frame, image) and not mask.any()


def test_hardly_any_motion_is_hardly_any_change(open_head, warp, image, source):
    frame, _ = warp.frame(edit_track(open_head, source, {"yaw": 0.01}))
    assert np.square(frame.astype(float) - image).mean() < 3.0  # 43 dB: no step between rest and motion


@pytest.mark.parametrize("edit", [{"yaw": 15}, {"yaw": -15}, {"pitch": 10}, {"roll": 12}, {"jawOpen": 0.4}, {"smile": 0.8}])
def test_the_face_is_where_the_truth_has_it(open_head, warp, image, source, edit):
    """Against a render of the head so posed: nearer than the unmoved photo by far, on the face that both show."""
    target = edit_track(open_head, source, edit)
    truth = patterned(open_head, target).astype(float)
    frame, mask = warp.frame(target)
    fragments = rasterize(target.vertices(open_head), open_head.faces, target.camera)
    triangle = fragments.triangle[0].numpy()
    face = (triangle >= 0) & open_head.masks["face"][open_head.faces].all(-1).numpy()[triangle] & (mask < 128)
    error = np.abs(frame.astype(float) - truth)[face].mean()
    still = np.abs(image.astype(float) - truth)[face].mean()
    assert error < (0.6 if "yaw" in edit or "pitch" in edit else 0.75) * still


def test_a_shift_shifts_the_face(open_head, warp, image, source):
    """10 mm to the right: the face's middle moves by f dx / z pixels."""
    target = replace(source, translation=source.translation + torch.tensor([0.01, 0.0, 0.0]))
    frame, _ = warp.frame(target)
    vertices = source.vertices(open_head)
    nose = source.camera.project(open_head.dense.on(vertices, open_head.faces))[0, 5].numpy().astype(int)
    box = slice(nose[1] - 32, nose[1] + 32), slice(nose[0] - 28, nose[0] + 28)
    before, after = (cv2.cvtColor(i, cv2.COLOR_RGB2GRAY)[box].astype(np.float64) for i in (image, frame))
    (dx, dy), _ = cv2.phaseCorrelate(before, after, cv2.createHanningWindow(before.shape[::-1], cv2.CV_64F))
    depth = float(vertices[0, open_head.masks["face"], 2].amin())
    assert dx == pytest.approx(source.camera.focal * 0.01 / depth, abs=0.5) and abs(dy) < 0.5


def test_top_corners_stay(open_head, warp, image, source):
    frame, _ = warp.frame(edit_track(open_head, source, {"yaw": 20, "x": 2}))
    corner = SIZE // 8
    for part in (np.s_[:corner, :corner], np.s_[:corner, -corner:]):
        error = np.square(frame[part].astype(float) - image[part]).mean()
        assert error < 255**2 / 10**4.5  # 45 dB


def test_the_mask_marks_what_turned_into_view(open_head, warp, source):
    """An open mouth, and the side of the head that was hidden; not the middle of the face."""
    target = edit_track(open_head, source, {"yaw": 20, "jawOpen": 0.6})
    _, mask = warp.frame(target)
    marks = target.camera.project(open_head.dense.on(target.vertices(open_head), open_head.faces))[0].numpy().astype(int)
    between_lips = (marks[13] + marks[14]) // 2
    assert mask[between_lips[1], between_lips[0]] > 200
    for point in marks[[5, 151, 50]]:
        assert mask[point[1], point[0]] == 0
    assert 0.002 < (mask > 128).mean() < 0.15


def test_an_open_mouth_is_dark_inside_and_has_teeth(open_head, warp, image, source):
    target = edit_track(open_head, source, {"jawOpen": 0.7})
    frame, _ = warp.frame(target)
    marks = target.camera.project(open_head.dense.on(target.vertices(open_head), open_head.faces))[0].numpy()
    (x, top), bottom = marks[13], marks[14][1]
    column = frame[int(top) + 2 : int(bottom) - 1, int(x)].astype(float).mean(-1)
    skin = image[int(marks[5][1]), int(marks[5][0])].mean()
    assert column.min() < 0.35 * skin


def test_frames_are_deterministic_and_independent(open_head, warp, source):
    target = edit_track(open_head, source, {"yaw": 12, "blink": 0.5})
    first, mask = warp.frame(target)
    warp.frame(edit_track(open_head, source, {"pitch": -8}))
    again, mask_again = warp.frame(target)
    assert np.array_equal(first, again) and np.array_equal(mask, mask_again)


def test_a_head_at_the_border(open_head, source):
    """Half out of the picture, and small: no error, and the picture's size."""
    camera = source.camera.cropped(SIZE * 0.45, SIZE * 0.3, 64, 65)
    cut = replace(source, camera=camera)
    picture = np.random.default_rng(0).integers(0, 255, (65, 64, 3), np.uint8)
    frame, mask = FlowWarp(open_head, picture, cut).frame(edit_track(open_head, cut, {"yaw": 20}))
    assert frame.shape == (65, 64, 3) and mask.shape == (65, 64)


def test_surface_is_the_projection_where_seen(open_head: HeadModel, source: HeadTrack):
    vertices = source.vertices(open_head)[0]
    surface = SourceSurface.of(open_head, vertices, source.camera)
    own = source.camera.project(vertices).numpy()
    seen = surface.seen > 0
    assert np.abs(surface.pixels - own)[seen].max() < 1e-3
    back = vertices[:, 2] > source.translation[0, 2] + 0.05
    assert not surface.seen[back.numpy()].any()


def test_loose_level(open_head: HeadModel):
    level = loose_level(open_head)
    marks = open_head.dense
    on_face = open_head.faces[marks.face[[4, 50, 280, 152, 9]]].flatten()
    assert level[on_face].max() < 0.3
    assert level[open_head.template[:, 2] < -0.05].min() > 0.95


def test_pull_push_extends_and_keeps():
    values = np.zeros((64, 48, 2), np.float32)
    known = np.zeros((64, 48), np.float32)
    known[20:40, 10:20] = 1
    values[20:40, 10:20] = (3.0, -2.0)
    filled = pull_push(values, known)
    assert np.allclose(filled[20:40, 10:20], (3.0, -2.0), atol=1e-5)
    assert np.allclose(filled, (3.0, -2.0), atol=1e-2)


def test_sample_is_bilinear():
    ramp = np.mgrid[:40, :50][1].astype(np.float32)
    points = np.random.default_rng(1).uniform((1, 1), (49, 39), (70000, 2)).astype(np.float32)
    assert np.abs(sample(ramp, points) - (points[:, 0] - 0.5)).max() < 0.02  # OpenCV's weights have 5 bits


def test_smoothstep():
    assert smoothstep(np.array([0.0, 1.0, 2.0, 3.0]), 1, 2).tolist() == [0, 0, 1, 1]
    assert smoothstep(np.array(1.5), 1, 2) == pytest.approx(0.5)


def test_a_head_without_an_inner_mouth_or_masks(open_head: HeadModel, image, source):
    """As FLAME is: through its open mouth one sees the inner side of its skin, which is painted dark."""
    keep = open_head.face_parts != INNER_MOUTH
    places = torch.cumsum(keep, 0) - 1
    marks = Landmarks(places[open_head.dense.face], open_head.dense.bary)
    bare = replace(open_head, faces=open_head.faces[keep], parts=None, masks={}, landmarks_dense=marks)
    target = edit_track(bare, source, {"jawOpen": 0.7})
    frame, mask = FlowWarp(bare, image, source).frame(target)
    points = target.camera.project(bare.dense.on(target.vertices(bare), bare.faces))[0].numpy()
    x, y = ((points[13] + points[14]) / 2).astype(int)
    assert frame[y, x].max() < 60 and mask[y, x] > 200
