"""Portrait Crop and Paste Back: against pictures known in closed form, against cameras, and against each other."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.crop import REFLECT, REPLICATE, PortraitCrop, _blurred, resample
from comfyui_flow3d.flow3d.crop_boxes import (
    DISTANCE,
    FOLLOW,
    FOLLOW_AND_ZOOM,
    ONE_BOX,
    HeadPlaces,
    place_crop,
    places_of_faces,
    places_of_track,
)
from comfyui_flow3d.flow3d.crop_paste import CIRCLE, Blend, match_colours, paste
from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.fit.angles import pose_rotation
from comfyui_flow3d.flow3d.fit.faces import Face
from comfyui_flow3d.flow3d.head.model import HeadModel
from comfyui_flow3d.flow3d.track import HeadTrack

PERIODS = ((37.0, 61.0), (90.0, 45.0), (53.0, 120.0))  # pixels of the full picture, x and y, for each channel


def waves(x: NDArray, y: NDArray) -> NDArray:
    """A smooth picture in closed form: (H, W, 3) in 0..1 at pixel coordinates x (W,) and y (H,)."""
    planes = [
        0.5 + 0.22 * np.cos(2 * np.pi * x / px)[None] + 0.22 * np.sin(2 * np.pi * y / py)[:, None] for px, py in PERIODS
    ]
    return np.stack(planes, -1)


def picture(width: int, height: int) -> NDArray:
    return waves(np.arange(width) + 0.5, np.arange(height) + 0.5).astype(np.float32)


def noise(width: int, height: int, seed: int = 0) -> NDArray:
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def crop_of(width: int, height: int, *boxes: tuple[float, float, float], size: int) -> PortraitCrop:
    return PortraitCrop(width, height, np.array(boxes), size)


def psnr(a: NDArray, b: NDArray) -> float:
    return float(-10 * np.log10(max(np.mean((a.astype(np.float64) - b) ** 2), 1e-20)))


# --- the transform ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_projecting_and_mapping_is_projecting_with_the_crops_camera(frame: int) -> None:
    crop = crop_of(1281, 719, (400.3, 300.7, 333.3), (-20.0, 700.0, 90.5), (640.5, 359.5, 2000.0), size=517)
    camera = Camera(1500.5, 633.3, 371.9, 1281, 719)
    points = torch.from_numpy(np.random.default_rng(frame).normal((0, 0, 1), (0.2, 0.2, 0.1), (100, 3)))
    seen = crop.crop_camera(camera, frame)
    assert (seen.width, seen.height) == (517, 517)
    assert np.abs(crop.to_crop(camera.project(points), frame) - seen.project(points).numpy()).max() < 1e-9
    again = crop.full_camera(seen, frame)
    assert (again.width, again.height) == (1281, 719)
    np.testing.assert_allclose((again.focal, again.cx, again.cy), (camera.focal, camera.cx, camera.cy), rtol=0, atol=1e-9)
    pixels = np.random.default_rng(frame).uniform(-500, 2000, (50, 2))
    assert np.abs(crop.to_full(crop.to_crop(pixels, frame), frame) - pixels).max() < 1e-9
    np.testing.assert_allclose(crop.to_crop(crop.box(frame)[:2], frame), (0, 0), atol=1e-9)
    np.testing.assert_allclose(crop.to_crop(crop.box(frame)[2:], frame), (517, 517), atol=1e-9)


def test_one_box_serves_every_frame_and_several_serve_their_own() -> None:
    assert crop_of(64, 64, (30, 30, 20), size=20).box(17) == (20, 20, 40, 40)
    with pytest.raises(IndexError):
        crop_of(64, 64, (30, 30, 20), (31, 30, 20), size=20).box(2)


@pytest.mark.parametrize("boxes", [np.zeros((0, 3)), np.ones((2, 2)), [[1.0, 2.0, np.nan]], [[5.0, 5.0, 0.0]]])
def test_boxes_that_are_none_are_refused(boxes: NDArray) -> None:
    with pytest.raises(ValueError, match="boxes"):
        PortraitCrop(64, 64, boxes, 32)


# --- resampling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((150.0, 120.0, 130.0), 130),  # whole pixels, native
        ((150.5, 120.25, 97.3), 256),  # enlarged
        ((161.7, 118.2, 201.9), 101),  # shrunk by two
        ((150.2, 121.4, 130.0), 130),  # a shift of a part of a pixel
    ],
)
def test_a_crop_of_a_picture_in_closed_form_is_that_form(box: tuple[float, float, float], size: int) -> None:
    crop = crop_of(301, 259, box, size=size)
    x = box[0] - box[2] / 2 + (np.arange(size) + 0.5) * box[2] / size
    y = box[1] - box[2] / 2 + (np.arange(size) + 0.5) * box[2] / size
    np.testing.assert_allclose(crop.cut(picture(301, 259)), waves(x, y), atol=3e-3)


def test_native_boxes_are_copies() -> None:
    image = noise(90, 70)
    assert (crop_of(90, 70, (40, 35, 32), size=32).cut(image) == image[19:51, 24:56]).all()
    assert (crop_of(90, 70, (40.5, 35.5, 33), size=33).cut(image) == image[19:52, 24:57]).all()


def test_shrinking_keeps_the_mean_and_lets_no_fine_pattern_through() -> None:
    checks = ((np.arange(256)[:, None] + np.arange(256)) % 2).astype(np.float32)
    small = resample(np.repeat(checks[..., None], 3, -1), (0.0, 0.0, 256.0, 256.0), (50, 50))
    assert np.abs(small - 0.5).max() < 0.02


@pytest.mark.parametrize(("border", "mode"), [(REFLECT, "reflect"), (REPLICATE, "edge")])
def test_beyond_the_border_stands_what_numpys_padding_gives(border: str, mode: str) -> None:
    image = noise(13, 9)
    padded = np.pad(image, ((40, 40), (40, 40), (0, 0)), mode=mode)  # type: ignore[call-overload]
    assert (resample(image, (-40.0, -40.0, 53.0, 49.0), (93, 89), border) == padded).all()
    line = noise(1, 9)
    assert (resample(line, (-3.0, 0.0, 4.0, 9.0), (7, 9), border) == line).all()


def test_known_pixels_are_those_inside_the_picture() -> None:
    crop = crop_of(40, 30, (5.0, 10.0, 20.5), size=41)  # half a pixel each
    left, top, right, bottom = crop.box()
    fine = 64  # a brute-force count
    at = np.linspace(0, 41, 41 * fine, endpoint=False) / 2 + 0.25 / fine
    inside_x, inside_y = ((v >= 0) & (v <= n) for v, n in ((left + at, 40), (top + at, 30)))
    counted = np.outer(inside_y, inside_x).reshape(41, fine, 41, fine).mean((1, 3))
    np.testing.assert_allclose(crop.known(), counted, atol=2 / fine)
    whole = crop.known() == 1
    assert whole.any() and (crop.cut(picture(40, 30))[whole] == resample(picture(40, 30), crop.box(), (41, 41))[whole]).all()


# --- where the box lies ----------------------------------------------------------------------------------------------

CAMERA = Camera.from_field_of_view(640, 480)


def turning(head: HeadModel, angles: list[tuple[float, float, float]], z: float = 1.2, x: float = 0.0) -> HeadTrack:
    n = len(angles)
    return HeadTrack(
        shape=torch.zeros(head.n_shape),
        expression=torch.zeros(n, head.n_expression),
        joints=torch.zeros(n, head.n_joints - 1, 3),
        rotation=pose_rotation(*torch.tensor(angles).T),
        translation=torch.tensor([[x, 0.12, z]]).repeat(n, 1),
        camera=CAMERA,
        joint_names=head.joint_names,
    )


def faces_of(head: HeadModel, track: HeadTrack) -> list[Face]:
    """Faces as a perfect detector would see the track."""
    faces = []
    for t in range(len(track)):
        marks = head.dense.on(track.vertices(head, slice(t, t + 1))[0], head.faces).double()
        depth = (marks[:, 2] - marks[:, 2].mean()) * CAMERA.focal / marks[:, 2].mean()
        faces.append(Face(CAMERA.project(marks).numpy(), depth.numpy(), np.zeros(51), None, 1.0))
    return faces


@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (40.0, 0.0, 0.0), (0.0, -25.0, 0.0), (-20.0, 10.0, 60.0), (0.0, 0.0, 170.0)])
def test_a_head_fitted_on_its_crop_stands_where_the_encoding_wants_it(open_head: HeadModel, angles: tuple) -> None:
    """A camera of 25 degrees on the crop sees landmarks of the same size as those of a head 0.95 m away."""
    track = turning(open_head, [angles])
    crop = place_crop(places_of_track(track, open_head), 640, 480, 512)
    there = replace(track, camera=Camera.from_field_of_view(512, 512), translation=torch.tensor([[0.0, 0.12, DISTANCE]]))
    size = [np.linalg.norm(np.ptp(face.points, axis=0)) for face in faces_of(open_head, track)]
    wanted = there.camera.project(open_head.dense.on(there.vertices(open_head)[0], open_head.faces)).numpy()
    assert size[0] * crop.scale() == pytest.approx(np.linalg.norm(np.ptp(wanted, axis=0)), rel=0.06)


def test_an_upright_head_fills_most_of_the_crop_and_stands_in_its_middle(open_head: HeadModel) -> None:
    track = turning(open_head, [(0.0, 0.0, 0.0)])
    crop = place_crop(places_of_track(track, open_head), 640, 480, 512)
    skull = open_head.skin_weights[:, 0] < 0.02
    pixels = crop.to_crop(CAMERA.project(track.vertices(open_head)[0][skull]))
    assert 0.52 < np.ptp(pixels[:, 1]) / 512 < 0.66
    assert abs((pixels[:, 0].min() + pixels[:, 0].max()) / 2 - 256) < 12
    assert abs((pixels[:, 1].min() + pixels[:, 1].max()) / 2 - 256) < 40


def test_size_hardly_changes_when_the_head_turns(open_head: HeadModel) -> None:
    angles = [(yaw, 0.0, roll) for yaw in (-45.0, 0.0, 45.0) for roll in (-30.0, 0.0)]
    side = places_of_track(turning(open_head, angles), open_head).side
    assert np.ptp(side) < 0.05 * side.mean()


def test_landmarks_with_and_without_depth_and_the_track_agree(open_head: HeadModel) -> None:
    track = turning(open_head, [(0.0, 0.0, 0.0), (25.0, 5.0, 10.0)], x=0.05)
    by_track = places_of_track(track, open_head)
    faces = faces_of(open_head, track)
    assert open_head.landmarks68 is not None
    sparse = [
        Face.of68(CAMERA.project(open_head.landmarks68.on(track.vertices(open_head)[t], open_head.faces)).double().numpy())
        for t in range(2)
    ]
    for other, near in ((faces, 1e-6), ([Face.of478(f.points) for f in faces], 0.04), (sparse, 0.07)):
        seen = places_of_faces(other, open_head)
        assert np.abs(seen.side / by_track.side - 1).max() < near
        assert np.abs(seen.centre - by_track.centre).max() < near * by_track.side.mean()


def test_missing_faces_are_interpolated_and_none_at_all_is_an_error(open_head: HeadModel) -> None:
    faces = faces_of(open_head, turning(open_head, [(0.0, 0.0, 0.0)] * 3))
    moved = replace(faces[2], points=faces[2].points + 30)
    seen = places_of_faces([faces[0], None, moved, None], open_head)
    np.testing.assert_allclose(seen.centre[1] - seen.centre[0], (15, 15))
    assert (seen.centre[3] == seen.centre[2]).all()
    with pytest.raises(InputError, match="no face in any of 2 frames"):
        places_of_faces([None, None], open_head)
    with pytest.raises(InputError, match="landmarks of eyes and nose"):
        places_of_faces([Face.of478(np.full((478, 2), np.nan)), Face.of68(np.full((68, 2), np.nan))], open_head)


def walk(n: int = 200) -> HeadPlaces:
    """A head that walks from left to right, shakes by a pixel and comes nearer."""
    rng = np.random.default_rng(3)
    x = np.linspace(300, 900, n) + rng.normal(0, 1, n)
    return HeadPlaces(np.column_stack([x, 400 + rng.normal(0, 1, n)]), np.linspace(300, 420, n) * (1 + rng.normal(0, 0.01, n)))


def test_one_box_holds_the_head_in_every_frame() -> None:
    places = walk()
    crop = place_crop(places, 1280, 720, 512, ONE_BOX)
    left, top, right, bottom = crop.box()
    assert len(crop) == 1 and float(left).is_integer() and float(top).is_integer()
    head = 0.3 * places.side[:, None]
    assert (places.centre - head > (left, top)).all() and (places.centre + head < (right, bottom)).all()


def test_a_following_box_has_one_size_moves_smoothly_and_keeps_the_head() -> None:
    places = walk()
    crop = place_crop(places, 1280, 720, 256, FOLLOW)
    assert len(crop) == 200 and np.ptp(crop.boxes[:, 2]) == 0
    jerk = np.abs(np.diff(crop.boxes[:, :2], 3, axis=0)).max()
    assert jerk < 0.05 < np.abs(np.diff(places.centre, 3, axis=0)).max()
    assert np.abs(crop.boxes[:, :2] - places.centre).max() < 0.15 * crop.boxes[0, 2]
    jump = HeadPlaces(np.column_stack([np.repeat([200.0, 700.0], 50), np.full(100, 300.0)]), np.full(100, 250.0))
    followed = place_crop(jump, 1280, 720, 256, FOLLOW)
    assert np.abs(followed.boxes[:, 0] - jump.centre[:, 0])[np.r_[0:40, 60:100]].max() < 0.15 * 250


def test_a_zooming_box_follows_the_size_slowly() -> None:
    places = walk()
    side = place_crop(places, 1280, 720, 256, FOLLOW_AND_ZOOM).boxes[:, 2]
    assert np.abs(np.diff(side)).max() < 1.5 < np.abs(np.diff(places.side)).max()
    assert np.abs(side / places.side - 1).max() < 0.08


def test_boxes_are_native_where_that_costs_little() -> None:
    near = HeadPlaces(np.array([[300.3, 200.2]]), np.array([500.0]))
    assert place_crop(near, 1000, 800, 512).scale() == 1
    assert place_crop(near, 1000, 800, 256).scale() != 1
    native = place_crop(near, 1000, 800, 0)
    assert native.size == native.boxes[0, 2] == 504
    moving = HeadPlaces(np.column_stack([np.linspace(300, 350, 40), np.full(40, 200.0)]), np.full(40, 500.0))
    for size in (512, 0):
        boxes = place_crop(moving, 1000, 800, size, FOLLOW)
        corners = boxes.boxes[:, :2] - boxes.boxes[:, 2:] / 2
        assert boxes.scale() == 1 and (corners == corners.round()).all()
    assert place_crop(near, 1000, 800, 512, room=2.0).boxes[0, 2] == 1000


# --- paste back ------------------------------------------------------------------------------------------------------

CASES = {
    "native": (300, 260, (150.0, 130.0, 128.0), 128),
    "enlarged": (300, 260, (150.5, 130.25, 97.3), 128),
    "shrunk": (300, 260, (140.0, 120.0, 201.0), 96),
    "odd sizes": (301, 257, (150.7, 120.1, 133.3), 77),
    "head at the border": (300, 260, (20.0, 12.5, 120.3), 128),
    "corner": (300, 260, (299.0, 258.0, 100.0), 128),
    "crop larger than the picture": (300, 260, (150.0, 130.0, 700.0), 256),
    "64 pixels": (64, 64, (30.0, 33.0, 71.0), 512),
    "outside": (64, 64, (300.0, 33.0, 71.0), 64),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", ["rounded square", CIRCLE])
def test_without_an_edit_the_picture_is_itself(case: str, shape: str) -> None:
    width, height, box, size = CASES[case]
    image, crop = noise(width, height), crop_of(width, height, box, size=size)
    before = image.copy()
    assert (paste(image, crop.cut(image), crop, blend=Blend(shape)) == image).all()
    eight_bits = (np.round(crop.cut(image) * 255) / 255).astype(np.float32)
    assert (paste(image, eight_bits, crop, blend=Blend(shape, colour_match=0)) == image).all()
    assert (image == before).all()
    assert psnr(paste(image, eight_bits, crop), image) > 45


@pytest.mark.parametrize("case", [c for c in CASES if c != "outside"])
def test_an_edit_stays_within_the_box_and_arrives_where_it_was_made(case: str) -> None:
    width, height, box, size = CASES[case]
    image, crop = picture(width, height), crop_of(width, height, box, size=size)
    result = 1 - crop.cut(image)
    pasted = paste(image, result, crop, blend=Blend(feather=size / 16, colour_match=0))
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    left, top, right, bottom = crop.box()
    inside = ((y > top) & (y < bottom))[:, None] & ((x > left) & (x < right))
    assert (pasted[~inside] == image[~inside]).all()
    where = np.stack(np.broadcast_arrays(x[None], y[:, None]), -1)
    depth = np.minimum(crop.to_crop(where), size - crop.to_crop(where)).min(-1)
    deep = depth > size / 4
    assert deep.any() and psnr(pasted[deep], 1 - image[deep]) > 45


def test_native_results_arrive_bit_for_bit() -> None:
    image, crop = noise(200, 180), crop_of(200, 180, (100.0, 90.0, 96.0), size=96)
    result = noise(96, 96, 1)
    pasted = paste(image, result, crop, blend=Blend(feather=8, colour_match=0))
    assert (pasted[90 - 24 : 90 + 24, 100 - 24 : 100 + 24] == result[24:72, 24:72]).all()


def test_an_edit_of_a_part_leaves_the_rest_of_the_crop_alone() -> None:
    image, crop = noise(500, 400), crop_of(500, 400, (250.0, 200.0, 300.0), size=128)
    result = crop.cut(image)
    result[50:60, 50:60] = 1
    pasted = paste(image, result, crop)
    changed = np.argwhere((pasted != image).any(-1))
    low, high = crop.to_full((50, 50))[::-1], crop.to_full((60, 60))[::-1]
    assert len(changed) and (changed > low - 50).all() and (changed < high + 50).all()


def test_what_is_painted_beyond_the_border_does_not_reach_into_the_picture() -> None:
    image, crop = noise(200, 150), crop_of(200, 150, (30.0, 60.0, 100.0), size=128)
    result = crop.cut(image)
    result[crop.known() == 0] = 1 - result[crop.known() == 0]
    assert (paste(image, result, crop) == image).all()


def test_a_result_of_another_size_lands_in_the_same_place() -> None:
    image, crop = picture(300, 260), crop_of(300, 260, (150.0, 130.0, 160.0), size=64)
    fine = crop.resized(320)
    pasted = paste(image, 1 - fine.cut(image), crop, blend=Blend(feather=4, colour_match=0))
    assert psnr(pasted[90:170, 110:190], 1 - image[90:170, 110:190]) > 45


def test_the_feather_is_soft_but_not_at_the_pictures_own_border() -> None:
    image = np.zeros((200, 200, 3), np.float32)
    crop = crop_of(200, 200, (60.0, 100.0, 120.0), size=120)  # touches the left border
    pasted = paste(image, np.ones((120, 120, 3), np.float32), crop, blend=Blend(feather=20, colour_match=0))[..., 0]
    row = pasted[100]
    assert (row[:95] == 1).all() and (row[120:] == 0).all()
    assert (np.diff(row[95:125]) <= 0).all() and np.abs(np.diff(row[95:125])).max() < 0.12
    column = pasted[:, 60]
    assert column[40] < 0.01 and column[60] == 1 and (np.diff(column[40:62]) >= 0).all()


def test_a_mask_limits_what_is_taken() -> None:
    image = np.zeros((200, 200, 3), np.float32)
    crop = crop_of(200, 200, (100.0, 100.0, 128.0), size=128)
    mask = np.zeros((64, 64), np.float32)
    mask[20:40, 20:44] = 1
    result = np.ones((128, 128, 3), np.float32)
    pasted = paste(image, result, crop, blend=Blend(feather=8, colour_match=0), mask=mask)[..., 0]
    inside = pasted[36 + 40 : 36 + 80, 36 + 40 : 36 + 88]
    assert inside[10:-10, 10:-10].min() > 0.99 and inside.mean() > 0.8
    inside[:] = 0
    assert pasted[70:122, 70:130].max() < 0.6 and pasted[:60].max() == 0


# --- colours ---------------------------------------------------------------------------------------------------------


def shifted(image: NDArray) -> NDArray:
    return (image * np.float32([1.1, 0.95, 0.9]) + np.float32([-0.03, 0.02, 0.04])).clip(0, 1)


def test_a_shift_of_colour_is_undone_though_the_middle_was_edited() -> None:
    image, crop = picture(400, 400), crop_of(400, 400, (200.0, 200.0, 256.0), size=256)
    before = crop.cut(image)
    edited = before.copy()
    edited[60:200, 60:200] = 0.8 - 0.5 * edited[60:200, 60:200]
    whole, known = np.ones((256, 256), np.float32), crop.known()
    matched = match_colours(shifted(edited), before, whole, known, 1.0)
    assert np.abs(matched - edited).max() < 0.01 < np.abs(shifted(edited) - edited).max()
    half = match_colours(shifted(edited), before, whole, known, 0.5)
    np.testing.assert_allclose(half, (shifted(edited) + matched) / 2, atol=2e-3)
    assert (match_colours(edited, before, whole, known, 0.0) == edited).all()


def test_what_moved_in_the_ring_does_not_turn_the_colours() -> None:
    image, crop = picture(400, 400), crop_of(400, 400, (200.0, 200.0, 256.0), size=256)
    before = crop.cut(image)
    edited = before.copy()
    edited[200:, 60:160] = 0.1  # a shoulder, a tenth of the ring
    whole = np.ones((256, 256), np.float32)
    matched = match_colours(shifted(edited), before, whole, crop.known(), 1.0)
    assert np.abs(matched[:190] - before[:190]).max() < 0.02
    assert (match_colours(before, before, whole, crop.known(), 1.0) == before).all()


def test_beyond_the_border_no_colours_are_compared() -> None:
    image, crop = picture(300, 260), crop_of(300, 260, (150.0, 130.0, 700.0), size=256)
    before = crop.cut(image)
    nowhere = match_colours(shifted(before), before, np.ones((256, 256), np.float32), crop.known(), 1.0)
    assert (nowhere == shifted(before)).all()


# --- bad input -------------------------------------------------------------------------------------------------------


def test_what_does_not_belong_together_is_refused() -> None:
    image, crop = picture(64, 48), crop_of(64, 48, (30.0, 20.0, 32.0), size=32)
    result = crop.cut(image)
    with pytest.raises(InputError, match="64 x 47, but the crop was taken from 64 x 48"):
        paste(image[:-1], result, crop)
    with pytest.raises(InputError, match="a crop is square"):
        paste(image, result[:-1], crop)
    result[3, 3] = np.nan
    with pytest.raises(InputError, match="result has values that are not finite"):
        paste(image, result, crop)
    with pytest.raises(InputError, match="mask has values that are not finite"):
        paste(image, crop.cut(image), crop, mask=np.full((8, 8), np.inf, np.float32))
    image[40, 60] = np.inf
    with pytest.raises(InputError, match="frame 3 of the picture"):
        crop.cut(image, 3)


@pytest.mark.parametrize("size", (200, 513, 1024))
def test_the_wide_blur_is_a_gaussian(size: int) -> None:
    """Against OpenCV's own at full size, which takes fifty times as long."""
    picture = cv2.resize(np.random.default_rng(3).random((24, 24, 3), dtype=np.float32), (size, size))
    expected = cv2.GaussianBlur(picture, (0, 0), 0.05 * size, borderType=cv2.BORDER_REFLECT)
    got = _blurred(picture, 0.05 * size)
    assert np.abs(got - expected).max() < 0.02 and np.abs(got - expected).mean() < 0.003
    assert np.abs(picture - expected).mean() > 0.05  # not blurred at all would be far off
