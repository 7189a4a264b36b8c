"""The motion around the head: hair, ears, neck, shoulders and what is behind them.

The head's own motion is continued smoothly, fades with the distance, and is kept off the photo's head, so that no
contour shows twice. What the face's expression adds ends near by: an opened mouth does not move what is behind the head. It is computed on a coarse grid, as it is smooth.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from ..fit import mediapipe_points as mp
from .fields import Array, blur_within, pull_push, smoothstep
from .window import Window

_CELL = 1 / 64  # head widths a side of the grid's cells, but two pixels at least
_FULL, _NONE = 0.12, 0.9  # head widths from the head: where its motion begins to fade, and has faded
_BENDING = (0.0, 0.15)  # likewise for what the face's expression moves
_FAR = 0.25  # head widths that a head moves before both are put farther out
_FULL_FARTHER, _NONE_FARTHER = 0.5, 2.0  # by so much for each head width beyond that: a steep fade drags spikes
_TURNED = 1.1  # head widths from the eyes: beyond that a tilt moves things no farther, or it would whirl the background
_BORDER = 0.15  # head widths from the picture's border within which motion fades
_CORNER = 0.125  # of the picture's sides: the top corners, which stay as they are
_ABOVE_BROW, _PUSHED = -0.35, -0.05  # head widths below the eyes: where the far side begins to be hidden, and is
_PUSH = 1.2  # of the way to the photo's contour, which the fit may miss by a little
_SIDEWAYS = 3.0  # a way out over the chin counts as so much longer than one over the cheek
_BESIDE = 2.5  # cells from the head
_MOVED = 2.0  # cells that a place has moved by to be pushed in full: where nothing moves the contour is in its place
_PUSH_BLUR = 0.02  # head widths
_DRAWN_OUT = (0.3, 0.5)  # share of the area kept: filled below, as it was above


def reach(moved: float) -> tuple[float, float]:
    """Where the motion of a head that moves by `moved` begins to fade, and has faded; all in head widths."""
    beyond = max(moved - _FAR, 0.0)
    return _FULL + _FULL_FARTHER * beyond, _NONE + _NONE_FARTHER * beyond


class Surroundings:
    """What lies around one photo's head.

    Args:
        shape: (H, W) of the photo. solid: (H, W) where it shows the head without ears and neck. marks: (478, 2) the
            head's landmarks and neck: (2,) the middle of the neck's foot in the photo, pixels. head_width: pixels.
    """

    def __init__(self, solid: NDArray[np.bool_], marks: Array, neck: Array, head_width: float):
        self.height, self.width = solid.shape
        self.head_width = head_width
        self.cell = max(2, round(_CELL * head_width))
        nearest = distance_transform_edt(solid, sampling=(_SIDEWAYS, 1), return_distances=False, return_indices=True)
        y, x = np.indices(solid.shape)
        self.way_out = np.stack([nearest[1] - x, nearest[0] - y], -1).astype(np.float32)
        self.eyes = marks[[mp.RIGHT_EYE_CORNER, mp.LEFT_EYE_CORNER]].mean(0)
        chin, neck = marks[mp.CHIN] - self.eyes, neck - self.eyes
        self.chin, self.neck = float(np.linalg.norm(chin)) / head_width, float(np.linalg.norm(neck)) / head_width
        self.down = (neck / max(float(np.linalg.norm(neck)), 1e-6)).astype(np.float32)

    def motion(
        self,
        window: Window,
        flow: Array,
        strain: Array,
        seen: Array,
        on_head: Array,
        body: Array,
        plane: Array,
        fading: tuple[float, float],
    ) -> tuple[Array, Array]:
        """Where the surroundings come from.

        Args:
            flow: (h, w, 2) where the head's pixels come from, less where they are. strain: (h, w, 2) how far the face's
                expression has moved them. seen: (h, w) 0..1 how far to believe both. on_head: (h, w) 0 or 1. body: (2,) the
                flow of the shoulders. plane: (2, 2) the head's turn and growth in the picture's plane, from target to
                photo: so its motion goes on. fading: as of `reach`.

        Returns:
            The flow around (and under) the head (h, w, 2), and (h, w) 0..1 where it draws the photo out so far that
            it counts as filled.
        """
        height, width = seen.shape
        grid = (-(-width // self.cell), -(-height // self.cell))
        cell = np.array([width / grid[0], height / grid[1]], np.float32)
        confidence = cv2.resize(seen, grid, interpolation=cv2.INTER_AREA)
        head = cv2.resize(on_head, grid, interpolation=cv2.INTER_AREA)
        known = cv2.resize(np.dstack([flow + strain, -strain]) * seen[..., None], grid, interpolation=cv2.INTER_AREA)
        known /= np.maximum(confidence, 1e-4)[..., None]
        y, x = np.mgrid[: grid[1], : grid[0]].astype(np.float32) + 0.5
        here = np.stack([x * cell[0] + window.left, y * cell[1] + window.top], -1)
        turned = self._near_eyes(here) @ (plane - np.eye(2, dtype=np.float32)).T
        field = pull_push(known[..., :2] - turned, confidence) + turned
        away = cv2.distanceTransform((head < 0.5).astype(np.uint8), cv2.DIST_L2, 5) * cell.mean() / self.head_width
        below = ((here - self.eyes) @ self.down) / self.head_width
        shoulders = smoothstep(below, self.neck - 0.25, self.neck + 0.2) * smoothstep(away, 0.0, 0.25)
        field = field + (body - field) * shoulders[..., None]
        beside = ((away > 0) & (away < _BESIDE * self.cell / self.head_width)).astype(np.float32)
        field = field + self._push(here, field, below, beside)
        bending = pull_push(known[..., 2:], confidence)
        bending = bending + self._push(here, field + bending, below, beside)
        field = field + bending * (1 - smoothstep(away, *_BENDING))[..., None]
        fade = (1 - smoothstep(away, *fading)) * np.maximum(self._free(here), head)
        field = (field * fade[..., None]).astype(np.float32)
        size = (width, height)
        return (
            cv2.resize(field, size, interpolation=cv2.INTER_LINEAR),
            cv2.resize(_stretch(field, cell), size, interpolation=cv2.INTER_LINEAR),
        )

    def _near_eyes(self, here: Array) -> Array:
        """(h, w, 2) from the middle between the eyes to places, no farther than the head reaches."""
        away = here - self.eyes
        far = np.linalg.norm(away, axis=-1, keepdims=True) / (_TURNED * self.head_width)
        return away / np.maximum(far, 1)

    def _free(self, here: Array) -> Array:
        """(h, w) 0..1: 0 at the picture's border and in its top corners, which stay still."""
        side = np.minimum(here[..., 0], self.width - here[..., 0])
        border = np.minimum(side, np.minimum(here[..., 1], self.height - here[..., 1]))
        corner = np.maximum(side / self.width, here[..., 1] / self.height)
        return smoothstep(border, 0, _BORDER * self.head_width) * smoothstep(corner, _CORNER, 2 * _CORNER)

    def _push(self, here: Array, field: Array, below: Array, beside: Array) -> Array:
        """What must be added to a field (h, w, 2) so that no place beside the head (h, w, 0 or 1) comes from the photo's head:
        the far side has turned away. From the forehead to the chin; higher up the bald contour lies within the hair."""
        way = cv2.remap(
            self.way_out, (here + field - 0.5).astype(np.float32), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        level = smoothstep(below, _ABOVE_BROW, _PUSHED) * (1 - smoothstep(below, self.chin - 0.05, self.chin + 0.05))
        level = level * smoothstep(np.linalg.norm(field, axis=-1), 0, _MOVED * self.cell)
        return self._carried(_PUSH * way * level[..., None], beside)

    def _carried(self, push: Array, beside: Array) -> Array:
        """The push of the places beside the head (h, w, 0 or 1) carried on to all others, so that the contour takes along
        what is around it: pushing each place by itself would bring a whole band to one line of the photo."""
        near = blur_within(push, beside, max(_PUSH_BLUR * self.head_width / self.cell, 0.3))
        return pull_push(near * beside[..., None], beside)


def _stretch(flow: Array, cell: Array) -> Array:
    """(h, w) 0..1: 1 where the photo is drawn out to more than about three times its area."""
    along_y, along_x = (np.asarray(g) for g in np.gradient(flow, axis=(0, 1)))
    kept = (1 + along_x[..., 0] / cell[0]) * (1 + along_y[..., 1] / cell[1])
    kept = kept - along_x[..., 1] / cell[0] * along_y[..., 0] / cell[1]
    return (1 - smoothstep(kept, *_DRAWN_OUT)).astype(np.float32)
