"""The eyeballs: a still white, and on it an iris that turns.

A photo shows of an eyeball what is between the lids. When the gaze turns, what was behind the iris or the lids comes into
view. So each eye is kept as two pictures: the white with the iris painted over, which stays with the skull as its shading
and its corners do, and the whole iris, completed where the lids cover it, which turns with the eyeball.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..camera import Camera
from ..fit import mediapipe_points as mp
from ..head.model import EYEBALLS, HeadModel
from ..track import HeadTrack
from .eye_frame import LOWER, UPPER, EyeFrame, opening
from .fields import Array, sample, smoothstep
from .iris import find_iris, whole_iris
from .window import Drawn

_JOINTS = ("right_eye", "left_eye")
_IRISES = (mp.RIGHT_IRIS, mp.LEFT_IRIS)
_CHEEKS = (50, 280, 205, 425)  # landmarks on plain skin
_LEAST_OPEN = 0.08  # of the eye's width: a photo of closed eyes shows nothing of them
_GAZE = (0.3, 2.0)  # degrees between which the two pictures take over from the photo
_RIM = (-0.01, 0.05)  # eye widths within the lids' rims: from lashes to white
_IRIS_RIM = np.array([0.0, 0.03])  # likewise to iris,
_BLEED = np.array([0.4, 1.1])  # and pixels more, which show both
_OFF = (0.02, 0.05)  # eye widths beyond the rims: from the photo to paint
_EDGE = (1.02, 1.14)  # iris radii over which the iris ends
_SHADOW, _SHADOW_HEIGHT = 0.45, 0.22  # what the upper lid's shadow takes at the rim; of the opening
_CORNERS = 0.08, 0.86  # shares of the way along the eye: between the skin and the red


@dataclass(frozen=True, eq=False)
class _Ball:
    """An eyeball as a rigid sphere in the camera frame, metres. `turn` (3, 3) takes the head at rest to it."""

    centre: Array
    radius: float
    turn: Array

    @classmethod
    def of(cls, points: Array, rest: Array) -> "_Ball":
        """The sphere through points (n, 3), turned as the points at rest, head frame, are turned to them."""
        mean = points.mean(0)
        away = points - mean
        solution = np.linalg.lstsq(np.c_[2 * away, np.ones(len(away))], np.square(away).sum(1), rcond=None)[0]
        u, _, vt = np.linalg.svd(away.T @ (rest - rest.mean(0)))
        turn = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
        radius = float(np.sqrt(max(solution[3] + np.square(solution[:3]).sum(), 1e-12)))
        return cls((mean + solution[:3]).astype(np.float32), radius, turn.astype(np.float32))

    def looking(self, pixels: Array, camera: Camera) -> Array:
        """(n, 3) unit normals where rays through pixels (n, 2) meet the sphere, or pass it nearest."""
        ray = np.concatenate([(pixels - (camera.cx, camera.cy)) / camera.focal, np.ones((len(pixels), 1))], 1)
        ray /= np.linalg.norm(ray, axis=1, keepdims=True)
        middle = ray @ self.centre
        short = np.sqrt(np.maximum(middle**2 - self.centre @ self.centre + self.radius**2, 0))
        away = ray * (middle - short)[:, None] - self.centre
        return (away / np.linalg.norm(away, axis=1, keepdims=True)).astype(np.float32)

    def pixels(self, normals: NDArray[np.floating], camera: Camera) -> Array:
        """(n, 2) where points of the sphere with unit normals (n, 3) are seen."""
        points = self.centre + self.radius * normals
        return (points[:, :2] * (camera.focal / points[:, 2:]) + (camera.cx, camera.cy)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Eye:
    """One eye of a photo. The pictures are of the box that begins at `corner`."""

    joint: str
    vertices: NDArray[np.bool_]  # (V,)
    rest: Array  # (n, 3) its eyeball in the head frame
    ball: _Ball
    gaze: Array  # (3, 3) turn of its joint
    corner: Array  # (2,) pixels
    white: Array  # (h, w, 6) colour without the iris, share of paint, shadow, and 0..1: off the open eye
    iris: Array  # (h, w, 5) colour without shadow, share of paint, how much it covers the white


class Eyes:
    """The eyes of one photo. `vertices` (V, 3) is the fitted head in the camera frame, `marks` (478, 2) its landmarks."""

    def __init__(self, head: HeadModel, image: NDArray[np.uint8], vertices: Array, marks: Array, source: HeadTrack):
        self.image, self.camera = image, source.camera
        balls = head.faces[head.face_parts == EYEBALLS].unique()
        skin = np.median(sample(image, marks[list(_CHEEKS)].astype(np.float32)), 0).astype(np.float32)
        self.eyes = []
        for i, name in enumerate(_JOINTS):
            if name not in head.joint_names:
                continue
            own = np.zeros(len(head.template), bool)
            own[balls[head.skin_weights[balls, head.joint_names.index(name)] > 0.5].numpy()] = True
            if own.any() and opening(marks, i) > _LEAST_OPEN:
                self.eyes.append(self._eye(i, own, head.template.numpy()[own], vertices[own], marks, source, skin))

    def _eye(
        self, i: int, own: NDArray[np.bool_], rest: Array, now: Array, marks: Array, source: HeadTrack, skin: Array
    ) -> _Eye:
        """The right (0) or left (1) eye: its vertices `own` (V,), their places at rest and now (n, 3), the cheeks' colour."""
        frame = EyeFrame.of(marks, i)
        corner = np.floor(marks[list(UPPER[i])].min(0) - 0.5 * frame.length)
        size = np.ceil(marks[list(LOWER[i])].max(0) + 0.5 * frame.length) - corner
        x, y = np.meshgrid(np.arange(size[0], dtype=np.float32), np.arange(size[1], dtype=np.float32))
        pixels = np.stack([x + 0.5, y + 0.5], -1) + corner.astype(np.float32)
        photo = sample(self.image, pixels.reshape(-1, 2)).astype(np.float32).reshape(*x.shape, 3)
        within = _within(pixels, frame, marks, i)
        centre, radius = find_iris(photo, within > 0, marks[list(_IRISES[i])] - corner)
        far = np.linalg.norm(pixels - corner - centre, axis=-1) / radius
        end = _EDGE[1] + 0.5 / radius
        shadow = _shadow(pixels, frame, marks, i)
        off = smoothstep(-within, *_OFF)
        clear = smoothstep(within, *_RIM) * (far > end)
        plain = _sclera(photo, shadow, clear, frame.of_points(pixels)[..., 0], skin)
        paint = np.maximum(1 - smoothstep(far, end, end + 0.12), off)
        white = photo + (plain - photo) * paint[..., None]
        seen = smoothstep(within, *(_IRIS_RIM + _BLEED / frame.length))
        iris, made = whole_iris(photo / shadow[..., None], seen, pixels - corner, centre, radius * end, frame.down)
        cover = 1 - smoothstep(far, _EDGE[0], end)
        return _Eye(
            _JOINTS[i], own, rest, _Ball.of(now, rest), _gaze(source, _JOINTS[i]), corner.astype(np.float32),
            np.dstack([white, paint, shadow, off]).astype(np.float32), np.dstack([iris, made, cover]).astype(np.float32),
        )  # fmt: skip

    def paint(
        self, colour: NDArray[np.uint8], filled: Array, here: Array, vertices: Array, outside: Drawn, target: HeadTrack
    ) -> None:
        """Draw the eyeballs into a frame.

        Args:
            colour: (h, w, 3) the frame so far and filled: (h, w) how much of it is made up; both are changed in place.
            here: (h, w, 2) photo coordinates of its pixels. vertices: (V, 3) the target head in the camera frame.
            outside: its skin and eyeballs as they are drawn. target: its track.
        """
        for eye in self.eyes:
            at = outside.at[eye.vertices[outside.corners[:, 0]]]
            if len(at) == 0:
                continue
            ball, gaze = _Ball.of(vertices[eye.vertices], eye.rest), _gaze(target, eye.joint)
            still = eye.ball.turn @ eye.gaze.T @ gaze @ ball.turn.T  # as if only the head had moved
            turned = eye.ball.turn @ ball.turn.T
            normals = ball.looking(here.reshape(-1, 2)[at], self.camera)
            socket = eye.ball.pixels(normals @ still.T, self.camera)
            white = sample(eye.white, socket - eye.corner)
            iris = sample(eye.iris, eye.ball.pixels(normals @ turned.T, self.camera) - eye.corner)
            gone = np.degrees(np.arccos(np.clip((np.trace(still @ turned.T) - 1) / 2, -1, 1)))
            share = np.maximum(smoothstep(gone, *_GAZE), white[:, 5])
            photo = sample(self.image, socket, cv2.INTER_CUBIC)
            cover = iris[:, 4:]
            drawn = white[:, :3] * (1 - cover) + iris[:, :3] * white[:, 4:5] * cover
            colour.reshape(-1, 3)[at] = (photo + (drawn - photo) * share[:, None]).clip(0, 255).astype(np.uint8)
            filled.ravel()[at] = share * (white[:, 3] * (1 - cover[:, 0]) + iris[:, 3] * cover[:, 0])


def _gaze(track: HeadTrack, name: str) -> Array:
    """(3, 3) how a joint of the track's first frame is turned, head frame."""
    return cv2.Rodrigues(track.joint(name)[0].numpy().astype(np.float64))[0].astype(np.float32)


def _rims(pixels: Array, frame: EyeFrame, marks: Array, eye: int) -> tuple[Array, Array, Array]:
    """At pixels (h, w, 2): the share of the way along the eye, and how far below the upper and above the lower rim (h, w)."""
    along, down = np.moveaxis(frame.of_points(pixels), -1, 0)
    return along, down - frame.curve(marks, UPPER[eye], along), frame.curve(marks, LOWER[eye], along) - down


def _within(pixels: Array, frame: EyeFrame, marks: Array, eye: int) -> Array:
    """(h, w) how far within the open eye pixels (h, w, 2) lie, in eye widths; negative outside."""
    along, upper, lower = _rims(pixels, frame, marks, eye)
    return np.minimum(np.minimum(upper, lower) / frame.length, np.minimum(along, 1 - along))


def _shadow(pixels: Array, frame: EyeFrame, marks: Array, eye: int) -> NDArray[np.floating]:
    """(h, w) how bright the eyeball is under the upper lid and at the corners, 1 in its middle."""
    along, upper, lower = _rims(pixels, frame, marks, eye)
    height = _SHADOW_HEIGHT * max(opening(marks, eye), 0.1) * frame.length
    lid = 1 - _SHADOW * np.exp(-upper.clip(0) / height) - 0.5 * _SHADOW * np.exp(-lower.clip(0) / (0.5 * height))
    corner = smoothstep(np.minimum(along, 1 - along), -0.1, 0.25)
    return lid * (0.75 + 0.25 * corner)


def _sclera(photo: Array, shadow: Array, clear: Array, along: Array, skin: Array) -> NDArray[np.floating]:
    """(h, w, 3) the white of the eye, from what a photo (h, w, 3) shows of it where `clear` is near 1: the whiter half on
    each side of the iris, and between them a blend. Without any, a pale grey of the skin's brightness."""
    known = (clear > 0.7) & (along > _CORNERS[0]) & (along < _CORNERS[1])
    places, colours = [], []
    for side in (known & (along < 0.5), known & (along >= 0.5)):
        if side.sum() < 4:
            continue
        white = photo.min(-1)  # skin and the red corner are as light, but not in every channel
        side &= white >= np.quantile(white[side], 0.5)
        places.append(along[side].mean())
        colours.append(photo[side].mean(0) / max(float(shadow[side].mean()), 0.8))
    if not places:
        places, colours = [0.5], [0.35 * skin + 0.65 * skin.mean()]
    return np.stack([np.interp(along, places, c) for c in np.array(colours).T], -1) * shadow[..., None]
