"""One call for every kind of track file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from small_head import random_track, small_head

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.fit.arkit import ARKIT
from comfyui_flow3d.flow3d.head.model import HeadModel
from comfyui_flow3d.flow3d.io.formats import READ_SUFFIXES, read_track, write_track
from comfyui_flow3d.flow3d.io.motions import load_motion


def test_suffixes_choose_the_format(tmp_path: Path, open_head: HeadModel) -> None:
    motion = load_motion("smile", open_head)
    for suffix in (".safetensors", ".csv", ".glb"):
        write_track(motion, tmp_path / f"a{suffix.upper()}", open_head)
    own, livelink = (read_track(tmp_path / f"a{s}") for s in (".SAFETENSORS", ".CSV"))
    assert torch.equal(own.expression, motion.expression) and own.head_digest == open_head.digest
    assert livelink.head_name == ARKIT and torch.allclose(livelink.expression, motion.expression, atol=1e-6)
    assert (tmp_path / "a.GLB").read_bytes()[:4] == b"glTF"


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_flame_parameters_need_their_head(tmp_path: Path, suffix: str) -> None:
    head = replace(small_head((), 60), shape_basis=torch.zeros(100, 8, 3), name="generic_model")
    values = {"shape": np.zeros((2, 100)), "exp": np.ones((2, 50)), "pose": np.zeros((2, 6)), "cam": np.ones((2, 3))}
    np.savez(tmp_path / "a.npz", **values) if suffix == ".npz" else save_file(values, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"a\..*need the FLAME model"):
        read_track(tmp_path / f"a{suffix}")
    track = read_track(tmp_path / f"a{suffix}", head, fps=50)
    assert track.fps == 50 and track.expression[:, :50].min() == 1 and not track.expression[:, 50:].any()
    assert track.head_name == "generic_model"
    if suffix == ".npz":
        assert torch.equal(read_track(tmp_path, head).expression, track.expression)  # the folder


def test_what_cannot_be_read_or_written(tmp_path: Path) -> None:
    head = small_head()
    track = random_track(head, 2, 0)
    (tmp_path / "cut.safetensors").write_bytes(b"\0" * 30)
    unread = {"a.fbx": "'.fbx'", "cut.safetensors": "not a readable", "absent.safetensors": "no such file", "a": "''"}
    for name, says in unread.items():
        with pytest.raises(InputError, match=says):
            read_track(tmp_path / name)
    for name, says in {"a.fbx": "written as '.fbx'", "a.npz": "cannot be written", "a.glb": "Give the head"}.items():
        with pytest.raises(InputError, match=says):
            write_track(track, tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["cut.safetensors"] and len(set(READ_SUFFIXES)) == len(READ_SUFFIXES)
