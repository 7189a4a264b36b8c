"""The inside of the mouth: what the photo shows of it stays with the skull, the rest is painted from the head model."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ..camera import Camera
from ..fit import mediapipe_points as mp
from ..head.model import INNER_MOUTH, HeadModel
from .fields import Array, blur_within, sample, smoothstep
from .oral import OralCavity, Palette, Place
from .surface import SourceSurface
from .window import Drawn

_LIP = (0.003, 0.008)  # metres from the skin's edge: where lip ends
_CHEEKS = (50, 280, 205, 425)  # MediaPipe landmarks on plain skin
_ENAMEL_TINT = 0.4  # of skin's, which is partly the light's; in its strongest colour teeth are as light as skin
_FLESH = 0.72, np.array([0.17, -0.10, -0.07])  # how light a tongue is beside teeth; its tint, in a picture with full colours
_LIP_LIGHT = 0.84  # of skin's light that a lower lip has; the mouth of one in the shade is as dark
_LOWER_LIP = ((17, 14), (84, 87), (314, 317), (405, 402), (181, 178))  # landmarks on its outer and its inner edge
_SKULL_FIXED = "upper_teeth"


def _at(image: NDArray, pixels: Array) -> Array:
    """Colours (n, 3) at pixels (n, 2), the nearest ones."""
    x, y = np.floor(pixels).astype(int).T
    return image[y.clip(0, image.shape[0] - 1), x.clip(0, image.shape[1] - 1)].astype(np.float32)


class MouthInterior:
    """Paints the inner mouth of one photo's head.

    Args:
        surface: the head in its photo. marks: (478, 2) its landmarks in the photo, pixels.
    """

    def __init__(
        self, head: HeadModel, image: NDArray[np.uint8], surface: SourceSurface, marks: Array, camera: Camera
    ):
        self.camera = camera
        self.image = image
        self.anchor = _anchor(head)
        self.anchor_pixels = camera.project(torch.from_numpy(surface.vertices[self.anchor])).numpy()
        self.eye_distance = float(np.linalg.norm(marks[mp.RIGHT_EYE_CORNER] - marks[mp.LEFT_EYE_CORNER]))
        self.shown = self._shown(marks)
        self.cavity = OralCavity(head)
        self.palette = self._palette(marks)
        self.table = np.concatenate([self.cavity.table, surface.pixels, _lip_level(head)[:, None]], 1)

    def _shown(self, marks: Array) -> Array:
        """(H, W) 0..1: where the photo shows the inside of the mouth."""
        ring = np.concatenate([marks[list(mp.INNER_LIP_UPPER)], marks[list(mp.INNER_LIP_LOWER)][-2:0:-1]])
        mask = np.zeros(self.image.shape[:2], np.uint8)
        gap = np.linalg.norm(marks[mp.UPPER_LIP] - marks[mp.LOWER_LIP]) / self.eye_distance
        if gap > 0.03:
            cv2.fillPoly(mask, [np.round(ring * 16 - 8).astype(np.int32)], 255, cv2.LINE_AA, 4)
            inset = max(1, round(self.eye_distance / 60))
            mask = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=inset)
        return cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), max(0.7, self.eye_distance / 90))

    def _palette(self, marks: Array) -> Palette:
        skin = np.median(_at(self.image, marks[list(_CHEEKS)]), 0).clip(1)
        shown = self.image[self.shown > 0.7]
        colourful = min(4 * float(np.ptp(skin)) / float(skin.max()), 1.0)
        enamel = skin.max() * (skin / skin.max()) ** _ENAMEL_TINT
        if len(shown) > 20:
            bright = shown[shown.sum(1) >= np.quantile(shown.sum(1), 0.6)].mean(0)
            enamel = np.maximum(bright, 0.5 * enamel)
        lip = np.median(_at(self.image, marks[np.array(_LOWER_LIP)].mean(1)), 0)
        shade = min(float(lip.mean()) / (_LIP_LIGHT * float(skin.mean())), 1.0)
        return Palette(enamel, enamel * (_FLESH[0] + colourful * _FLESH[1]) * shade, skin)

    def paint(self, colour: NDArray[np.uint8], here: Array, vertices: Array, marks: Array, inside: Drawn) -> Array:
        """Paint the pixels where the inner mouth shows.

        Args:
            colour: (h, w, 3) the frame so far, changed in place. here: (h, w, 2) photo coordinates of its pixels.
            vertices: (V, 3) the target head in the camera frame. marks: (478, 2) its landmarks in the photo's pixels.
            inside: its inner mouth as it is drawn.

        Returns:
            (n,) 0..1: how much of each pixel was painted rather than taken from the photo.
        """
        if len(inside.at) == 0:
            return np.zeros(0, np.float32)
        values = inside.blend(self.table)
        skin, lip = values[:, -3:-1], values[:, -1:]
        now = self.camera.project(torch.from_numpy(vertices[self.anchor])).numpy()
        back = _affine(now, self.anchor_pixels)
        pixels = here.reshape(-1, 2)[inside.at]
        place = _place(pixels, marks, float(vertices[self.anchor, 2].mean()) / self.camera.focal)
        painted = self._smoothed(self.cavity.colours(values, place, self.palette), inside.at, here.shape[:2])
        source = pixels @ back[:2] + back[2]
        share = sample(self.shown, source)[:, None]
        mixed = painted + (sample(self.image, source, cv2.INTER_CUBIC) - painted) * share
        mixed = mixed + (sample(self.image, skin, cv2.INTER_CUBIC) - mixed) * lip
        colour.reshape(-1, 3)[inside.at] = mixed.clip(0, 255).astype(np.uint8)
        return (1 - share[:, 0]) * (1 - lip[:, 0])

    def _smoothed(self, painted: Array, at: NDArray[np.int64], size: tuple[int, int]) -> Array:
        """Painted colours (n, 3) at flat pixels `at` of a window, blurred among themselves: as sharp as the photo's face."""
        y, x = np.divmod(at, size[1])
        y, x = y - y.min(), x - x.min()
        patch = np.zeros((y.max() + 1, x.max() + 1, 3), np.float32)
        weight = np.zeros(patch.shape[:2], np.float32)
        patch[y, x], weight[y, x] = painted, 1
        return blur_within(patch, weight, max(0.6, self.eye_distance / 170))[y, x]


def _place(pixels: Array, marks: Array, scale: float) -> Place:
    """Where pixels (n, 2) lie between the lips of landmarks (478, 2); `scale` is a pixel's side in metres."""
    right, left = marks[mp.INNER_LIP_UPPER[0]], marks[mp.INNER_LIP_UPPER[-1]]
    along = (left - right) / max(float(np.linalg.norm(left - right)), 1e-6)
    down = np.array([-along[1], along[0]], np.float32)

    def curve(names: tuple[int, ...]) -> tuple[Array, Array]:
        points = marks[list(names)] - right
        return points @ along, points @ down

    x, y = (pixels - right) @ along, (pixels - right) @ down
    upper, lower = (np.interp(x, *curve(names)) for names in (mp.INNER_LIP_UPPER, mp.INNER_LIP_LOWER))
    opening = float((marks[mp.LOWER_LIP] - marks[mp.UPPER_LIP]) @ down)
    across = 2 * x / max(float(np.linalg.norm(left - right)), 1e-6) - 1
    return Place(across, (y - upper) * scale, (lower - y) * scale, opening * scale, scale)


def _lip_level(head: HeadModel) -> Array:
    """(V,) 0..1: 1 on the inner mouth's own rim, which is still lip, 0 farther in and on teeth and tongue."""
    inside, skin = (head.faces[(head.face_parts == INNER_MOUTH) == inner].unique() for inner in (True, False))
    level = torch.zeros(len(head.template))
    if len(inside):
        away = torch.cdist(head.template[inside], head.template[skin]).amin(1)
        level[inside] = torch.from_numpy(1 - smoothstep(away.numpy(), *_LIP)).float()
    for name in ("upper_teeth", "lower_teeth", "tongue"):
        if name in head.masks:
            level[head.masks[name]] = 0
    return level.numpy()


def _anchor(head: HeadModel) -> NDArray[np.int64]:
    """Vertices that move rigidly with the skull near the mouth: the upper teeth, or the nose where a head has none."""
    if _SKULL_FIXED in head.masks:
        return head.masks[_SKULL_FIXED].nonzero()[:, 0].numpy()
    nose = head.dense.face[[1, 2, 4, 5, 98, 327, 168]]
    return head.faces[nose].flatten().unique().numpy()


def _affine(a: Array, b: Array) -> Array:
    """(3, 2) the least-squares affine map from points a (n, 2) to b (n, 2): `b = a @ m[:2] + m[2]`."""
    return np.linalg.lstsq(np.concatenate([a, np.ones((len(a), 1))], 1), b, rcond=None)[0].astype(np.float32)
