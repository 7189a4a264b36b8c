"""Edits: signs by what a camera sees, angles by SciPy, names and numbers that are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small_head import CHIN, CROWN, FOOT, NAMES, NOSE, random_track, small_head

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.fit.angles import FULL_JAW, pose_angles, pose_rotation
from comfyui_flow3d.flow3d.fit.arkit import ARKIT_NAMES
from comfyui_flow3d.flow3d.fit.edit import GAINS, edit_names, edit_track, parse_edits
from comfyui_flow3d.flow3d.fit.keyframes import Keyframes
from comfyui_flow3d.flow3d.fit.sliders import expression_sliders
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
    assert change[NAMES.index("mouthSmileLeft")] == pytest.approx(0.7 * 0.25 + 0.1)
    assert change[NAMES.index("mouthSmileRight")] == pytest.approx(0.7 * 0.25)
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
    assert edit_track(HEAD, TRACK, {n: 1.0 if n in GAINS else 0.0 for n in edit_names(HEAD)}) is TRACK
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


# --- over time -------------------------------------------------------------------------------------------------------

FIELDS = ("expression", "joints", "rotation", "translation", "confidence", "state")


def test_keyframes_are_the_edits_of_each_frame():
    """Oracle: the same edits as plain numbers, frame by frame."""
    over_time = {
        "yaw": Keyframes((0, 3), (0.0, 20.0)), "x": Keyframes((1, 2), (0.0, 3.0)), "gazePitchLeft": Keyframes((0, 1), (0.0, 9.0)),
        "smile": Keyframes((1, 3), (0.0, 0.4)), "poseGain": Keyframes((0, 2), (1.0, 2.0)),
    }  # fmt: skip
    edited = edit_track(HEAD, TRACK, over_time)
    for t in range(len(TRACK)):
        alone = edit_track(HEAD, TRACK, {n: float(k.at(4)[t]) for n, k in over_time.items()})
        for name in FIELDS:
            assert torch.allclose(getattr(edited, name)[t], getattr(alone, name)[t], atol=1e-12), (name, t)


def test_a_frame_at_rest_keeps_its_bits():
    pulse = {
        n: Keyframes((1, 2, 3), (r, r + 0.3, r)) for n in edit_names(HEAD) for r in [1.0 if n in GAINS else 0.0]
    }  # fmt: skip
    edited = edit_track(HEAD, TRACK, pulse)
    for name in FIELDS:
        now, then = getattr(edited, name), getattr(TRACK, name)
        assert torch.equal(now[[0, 1, 3]], then[[0, 1, 3]]), name
        assert name in ("confidence", "state") or not torch.equal(now[2], then[2]), name


def test_a_still_becomes_a_clip():
    still, keys = TRACK[1:2], {"yaw": Keyframes((0, 24, 48), (0.0, 20.0, 0.0), "smooth")}
    clip = edit_track(HEAD, still, keys)
    assert len(clip) == 49 and clip.fps == still.fps
    for frame in (0, 48):
        assert all(torch.equal(getattr(clip, n)[frame], getattr(still, n)[0]) for n in FIELDS)
    assert torch.allclose(clip.rotation[24], edit_track(HEAD, still, {"yaw": 20.0}).rotation[0])
    assert len(edit_track(HEAD, still, keys, frames=10)) == 10
    assert len(edit_track(HEAD, still, {}, frames=7)) == 7
    assert len(edit_track(HEAD, TRACK, keys)) == 4  # a clip keeps its length


@pytest.mark.parametrize(("track", "frames", "says"), [
    (TRACK, 9, "4 frames, not 9"), (TRACK[:1], 0, "0 frames"), (TRACK[:1], 10**7, "10000000 frames"),
])  # fmt: skip
def test_lengths_that_cannot_be(track, frames, says):
    with pytest.raises(InputError, match=says):
        edit_track(HEAD, track, {"yaw": 1.0}, frames)


def test_keyframes_in_text():
    edits = parse_edits(["yaw=0:0,24:20,48:0", "roll=3", "yaw=5", "poseGain=2", "poseGain=3"])
    assert edits == {"yaw": Keyframes((0, 24, 48), (5.0, 25.0, 5.0)), "roll": 3.0, "poseGain": 6.0}
    assert parse_edits(["jawGain: 0: 1, 8: 0.5", "jawGain = 2"]) == {"jawGain": Keyframes((0, 8), (2.0, 1.0))}
    with pytest.raises(InputError, match="'yaw' has keyframes twice"):
        parse_edits(["yaw: 0: 1", "yaw: 0: 2"])


# --- sliders over several expressions --------------------------------------------------------------------------------


def test_every_two_sided_name_is_there():
    sliders = expression_sliders(ARKIT_NAMES)
    for left in [n for n in ARKIT_NAMES if n.endswith("Left") and n not in ("jawLeft", "mouthLeft")]:
        both = (left, left.removesuffix("Left") + "Right")
        assert sliders[left.removesuffix("Left")] == tuple((n, None, 1) for n in both)
    assert "jaw" not in sliders and "mouth" not in sliders
    for name in ("smile", "blink", "frown", "squint", "browUp", "mouthCorners", "eyelids", "brows"):
        assert {a.up for a in sliders[name]} >= {a.up for side in ("Left", "Right") for a in sliders[name + side]}
        assert all(a.up.endswith("Left") for a in sliders[name + "Left"])


def test_a_full_smile_is_a_natural_one(open_head):
    """Its corners go up and out by about a centimetre, less than the widest smile's, and the cheeks rise."""
    corner, cheek, upper = 291, 425, 386

    from comfyui_flow3d.flow3d.io.motions import load_motion

    still = load_motion("idle", open_head)[[0]]
    still = replace(still, rotation=torch.zeros(1, 3), expression=torch.zeros(1, 52), joints=torch.zeros(1, 4, 3))

    def moved(**edits):
        now, then = (1000 * open_head.dense.on(t.vertices(open_head), open_head.faces)[0]
                     for t in (edit_track(open_head, still, edits), still))  # fmt: skip
        return now - then

    smile, widest, corners = moved(smile=1.0), moved(mouthSmile=1.0), moved(mouthCorners=1.0)
    assert 8 < smile[corner].norm() < 13 < widest[corner].norm()
    assert torch.allclose(smile[corner], corners[corner], atol=0.1) and smile[cheek, 1] < corners[cheek, 1] - 1.5  # y is down
    assert smile[upper].norm() < 1.0


def test_opposites():
    """A slider with two directions takes away what stands against it before it raises anything."""
    head = small_head(("mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight"))
    start = torch.tensor([[0.2, 0.0, 0.0, 0.5]]).double()
    track = replace(random_track(head, 1, 3), expression=start)

    def moved(**edits):
        return edit_track(head, track, edits).expression[0]

    assert torch.allclose(moved(mouthCorners=0.3), torch.tensor([0.41, 0.0, 0.0, 0.2]).double())
    assert torch.allclose(moved(mouthCorners=-0.3), torch.tensor([0.0, 0.0, 0.3 - 0.2 / 0.7, 0.8]).double())
    assert torch.allclose(moved(mouthCorners=-0.1), torch.tensor([0.13, 0.0, 0.0, 0.6]).double())
    assert torch.allclose(moved(mouthCornersRight=0.7), torch.tensor([0.2, 0.14, 0.0, 0.0]).double())
    assert torch.allclose(moved(mouthCorners=-3.0), torch.tensor([0.0, 0.0, 1.0, 1.0]).double())


def test_mouth_close_closes_what_the_jaw_has_opened():
    jaw, close = NAMES.index("jawOpen"), NAMES.index("mouthClose")
    shut = replace(UPRIGHT, expression=torch.zeros_like(UPRIGHT.expression))
    assert not edit_track(HEAD, shut, {"mouthClose": 1.0}).expression.any()
    both = edit_track(HEAD, shut, {"mouthClose": 1.0, "jawOpen": 0.6}).expression[0]
    assert both[jaw] == both[close] == pytest.approx(0.6)
    pressed = replace(shut, expression=shut.expression + 0.3 * torch.eye(9)[close].double())
    assert torch.equal(edit_track(HEAD, pressed, {"mouthClose": 0.5}).expression, pressed.expression)


@pytest.fixture(scope="module")
def open_still(open_head):
    from comfyui_flow3d.flow3d.io.motions import load_motion

    g = torch.Generator().manual_seed(9)
    still = load_motion("idle", open_head)[[0]]
    expression = 0.3 * torch.rand(1, 52, generator=g)
    expression[:, open_head.expression_index("jawOpen")] = 0.5  # so that mouthClose has something to close
    return replace(
        still, shape=0.6 * torch.randn(open_head.n_shape, generator=g), rotation=torch.tensor([[0.1, -0.3, 0.05]]),
        joints=0.1 * torch.randn(1, 4, 3, generator=g), expression=expression,
    )  # fmt: skip


def rim(head):
    """The vertices at the open edge of the mesh, around the foot of the neck."""
    edges = torch.cat([head.faces[:, [i, (i + 1) % 3]] for i in range(3)]).sort(1).values
    pairs, count = torch.unique(edges, dim=0, return_counts=True)
    return pairs[count == 1].unique()


@pytest.mark.parametrize("name", ARKIT_NAMES)
def test_an_expression_does_not_move_the_skull(open_head, open_still, name):
    """Pose, joints and the neck's rim stay, to 1e-6 m, while something does move."""
    edited = edit_track(open_head, open_still, {name: 1.0})
    for field in ("rotation", "translation", "joints"):
        assert torch.equal(getattr(edited, field), getattr(open_still, field))
    head = open_head.to(dtype=torch.float64)
    now, then = (replace(t, **{n: getattr(t, n).double() for n in ("shape", "expression", "joints", "rotation", "translation")})
                 .vertices(head)[0] for t in (edited, open_still))  # fmt: skip
    moved = (now - then).norm(dim=-1)
    assert moved.max() > 1e-3
    assert moved[rim(open_head)].max() < 1e-6


# --- what the track itself does --------------------------------------------------------------------------------------


def test_pose_gain_on_the_group():
    """Oracle: SciPy's rotation vectors of the change since the first frame, for head and neck; all else keeps its bits."""
    edited = edit_track(HEAD, TRACK, {"poseGain": 0.4})
    for name in ("rotation", "neck"):
        start = Rotation.from_rotvec(getattr(TRACK, name).numpy())
        expected = Rotation.from_rotvec(0.4 * (start * start[0].inv()).as_rotvec()) * start[0]
        assert (expected.inv() * Rotation.from_rotvec(getattr(edited, name).numpy())).magnitude().max() < 1e-6
    for name in ("expression", "translation", "jaw", "eyes"):
        assert torch.equal(getattr(edited, name), getattr(TRACK, name))
    assert torch.equal(edited.rotation[0], TRACK.rotation[0])
    frozen = edit_track(HEAD, TRACK, {"poseGain": 0.0}).rotation
    assert torch.allclose(frozen, TRACK.rotation[:1].expand(4, 3), atol=1e-6)


@pytest.mark.parametrize(("gain", "expressions", "joints"), [
    ("expressionGain", ("browInnerUp", "eyeBlinkLeft", "eyeBlinkRight", "mouthSmileLeft", "mouthSmileRight"), ()),
    ("jawGain", ("jawOpen", "mouthClose"), ("jaw",)),
    ("gazeGain", ("eyeLookDownLeft", "eyeLookDownRight"), ("left_eye", "right_eye")),
])  # fmt: skip
def test_gains_away_from_rest(gain, expressions, joints):
    edited = edit_track(HEAD, TRACK, {gain: 1.7})
    for i, name in enumerate(NAMES):
        wanted = (1.7 * TRACK.expression[:, i]).clamp(0, 1) if name in expressions else TRACK.expression[:, i]
        assert torch.allclose(edited.expression[:, i], wanted, atol=0 if name not in expressions else 1e-12), name
    for name in ("neck", "jaw", "left_eye", "right_eye"):
        if name in joints:
            assert torch.allclose(edited.joint(name), 1.7 * TRACK.joint(name), atol=1e-6), name
        else:
            assert torch.equal(edited.joint(name), TRACK.joint(name)), name


def test_gains_of_a_head_without_names():
    plain = small_head((), 9)
    assert torch.allclose(edit_track(plain, TRACK, {"expressionGain": 3.0}).expression, 3 * TRACK.expression)


def test_neutralise():
    still = TRACK[:1]
    eyes = [NAMES.index(n) for n in ("eyeLookDownLeft", "eyeLookDownRight")]
    face = [i for i in range(len(NAMES)) if i not in eyes]
    neutral = edit_track(HEAD, still, {"neutralise": 1.0})
    assert not neutral.expression[:, face].any() and neutral.jaw.abs().max() < 1e-6
    assert torch.equal(neutral.expression[:, eyes], still.expression[:, eyes]) and torch.equal(neutral.eyes, still.eyes)
    assert torch.equal(neutral.rotation, still.rotation)
    half = edit_track(HEAD, still, {"neutralise": 0.5})
    assert torch.allclose(half.expression[:, face], still.expression[:, face] / 2)
    clip = edit_track(HEAD, TRACK, {"neutralise": 0.5})
    assert torch.allclose(clip.expression[:, face], (TRACK.expression - 0.5 * TRACK.expression[0])[:, face].clamp(0, 1))
    turned = Rotation.from_rotvec(TRACK.jaw.numpy()) * Rotation.from_rotvec(-0.5 * TRACK.jaw[0].numpy())
    assert (turned.inv() * Rotation.from_rotvec(clip.jaw.numpy())).magnitude().max() < 1e-6
    for wrong in (1.2, -0.1, Keyframes((0, 3), (0.0, 2.0))):
        with pytest.raises(InputError, match="'neutralise'.*between 0 and 1"):
            edit_track(HEAD, TRACK, {"neutralise": wrong})


def test_neutralise_closes_the_lips(open_head, open_still):
    """Also lips that the personal offsets hold apart, as in a fit of a smile with teeth; measured on the mesh."""
    lower = torch.zeros(478, 3)
    lower[[14, 87, 317, 178, 402, 88, 318, 17, 84, 314], 1] = -0.012
    smile = replace(
        open_still, rotation=torch.zeros(1, 3), joints=torch.zeros(1, 4, 3), offsets=open_head.carry_landmarks(lower)
    )

    def gap(track):
        y = open_head.dense.on(track.vertices(open_head), open_head.faces)[0, :, 1]
        return float((y[[178, 87, 14, 317, 402]] - y[[81, 82, 13, 312, 311]]).mean())

    bare = replace(smile, expression=torch.zeros(1, 52))
    assert gap(bare) > 0.003
    assert abs(gap(edit_track(open_head, smile, {"neutralise": 1.0}))) < 1e-4
    assert edit_track(open_head, smile, {"neutralise": 0.0}) is smile


def test_the_tracks_own_motion_is_changed_before_edits_are_added():
    edited = edit_track(HEAD, TRACK, {"poseGain": 0.0, "yaw": 15.0, "neutralise": 1.0, "jawOpen": 0.25})
    first = edit_track(HEAD, TRACK[:1], {"yaw": 15.0})
    assert torch.allclose(edited.rotation, first.rotation.expand(4, 3), atol=1e-6)
    assert edited.expression[0, NAMES.index("jawOpen")] == pytest.approx(0.25)
