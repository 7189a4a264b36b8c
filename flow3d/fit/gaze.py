"""Lids that follow the gaze: what ARKit's expressions take over of an eye's turn up or down.

The upper lid rides on the eyeball: it goes about as far up and down as the pupil does (Becker and Fuchs 1988, Lid-eye
coordination during vertical gaze changes in man and monkey). On a head with ARKit's names eyeLookUp and eyeLookDown carry
the lids together with the eyeball; what they turn the eyeball by, its joint need not. eyeLookUp raises the lower lid more
than the upper one, so eyeWide helps it.
"""

from torch import Tensor

from .arkit_map import LOOK

_UP, _DOWN, _WIDE = 0.05, 1 / LOOK["Down"], 0.035
"""Weight of eyeLookUp, eyeLookDown and eyeWide for each degree of the eye."""


def lids_follow(weights: dict[str, Tensor], side: str, pitch: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """One eye looks up or down, and its lids with it.

    Args:
        weights: (T,) for each expression by its ARKit name. side: `Left` or `Right`. pitch: (T,) degrees, positive up.

    Returns:
        The weights changed, and (T,) degrees that the eye's joint still has to turn: all of them where the expressions
        lack one of the two directions. What looks the other way is taken away first; weights stay below 1.
    """
    up, down, wide = f"eyeLookUp{side}", f"eyeLookDown{side}", f"eyeWide{side}"
    if up not in weights or down not in weights:
        return {}, pitch
    rise, fall = pitch.clamp(min=0), (-pitch).clamp(min=0)
    down_less = weights[down].clamp(min=0).minimum(rise * _DOWN)
    up_less = weights[up].clamp(min=0).minimum(fall * _UP)
    rise, fall = rise - down_less / _DOWN, fall - up_less / _UP
    up_more, down_more = _room(weights[up], rise * _UP), _room(weights[down], fall * _DOWN)
    changed = {up: weights[up] + up_more - up_less, down: weights[down] + down_more - down_less}
    if wide in weights:
        changed[wide] = weights[wide] + _room(weights[wide], rise * _WIDE)
    return changed, pitch - LOOK["Up"] * (up_more - up_less) + LOOK["Down"] * (down_more - down_less)


def _room(weight: Tensor, more: Tensor) -> Tensor:
    """As much of `more` (T,) as weights (T,) can take up to 1."""
    return more.minimum((1 - weight).clamp(min=0))
