"""`flow3d bench flow`: its scene, its names, and that the peers it times do find what ours finds."""

import numpy as np
import pytest
import torch
from toy_heads import toy_head

from comfyui_flow3d.flow3d.bench_flow import SIZES, Scene, flow_table, measure_size, searches
from comfyui_flow3d.flow3d.flow.reference import sample_points
from comfyui_flow3d.flow3d.flow.sampling import Sampling
from comfyui_flow3d.flow3d.head.files import OPEN_HEAD, load_saved_head


def test_the_head_fills_a_third_of_the_scene():
    scene = Scene.of(load_saved_head(OPEN_HEAD), 96)
    assert 1 / 3 < (scene.seen.triangle >= 0).float().mean() < 0.5
    z = scene.target[..., 2]
    assert Sampling().near < z.min() and z.max() < Sampling().far


def test_ours_without_skin_is_ours_on_the_head():
    """What the figure for the head leaves out is the background, and nothing else."""
    scene = Scene.of(toy_head(), 40)
    whole, head = (torch.empty(1, 60, 40, 40) for _ in range(2))
    scene.encode(Sampling(), whole)
    scene.encode_head(Sampling(), head)
    on = scene.seen.triangle[0] >= 0
    assert torch.equal(whole[0][:, on], head[0][:, on]) and (head[0][:, ~on] == 0).all() and (whole[0][:, ~on] != 0).any()


def test_named_numbers_and_their_table():
    head = toy_head()
    numbers = {k.replace("_24", f"_{size}"): v for size in SIZES for k, v in measure_size(head, 24).items()}
    for who in ("ours", *searches(head.template, head.faces)):
        parts = [numbers[f"{who}{kind}_512_s"] for kind in ("", "_head", "_background")]
        assert parts[0] == pytest.approx(parts[1] + parts[2]) and parts[0] > 0
        if who != "ours":
            assert numbers[f"ratio_{who}_512"] == pytest.approx(parts[0] / numbers["ours_512_s"])
    table = flow_table(numbers)
    assert "512 x 512" in table and f"{numbers['ours_512_s']:.3f}" in table
    assert "not installed" in flow_table({k: v for k, v in numbers.items() if "libigl" not in k})


def test_the_peers_search_the_same_mesh():
    scene = Scene.of(toy_head(), 24)
    points = sample_points(scene.camera, scene.seen, Sampling(3)).reshape(-1, 3).float().numpy()
    found = searches(scene.target[0], scene.head.faces)
    nearest = found["scipy_vertex"](points)[0]
    brute = np.linalg.norm(points[:, None] - scene.target[0].numpy(), axis=-1).min(1)
    np.testing.assert_allclose(nearest, brute, atol=1e-6)
    if "open3d" in found:
        on = found["open3d"](points)["points"].numpy()
        assert (np.linalg.norm(on - points, axis=1) <= nearest + 1e-6).all()
    if "libigl" in found:
        assert (np.sqrt(found["libigl"](points)[0]) <= nearest + 1e-6).all()
    if {"open3d", "libigl"} <= set(found):
        np.testing.assert_allclose(np.linalg.norm(on - points, axis=1), np.sqrt(found["libigl"](points)[0]), atol=1e-5)
