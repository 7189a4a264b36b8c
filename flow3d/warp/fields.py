"""Displacement fields on pixel grids: filled where unknown, and faded out away from the head."""

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def smoothstep(x: NDArray | np.floating, low: float | NDArray, high: float | NDArray) -> NDArray:
    """0 below `low`, 1 above `high`, a cubic with flat ends between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def pull_push(values: Array, confidence: Array) -> Array:
    """Fill values (H, W, C) where the confidence (H, W) is below 1 from ever coarser averages: a smooth extension.

    The pull-push algorithm of Gortler et al., The Lumigraph (1996), section 3.5, with Gaussian pyramids.
    """
    height, width = confidence.shape
    if min(height, width) <= 2:
        total = max(float(confidence.sum()), 1e-6)
        return np.broadcast_to((values * confidence[..., None]).sum((0, 1)) / total, values.shape).astype(np.float32)
    weight = cv2.pyrDown(confidence)
    coarse = cv2.pyrDown(values * confidence[..., None]) / np.maximum(weight, 1e-6)[..., None]
    filled = pull_push(coarse, np.minimum(weight * 1.6, 1))
    up = cv2.pyrUp(filled, dstsize=(width, height))
    keep = confidence[..., None]
    return values * keep + up * (1 - keep)


def blur_within(values: Array, weight: Array, sigma: float) -> Array:
    """Gaussian mean of values (H, W, C) over the pixels with weight (H, W) alone; zero where there are none near."""
    total = cv2.GaussianBlur(weight, (0, 0), sigma)
    return cv2.GaussianBlur(values * weight[..., None], (0, 0), sigma) / np.maximum(total, 1e-3)[..., None]


def sample(image: NDArray, pixels: Array, interpolation: int = cv2.INTER_LINEAR) -> NDArray:
    """Values of image (H, W[, C]) at points (n, 2) in pixels, centres at +0.5; the border is continued."""
    columns = 256  # OpenCV's maps have at most 32,767 rows
    rows = max(1, -(-len(pixels) // columns))
    grid = np.zeros((rows * columns, 2), np.float32)
    grid[: len(pixels)] = pixels - 0.5
    out = cv2.remap(image, grid.reshape(rows, columns, 2), None, interpolation, borderMode=cv2.BORDER_REPLICATE)
    return out.reshape(rows * columns, *image.shape[2:])[: len(pixels)]
