"""A square crop around a head, and exactly how it lies in the full picture.

Pixels are counted with their centres at +0.5. A crop changes a camera's intrinsics, never the geometry.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from .camera import Camera
from .errors import InputError

Array = NDArray[np.float32]

REFLECT, REPLICATE = BORDERS = ("reflect", "replicate")
"""What stands beyond a picture's border: its mirror image, or its outermost pixels again and again."""

_REACH = 3  # pixels that Lanczos's kernel looks at on either side, times the scale when it shrinks
_SHARP, _BLUR = 0.08, 0.05  # crop sides: how far beyond the border until all is blurred, and how much
_FINE = 4.0  # pixels of deviation that are enough to blur with


@dataclass(frozen=True, eq=False)
class PortraitCrop:
    """Square boxes in a picture of `width` x `height`, each shown with `size` x `size` pixels.

    A box may lie partly outside the picture. One box stands for every frame, several for one frame each.
    Raises ValueError where the boxes are no (T, 3) finite numbers with sides above 0.
    """

    width: int
    height: int
    boxes: NDArray[np.float64]  # (T, 3) pixels of the full picture: centre x, centre y, side
    size: int

    def __post_init__(self) -> None:
        boxes = np.array(self.boxes, np.float64)
        if boxes.ndim != 2 or boxes.shape[1] != 3 or not len(boxes) or not np.isfinite(boxes).all() or boxes[:, 2].min() <= 0:
            raise ValueError(f"PortraitCrop: the boxes {boxes.shape} must be (T, 3), finite, with sides above 0")
        if min(self.width, self.height, self.size) < 1:
            raise ValueError(f"PortraitCrop: {self.width} x {self.height} cropped to {self.size} pixels is nothing")
        object.__setattr__(self, "boxes", boxes)

    def __len__(self) -> int:
        return len(self.boxes)

    def resized(self, size: int) -> "PortraitCrop":
        """The same boxes, shown with `size` x `size` pixels."""
        return replace(self, size=size)

    def box(self, frame: int = 0) -> tuple[float, float, float, float]:
        """Left, top, right, bottom in pixels of the full picture. Raises IndexError for a frame without a box."""
        x, y, side = self.boxes[0 if len(self) == 1 else frame]
        return x - side / 2, y - side / 2, x + side / 2, y + side / 2

    def scale(self, frame: int = 0) -> float:
        """Pixels of the crop for one of the full picture."""
        return self.size / self.boxes[0 if len(self) == 1 else frame][2]

    def to_crop(self, pixels: ArrayLike, frame: int = 0) -> NDArray[np.float64]:
        """Pixels (..., 2) of the full picture to pixels of the crop."""
        return (np.asarray(pixels, np.float64) - self.box(frame)[:2]) * self.scale(frame)

    def to_full(self, pixels: ArrayLike, frame: int = 0) -> NDArray[np.float64]:
        """Pixels (..., 2) of the crop to pixels of the full picture."""
        return np.asarray(pixels, np.float64) / self.scale(frame) + self.box(frame)[:2]

    def crop_camera(self, full: Camera, frame: int = 0) -> Camera:
        """The camera of the full picture, as it sees the crop."""
        left, top, _, _ = self.box(frame)
        scale = self.scale(frame)
        return Camera(full.focal * scale, (full.cx - left) * scale, (full.cy - top) * scale, self.size, self.size)

    def full_camera(self, crop: Camera, frame: int = 0) -> Camera:
        """The camera of the crop, as it sees the full picture: the inverse of `crop_camera`."""
        left, top, _, _ = self.box(frame)
        scale = self.scale(frame)
        return Camera(crop.focal / scale, crop.cx / scale + left, crop.cy / scale + top, self.width, self.height)

    def cut(self, picture: Array, frame: int = 0) -> Array:
        """The crop (size, size, C) of a full picture (H, W, C), float 0..1. Beyond the picture's border stands its mirror
        image, the softer the further out. Raises InputError for values that are not finite."""
        if not np.isfinite(picture).all():
            raise InputError(f"frame {frame} of the picture has values that are not finite numbers. Make it again.")
        crop = resample(picture, self.box(frame), (self.size, self.size), REFLECT)
        return _softened(crop, self.known(frame))

    def known(self, frame: int = 0) -> Array:
        """(size, size) 0..1: how much of each pixel of the crop lies inside the picture."""
        left, top, right, bottom = self.box(frame)
        return np.outer(_covered(top, bottom, self.size, self.height), _covered(left, right, self.size, self.width))


def resample(
    picture: Array,
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    border: str = REFLECT,
    kernel: Image.Resampling = Image.Resampling.LANCZOS,
) -> Array:
    """The part of a picture within a box, in another size. Where the picture shrinks, the kernel is widened.

    A box of whole pixels in its own size is copied as it is.

    Args:
        picture: (H, W, C) or (H, W), float 0..1.
        box: left, top, right, bottom in pixels; it may leave the picture.
        size: width and height of the result in pixels.
        border: one of `BORDERS`.

    Returns:
        (height, width, C) or (height, width), float 0..1.
    """
    left, top, right, bottom = box
    x, y = (int(round(v)) for v in (left, top))
    if (left, top) == (x, y) and (right - left, bottom - top) == size:
        return _region(picture, x, y, x + size[0], y + size[1], border)
    reach = 2 + int(np.ceil(_REACH * max(1.0, (right - left) / size[0], (bottom - top) / size[1])))
    x, y = int(np.floor(left)) - reach, int(np.floor(top)) - reach
    part = _region(picture, x, y, int(np.ceil(right)) + reach, int(np.ceil(bottom)) + reach, border)
    inside = (left - x, top - y, right - x, bottom - y)
    planes = [
        Image.fromarray(np.ascontiguousarray(plane)).resize(size, kernel, inside)
        for plane in np.moveaxis(part.reshape(*part.shape[:2], -1), -1, 0)
    ]
    return np.stack([np.asarray(p) for p in planes], -1).clip(0, 1).reshape(size[1], size[0], *picture.shape[2:])


def _region(picture: Array, left: int, top: int, right: int, bottom: int, border: str) -> Array:
    """A copy of the pixels in a rectangle, which may leave the picture."""
    rows = _inside(np.arange(top, bottom), picture.shape[0], border)
    columns = _inside(np.arange(left, right), picture.shape[1], border)
    return picture[rows[:, None], columns]


def _softened(crop: Array, known: Array) -> Array:
    """The crop, blurred where its pixels are not known: a mirrored face shall not be taken for one."""
    unknown = (known <= 0).astype(np.uint8)
    if not unknown.any():
        return crop
    away = cv2.distanceTransform(unknown, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    share = (away / (_SHARP * len(crop))).clip(0, 1)[..., None]
    return crop * (1 - share) + _blurred(crop, _BLUR * len(crop)) * share


def _blurred(picture: Array, sigma: float) -> Array:
    """A Gaussian blur. A wide one is made of a smaller picture, which has all of it and takes a hundredth of the time."""
    shrink = max(1, int(sigma / _FINE))
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (-(-width // shrink), -(-height // shrink)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma * small.shape[1] / width, borderType=cv2.BORDER_REFLECT)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def _inside(index: NDArray[np.int64], length: int, border: str) -> NDArray[np.int64]:
    """Indices beyond 0..length - 1 brought back in; a mirror stands on the outermost pixels and does not repeat them."""
    if border == REPLICATE or length == 1:
        return index.clip(0, length - 1)
    return length - 1 - np.abs(np.abs(index) % (2 * (length - 1)) - (length - 1))


def _covered(low: float, high: float, count: int, length: int) -> Array:
    """(count,) how much of each of `count` equal parts of low..high lies within 0..length."""
    edges = np.linspace(low, high, count + 1)
    return (np.diff(edges.clip(0, length)) / np.diff(edges)).astype(np.float32)
