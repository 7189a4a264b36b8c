"""Edits: signs by what a camera sees, angles by SciPy, names and numbers that are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small_head import CHIN, CROWN, FOOT, NAMES, NOSE, random_track, small_head

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.fit.angles import FULL_JAW, pose_angles, pose_rotation
from comfyui_flow3d.flow3d.fit.edit import edit_names, edit_track, parse_edits
from comfyui_flow3d.flow3d.head.model import to_camera

HEAD = small_head()
TRACK = random_track(HEAD, 4, 5)
UPRIGHT = replace(
    TRACK, rotation=torch.zeros_like(TRACK.rotation), joints=torch.zeros_like(TRACK.joints),
    expression=torch.full_like(TRACK.expression, 0.5), translation=torch.tensor([[0.0, 0.1, 0.9]] * 4).double(),
)  # fmt: skip


def seen(track, point):
    """(2,) pixels of a vertex in the first frame (x to the right, y down)."""
    return track.camera.project(track.vertices(HEAD.to(dtype=torch.float64))[:, point])[0]


@pytest.mark.parametrize(("edit", "point", "axis", "sign"), [
    ("yaw", NOSE, 0, 1), ("pitch", NOSE, 1, -1), ("roll", CROWN, 0, 1), ("x", NOSE, 0, 1), ("y", NOSE, 1, -1),
])  # fmt: skip
def test_signs_in_the_picture(edit, point, axis, sign):
    for value in (5.0, -5.0):
        moved = seen(edit_track(HEAD, UPRIGHT, {edit: value}), point) - seen(UPRIGHT, point)
        assert sign * value * moved[axis] > 2
        assert abs(moved[axis]) > 3 * abs(moved[1 - axis])


def test_towards_the_camera_is_larger():
    near = edit_track(HEAD, UPRIGHT, {"z": 10.0})
    width = [float((seen(t, CROWN) - seen(t, CHIN)).norm()) for t in (near, UPRIGHT)]
    assert width[0] / width[1] == pytest.approx(0.9 / 0.8, rel=0.03)


def test_shifts_are_centimetres():
    moved = edit_track(HEAD, TRACK, {"x": 1.0, "y": 2.0, "z": 3.0}).translation - TRACK.translation
    assert torch.allclose(moved, torch.tensor([0.01, -0.02, -0.03]).double().expand(4, 3), atol=1e-9)


def test_turns_are_intrinsic_yaw_pitch_roll():
    """Oracle: SciPy's Euler angles on the head's own axes, y down being the camera's."""
    got = Rotation.from_rotvec(edit_track(HEAD, TRACK, {"yaw": 12, "pitch": -7, "roll": 20}).rotation.numpy())
    own = Rotation.from_euler("YXZ", [-12, 7, 20], degrees=True)
    assert ((Rotation.from_rotvec(TRACK.rotation.numpy()) * own).inv() * got).magnitude().max() < 1e-6


def test_the_foot_of_the_neck_stays():
    turned = edit_track(HEAD, TRACK, {"yaw": 30, "pitch": 10, "roll": 5})
    assert torch.equal(turned.translation, TRACK.translation)
    root = turned.vertices(HEAD.to(dtype=torch.float64))[:, FOOT]
    assert torch.allclose(root, TRACK.vertices(HEAD.to(dtype=torch.float64))[:, FOOT], atol=1e-6)


def test_pose_angles_invert_pose_rotation():
    angles = torch.tensor(np.random.default_rng(0).uniform(-80, 80, (500, 3)))
    assert torch.allclose(pose_angles(pose_rotation(*angles.unbind(-1))), angles, atol=1e-6)


@pytest.mark.parametrize(("edits", "left", "right"), [
    ({"gazeYaw": 15}, (15, 0), (15, 0)),
    ({"gazePitch": 10}, (0, 10), (0, 10)),
    ({"gazeYaw": 10, "gazeYawLeft": -25, "gazePitchRight": 8}, (-15, 0), (10, 8)),
])  # fmt: skip
def test_gaze(edits, left, right):
    """Where the eyes look: (yaw, pitch) of the looking direction in the picture, for an upright head."""
    joints = edit_track(HEAD, UPRIGHT, edits).joints
    for j, (yaw, pitch) in ((2, left), (3, right)):
        x, y, z = Rotation.from_rotvec(joints[0, j].numpy()).apply([0, 0, 1])  # head frame: x right in the picture, y up
        assert np.degrees(np.arctan2(x, z)) == pytest.approx(yaw, abs=1e-5)
        assert np.degrees(np.arcsin(y)) == pytest.approx(pitch, abs=1e-5)
    assert not joints[:, :2].any()


def test_expressions_add_and_stay_in_range():
    edited = edit_track(HEAD, UPRIGHT, {"jawOpen": 0.3, "mouthSmileLeft": 0.9, "eyeBlinkLeft": -2.0})
    expected = dict.fromkeys(NAMES, 0.5) | {"jawOpen": 0.8, "mouthSmileLeft": 1.0, "eyeBlinkLeft": 0.0}
    assert torch.allclose(edited.expression, torch.tensor(list(expected.values())).double().expand(4, -1))
    beyond = replace(UPRIGHT, expression=UPRIGHT.expression + 0.7)
    assert torch.equal(edit_track(HEAD, beyond, {"jawOpen": 0.1}).expression, beyond.expression)  # 1.2 stays 1.2


def test_aliases_move_both_sides():
    edited = edit_track(HEAD, UPRIGHT, {"smile": 0.25, "mouthSmileLeft": 0.1, "blink": -0.5})
    change = (edited.expression - UPRIGHT.expression)[0]
    assert change[NAMES.index("mouthSmileLeft")] == pytest.approx(0.35)
    assert change[NAMES.index("mouthSmileRight")] == pytest.approx(0.25)
    assert change[NAMES.index("eyeBlinkLeft")] == change[NAMES.index("eyeBlinkRight")] == -0.5
    assert "browUp" not in edit_names(HEAD)  # this head lacks the outer brows


def test_jaw_of_a_head_without_names():
    plain = small_head((), 9)
    opened = edit_track(plain, UPRIGHT, {"jawOpen": 0.5})
    assert torch.allclose(torch.rad2deg(opened.jaw.norm(dim=-1)), torch.full((4,), FULL_JAW / 2).double())
    down = opened.vertices(plain.to(dtype=torch.float64))[0, CHIN] - UPRIGHT.vertices(plain.to(dtype=torch.float64))[0, CHIN]
    assert down[1] > 0.005
    assert torch.equal(opened.expression, UPRIGHT.expression)


def test_zero_changes_no_bit():
    assert edit_track(HEAD, TRACK, {}) is TRACK
    assert edit_track(HEAD, TRACK, dict.fromkeys(edit_names(HEAD), 0.0)) is TRACK
    moved = edit_track(HEAD, TRACK, {"x": 1.0})
    for name in ("expression", "joints", "rotation", "shape"):
        assert torch.equal(getattr(moved, name), getattr(TRACK, name)), name
    one = edit_track(HEAD, TRACK, {"jawOpen": 0.1}).expression
    others = [i for i, n in enumerate(NAMES) if n != "jawOpen"]
    assert torch.equal(one[:, others], TRACK.expression[:, others])


@pytest.mark.parametrize(("name", "offered"), [
    ("yawn", "yaw"), ("mouthSmileleft", "mouthSmileLeft"), ("jawopen", "jawOpen"), ("gazeyaw", "gazeYaw"), ("q", "pitch"),
])  # fmt: skip
def test_unknown_names_get_the_nearest(name, offered):
    with pytest.raises(InputError, match=f"'{name}'.*{offered}"):
        edit_track(HEAD, TRACK, {name: 1.0})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none(value):
    with pytest.raises(InputError, match="yaw"):
        edit_track(HEAD, TRACK, {"yaw": value})


def test_a_track_of_another_head():
    for other in (small_head((), 4), replace(HEAD, digest="7" * 64)):
        with pytest.raises(InputError, match="made with head model 'small'"):
            edit_track(other, TRACK, {"yaw": 1.0})


def test_parsing():
    assert parse_edits(["yaw=10", "jawOpen = 0.4", "yaw=-2.5"]) == {"yaw": 7.5, "jawOpen": 0.4}
    for wrong in ("yaw", "yaw=", "=3", "yaw=much"):
        with pytest.raises(InputError, match=wrong):
            parse_edits([wrong])


def test_edits_compose_with_a_tilted_head():
    """Yaw turns about the head's own up axis: the crown, on that axis, stays where it is."""
    tilted = edit_track(HEAD, UPRIGHT, {"roll": 30.0})
    crown = [to_camera(torch.tensor([[[0.0, 0.2, 0.0]]]).double(), torch.zeros(1, 3).double(), t.rotation[:1], t.translation[:1])
             for t in (tilted, edit_track(HEAD, tilted, {"yaw": 25.0}))]  # fmt: skip
    assert torch.allclose(*crown, atol=1e-7)
