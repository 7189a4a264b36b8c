"""Flow in colours for people: hue is direction, strength is distance."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

OFF_HEAD = 0.22
"""The grey of pixels without a head."""
TOWARDS, AWAY = (1.0, 0.55, 0.10), (0.15, 0.50, 1.0)
"""Colours of a move towards the camera and away from it."""


def direction_colours(move: Tensor) -> Tensor:
    """Colours (..., 3) 0..1 of moves (..., 2) in the picture, x right and y down, 1 being the full strength.

    The hue is the direction (red right, yellow-green down, cyan left, violet up), white is no move, full colour a move of
    length 1 or more.
    """
    strength = move.norm(dim=-1).clamp(max=1)
    turn = torch.atan2(move[..., 1], move[..., 0]) / (2 * math.pi)
    from_primary = (turn[..., None] - torch.tensor([0, 1 / 3, 2 / 3], device=move.device)) % 1.0
    apart = torch.minimum(from_primary, 1 - from_primary)  # turns between this hue and pure red, green, blue
    full_colour = (2 - 6 * apart).clamp(0, 1)
    return (1 - strength[..., None] * (1 - full_colour)).nan_to_num(0.0)


def depth_colours(move: Tensor) -> Tensor:
    """Colours (..., 3) 0..1 of moves (...) along the camera's axis: orange towards the camera (-1), blue away (1)."""
    end = torch.where(move[..., None] < 0, move.new_tensor(TOWARDS), move.new_tensor(AWAY))
    return 1 - move.abs().clamp(max=1)[..., None] * (1 - end)


def flow_picture(pixels: Tensor, mask: Tensor, full: float | None = None) -> Tensor:
    """Paint where each pixel came from, see `direction_colours`.

    Args:
        pixels: (n, H, W, 2) source places in pixels, see `FlowField.pixels`. mask: (n, H, W) bool, where the head is.
        full: pixels; None: 6% of the image's short side, the same for every frame.

    Returns:
        (n, H, W, 3) uint8 RGB.
    """
    _, h, w, _ = pixels.shape
    y, x = torch.meshgrid(*(torch.arange(n, device=pixels.device) + 0.5 for n in (h, w)), indexing="ij")
    move = (torch.stack([x, y], -1) - pixels) / (0.06 * min(h, w) if full is None else full)
    colour = torch.where(mask[..., None], direction_colours(move), OFF_HEAD)
    return (colour * 255).round().to(torch.uint8)


def as_bytes(colour: Tensor) -> NDArray[np.uint8]:
    """Colours 0..1 as uint8."""
    return (colour.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
