"""The surface field of version 1 beside a variant: how smooth and how exact each is.

    python -m comfyui_flow3d.benchmarks.flow_variant [--size 128]

Version 1 carries a point by the affine map of its closest triangle, with unclamped barycentrics and a rule for ties. The variant
takes the closest point itself, clamped to the triangle, and adds the residual turned by the rotation of the surface there: each
vertex's own, by Kabsch from its neighbours, interpolated by barycentrics. It needs no rule for ties.
"""

import argparse

import torch
from torch import Tensor

from ..flow3d.bench_flow import Scene
from ..flow3d.flow.reference import closest_point, sample_points
from ..flow3d.flow.sampling import Sampling
from ..flow3d.flow.surface_field import SurfaceField
from ..flow3d.flow.topology import topology_of
from ..flow3d.head.load import load_head
from ..flow3d.head.model import SKIN


def vertex_rotations(target: Tensor, source: Tensor, faces: Tensor) -> Tensor:
    """(V, 3, 3) the rotation from target to source that fits the edges around each vertex best (Kabsch)."""
    start, end = torch.cat([faces[:, [i, j]] for i in range(3) for j in range(3) if i != j]).T
    outer = (source[end] - source[start])[:, :, None] * (target[end] - target[start])[:, None, :]
    u, _, v = torch.linalg.svd(target.new_zeros(len(target), 3, 3).index_add_(0, start, outer))
    return _proper(u, v)


def _proper(u: Tensor, v: Tensor) -> Tensor:
    """u v, its last singular direction turned where that makes it a rotation."""
    sign = torch.ones_like(u[..., 0])
    sign[..., 2] = torch.linalg.det(u @ v).sign()
    return (u * sign[..., None, :]) @ v


def variant(points: Tensor, triangle: Tensor, target: Tensor, source: Tensor, faces: Tensor, rotations: Tensor) -> Tensor:
    """Where points (P, 3) belong on the source, by their closest triangles (P,)."""
    corners = faces[triangle]
    weight = closest_point(points, target[corners])
    u, _, v = torch.linalg.svd(torch.einsum("pc,pcij->pij", weight, rotations[corners]))
    residual = points - torch.einsum("pc,pcx->px", weight, target[corners])
    return torch.einsum("pc,pcx->px", weight, source[corners]) + torch.einsum("pij,pj->pi", _proper(u, v), residual)


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
    parser.add_argument("--size", type=int, default=128, help="pixels along a side")
    scene = Scene.of(load_head("open"), parser.parse_args().size)
    head, sampling = scene.head, Sampling()
    points = sample_points(scene.camera, scene.seen, sampling)[0]
    flat, shape = points.reshape(-1, 3), points.shape
    on = scene.seen.triangle[0] >= 0
    parts = torch.where(on, head.face_parts[scene.seen.triangle[0].clamp(min=0).long()], SKIN)
    parts = parts[:, :, None].expand(shape[:3]).reshape(1, -1)
    flow, triangle = SurfaceField(topology_of(head), scene.target, scene.source).at(flat[None], parts)
    target, source, chosen = scene.target[0].double(), scene.source[0].double(), triangle[0].long()
    turned = variant(flat, chosen, target, source, head.faces, vertex_rotations(target, source, head.faces)) - flat
    same = variant(flat, chosen, target, target, head.faces, vertex_rotations(target, target, head.faces)) - flat
    rows = [("version 1", jumps(flow[0].double().reshape(shape), on)), ("variant", jumps(turned.reshape(shape), on))]
    for name in rows[0][1]:
        print(f"{name:16s}" + "".join(f"{title:>12s} {figures[name]:9.3f}" for title, figures in rows))
    print(f"the variant carries a mesh to itself within {float(same.norm(dim=1).max()):.1e} m")
    apart = (turned - flow[0].double()).norm(dim=1).reshape(shape[:3]) * 1e3
    print(f"apart by (median) {float(apart[on].median()):.3f} mm on the head, {float(apart[~on].median()):.3f} mm off it")


if __name__ == "__main__":
    main()
