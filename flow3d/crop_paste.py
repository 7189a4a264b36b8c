"""What was made of a crop put back into the full picture, frame by frame.

Where the result is what the crop was, the full picture keeps its own pixels, bit for bit and in its own sharpness.
Elsewhere the result is laid over it, in its colours, with soft edges.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .crop import REPLICATE, Array, PortraitCrop, resample
from .errors import InputError

ROUNDED_SQUARE, CIRCLE = SHAPES = ("rounded square", "circle")

_SAME, _CHANGED = 1 / 255, 4 / 255  # differences between which a pixel goes from unchanged to changed
_COARSE = 64  # cells a side of the grid on which colours are compared: detail has no say
_RING = 2.0  # cells: how far around the mask's contour
_FEWEST = 20.0  # cells that must be comparable
_FLAT = 0.02  # contrast below this says nothing about gain
_OUTLIERS = np.geomspace(0.1, 0.02, 8)  # differences at which a sample begins to lose its say, round by round


@dataclass(frozen=True)
class Blend:
    """How a result is laid over the picture.

    `feather` counts in pixels of the crop, of `PortraitCrop.size` a side. `colour_match` 0..1 is how far the result
    takes the colours that the picture has around it.
    """

    shape: str = ROUNDED_SQUARE
    feather: float = 32.0
    colour_match: float = 1.0


def paste(
    picture: Array, result: Array, crop: PortraitCrop, frame: int = 0, blend: Blend | None = None, mask: Array | None = None
) -> Array:
    """The full picture with the result in the place of its crop.

    Args:
        picture: (H, W, 3) float 0..1, as it was cropped.
        result: (n, n, 3) float 0..1; n may be other than the crop's size.
        frame: which of the crop's boxes.
        mask: (m, m) 0..1 over the crop, 1 where the result is taken; None: all of the crop.

    Returns:
        (H, W, 3) float. Outside the box it is `picture`, bit for bit.

    Raises:
        InputError: shapes that do not belong together, or a result with numbers that are not finite.
    """
    blend = blend or Blend()
    _check(picture, result, mask, crop, frame)
    size, result = len(result), result.clip(0, 1)
    fine = crop.resized(size)
    feather = blend.feather * size / crop.size
    here = _edge_weight(fine, frame, blend.shape, feather)
    if mask is not None:
        here = here * _soft_mask(mask, size, feather)
    before, known = fine.cut(picture, frame), fine.known(frame)
    matched = match_colours(result, before, here, known, blend.colour_match)
    return _laid_over(picture, matched, here * _changed(matched, before, known), fine, frame)


def _check(picture: Array, result: Array, mask: Array | None, crop: PortraitCrop, frame: int) -> None:
    height, width = picture.shape[:2]
    if (width, height) != (crop.width, crop.height):
        raise InputError(
            f"Paste Back: the full frame is {width} x {height}, but the crop was taken from {crop.width} x {crop.height}. "
            "Connect the picture that went into Portrait Crop."
        )
    if result.shape[0] != result.shape[1]:
        raise InputError(
            f"Paste Back: the result is {result.shape[1]} x {result.shape[0]}, but a crop is square. Resize it to a square."
        )
    for name, values in (("result", result), ("mask", mask)):
        if values is not None and not np.isfinite(values).all():
            raise InputError(f"Paste Back: frame {frame} of the {name} has values that are not finite numbers. Make it again.")


def _edge_weight(crop: PortraitCrop, frame: int, shape: str, feather: float) -> Array:
    """(size, size) 0..1 falling off towards the crop's edges, but not where the picture ends there anyway."""
    size = crop.size
    centres = np.arange(size, dtype=np.float32) + 0.5
    if shape == CIRCLE:
        x = centres - size / 2
        return _ramp(size / 2 - np.hypot(x[:, None], x), feather)
    radius = min(2 * feather, size / 4)
    left, top, right, bottom = crop.box(frame)
    beyond = 2 * (feather + radius)
    x = _overhang(centres, size, radius, beyond * (left <= 0), beyond * (right >= crop.width))
    y = _overhang(centres, size, radius, beyond * (top <= 0), beyond * (bottom >= crop.height))[:, None]
    outward = np.hypot(x.clip(0), y.clip(0)) + np.maximum(x, y).clip(max=0)
    return _ramp(radius - outward, feather)


def _overhang(centres: Array, size: int, radius: float, before: float, after: float) -> Array:
    """(size,) how far pixels lie outside of -before + radius .. size + after - radius; negative inside."""
    return np.maximum(radius - before - centres, centres - (size + after - radius))


def _ramp(depth: Array, feather: float) -> Array:
    """0 at the edge to 1 at `feather` pixels within, smooth at both ends."""
    t = (depth / max(feather, 1e-6)).clip(0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def _soft_mask(mask: Array, size: int, feather: float) -> Array:
    """A given mask in the result's size, its edge made as wide as the feather."""
    height, width = mask.shape
    sized = resample(np.asarray(mask, np.float32).clip(0, 1), (0.0, 0.0, width, height), (size, size), REPLICATE)
    return cv2.GaussianBlur(sized, (0, 0), feather / 4) if feather >= 1 else sized


def _changed(result: Array, before: Array, known: Array) -> Array:
    """(n, n) 0..1: where an edit made something else of the crop. Holes of chance agreement within are closed."""
    size = len(result)
    away = np.abs(result - before).max(-1) * (known > 0)
    weight = _ramp(away - _SAME, _CHANGED - _SAME)
    if not weight.any():
        return weight
    weight = cv2.morphologyEx(weight, cv2.MORPH_CLOSE, _block(size / 24))
    soft = cv2.GaussianBlur(cv2.dilate(weight, _block(size / 48)), (0, 0), max(size / 128, 0.5))
    return (soft * 1.0001).clip(0, 1)  # a blur's weights add up to a little less than 1


def _block(radius: float) -> np.ndarray:
    side = 2 * round(radius) + 1
    return np.ones((side, side), np.uint8)


def match_colours(result: Array, before: Array, weight: Array, known: Array, strength: float) -> Array:
    """The result (n, n, 3) in the colours of the crop as it was, by the ring around the contour of `weight` (n, n) where
    both are `known` (n, n).

    Coarse pixels are compared one with another and outliers lose their say, so that what the edit moved within the ring
    does not count. Where nothing was changed there, nothing is changed here, bit for bit. The colours are sRGB's as
    stored: on animated portraits that undid shifts of white balance, exposure and contrast better than linear light or
    Lab, and steadier than a full 3 x 3 mix. A change of saturation stays.
    """
    if strength <= 0:
        return result
    ours, theirs, inside, seen = (_coarse(x) for x in (result, before, weight, known))
    soft = cv2.GaussianBlur(inside, (0, 0), _RING, borderType=cv2.BORDER_CONSTANT)
    ring = 4 * soft * (1 - soft) * (seen > 0.99)
    if ring.sum() < _FEWEST:
        return result
    gain, offset = _colour_change(ours.reshape(-1, 3).astype(np.float64), theirs.reshape(-1, 3).astype(np.float64), ring.ravel())
    change = result * (gain * strength).astype(np.float32) + (offset * strength).astype(np.float32)
    return (result + change).clip(0, 1)


def _coarse(image: Array) -> Array:
    return cv2.resize(image, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA)


def _colour_change(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], trust: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each channel what times the colour, and what added (3,), to add to colours `ours` (n, 3) to bring them to `theirs`.

    Least squares weighted by `trust` (n,) and, ever more strictly, by the residuals; it starts from the median difference.
    """
    gain, offset = np.zeros(3), np.median((theirs - ours)[trust > 0.5 * trust.max()], 0)
    for scale in _OUTLIERS:
        away = np.abs(ours + ours * gain + offset - theirs).max(1)
        weight = trust / (1 + (away / scale) ** 2) ** 2
        weight = weight / weight.sum()
        mean, change = weight @ ours, weight @ (theirs - ours)
        spread, together = weight @ (ours - mean) ** 2, weight @ ((ours - mean) * (theirs - ours - change))
        gain = (together / (spread + _FLAT**2)).clip(-0.5, 1)
        offset = change - gain * mean
    return gain, offset


def _laid_over(picture: Array, result: Array, weight: Array, crop: PortraitCrop, frame: int) -> Array:
    """The picture mixed with the result by weights, both (n, n, ...), over the whole pixels within the box."""
    out = picture.copy()
    left, top, right, bottom = crop.box(frame)
    x0, y0 = max(0, math.ceil(left)), max(0, math.ceil(top))
    x1, y1 = min(crop.width, math.floor(right)), min(crop.height, math.floor(bottom))
    if x1 <= x0 or y1 <= y0 or not weight.any():
        return out
    (left, top), (right, bottom) = crop.to_crop([(x0, y0), (x1, y1)], frame)
    box, size = (left, top, right, bottom), (x1 - x0, y1 - y0)
    share = resample(weight, box, size, REPLICATE, Image.Resampling.BILINEAR)[..., None]
    part = out[y0:y1, x0:x1]
    part[:] = part * (1 - share) + resample(result, box, size, REPLICATE) * share
    return out
