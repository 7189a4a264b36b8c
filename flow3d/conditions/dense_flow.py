"""Dense 2D flow: for each pixel of the target, how far away in the picture its surface point is in the source."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..flow.field import ALL, FlowField, Frames


@dataclass(frozen=True, eq=False)
class DenseFlow:
    """Source place minus target place, in halves of the image's width (x) and height (y): added to the coordinates of
    `torch.nn.functional.grid_sample` (align_corners=False) it fetches the source. 0 off the head."""

    field: FlowField

    @property
    def channels(self) -> int:
        return 2

    def __len__(self) -> int:
        return len(self.field)

    def encode(self, frames: Frames = ALL) -> Tensor:
        """(n, 2, H, W) float32: x right, y down."""
        pixels = self.field.pixels(frames).float()
        height, width = pixels.shape[1:3]
        y, x = torch.meshgrid(*(torch.arange(n, device=pixels.device) + 0.5 for n in (height, width)), indexing="ij")
        halves = pixels.new_tensor([width / 2, height / 2])
        return ((pixels - torch.stack([x, y], -1)) / halves).movedim(-1, 1).contiguous()
