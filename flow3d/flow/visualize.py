"""Pictures of the flow for people: colour is direction, strength is distance."""

import math

import torch
from torch import Tensor

OFF_HEAD = 0.22
"""The grey of pixels without a head."""


def flow_picture(pixels: Tensor, mask: Tensor, full: float | None = None) -> Tensor:
    """Paint where each pixel came from.

    The hue is the direction of the move from the source to here (red right, yellow-green down, cyan left, violet up),
    white is no move, full colour a move of `full` pixels or more.

    Args:
        pixels: (n, H, W, 2) source places in pixels, see `FlowField.pixels`. mask: (n, H, W) bool, where the head is.
        full: pixels; None: 6% of the image's short side, the same for every frame.

    Returns:
        (n, H, W, 3) uint8 RGB.
    """
    _, h, w, _ = pixels.shape
    y, x = torch.meshgrid(*(torch.arange(n, device=pixels.device) + 0.5 for n in (h, w)), indexing="ij")
    move = torch.stack([x, y], -1) - pixels
    strength = (move.norm(dim=-1) / (0.06 * min(h, w) if full is None else full)).clamp(max=1)
    turn = torch.atan2(move[..., 1], move[..., 0]) / (2 * math.pi)
    from_primary = (turn[..., None] - torch.tensor([0, 1 / 3, 2 / 3], device=pixels.device)) % 1.0
    apart = torch.minimum(from_primary, 1 - from_primary)  # turns between this hue and pure red, green, blue
    full_colour = (2 - 6 * apart).clamp(0, 1)
    colour = 1 - strength[..., None] * (1 - full_colour)
    colour = torch.where(mask[..., None], colour.nan_to_num(0.0), OFF_HEAD)
    return (colour * 255).round().to(torch.uint8)
