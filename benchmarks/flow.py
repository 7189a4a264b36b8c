"""How fast and how exact the geometry is: rasterizer, surface field and encoding, beside what others offer.

    python -m comfyui_flow3d.benchmarks.flow [--size 512] [--device cuda] [--json FILE]

The scene is the open head turned by 17 degrees with its mouth open, 0.95 m away, 25 degrees of view. The peers get the
encoding's own sample points: SciPy's nearest vertex, and Open3D's closest point (where it is installed) find what our
kernel finds, but not the flow.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ..flow3d.camera import Camera
from ..flow3d.flow.encode import encode_pairs
from ..flow3d.flow.reference import surface_field
from ..flow3d.flow.sampling import Sampling
from ..flow3d.flow.surface_field import SurfaceField
from ..flow3d.flow.topology import topology_of
from ..flow3d.flow.visibility import seen_in
from ..flow3d.head.load import load_head
from ..flow3d.head.model import HeadModel, to_camera
from ..flow3d.render.rasterize import Fragments, rasterize

REPEATS = 3
CHECKED = 2000


def scene(head: HeadModel) -> tuple[Tensor, Tensor]:
    """Source and target vertices (1, V, 3), camera frame, metres."""
    shape = torch.zeros(1, head.n_shape, device=head.device)
    expression = torch.zeros(2, head.n_expression, device=head.device)
    expression[1, head.expression_index("jawOpen")] = 0.6
    expression[1, head.expression_index("eyeBlinkLeft")] = 0.8
    rest, root = head.vertices(shape.expand(2, -1), expression)
    turn = torch.tensor([[0.0, 0, 0], [0.05, 0.3, 0]], device=head.device)
    place = torch.tensor([0.0, 0.02, 0.95], device=head.device)
    both = to_camera(rest, root, turn, (place - to_camera(rest, root, turn * 0, turn * 0).mean(1)).expand(2, 3))
    return both[:1], both[1:]


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """The best of a few runs, after one that compiles."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def sample_points(camera: Camera, seen: Fragments, sampling: Sampling) -> Tensor:
    """(H, W, N, 3) the points that the encoding asks for."""
    return camera.rays(device=seen.depth.device)[:, :, None] * sampling.depths(seen.depth)[0][..., None]


def peers(points: Tensor, vertices: Tensor, faces: Tensor) -> dict[str, float]:
    """Seconds for all points, by those that are installed; every 16th point is timed."""
    some = points.reshape(-1, 3)[::16].cpu().numpy()
    share = points.numel() / 3 / len(some)
    start = time.perf_counter()
    cKDTree(vertices.cpu().numpy()).query(some, workers=-1)
    found = {"scipy_nearest_vertex_ms": (time.perf_counter() - start) * share * 1e3}
    try:
        import open3d as o3d
    except ImportError:
        return found
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(o3d.core.Tensor(vertices.cpu().numpy()), o3d.core.Tensor(faces.cpu().numpy().astype("uint32")))
    start = time.perf_counter()
    scene.compute_closest_points(o3d.core.Tensor(some))
    return found | {"open3d_closest_point_ms": (time.perf_counter() - start) * share * 1e3}


def share_unequal(head: HeadModel, source: Tensor, target: Tensor, points: Tensor, seen: Fragments) -> float:
    """The share of random samples whose flow is more than 0.01 mm from the float64 reference's."""
    flat = points.reshape(-1, 3)
    some = torch.randint(len(flat), (CHECKED,), generator=torch.Generator().manual_seed(0)).to(flat.device)
    triangle = seen.triangle.flatten()[some // points.shape[2]].long()
    parts = torch.where(triangle >= 0, head.face_parts[triangle.clamp(min=0)], 0)
    flow, _ = SurfaceField(topology_of(head), target, source).at(flat[some][None], parts[None])
    wrong = 0
    for part in parts.unique().tolist():
        mine = parts == part
        p = flat[some][mine].double().cpu()
        candidates = (head.face_parts == part).cpu()
        match = surface_field(p, target[0].cpu(), source[0].cpu(), head.faces.cpu(), candidates)
        wrong += int(((flow[0][mine].cpu() + p - match.points).norm(dim=1) > 1e-5).sum())
    return wrong / CHECKED


def measure(size: int, device: torch.device) -> dict[str, float]:
    head = load_head("open").to(device)
    source, target = scene(head)
    camera, sampling = Camera.from_field_of_view(size, size), Sampling()
    seen = rasterize(target, head.faces, camera)
    topology = topology_of(head)
    points = sample_points(camera, seen, sampling)
    figures = {
        "head_share": float((seen.triangle >= 0).float().mean()),
        "rasterize_ms": 1e3 * seconds(lambda: rasterize(target, head.faces, camera), device),
        "pixels_and_visibility_ms": 1e3 * seconds(lambda: seen_in(source, head.faces, camera, seen), device),
        "prepare_pair_ms": 1e3 * seconds(lambda: SurfaceField(topology, target, source), device),
        "encode_ms": 1e3 * seconds(lambda: encode_pairs(topology, source, target, camera, sampling), device),
    }
    figures["million_samples_per_second"] = points.numel() / 3e3 / figures["encode_ms"]
    figures["share_unequal_to_reference"] = share_unequal(head, source, target, points, seen)
    return figures | peers(points, target[0], head.faces)


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
