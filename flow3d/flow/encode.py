"""The 3D flow of a batch of frame pairs as image channels: what a control network is steered by."""

from collections.abc import Sequence

from torch import Tensor

from ..camera import Camera
from ..render.rasterize import Fragments, rasterize
from .sampling import Sampling
from .surface_field import SurfaceField
from .topology import Topology

FLOW_SCALE = 10.0
"""What metres are multiplied by in version 1 of the encoding."""


def encode_pairs(
    topology: Topology,
    source: Tensor,
    target: Tensor,
    camera: Camera | Sequence[Camera],
    sampling: Sampling,
    scale: float = FLOW_SCALE,
    fragments: Fragments | None = None,
) -> Tensor:
    """Encode frame pairs, a different head in each row if need be.

    Args:
        source, target: (B, V, 3) camera frame, metres, on the topology's device.
        camera: one for all rows, or one for each; it sees the target.
        fragments: the rasterized target, where it is known already.

    Returns:
        (B, 3 N, H, W) float32: p_src - p_tgt in metres times `scale`, channels x0 y0 z0 x1 y1 z1 ...
    """
    seen = rasterize(target, topology.triangles, camera) if fragments is None else fragments
    cameras = [camera] * len(target) if isinstance(camera, Camera) else camera
    return SurfaceField(topology, target, source).along_rays(cameras, seen, sampling, scale)
