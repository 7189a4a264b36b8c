"""The command line: each command on small real input, each kind of bad input with its sentence and exit status."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from comfyui_flow3d import cli
from comfyui_flow3d.flow3d.fit.angles import pose_angles
from comfyui_flow3d.flow3d.head.files import OPEN_HEAD
from comfyui_flow3d.flow3d.head.load import load_head
from comfyui_flow3d.flow3d.io.images import read_image
from comfyui_flow3d.flow3d.io.motions import motion_names
from comfyui_flow3d.flow3d.io.tracks import load_track
from comfyui_flow3d.flow3d.io.video import VideoReader


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout, stderr of a command run in this process."""
    status = cli.main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / ((a.astype(float) - b) ** 2).mean()))


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("portrait") / "astronaut.png"
    Image.fromarray(astronaut()[:320, 60:380]).save(path)
    return path


def test_the_list_names_every_motion(capsys):
    status, out, _ = run(capsys, "demo", "--list")
    assert status == 0
    assert {line.split()[0] for line in out.splitlines()} == set(motion_names())


def test_demo_writes_what_it_prints(tmp_path, capsys):
    status, out, err = run(capsys, "demo", "--motion", "turn", "--frames", 12, "--size", 256, "-o", tmp_path / "new" / "output")
    assert status == 0, err
    printed = [Path(line.split(":", 1)[1].strip()) for line in out.splitlines()]
    assert [p.name for p in printed] == ["demo.mp4", "demo.jpg", "demo_track.safetensors"]
    assert sorted(p.name for p in (tmp_path / "new" / "output").iterdir()) == sorted(p.name for p in printed)
    frames = list(VideoReader(printed[0]))
    assert len(frames) == 12 and frames[0].shape == (256, 256, 3)
    source = np.asarray(Image.fromarray(astronaut()).resize((256, 256), Image.Resampling.BOX))
    assert psnr(frames[0], source) > 34  # the portrait itself, less the codec's loss
    assert min(read_image(printed[1]).shape[:2]) > 500
    track = load_track(printed[2])
    yaw = pose_angles(track.rotation)[:, 0]
    s = (11 / 25 - 0.28) / (1.2 - 0.28)  # how far the turn to 20 degrees has come by frame 11
    assert len(track) == 12 and track.head_name == "open"
    assert yaw[-1] - yaw[0] == pytest.approx(20 * (10 * s**3 - 15 * s**4 + 6 * s**5), abs=0.05)


def test_demo_loops(tmp_path, capsys):
    status, _, err = run(capsys, "demo", "--motion", "nod", "--frames", 95, "--loop", "--size", 64, "-o", tmp_path)
    assert status == 0, err
    assert len(list(VideoReader(tmp_path / "demo.mp4"))) == 95  # the motion has 91


def test_cancelling_leaves_nothing(tmp_path, capsys, monkeypatch):
    def cancel(self: cli.Bars, stage: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(cli.Bars, "__call__", cancel)
    status, out, err = run(capsys, "demo", "--frames", 8, "--size", 128, "-o", tmp_path)
    assert status == 130 and "cancelled" in err and out == ""
    assert not list(tmp_path.iterdir())


def test_fit_edit_and_animate(tmp_path, capsys, portrait, face_landmarker):
    """A portrait to a track, the track edited, and the portrait driven by it: the first frame is the source."""
    fitted, edited, video = tmp_path / "fit.safetensors", tmp_path / "edited.safetensors", tmp_path / "out.mp4"
    status, out, err = run(capsys, "fit", portrait, "-o", fitted, "--overlay", tmp_path / "overlay.png")
    assert status == 0, err
    assert "fit error" in out and str(fitted) in out
    assert read_image(tmp_path / "overlay.png").shape == read_image(portrait).shape
    status, _, err = run(capsys, "edit", fitted, "--set", "yaw=10", "--set", "jawOpen=0.3", "-o", edited)
    assert status == 0, err
    turned = pose_angles(load_track(edited).rotation) - pose_angles(load_track(fitted).rotation)
    assert turned[0, 0] == pytest.approx(10, abs=0.5)
    status, out, err = run(capsys, "animate", portrait, edited, "-o", video)
    assert status == 0, err
    (frame,) = VideoReader(video)
    assert psnr(frame, read_image(portrait)) > 36
    assert "1 frames" in out


def test_animate_with_an_edit(tmp_path, capsys, portrait, face_landmarker):
    """Ten degrees of yaw by --edit move the nose to the right, and every frame still shows a face."""
    from comfyui_flow3d.flow3d.fit.detect import MediaPipeDetector

    common = ("animate", portrait, "smile", "--frames", 4)
    for name, edits in (("still.mp4", ()), ("turned.mp4", ("--edit", "yaw=10"))):
        status, _, err = run(capsys, *common, *edits, "-o", tmp_path / name)
        assert status == 0, err
    with MediaPipeDetector(face_landmarker) as detector:
        nose, between = [], []
        for name in ("still.mp4", "turned.mp4"):
            faces = [detector.detect(image)[0] for image in VideoReader(tmp_path / name)]
            nose.append(np.mean([f.points[1, 0] for f in faces]))
            between.append(np.mean([f.points[[33, 263], 0].mean() for f in faces]))
    assert nose[1] - between[1] > nose[0] - between[0] + 1.5


def test_a_clip_keeps_its_sound(tmp_path, capsys, portrait, face_landmarker, test_data):
    status, out, err = run(capsys, "animate", portrait, test_data / "drivers" / "d18.mp4", "--frames", 6, "-o", tmp_path / "a.mp4")
    assert status == 0, err
    reader = VideoReader(tmp_path / "a.mp4")
    assert reader.has_audio and reader.fps == 30 and len(list(reader)) == 6
    assert "d18.mp4" in out and "fit error" in out


def test_two_people(tmp_path, capsys, face_landmarker, test_data):
    status, out, err = run(capsys, "fit", test_data / "sources" / "two_people.jpg", "-o", tmp_path / "a.safetensors")
    assert status == 0, err
    assert "2 faces" in out and "largest" in out


def test_convert_head(tmp_path, capsys):
    status, out, err = run(capsys, "convert-head", OPEN_HEAD, "-o", tmp_path / "head.safetensors")
    assert status == 0, err
    assert load_head(tmp_path / "head.safetensors").digest == load_head("open").digest
    assert "CC0" in out


def test_doctor(capsys):
    status, out, _ = run(capsys, "doctor")
    assert status == 0
    assert "torch" in out and "face_landmarker.task" in out


def test_bench_prints_numbers_for_scripts(capsys):
    status, out, err = run(capsys, "bench", "fit", "--json")
    assert status == 0, err
    assert 0 < json.loads(out)["fit.clip_ms"] < 2000


BAD = [
    (("animate", "{portrait}", "talk", "-o", "{tmp}/a.mp4", "--edit", "yawn=3"), "Did you mean yaw"),
    (("animate", "{portrait}", "talk", "-o", "{tmp}/a.mp4", "--edit", "yaw=nan"), "not a finite number"),
    (("animate", "{portrait}", "talk", "-o", "{tmp}/a.mp4", "--edit", "yaw"), "NAME=NUMBER"),
    (("animate", "{portrait}", "talk", "-o", "{tmp}/a.mp4", "--mode", "sideways"), "sideways"),
    (("animate", "{portrait}", "talk", "-o", "{tmp}/a.mp4", "--frames", "0"), "--frames is 0"),
    (("animate", "{portrait}", "talk", "-o", "{tmp}/a.mp4", "--loop"), "--loop needs"),
    (("animate", "{portrait}", "talk", "-o", "{tmp}/a.mp4", "--size", "7"), "--size is 7"),
    (("animate", "{portrait}", "talk", "-o", "{tmp}/a.gif"), "a.gif"),
    (("animate", "{portrait}", "talk", "-o", "{file}/a.mp4"), "Cannot write"),
    (("animate", "{portrait}", "talk", "-o", "{tmp}/a.mp4", "--head", "{tmp}/no.pkl"), "no.pkl"),
    (("demo", "--motion", "spin", "-o", "{tmp}"), "'spin'"),
    (("demo", "-o", "{file}/output", "--frames", "2"), "Cannot write"),
    (("fit", "{tmp}/absent.jpg", "-o", "{tmp}/a.safetensors"), "absent.jpg"),
    (("fit", "{portrait}", "-o", "{tmp}/a.npz"), "a.npz"),
    (("edit", "turn", "--set", "smile=much", "-o", "{tmp}/a.safetensors"), "smile=much"),
    (("edit", "turn", "--set", "jawopen=1", "-o", "{tmp}/a.safetensors"), "jawOpen"),
    (("edit", "{empty}", "--set", "yaw=1", "-o", "{tmp}/a.safetensors"), "empty"),
    (("convert-head", "{empty}", "-o", "{tmp}/h.safetensors"), "empty"),
]
BAD_PICTURES = [
    (("animate", "{empty}", "talk", "-o", "{tmp}/a.mp4"), "empty"),
    (("animate", "{blank}", "talk", "-o", "{tmp}/a.mp4"), "no face"),
    (("animate", "{portrait}", "{empty}", "-o", "{tmp}/a.mp4"), "empty"),
    (("animate", "{portrait}", "{emptyvideo}", "-o", "{tmp}/a.mp4"), "empty.mp4"),
    (("animate", "{portrait}", "spin", "-o", "{tmp}/a.mp4"), "spin"),
    (("fit", "{blank}", "-o", "{tmp}/a.safetensors"), "no face"),
]


def refused(tmp_path: Path, portrait: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str) -> None:
    inputs, out = tmp_path / "inputs", tmp_path / "out"
    inputs.mkdir()
    out.mkdir()
    places = {"file": inputs / "file", "empty": inputs / "empty", "emptyvideo": inputs / "empty.mp4", "blank": inputs / "blank.png"}
    for name in ("file", "empty", "emptyvideo"):
        places[name].write_bytes(b"")
    Image.new("RGB", (256, 256), "grey").save(places["blank"])
    status, _, err = run(capsys, *(a.format(tmp=out, portrait=portrait, **places) for a in arguments))
    message = err.strip().splitlines()[-1]
    assert status == 2, err
    assert message.startswith("flow3d: ") and says in message and "Traceback" not in err
    assert not list(out.iterdir()), "something was left behind"


@pytest.mark.parametrize(("arguments", "says"), BAD)
def test_bad_input_is_refused(tmp_path, portrait, capsys, arguments, says):
    refused(tmp_path, portrait, capsys, arguments, says)


@pytest.mark.parametrize(("arguments", "says"), BAD_PICTURES)
def test_bad_pictures_are_refused(tmp_path, portrait, capsys, face_landmarker, arguments, says):
    refused(tmp_path, portrait, capsys, arguments, says)


def test_a_missing_weight_is_a_failure_that_says_what_to_do(tmp_path, portrait, capsys, monkeypatch):
    monkeypatch.setenv("FLOW3D_MODELS", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    status, _, err = run(capsys, "animate", portrait, "talk", "-o", tmp_path / "a.mp4")
    assert status == 1
    for word in ("face_landmarker.task", "https://", "sha256", "Apache-2.0", "doctor --download"):
        assert word in err


def test_a_defect_is_one_sentence(capsys, monkeypatch):
    def broken(options: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(cli, "demo_command", broken)
    status, _, err = run(capsys, "demo", "--list")
    assert status == 1 and err == "flow3d: ZeroDivisionError: division by zero. Set FLOW3D_TRACEBACK=1 to see where it happened.\n"
    monkeypatch.setenv("FLOW3D_TRACEBACK", "1")
    assert "Traceback" in run(capsys, "demo", "--list")[2]


@pytest.mark.parametrize("arguments", [[], ["dance"], ["animate", "a.png"], ["bench", "tea"]])
def test_usage(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: flow3d" in capsys.readouterr().err
