"""What the inside of a mouth looks like: teeth, tongue and the dark behind them, painted on the head model's inner mouth.

Everything is told from where a pixel lies on the head at rest, so that it moves with the skull or with the jaw, and from
where it lies between the lips, whose shade falls on it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..fit import mediapipe_points as mp
from ..head.model import HeadModel
from .fields import Array, smoothstep

_UPPER_WIDTHS = (8.6, 6.8, 7.8, 7.2, 7.0, 10.0)  # millimetres of a tooth, from the middle: the textbook means
_LOWER_WIDTHS = (5.4, 6.0, 7.0, 7.2, 7.4, 11.0)
_SHORTER = (0.0, 0.8, 0.2, 0.8, 1.4, 1.8)  # millimetres of an upper tooth
_GUM = 11.0  # millimetres from a tooth's edge to the gum
_GAP, _GAP_DEPTH = 0.45, 0.42  # millimetres of the dark line between two teeth; what it takes of the light
_ROUND = 1.1  # millimetres that a tooth's corner is cut
_CORRIDOR = (0.45, 1.05)  # half widths of the mouth between which its corners grow dark
_LIP_SHADE, _LIP_SHADE_HEIGHT = 0.4, 2.5  # what a lip's shade takes at its rim; millimetres
_TONGUE_HALF = 0.024  # metres
_WIDE = (0.010, 0.028)  # metres between the lips from which light falls into the mouth, and does so fully
_NARROW_LIGHT, _WIDE_LIGHT = (0.08, 0.3), (0.5, 1.0)  # of what falls on the face: below the upper lip, and farther down
_LIT = 0.9  # of the way from the upper lip to the lower one, where the light is full
_WALL = 0.8  # what cheeks and palate have of the tongue's light


@dataclass(frozen=True, eq=False)
class Palette:
    """Colours (3,) of one photo's mouth in its own light."""

    enamel: Array
    flesh: Array  # of the tongue in full light
    skin: Array


@dataclass(frozen=True, eq=False)
class Place:
    """Where n pixels of an open mouth lie. Lengths in metres."""

    across: Array  # (n,) -1 to 1, from corner to corner of the lips
    below: Array  # (n,) from the upper lip
    above: Array  # (n,) from the lower lip
    opening: float  # in the middle, between the lips
    pixel: float  # a pixel's side


class OralCavity:
    """The paint of a head's inner mouth. `table` (V, 8) is what `colours` wants of every vertex, to be blended at pixels."""

    def __init__(self, head: HeadModel):
        rest = head.template.numpy()
        self.lips = float(head.dense.on(head.template, head.faces)[list(mp.INNER_LIPS), 2].mean())
        upper, lower, tongue = (_mask(head, name) for name in ("upper_teeth", "lower_teeth", "tongue"))
        teeth = np.zeros((len(rest), 2), np.float32)  # along the arch from the middle, and from the edge to the gum
        for own, up in ((upper, -1.0), (lower, 1.0)):
            if own.any():
                teeth[own] = _arch(rest[own], up)
        parts = np.stack([upper, lower, tongue], 1)
        self.table = np.concatenate([rest, teeth, parts], 1).astype(np.float32)

    def colours(self, values: Array, place: Place, palette: Palette) -> NDArray[np.floating]:
        """Colours (n, 3) of pixels with blended table rows `values` (n, 8)."""
        behind = (self.lips - values[:, 2]).clip(0)
        shade = _lip_shade(place)
        light = _daylight(place)
        cavity = palette.flesh * (_WALL * light * shade)[:, None]
        out = cavity + (_tongue(values, behind, light * shade, place, palette) - cavity) * values[:, 7:8]
        for part, widths, share in ((5, _UPPER_WIDTHS, 1.0), (6, _LOWER_WIDTHS, 0.8)):
            own = values[:, part] > 0.5
            if own.any():
                tone, whole, gum = _teeth(values[own, 3], values[own, 4], place.pixel, widths, part == 5)
                colour = palette.enamel * (share * tone)[:, None]
                colour = colour + (palette.flesh - colour) * gum[:, None]
                bent = smoothstep(behind[own], 0.006, 0.035)  # away from the light, as cheeks are
                lit = colour * shade[own, None]
                out[own] = cavity[own] + (lit - cavity[own]) * (whole * (1 - 0.75 * bent))[:, None]
        return out


def _mask(head: HeadModel, name: str) -> NDArray[np.bool_]:
    return head.masks[name].numpy() if name in head.masks else np.zeros(len(head.template), bool)


def _arch(teeth: Array, up: float) -> Array:
    """(n, 2) of a row of teeth (n, 3) at rest: how far along the arch from its middle, and how far from the biting edge;
    metres. `up` is 1 where the edge is the upper end."""
    radius = np.ptp(teeth[:, 0]) / 2
    angle = np.arctan2(teeth[:, 0], teeth[:, 2] - (teeth[:, 2].max() - radius))
    height = up * teeth[:, 1]
    bins = np.linspace(0, np.abs(angle).max(), 9)
    place = np.digitize(np.abs(angle), bins[1:-1])
    edge = [height[place == i].max() if (place == i).any() else height.max() for i in range(len(bins) - 1)]
    away = np.interp(np.abs(angle), (bins[1:] + bins[:-1]) / 2, edge) - height
    return np.stack([angle * radius, away.clip(0)], 1)


def _teeth(along: Array, height: Array, pixel: float, widths: tuple[float, ...], upper: bool) -> tuple[NDArray, NDArray, NDArray]:
    """Of points along an arch and above the biting edge (n,), metres: how bright, 1 in the middle of a tooth; 0..1
    whether there is tooth at all; and how much is gum."""
    ends = np.cumsum((0,) + widths) / 1000
    away = np.abs(along)
    tooth = np.clip(np.searchsorted(ends, away, side="right") - 1, 0, len(widths) - 1)
    gap = np.minimum(away - ends[tooth], ends[tooth + 1] - away).clip(0)  # to the nearest line between two teeth
    width = max(_GAP / 1000, 0.7 * pixel)
    line = _GAP_DEPTH * min(1, 2 * _GAP / 1000 / width) * np.exp(-((gap / width) ** 2))
    cut = _ROUND / 1000 * np.exp(-gap / 0.0009)
    if upper:
        cut = cut + np.array(_SHORTER)[tooth] / 1000
    soft = 0.5 * pixel + 1e-4
    gum_line = (_GUM - 1.5 * np.cos(np.pi * (gap / 0.0035).clip(0, 1))) / 1000
    bulge = 0.94 + 0.06 * smoothstep(gap, 0, 0.003) - 0.08 * smoothstep(height, 0.005, 0.011)
    whole = smoothstep(height - cut, -soft, soft) if pixel < 0.0015 else np.ones_like(height)
    return bulge * (1 - line), whole, smoothstep(height - gum_line, -soft, soft)


def _tongue(values: Array, behind: Array, light: Array, place: Place, palette: Palette) -> NDArray[np.floating]:
    """(n, 3) the tongue: rounded, with a groove, and a moist sheen on each side of it; `light` (n,) falls on it."""
    x = values[:, 0]
    tip = 1 - 0.55 * smoothstep(-values[:, 1], 0.0735, 0.0800)  # where it bends down, before the lower teeth
    across = (np.abs(x) / _TONGUE_HALF).clip(0, 1)
    form = np.sqrt(1 - 0.6 * across**2)
    groove = 1 - 0.15 * np.exp(-((x / 0.0022) ** 2)) * smoothstep(behind, 0.015, 0.020)
    sheen = np.exp(-(((np.abs(x) - 0.0075) / 0.0040) ** 2) - ((behind - 0.0195) / 0.0035) ** 2)
    wide = float(smoothstep(np.float32(place.opening), *_WIDE))
    return palette.flesh * (light * form * groove * tip)[:, None] + (0.15 * wide * sheen * tip)[:, None] * palette.skin


def _daylight(place: Place) -> NDArray[np.floating]:
    """(n,) what of the light on the face falls into the mouth: more the wider it is open, and more on what lies farther
    below the upper lip, as light comes from above. Measured on five clips of people who open their mouths."""
    wide = float(smoothstep(np.float32(place.opening), *_WIDE))
    top, full = (narrow + (broad - narrow) * wide for narrow, broad in zip(_NARROW_LIGHT, _WIDE_LIGHT, strict=True))
    down = place.below / np.maximum(place.below + place.above, 1e-6)
    return top + (full - top) * smoothstep(down, 0, _LIT)


def _lip_shade(place: Place) -> NDArray[np.floating]:
    """(n,) what the lips leave of the light: less at their rims and towards the corners."""
    height = _LIP_SHADE_HEIGHT / 1000
    rims = 1 - _LIP_SHADE * np.exp(-place.below.clip(0) / height) - 0.6 * _LIP_SHADE * np.exp(-place.above.clip(0) / height)
    return rims * (1 - 0.5 * smoothstep(np.abs(place.across), *_CORRIDOR))
