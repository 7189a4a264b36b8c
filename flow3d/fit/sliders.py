"""Names for expressions: one for both sides, one for several, one for two opposites.

    smile, frown, blink, squint, sneer, browUp, pucker, funnel, puff    0..1, as ARKit's expressions
    mouthCorners        positive up (a smile), negative down (a frown)
    eyelids             positive wider, negative closed
    brows               positive up, negative down
    mouthSide, jawSide  positive to the right in the picture, the subject's left

Whatever has two sides takes `Left` or `Right` at its end for the subject's one side: `blinkLeft`, `eyelidsRight`. An
ARKit name without its side means both: `eyeBlink` is `eyeBlinkLeft` with `eyeBlinkRight`.
"""

from functools import lru_cache

Axis = tuple[str, str | None]
"""An expression, and its opposite, which a negative value raises (None: a negative value only takes away)."""

_SIDED: dict[str, Axis] = {
    "smile": ("mouthSmile", None),
    "frown": ("mouthFrown", None),
    "blink": ("eyeBlink", None),
    "squint": ("eyeSquint", None),
    "sneer": ("noseSneer", None),
    "browUp": ("browOuterUp", None),
    "mouthCorners": ("mouthSmile", "mouthFrown"),
    "eyelids": ("eyeWide", "eyeBlink"),
    "brows": ("browOuterUp", "browDown"),
}
_MIDDLE: dict[str, Axis] = {"browUp": ("browInnerUp", None), "brows": ("browInnerUp", None)}
_WHOLE: dict[str, Axis] = {
    "pucker": ("mouthPucker", None),
    "funnel": ("mouthFunnel", None),
    "puff": ("cheekPuff", None),
    "mouthSide": ("mouthLeft", "mouthRight"),
    "jawSide": ("jawLeft", "jawRight"),
}
_DIRECTIONS = {"jaw", "mouth"}  # jawLeft is a direction, not a side


@lru_cache
def expression_sliders(names: tuple[str, ...]) -> dict[str, tuple[Axis, ...]]:
    """Slider name to what it moves, for a head with these expression names, which are sliders themselves.

    A slider that lacks one of its expressions is left out.
    """
    stems = sorted({n.removesuffix("Left") for n in names if n.endswith("Left")} - _DIRECTIONS)
    sliders: dict[str, tuple[Axis, ...]] = {slider: (axis,) for slider, axis in _WHOLE.items()}
    for slider, (up, down) in (_SIDED | {stem: (stem, None) for stem in stems}).items():
        left, right = ((up + side, down and down + side) for side in ("Left", "Right"))
        middle = (_MIDDLE[slider],) if slider in _MIDDLE else ()
        sliders |= {slider: (*middle, left, right), slider + "Left": (left,), slider + "Right": (right,)}
    sliders |= {n: ((n, None),) for n in names}
    known = {*names, None}
    return {slider: axes for slider, axes in sliders.items() if all(known.issuperset(axis) for axis in axes)}
