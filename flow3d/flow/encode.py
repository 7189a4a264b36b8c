"""The 3D flow of a batch of frame pairs as image channels: what a control network is steered by."""

from collections.abc import Sequence

from torch import Tensor

from ..camera import Camera
from ..render.rasterize import Fragments, rasterize
from .sampling import Sampling
from .surface_field import SurfaceField
from .topology import Topology

VERSION = 2
"""Of the encoding: of docs/flow.md, with the numbers of `Sampling` and FLOW_SCALE. Trained networks depend on it."""
FLOW_SCALE = 10.0
"""What metres are multiplied by in version 2 of the encoding."""


def encode_pairs(
    topology: Topology,
    source: Tensor,
    target: Tensor,
    camera: Camera | Sequence[Camera],
    sampling: Sampling,
    scale: float = FLOW_SCALE,
    fragments: Fragments | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Encode frame pairs, a different head in each row if need be.

    Args:
        source, target: (B, V, 3) camera frame, metres, on the topology's device.
        camera: one for all rows, or one for each; it sees the target.
        fragments: the rasterized target, where it is known already.
        out: where to write it, (B, 3 N, H, W) float32 or float16 on that device with any strides; None: a new float32 tensor.

    Returns:
        `out`: p_src - p_tgt in metres times `scale`, channels x0 y0 z0 x1 y1 z1 ... On CUDA everything is queued on torch's
        current stream, and the host waits for nothing.

    Raises ValueError where shapes disagree.
    """
    vertices = len(topology.fan_start) - 1
    if source.shape != target.shape or target.ndim != 3 or tuple(target.shape[1:]) != (vertices, 3):
        raise ValueError(
            f"3D flow: source {tuple(source.shape)} and target {tuple(target.shape)} must both be (B, {vertices}, 3)"
        )
    seen = rasterize(target, topology.triangles, camera) if fragments is None else fragments
    cameras = [camera] * len(target) if isinstance(camera, Camera) else camera
    return SurfaceField(topology, target, source).along_rays(cameras, seen, sampling, scale, out)
