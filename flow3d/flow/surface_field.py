# mypy: disable-error-code="valid-type,assignment,attr-defined,operator,call-overload,misc,arg-type,index"
# Kernels are written in warp's language, whose types mypy cannot read.
"""The surface field, fast: where a point near or around the target head belongs on the source head.

One warp kernel for the CPU and CUDA finds each point's closest triangle in a tree of boxes and applies that triangle's
affine map. The rules are written down in docs/flow.md, and `reference.py` follows them slowly and readably.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
import warp as wp
from torch import Tensor

from ..camera import Camera
from ..head.model import SKIN
from ..kernels import as_array, kernel, launch
from ..render.rasterize import Fragments
from .affine import AffineMaps, affine_maps
from .sampling import Sampling
from .topology import Topology

_triangle = wp.types.matrix((4, 3), wp.float32)  # rows: first corner, edges e1 and e2, (e1.e1, e1.e2, e2.e2)
_map = wp.types.matrix((4, 3), wp.float32)  # rows: shift, then the gain's rows

_BLOCK = wp.constant(8)  # pixels along a side of the squares that are searched together
_HALF_BLOCK = wp.constant(4)
_SKIN = wp.constant(SKIN)

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


@wp.struct
class Rays:
    """What is sampled: see `Sampling` and `Fragments`."""

    lens: wp.array(dtype=wp.vec3)  # focal, cx, cy
    depth: wp.array3d(dtype=wp.float32)
    seen: wp.array3d(dtype=wp.int32)
    samples: int
    delta: float
    near: float
    far: float


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

    def along_rays(self, cameras: Sequence[Camera], seen: Fragments, sampling: Sampling, scale: float = 1.0) -> Tensor:
        """The flow at the samples along each pixel's ray.

        Args:
            cameras: one for each pair. seen: the targets as those cameras see them, (B, H, W): depth and triangle.

        Returns:
            (B, 3 N, H, W) float32, metres times `scale`, channels x0 y0 z0 x1 y1 z1 ...
        """
        b, h, w = seen.triangle.shape
        out = torch.empty(b, 3 * sampling.samples, h, w, device=self.device)
        flow = as_array(out, wp.float32)
        lens = torch.tensor([[c.focal, c.cx, c.cy] for c in cameras], device=self.device)
        rays = Rays()
        rays.lens = as_array(lens, wp.vec3)
        rays.depth = as_array(seen.depth, wp.float32)
        rays.seen = as_array(seen.triangle, wp.int32)
        rays.samples = sampling.samples
        rays.delta, rays.near, rays.far = sampling.delta, sampling.near, sampling.far

        def block_rows(start: int, stop: int) -> None:
            blocks = (b, stop - start, -(-w // _BLOCK), sampling.samples)
            launch(_along_rays, blocks, [self._heads, rays, scale, start], [flow], self.device)

        _in_chunks(block_rows, -(-h // _BLOCK), self.device)
        return out


def _heads(topology: Topology, target: Tensor, maps: AffineMaps) -> Heads:
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


def _in_chunks(work: Callable[[int, int], None], count: int, device: torch.device) -> None:
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
        if heads.parts[guess] == part and wp.length_sq(heads.normals[m, guess]) > 0.0:
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
def _facing(heads: Heads, m: int, t: int, pivot: int, other: int, r: wp.vec3):
    """Of the triangles of t's part that have two vertices (or one, twice): the one with the largest |n . r|."""
    best = wp.float32(-1.0)
    chosen = int(t)
    for i in range(heads.fan_start[pivot], heads.fan_start[pivot + 1]):
        around = heads.fan[i]
        if heads.parts[around] == heads.parts[t] and _has(heads.faces[around], other):
            facing = wp.abs(wp.dot(heads.normals[m, around], r))
            if facing > best:
                best = facing
                chosen = around
    return chosen


@wp.func
def _settle(heads: Heads, m: int, t: int, p: wp.vec3):
    """The triangle whose map carries p, where t is one of the closest: where they share an edge or a corner, choose."""
    triangle = heads.triangles[m, t]
    d, v, w, where = _to_triangle(triangle, p)
    if where == 0:
        return t
    face = heads.faces[t]
    pivot = face[(where - 1) % 3]  # the corner, or the edge's first end
    other = pivot
    if where > 3:
        other = face[(where - 3) % 3]
    return _facing(heads, m, t, pivot, other, p - triangle[0] - v * triangle[1] - w * triangle[2])


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


@wp.func
def _sample(rays: Rays, m: int, y: int, x: int, n: int):
    lens = rays.lens[m]
    depth = rays.depth[m, y, x]
    first = rays.near
    last = rays.far
    if depth > 0.0:
        first = depth - rays.delta
        last = depth + rays.delta
    z = first + float(n) * ((last - first) / wp.max(float(rays.samples - 1), 1.0))
    return wp.vec3((float(x) + 0.5 - lens[1]) / lens[0] * z, (float(y) + 0.5 - lens[2]) / lens[0] * z, z)


@wp.func
def _shared_corner(heads: Heads, rays: Rays, m: int, n: int, y0: int, x0: int, size: int, guess: int):
    """Where one vertex is the closest point of a whole square of pixels at sample n: a triangle and its corner there.

    The points that are closer to one given point than to a convex set form a convex set (an intersection of half
    spaces). So where no head is seen in the square, whose samples lie on a plane, its four corner pixels speak for all.
    Returns the triangle, -1 where there is no such vertex; the corner 0, 1, 2; and a guess for the search nearby.
    """
    y1 = wp.min(y0 + size, rays.seen.shape[1])
    x1 = wp.min(x0 + size, rays.seen.shape[2])
    for y in range(y0, y1):
        for x in range(x0, x1):
            if rays.seen[m, y, x] >= 0:
                return -1, 0, guess
    t = int(guess)
    corner = wp.int32(0)
    vertex = wp.int32(-1)
    for k in range(4):
        y = y0
        x = x0
        if k >= 2:
            y = y1 - 1
        if k == 1 or k == 2:
            x = x1 - 1
        p = _sample(rays, m, y, x, n)
        t = _closest(heads, m, _SKIN, p, t)
        if t < 0:
            return -1, 0, -1
        d, v, w, where = _to_triangle(heads.triangles[m, t], p)
        if where == 0 or where > 3:
            return -1, 0, t
        corner = where - 1
        here = heads.faces[t][corner]
        if k > 0 and here != vertex:
            return -1, 0, t
        vertex = here
    return t, corner, t


@kernel
def _along_rays(heads: Heads, rays: Rays, scale: float, first_row: int, flow: wp.array4d(dtype=wp.float32)):
    """One thread: one sample of the pixels of a square block, which is quartered where its corners disagree."""
    m, block_y, block_x, n = wp.tid()
    top = (block_y + first_row) * _BLOCK
    left = block_x * _BLOCK
    whole, whole_corner, guess = _shared_corner(heads, rays, m, n, top, left, _BLOCK, -1)
    for quarter in range(4):
        y0 = top + (quarter / 2) * _HALF_BLOCK
        x0 = left + (quarter % 2) * _HALF_BLOCK
        shared = int(whole)
        corner = int(whole_corner)
        if whole < 0 and y0 < rays.seen.shape[1] and x0 < rays.seen.shape[2]:
            shared, corner, guess = _shared_corner(heads, rays, m, n, y0, x0, _HALF_BLOCK, guess)
        for y in range(y0, wp.min(y0 + _HALF_BLOCK, rays.seen.shape[1])):
            for x in range(x0, wp.min(x0 + _HALF_BLOCK, rays.seen.shape[2])):
                p = _sample(rays, m, y, x, n)
                t = wp.int32(-1)
                if shared >= 0:
                    vertex = heads.faces[shared][corner]
                    triangle = heads.triangles[m, shared]
                    r = p - triangle[0]
                    if corner > 0:
                        r -= triangle[corner]
                    t = _facing(heads, m, shared, vertex, vertex, r)
                else:
                    part = int(_SKIN)
                    if rays.seen[m, y, x] >= 0:
                        guess = heads.rank[rays.seen[m, y, x]]
                        part = heads.parts[guess]
                    guess = _closest(heads, m, part, p, guess)
                    if guess >= 0:
                        t = _settle(heads, m, guess, p)
                f = wp.vec3(0.0, 0.0, 0.0)
                if t >= 0:
                    f = scale * _flow(heads, m, t, p)
                flow[m, 3 * n, y, x] = f[0]
                flow[m, 3 * n + 1, y, x] = f[1]
                flow[m, 3 * n + 2, y, x] = f[2]
