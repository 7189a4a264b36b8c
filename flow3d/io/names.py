"""Names of files that somebody else has chosen: they stay within their folder, or are refused."""

import os
import re
from pathlib import Path

from ..errors import InputError

_DEVICES = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*(\..*)?", re.IGNORECASE | re.DOTALL
)
_OUT = "leads out of {}"
_LONGEST_PART, _LONGEST = 200, 1000
"""Bytes: file systems take 255 for a part, and a number and an ending may be added."""


def path_within(folder: Path, name: str, where: str = "its folder", new: bool = False) -> Path:
    """The path that a name or relative path means below `folder`, whether something is there or not.

    The text alone is judged first, by the rules of all systems at once: Windows takes the mere look at `//server/share` for a
    reason to sign in there, and opens a device for `nul.csv`. Then links are followed, and have to stay within the folder.

    Args:
        where: what messages call the folder. new: whether the file is to be made. Then it must have a name that is one on all systems.

    Raises InputError.
    """
    fault = _fault(name, new)
    if not fault:
        base = folder.resolve()
        try:
            path = (base / name).resolve()
        except (OSError, RuntimeError, ValueError):  # a circle of links
            fault = "leads nowhere"
        else:
            if path.is_relative_to(base) and path != base:
                return path
            fault = _OUT
    shown = name if len(name) <= 80 else name[:80] + "..."
    raise InputError(f"'{shown}' {fault.format(where)}. Give the name of a file within {where}.")


def _fault(name: str, new: bool) -> str:
    parts = re.split(r"[\\/]", name)
    if not name.strip():
        return "is no name"
    if not all(c.isprintable() for c in name):
        return "holds characters that cannot be printed"
    if max(len(part.encode()) for part in parts) > _LONGEST_PART or len(name.encode()) > _LONGEST:
        return "is longer than a file's name can be"
    if not parts[0] or re.match("[A-Za-z]:", name):
        return "is no name but a whole path"
    if ".." in (part.rstrip(" ") for part in parts):
        return _OUT
    if any(_DEVICES.fullmatch(part) for part in parts):
        return "is a device in Windows, not a file"
    if (new or os.name == "nt") and (":" in name or any(part != part.rstrip(". ") for part in parts)):
        return "is not a name in Windows (it has a colon, or ends in a dot or a space)"
    return ""
