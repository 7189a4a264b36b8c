"""The camera that sees a head: OpenCV axes (x right, y down, z forward), square pixels, pixel centres at +0.5."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

DEFAULT_FIELD_OF_VIEW = 25.0
"""Degrees across the short side of the image, assumed where nothing better is known."""
MOST_PIXELS = 1 << 16
"""A side of a picture that a file may tell of."""


@dataclass(frozen=True)
class Camera:
    """A pinhole with `fx = fy = focal`, all in pixels of an image of `width` x `height`."""

    focal: float
    cx: float
    cy: float
    width: int
    height: int

    @classmethod
    def from_field_of_view(cls, width: int, height: int, degrees: float = DEFAULT_FIELD_OF_VIEW) -> "Camera":
        """A camera that looks through the image's centre, `degrees` wide across the image's short side."""
        focal = 0.5 * min(width, height) / math.tan(math.radians(degrees) / 2)
        return cls(focal, width / 2, height / 2, width, height)

    def resized(self, width: int, height: int) -> "Camera":
        """The same view resampled to `width` x `height` (its focal length follows the width)."""
        sx, sy = width / self.width, height / self.height
        return Camera(self.focal * sx, self.cx * sx, self.cy * sy, width, height)

    def cropped(self, left: float, top: float, width: int, height: int) -> "Camera":
        """The same view cut to the rectangle that starts at pixel (left, top)."""
        return replace(self, cx=self.cx - left, cy=self.cy - top, width=width, height=height)

    def project(self, points: Tensor) -> Tensor:
        """Points (..., 3) in the camera frame, metres, to pixels (..., 2)."""
        centre = points.new_tensor([self.cx, self.cy])
        return points[..., :2] * (self.focal / points[..., 2:]) + centre

    def rays(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
        """Rays (H, W, 3) through the pixel centres with z = 1: times a depth they are points in the camera frame."""
        y, x = torch.meshgrid(
            torch.arange(self.height, dtype=dtype, device=device) + 0.5,
            torch.arange(self.width, dtype=dtype, device=device) + 0.5,
            indexing="ij",
        )
        return torch.stack([(x - self.cx) / self.focal, (y - self.cy) / self.focal, torch.ones_like(x)], -1)

    @property
    def fault(self) -> str:
        """What is wrong with a camera from a file, in a few words; empty where nothing is."""
        sides, lens = (self.width, self.height), (self.focal, self.cx, self.cy)
        if not all(isinstance(v, int) and 1 <= v <= MOST_PIXELS for v in sides):
            return f"its camera's width and height are not whole numbers of pixels from 1 to {MOST_PIXELS}"
        if not all(isinstance(v, int | float) and abs(v) < 1e9 for v in lens):
            return "its camera's focal length and principal point are not finite numbers of pixels"
        if not 0.01 <= self.focal / max(sides) <= 1000:
            return f"its camera's focal length is {self.focal:g} pixels in a picture of {self.width} x {self.height}"
        return ""
