"""A manifest's cell as an input's value, checked against what the server says of the input."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .manifest import Value

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class LocalFile:
    """A value that is a file here: it is uploaded, and its name on the server takes its place."""

    path: Path


def convert(value: Value, spec: list[Any] | None, folder: Path) -> Value | LocalFile:
    """The value as the input takes it. `@PATH` is a file to upload in any input; so is a name in an input that takes files.

    folder: what relative paths start from. spec: the server's `[type, options]`, None where it does not know the input.
    Raises ValueError that says what is wrong.
    """
    if isinstance(value, str) and value.startswith("@"):
        return _file(folder / value[1:])
    if spec is None:
        return value
    kind, options = spec[0], spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    choices = kind if isinstance(kind, list) else options.get("options") if kind == "COMBO" else None
    if choices is not None:
        return _choice(value, choices, options, folder)
    if kind in _NUMBERS:
        return _within(_NUMBERS[kind](value), options)
    if kind not in _OTHERS:
        raise ValueError(f"takes a link ({kind}) and no value")
    return _OTHERS[kind](value)


def _within(number: float, options: dict[str, Any]) -> float:
    low, high = options.get("min", -math.inf), options.get("max", math.inf)
    if not low <= number <= high:
        raise ValueError(f"is {number}; it must be between {low} and {high}")
    return number


def _file(path: Path) -> LocalFile:
    if not path.is_file():
        raise ValueError(f"names a file that is not there: {path}")
    return LocalFile(path)


def _choice(value: Value, choices: list[Any], options: dict[str, Any], folder: Path) -> Value | LocalFile:
    takes_files = any(k.endswith("_upload") and on for k, on in options.items())
    if takes_files and (folder / str(value)).is_file():
        return LocalFile(folder / str(value))
    named = {str(c): c for c in choices}
    if str(value) in named:
        return named[str(value)]
    if takes_files:
        raise ValueError(f"is '{value}', neither a file in {folder} nor one in the server's input folder")
    shown = ", ".join(list(named)[:12]) + (f" and {len(named) - 12} more" if len(named) > 12 else "")
    raise ValueError(f"is '{value}'; it must be one of {shown}" if named else f"is '{value}', but the server has nothing to choose")


def _number(value: Value) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError(f"is '{value}'; it must be a number")
    return number


def _integer(value: Value) -> int:
    try:
        return int(value) if isinstance(value, str) else _whole(value)
    except ValueError:
        raise ValueError(f"is '{value}'; it must be a whole number") from None


def _whole(value: Value) -> int:
    if isinstance(value, bool) or not float(value).is_integer():
        raise ValueError
    return int(value)


def _truth(value: Value) -> bool:
    word = str(value).lower()
    if word not in TRUE + FALSE:
        raise ValueError(f"is '{value}'; it must be true or false")
    return word in TRUE


_NUMBERS: dict[str, Callable[[Value], float]] = {"INT": _integer, "FLOAT": _number}
_OTHERS: dict[str, Callable[[Value], Value]] = {"BOOLEAN": _truth, "STRING": str}
