"""`flow3d convert-track`: a motion from one format into another."""

from pathlib import Path

import numpy as np
import pytest

from comfyui_flow3d import cli
from comfyui_flow3d.flow3d.io.tracks import load_track


def run(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


def test_from_format_to_format(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("convert-track", "smile", "-o", tmp_path / "a.csv") == 0
    assert run("convert-track", tmp_path / "a.csv", "-o", tmp_path / "b.safetensors") == 0
    assert load_track(tmp_path / "b.safetensors").head_name == "ARKit"
    assert run("convert-track", tmp_path / "b.safetensors", "-o", tmp_path / "c.glb") == 0
    assert (tmp_path / "c.glb").read_bytes()[:4] == b"glTF"
    assert "at 25 frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [("d.npz", "e.csv", "d.npz: DECA"), ("smile", "e.fbx", ".fbx"), ("no.csv", "e.csv", "no such file")],
)
def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture, source: str, target: str, says: str) -> None:
    np.savez(tmp_path / "d.npz", exp=np.zeros((2, 50)), shape=np.zeros((2, 100)), pose=np.zeros((2, 6)))
    given = source if source == "smile" else tmp_path / source
    assert run("convert-track", given, "-o", tmp_path / target) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / target).exists()
