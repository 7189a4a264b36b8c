# mypy: disable-error-code="valid-type,assignment,attr-defined,operator,call-overload,misc,arg-type,index"
# Kernels are written in warp's language, whose types mypy cannot read.
"""The sample points along the rays of an image, for warp kernels: `Sampling` and `Fragments` in their language."""

from collections.abc import Sequence

import warp as wp

from ..camera import Camera
from ..kernels import as_array, to_device
from ..render.rasterize import Fragments
from .sampling import Sampling


@wp.struct
class Rays:
    """What is sampled, for a batch of images."""

    lens: wp.array(dtype=wp.vec3)  # focal, cx, cy
    depth: wp.array3d(dtype=wp.float32)
    seen: wp.array3d(dtype=wp.int32)  # triangle, -1 off the head
    samples: int
    first: float  # see `Sampling.steps`
    step: float
    delta: float
    near: float
    far: float


def rays_of(cameras: Sequence[Camera], seen: Fragments, sampling: Sampling) -> Rays:
    """The rays of each pixel of the fragments, one camera for each image."""
    rays = Rays()
    rays.lens = as_array(to_device([[c.focal, c.cx, c.cy] for c in cameras], seen.depth.device), wp.vec3)
    rays.depth = as_array(seen.depth, wp.float32)
    rays.seen = as_array(seen.triangle, wp.int32)
    rays.samples = sampling.samples
    rays.first, rays.step = sampling.steps
    rays.delta, rays.near, rays.far = sampling.delta, sampling.near, sampling.far
    return rays


@wp.func
def slopes(rays: Rays, m: int, y: int, x: int):
    """x / z and y / z along the ray of a pixel."""
    lens = rays.lens[m]
    return wp.vec2((float(x) + 0.5 - lens[1]) / lens[0], (float(y) + 0.5 - lens[2]) / lens[0])


@wp.func
def depth_at(rays: Rays, low: float, high: float, n: int):
    """The depth of sample n between two ends."""
    return low + (rays.first + float(n) * rays.step) * (high - low)
