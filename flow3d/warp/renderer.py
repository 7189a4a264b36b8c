"""The learning-free renderer: a photo animated by the 3D flow alone.

Inside the head the mesh says where each pixel came from; around it that motion is extended smoothly and fades into a
still picture; what the photo never showed is filled from beside it, and marked.
"""

from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ..head.model import HeadModel
from ..track import HeadTrack
from .eyelids import Eyelids
from .eyes import Eyes
from .fields import Array, blur_within, smoothstep
from .mouth import MouthInterior
from .surface import SourceSurface, feature_level, loose_level
from .surroundings import Surroundings, reach
from .window import Drawn, HeadDrawing, Window

_BODY = 0.35  # share of the head's translation that the body takes
_SEEN = 0.4  # seen less than this, a pixel counts as filled
_TURN = (3.0, 12.0)  # degrees between which what the photo shows at a slant is given up
_BLUR = 0.02  # head widths
_JUMP = 1.5  # pixels between neighbours' sources that make an edge
_STILL = 1e-7  # metres: below it nothing has moved


class FlowWarp:
    """Renders one photo's head in any pose and expression of its own track.

    Args:
        image: (H, W, 3) uint8 RGB.
        source: the head's track of one frame, fitted to the image; `source.camera` has the image's size.
    """

    def __init__(self, head: HeadModel, image: NDArray[np.uint8], source: HeadTrack):
        self.head, self.image, self.source, self.camera = head, image, source, source.camera
        vertices = source.vertices(head)[0]
        self.drawing = HeadDrawing.of(head)
        self.surface = SourceSurface.of(head, vertices, self.camera)
        self.root = head.skin_weights[:, :1]
        self.loose = loose_level(head)[:, None]
        self.plain = (1 - self.loose) * (1 - feature_level(head)[:, None])
        self.pixels = pixels = self.camera.project(vertices).numpy()
        root = self.root[:, 0].numpy()
        marks = self._marks(vertices)
        self.head_width = float(np.ptp(pixels[root < 0.1, 0]))
        foot = pixels[root >= min(0.5, float(root.max()))].mean(0)
        self.surroundings = Surroundings(self._solid(vertices), marks, foot, self.head_width)
        self.eyelids = Eyelids(image, marks)
        self.eyes = Eyes(head, image, self.surface.vertices, marks, source)
        self.mouth = MouthInterior(head, image, self.surface, marks, self.camera)

    def _marks(self, vertices: torch.Tensor) -> Array:
        """(478, 2) the dense landmarks of vertices (V, 3) in the photo's pixels."""
        return self.camera.project(self.head.dense.on(vertices, self.head.faces)).numpy()

    def _solid(self, vertices: torch.Tensor) -> NDArray[np.bool_]:
        """(H, W) where the photo shows the head itself, neck and ears left out."""
        outside, _ = self.drawing.draw(vertices, self.camera)
        neck = (self.root[:, 0].numpy() > 0.05)[outside.corners].any(1)
        solid = np.zeros(self.image.shape[:2], bool)
        solid.ravel()[outside.at[~neck]] = True
        return solid

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
        now = self.camera.project(vertices).numpy()
        bent = now - self.camera.project(self.target_vertices(self._posed(target))).numpy()
        moved = np.linalg.norm(now - self.pixels, axis=1)[self.root[:, 0].numpy() < 0.1].mean()
        fading = reach(float(moved) / self.head_width)
        seen_in_either = np.concatenate([now, self.surface.pixels])
        window = Window.about(seen_in_either, (fading[1] + 0.1) * self.head_width, self.camera.width, self.camera.height)
        outside, inside = self.drawing.draw(vertices, window.camera(self.camera))
        here = window.pixels()
        flow, filled, drawn_out = self._flow(window, here, outside, bent, target, fading)
        colour = cv2.remap(
            self.image, here + flow - np.float32(0.5), None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
        )
        _blend_blurred(colour, drawn_out, _BLUR * self.head_width)
        self.eyes.paint(colour, filled, here, vertices.numpy(), outside, target)
        marks = self._marks(vertices)
        filled.ravel()[inside.at] = self.mouth.paint(colour, here, vertices.numpy(), marks, inside)
        _soften(colour, _edges(flow, inside.at))
        self.eyelids.draw(colour, marks - np.array([window.left, window.top], np.float32))
        window.of(image)[:] = colour
        window.of(mask)[:] = (255 * filled.clip(0, 1)).astype(np.uint8)
        return image, mask

    def _posed(self, target: HeadTrack) -> HeadTrack:
        """The photo's head, its face as it is there, where the target's stands."""
        joints = self.source.joints.clone()
        if "neck" in self.source.joint_names:
            neck = self.source.joint_names.index("neck") - 1
            joints[:, neck] = target.joints[:, neck]
        return replace(self.source, rotation=target.rotation, translation=target.translation, joints=joints)

    def _turn(self, target: HeadTrack) -> Array:
        """(3, 3) the head's turn in the camera frame, from the target to the photo."""
        there, here = (cv2.Rodrigues(track.rotation[0].numpy().astype(np.float64))[0] for track in (target, self.source))
        return (here @ there.T).astype(np.float32)

    def _flow(
        self, window: Window, here: Array, drawn: Drawn, bent: Array, target: HeadTrack, fading: tuple[float, float]
    ) -> tuple[Array, Array, Array]:
        """What to add to each pixel of the window to come to its place in the photo (h, w, 2); how much of what stands
        there the photo never showed (h, w); and how much of that is the face's own surface, drawn out (h, w).

        `bent` (V, 2) is how far the face's expression moves the target's vertices in the picture.
        """
        surface = self.surface
        turn = self._turn(target)
        turned = smoothstep(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))), *_TURN)
        firm = turned * self.plain
        pixels = surface.pixels + firm * (surface.turned_pixels - surface.pixels)
        columns = (pixels, surface.seen[:, None], self.loose, firm * surface.drawn_out[:, None], bent)
        values = drawn.blend(np.concatenate(columns, 1).astype(np.float32))
        flow = np.zeros_like(here)
        flow.reshape(-1, 2)[drawn.at] = values[:, :2] - here.reshape(-1, 2)[drawn.at]
        strain = np.zeros_like(here)
        strain.reshape(-1, 2)[drawn.at] = values[:, 5:]
        on_head, seen, loose, continued = (np.zeros(here.shape[:2], np.float32) for _ in range(4))
        on_head.ravel()[drawn.at] = 1
        seen.ravel()[drawn.at] = values[:, 2]
        loose.ravel()[drawn.at] = values[:, 3]
        continued.ravel()[drawn.at] = values[:, 4]
        shift = (target.translation[0] - self.source.translation[0]).numpy()
        body = (-_BODY * shift[:2] * self.camera.focal / float(self.source.translation[0, 2])).astype(np.float32)
        size = float(target.translation[0, 2] / self.source.translation[0, 2])
        plane = _in_plane(turn) * np.float32(size)
        around, stretched = self.surroundings.motion(window, flow, strain, seen, on_head, body, plane, fading)
        own = (on_head * (seen + (1 - seen) * (1 - loose)))[..., None]
        unseen = (1 - smoothstep(seen, 0, _SEEN)) * on_head + stretched * (1 - on_head)
        drawn_out = np.maximum(unseen * turned, continued) * on_head * (1 - loose) + stretched * (1 - own[..., 0])
        return flow * own + around * (1 - own), unseen, drawn_out


def _in_plane(turn: Array) -> Array:
    """(2, 2) the part of a turn (3, 3) that is about the line of sight."""
    cos, sin = turn[0, 0] + turn[1, 1], turn[1, 0] - turn[0, 1]
    return np.array([[cos, -sin], [sin, cos]], np.float32) / np.float32(max(float(np.hypot(cos, sin)), 1e-6))


def _blend_blurred(colour: NDArray[np.uint8], share: Array, sigma: float) -> None:
    """Blur a frame (h, w, 3) by shares (h, w), in place: drawn out details become soft shading instead of streaks."""
    y, x = np.nonzero(share > 0.02)
    if len(y) == 0:
        return
    box = slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1)
    weight = share[box]
    soft = blur_within(colour[box].astype(np.float32), weight, max(sigma, 0.5))
    mixed = colour[box] + (soft - colour[box]) * weight[..., None]
    colour[box] = mixed.clip(0, 255).astype(np.uint8)


def _edges(flow: Array, inner: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(h, w) where neighbouring pixels come from different places, or the inner mouth (flat pixels) begins."""
    mouth = np.zeros(flow.shape[:2], np.uint8)
    mouth.ravel()[inner] = 1
    edge = np.zeros(mouth.shape, bool)
    for axis in (0, 1):
        away = np.abs(np.diff(flow, axis=axis))
        jump = (np.maximum(away[..., 0], away[..., 1]) > _JUMP) | (np.diff(mouth, axis=axis) != 0)
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
