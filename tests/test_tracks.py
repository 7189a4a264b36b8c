"""Track files: what goes in comes out, and what is wrong is named."""

import json
from dataclasses import fields, replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.io.tracks import load_track, save_track
from comfyui_flow3d.flow3d.track import HeadTrack


def some_track(frames: int = 5) -> HeadTrack:
    g = torch.Generator().manual_seed(0)

    def r(*size: int) -> Tensor:
        return torch.randn(*size, generator=g)

    return HeadTrack(
        shape=r(10), expression=r(frames, 7), joints=r(frames, 4, 3), rotation=r(frames, 3), translation=r(frames, 3).abs(),
        camera=Camera(500.5, 255.25, 200.0, 512, 400), fps=29.97, confidence=r(frames).sigmoid(),
        state=torch.arange(frames) % 3, offsets=r(12, 3), frame_offsets=r(frames, 12, 3), landmark_offsets=r(frames, 478, 3),
        error=r(frames).abs(), rotation_deviation=r(frames).abs(), translation_deviation=r(frames).abs(),
        shape_deviation=r(10).abs(), texture=r(12, 3).sigmoid(), light=r(9, 3), head_name="some head", head_digest="ab" * 32,
    )  # fmt: skip


def test_every_field_round_trips(tmp_path):
    track = some_track()
    save_track(track, tmp_path / "a.safetensors")
    back = load_track(tmp_path / "a.safetensors")
    for field in fields(HeadTrack):
        was, now = getattr(track, field.name), getattr(back, field.name)
        assert was is not None, f"some_track leaves {field.name} out: this test must cover it"
        assert torch.equal(was, now) and was.dtype == now.dtype if isinstance(was, Tensor) else was == now, field.name
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_optional_fields_may_be_absent(tmp_path):
    looks = {"texture": None, "light": None}  # as in files that were saved before there were any
    track = replace(some_track(1), offsets=None, frame_offsets=None, landmark_offsets=None, confidence=None, state=None, **looks)
    save_track(track, tmp_path / "a.safetensors")
    back = load_track(tmp_path / "a.safetensors")
    assert back.texture is None and back.light is None
    assert back.offsets is None and back.landmark_offsets is None and len(back) == 1
    assert torch.equal(back.confidence, torch.ones(1)) and torch.equal(back.state, torch.zeros(1, dtype=torch.int64))


def test_looks_stay_when_frames_are_chosen():
    track = some_track()
    for part in (track[1:3], track[[0, 0, 4]]):
        assert part.texture is track.texture and part.light is track.light
    with pytest.raises(ValueError, match=r"light is \(3, 9\)"):
        replace(track, light=torch.zeros(3, 9))


def test_keys_are_field_names(tmp_path):
    """The documented format, read with safetensors alone."""
    save_track(some_track(), tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as f:
        assert {"shape", "expression", "joints", "rotation", "translation", "landmark_offsets"} <= set(f.keys())
        meta = json.loads(f.metadata()["flow3d"])
    assert meta["camera"] == {"focal": 500.5, "cx": 255.25, "cy": 200.0, "width": 512, "height": 400}
    assert meta["fps"] == 29.97 and meta["format_version"] == 1 and meta["joint_names"][1] == "neck"


def damaged(path, arrays: dict | None = None, **meta) -> None:
    """`some_track` with arrays (None: left out) and metadata replaced."""
    save_track(some_track(), path)
    with safe_open(path, "pt") as f:
        kept = {k: f.get_tensor(k) for k in f.keys()} | (arrays or {})
        described = json.loads(f.metadata()["flow3d"]) | meta
    kept = {k: v.contiguous() for k, v in kept.items() if v is not None}
    save_file(kept, path, {"flow3d": json.dumps({k: v for k, v in described.items() if v is not None})})


NAN = some_track().rotation.clone()
NAN[2, 1] = float("nan")


@pytest.mark.parametrize(("arrays", "meta", "says"), [
    ({"rotation": NAN}, {}, "rotation holds NaN"),
    ({"rotation": torch.zeros(4, 3)}, {}, r"rotation is \(4, 3\)"),
    ({"rotation": torch.zeros(5, 4)}, {}, r"rotation is \(5, 4\)"),
    ({"joints": torch.zeros(5, 3, 3)}, {}, "joints"),
    ({"translation": None}, {}, "lacks translation"),
    ({"expression": torch.zeros(0, 7)}, {}, "expression"),
    ({"expression": torch.zeros(5, 7, dtype=torch.int64)}, {}, "not floats"),
    ({"shape": torch.zeros(1, 10)}, {}, "shape is"),
    ({"state": torch.full((5,), 3)}, {}, "state"),
    ({"confidence": torch.zeros(5, 1)}, {}, "confidence"),
    ({"offsets": torch.zeros(12, 2)}, {}, "offsets"),
    ({"landmark_offsets": torch.zeros(3, 478, 3)}, {}, "landmark_offsets"),
    ({"texture": torch.zeros(12, 4)}, {}, r"texture is \(12, 4\)"),
    ({"texture": torch.zeros(11, 3)}, {}, r"texture is \(11, 3\), not \(12, 3\)"),
    ({"texture": torch.full((12, 3), 1.5)}, {}, "texture holds values outside 0..1"),
    ({"texture": torch.full((12, 3), float("nan"))}, {}, "texture holds NaN"),
    ({"light": torch.zeros(9)}, {}, r"light is \(9,\)"),
    ({"light": torch.zeros(4, 3)}, {}, r"light is \(4, 3\)"),
    ({}, {"format_version": 99}, "version 99"),
    ({}, {"format": "another"}, "some other"),
    ({}, {"fps": 0}, "frame rate"),
    ({}, {"fps": "fast"}, "frame rate"),
    ({}, {"camera": {"focal": 0, "cx": 1, "cy": 1, "width": 1, "height": 1}}, "focal"),
    ({}, {"camera": {"focal": 1}}, "no camera"),
    ({}, {"camera": None}, "camera"),
    ({}, {"joint_names": ["root"]}, "joints"),
])  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, arrays, meta, says):
    damaged(tmp_path / "bad.safetensors", arrays, **meta)
    with pytest.raises(InputError, match=says) as caught:
        load_track(tmp_path / "bad.safetensors")
    assert "bad.safetensors" in str(caught.value)


def test_files_that_are_no_tracks(tmp_path):
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "noise.safetensors").write_bytes(bytes(range(256)) * 9)
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    save_track(some_track(), tmp_path / "whole.safetensors")
    data = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[: len(data) // 2])
    for name in ("empty", "noise", "other", "cut", "absent"):
        with pytest.raises(InputError, match=name):
            load_track(tmp_path / f"{name}.safetensors")


def test_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="Cannot write"):
        save_track(some_track(), tmp_path / "file" / "a.safetensors")
