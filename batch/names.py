"""Names of downloaded files, from a template such as `{id}/{node}_{index}{ext}`.

Fields: `id`, `row`, any column of the manifest, and of the file: `node` (the title of the node that saved it), `index` (from 1
among its files), `name` (what the server called it, without its ending), `ext` (its ending). `{row:04}` and the like are Python's formats.
Slashes in the template make folders; in a value they do not, nor does anything else in a value lead out of the folder.
"""

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..flow3d.errors import InputError
from .manifest import Value

DEFAULT = "{id}_{node}_{index}{ext}"
OF_FILE = ("node", "index", "name", "ext")
_LONGEST = 120  # characters of a part of the path; file systems take 255 bytes
_RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{i}" for d in ("com", "lpt") for i in range(10))}  # Windows's devices


@dataclass(frozen=True)
class Template:
    text: str
    pieces: tuple[tuple[str, str | None, str], ...]
    """Literal text, the field after it, and its format."""

    @staticmethod
    def parse(text: str, columns: tuple[str, ...]) -> "Template":
        """Raises InputError where the template names no file inside the output folder, or an unknown field."""
        try:
            pieces = tuple((lit, name, spec or "") for lit, name, spec, _ in string.Formatter().parse(text))
        except ValueError as error:
            raise InputError(f"The template '{text}' cannot be read: {error}.") from error
        known = {"id", "row", *columns, *OF_FILE}
        for _, name, spec in pieces:
            if name is not None and (name not in known or "{" in spec):
                raise InputError(f"The template '{text}' has an unknown field '{{{name}}}'. It may use: {', '.join(sorted(known))}.")
        parts = text.split("/")
        if "\\" in text or ":" in "".join(lit for lit, _, _ in pieces) or any(p in ("", ".", "..") for p in parts):
            raise InputError(f"The template '{text}' must name a file in the output folder, with '/' between folders.")
        return Template(text, pieces)

    def path(self, fields: Mapping[str, Value]) -> PurePosixPath:
        """A relative path that stays inside its folder. Raises InputError where a format does not fit its value."""
        done = ""
        for literal, name, spec in self.pieces:
            done += literal
            if name is not None:
                try:
                    done += _flat(format(fields.get(name, ""), spec))
                except ValueError as error:
                    raise InputError(f"The template '{self.text}': {{{name}:{spec}}} does not fit {fields[name]!r} ({error}).") from error
        return PurePosixPath(*(_part(p) for p in done.split("/")))


def _flat(value: str) -> str:
    return re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", value)


def _part(text: str) -> str:
    """A name that every file system takes."""
    stem, dot, ext = text.strip().rpartition(".")
    if not stem or len(ext) > 10:
        stem, dot, ext = text.strip(), "", ""
    text = (stem[:_LONGEST] + dot + ext).rstrip(". ")
    return "_" + text if not text or text.split(".")[0].rstrip().lower() in _RESERVED else text


def file_fields(server_name: str, node: str, index: int) -> dict[str, Value]:
    """The fields of one file. What the server says is taken apart as text and never used as a path."""
    base = re.split(r"[/\\]", server_name)[-1]
    match = re.fullmatch(r"(.*?)(\.[A-Za-z0-9]{1,8})?", base, re.S)
    assert match is not None  # the pattern takes any text
    return {"node": node, "index": index, "name": match[1], "ext": (match[2] or "").lower()}


def apart(path: PurePosixPath, item: str, owners: dict[str, str], own: set[str]) -> PurePosixPath:
    """`path`, or with _2, _3, ... where another item's file or an earlier one of this item has that name.

    owners: the item of each name given so far; own: this item's names so far. Both get the new name.
    """
    number, free = 1, path
    while (key := str(free).casefold()) in own or owners.get(key, item) != item:
        number += 1
        free = path.with_name(f"{path.stem}_{number}{path.suffix}")
    owners[key] = item
    own.add(key)
    return free


def check_apart(template: Template, rows: list[tuple[int, Mapping[str, Value]]], problems: list[str]) -> None:
    """Two rows whose files would have the same names are a problem."""
    seen: dict[str, int] = {}
    same = file_fields("name.ext", "node", 1)
    for number, fields in rows:
        key = str(template.path({**fields, **same})).casefold()
        if seen.setdefault(key, number) != number:
            problems.append(
                f"row {number}: its files would be named as those of row {seen[key]}; put {{id}} or {{row}} into '{template.text}'"
            )


def local(folder: Path, path: PurePosixPath) -> Path:
    return folder.joinpath(*path.parts)
