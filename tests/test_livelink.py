"""Live Link Face recordings: the app's own layout in, the same out, and files that are none."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small_head import random_track, small_head
from test_arkit_map import disguised

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.fit.angles import pose_angles
from comfyui_flow3d.flow3d.fit.arkit import ARKIT, ARKIT_NAMES, on_head
from comfyui_flow3d.flow3d.fit.arkit_map import arkit_map
from comfyui_flow3d.flow3d.head.model import HeadModel
from comfyui_flow3d.flow3d.io.livelink import COLUMNS, FULL_LOOK, load_livelink, save_livelink
from comfyui_flow3d.flow3d.io.motions import load_motion, motion_names
from comfyui_flow3d.flow3d.track import DETECTED, INTERPOLATED, HeadTrack

HEADER = (
    "Timecode,BlendShapeCount,EyeBlinkLeft,EyeLookDownLeft,EyeLookInLeft,EyeLookOutLeft,EyeLookUpLeft,EyeSquintLeft,"
    "EyeWideLeft,EyeBlinkRight,EyeLookDownRight,EyeLookInRight,EyeLookOutRight,EyeLookUpRight,EyeSquintRight,EyeWideRight,"
    "JawForward,JawRight,JawLeft,JawOpen,MouthClose,MouthFunnel,MouthPucker,MouthRight,MouthLeft,MouthSmileLeft,"
    "MouthSmileRight,MouthFrownLeft,MouthFrownRight,MouthDimpleLeft,MouthDimpleRight,MouthStretchLeft,MouthStretchRight,"
    "MouthRollLower,MouthRollUpper,MouthShrugLower,MouthShrugUpper,MouthPressLeft,MouthPressRight,MouthLowerDownLeft,"
    "MouthLowerDownRight,MouthUpperUpLeft,MouthUpperUpRight,BrowDownLeft,BrowDownRight,BrowInnerUp,BrowOuterUpLeft,"
    "BrowOuterUpRight,CheekPuff,CheekSquintLeft,CheekSquintRight,NoseSneerLeft,NoseSneerRight,TongueOut,HeadYaw,HeadPitch,"
    "HeadRoll,LeftEyeYaw,LeftEyePitch,LeftEyeRoll,RightEyeYaw,RightEyePitch,RightEyeRoll"
)
"""The first line of a recording of the app."""


def recording(path: Path, clocks: list[str], header: str = HEADER, sep: str = "\r\n", **columns: list[float]) -> Path:
    """Rows at the timecodes; a column that is not named is 0, one that is given NaN is left empty in every cell of the row."""
    names = header.split(",")
    rows = [header]
    for t, clock in enumerate(clocks):
        cells = {n: f"{columns[n][t]:.10f}" if n in columns else "0.0000000000" for n in names[2:]}
        rows.append(",".join([clock, "61", *cells.values()]))
    path.write_text(sep.join(rows) + sep, encoding="utf-8", newline="")
    return path


def clocks(count: int, step: float = 2, base: int = 60, start: float = 0.0) -> list[str]:
    out = []
    for t in range(count):
        ticks = start * base + t * step
        s, frame = divmod(ticks, base)
        out.append(f"{int(s) // 3600 % 24:02}:{int(s) // 60 % 60:02}:{int(s) % 60:02}:{frame:06.3f}")
    return out


def weight(track: HeadTrack, name: str) -> list[float]:
    return track.expression[:, ARKIT_NAMES.index(name)].tolist()


# --- what is read ----------------------------------------------------------------------------------------------------


def test_columns_are_the_apps() -> None:
    assert ",".join(COLUMNS) == HEADER and len(COLUMNS) == 63


def test_weights_by_name_in_any_order_and_case(tmp_path: Path) -> None:
    """Older versions of the app wrote the right side first, in camel case."""
    values = {"JawOpen": [0.1, 0.2, 0.3], "MouthSmileRight": [0, 0.5, 1], "CheekPuff": [0.7, -0.1, 1.2]}
    a = load_livelink(recording(tmp_path / "a.csv", clocks(3), **values))
    names = HEADER.split(",")
    older = ",".join([*names[:2], *sorted(n[0].lower() + n[1:] for n in names[2:])])
    renamed = {k[0].lower() + k[1:]: v for k, v in values.items()}
    b = load_livelink(recording(tmp_path / "b.csv", clocks(3), older, sep="\n", **renamed))
    assert a.head_name == ARKIT and a.fps == 30 and len(a) == 3 and torch.equal(a.expression, b.expression)
    assert weight(a, "jawOpen") == pytest.approx([0.1, 0.2, 0.3]) and weight(a, "mouthSmileRight") == pytest.approx([0, 0.5, 1])
    assert weight(a, "cheekPuff") == pytest.approx([0.7, 0, 1])  # bounded
    assert (a.state == DETECTED).all()


@pytest.mark.parametrize(("column", "angle", "sign"), [("HeadYaw", 0, -1), ("HeadPitch", 1, -1), ("HeadRoll", 2, 1)])
def test_head_angles_in_the_edits_signs(tmp_path: Path, column: str, angle: int, sign: int) -> None:
    """Radians; yaw to the subject's right and pitch down are negative for us."""
    track = load_livelink(recording(tmp_path / "a.csv", clocks(2), **{column: [0.0, 0.3]}))
    expected = torch.zeros(2, 3)
    expected[1, angle] = sign * np.degrees(0.3)
    assert torch.allclose(pose_angles(track.rotation.double()), expected.double(), atol=1e-4)


def test_yaw_comes_first(tmp_path: Path) -> None:
    angles = {"HeadYaw": [0.5], "HeadPitch": [0.4], "HeadRoll": [-0.3]}
    track = load_livelink(recording(tmp_path / "a.csv", clocks(1), **angles))
    assert torch.allclose(pose_angles(track.rotation.double()).deg2rad(), torch.tensor([[-0.5, -0.4, -0.3]]).double(), atol=1e-6)


def test_the_head_turns_about_the_top_of_the_neck(tmp_path: Path) -> None:
    """As in the bundled motions: the joint of skull and spine stays."""
    angles = {"HeadPitch": [0, 0.1, 0.2, 0.3, 0.4], "HeadYaw": [0, 0.3, 0, -0.3, 0]}
    track = load_livelink(recording(tmp_path / "a.csv", clocks(5), **angles))
    joint = Rotation.from_rotvec(track.rotation.numpy()).apply([0.0, -0.055, -0.02]) + track.translation.numpy()
    assert np.abs(joint - joint[0]).max() < 1e-6 and (track.translation - track.translation[0]).norm(dim=1).max() > 0.01
    assert torch.allclose(track.translation[0], load_motion("nod").translation[0])


def test_eyes_look_where_the_weights_say(tmp_path: Path, open_head: HeadModel) -> None:
    """The signs of the app's recordings: the left eye's yaw is positive when it looks inwards, pitch when it looks down."""
    track = load_livelink(recording(
        tmp_path / "a.csv", clocks(2), LeftEyeYaw=[0.3, 0], RightEyeYaw=[0.3, 0], LeftEyePitch=[0, 0.2], EyeLookInLeft=[0.5, 0],
    ))  # fmt: skip
    look = Rotation.from_rotvec(track.joint("left_eye").numpy()).apply([0, 0, 1])  # head frame: x to the subject's left, y up
    assert look[0, 0] == pytest.approx(-np.sin(0.3), abs=1e-6) and look[1, 1] == pytest.approx(-np.sin(0.2), abs=1e-6)
    assert torch.allclose(track.joint("right_eye")[0], track.joint("left_eye")[0]) and not track.joint("right_eye")[1].any()
    assert weight(track, "eyeLookInLeft") == [0, 0]  # the joints have it
    # What the open head's expression of that name does has the same direction.
    inwards = open_head.expression_basis[open_head.expression_index("eyeLookInLeft")]
    pupil = open_head.dense.on(inwards, open_head.faces)[473]
    assert np.sign(pupil[0].item()) == np.sign(look[0, 0])


def test_gaze_of_a_file_without_eye_angles(tmp_path: Path) -> None:
    """Other programs write the 52 weights alone."""
    header = ",".join(HEADER.split(",")[:54])
    values = {"EyeLookOutLeft": [1.0, 0], "EyeLookInRight": [1.0, 0], "EyeLookUpRight": [0, 0.5]}
    track = load_livelink(recording(tmp_path / "a.csv", clocks(2), header, **values))
    left, right = np.degrees(track.joint("left_eye").numpy()), np.degrees(track.joint("right_eye").numpy())
    assert np.allclose(left[0], [0, FULL_LOOK["Out"], 0], atol=1e-4) and np.allclose(right[0], [0, FULL_LOOK["In"], 0], atol=1e-4)
    assert np.allclose(right[1], [-FULL_LOOK["Up"] / 2, 0, 0], atol=1e-4) and not track.rotation.any()


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fps", "base"), [(60, 60), (30, 60), (29.97, 60), (24, 60), (59.94, 60), (25, 25), (30, 30), (24, 24)])
def test_rates(tmp_path: Path, fps: float, base: int) -> None:
    track = load_livelink(recording(tmp_path / "a.csv", clocks(200, base / fps, base, start=12345.0)))
    assert track.fps == fps and len(track) == 200 and (track.state == DETECTED).all()


def test_a_clock_that_drifts(tmp_path: Path) -> None:
    """The app's real clock counts 1.9995 for a frame; no frame is lost or doubled over it."""
    ramp = np.linspace(0, 1, 4000).tolist()
    track = load_livelink(recording(tmp_path / "a.csv", clocks(4000, 1.9995), JawOpen=ramp))
    assert track.fps == 30 and len(track) == 4000 and weight(track, "jawOpen") == pytest.approx(ramp, abs=1e-6)


def test_over_midnight(tmp_path: Path) -> None:
    track = load_livelink(recording(tmp_path / "a.csv", clocks(60, 2, start=86399.0)))
    assert len(track) == 60 and track.fps == 30


def test_dropped_frames_and_frames_without_a_face(tmp_path: Path) -> None:
    """Both are interpolated, on the rotation group, and say so."""
    t = np.arange(12)
    every = dict(JawOpen=(t / 20).tolist(), HeadYaw=(0.3 * t - 1.8).tolist(), HeadPitch=[0.4] * 12)
    path = recording(tmp_path / "a.csv", clocks(12), **every)
    lines = path.read_bytes().decode().splitlines()
    full = load_livelink(path)
    lines[8] = lines[8].split(",")[0] + ",0" + "," * 61  # frame 7 without a face
    del lines[4:6]  # frames 3 and 4
    path.write_text("\n".join(lines + [lines[-1]]), encoding="utf-8")  # and the last row twice
    track = load_livelink(path)
    assert len(track) == 12 and track.fps == 30
    assert (track.state == INTERPOLATED).nonzero()[:, 0].tolist() == [3, 4, 7]
    assert weight(track, "jawOpen") == pytest.approx((t / 20).tolist(), abs=1e-6)
    kept = [0, 1, 2, 5, 6, 8, 9, 10, 11]
    assert torch.equal(track.rotation[kept], full.rotation[kept])
    apart = Rotation.from_rotvec(track.rotation.numpy()).inv() * Rotation.from_rotvec(full.rotation.numpy())
    assert apart.magnitude().max() < 0.03


# --- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", motion_names())
def test_bundled_motions_round_trip(tmp_path: Path, name: str) -> None:
    """To the file's ten digits; the position but for the turn about the neck is no part of the format."""
    motion = load_motion(name)
    save_livelink(motion, tmp_path / "a.csv")
    back = load_livelink(tmp_path / "a.csv")
    assert back.fps == 25 and len(back) == len(motion) and (back.state == DETECTED).all()
    for field in ("expression", "joints", "rotation"):
        assert torch.allclose(getattr(back, field), getattr(motion, field), atol=1e-6), field


@pytest.mark.parametrize("fps", [23.976, 24, 29.97, 48, 60, 120, 12.5])
def test_rates_round_trip(tmp_path: Path, fps: float) -> None:
    motion = replace(load_motion("medley"), fps=fps)
    save_livelink(motion, tmp_path / "a.csv")
    back = load_livelink(tmp_path / "a.csv")
    assert back.fps == pytest.approx(fps, abs=1e-3) and len(back) == len(motion)
    assert torch.allclose(back.expression, motion.expression, atol=1e-6)


def test_the_open_head_round_trip(tmp_path: Path, open_head: HeadModel) -> None:
    """Through the head and back; the neck's turn becomes the head's."""
    motion = load_motion("medley", open_head)
    save_livelink(motion, tmp_path / "a.csv", open_head)
    back = on_head(load_livelink(tmp_path / "a.csv"), open_head)
    assert torch.allclose(back.expression, motion.expression, atol=1e-6) and torch.allclose(back.joints, motion.joints, atol=1e-6)
    turned = motion.joints.clone()
    turned[:, 0, 1] = 0.2
    save_livelink(replace(motion, joints=turned, rotation=motion.rotation * 0), tmp_path / "b.csv", open_head)
    yaw = pose_angles(load_livelink(tmp_path / "b.csv").rotation.double())[:, 0]
    assert torch.allclose(yaw, torch.full_like(yaw, np.degrees(0.2)), atol=1e-4)


def test_eyelook_of_a_track_becomes_angles(tmp_path: Path) -> None:
    """A track may look by weights and by joints; the file says the sum in both of its ways."""
    motion = load_motion("nod")[:2]
    expression = torch.zeros_like(motion.expression)
    expression[:, ARKIT_NAMES.index("eyeLookOutLeft")] = 0.4
    joints = torch.zeros_like(motion.joints)
    joints[1, 2, 1] = np.radians(7)
    save_livelink(replace(motion, expression=expression, joints=joints), tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [float(r["LeftEyeYaw"]) for r in rows] == pytest.approx(np.radians([-14, -21]), abs=1e-5)
    assert [float(r["EyeLookOutLeft"]) for r in rows] == pytest.approx([0.4, 0.6], abs=1e-5)
    assert {r["BlendShapeCount"] for r in rows} == {"61"} and all(float(r["EyeLookInLeft"]) == 0 for r in rows)


def test_a_head_without_names_goes_through_the_map(tmp_path: Path, open_head: HeadModel) -> None:
    head = disguised(open_head)
    motion = load_motion("laugh")
    expression, joints = arkit_map(head).apply(motion.expression)
    track = replace(motion, expression=expression, joints=joints, head_name=head.name)
    save_livelink(track, tmp_path / "a.csv", head)
    error = (load_livelink(tmp_path / "a.csv").expression - motion.expression).abs()
    assert error.mean() < 2e-3 and error.max() < 0.1


def test_the_head_must_be_the_tracks(tmp_path: Path) -> None:
    head = small_head()
    track = random_track(head, 3, 0)
    for other in (None, replace(head, name="other", digest="7" * 64)):
        with pytest.raises(InputError, match="belongs to head model 'small'.*Give that model"):
            save_livelink(track, tmp_path / "a.csv", other)
    assert not list(tmp_path.iterdir())


# --- files that are none ---------------------------------------------------------------------------------------------

WHOLE = clocks(4)


@pytest.mark.parametrize(("change", "says"), [
    (lambda s: s.replace("JawOpen,", ""), "lacks the columns JawOpen"),
    (lambda s: "", "lacks the columns Timecode, EyeBlinkLeft, EyeLookDownLeft and 50 more"),
    (lambda s: s.split("\r\n")[0], "no row with a face"),
    (lambda s: s.replace("0.0000000000,0.00", "nan,0.00", 1), "row 2 has EyeBlinkLeft = nan"),
    (lambda s: s.replace("0.0000000000,0.00", "inf,0.00", 1), "row 2 has EyeBlinkLeft = inf"),
    (lambda s: s.replace("0.0000000000,0.00", "57.3,0.00", 1), "row 2 has EyeBlinkLeft = 57.3; it must be a weight"),
    (lambda s: s[:-14] + "40", "row 5 has RightEyeRoll = "),
    (lambda s: s.replace("0.0000000000,0.00", "half,0.00", 1), "row 2 has no number for EyeBlinkLeft"),
    (lambda s: s[: len(s) - 300], "row 5 has no number for "),
    (lambda s: s.replace("00:00:00:02.000", "2.000"), "row 3 has the timecode '2.000'"),
    (lambda s: s.replace("00:00:00:02.000", "00:00:nan:00"), "row 3 has the timecode"),
    (lambda s: s.replace("00:00:00:06.000", "00:00:00:00.000"), "row 5 is earlier"),
    (lambda s: s.replace("00:00:00:06.000", "00:10:00:00.000"), "seconds are missing after 0.07 s"),
    (lambda s: s.replace(",", ";"), "lacks the columns"),
    (lambda s: s.replace("61", "6\0001"), "not a text file"),
])  # fmt: skip
def test_broken_recordings(tmp_path: Path, change, says: str) -> None:
    text = recording(tmp_path / "a.csv", WHOLE).read_bytes().decode()
    (tmp_path / "a.csv").write_text(change(text), encoding="utf-8", newline="")
    with pytest.raises(InputError, match=rf"^a\.csv: .*{says}"):
        load_livelink(tmp_path / "a.csv")


def test_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "utf16.csv").write_text(HEADER, encoding="utf-16")
    (tmp_path / "noise.csv").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "quotes.csv").write_text(HEADER + '\n"' + "x" * 200_000, encoding="utf-8")
    for name, says in (("utf16", "UTF-8"), ("noise", "UTF-8"), ("quotes", "readable CSV"), ("absent", "no such file")):
        with pytest.raises(InputError, match=rf"{name}\.csv: .*{says}"):
            load_livelink(tmp_path / f"{name}.csv")
    from comfyui_flow3d.flow3d.io import livelink

    monkeypatch.setattr(livelink, "LARGEST_FILE", 100)
    with pytest.raises(InputError, match="too many"):
        load_livelink(recording(tmp_path / "a.csv", WHOLE))


def test_timecodes_that_ask_for_endless_frames(tmp_path: Path) -> None:
    """Many short steps and long gaps between them: a small file, billions of frames."""
    seconds = np.concatenate([[9.0 * k, 9.0 * k + 1e-4, 9.0 * k + 2e-4] for k in range(40)])
    marks = [f"00:{int(s) // 60:02}:{int(s) % 60:02}:{(s % 1) * 60:09.6f}" for s in seconds]
    with pytest.raises(InputError, match=r"^a\.csv: 120 rows for .* damaged"):
        load_livelink(recording(tmp_path / "a.csv", marks))


def test_a_byte_order_mark_and_semicolons_in_timecodes(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.csv", [c[:8] + ";" + c[9:] for c in clocks(3)], JawOpen=[0, 0.5, 1])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert weight(load_livelink(path), "jawOpen") == pytest.approx([0, 0.5, 1])
