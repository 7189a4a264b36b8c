"""The flow warp on pictures whose right answer is known: shaded renders of the head itself, before a known background."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from scipy.signal import find_peaks

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.fit.edit import edit_track
from comfyui_flow3d.flow3d.head.model import EYEBALLS, INNER_MOUTH, HeadModel, Landmarks
from comfyui_flow3d.flow3d.render.rasterize import rasterize
from comfyui_flow3d.flow3d.render.shade import shade
from comfyui_flow3d.flow3d.track import HeadTrack
from comfyui_flow3d.flow3d.warp.fields import pull_push, sample, smoothstep
from comfyui_flow3d.flow3d.warp.iris import find_iris, whole_iris
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
    """As FLAME is: through its open mouth one sees the inner side of its skin, which is painted as flesh in the shade."""
    keep = open_head.face_parts != INNER_MOUTH
    places = torch.cumsum(keep, 0) - 1
    marks = Landmarks(places[open_head.dense.face], open_head.dense.bary)
    bare = replace(open_head, faces=open_head.faces[keep], parts=None, masks={}, landmarks_dense=marks)
    target = edit_track(bare, source, {"jawOpen": 0.7})
    frame, mask = FlowWarp(bare, image, source).frame(target)
    points = target.camera.project(bare.dense.on(target.vertices(bare), bare.faces))[0].numpy()
    x, y = ((points[13] + points[14]) / 2).astype(int)
    cheek = image[tuple(points[50].astype(int)[::-1])].astype(float)
    here = frame[y, x].astype(float)
    assert here.mean() < 0.6 * cheek.mean() and here[0] / here[1:].mean() > cheek[0] / cheek[1:].mean() and mask[y, x] > 200


SKIN, WHITE, IRIS, PUPIL = (205, 150, 120), (236, 234, 230), (70, 95, 120), (20, 18, 16)


def looking(head: HeadModel, track: HeadTrack) -> tuple[np.ndarray, np.ndarray]:
    """A render of a plain skin with eyes whose irises are fixed to the eyeballs' mesh, and what each pixel shows: 0 other,
    1 white, 2 iris, 3 pupil."""
    vertices = track.vertices(head)
    size = (track.camera.height, track.camera.width)
    fragments = rasterize(vertices, head.faces, track.camera)
    triangle, bary = fragments.triangle[0].numpy(), fragments.bary[0].numpy()
    image = np.full((*size, 3), 128, np.uint8)
    image[triangle >= 0] = SKIN
    kind = np.zeros(size, int)
    rest = head.template.numpy()
    ball = (triangle >= 0) & (head.face_parts.numpy()[triangle] == EYEBALLS)
    points = np.einsum("nca,nc->na", rest[head.faces.numpy()[triangle[ball]]], bary[ball])
    centres = np.stack([sphere_centre(rest[head.masks[name].numpy()]) for name in ("left_eyeball", "right_eyeball")])
    away = points - centres[(np.linalg.norm(points[:, None] - centres, axis=-1)).argmin(1)]
    angle = np.degrees(np.arccos(away[:, 2] / np.linalg.norm(away, axis=1)))
    kind[ball] = 1 + (angle < 20) + (angle < 8)
    for value, colour in ((1, WHITE), (2, IRIS), (3, PUPIL)):
        image[kind == value] = colour
    return cv2.GaussianBlur(image, (0, 0), 0.7), kind


def sphere_centre(points: np.ndarray) -> np.ndarray:
    return np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(1), rcond=None)[0][:3]


@pytest.fixture(scope="module")
def near(source: HeadTrack) -> HeadTrack:
    """The same head in a larger picture."""
    return replace(source, camera=Camera.from_field_of_view(768, 768))


@pytest.mark.parametrize("edit", [{"gazeYaw": 25}, {"gazeYaw": -25}, {"gazePitch": -12}, {"yaw": 15, "gazeYaw": -20}])
def test_the_iris_turns_whole(open_head: HeadModel, near: HeadTrack, edit):
    """Against a render of the eyes so turned: the iris is where the truth has it, and as large."""
    photo, _ = looking(open_head, near)
    target = edit_track(open_head, near, edit)
    _, kind = looking(open_head, target)
    frame, _ = FlowWarp(open_head, photo, near).frame(target)
    inner = cv2.erode((kind > 0).astype(np.uint8), np.ones((3, 3))) > 0
    dark = inner & (frame.astype(int).sum(-1) < 440)
    middle = photo.shape[1] // 2
    for side in (np.s_[:, :middle], np.s_[:, middle:]):
        found, wanted = np.argwhere(dark[side]), np.argwhere((inner & (kind >= 2))[side])
        assert np.abs(found.mean(0) - wanted.mean(0)).max() < 1.0
        assert 0.85 < len(found) / len(wanted) < 1.15


@pytest.mark.parametrize("edit", [{"gazeYaw": 25}, {"gazeYaw": -25}, {"gazePitch": 18}])
def test_what_the_iris_left_is_white(open_head: HeadModel, near: HeadTrack, edit):
    """It has the colour of the photo's own eye whites, not of the skin, and the mask says that it is made up."""
    photo, before = looking(open_head, near)
    target = edit_track(open_head, near, edit)
    _, kind = looking(open_head, target)
    frame, mask = FlowWarp(open_head, photo, near).frame(target)
    bared = (cv2.erode((kind == 1).astype(np.uint8), np.ones((5, 5))) > 0) & (before >= 2)
    assert bared.sum() > 40 and (mask[bared] > 200).mean() > 0.9
    colour = np.median(frame[bared], 0)
    assert np.abs(colour - WHITE).max() < 30 < np.abs(colour - SKIN).max()
    assert np.ptp(colour) < 15


def test_still_eyes_stay(open_head: HeadModel, near: HeadTrack):
    """A moving mouth leaves the eyes as they are."""
    photo, kind = looking(open_head, near)
    frame, mask = FlowWarp(open_head, photo, near).frame(edit_track(open_head, near, {"jawOpen": 0.5}))
    inner = cv2.erode((kind > 0).astype(np.uint8), np.ones((5, 5))) > 0
    assert np.abs(frame.astype(int) - photo)[inner].max() < 12 and not mask[inner].any()


def disc(centre: tuple[float, float], radius: float) -> np.ndarray:
    """(60, 90, 3) an eye: a dark disc with a darker middle on white."""
    y, x = np.mgrid[:60, :90] + 0.5
    away = np.hypot(x - centre[0], y - centre[1])[..., None]
    image = np.where(away < 0.4 * radius, PUPIL, np.where(away < radius, IRIS, WHITE)).astype(np.float32)
    return cv2.GaussianBlur(image, (0, 0), 0.8)


@pytest.mark.parametrize(("shift", "factor"), [((0, 0), 1.0), ((2.5, -2), 0.8), ((-2, 1), 1.1)])
def test_find_iris(shift, factor):
    """From landmarks that miss it by a little, or are too small, as on drawn faces."""
    radius, centre = 14.0, np.array([43.3, 31.7])
    marks = centre + shift + factor * radius * np.array([[0, 0], [1, 0], [0, -1], [-1, 0], [0, 1]])
    found, size = find_iris(disc(centre, radius), np.ones((60, 90), bool), marks.astype(np.float32))
    assert np.abs(found - centre).max() < 1.0 and size == pytest.approx(radius, rel=0.07)


def test_whole_iris():
    """Under a lid and a shadowless highlight of another colour, the disc is what it was."""
    truth = disc((45, 30), 14)
    y, x = np.mgrid[:60, :90].astype(np.float32) + 0.5
    photo, seen = truth.copy(), np.ones((60, 90), np.float32)
    photo[:27], seen[:27] = SKIN, 0
    whole, made = whole_iris(photo, seen, np.stack([x, y], -1), np.float32([45, 30]), 14, np.float32([0, 1]))
    on = np.hypot(x - 45, y - 30) < 13
    assert np.abs(whole - truth)[on].mean() < 3 and np.array_equal(made > 0.5, seen < 0.5)


def test_a_grey_photo_has_a_grey_mouth_with_teeth_apart(open_head: HeadModel, near: HeadTrack):
    """The lines between the front teeth are as far apart as teeth are wide: 8.6 mm in the mean."""
    grey = np.repeat(cv2.cvtColor(patterned(open_head, near), cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    target = edit_track(open_head, near, {"jawOpen": 0.3, "mouthUpperUpLeft": 1, "mouthUpperUpRight": 1})
    frame, mask = FlowWarp(open_head, grey, near).frame(target)
    painted = frame[mask > 250].astype(int)
    assert np.ptp(painted, axis=1).max() <= 3
    vertices = target.vertices(open_head)
    triangle = rasterize(vertices, open_head.faces, target.camera).triangle[0].numpy()
    teeth = (triangle >= 0) & open_head.masks["upper_teeth"][open_head.faces].all(-1).numpy()[triangle] & (mask > 250)
    row = np.where(teeth, frame[..., 0].astype(float), 0).max(0)[teeth.sum(0) > 4]
    lines, _ = find_peaks(-row, prominence=6)
    middle = np.abs(lines - len(row) / 2).argmin()
    depth = float(vertices[0, open_head.masks["upper_teeth"], 2].amin())
    width = np.diff(lines)[middle - 1 : middle + 1] * depth / target.camera.focal
    assert 3 <= len(lines) <= 7 and np.abs(width - 0.0086).max() < 0.0012


def test_a_wide_open_mouth_shows_a_tongue(open_head: HeadModel, near: HeadTrack):
    """Lighter in front than in the throat, and on each side of its groove than in it."""
    target = edit_track(open_head, near, {"jawOpen": 1})
    frame, mask = FlowWarp(open_head, patterned(open_head, near), near).frame(target)
    marks = target.camera.project(open_head.dense.on(target.vertices(open_head), open_head.faces))[0].numpy()
    (x, top), bottom = marks[13], marks[14, 1]
    light = cv2.GaussianBlur(frame.astype(np.float32).mean(-1), (0, 0), 1.0)
    rows = [int(top + share * (bottom - top)) for share in (0.3, 0.58)]
    beside = [light[rows[1], int(x) + side] for side in (-9, 9)]
    assert light[rows[0], int(x)] < 0.6 * min(beside)
    assert light[rows[1], int(x)] < 0.92 * min(beside)


def test_a_wide_open_mouth_is_flesh_in_daylight(open_head: HeadModel, near: HeadTrack):
    """As in clips of people who open theirs: towards the lower lip 0.5 to 1 of the skin's light, in the middle 0.35 to 0.9,
    redder than skin; and the darker the less it is open."""
    photo, _ = looking(open_head, near)

    def inside(jaw: float) -> np.ndarray:
        target = edit_track(open_head, near, {"jawOpen": jaw})
        frame, _ = FlowWarp(open_head, photo, near).frame(target)
        marks = target.camera.project(open_head.dense.on(target.vertices(open_head), open_head.faces))[0].numpy()
        rows = [marks[13] + share * (marks[14] - marks[13]) for share in (0.45, 0.62)]
        return np.array([frame[int(y), int(x) + 10].astype(float) for x, y in rows]) / SKIN

    wide = inside(1.0)
    assert 0.35 < wide[0, 1] < 0.9 and 0.5 < wide[1].mean() < 1
    assert (wide[:, 0] > 1.15 * wide[:, 1]).all()
    assert inside(0.25)[0].mean() < 0.7 * wide[0].mean()


def whereabouts(head: HeadModel, track: HeadTrack, edit: dict[str, float]) -> np.ndarray:
    """(H, W, 2) where each pixel of a frame comes from, told by a photo whose colours are its own coordinates."""
    y, x = np.mgrid[: track.camera.height, : track.camera.width]
    scale = 255 / max(x.max(), y.max())
    photo = np.stack([x, y, y], -1) * scale
    frame, _ = FlowWarp(head, photo.round().astype(np.uint8), track).frame(edit_track(head, track, edit))
    return frame[..., :2] / scale


@pytest.mark.parametrize("yaw", [-30, 30])
def test_the_far_side_is_no_streak(open_head: HeadModel, source: HeadTrack, yaw: int):
    """Beside the far cheek the photo goes on at its own pace: a band of it is not one line drawn out."""
    target = edit_track(open_head, source, {"yaw": yaw})
    came = whereabouts(open_head, source, {"yaw": yaw})
    drawn = rasterize(target.vertices(open_head), open_head.faces, target.camera).triangle[0].numpy() >= 0
    marks = target.camera.project(open_head.dense.on(target.vertices(open_head), open_head.faces))[0].numpy()
    side = 1 if yaw > 0 else -1
    pace = []
    for row in range(int(marks[1, 1]) - 6, int(marks[1, 1]) + 7):
        columns = np.flatnonzero(drawn[row])
        edge = columns.max() if side > 0 else columns.min()
        pace.append(abs(came[row, edge + side * 19, 0] - came[row, edge + side * 4, 0]) / 15)
    assert 0.4 < np.mean(pace) < 1.6


def test_hair_rolls_with_the_head(open_head: HeadModel, source: HeadTrack):
    """Well above the crown the picture turns as the head does."""
    roll = np.radians(25)
    came = whereabouts(open_head, source, {"roll": 25})
    target = edit_track(open_head, source, {"roll": 25})
    before, after = (
        t.camera.project(open_head.dense.on(t.vertices(open_head), open_head.faces))[0].numpy() for t in (source, target)
    )
    (a, b), (c, d) = before[10] - before[152], after[10] - after[152]
    sign = np.sign(a * d - b * c)
    turn = np.array([[np.cos(roll), sign * np.sin(roll)], [-sign * np.sin(roll), np.cos(roll)]])
    above = after[10] + 1.8 * (after[10] - after[9])
    for sideways in (-25, 0, 25):
        point = above + turn.T @ (sideways, 0)
        wanted = before[10] + turn @ (point - after[10])
        x, y = point.round().astype(int)
        assert np.abs(came[y, x] - wanted).max() < 9
