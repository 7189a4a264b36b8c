# mypy: disable-error-code="valid-type,assignment,attr-defined,operator,call-overload,misc,arg-type,index"
# Kernels are written in warp's language, whose types mypy cannot read.
"""A short list of triangles for each cell of pixels, the closest triangle of each of its points among them.

A cell is a square of pixels at one sample, or at a few. Off the head its points lie on a plane of constant depth, on the
head between two such planes. Let q be any point of the mesh. The points that are closer to q than to a given set are an
intersection of half spaces, which is convex. So a triangle, or a whole box of the tree, that is farther than q from
every corner of the cell is farther than q from every point in it and cannot be the closest there: what is left is a
complete list of candidates, found in one walk down the tree for all pixels of the cell. With the point closest to the
cell's centre for q, the list is short. Off the head large cells come first, and their lists are sifted for the smaller
ones within.

Where the list is empty and q is a vertex, q is the closest point for all of the cell, which moves as one rigid body:
nothing is left to search.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import warp as wp

from ..camera import Camera
from ..kernels import kernel, launch
from .carry import triangle_type
from .rays import Rays, depth_at, slopes
from .sampling import Sampling
from .search import SKIN_PART, Heads, closest, to_box, to_triangle

_CELL = 6.6e-3
"""Metres along a cell's side off the head, halfway between near and far: measured to be fast on a head's mesh."""
_FINEST, _COARSEST = 2, 3
"""Bounds of it in pixels, as powers of two."""
ON_GROUP = 2
"""Samples that share a list on the head, where neighbouring samples lie a millimetre apart."""
BAND = 4 << _COARSEST
"""Rows of pixels that are whole rows of cells of any size."""
LIST_LENGTH, _LONG = 48, 64  # numbers in a list, and in one of those that are sifted

# A list: how many candidates, or one of the codes below; the triangle of q; its corner where q is one (1, 2, 3), else 0;
# the candidates. Where there are too many for it, each point searches the tree.
HEADER = wp.constant(3)
TOO_MANY = wp.constant(-1)
NOTHING = wp.constant(-2)  # the part has no usable triangle

_vec8 = wp.types.vector(8, wp.float32)
_RESOLUTION = wp.constant(wp.float32(2e-8))  # metres: distances from a point this near to each other are equal to float32


class CellSizes(NamedTuple):
    """Pixels along a cell's side, as powers of two, off the head and on it."""

    off: int
    on: int

    @classmethod
    def of(cls, cameras: Sequence[Camera], sampling: Sampling) -> "CellSizes":
        """Cells about as large in space whatever the picture's size."""
        pixel = 0.5 * (sampling.near + sampling.far) / max(c.focal for c in cameras)
        off = min(max(round(math.log2(_CELL / pixel)), _FINEST), _COARSEST)
        return cls(off, off - 1)


def candidate_lists(
    heads: Heads, rays: Rays, on: bool, cell: int, rows: tuple[int, int], device: torch.device
) -> wp.array:
    """Lists for the cells of 2^`cell` pixels in some rows of pixels, the first a multiple of BAND.

    (B, cells, N, ...) off the head, (B, cells, N / ON_GROUP, ...) on it.
    """
    group = ON_GROUP if on else 1
    images, _, width = rays.seen.shape
    lists = wp.from_torch(torch.empty(0, 0, 0, 0, dtype=torch.int32, device=device))
    for power in (cell,) if on else (cell + 2, cell + 1, cell):
        size = 1 << power
        cells = images, -(-(rows[1] - rows[0]) // size), -(-width // size)
        length = LIST_LENGTH if power == cell else _LONG
        shape = (images, cells[1] * cells[2], -(-rays.samples // group), length)
        wider, lists = lists, wp.from_torch(torch.empty(shape, dtype=torch.int32, device=device))
        launch(_list_candidates, cells, [heads, rays, int(on), size, group, rows[0] // size, wider], [lists], device)
    return lists


@wp.struct
class Cell:
    """The frustum that holds a cell's points, and q."""

    x0: float  # slopes of the rays at its sides
    x1: float
    y0: float
    y1: float
    z0: float
    z1: float
    corners: int  # 4 where z0 = z1, else 8
    q: wp.vec3
    centre: wp.vec3
    limits: _vec8  # squared: what is nearer than this to a corner is nearer than q
    reach: float  # squared: what is farther than this from the centre is farther than q from every point


@wp.func
def _corner(cell: Cell, k: int):
    x = cell.x0
    y = cell.y0
    z = cell.z0
    if (k & 1) != 0:
        x = cell.x1
    if (k & 2) != 0:
        y = cell.y1
    if (k & 4) != 0:
        z = cell.z1
    return wp.vec3(x * z, y * z, z)


@wp.func
def _reach(cell: Cell):
    size = wp.float32(0.0)
    for k in range(cell.corners):
        size = wp.max(size, wp.length(_corner(cell, k) - cell.centre))
    reach = wp.length(cell.q - cell.centre) + 2.0 * size
    return reach * reach


@wp.func
def _limits(cell: Cell, triangle: triangle_type, v: float, w: float):
    limits = _vec8()
    for k in range(cell.corners):
        r = _corner(cell, k) - triangle[0] - v * triangle[1] - w * triangle[2]  # to q, without the rounding of q
        away = wp.max(wp.length(r) - _RESOLUTION, 0.0)
        limits[k] = away * away
    return limits


@wp.func
def _box_may_win(cell: Cell, low: wp.vec3, high: wp.vec3):
    """Whether something in the box may be closer than q to a point of the cell."""
    if to_box(low, high, cell.centre) >= cell.reach:
        return False
    for k in range(cell.corners):
        p = _corner(cell, k)
        if to_box(low, high, p) < cell.limits[k]:
            return True
    return False


@wp.func
def _triangle_may_win(cell: Cell, heads: Heads, m: int, t: int):
    triangle = heads.triangles[m, t]
    d, v, w = to_triangle(triangle, cell.centre)
    if d >= cell.reach:
        return False
    for k in range(cell.corners):
        p = _corner(cell, k)
        d, v, w = to_triangle(triangle, p)
        if d < cell.limits[k]:
            return True
    return False


@wp.func
def _walk(heads: Heads, m: int, part: int, cell: Cell, listed: int, row: wp.array(dtype=wp.int32)):
    """Write the triangles but `listed` that may be closer than q somewhere in the cell; return how many there are."""
    leaves = heads.leaves[part]
    box = heads.first_box[part]
    leaf = heads.first_leaf[part] - leaves
    room = row.shape[0] - HEADER
    count = wp.int32(0)
    node = wp.int32(1)
    while node > 0:
        inner = wp.int32(0)
        if _box_may_win(cell, heads.low[m, box + node], heads.high[m, box + node]):
            if node < leaves:
                inner = 1
            else:
                for t in range(heads.leaf_start[leaf + node], heads.leaf_start[leaf + node + 1]):
                    if t != listed and _triangle_may_win(cell, heads, m, t):
                        if count == room:
                            return int(TOO_MANY)
                        row[HEADER + count] = t
                        count += 1
        if inner == 1:
            node = 2 * node
        else:  # the next one to the right of this and its ancestors
            node += 1
            while (node & 1) == 0:
                node = node >> 1
            if node == 1:
                node = 0
    return count


@wp.func
def _sift(heads: Heads, m: int, cell: Cell, listed: int, wider: wp.array(dtype=wp.int32), row: wp.array(dtype=wp.int32)):
    """`_walk`, from the list of a cell that holds this one."""
    room = row.shape[0] - HEADER
    count = wp.int32(0)
    for i in range(-1, wider[0]):
        t = wider[1]
        if i >= 0:
            t = wider[HEADER + i]
        if t != listed and _triangle_may_win(cell, heads, m, t):
            if count == room:
                return int(TOO_MANY)
            row[HEADER + count] = t
            count += 1
    return count


@wp.func
def corner_at(v: float, w: float):
    """1, 2, 3 where barycentrics are those of a triangle's corner a, b, c, else 0. The closest point's are exact there."""
    if v == 0.0 and w == 0.0:
        return 1
    if v == 1.0:
        return 2
    if w == 1.0:
        return 3
    return 0


@wp.func
def _nearest(heads: Heads, m: int, p: wp.vec3, wider: wp.array(dtype=wp.int32)):
    """The triangle closest to p of a list's."""
    found = wider[1]
    best, v, w = to_triangle(heads.triangles[m, found], p)
    for i in range(wider[0]):
        t = wider[HEADER + i]
        d, v, w = to_triangle(heads.triangles[m, t], p)
        if d < best:
            best = d
            found = t
    return found


@wp.struct
class Extent:
    """What a cell of pixels holds: the rectangle around those on the head, or those off it."""

    x0: int
    x1: int  # -1: no pixel
    y0: int
    y1: int
    low: float  # depths of those that show the part
    high: float
    part: int  # of the first one's triangle
    known: int  # that triangle, -1 off the head


@wp.func
def _extent(heads: Heads, rays: Rays, m: int, on: int, top: int, left: int, size: int):
    e = Extent()
    e.x0 = 2147483647
    e.x1 = -1
    e.y0 = 2147483647
    e.y1 = -1
    e.low = float(wp.inf)
    e.high = 0.0
    e.part = SKIN_PART
    e.known = -1
    for y in range(top, wp.min(top + size, rays.seen.shape[1])):
        for x in range(left, wp.min(left + size, rays.seen.shape[2])):
            seen = rays.seen[m, y, x]
            if (seen >= 0) == (on == 1):
                if seen >= 0:
                    if e.known < 0:
                        e.known = heads.rank[seen]
                        e.part = heads.parts[e.known]
                    if heads.parts[heads.rank[seen]] == e.part:
                        e.low = wp.min(e.low, rays.depth[m, y, x])
                        e.high = wp.max(e.high, rays.depth[m, y, x])
                e.x0 = wp.min(e.x0, x)
                e.x1 = wp.max(e.x1, x)
                e.y0 = wp.min(e.y0, y)
                e.y1 = wp.max(e.y1, y)
    return e


@wp.func
def _cell_at(rays: Rays, m: int, e: Extent, on: int, first: int, last: int):
    """The cell of the samples `first` to `last`, without q."""
    cell = Cell()
    near = slopes(rays, m, e.y0, e.x0)
    far = slopes(rays, m, e.y1, e.x1)
    cell.x0 = near[0]
    cell.y0 = near[1]
    cell.x1 = far[0]
    cell.y1 = far[1]
    if on == 1:
        cell.corners = 8
        cell.z0 = depth_at(rays, e.low - rays.delta, e.low + rays.delta, first)
        cell.z1 = depth_at(rays, e.high - rays.delta, e.high + rays.delta, last)
    else:
        cell.corners = 4
        cell.z0 = depth_at(rays, rays.near, rays.far, first)
        cell.z1 = cell.z0
    z = 0.5 * (cell.z0 + cell.z1)
    cell.centre = wp.vec3(0.5 * (cell.x0 + cell.x1) * z, 0.5 * (cell.y0 + cell.y1) * z, z)
    return cell


@kernel
def _list_candidates(
    heads: Heads,
    rays: Rays,
    on: int,
    size: int,
    group: int,
    first_row: int,
    wider: wp.array4d(dtype=wp.int32),
    lists: wp.array4d(dtype=wp.int32),
):
    """One thread: all samples of a square of pixels, those on the head (of the part that comes first) or those off it.

    `lists` is (B, cells, samples / group, ...): cells in rows, from the row of cells `first_row` on. `wider` are those of
    cells of twice the size, or empty.
    """
    m, cell_y, cell_x = wp.tid()
    columns = (rays.seen.shape[2] + size - 1) / size
    extent = _extent(heads, rays, m, on, (first_row + cell_y) * size, cell_x * size, size)
    if extent.x1 < 0:
        return
    known = int(extent.known)
    for i in range(lists.shape[2]):
        row = lists[m, cell_y * columns + cell_x, i]
        cell = _cell_at(rays, m, extent, on, i * group, wp.min((i + 1) * group, rays.samples) - 1)
        sift = wp.int32(0)
        above = row
        if wider.shape[3] > 0:
            above = wider[m, cell_y / 2 * ((columns + 1) / 2) + cell_x / 2, i]
            if above[0] == 0 and above[2] > 0:
                for k in range(HEADER):
                    row[k] = above[k]
                continue
            if above[0] >= 0:
                sift = 1
        if sift == 1:
            known = _nearest(heads, m, cell.centre, above)
        else:
            known = closest(heads, m, extent.part, cell.centre, known)
        row[1] = known
        row[2] = 0
        if known < 0:
            row[0] = NOTHING
            continue
        triangle = heads.triangles[m, known]
        d, v, w = to_triangle(triangle, cell.centre)
        cell.q = triangle[0] + v * triangle[1] + w * triangle[2]
        cell.reach = _reach(cell)
        cell.limits = _limits(cell, triangle, v, w)
        row[2] = corner_at(v, w)
        listed = int(known)  # needs no place among the candidates
        if row[2] > 0:
            listed = -1  # but where q is a corner, it may be closer elsewhere in the cell
        if sift == 1:
            row[0] = _sift(heads, m, cell, listed, above, row)
        else:
            row[0] = _walk(heads, m, extent.part, cell, listed, row)
