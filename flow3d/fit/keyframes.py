"""Values over time as text: `yaw: 0: 0, 24: 20, 48: 0 smooth`.

    NAME = VALUE                            the same value in every frame
    NAME: FRAME: VALUE, FRAME: VALUE ...    keyframes; frames count from 0, and the order in which they stand is free
    NAME: ... smooth                        the last word is the easing: linear (the default) or smooth
    NAME: curve * FACTOR                    a connected curve, one value a frame; the factor may be left out

`=` and `:` after the name mean the same. Several settings may stand on one line, separated by commas: what begins with a
name begins a setting. What follows `#` is a note. Before the first and after the last keyframe its value is held.

smooth is a monotone cubic (Fritsch and Carlson's PCHIP) that is level at both ends: between two keyframes it is the
smoothstep `3 t^2 - 2 t^3`, it rests at every peak, and it never leaves the range of the keyframes beside it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from ..errors import InputError

EASINGS = ("linear", "smooth")
MAX_FRAMES = 100_000
"""More than an hour: a slip of the keyboard shall not fill the memory."""

_BEYOND = f"A keyframe lies outside of frames 0 to {MAX_FRAMES - 1}. Use an earlier frame."
_NAMED = re.compile(r"\s*([A-Za-z_]\w*)\s*[=:](.*)", re.DOTALL)
_CURVE = re.compile(r"curve(?:\s*\*\s*(\S+))?")
_HOW = "Write NAME=NUMBER, such as yaw=10, or keyframes, such as yaw: 0: 0, 24: 20, 48: 0 smooth."


@dataclass(frozen=True)
class Keyframes:
    """Values at some frames, and what lies between them. Raises InputError for what cannot be a curve."""

    frames: tuple[int, ...]  # from 0, rising
    values: tuple[float, ...]
    easing: str = "linear"

    def __post_init__(self) -> None:
        if not self.frames or len(self.frames) != len(self.values):
            raise InputError(f"There are {len(self.frames)} keyframes with {len(self.values)} values. Give each one value.")
        if self.frames[0] < 0 or self.frames[-1] >= MAX_FRAMES:
            raise InputError(_BEYOND)
        for a, b in zip(self.frames, self.frames[1:], strict=False):
            if b <= a:
                what = f"Frame {b} has two values" if a == b else f"Frame {b} stands after frame {a}"
                raise InputError(f"{what}. Give each frame one value, in their order.")
        for frame, value in zip(self.frames, self.values, strict=True):
            if not np.isfinite(value):
                raise InputError(f"The value at frame {frame} is {value}; it must be a finite number.")
        if self.easing not in EASINGS:
            raise InputError(f"There is no easing '{self.easing}'. Choose one of {', '.join(EASINGS)}.")

    @classmethod
    def every_frame(cls, values: Any) -> "Keyframes":
        """One value for each frame, from 0 on: a list, an array, a tensor or whatever NumPy reads as one."""
        try:
            flat = np.asarray(values, dtype=np.float64).ravel()
        except Exception as error:  # NumPy asks the object, which is somebody else's and may raise anything
            raise InputError("A curve must be a list of numbers, one for each frame.") from error
        if not 0 < len(flat) <= MAX_FRAMES:
            raise InputError(f"A curve has {len(flat):,} numbers; it must have 1 to {MAX_FRAMES:,}, one for each frame.")
        return cls(tuple(range(len(flat))), tuple(flat.tolist()))

    def __len__(self) -> int:
        """Frames up to the last keyframe, that one included."""
        return self.frames[-1] + 1

    def at(self, count: int) -> NDArray[np.float64]:
        """(count,) the values at the frames 0 to count - 1."""
        frames, values = np.asarray(self.frames, dtype=np.float64), np.asarray(self.values)
        if self.easing == "linear":
            return np.interp(np.arange(count), frames, values)
        # The values held before and after make both ends level.
        frames = np.concatenate([frames[:1] - 1, frames, frames[-1:] + 1])
        values = np.concatenate([values[:1], values, values[-1:]])
        return PchipInterpolator(frames, values)(np.clip(np.arange(count), frames[0], frames[-1]))

    def times(self, factor: float) -> "Keyframes":
        return Keyframes(self.frames, tuple(v * factor for v in self.values), self.easing)

    def plus(self, shift: float) -> "Keyframes":
        return Keyframes(self.frames, tuple(v + shift for v in self.values), self.easing)


def parse_settings(lines: Sequence[str], curve: Keyframes | None = None) -> Iterator[tuple[str, "float | Keyframes"]]:
    """The names and values of settings as written above, in their order.

    Args:
        curve: what the word `curve` means; None: nothing is connected.

    Raises InputError, naming the line, for anything else.
    """
    for number, line in enumerate(lines, 1):
        where = f" (line {number})" if len(lines) > 1 else ""
        for setting in _settings(line.split("#")[0]):
            try:
                yield _parsed(setting, curve)
            except InputError as error:
                raise InputError(f"'{_short(setting)}'{where} is not an edit. {error}") from error


def _settings(line: str) -> Iterator[str]:
    """A line cut where a name begins; an easing's word belongs to what stands before it."""
    setting: list[str] = []
    for piece in (p.strip() for p in re.split("[,;]", line)):
        if not piece:
            continue
        if setting and not (re.match(r"[-+.\d(]", piece) or piece in EASINGS):
            yield ", ".join(setting)
            setting = []
        setting.append(piece)
    if setting:
        yield ", ".join(setting)


def _parsed(setting: str, curve: Keyframes | None) -> tuple[str, "float | Keyframes"]:
    named = _NAMED.fullmatch(setting)
    if not named:
        raise InputError(_HOW)
    name, body = named[1], named[2].strip()
    number = _number(body)
    if number is not None:
        return name, number
    from_curve = _CURVE.fullmatch(body)
    if not from_curve:
        return name, _keyframes(body)
    factor = 1.0 if from_curve[1] is None else _number(from_curve[1])
    if factor is None:
        raise InputError(f"'{from_curve[1]}' is not a number. Write {name}: curve * NUMBER.")
    if curve is None:
        raise InputError("There is no curve: connect a list of numbers to 'curve'.")
    return name, curve.times(factor)


def _keyframes(body: str) -> Keyframes:
    word = re.search(r"(?<=[\d.])[\s,]*([A-Za-z]+)$", body)
    keys: dict[int, float] = {}
    for piece in (body[: word.start()] if word else body).split(","):
        frame, colon, text = (part.strip() for part in piece.partition(":"))
        value = _number(text)
        if not colon or value is None or not frame.isdecimal():
            raise InputError(f"'{_short(piece.strip())}' is not FRAME: VALUE with a whole frame number. {_HOW}")
        if len(frame) > 9:  # Python reads no number of thousands of digits
            raise InputError(_BEYOND)
        if int(frame) in keys:
            raise InputError(f"Frame {frame} has two values. Leave one out.")
        keys[int(frame)] = value
    frames = sorted(keys)
    return Keyframes(tuple(frames), tuple(keys[f] for f in frames), word[1] if word else "linear")


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:80] + " ..."


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
