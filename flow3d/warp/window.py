"""The part of a photo that can change, and what of the head is drawn in it."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ..camera import Camera
from ..fit import mediapipe_points as mp
from ..head.model import INNER_MOUTH, HeadModel
from ..render.rasterize import rasterize
from .fields import Array

_BEHIND = 0.02  # metres of nothing that are behind an open mouth's inside


@dataclass(frozen=True)
class Window:
    """A rectangle of the photo, in pixels."""

    left: int
    top: int
    width: int
    height: int

    @classmethod
    def about(cls, pixels: Array, margin: float, width: int, height: int) -> "Window":
        """The rectangle about points (n, 2), `margin` wider on each side, within a picture of width x height."""
        left, top = np.floor(pixels.min(0) - margin).astype(int).clip(0, (width - 1, height - 1))
        right, bottom = np.ceil(pixels.max(0) + margin).astype(int).clip((left + 1, top + 1), (width, height))
        return cls(int(left), int(top), int(right - left), int(bottom - top))

    def of(self, image: NDArray) -> NDArray:
        """The view of an image (H, W, ...) that the window shows."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]

    def camera(self, camera: Camera) -> Camera:
        """The photo's camera, cropped to the window."""
        return camera.cropped(self.left, self.top, self.width, self.height)

    def pixels(self) -> Array:
        """(h, w, 2) photo coordinates of the window's pixel centres."""
        y, x = np.mgrid[: self.height, : self.width].astype(np.float32)
        return np.stack([x + (self.left + 0.5), y + (self.top + 0.5)], -1)


@dataclass(frozen=True, eq=False)
class Drawn:
    """The pixels of a window that show some of the head's triangles."""

    at: NDArray[np.int64]  # (n,) flat pixel index
    corners: NDArray[np.int64]  # (n, 3) vertex indices
    bary: Array  # (n, 3)

    def __getitem__(self, chosen: NDArray) -> "Drawn":
        return Drawn(self.at[chosen], self.corners[chosen], self.bary[chosen])

    def blend(self, table: Array) -> Array:
        """Vertex values (V, C) at the pixels, (n, C)."""
        return np.einsum("nca,nc->na", table[self.corners], self.bary)


@dataclass(frozen=True, eq=False)
class HeadDrawing:
    """Draws a head's outside, and its inner mouth where one looks through the lips.

    The inner mouth is drawn by itself and shown only where the skin lies well behind it: lips always hide it, however
    few millimetres a fit puts them behind the teeth. In a head without one, the inner side of its skin is taken for it.
    Ears are left out: no landmark holds them, so they follow what is around them.
    """

    head: HeadModel
    outer: NDArray[np.int64]  # (F1, 3)
    inner: NDArray[np.int64]  # (F2, 3)
    ears: NDArray[np.bool_]  # (F1,)

    @classmethod
    def of(cls, head: HeadModel) -> "HeadDrawing":
        inside = (head.face_parts == INNER_MOUTH).cpu()
        faces = head.faces.cpu()
        ears = head.masks["ears"].cpu()[faces].all(-1) if "ears" in head.masks else torch.zeros(len(faces), dtype=torch.bool)
        return cls(head, faces[~inside].numpy(), faces[inside].numpy(), ears[~inside].numpy())

    def draw(self, vertices: torch.Tensor, camera: Camera) -> tuple[Drawn, Drawn]:
        """What a head with vertices (V, 3) in the camera frame shows: its outside, and its inner mouth."""
        shown = _fronts(vertices, self.outer, camera) if len(self.inner) else np.arange(len(self.outer))
        outer, triangle, depth = _drawn(vertices, self.outer[shown], camera)
        if len(self.inner):
            inner, _, mouth_depth = _drawn(vertices, self.inner, camera)
            skin_depth = np.full(camera.height * camera.width, np.inf, np.float32)
            skin_depth[outer.at] = depth
            inner = inner[skin_depth[inner.at] > mouth_depth + _BEHIND]
        else:
            inner = outer[self._between_lips(vertices, camera).ravel()[outer.at] & (depth > self._lip_depth(vertices) + _BEHIND)]
        through = np.zeros(camera.height * camera.width, bool)
        through[inner.at] = True
        return outer[~self.ears[shown[triangle]] & ~through[outer.at]], inner

    def _lips(self, vertices: torch.Tensor) -> torch.Tensor:
        """(20, 3) the ring of the inner lips in the camera frame."""
        ring = list(mp.INNER_LIP_UPPER) + list(mp.INNER_LIP_LOWER)[-2:0:-1]
        return self.head.dense.on(vertices, self.head.faces)[ring]

    def _lip_depth(self, vertices: torch.Tensor) -> float:
        return float(self._lips(vertices)[:, 2].mean())

    def _between_lips(self, vertices: torch.Tensor, camera: Camera) -> NDArray[np.bool_]:
        mask = np.zeros((camera.height, camera.width), np.uint8)
        ring = np.round(camera.project(self._lips(vertices)).numpy() * 16 - 8).astype(np.int32)
        return cv2.fillPoly(mask, [ring], 1, cv2.LINE_8, 4).astype(bool)


def _fronts(vertices: torch.Tensor, faces: NDArray[np.int64], camera: Camera) -> NDArray[np.int64]:
    """Indices of the faces whose front is seen. Where a strong expression lets the lips' inner side through the chin, one
    sees its back."""
    corners = camera.project(vertices).numpy()[faces]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.flatnonzero(a[:, 0] * b[:, 1] < a[:, 1] * b[:, 0])


def _drawn(
    vertices: torch.Tensor, faces: NDArray[np.int64], camera: Camera
) -> tuple[Drawn, NDArray[np.int64], Array]:
    """The n pixels where `faces` are seen; the index of the face that is seen there, and its depth in metres, (n,)."""
    fragments = rasterize(vertices[None], torch.from_numpy(faces), camera)
    triangle = fragments.triangle[0].numpy().ravel()
    at = np.flatnonzero(triangle >= 0)
    index = triangle[at]
    bary = fragments.bary[0].numpy().reshape(-1, 3)[at]
    return Drawn(at, faces[index], bary), index, fragments.depth[0].numpy().ravel()[at]
