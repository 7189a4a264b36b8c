"""Writing a file so that it appears whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; rename it to `path` at the end, remove it on any exception.

    Missing folders are made. Raises InputError where nothing can be written there.
    """
    part = _begun(path)
    mode = part.stat().st_mode
    try:
        yield part
        part.chmod(mode)  # safetensors leaves its files unreadable to other users
        try:
            os.replace(part, path)
        except PermissionError as error:  # on Windows, while a player shows the old file
            raise InputError(f"Cannot replace {path}: another program has it open. Close it, or write elsewhere.") from error
    finally:
        _gone(part)


def check_target(path: Path, suffixes: tuple[str, ...]) -> None:
    """Raises InputError, before any long work, where a file with one of the suffixes cannot be written to `path`."""
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path.name}: cannot write '{path.suffix}' here. Use {' or '.join(suffixes)}.")
    _gone(_begun(path))


def _begun(path: Path) -> Path:
    """The empty file beside `path`."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        if path.is_dir():
            raise IsADirectoryError(f"'{path.name}' is a folder")
    except OSError as error:
        _gone(part)
        reason = error.strerror or str(error)
        raise InputError(f"Cannot write {path}: {reason}. Choose a file in a folder you may write to.") from error
    return part


def _gone(part: Path) -> None:
    """Remove a half-written file if it is there."""
    try:
        part.unlink(missing_ok=True)
    except OSError:  # its folder is no folder, or is not ours: then there is nothing of ours in it
        pass
