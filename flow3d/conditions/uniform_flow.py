"""The 3D flow without depth-guided sampling: the ablation "uniform" of FG-Portrait (CVPR 2026), table 5."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..flow.encode import encode_pairs
from ..flow.field import ALL, FlowField, Frames
from ..flow.topology import topology_of
from ..render.rasterize import Fragments
from .base import PosedHead


@dataclass(frozen=True, eq=False)
class UniformFlow:
    """Every pixel's ray is sampled evenly over all of [near, far], as the field itself samples beside the head. The samples
    are searched among the skin, since without depth no part of the head is known to be the one that is seen."""

    field: FlowField

    @property
    def channels(self) -> int:
        return 3 * self.field.sampling.samples

    def __len__(self) -> int:
        return len(self.field)

    def encode(self, frames: Frames = ALL) -> Tensor:
        """(n, 3 N, H, W) float32: the flow in metres times the field's `flow_scale`, channels x0 y0 z0 x1 y1 z1 ..."""
        field = self.field
        target = PosedHead(field.target, field.head, field.camera).vertices(frames)
        source = field.source[:1].vertices(field.head).expand(len(target), -1, -1)
        unseen = _nothing(len(target), field.camera.height, field.camera.width, target.device)
        return encode_pairs(
            topology_of(field.head), source, target, field.camera, field.sampling, field.flow_scale, unseen
        )


def _nothing(count: int, height: int, width: int, device: torch.device) -> Fragments:
    """What is seen where there is no head."""
    shape = (count, height, width)
    triangle = torch.full(shape, -1, dtype=torch.int32, device=device)
    return Fragments(torch.zeros(shape, device=device), triangle, torch.zeros(*shape, 3, device=device))
