"""A fitted head drawn over the picture it was fitted to, to judge the fit by eye."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..camera import Camera
from ..head.model import SKIN, HeadModel

_SHIFT = 4  # OpenCV draws at 1/16 pixel
_MESH, _MARK = (64, 220, 255), (255, 80, 80)


def draw_head(image: NDArray[np.uint8], head: HeadModel, vertices: Tensor, camera: Camera) -> NDArray[np.uint8]:
    """The picture with the head's mesh as thin lines where it faces the camera, and its 478 landmarks as dots.

    Args:
        image: (H, W, 3) uint8 RGB, of the camera's size. It is left as it is.
        vertices: (V, 3) of the head in the camera frame, metres.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    faces = head.faces[head.face_parts == SKIN]
    a, b, c = vertices[faces].unbind(1)
    facing = (torch.linalg.cross(b - a, c - a) * a).sum(-1) < 0
    pixels = camera.project(vertices)
    lines = _fixed(pixels[faces[facing]])
    drawn = image.copy()
    cv2.polylines(drawn, list(lines), True, _MESH, 1, cv2.LINE_AA, _SHIFT)
    drawn = cv2.addWeighted(drawn, 0.3, image, 0.7, 0)
    if head.landmarks_dense is not None:
        marks = camera.project(head.landmarks_dense.on(vertices, head.faces)[head.landmarks_dense.found])
        radius = max(0.5, float(marks[:, 1].max() - marks[:, 1].min()) / 250)
        for x, y in _fixed(marks):
            cv2.circle(drawn, (int(x), int(y)), round(radius * (1 << _SHIFT)), _MARK, -1, cv2.LINE_AA, _SHIFT)
    return drawn


def _fixed(pixels: Tensor) -> NDArray[np.int32]:
    """Pixel coordinates, centres at +0.5, in OpenCV's fixed point, centres at 0; far outside they are cut off."""
    return np.clip((pixels.numpy() - 0.5) * (1 << _SHIFT), -(2**19), 2**19).round().astype(np.int32)
