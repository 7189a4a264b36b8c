"""What every node does around its one call: progress, cancel, checks, and pictures to and from tensors."""

import math
from collections.abc import Callable, Iterator, Sequence

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from torch import Tensor

from ..flow3d.errors import InputError


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


def one_of(node: str, name: str, value: str, options: Sequence[str]) -> str:
    """`value`, checked: ComfyUI's server does not check the combos of an API request."""
    if value not in options:
        raise InputError(f"{node}: '{name}' is {value!r}, which is not one of {', '.join(options)}.")
    return value


def finite(node: str, **values: float) -> None:
    """Refuse NaN and infinity, which pass the server's checks of minimum and maximum."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise InputError(f"{node}: '{name.replace('_', ' ')}' is {value}, not a finite number.")


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
