"""Names for expressions: one for both sides, one for several, one for two opposites.

    frown, blink, squint, sneer, browUp, pucker, funnel, puff           0..1, as ARKit's expressions
    smile               1 is a broad smile: seven tenths of mouthSmile, which is as wide as a mouth goes, with raised cheeks
    mouthCorners        positive up, as far as a smile's, negative down (a frown)
    eyelids             positive wider, negative closed
    brows               positive up, negative down
    mouthSide, jawSide  positive to the right in the picture, the subject's left

Whatever has two sides takes `Left` or `Right` at its end for the subject's one side: `blinkLeft`, `eyelidsRight`. An
ARKit name without its side means both: `eyeBlink` is `eyeBlinkLeft` with `eyeBlinkRight`.
"""

from functools import lru_cache
from typing import NamedTuple


class Axis(NamedTuple):
    """What a slider moves: an expression, and its opposite, which a negative value raises (None: it only takes away)."""

    up: str
    down: str | None = None
    full: float = 1.0
    """Weight of `up` that the slider's 1 means."""


_SMILE = 0.7
_SIDED: dict[str, Axis] = {
    "smile": Axis("mouthSmile", None, _SMILE),
    "frown": Axis("mouthFrown"),
    "blink": Axis("eyeBlink"),
    "squint": Axis("eyeSquint"),
    "sneer": Axis("noseSneer"),
    "browUp": Axis("browOuterUp"),
    "mouthCorners": Axis("mouthSmile", "mouthFrown", _SMILE),
    "eyelids": Axis("eyeWide", "eyeBlink"),
    "brows": Axis("browOuterUp", "browDown"),
}
_WITH: dict[str, Axis] = {"smile": Axis("cheekSquint", None, 0.5)}
"""What goes with a slider on a head that has it."""
_MIDDLE: dict[str, Axis] = {"browUp": Axis("browInnerUp"), "brows": Axis("browInnerUp")}
_WHOLE: dict[str, Axis] = {
    "pucker": Axis("mouthPucker"),
    "funnel": Axis("mouthFunnel"),
    "puff": Axis("cheekPuff"),
    "mouthSide": Axis("mouthLeft", "mouthRight"),
    "jawSide": Axis("jawLeft", "jawRight"),
}
_DIRECTIONS = {"jaw", "mouth"}  # jawLeft is a direction, not a side


@lru_cache
def expression_sliders(names: tuple[str, ...]) -> dict[str, tuple[Axis, ...]]:
    """Slider name to what it moves, for a head with these expression names, which are sliders themselves.

    A slider that lacks one of its expressions is left out.
    """
    known = {*names, None}
    stems = sorted({n.removesuffix("Left") for n in names if n.endswith("Left")} - _DIRECTIONS)
    sliders: dict[str, tuple[Axis, ...]] = {slider: (axis,) for slider, axis in _WHOLE.items()}
    for slider, axis in (_SIDED | {stem: Axis(stem) for stem in stems}).items():
        left, right = ((_on(axis, side), *_companion(slider, side, known)) for side in ("Left", "Right"))
        middle = (_MIDDLE[slider],) if slider in _MIDDLE else ()
        sliders |= {slider: (*middle, *left, *right), slider + "Left": left, slider + "Right": right}
    sliders |= {n: (Axis(n),) for n in names}
    return {slider: axes for slider, axes in sliders.items() if all(known.issuperset(axis[:2]) for axis in axes)}


def _on(axis: Axis, side: str) -> Axis:
    return Axis(axis.up + side, axis.down and axis.down + side, axis.full)


def _companion(slider: str, side: str, known: set[str | None]) -> tuple[Axis, ...]:
    with_it = _on(_WITH[slider], side) if slider in _WITH else None
    return (with_it,) if with_it and with_it.up in known else ()
