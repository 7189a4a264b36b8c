"""The surface field, fast: where a point near or around the target head belongs on the source head.

One warp kernel for the CPU and CUDA finds each point's closest triangle in a tree of boxes and applies that triangle's
affine map. The rules are written down in docs/flow.md, and `reference.py` follows them slowly and readably.
"""

from concurrent.futures import ThreadPoolExecutor

import torch
import warp as wp
from torch import Tensor

from ..kernels import as_array, kernel, launch
from .affine import affine_maps
from .topology import Topology

_triangle = wp.types.matrix((4, 3), wp.float32)  # rows: first corner, edges e1 and e2, (e1.e1, e1.e2, e2.e2)
_map = wp.types.matrix((4, 3), wp.float32)  # rows: shift, then the gain's rows

# A number that a kernel will change must be made as wp.int32(0) or wp.float32(0.0): a plain 0 is a constant to warp.

# Where on a triangle the closest point lies: 0 inside, 1 2 3 at corner a b c, 4 5 6 on edge ab bc ca.


@wp.struct
class Heads:
    """A batch of targets, ready to be searched. See `Topology` for the trees."""

    low: wp.array2d(dtype=wp.vec3)
    high: wp.array2d(dtype=wp.vec3)
    triangles: wp.array2d(dtype=_triangle)
    normals: wp.array2d(dtype=wp.vec3)  # 0 where a triangle is not usable
    maps: wp.array2d(dtype=_map)
    faces: wp.array(dtype=wp.vec3i)
    parts: wp.array(dtype=wp.int32)
    order: wp.array(dtype=wp.int64)
    rank: wp.array(dtype=wp.int32)
    fan_start: wp.array(dtype=wp.int32)
    fan: wp.array(dtype=wp.int32)
    leaves: wp.array(dtype=wp.int32)
    first_leaf: wp.array(dtype=wp.int32)
    first_box: wp.array(dtype=wp.int32)
    leaf_start: wp.array(dtype=wp.int32)


class SurfaceField:
    """The fields of a batch of frame pairs."""

    def __init__(self, topology: Topology, target: Tensor, source: Tensor) -> None:
        """Vertices (B, V, 3) of targets and sources, camera frame, metres, on the topology's device."""
        maps = affine_maps(target, source, topology.faces)
        self.device = target.device
        self._heads = _heads(topology, target, maps)

    def at(self, points: Tensor, parts: Tensor | int = 0) -> tuple[Tensor, Tensor]:
        """The flow at points (B, P, 3), each searched among one part of the head: `parts` is (B, P) or one for all.

        Returns the flow (B, P, 3) in metres, source minus target, and the triangle (B, P) it goes by; where the part
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
        self, rays: Tensor, first: Tensor, last: Tensor, seen: Tensor, samples: int, scale: float = 1.0
    ) -> Tensor:
        """The flow at `samples` points along each pixel's ray, evenly spaced in depth, both ends included.

        Args:
            rays: (B or 1, H, W, 3) with z = 1. first, last: (B, H, W) depths in metres.
            seen: (B, H, W) int32 the triangle seen at the pixel, whose part is searched; -1: none, the skin is searched.

        Returns:
            (B, 3 samples, H, W) float32, metres times `scale`, channels x0 y0 z0 x1 y1 z1 ...
        """
        b, h, w = seen.shape
        out = torch.empty(b, 3 * samples, h, w, device=self.device)
        arrays = [
            as_array(rays.float().expand(b, -1, -1, -1), wp.vec3),
            as_array(first.float(), wp.float32),
            as_array(last.float(), wp.float32),
            as_array(seen.int(), wp.int32),
        ]
        flow = as_array(out, wp.float32)

        def rows(start: int, stop: int) -> None:
            inputs = [self._heads, *arrays, samples, scale, start]
            launch(_along_rays, (b, stop - start, w), inputs, [flow], self.device)

        _in_chunks(rows, h, self.device)
        return out


def _heads(topology: Topology, target: Tensor, maps) -> Heads:  # noqa: ANN001
    usable = maps.usable
    low, high = topology.boxes(target, usable)
    a, b, c = target.double()[:, topology.faces].unbind(2)
    e1, e2 = b - a, c - a
    products = torch.stack([(e1 * e1).sum(-1), (e1 * e2).sum(-1), (e2 * e2).sum(-1)], -1)
    triangles = torch.stack([a, e1, e2, products], 2).float()
    heads = Heads()
    heads.low, heads.high = as_array(low, wp.vec3), as_array(high, wp.vec3)
    heads.triangles = as_array(triangles, _triangle)
    heads.normals = as_array(torch.where(usable[..., None], maps.normal, 0.0).float(), wp.vec3)
    heads.maps = as_array(torch.cat([maps.shift[:, :, None], maps.gain], 2).float(), _map)
    heads.faces = as_array(topology.faces.int(), wp.vec3i)
    heads.order = as_array(topology.order, wp.int64)
    for name in ("parts", "rank", "fan_start", "fan", "leaves", "first_leaf", "first_box", "leaf_start"):
        setattr(heads, name, as_array(getattr(topology, name), wp.int32))
    return heads


def _in_chunks(work, count: int, device: torch.device) -> None:  # noqa: ANN001
    """Run `work(start, stop)` over 0..count: at once on CUDA, in as many Python threads as torch uses on the CPU.

    Warp runs a CPU kernel on one core, but without Python's lock.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if threads == 1:
        work(0, count)
        return
    step = -(-count // (8 * threads))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda start: work(start, min(start + step, count)), range(0, count, step)))


@wp.func
def _to_triangle(triangle: _triangle, p: wp.vec3):
    """Squared distance from p, the closest point's second and third barycentrics, and where it lies (see above).

    By the Voronoi regions of a triangle: Ericson, Real-Time Collision Detection, 5.1.5.
    """
    ap = p - triangle[0]
    e1 = triangle[1]
    e2 = triangle[2]
    a11 = triangle[3][0]
    a12 = triangle[3][1]
    a22 = triangle[3][2]
    d1 = wp.dot(e1, ap)
    d2 = wp.dot(e2, ap)
    d3 = d1 - a11
    d4 = d2 - a12
    d5 = d1 - a12
    d6 = d2 - a22
    v = wp.float32(0.0)
    w = wp.float32(0.0)
    where = wp.int32(0)
    if d1 <= 0.0 and d2 <= 0.0:
        where = 1
    elif d3 >= 0.0 and d4 <= d3:
        v = 1.0
        where = 2
    elif d6 >= 0.0 and d5 <= d6:
        w = 1.0
        where = 3
    else:
        va = d3 * d6 - d5 * d4
        vb = d5 * d2 - d1 * d6
        vc = d1 * d4 - d3 * d2
        if vc <= 0.0 and d1 >= 0.0 and d3 <= 0.0:
            v = d1 / (d1 - d3)
            where = 4
        elif vb <= 0.0 and d2 >= 0.0 and d6 <= 0.0:
            w = d2 / (d2 - d6)
            where = 6
        elif va <= 0.0 and d4 - d3 >= 0.0 and d5 - d6 >= 0.0:
            w = (d4 - d3) / ((d4 - d3) + (d5 - d6))
            v = 1.0 - w
            where = 5
        else:
            r = 1.0 / (va + vb + vc)
            v = vb * r
            w = vc * r
    q = ap - v * e1 - w * e2
    return wp.dot(q, q), v, w, where


@wp.func
def _to_box(low: wp.vec3, high: wp.vec3, p: wp.vec3):
    """Squared distance from p to a box, 0 inside."""
    d = wp.max(wp.max(low - p, p - high), wp.vec3(0.0, 0.0, 0.0))
    return wp.dot(d, d)


@wp.func
def _closest(heads: Heads, m: int, part: int, p: wp.vec3, guess: int):
    """The position of the closest usable triangle of a part, -1 where there is none. `guess` (-1: none) speeds it up."""
    best = float(wp.inf)
    found = wp.int32(-1)
    leaves = heads.leaves[part]
    if leaves == 0:
        return found
    if guess >= 0:
        d, v, w, where = _to_triangle(heads.triangles[m, guess], p)
        best = d
        found = guess
    box = heads.first_box[part]
    leaf = heads.first_leaf[part] - leaves
    node = wp.int32(1)
    done = wp.int32(1)  # bit i: the sibling of the node's i-th ancestor (0: of the node itself) needs no visit any more
    while node > 0:
        down = wp.int32(0)
        if node >= leaves:
            for t in range(heads.leaf_start[leaf + node], heads.leaf_start[leaf + node + 1]):
                d, v, w, where = _to_triangle(heads.triangles[m, t], p)
                if d < best and wp.length_sq(heads.normals[m, t]) > 0.0:
                    best = d
                    found = t
        else:
            near = 2 * node
            d_near = _to_box(heads.low[m, box + near], heads.high[m, box + near], p)
            d_far = _to_box(heads.low[m, box + near + 1], heads.high[m, box + near + 1], p)
            if d_far < d_near:
                near += 1
                s = d_near
                d_near = d_far
                d_far = s
            if d_near < best:
                node = near
                done = 2 * done
                if d_far >= best:
                    done += 1
                down = 1
        while down == 0 and node > 0:
            while (done & 1) == 1:
                node = node >> 1
                done = done >> 1
            if node > 0:
                node = node ^ 1
                done += 1
                if _to_box(heads.low[m, box + node], heads.high[m, box + node], p) < best:
                    down = 1
    return found


@wp.func
def _has(face: wp.vec3i, vertex: int):
    return face[0] == vertex or face[1] == vertex or face[2] == vertex


@wp.func
def _settle(heads: Heads, m: int, found: int, p: wp.vec3):
    """Among the triangles that share the edge or corner where the closest point lies: that which faces p most."""
    triangle = heads.triangles[m, found]
    d, v, w, where = _to_triangle(triangle, p)
    if where == 0:
        return found
    face = heads.faces[found]
    pivot = face[(where - 1) % 3]  # the corner, or the edge's first end
    other = pivot
    if where > 3:
        other = face[where % 3] if where < 6 else face[0]
    r = p - triangle[0] - v * triangle[1] - w * triangle[2]
    part = heads.parts[found]
    best = wp.float32(-1.0)
    chosen = int(found)
    for i in range(heads.fan_start[pivot], heads.fan_start[pivot + 1]):
        t = heads.fan[i]
        if heads.parts[t] == part and _has(heads.faces[t], other):
            facing = wp.abs(wp.dot(heads.normals[m, t], r))
            if facing > best:
                best = facing
                chosen = t
    return chosen


@wp.func
def _flow(heads: Heads, m: int, t: int, p: wp.vec3):
    d = p - heads.triangles[m, t][0]
    k = heads.maps[m, t]
    return k[0] + wp.vec3(wp.dot(k[1], d), wp.dot(k[2], d), wp.dot(k[3], d))


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
    t = _closest(heads, m, parts[m, i], p, -1)
    if t < 0:
        flow[m, i] = wp.vec3(0.0, 0.0, 0.0)
        triangle[m, i] = -1
    else:
        t = _settle(heads, m, t, p)
        flow[m, i] = _flow(heads, m, t, p)
        triangle[m, i] = int(heads.order[t])


@kernel
def _along_rays(
    heads: Heads,
    rays: wp.array3d(dtype=wp.vec3),
    first: wp.array3d(dtype=wp.float32),
    last: wp.array3d(dtype=wp.float32),
    seen: wp.array3d(dtype=wp.int32),
    samples: int,
    scale: float,
    first_row: int,
    flow: wp.array4d(dtype=wp.float32),
):
    m, y, x = wp.tid()
    y += first_row
    ray = rays[m, y, x]
    near = first[m, y, x]
    step = (last[m, y, x] - near) / wp.max(float(samples - 1), 1.0)
    part = wp.int32(0)
    guess = wp.int32(-1)
    if seen[m, y, x] >= 0:
        t = heads.rank[seen[m, y, x]]
        part = heads.parts[t]
        if wp.length_sq(heads.normals[m, t]) > 0.0:
            guess = t
    for n in range(samples):
        p = ray * (near + float(n) * step)
        guess = _closest(heads, m, part, p, guess)
        f = wp.vec3(0.0, 0.0, 0.0)
        if guess >= 0:
            f = scale * _flow(heads, m, _settle(heads, m, guess, p), p)
        flow[m, 3 * n, y, x] = f[0]
        flow[m, 3 * n + 1, y, x] = f[1]
        flow[m, 3 * n + 2, y, x] = f[2]
