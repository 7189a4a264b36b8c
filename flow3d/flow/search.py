# mypy: disable-error-code="valid-type,assignment,attr-defined,operator,call-overload,misc,arg-type,index"
# Kernels are written in warp's language, whose types mypy cannot read.
"""The search for the closest triangle and how it carries a point, as functions for warp kernels on the CPU and CUDA."""

import warp as wp

from ..head.model import SKIN
from .carry import move_type, triangle_type, turn_type

SKIN_PART = wp.constant(SKIN)

_ON_EDGE, _INSIDE = wp.constant(wp.float32(1.0 - 4e-7)), wp.constant(wp.float32(1.0 - 8e-7))
"""Factors of squared distances that are equal to float32: of two triangles side by side the one that is met inside is the
closer one, by less than rounding may hide where the point is far away."""
_ROUNDING = wp.constant(wp.float32(1.0 + 1e-6))

# A number that a kernel will change must be made as wp.int32(0) or wp.float32(0.0): a plain 0 is a constant to warp.


@wp.struct
class Heads:
    """A batch of frame pairs, ready to be searched. See `Topology` for the trees, `Carriers` for the triangles."""

    low: wp.array2d(dtype=wp.vec3)
    high: wp.array2d(dtype=wp.vec3)
    triangles: wp.array2d(dtype=triangle_type)
    moves: wp.array2d(dtype=move_type)
    turns: wp.array2d(dtype=turn_type)
    parts: wp.array(dtype=wp.int32)
    order: wp.array(dtype=wp.int64)
    rank: wp.array(dtype=wp.int32)
    leaves: wp.array(dtype=wp.int32)
    first_leaf: wp.array(dtype=wp.int32)
    first_box: wp.array(dtype=wp.int32)
    leaf_start: wp.array(dtype=wp.int32)


@wp.func
def to_triangle(triangle: triangle_type, p: wp.vec3):
    """Squared distance from p (see _INSIDE), and the closest point's second and third barycentrics; NaN where it is not usable.

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
    nearer = wp.float32(1.0)
    if d1 <= 0.0 and d2 <= 0.0:
        v = 0.0
    elif d3 >= 0.0 and d4 <= d3:
        v = 1.0
    elif d6 >= 0.0 and d5 <= d6:
        w = 1.0
    else:
        va = d3 * d6 - d5 * d4
        vb = d5 * d2 - d1 * d6
        vc = d1 * d4 - d3 * d2
        if vc <= 0.0 and d1 >= 0.0 and d3 <= 0.0:
            v = d1 / (d1 - d3)
            nearer = _ON_EDGE
        elif vb <= 0.0 and d2 >= 0.0 and d6 <= 0.0:
            w = d2 / (d2 - d6)
            nearer = _ON_EDGE
        elif va <= 0.0 and d4 - d3 >= 0.0 and d5 - d6 >= 0.0:
            w = (d4 - d3) / ((d4 - d3) + (d5 - d6))
            v = 1.0 - w
            nearer = _ON_EDGE
        else:
            r = 1.0 / (va + vb + vc)
            v = vb * r
            w = vc * r
            nearer = _INSIDE
    q = ap - v * e1 - w * e2
    return nearer * wp.dot(q, q), v, w


@wp.func
def to_box(low: wp.vec3, high: wp.vec3, p: wp.vec3):
    """Squared distance from p to a box, 0 inside."""
    d = wp.max(wp.max(low - p, p - high), wp.vec3(0.0, 0.0, 0.0))
    return wp.dot(d, d)


@wp.func
def closest(heads: Heads, m: int, part: int, p: wp.vec3, guess: int):
    """The position of the closest usable triangle of a part, -1 where there is none. `guess` (-1: none) speeds it up."""
    best = float(wp.inf)
    reach = float(wp.inf)  # of boxes that may hold a closer one
    found = wp.int32(-1)
    leaves = heads.leaves[part]
    if leaves == 0:
        return found
    if guess >= 0:
        d, v, w = to_triangle(heads.triangles[m, guess], p)
        if d < best and heads.parts[guess] == part:
            best = d
            reach = best * _ROUNDING
            found = guess
    box = heads.first_box[part]
    leaf = heads.first_leaf[part] - leaves
    node = wp.int32(1)
    done = wp.int32(1)  # bit i: the sibling of the node's i-th ancestor (0: of the node itself) needs no visit any more
    while node > 0:
        down = wp.int32(0)
        if node >= leaves:
            for t in range(heads.leaf_start[leaf + node], heads.leaf_start[leaf + node + 1]):
                d, v, w = to_triangle(heads.triangles[m, t], p)
                if d < best:
                    best = d
                    reach = best * _ROUNDING
                    found = t
        else:
            near = 2 * node
            d_near = to_box(heads.low[m, box + near], heads.high[m, box + near], p)
            d_far = to_box(heads.low[m, box + near + 1], heads.high[m, box + near + 1], p)
            if d_far < d_near:
                near += 1
                s = d_near
                d_near = d_far
                d_far = s
            if d_near < reach:
                node = near
                done = 2 * done
                if d_far >= reach:
                    done += 1
                down = 1
        while down == 0 and node > 0:
            while (done & 1) == 1:
                node = node >> 1
                done = done >> 1
            if node > 0:
                node = node ^ 1
                done += 1
                if to_box(heads.low[m, box + node], heads.high[m, box + node], p) < reach:
                    down = 1
    return found


@wp.func
def flow_at(heads: Heads, m: int, t: int, p: wp.vec3, v: float, w: float):
    """The flow of p, whose closest point is on triangle t and has these second and third barycentrics."""
    triangle = heads.triangles[m, t]
    moves = heads.moves[m, t]
    turns = heads.turns[m, t]
    r = p - triangle[0] - v * triangle[1] - w * triangle[2]
    q = turns[0] + v * turns[1] + w * turns[2]
    axis = wp.vec3(q[1], q[2], q[3])
    across = wp.cross(axis, r)
    turned = (2.0 / wp.dot(q, q)) * (q[0] * across + wp.cross(axis, across))  # R r - r, without loss where R is near 1
    return moves[0] + v * moves[1] + w * moves[2] + turned
