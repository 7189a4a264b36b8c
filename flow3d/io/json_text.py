"""JSON of unknown origin, read so that every fault of it is told in words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InputError

_AGAIN = "Export or save the file again"


def json_in(path: Path, constant: Callable[[str], Any] | None = None) -> Any:
    """What a JSON file holds, with or without a byte order mark. Raises InputError, naming the file.

    Args:
        constant: called with NaN, Infinity or -Infinity, for what it shall stand for; None: the float.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name}: not a JSON file: it is no text in UTF-8. {_AGAIN}.") from error
    return parse_json(text, path.name, constant)


def parse_json(text: str, file: str, constant: Callable[[str], Any] | None = None) -> Any:
    """What JSON in a file of this name stands for; `constant` as above. Raises InputError."""
    try:
        return json.loads(text, parse_constant=constant)
    except json.JSONDecodeError as error:
        where = f"{error.msg} in line {error.lineno}, column {error.colno}"
        raise InputError(f"{file}: not readable JSON: {where[0].lower()}{where[1:]}. {_AGAIN}.") from error
    except RecursionError as error:
        raise InputError(f"{file}: not readable JSON: its lists are nested too deep. {_AGAIN}.") from error
    except InputError:
        raise
    except ValueError as error:  # Python reads no whole number of more than 4,300 digits
        raise InputError(f"{file}: not readable JSON: it holds a number of thousands of digits. {_AGAIN}.") from error
