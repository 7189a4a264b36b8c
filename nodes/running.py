"""What every node does around its one call: progress, cancel, and pictures to and from tensors."""

from collections.abc import Callable, Iterator

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from torch import Tensor


def cancel_point() -> None:
    """Stop here where the user has pressed Cancel."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def progress() -> Callable[[int, int], None]:
    """A function of (done, total) that moves the node's progress bar; it stops the work where the user cancels."""
    bars: list[comfy.utils.ProgressBar] = []

    def report(done: int, total: int) -> None:
        cancel_point()
        if not bars:
            bars.append(comfy.utils.ProgressBar(total))
        bars[0].update_absolute(done, total)

    return report


def to_uint8(image: Tensor) -> np.ndarray:
    """One picture (H, W, C) of floats 0..1, C = 1, 3 or 4 (alpha is dropped), to (H, W, 3) uint8 RGB."""
    rgb = image[..., :3] if image.shape[-1] >= 3 else image[..., :1].expand(*image.shape[:-1], 3)
    return torch.nan_to_num(rgb.float()).mul(255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def pictures(images: Tensor) -> Iterator[np.ndarray]:
    """The pictures of an IMAGE (B, H, W, C), one after the other, as `to_uint8` gives them."""
    return (to_uint8(image) for image in images)


def to_image(pixels: np.ndarray) -> Tensor:
    """(..., H, W, 3) or a mask (..., H, W), uint8, to floats 0..1."""
    return torch.from_numpy(pixels).to(torch.float32) / 255
