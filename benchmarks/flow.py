"""How fast and how exact the geometry is: rasterizer, surface field and encoding, and how its cost grows.

    python -m comfyui_flow3d.benchmarks.flow [--size 512] [--device cuda] [--json FILE]

Other libraries stand beside it in `flow3d bench flow`, with the same scene.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from ..flow3d.bench_flow import Scene, seconds
from ..flow3d.flow.encode import encode_pairs
from ..flow3d.flow.reference import flow_at_pixels, sample_points
from ..flow3d.flow.sampling import Sampling
from ..flow3d.flow.surface_field import SurfaceField
from ..flow3d.flow.topology import topology_of
from ..flow3d.flow.visibility import seen_in
from ..flow3d.head.load import load_head
from ..flow3d.render.rasterize import rasterize

CHECKED = 2000
WINDOW = 16
"""Frames that are encoded in one go."""


def share_unequal(scene: Scene, sampling: Sampling) -> float:
    """The share of random samples of the encoding whose flow is more than 0.01 mm from the float64 reference's."""
    got = scene.encode(sampling, torch.empty(1, 3 * sampling.samples, *scene.seen.depth.shape[1:], device=scene.head.device))
    flow = got[0].reshape(sampling.samples, 3, -1).permute(2, 0, 1).reshape(-1, 3).cpu()
    points = sample_points(scene.camera, scene.seen, sampling).reshape(-1, 3).cpu()
    triangle = scene.seen.triangle.reshape(-1, 1).expand(-1, sampling.samples).reshape(-1).cpu()
    some = torch.randint(len(points), (CHECKED,), generator=torch.Generator().manual_seed(0))
    head = scene.head.to("cpu")
    right = flow_at_pixels(
        scene.target[0].cpu(), scene.source[0].cpu(), head.faces, head.face_parts, points[some], triangle[some]
    )
    return float(((flow[some] / 10 - right).norm(dim=1) > 1e-5).float().mean())


def window(scene: Scene, frames: int) -> tuple[Tensor, Tensor]:
    """Sources and targets (frames, V, 3) of a head that turns a little."""
    t = torch.linspace(0, 1, frames, device=scene.head.device)[:, None, None]
    return scene.source.expand(frames, -1, -1), scene.target + (scene.source - scene.target) * 0.2 * t


def measure(size: int, device: torch.device) -> dict[str, float]:
    scene = Scene.of(load_head("open").to(device), size)
    sampling, topology, faces = Sampling(), topology_of(scene.head), scene.head.faces
    camera, out = scene.camera, torch.empty(1, 60, size, size, device=device)
    figures = {
        "head_share": float((scene.seen.triangle >= 0).float().mean()),
        "rasterize_ms": 1e3 * seconds(lambda: rasterize(scene.target, faces, camera), device),
        "pixels_and_visibility_ms": 1e3 * seconds(lambda: seen_in(scene.source, faces, camera, scene.seen), device),
        "prepare_pair_ms": 1e3 * seconds(lambda: SurfaceField(topology, scene.target, scene.source), device),
        "encode_ms": 1e3 * seconds(lambda: scene.encode(sampling, out), device),
        "encode_float16_ms": 1e3 * seconds(lambda: scene.encode(sampling, out.half()), device),
    }
    if device.type == "cuda":
        sources, targets = window(scene, WINDOW)
        half = torch.empty(WINDOW, 60, size, size, dtype=torch.float16, device=device)
        ms = 1e3 * seconds(lambda: encode_pairs(topology, sources, targets, camera, sampling, out=half), device)
        figures["window_float16_ms_per_frame"] = ms / WINDOW
    figures["million_samples_per_second"] = sampling.samples * size * size / 1e3 / figures["encode_ms"]
    figures["share_unequal_to_reference"] = share_unequal(scene, sampling)
    return figures | {f"clip_of_{n}_ms_per_frame": clip_ms(scene, sampling, n) for n in (4, 16, 64)}


def clip_ms(scene: Scene, sampling: Sampling, frames: int) -> float:
    """Milliseconds a frame of a clip of small frames that is encoded in one go."""
    camera, topology, device = scene.camera.resized(64, 64), topology_of(scene.head), scene.head.device
    sources, targets = window(scene, frames)
    out = torch.empty(frames, 3 * sampling.samples, 64, 64, device=device)
    return 1e3 / frames * seconds(lambda: encode_pairs(topology, sources, targets, camera, sampling, out=out), device)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="pixels along a side")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    figures = measure(arguments.size, torch.device(arguments.device))
    for name, value in figures.items():
        print(f"{name:32s} {value:12.4f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
