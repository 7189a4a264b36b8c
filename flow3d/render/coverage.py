"""Masks with smooth edges: how much of each pixel a mesh covers."""

import torch
from torch import Tensor

from ..camera import Camera
from .rasterize import rasterize


def coverage(vertices: Tensor, faces: Tensor, camera: Camera, samples: int = 4) -> Tensor:
    """(B, H, W) float32: the share of each pixel's `samples` x `samples` sample points that the mesh covers, 0..1.

    Args:
        vertices: (B, V, 3) camera frame, metres. faces: (F, 3).
    """
    fine = camera.resized(camera.width * samples, camera.height * samples)
    covered = (rasterize(vertices, faces, fine).triangle >= 0).float()
    return torch.nn.functional.avg_pool2d(covered[:, None], samples)[:, 0]
