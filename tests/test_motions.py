"""The bundled motions: what their names promise, smooth, looping and small."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scipy.spatial.transform import Rotation

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.fit.angles import FULL_JAW
from comfyui_flow3d.flow3d.fit.arkit import ARKIT_NAMES, on_head
from comfyui_flow3d.flow3d.head.model import HeadModel, to_camera
from comfyui_flow3d.flow3d.io.motions import FOLDER, load_motion, motion_names

REPOSITORY = Path(__file__).resolve().parents[1]


def euler(track) -> torch.Tensor:
    """(T, 3) yaw, pitch, roll in degrees by SciPy: intrinsic turns about y, x, z of the camera, with the edits' signs."""
    angles = Rotation.from_rotvec(track.rotation.numpy()).as_euler("YXZ", degrees=True)
    return torch.tensor(angles * [-1, -1, 1])


def test_the_promised_motions_are_there():
    promised = {"nod", "turn", "tilt", "smile", "talk", "blink-and-wink", "surprise", "idle", "look-around", "laugh"}
    assert promised <= set(motion_names())
    with pytest.raises(InputError, match="turn"):
        load_motion("spin")


@pytest.mark.parametrize("name", motion_names())
def test_each_is_whole(name):
    track = load_motion(name)
    assert track.fps == 25 and 3 <= (len(track) - 1) / 25 <= 6
    assert (FOLDER / f"{name}.safetensors").stat().st_size < 100_000
    ends = track[[0, -1]]
    assert ends.expression.abs().max() == 0 and ends.joints.abs().max() == 0 and ends.rotation.abs().max() == 0
    assert (ends.translation[0] == ends.translation[1]).all()
    assert track.expression.min() >= 0 and track.expression.max() <= 1
    assert track.expression.shape[1] == len(ARKIT_NAMES) == 52
    moves = track.expression.amax() + track.rotation.abs().amax()
    assert moves > 0.3


@pytest.mark.parametrize("name", motion_names())
def test_heads_turn_smoothly(name):
    """No jump in position, speed or acceleration of the head that a viewer would see as a jerk."""
    angles = euler(load_motion(name))
    speed, jerk = angles.diff(dim=0) * 25, angles.diff(n=3, dim=0) * 25**3
    assert speed.abs().max() < 110  # degrees a second: a brisk human head
    assert jerk.abs().max() < 10_000
    assert speed[[0, -1]].abs().max() < 8


def test_turn_reaches_twenty_degrees():
    yaw, pitch, roll = euler(load_motion("turn")).unbind(-1)
    assert abs(yaw.max() - 20) < 1e-4 and abs(yaw.min() + 20) < 1e-4
    assert pitch.abs().max() < 3 and roll.abs().max() < 3


def test_tilt_and_nod_reach_what_they_promise():
    roll = euler(load_motion("tilt"))[:, 2]
    assert abs(roll.max() - 15) < 1e-4 and abs(roll.min() + 15) < 1e-4
    assert abs(euler(load_motion("nod"))[:, 1].min() + 14) < 1e-4


def peak(name: str, expression: str) -> float:
    return float(load_motion(name).expression[:, ARKIT_NAMES.index(expression)].max())


def test_faces_do_what_they_promise():
    assert peak("smile", "mouthSmileLeft") > 0.8 and peak("smile", "mouthSmileRight") > 0.8
    assert peak("surprise", "browInnerUp") > 0.8 and peak("surprise", "jawOpen") > 0.5 and peak("surprise", "eyeWideLeft") > 0.7
    assert peak("laugh", "jawOpen") > 0.4 and peak("laugh", "mouthSmileLeft") > 0.8
    for name in ("jawOpen", "mouthFunnel", "mouthPucker", "mouthClose", "mouthStretchLeft", "mouthPressLeft"):
        assert peak("talk", name) > 0.04, name
    wink = load_motion("blink-and-wink").expression[:, [ARKIT_NAMES.index("eyeBlink" + s) for s in ("Left", "Right")]]
    left, right = wink.unbind(-1)
    assert ((left > 0.95) & (right > 0.95)).any() and ((left > 0.95) & (right < 0.05)).any()
    assert ((left < 0.05) & (right > 0.95)).any()
    gaze = load_motion("look-around").joint("left_eye")[:, 1]
    assert gaze.max() > 0.3 and gaze.min() < -0.3


def test_talk_has_the_rhythm_of_speech():
    """The jaw opens two and a half to six times a second while there is speech."""
    jaw = load_motion("talk").expression[:, ARKIT_NAMES.index("jawOpen")]
    inner = jaw[1:-1]
    openings = ((inner > jaw[:-2]) & (inner >= jaw[2:]) & (inner > 0.12)).sum()
    assert 2.5 <= float(openings) / (float((jaw > 0.03).sum()) / 25) <= 6


def test_nod_turns_about_the_neck():
    """The joint of skull and spine stays; the foot of the neck and the face move to opposite sides."""
    track = load_motion("nod")
    points = torch.tensor([[0.0, 0.055, 0.02], [0.0, 0.15, 0.12], [0.0, 0.0, 0.0]])  # joint, nose, root; head frame
    seen = to_camera(points.expand(len(track), 3, 3), torch.zeros(len(track), 3), track.rotation, track.translation)
    reach = (seen - seen[:1]).norm(dim=-1).amax(0)
    assert reach[0] < 1e-5 and reach[1] > 0.02 and reach[2] > 0.005


def test_a_head_without_arkit_names_takes_pose_eyes_and_jaw():
    head = HeadModel(
        "plain", torch.zeros(4, 3), torch.zeros(2, 4, 3), torch.zeros(7, 4, 3), torch.zeros(36, 4, 3),
        torch.full((5, 4), 0.25), torch.full((4, 5), 0.2), torch.tensor([[0, 1, 2]]), digest="d",
    )  # fmt: skip
    talk = load_motion("talk", head)
    assert talk.expression.shape == (len(talk), 7) and not talk.expression.any() and talk.shape.shape == (2,)
    opening = load_motion("talk").expression[:, ARKIT_NAMES.index("jawOpen")]
    assert torch.allclose(torch.rad2deg(talk.jaw[:, 0]), FULL_JAW * opening)
    assert (talk.rotation == load_motion("talk").rotation).all() and talk.head_digest == "d"
    assert on_head(talk, head) is talk


def test_the_script_makes_the_same_bytes(tmp_path):
    subprocess.run([sys.executable, str(REPOSITORY / "scripts" / "build_motions.py"), str(tmp_path)], check=True, cwd=tmp_path)
    for name in motion_names():
        assert (tmp_path / f"{name}.safetensors").read_bytes() == (FOLDER / f"{name}.safetensors").read_bytes()
