# mypy: disable-error-code="valid-type,assignment,attr-defined,operator,call-overload,misc,arg-type,index"
# Kernels are written in warp's language, whose types mypy cannot read.
"""What each triangle knows of a frame pair: where it lies, how its corners move and turn, and whether it may be searched."""

from typing import NamedTuple

import torch
import warp as wp
from torch import Tensor

from ..kernels import as_array, kernel, launch
from .topology import Topology
from .turns import vertex_turns

MIN_HEIGHT = 1e-6
"""Metres. A target triangle whose least height is under this is degenerate: which of its points is closest is noise."""

triangle_type = wp.types.matrix((4, 3), wp.float32)
move_type = wp.types.matrix((3, 3), wp.float32)
turn_type = wp.types.matrix((3, 4), wp.float32)
_MIN_HEIGHT = wp.constant(wp.float64(MIN_HEIGHT))


class Carriers(NamedTuple):
    """By the position of triangles in their topology, float32. Differences are taken in float64."""

    triangles: Tensor  # (B, F, 4, 3): the target's corner a, edges e1 and e2, (e1.e1, e1.e2, e2.e2); NaN if not usable
    moves: Tensor  # (B, F, 3, 3): how far corner a moves from target to source, and how much farther b and c do
    turns: Tensor  # (B, F, 3, 4): quaternion at corner a, and what is added to it at b and at c

    @property
    def usable(self) -> Tensor:
        """(B, F) bool: False where the target triangle is degenerate, or either one not finite."""
        return self.triangles[:, :, 0, 0].isfinite()


def carriers(topology: Topology, target: Tensor, source: Tensor) -> Carriers:
    """From vertices (B, V, 3) of targets and sources in metres, float32 or float64."""
    count = len(target), len(topology.faces)
    device = target.device
    made = Carriers(*(torch.empty(*count, *size, device=device) for size in ((4, 3), (3, 3), (3, 4))))
    inputs = [
        as_array(topology.faces.int(), wp.vec3i),
        as_array(target.float().double(), wp.vec3d),
        as_array(target.double(), wp.vec3d),
        as_array(source.double(), wp.vec3d),
        as_array(vertex_turns(topology, target, source), wp.vec4d),
    ]
    types = (triangle_type, move_type, turn_type)
    launch(_carriers, count, inputs, [as_array(x, t) for x, t in zip(made, types, strict=True)], device)
    return made


@wp.func
def _aligned(hub: wp.vec4d, q: wp.vec4d):
    """q or -q, the same rotation, whichever is nearer to the hub."""
    if wp.dot(hub, q) < wp.float64(0.0):
        return -q
    return q


@kernel
def _carriers(
    faces: wp.array(dtype=wp.vec3i),
    rounded: wp.array2d(dtype=wp.vec3d),
    target: wp.array2d(dtype=wp.vec3d),
    source: wp.array2d(dtype=wp.vec3d),
    vertex_turns: wp.array2d(dtype=wp.vec4d),
    triangles: wp.array2d(dtype=triangle_type),
    moves: wp.array2d(dtype=move_type),
    turns: wp.array2d(dtype=turn_type),
):
    """One thread: a triangle. `rounded` is the target in float32: corners that triangles share are one point there too."""
    m, t = wp.tid()
    face = faces[t]
    a = rounded[m, face[0]]
    e1 = rounded[m, face[1]] - a
    e2 = rounded[m, face[2]] - a
    move = source[m, face[0]] - target[m, face[0]]
    move1 = source[m, face[1]] - target[m, face[1]] - move
    move2 = source[m, face[2]] - target[m, face[2]] - move

    longest = wp.sqrt(wp.max(wp.max(wp.dot(e1, e1), wp.dot(e2, e2)), wp.dot(e2 - e1, e2 - e1)))
    height = wp.length(wp.cross(e1, e2)) / longest
    every = wp.dot(a, a) + wp.dot(move, move) + wp.dot(move1, move1) + wp.dot(move2, move2)
    if height > _MIN_HEIGHT and wp.isfinite(every):
        triangles[m, t] = triangle_type(
            float(a[0]), float(a[1]), float(a[2]),
            float(e1[0]), float(e1[1]), float(e1[2]),
            float(e2[0]), float(e2[1]), float(e2[2]),
            float(wp.dot(e1, e1)), float(wp.dot(e1, e2)), float(wp.dot(e2, e2)),
        )  # fmt: skip
    else:
        triangles[m, t] = triangle_type(wp.nan)  # no comparison with its distance is true, so it is never chosen
    moves[m, t] = move_type(
        float(move[0]), float(move[1]), float(move[2]),
        float(move1[0]), float(move1[1]), float(move1[2]),
        float(move2[0]), float(move2[1]), float(move2[2]),
    )  # fmt: skip

    qa = vertex_turns[m, face[0]]
    qb = vertex_turns[m, face[1]]
    qc = vertex_turns[m, face[2]]
    ab = wp.abs(wp.dot(qa, qb))
    bc = wp.abs(wp.dot(qb, qc))
    ca = wp.abs(wp.dot(qc, qa))
    if bc <= ab and bc <= ca:  # the corner opposite the least of the three joins the two others
        qb = _aligned(qa, qb)
        qc = _aligned(qa, qc)
    elif ca <= ab:
        qa = _aligned(qb, qa)
        qc = _aligned(qb, qc)
    else:
        qa = _aligned(qc, qa)
        qb = _aligned(qc, qb)
    qb -= qa
    qc -= qa
    turns[m, t] = turn_type(
        float(qa[0]), float(qa[1]), float(qa[2]), float(qa[3]),
        float(qb[0]), float(qb[1]), float(qb[2]), float(qb[3]),
        float(qc[0]), float(qc[1]), float(qc[2]), float(qc[3]),
    )  # fmt: skip
