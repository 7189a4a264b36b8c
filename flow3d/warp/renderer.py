"""The learning-free renderer: a photo animated by the 3D flow alone.

Inside the head the mesh says where each pixel came from; around it that motion is extended smoothly and fades into a
still picture; what the photo never showed is filled from beside it, and marked.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from ..head.model import HeadModel
from ..render.rasterize import Fragments, rasterize
from ..track import HeadTrack
from .fields import Array, blur_within, pull_push, smoothstep
from .mouth import MouthInterior
from .surface import SourceSurface, loose_level

_CELL = 4  # pixels a side of the coarse grid on which the motion around the head is computed
_FULL, _NONE = 0.12, 0.9  # head widths from the head: where the motion around it begins to fade, and has faded
_BODY = 0.35  # share of the head's translation that the body takes
_CORNER = 0.125  # of the picture's sides: the top corners, which stay as they are
_JUMP = 1.5  # pixels between neighbours' sources that make an edge
_SEEN = 0.4  # seen less than this, a pixel counts as filled
_DRAWN_OUT = (0.3, 0.5)  # share of the area kept: filled below, as it was above
_STILL = 1e-7  # metres: below it nothing has moved


@dataclass(frozen=True)
class _Window:
    """The rectangle of the photo that can change, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def of(self, image: NDArray) -> NDArray:
        return image[self.top : self.top + self.height, self.left : self.left + self.width]

    def pixels(self) -> Array:
        """(h, w, 2) photo coordinates of the window's pixel centres."""
        y, x = np.mgrid[: self.height, : self.width].astype(np.float32)
        return np.stack([x + (self.left + 0.5), y + (self.top + 0.5)], -1)


@dataclass(frozen=True, eq=False)
class _Drawn:
    """The pixels of a window that show the head."""

    at: NDArray[np.int64]  # (n,) flat pixel index
    triangle: NDArray[np.int64]  # (n,)
    corners: NDArray[np.int64]  # (n, 3) vertex indices
    bary: Array  # (n, 3)

    @classmethod
    def of(cls, fragments: Fragments, faces: NDArray[np.int64], wanted: NDArray[np.bool_]) -> "_Drawn":
        """One image's fragments, less the triangles that are not wanted (F,)."""
        triangle = fragments.triangle[0].numpy().ravel()
        at = np.flatnonzero(triangle >= 0)
        at = at[wanted[triangle[at]]]
        return cls(at, triangle[at], faces[triangle[at]], fragments.bary[0].numpy().reshape(-1, 3)[at])


def _stretch(flow: Array, cell: Array) -> Array:
    """(h, w) 0..1: 1 where the photo is drawn out to more than about three times its area."""
    along_y, along_x = np.gradient(flow, axis=(0, 1))
    kept = (1 + along_x[..., 0] / cell[0]) * (1 + along_y[..., 1] / cell[1])
    kept = kept - along_x[..., 1] / cell[0] * along_y[..., 0] / cell[1]
    return (1 - smoothstep(kept, *_DRAWN_OUT)).astype(np.float32)


def _edges(flow: Array, inner: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(h, w) where neighbouring pixels come from different places, or the inner mouth begins."""
    edge = np.zeros(inner.shape, bool)
    for axis in (0, 1):
        away = np.abs(np.diff(flow, axis=axis))
        jump = (np.maximum(away[..., 0], away[..., 1]) > _JUMP) | (np.diff(inner, axis=axis) != 0)
        before, after = [slice(None)] * 2, [slice(None)] * 2
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        edge[tuple(before)] |= jump
        edge[tuple(after)] |= jump
    return edge


def _soften(colour: NDArray[np.uint8], edge: NDArray[np.bool_]) -> None:
    """Smooth the staircase along edges, in place."""
    y, x = np.nonzero(edge)
    if len(y) == 0:
        return
    box = slice(max(y.min() - 3, 0), y.max() + 4), slice(max(x.min() - 3, 0), x.max() + 4)
    soft = cv2.GaussianBlur(colour[box], (0, 0), 0.8)
    colour[box][edge[box]] = soft[edge[box]]


class FlowWarp:
    """Renders one photo's head in any pose and expression of its own track.

    Args:
        image: (H, W, 3) uint8 RGB.
        source: the head's track of one frame, fitted to the image; `source.camera` has the image's size.
    """

    def __init__(self, head: HeadModel, image: NDArray[np.uint8], source: HeadTrack):
        self.head, self.image, self.source, self.camera = head, image, source, source.camera
        self.surface = SourceSurface.of(head, source.vertices(head)[0], self.camera)
        self.root = head.skin_weights[:, :1]
        self.head_width = float(np.ptp(self.surface.pixels[self.root[:, 0].numpy() < 0.1, 0]))
        self.loose = loose_level(head)
        self.ear_faces = head.masks["ears"][head.faces].all(-1).numpy() if "ears" in head.masks else np.zeros(len(head.faces), bool)
        self._prepare_contour()

    def _prepare_contour(self) -> None:
        """For each pixel on the photo's head, the way to the nearest pixel beside it: (H, W, 2), 0 beside the head."""
        fragments = self.surface.fragments
        triangle = fragments.triangle[0].numpy()
        neck = self.root[self.head.faces].amax((1, 2)).numpy() > 0.05
        solid = (triangle >= 0) & ~(neck | self.ear_faces)[triangle]
        nearest = distance_transform_edt(solid, return_distances=False, return_indices=True)
        y, x = np.indices(solid.shape)
        self.way_out = np.stack([nearest[1] - x, nearest[0] - y], -1).astype(np.float32)
        marks = self.head.landmarks_dense.on(torch.from_numpy(self.surface.vertices), self.head.faces)
        p = self.camera.project(marks).numpy()
        self.mouth = MouthInterior(self.head, self.image, self.surface.vertices, p, self.camera)
        self.brow_y, self.chin_y = p[[33, 263], 1].mean(), p[152, 1]
        body = self.root[:, 0].numpy() > 0.5
        self.neck_y = self.surface.pixels[body, 1].mean() if body.any() else self.surface.pixels[:, 1].max()

    def target_vertices(self, target: HeadTrack) -> torch.Tensor:
        """(V, 3) in the camera frame: the head as the target has it, its neck's foot held by the body."""
        moved = target.vertices(self.head)[0]
        still = torch.from_numpy(self.surface.vertices) + _BODY * (target.translation[0] - self.source.translation[0])
        return moved + self.root * (still - moved)

    def frame(self, target: HeadTrack) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The photo with its head as in the target (one frame of the source's own shape and camera).

        Returns:
            (H, W, 3) uint8 RGB, and (H, W) uint8: 255 where the photo did not show what stands there now.
        """
        vertices = self.target_vertices(target)
        image, mask = self.image.copy(), np.zeros(self.image.shape[:2], np.uint8)
        if np.abs(vertices.numpy() - self.surface.vertices).max() < _STILL:
            return image, mask
        window = self._window(vertices)
        camera = self.camera.cropped(window.left, window.top, window.width, window.height)
        fragments = rasterize(vertices[None], self.head.faces, camera)
        shift = (target.translation[0] - self.source.translation[0]).numpy()
        drawn = _Drawn.of(fragments, self.head.faces.numpy(), ~self.ear_faces)
        here = window.pixels()
        flow, filled = self._flow(window, here, drawn, shift)
        colour = cv2.remap(
            self.image, here + flow - np.float32(0.5), None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
        )
        interior = self.mouth.faces[drawn.triangle]
        filled.ravel()[drawn.at[interior]] = self.mouth.paint(
            colour, here, vertices.numpy(), drawn.corners[interior], drawn.bary[interior], drawn.at[interior]
        )
        inner = np.zeros(filled.shape, np.uint8)
        inner.ravel()[drawn.at[interior]] = 1
        _soften(colour, _edges(flow, inner))
        window.of(image)[:] = colour
        window.of(mask)[:] = (255 * filled.clip(0, 1)).astype(np.uint8)
        return image, mask

    def _window(self, vertices: torch.Tensor) -> _Window:
        pixels = np.concatenate([self.camera.project(vertices).numpy(), self.surface.pixels])
        margin = (_NONE + 0.1) * self.head_width
        height, width = self.image.shape[:2]
        left, top = np.floor(pixels.min(0) - margin).astype(int).clip(0)
        right, bottom = np.ceil(pixels.max(0) + margin).astype(int).clip(0, (width, height))
        return _Window(int(left), int(top), int(right - left), int(bottom - top))

    def _flow(self, window: _Window, here: Array, drawn: "_Drawn", shift: Array) -> tuple[Array, Array]:
        """What to add to each pixel of the window to come to its place in the photo (h, w, 2), and how much of what
        stands there the photo never showed (h, w)."""
        table = np.concatenate([self.surface.pixels, self.surface.seen[:, None], self.loose[:, None]], 1)
        inside = np.einsum("nca,nc->na", table[drawn.corners], drawn.bary)
        flow = np.zeros_like(here)
        flow.reshape(-1, 2)[drawn.at] = inside[:, :2] - here.reshape(-1, 2)[drawn.at]
        on_head, seen, loose = (np.zeros(here.shape[:2], np.float32) for _ in range(3))
        on_head.ravel()[drawn.at] = 1
        seen.ravel()[drawn.at] = inside[:, 2]
        loose.ravel()[drawn.at] = inside[:, 3]
        around, stretched = self._around(window, flow, seen, on_head, shift)
        own = (on_head * (seen + (1 - seen) * (1 - loose)))[..., None]
        unseen = (1 - smoothstep(seen, 0, _SEEN)) * on_head + stretched * (1 - on_head)
        return flow * own + around * (1 - own), unseen

    def _around(self, window: _Window, flow: Array, seen: Array, on_head: Array, shift: Array) -> tuple[Array, Array]:
        """The motion around the head, (h, w, 2): the seen surface's, extended, faded, and kept off the photo's own head;
        and how much it stretches what it shows there, (h, w) 0..1."""
        height, width = seen.shape
        grid = (max(1, -(-width // _CELL)), max(1, -(-height // _CELL)))

        def coarse(image: Array) -> Array:
            return cv2.resize(image, grid, interpolation=cv2.INTER_AREA)

        confidence = coarse(seen)
        known = coarse(flow * seen[..., None]) / np.maximum(confidence, 1e-4)[..., None]
        extended = pull_push(known, confidence)
        scale = np.float32([width / grid[0], height / grid[1]])
        y, x = np.mgrid[: grid[1], : grid[0]].astype(np.float32) + 0.5
        x, y = x * scale[0] + window.left, y * scale[1] + window.top
        head = coarse(on_head)
        distance = cv2.distanceTransform((head < 0.5).astype(np.uint8), cv2.DIST_L2, 5) * scale.mean() / self.head_width
        fade = 1 - smoothstep(distance, _FULL, _NONE)
        depth = float(self.source.translation[0, 2])
        body_flow = -_BODY * shift[:2] * self.camera.focal / depth
        w = self.head_width
        body = smoothstep(y, self.neck_y - 0.25 * w, self.neck_y + 0.2 * w) * smoothstep(distance, 0.0, 0.25)
        extended = extended + (body_flow - extended) * body[..., None]
        image_h, image_w = self.image.shape[:2]
        border = np.minimum(np.minimum(x, image_w - x), np.minimum(y, image_h - y))
        corner = np.maximum(np.minimum(x, image_w - x) / image_w, y / image_h)
        still = smoothstep(border, 0, 0.15 * w) * smoothstep(corner, _CORNER, 2 * _CORNER)
        fade = fade * np.maximum(still, head)
        extended = extended * fade[..., None]
        extended = extended + self._push(extended, x, y, 1 - head)
        extended = extended.astype(np.float32)
        full = (width, height)
        stretched = cv2.resize(_stretch(extended, scale), full, interpolation=cv2.INTER_LINEAR)
        return cv2.resize(extended, full, interpolation=cv2.INTER_LINEAR), stretched

    def _push(self, flow: Array, x: Array, y: Array, outside: Array) -> Array:
        """What must be added beside the head so that no pixel there shows what is on the photo's head: the far cheek
        has turned away. Only between eyes and chin; above, the bald contour lies within the hair, which a push would tear."""
        w = self.head_width
        way = cv2.remap(
            self.way_out, (x + flow[..., 0] - 0.5).astype(np.float32), (y + flow[..., 1] - 0.5).astype(np.float32),
            cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        level = smoothstep(y, self.brow_y - 0.05 * w, self.brow_y + 0.15 * w) * (
            1 - smoothstep(y, self.chin_y - 0.05 * w, self.chin_y + 0.05 * w)
        )
        return blur_within(way, outside, 0.025 * w / _CELL) * (level * (outside > 0.5))[..., None]
