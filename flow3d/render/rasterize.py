# mypy: disable-error-code="valid-type,assignment,attr-defined,operator,call-overload,misc,arg-type,index"
# Kernels are written in warp's language, whose types mypy cannot read.
"""The rasterizer: which triangle of a mesh is seen at each pixel, where on it, and how far away."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import warp as wp
from torch import Tensor

from ..camera import Camera
from ..kernels import as_array, kernel, launch, to_device

_vec3l = wp.types.vector(3, wp.int64)

# Projected vertices are snapped to 1/4096 pixel, so that edge functions are exact integers: a pixel on the edge that
# two triangles share belongs to one of them, never to both or neither.
_SUBPIXELS = wp.constant(wp.float64(4096.0))
_STEP = wp.constant(wp.int64(4096))
_HALF = wp.constant(wp.int64(2048))
_GUARD = wp.constant(wp.float64(131072.0))  # pixels: differences of snapped coordinates stay below 2^30

# The z-buffer holds depth (in units of 2^-30 m, up to 512 m) above the triangle's index in one 64-bit integer, so that
# one atomic minimum keeps the nearest triangle and, where depths are equal, the lowest index, in whatever order they come.
_DEPTH_UNITS = wp.constant(wp.float64(2.0**30))
_FARTHEST = wp.constant(wp.float64(2.0**39 - 1.0))
_INDEX_BITS = wp.constant(wp.int64(24))
_INDEX_MASK = wp.constant(wp.int64(2**24 - 1))
_EMPTY = 2**63 - 1
_EMPTY_KEY = wp.constant(wp.int64(_EMPTY))
MAX_TRIANGLES = 2**24
_THREADS_PER_ROW = wp.constant(64)  # of the last pass: enough for a GPU, few enough for the CPU's cost per thread


class Fragments(NamedTuple):
    """What is seen at each pixel."""

    depth: Tensor  # (B, H, W) float32 camera z in metres, 0 where empty
    triangle: Tensor  # (B, H, W) int32, -1 where empty
    bary: Tensor  # (B, H, W, 3) float32 perspective-correct barycentrics, 0 where empty


def rasterize(vertices: Tensor, faces: Tensor, camera: Camera | Sequence[Camera]) -> Fragments:
    """Draw a batch of meshes that share their triangles.

    A pixel shows the nearest triangle that covers its centre (at +0.5); of equally near ones that with the lowest
    index. Both sides of a triangle are drawn. Left out are degenerate triangles and those with a corner that is not
    finite, not in front of the camera (z <= 0), or more than 131,072 pixels away from the image's origin. The same
    input gives the same output bit for bit, on the CPU and on CUDA.

    Args:
        vertices: (B, V, 3) camera frame, metres. faces: (F, 3), at most 2^24.
        camera: one for all meshes, or one for each; their image sizes must agree.

    Raises ValueError where shapes disagree.
    """
    b = len(vertices)
    cameras = [camera] * b if isinstance(camera, Camera) else list(camera)
    if vertices.ndim != 3 or vertices.shape[2] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(
            f"rasterize: vertices {tuple(vertices.shape)} and faces {tuple(faces.shape)} are not (B, V, 3), (F, 3)"
        )
    if len(cameras) != b or len({(c.width, c.height) for c in cameras}) > 1:
        raise ValueError(f"rasterize: {b} meshes need one camera, or {b} of one image size")
    if len(faces) >= MAX_TRIANGLES:
        raise ValueError(f"rasterize: {len(faces)} triangles, more than {MAX_TRIANGLES}")
    device = vertices.device
    shape = (b, cameras[0].height, cameras[0].width) if b else (0, 0, 0)
    found = Fragments(
        torch.empty(shape, device=device),
        torch.empty(shape, dtype=torch.int32, device=device),
        torch.empty(*shape, 3, device=device),
    )
    if found.depth.numel() == 0:
        return found

    points = as_array(vertices.float(), wp.vec3)
    corners = as_array(faces.to(device, torch.int32), wp.vec3i)
    lens = as_array(to_device([[c.focal, c.cx, c.cy] for c in cameras], device, torch.float64), wp.vec3d)
    snapped = as_array(torch.empty(b, vertices.shape[1], 3, dtype=torch.int64, device=device), _vec3l)
    keys = as_array(torch.full(shape, _EMPTY, dtype=torch.int64, device=device), wp.int64)
    launch(_project, points.shape, [points, lens], [snapped], device)
    launch(_draw, (b, len(faces)), [points, corners, snapped], [keys], device)
    outputs = [as_array(found.depth, wp.float32), as_array(found.triangle, wp.int32), as_array(found.bary, wp.vec3)]
    launch(_resolve, (b, shape[1], _THREADS_PER_ROW), [points, corners, snapped, keys], outputs, device)
    return found


@kernel
def _project(points: wp.array2d(dtype=wp.vec3), lens: wp.array(dtype=wp.vec3d), snapped: wp.array2d(dtype=_vec3l)):
    """Snapped pixel coordinates x, y of each vertex, and 1 where it may be drawn, else 0."""
    b, v = wp.tid()
    p = points[b, v]
    k = lens[b]
    z = wp.float64(p[2])
    x = k[0] * wp.float64(p[0]) / z + k[1]
    y = k[0] * wp.float64(p[1]) / z + k[2]
    if z > wp.float64(0.0) and wp.abs(x) <= _GUARD and wp.abs(y) <= _GUARD:
        snapped[b, v] = _vec3l(wp.int64(wp.round(x * _SUBPIXELS)), wp.int64(wp.round(y * _SUBPIXELS)), wp.int64(1))
    else:
        snapped[b, v] = _vec3l(wp.int64(0), wp.int64(0), wp.int64(0))


@wp.func
def _edge(p: _vec3l, q: _vec3l, x: wp.int64, y: wp.int64):
    """Twice the signed area of p, q and (x, y)."""
    return (q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0])


@wp.func
def _bias(p: _vec3l, q: _vec3l):
    """0 where pixels on the edge from p to q belong to it, -1 where they belong to the edge from q to p."""
    dx = q[0] - p[0]
    dy = q[1] - p[1]
    if dy > wp.int64(0) or (dy == wp.int64(0) and dx > wp.int64(0)):
        return wp.int64(0)
    return wp.int64(-1)


@wp.func
def _first_pixel(low: wp.int64):
    """The first pixel whose centre is at or after a snapped coordinate, not below 0."""
    return wp.max((low - _HALF + _STEP - wp.int64(1)) >> wp.int64(12), wp.int64(0))


@wp.func
def _last_pixel(high: wp.int64, size: int):
    return wp.min((high - _HALF) >> wp.int64(12), wp.int64(size - 1))


@kernel
def _draw(
    points: wp.array2d(dtype=wp.vec3),
    faces: wp.array(dtype=wp.vec3i),
    snapped: wp.array2d(dtype=_vec3l),
    keys: wp.array3d(dtype=wp.int64),
):
    m, t = wp.tid()
    f = faces[t]
    a = snapped[m, f[0]]
    b = snapped[m, f[1]]
    c = snapped[m, f[2]]
    area = _edge(a, b, c[0], c[1])
    if a[2] * b[2] * c[2] == wp.int64(0) or area == wp.int64(0):
        return
    za = wp.float64(points[m, f[0]][2])
    zb = wp.float64(points[m, f[1]][2])
    zc = wp.float64(points[m, f[2]][2])
    if area < wp.int64(0):  # seen from behind: exchange two corners
        s = b
        b = c
        c = s
        zs = zb
        zb = zc
        zc = zs
        area = -area

    x0 = _first_pixel(wp.min(a[0], wp.min(b[0], c[0])))
    x1 = _last_pixel(wp.max(a[0], wp.max(b[0], c[0])), keys.shape[2])
    y0 = _first_pixel(wp.min(a[1], wp.min(b[1], c[1])))
    y1 = _last_pixel(wp.max(a[1], wp.max(b[1], c[1])), keys.shape[1])
    px = x0 * _STEP + _HALF
    py = y0 * _STEP + _HALF
    # Edge functions at the first pixel, and 1 / z, which is linear in the image.
    ea = _edge(b, c, px, py)
    eb = _edge(c, a, px, py)
    ec = _edge(a, b, px, py)
    ra = wp.float64(1.0) / (za * wp.float64(area))
    rb = wp.float64(1.0) / (zb * wp.float64(area))
    rc = wp.float64(1.0) / (zc * wp.float64(area))
    inverse = wp.float64(ea) * ra + wp.float64(eb) * rb + wp.float64(ec) * rc
    ea += _bias(b, c)
    eb += _bias(c, a)
    ec += _bias(a, b)
    xa = (b[1] - c[1]) * _STEP
    xb = (c[1] - a[1]) * _STEP
    xc = (a[1] - b[1]) * _STEP
    ya = (c[0] - b[0]) * _STEP
    yb = (a[0] - c[0]) * _STEP
    yc = (b[0] - a[0]) * _STEP
    x_inverse = wp.float64(xa) * ra + wp.float64(xb) * rb + wp.float64(xc) * rc
    y_inverse = wp.float64(ya) * ra + wp.float64(yb) * rb + wp.float64(yc) * rc
    near = wp.min(za, wp.min(zb, zc))
    far = wp.max(za, wp.max(zb, zc))
    columns = int(x1 - x0)
    for y in range(int(y0), int(y1) + 1):
        row = keys[m, y]
        wa = ea
        wb = eb
        wc = ec
        x = wp.int32(0)  # a variable: a plain 0 is a constant to warp
        while x <= columns and (wa | wb | wc) < wp.int64(0):
            x += 1
            wa += xa
            wb += xb
            wc += xc
        while x <= columns and (wa | wb | wc) >= wp.int64(0):
            depth = wp.clamp(wp.float64(1.0) / (inverse + wp.float64(x) * x_inverse), near, far)
            key = wp.int64(wp.min(depth * _DEPTH_UNITS, _FARTHEST)) << _INDEX_BITS
            wp.atomic_min(row, int(x0) + x, key | wp.int64(t))
            x += 1
            wa += xa
            wb += xb
            wc += xc
        ea += ya
        eb += yb
        ec += yc
        inverse += y_inverse


@kernel
def _resolve(
    points: wp.array2d(dtype=wp.vec3),
    faces: wp.array(dtype=wp.vec3i),
    snapped: wp.array2d(dtype=_vec3l),
    keys: wp.array3d(dtype=wp.int64),
    depth: wp.array3d(dtype=wp.float32),
    triangle: wp.array3d(dtype=wp.int32),
    bary: wp.array3d(dtype=wp.vec3),
):
    m, y, first = wp.tid()
    py = wp.int64(y) * _STEP + _HALF
    for x in range(first, keys.shape[2], _THREADS_PER_ROW):
        key = keys[m, y, x]
        if key == _EMPTY_KEY:
            depth[m, y, x] = 0.0
            triangle[m, y, x] = -1
            bary[m, y, x] = wp.vec3(0.0, 0.0, 0.0)
        else:
            t = int(key & _INDEX_MASK)
            f = faces[t]
            a = snapped[m, f[0]]
            b = snapped[m, f[1]]
            c = snapped[m, f[2]]
            px = wp.int64(x) * _STEP + _HALF
            za = wp.float64(points[m, f[0]][2])
            zb = wp.float64(points[m, f[1]][2])
            zc = wp.float64(points[m, f[2]][2])
            # A weight in the image divided by the corner's depth is the weight on the triangle, but for a factor.
            ea = wp.float64(_edge(b, c, px, py)) * zb * zc
            eb = wp.float64(_edge(c, a, px, py)) * zc * za
            ec = wp.float64(_edge(a, b, px, py)) * za * zb
            r = wp.float64(1.0) / (ea + eb + ec)
            wa = ea * r
            wb = eb * r
            wc = ec * r
            depth[m, y, x] = wp.float32(wa * za + wb * zb + wc * zc)
            triangle[m, y, x] = t
            bary[m, y, x] = wp.vec3(wp.float32(wa), wp.float32(wb), wp.float32(wc))
