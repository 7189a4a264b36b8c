"""How much a picture's pixels are worth: their noise, outliers among them, and over how many of them it is the same noise."""

from typing import NamedTuple

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2
from torch import Tensor

_MAD = 1.4826  # standard deviations of a normal distribution per median absolute deviation
_ROBUST = 4.0  # standard deviations (of three channels together) beyond which a pixel counts less and less
_LEAST_SIGMA = 1e-4
_REACH = 24  # pixels: a patch of equal errors is not larger


class PixelNoise(NamedTuple):
    """Of colours' residuals."""

    sigma: float  # robust standard deviation of one channel
    alike: float  # how many numbers (pixels and channels together) hold one independent number, at least 1


def robust_loss(residual: Tensor, sigma: float) -> Tensor:
    """(N,) Geman and McClure's loss of pixels with residuals (N, 3): their square in standard deviations, but bounded."""
    s = residual.square().sum(1) / sigma**2
    return s / (1 + s / _ROBUST**2)


def robust_weights(residual: Tensor, sigma: float) -> Tensor:
    """(N,) 0..1: what the squares are multiplied by to have the gradient of `robust_loss`."""
    return (1 + residual.square().sum(1) / (_ROBUST * sigma) ** 2) ** -2


def pixel_noise(residual: Tensor, places: Tensor, size: tuple[int, int]) -> PixelNoise:
    """The noise that residuals show.

    A model that is wrong leaves errors in patches: a patch counts once, not once for each of its pixels. Its size is the
    integral of the residuals' autocorrelation up to where that first falls to 0.

    Args:
        residual: (N, 3). places: (N, 2) rows and columns in a picture of `size`.
    """
    if not len(residual):
        return PixelNoise(1.0, 1.0)
    sigma = max(float(_MAD * residual.abs().median()), _LEAST_SIGMA)
    weight = robust_weights(residual, sigma).sqrt()
    r = (residual * weight[:, None]).double().cpu().numpy()
    channels = np.square(r.sum(1)).sum() / max(np.square(r).sum(), 1e-30)
    patch = _patch(r, weight.double().cpu().numpy(), places.cpu().numpy(), size)
    return PixelNoise(sigma, max(1.0, patch) * float(np.clip(channels, 1.0, 3.0)))


def _patch(r: np.ndarray, weight: np.ndarray, places: np.ndarray, size: tuple[int, int]) -> float:
    """The integral in pixels of the autocorrelation of values (N, 3) at places (N, 2), out to its first zero."""
    shape = tuple(next_fast_len(n + _REACH, real=True) for n in size)
    planes = np.zeros((4, *shape))
    planes[:3, places[:, 0], places[:, 1]] = r.T
    planes[3, places[:, 0], places[:, 1]] = weight
    power = irfft2(np.abs(rfft2(planes)) ** 2, s=shape)
    pairs = power[3]
    correlation = power[:3].sum(0) / np.maximum(pairs, 1e-9)
    correlation /= max(correlation[0, 0], 1e-30)
    y, x = (np.minimum(np.arange(n), n - np.arange(n)) for n in shape)
    ring = np.hypot(y[:, None], x[None]).round().astype(int)
    ring[(pairs < 0.5) | (ring > _REACH)] = _REACH + 1
    sums = np.bincount(ring.ravel(), correlation.ravel(), _REACH + 2)[: _REACH + 1]
    return float(sums[: np.argmax(np.append(sums, 0.0) <= 0)].sum())
