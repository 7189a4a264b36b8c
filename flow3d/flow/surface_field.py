# mypy: disable-error-code="valid-type,assignment,attr-defined,operator,call-overload,misc,arg-type,index"
# Kernels are written in warp's language, whose types mypy cannot read.
"""The surface field, fast: where a point near or around the target head belongs on the source head.

Warp kernels, the same for the CPU and CUDA, find the point of the target that is closest, and move and turn with it: for
single points in a tree of boxes, for images among the candidates of each cell of pixels. The rules are written down in
docs/flow.md, and `reference.py` follows them slowly and readably.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import warp as wp
from torch import Tensor

from ..camera import Camera
from ..kernels import as_array, kernel, launch
from ..render.rasterize import Fragments
from .candidates import BAND, HEADER, LIST_LENGTH, ON_GROUP, CellSizes, candidate_lists
from .carry import carriers, move_type, triangle_type, turn_type
from .rays import Rays, depth_at, rays_of, slopes
from .sampling import Sampling
from .search import SKIN_PART, Heads, closest, flow_at, to_triangle
from .topology import Topology

LANES = {"cpu": 1, "cuda": 128}
"""Threads that share a row of pixels: one on the CPU, for which each thread is a call."""
_LIST_BYTES = 2**28  # of candidates at a time on CUDA
_ON_GROUP = wp.constant(ON_GROUP)


class SurfaceField:
    """The fields of a batch of frame pairs."""

    def __init__(self, topology: Topology, target: Tensor, source: Tensor) -> None:
        """Vertices (B, V, 3) of targets and sources, camera frame, metres, on the topology's device."""
        self.device = target.device
        self._heads = _heads(topology, target, source)

    def at(self, points: Tensor, parts: Tensor | int = 0) -> tuple[Tensor, Tensor]:
        """The flow at points (B, P, 3), each searched among one part of the head: `parts` is (B, P) or one for all.

        Returns the flow (B, P, 3) in metres, source minus target, and the triangle (B, P) that is closest
        (one of them, where it is an edge or a corner); where the part
        has no usable triangle the flow is 0 and the triangle -1.
        """
        b, n, _ = points.shape
        where = torch.as_tensor(parts, dtype=torch.int32, device=self.device).expand(b, n)
        flow = torch.empty(b, n, 3, device=self.device)
        triangle = torch.empty(b, n, dtype=torch.int32, device=self.device)
        inputs = [self._heads, as_array(points.float(), wp.vec3), as_array(where, wp.int32)]
        launch(_at_points, (b, n), inputs, [as_array(flow, wp.vec3), as_array(triangle, wp.int32)], self.device)
        return flow, triangle

    def along_rays(
        self, cameras: Sequence[Camera], seen: Fragments, sampling: Sampling, scale: float = 1.0, out: Tensor | None = None
    ) -> Tensor:
        """The flow at the samples along each pixel's ray.

        Args:
            cameras: one for each pair. seen: the targets as those cameras see them, (B, H, W): depth and triangle.
            out: where to write it, (B, 3 N, H, W) float32 or float16 with any strides; None: a new float32 tensor.

        Returns:
            `out`: metres times `scale`, channels x0 y0 z0 x1 y1 z1 ...

        Raises ValueError where `out` is of another shape, type or device.
        """
        b, h, w = seen.triangle.shape
        shape = (b, 3 * sampling.samples, h, w)
        out = torch.empty(shape, device=self.device) if out is None else _checked(out, shape, self.device)
        if out.numel() == 0:
            return out
        flow = wp.from_torch(out.detach())
        rays = rays_of(cameras, seen, sampling)
        lanes = min(w, LANES[self.device.type])
        cells = CellSizes.of(cameras, sampling)

        def write(start: int, stop: int) -> None:
            off = candidate_lists(self._heads, rays, False, cells.off, (start, stop), self.device)
            on = candidate_lists(self._heads, rays, True, cells.on, (start, stop), self.device)
            inputs = [self._heads, rays, off, on, *cells, scale, start, lanes]
            launch(_WRITERS[flow.dtype], (b, sampling.samples, stop - start, lanes), inputs, [flow], self.device)

        _in_bands(write, h, self._rows_at_a_time(b, w, sampling.samples, cells), self.device)
        return out

    def _rows_at_a_time(self, images: int, width: int, samples: int, cells: CellSizes) -> int:
        """A multiple of BAND: one on the CPU; on CUDA as many as the memory for lists holds."""
        if self.device.type == "cpu":
            return BAND
        lists = (BAND >> cells.on) * ((width >> cells.on) + 1) * -(-samples // ON_GROUP)
        lists += 2 * (BAND >> cells.off) * ((width >> cells.off) + 1) * samples
        return BAND * max(1, _LIST_BYTES // (images * lists * 4 * LIST_LENGTH))


def _checked(out: Tensor, shape: tuple[int, ...], device: torch.device) -> Tensor:
    if tuple(out.shape) != shape or out.dtype not in (torch.float32, torch.float16) or out.device != device:
        raise ValueError(
            f"3D flow: 'out' is {tuple(out.shape)} {out.dtype} on {out.device}; "
            f"it must be {shape}, float32 or float16, on {device}."
        )
    return out


def _heads(topology: Topology, target: Tensor, source: Tensor) -> Heads:
    made = carriers(topology, target, source)
    low, high = topology.boxes(target, made.usable)
    heads = Heads()
    heads.low, heads.high = as_array(low, wp.vec3), as_array(high, wp.vec3)
    heads.triangles = as_array(made.triangles, triangle_type)
    heads.moves = as_array(made.moves, move_type)
    heads.turns = as_array(made.turns, turn_type)
    heads.order = as_array(topology.order, wp.int64)
    for name in ("parts", "rank", "leaves", "first_leaf", "first_box", "leaf_start"):
        setattr(heads, name, as_array(getattr(topology, name), wp.int32))
    return heads


def _in_bands(work: Callable[[int, int], None], height: int, rows: int, device: torch.device) -> None:
    """Run `work(start, stop)` over all rows of pixels, some at a time.

    On the CPU in as many Python threads as torch uses: warp runs a CPU kernel on one core, but without Python's lock.
    """
    bands = [(y, min(y + rows, height)) for y in range(0, height, rows)]
    if device.type == "cpu":
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(lambda band: work(*band), bands))
        return
    for band in bands:
        work(*band)


@kernel
def _at_points(
    heads: Heads,
    points: wp.array2d(dtype=wp.vec3),
    parts: wp.array2d(dtype=wp.int32),
    flow: wp.array2d(dtype=wp.vec3),
    triangle: wp.array2d(dtype=wp.int32),
):
    m, i = wp.tid()
    p = points[m, i]
    t = closest(heads, m, parts[m, i], p, -1)
    if t < 0:
        flow[m, i] = wp.vec3(0.0, 0.0, 0.0)
        triangle[m, i] = -1
    else:
        d, v, w = to_triangle(heads.triangles[m, t], p)
        flow[m, i] = flow_at(heads, m, t, p, v, w)
        triangle[m, i] = int(heads.order[t])


@wp.func
def _from_list(heads: Heads, m: int, p: wp.vec3, row: wp.array(dtype=wp.int32)):
    """The closest triangle and its barycentrics, by a list that is not too long."""
    count = row[0]
    t = row[1]
    v = wp.float32(0.0)
    w = wp.float32(0.0)
    if count == 0 and row[2] > 0:
        if row[2] == 2:
            v = 1.0
        elif row[2] == 3:
            w = 1.0
        return t, v, w
    best, v, w = to_triangle(heads.triangles[m, t], p)
    for i in range(count):
        other = row[HEADER + i]
        d, v_other, w_other = to_triangle(heads.triangles[m, other], p)
        if d < best:
            best = d
            t = other
            v = v_other
            w = w_other
    return t, v, w


@kernel
def _write_flow(
    heads: Heads,
    rays: Rays,
    off: wp.array4d(dtype=wp.int32),
    on: wp.array4d(dtype=wp.int32),
    off_cell: int,
    on_cell: int,
    scale: float,
    first_row: int,
    lanes: int,
    flow: wp.array4d(dtype=Any),
):
    """One thread: every `lanes`-th pixel of one row at one sample. The lists begin with the row of pixels `first_row`,
    and their cells are 2^`off_cell` and 2^`on_cell` pixels wide.
    """
    m, n, row, lane = wp.tid()
    y = first_row + row
    width = rays.seen.shape[2]
    off_cells = (row >> off_cell) * (((width - 1) >> off_cell) + 1)
    on_cells = (row >> on_cell) * (((width - 1) >> on_cell) + 1)
    for x in range(lane, width, lanes):
        seen = rays.seen[m, y, x]
        low = rays.near
        high = rays.far
        part = int(SKIN_PART)
        guess = wp.int32(-1)
        if seen >= 0:
            low = rays.depth[m, y, x] - rays.delta
            high = rays.depth[m, y, x] + rays.delta
            guess = heads.rank[seen]
            part = heads.parts[guess]
        z = depth_at(rays, low, high, n)
        slope = slopes(rays, m, y, x)
        p = wp.vec3(slope[0] * z, slope[1] * z, z)
        candidates = off[m, off_cells + (x >> off_cell), n]
        if seen >= 0:
            candidates = on[m, on_cells + (x >> on_cell), n / _ON_GROUP]
        t = wp.int32(-1)
        v = wp.float32(0.0)
        w = wp.float32(0.0)
        if candidates[0] >= 0 and heads.parts[candidates[1]] == part:
            t, v, w = _from_list(heads, m, p, candidates)
        else:
            t = closest(heads, m, part, p, guess)
            if t >= 0:
                d, v, w = to_triangle(heads.triangles[m, t], p)
        f = wp.vec3(0.0, 0.0, 0.0)
        if t >= 0:
            f = scale * flow_at(heads, m, t, p, v, w)
        flow[m, 3 * n, y, x] = flow.dtype(f[0])
        flow[m, 3 * n + 1, y, x] = flow.dtype(f[1])
        flow[m, 3 * n + 2, y, x] = flow.dtype(f[2])


_WRITERS = {t: wp.overload(_write_flow, {"flow": wp.array4d(dtype=t)}) for t in (wp.float32, wp.float16)}
