"""The iris of a photographed eye: where it is, and what it looks like where the lids cover it."""

import cv2
import numpy as np
from numpy.typing import NDArray

from .fields import Array, sample, smoothstep

_RADII = np.linspace(0.8, 1.7, 28)  # of the radius that the landmarks give
_SHIFTS = np.linspace(-0.4, 0.4, 11)  # of it, along and across
_ANGLES = np.radians(np.r_[np.arange(-40, 41, 8), np.arange(140, 221, 8)])  # the sides, which lids rarely cover
_PRIOR = 0.3  # how much likelier a circle of the landmarks' own size is than one at the ends of the range


def find_iris(photo: Array, open_eye: NDArray[np.bool_], marks: Array) -> tuple[Array, float]:
    """The circle of an iris, centre (2,) and radius in pixels, where the picture grows most from dark to light.

    The integro-differential operator of Daugman, High confidence visual recognition of persons (1993).

    Args:
        photo: (h, w, 3) the eye. open_eye: (h, w) what of it lies between the lids. marks: (5, 2) the landmarks of the
            iris: its centre and its ends.
    """
    centre, size = marks[0], max(float(np.linalg.norm(marks[1] - marks[3])) / 2, 1.0)
    ring = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], -1)
    shifts = size * np.stack(np.meshgrid(_SHIFTS, _SHIFTS), -1).reshape(-1, 1, 1, 2)
    points = centre + shifts + size * _RADII[:, None, None] * ring  # (shifts, radii, angles, 2)
    flat = points.reshape(-1, 2).astype(np.float32)
    light = cv2.GaussianBlur(photo.min(-1), (0, 0), max(0.06 * size, 0.3))  # an iris lacks one colour at least
    value = sample(light, flat).reshape(points.shape[:-1])
    seen = sample(open_eye.astype(np.float32), flat).reshape(points.shape[:-1])
    both = np.minimum(seen[:, 1:], seen[:, :-1])
    rise = (np.diff(value, axis=1) * both).reshape(*both.shape[:2], 2, -1).sum(-1)  # of each side of the iris
    rise = rise / np.maximum(both.reshape(rise.shape + (-1,)).sum(-1), len(_ANGLES) / 8)
    likely = 1 - _PRIOR * np.abs(np.log(_RADII[1:]) / np.log(_RADII[-1])).clip(0, 1)
    likely = likely * (1 - 0.5 * _PRIOR * (shifts**2).sum(-1)[:, :, 0] / (size * _SHIFTS[-1]) ** 2)
    growth = (rise.mean(-1) + rise.min(-1)) * likely
    best, radius = np.unravel_index(np.argmax(growth), growth.shape)
    return (centre + shifts[best, 0, 0]).astype(np.float32), float(size * _RADII[radius : radius + 2].mean())


def whole_iris(photo: Array, seen: Array, pixels: Array, centre: Array, radius: float, down: Array) -> tuple[Array, Array]:
    """A photo of an eye (h, w, 3) with the iris completed, and how much of each pixel (h, w) is made up.

    What a lid covers is taken from the mirror image in the iris' horizontal axis where that is seen (h, w, 0..1), and
    else is the mean colour at the same distance from the centre.

    Args:
        pixels: (h, w, 2) the pixels' places. centre: (2,), radius: of the iris. down: (2,) the eye's vertical.
    """
    away = pixels - centre
    mirrored = (pixels - 2 * (away @ down)[..., None] * down - 0.5).astype(np.float32)
    other = cv2.remap(photo, mirrored, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    other_seen = cv2.remap(seen.astype(np.float32), mirrored, None, cv2.INTER_LINEAR)
    far = np.linalg.norm(away, axis=-1) / radius
    bins = np.linspace(0, 1, max(int(radius), 3))
    place = np.clip((far * (len(bins) - 1)).round().astype(int), 0, len(bins) - 1)
    weight = np.where(far <= 1.02, seen, 0).ravel()
    total = np.bincount(place.ravel(), weight, len(bins))
    known = total > 0.5
    if not known.any():
        return photo, 1 - seen
    fill = np.empty_like(photo)
    for c in range(3):
        mean = np.bincount(place.ravel(), weight * photo[..., c].ravel(), len(bins)) / np.maximum(total, 1e-6)
        fill[..., c] = np.interp(far, bins[known], mean[known])
    share = smoothstep(other_seen, 0.3, 0.9)[..., None]
    fill = fill + (other - fill) * share
    return fill + (photo - fill) * seen[..., None], 1 - seen
