"""Tracks in the forms of ComfyUI's video nodes, read by the nodes themselves where ComfyUI is here."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from comfyui_flow3d.flow3d.flow.tracks import PointTracks
from comfyui_flow3d.flow3d.flow.wan_tracks import as_json, as_tracks, samples_read, wan_length

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 96, 64
READ_LENGTHS = (5, 17, 49, 81, 101, 161)


def wandering(length: int, count: int = 6) -> PointTracks:
    """Points on smooth ways through the picture, the last but one hidden for a while, the last one from the middle on."""
    t = torch.linspace(0, 1, length)[:, None]
    n = torch.arange(count)
    x = 10 + 12 * n + 14 * (3 * t + n).sin()
    y = 12 + 7 * n + 6 * (5 * t + 2 * n).cos()
    visible = torch.ones(length, count, dtype=torch.bool)
    visible[length // 4 : length // 2, -2] = False
    visible[length // 2 :, -1] = False
    return PointTracks(torch.stack([x, y], -1), visible)


def still_but_hidden(length: int = 17) -> PointTracks:
    """One point that stays, hidden in two of the pictures 5 to 8, which make the third latent picture."""
    tracks = PointTracks(torch.tensor([44.0, 28.0]).repeat(length, 1, 1), torch.ones(length, 1, dtype=torch.bool))
    tracks.visible[6:8] = False
    return tracks


@pytest.fixture(scope="module")
def answers(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, np.ndarray]]:
    """What ComfyUI makes of `wandering` at each of READ_LENGTHS, and of `still_but_hidden`."""
    folder = tmp_path_factory.mktemp("wan")
    request, answer = folder / "request.json", folder / "answer.npz"
    sent = [*map(wandering, READ_LENGTHS), still_but_hidden()]
    size = {"width": WIDTH, "height": HEIGHT}
    asked = [{"text": as_json(t, WIDTH, HEIGHT), **size, "length": len(t.pixels)} for t in sent]
    request.write_text(json.dumps(asked), encoding="utf-8")
    command = [sys.executable, ROOT / "tests" / "comfy_wan.py", comfyui, ROOT / "scripts" / "launch_comfyui.py", request, answer]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(answer) as arrays:
        return [{k.split()[1]: v for k, v in arrays.items() if k.startswith(f"{i} ")} for i in range(len(sent))]


def test_the_tracks_type() -> None:
    tracks = wandering(9)
    made = as_tracks(tracks)
    assert set(made) == {"track_path", "track_visibility"}
    assert made["track_path"].dtype == torch.float32 and torch.equal(made["track_path"], tracks.pixels)
    assert made["track_visibility"].dtype == torch.bool and torch.equal(made["track_visibility"], tracks.visible)


def test_lengths_are_four_n_plus_one() -> None:
    assert [wan_length(n) for n in (1, 4, 5, 8, 81, 84)] == [1, 1, 5, 5, 81, 81]


@pytest.mark.parametrize("length", [1, 5, 17, 49, 81, 101, 117, 121, 161, 241])
def test_the_text_holds_121_points_a_track(length: int) -> None:
    tracks = wandering(length)
    rows = json.loads(as_json(tracks, WIDTH, HEIGHT))
    assert len(rows) == 6 and all(len(row) == 121 and set(row[0]) == {"x", "y"} for row in rows)
    read = samples_read(length)
    assert read.shape == (length,) and read[0] == 0 and (np.diff(read) >= 0).all() and read.max() <= 120
    if length <= 117:  # every picture has a sample of its own
        for n in range(4):
            places = np.array([[p["x"], p["y"]] for p in rows[n]])[read]
            assert np.abs(places - tracks.pixels[:, n].numpy()).max() < 0.006


@pytest.mark.parametrize("length", READ_LENGTHS)
def test_comfyui_reads_every_picture_where_it_is(answers: list[dict[str, np.ndarray]], length: int) -> None:
    tracks, got = wandering(length), answers[READ_LENGTHS.index(length)]
    assert got["points"].shape == (6, 121, 1, 3) and (got["points"][..., 2] == 1).all()
    read = got["read"]  # (length, N, 4): time, x and y from the middle in halves of the short side, visible
    assert read.shape == (length, 6, 4)
    pixels = read[..., 1:3] * min(WIDTH, HEIGHT) / 2 + [WIDTH / 2, HEIGHT / 2]
    seen = tracks.visible.numpy()
    exact = 0.006 if length <= 121 else 0.5  # beyond 121 pictures two read one sample
    assert np.abs(pixels - tracks.pixels.numpy())[seen].max() < exact
    if length <= 121:
        assert (pixels[~seen] < -4 * WIDTH).all()
    latents = (length - 1) // 4 + 1
    assert got["latent"].shape == (1, 16, latents, HEIGHT // 8, WIDTH // 8) == got["features"].shape


def test_hidden_points_leave_no_trace(answers: list[dict[str, np.ndarray]]) -> None:
    """The node's mask is 1 where nothing is said, less where a point carries the start image on."""
    mask = answers[-1]["mask"][0, 0]
    assert mask.shape == (5, HEIGHT // 8, WIDTH // 8)
    row, column = np.unravel_index(mask[1].argmin(), mask[1].shape)
    assert (row, column) == (28 // 8, 44 // 8) and mask[1].min() < 0.3
    assert np.array_equal(mask[1], mask[3]) and np.array_equal(mask[1], mask[4])
    assert (mask[2] == 1).all()
