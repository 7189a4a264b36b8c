# mypy: disable-error-code="valid-type,assignment,attr-defined,operator,call-overload,misc,arg-type,index"
# Kernels are written in warp's language, whose types mypy cannot read.
"""How the surface turns at each vertex of a frame pair: the rotation that fits the triangles around it best.

The rule is written down in docs/flow.md, and `reference.py` follows it by another way: here a quaternion is the eigenvector
of Horn's 4 x 4 matrix (Closed-form solution of absolute orientation using unit quaternions, 1987), found by squaring that
matrix again and again, which needs no branch and no number on the host.
"""

import torch
import warp as wp
from torch import Tensor

from ..kernels import as_array, kernel, launch
from .topology import Topology

WHOLE_WEIGHT = 1e-3
"""Of the whole head's turn beside that of the triangles around a vertex: it decides where those lie on a line or a point."""
_SQUARINGS = wp.constant(18)  # an eigenvalue that is 1e-4 smaller than the largest has weight e^-26 then
_WHOLE = wp.constant(wp.float64(WHOLE_WEIGHT))


def vertex_turns(topology: Topology, target: Tensor, source: Tensor) -> Tensor:
    """(B, V, 4) float64: unit quaternions w x y z of the rotations from target to source, vertices (B, V, 3).

    Never NaN: what is not finite is left out.
    """
    target, source = target.double(), source.double()
    turns = torch.empty(*target.shape[:2], 4, dtype=torch.float64, device=target.device)
    inputs = [
        as_array(topology.faces.int(), wp.vec3i),
        as_array(topology.fan_start, wp.int32),
        as_array(topology.fan, wp.int32),
        as_array(target, wp.vec3d),
        as_array(source, wp.vec3d),
        as_array(whole(target, source), wp.mat33d),
    ]
    launch(_fit_turns, tuple(target.shape[:2]), inputs, [as_array(turns, wp.vec4d)], target.device)
    return turns


def whole(target: Tensor, source: Tensor) -> Tensor:
    """(..., 3, 3): the outer products of the whole meshes, source by target (..., V, 3) about their means, of norm 1 at most."""
    finite = (target.isfinite() & source.isfinite()).all(-1, keepdim=True)
    count = finite.sum(-2, keepdim=True).clamp(min=1)

    def centred(vertices: Tensor) -> Tensor:
        vertices = torch.where(finite, vertices, 0.0)
        return torch.where(finite, vertices - vertices.sum(-2, keepdim=True) / count, 0.0)

    t, s = centred(target), centred(source)
    size = ((t * t).sum((-2, -1)) * (s * s).sum((-2, -1))).clamp(min=1e-300).sqrt()
    return (s[..., :, None] * t[..., None, :]).sum(-3) / size[..., None, None]


@wp.func
def _quaternion(m: wp.mat33d):
    """w x y z of the rotation R with the largest trace of R^T m, for any m."""
    shift = wp.float64(1.7320508075688774) * wp.sqrt(wp.ddot(m, m))  # at least the sum of the singular values
    if not shift > wp.float64(1e-100):
        return wp.vec4d(wp.float64(1.0), wp.float64(0.0), wp.float64(0.0), wp.float64(0.0))
    xx = m[0, 0]
    yy = m[1, 1]
    zz = m[2, 2]
    x = m[2, 1] - m[1, 2]
    y = m[0, 2] - m[2, 0]
    z = m[1, 0] - m[0, 1]
    xy = m[0, 1] + m[1, 0]
    xz = m[0, 2] + m[2, 0]
    yz = m[1, 2] + m[2, 1]
    a = wp.mat44d(
        shift + xx + yy + zz, x, y, z,
        x, shift + xx - yy - zz, xy, xz,
        y, xy, shift - xx + yy - zz, yz,
        z, xz, yz, shift - xx - yy + zz,
    )  # fmt: skip
    for _ in range(_SQUARINGS):
        a = a / wp.trace(a)
        a = a * a
    largest = wp.int32(0)
    for i in range(1, 4):
        if a[i, i] > a[largest, largest]:
            largest = i
    return wp.normalize(a[largest])


@kernel
def _fit_turns(
    faces: wp.array(dtype=wp.vec3i),
    fan_start: wp.array(dtype=wp.int32),
    fan: wp.array(dtype=wp.int32),
    target: wp.array2d(dtype=wp.vec3d),
    source: wp.array2d(dtype=wp.vec3d),
    whole: wp.array(dtype=wp.mat33d),
    turns: wp.array2d(dtype=wp.vec4d),
):
    """One thread: a vertex."""
    m, i = wp.tid()
    fit = wp.mat33d()
    normal_t = wp.vec3d()
    normal_s = wp.vec3d()
    size_t = wp.float64(0.0)
    size_s = wp.float64(0.0)
    for k in range(fan_start[i], fan_start[i + 1]):
        face = faces[fan[k]]
        b = face[1]
        c = face[2]
        if face[1] == i:
            b = face[2]
            c = face[0]
        if face[2] == i:
            b = face[0]
            c = face[1]
        t1 = target[m, b] - target[m, i]
        t2 = target[m, c] - target[m, i]
        s1 = source[m, b] - source[m, i]
        s2 = source[m, c] - source[m, i]
        long_t = wp.dot(t1, t1) + wp.dot(t2, t2)
        long_s = wp.dot(s1, s1) + wp.dot(s2, s2)
        if wp.isfinite(long_t) and wp.isfinite(long_s):
            fit += wp.outer(s1, t1) + wp.outer(s2, t2)
            normal_t += wp.cross(t1, t2)
            normal_s += wp.cross(s1, s2)
            size_t += long_t
            size_s += long_s
    size = wp.sqrt(size_t * size_s)
    if size > wp.float64(0.0):
        fit = (fit + wp.outer(normal_s, normal_t) / size) / size
    turns[m, i] = _quaternion(fit + _WHOLE * whole[m])
