# mypy: disable-error-code="valid-type,assignment,attr-defined,operator,call-overload,misc,arg-type,index"
# Kernels are written in warp's language, whose types mypy cannot read.
"""The search for the closest triangle and its affine map, as functions for warp kernels on the CPU and CUDA."""

import warp as wp

from ..head.model import SKIN

SKIN_PART = wp.constant(SKIN)

triangle_type = wp.types.matrix((4, 3), wp.float32)  # rows: first corner, edges e1 and e2, (e1.e1, e1.e2, e2.e2)
map_type = wp.types.matrix((4, 3), wp.float32)  # rows: shift, then the gain's rows

# A number that a kernel will change must be made as wp.int32(0) or wp.float32(0.0): a plain 0 is a constant to warp.

# Where on a triangle the closest point lies: 0 inside, 1 2 3 at corner a b c, 4 5 6 on edge ab bc ca.


@wp.struct
class Heads:
    """A batch of targets, ready to be searched. See `Topology` for the trees."""

    low: wp.array2d(dtype=wp.vec3)
    high: wp.array2d(dtype=wp.vec3)
    triangles: wp.array2d(dtype=triangle_type)
    normals: wp.array2d(dtype=wp.vec3)  # 0 where a triangle is not usable
    maps: wp.array2d(dtype=map_type)
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


@wp.func
def to_triangle(triangle: triangle_type, p: wp.vec3):
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
def to_box(low: wp.vec3, high: wp.vec3, p: wp.vec3):
    """Squared distance from p to a box, 0 inside."""
    d = wp.max(wp.max(low - p, p - high), wp.vec3(0.0, 0.0, 0.0))
    return wp.dot(d, d)


@wp.func
def closest(heads: Heads, m: int, part: int, p: wp.vec3, guess: int):
    """The position of the closest usable triangle of a part, -1 where there is none. `guess` (-1: none) speeds it up."""
    best = float(wp.inf)
    found = wp.int32(-1)
    leaves = heads.leaves[part]
    if leaves == 0:
        return found
    if guess >= 0:
        if heads.parts[guess] == part and wp.length_sq(heads.normals[m, guess]) > 0.0:
            d, v, w, where = to_triangle(heads.triangles[m, guess], p)
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
                d, v, w, where = to_triangle(heads.triangles[m, t], p)
                if d < best and wp.length_sq(heads.normals[m, t]) > 0.0:
                    best = d
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
                if to_box(heads.low[m, box + node], heads.high[m, box + node], p) < best:
                    down = 1
    return found


@wp.func
def _has(face: wp.vec3i, vertex: int):
    return face[0] == vertex or face[1] == vertex or face[2] == vertex


@wp.func
def facing(heads: Heads, m: int, t: int, pivot: int, other: int, r: wp.vec3):
    """Of the triangles of t's part that have two vertices (or one, twice): the one with the largest |n . r|.

    t itself is usable and one of them.
    """
    best = wp.float32(0.0)  # what is not usable has 0 and is never chosen
    chosen = int(t)
    for i in range(heads.fan_start[pivot], heads.fan_start[pivot + 1]):
        around = heads.fan[i]
        if heads.parts[around] == heads.parts[t] and _has(heads.faces[around], other):
            height = wp.abs(wp.dot(heads.normals[m, around], r))
            if height > best:
                best = height
                chosen = around
    return chosen


@wp.func
def settle_at(heads: Heads, m: int, t: int, p: wp.vec3, v: float, w: float, where: int):
    """`settle`, where the closest point on t is known."""
    if where == 0:
        return t
    triangle = heads.triangles[m, t]
    face = heads.faces[t]
    pivot = face[(where - 1) % 3]  # the corner, or the edge's first end
    other = pivot
    if where > 3:
        other = face[(where - 3) % 3]
    return facing(heads, m, t, pivot, other, p - triangle[0] - v * triangle[1] - w * triangle[2])


@wp.func
def settle(heads: Heads, m: int, t: int, p: wp.vec3):
    """The triangle whose map carries p, where t is one of the closest: where they share an edge or a corner, choose."""
    d, v, w, where = to_triangle(heads.triangles[m, t], p)
    return settle_at(heads, m, t, p, v, w, where)


@wp.func
def flow_of(heads: Heads, m: int, t: int, p: wp.vec3):
    d = p - heads.triangles[m, t][0]
    k = heads.maps[m, t]
    return k[0] + wp.vec3(wp.dot(k[1], d), wp.dot(k[2], d), wp.dot(k[3], d))
