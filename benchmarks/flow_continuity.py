"""How smooth the 3D flow is from pixel to pixel, and how exactly it follows a rigid head, beside two simpler fields.

    python -m comfyui_flow3d.benchmarks.flow_continuity [--size 192]

The simpler ones: the clamped closest point whose residual is not turned, and the move of the nearest vertex.
"""

import argparse
from collections.abc import Callable

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ..flow3d.bench_flow import Scene
from ..flow3d.flow.reference import closest_point, sample_points
from ..flow3d.flow.sampling import Sampling
from ..flow3d.flow.surface_field import SurfaceField
from ..flow3d.flow.topology import topology_of
from ..flow3d.head.load import load_head
from ..flow3d.head.model import SKIN, HeadModel
from ..flow3d.rotations import to_matrix

Field = Callable[[Tensor, Tensor], Tensor]
"""From vertices of a target and a source (V, 3) to the flow (P, 3) at given points."""


def fields(head: HeadModel, points: Tensor, parts: Tensor) -> dict[str, Field]:
    """The fields by name, at points (P, 3), each searched among one part of the head (P,)."""

    def ours(target: Tensor, source: Tensor) -> Tensor:
        return SurfaceField(topology_of(head), target[None], source[None]).at(points[None], parts[None])[0][0].double()

    def unturned(target: Tensor, source: Tensor) -> Tensor:
        _, triangle = SurfaceField(topology_of(head), target[None], source[None]).at(points[None], parts[None])
        corners = head.faces[triangle[0].long()]
        weight = closest_point(points, target.double()[corners])
        return torch.einsum("pc,pcx->px", weight, (source - target).double()[corners])

    def nearest_vertex(target: Tensor, source: Tensor) -> Tensor:
        flow = torch.empty_like(points)
        for part in parts.unique().tolist():
            own, mine = head.faces[head.face_parts == part].unique(), parts == part
            found = cKDTree(target[own].numpy()).query(points[mine].numpy(), workers=-1)[1]
            flow[mine] = (source - target).double()[own[torch.from_numpy(found)]]
        return flow

    return {"ours": ours, "not turned": unturned, "nearest vertex": nearest_vertex}


def jumps(flow: Tensor, head: Tensor) -> dict[str, float]:
    """Millimetres between neighbouring pixels' flow (H, W, N, 3), off the head and on it (H, W)."""
    found = {}
    for name, where in (("off", ~head), ("on", head)):
        steps = [
            (flow[:, 1:] - flow[:, :-1]).norm(dim=-1)[where[:, 1:] & where[:, :-1]],
            (flow[1:] - flow[:-1]).norm(dim=-1)[where[1:] & where[:-1]],
        ]
        every = torch.cat(steps).flatten() * 1e3
        for q in (0.5, 0.95, 0.99, 0.999):
            found[f"{name}_p{q * 100:g}_mm"] = float(every.kthvalue(max(1, int(q * len(every)))).values)
        found[f"{name}_largest_mm"] = float(every.max())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=192, help="pixels along a side")
    scene = Scene.of(load_head("open"), parser.parse_args().size)
    head = scene.head
    points = sample_points(scene.camera, scene.seen, Sampling())[0]
    seen = scene.seen.triangle[0]
    parts = torch.where(seen >= 0, head.face_parts[seen.clamp(min=0).long()], SKIN)
    parts = parts[:, :, None].expand(points.shape[:3]).reshape(-1)
    target, source = scene.target[0], scene.source[0]
    turn = to_matrix(torch.tensor([0.05, 0.3, 0.0], dtype=torch.float64))
    flat = points.reshape(-1, 3)
    columns = {}
    for name, field in fields(head, flat, parts).items():
        columns[name] = jumps(field(target, source).reshape(points.shape), seen >= 0)
        columns[name]["itself_largest_mm"] = 1e3 * float(field(target, target).norm(dim=1).max())
        off = field(target.double(), target.double() @ turn.T) - (flat @ turn.T - flat)
        columns[name]["rigid_median_mm"] = 1e3 * float(off.norm(dim=1).median())
        columns[name]["rigid_largest_mm"] = 1e3 * float(off.norm(dim=1).max())
    print(f"{'':20s}" + "".join(f"{name:>16s}" for name in columns))
    for row in columns["ours"]:
        print(f"{row:20s}" + "".join(f"{figures[row]:16.5f}" for figures in columns.values()))


if __name__ == "__main__":
    main()
