"""The command line's choice of a face, and landmarks without any detector."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comfyui_flow3d import cli
from comfyui_flow3d.flow3d.demo import LANDMARKS
from comfyui_flow3d.flow3d.fit.detect import MediaPipeDetector
from comfyui_flow3d.flow3d.io.tracks import load_track


def run(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


def test_who_is_fitted(tmp_path: Path, capsys: pytest.CaptureFixture, face_landmarker: Path, test_data: Path) -> None:
    """The leftmost of two is on the left, the other on the right; a third is not there."""
    picture, places = test_data / "sources" / "two_people.jpg", []
    for face in ("left", "left:1"):
        assert run("fit", picture, "-o", tmp_path / "a.safetensors", "--face", face) == 0
        places.append(float(load_track(tmp_path / "a.safetensors").translation[0, 0]))
    assert places[0] < 0 < places[1]
    assert "number 1 (left to right) is taken" in capsys.readouterr().out
    assert run("fit", picture, "-o", tmp_path / "b.safetensors", "--face", 2) == 2
    assert "there is no face number 2 (largest): there are 2 faces" in capsys.readouterr().err
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [("--face", "right", "face is 'right'; it must be largest"), ("--cuts", "maybe", "--cuts is 'maybe'"),
     ("--landmarks", "absent.json", "absent.json: cannot be read")],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture, option: str, value: str, says: str) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    assert run("fit", tmp_path / "a.png", "-o", tmp_path / "a.safetensors", option, value) == 2
    assert says in capsys.readouterr().err


def test_landmarks_need_no_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, face_landmarker: Path) -> None:
    """A portrait of one's own, animated with no weight file at all, also scaled: the head lies where a detector sees it."""
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed: use `python run.py test`")
    photo = data.astronaut()
    Image.fromarray(photo).save(tmp_path / "a.png")
    content = json.loads(LANDMARKS.read_text(encoding="utf-8"))
    (tmp_path / "points.json").write_text(json.dumps({"points": content["points"]}), encoding="utf-8")
    monkeypatch.setenv("FLOW3D_MODELS", str(tmp_path / "nothing"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    given = ("--landmarks", tmp_path / "points.json")
    assert run("fit", tmp_path / "a.png", "-o", tmp_path / "a.safetensors", *given) == 0
    assert run("animate", tmp_path / "a.png", "nod", "-o", tmp_path / "a.mp4", "--frames", 2, "--size", 256, *given) == 0
    from comfyui_flow3d.flow3d.io.video import VideoReader

    with MediaPipeDetector(face_landmarker) as detector:
        (seen,) = detector.detect(next(iter(VideoReader(tmp_path / "a.mp4"))))
    eyes = np.array(content["points"])[[33, 263]] / 2
    assert np.linalg.norm(seen.points[[33, 263]] - eyes, axis=1).max() < 0.06 * np.linalg.norm(eyes[0] - eyes[1])
