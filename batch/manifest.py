"""The manifest: a table of items, read from CSV or JSONL. One row is one job."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from ..flow3d.errors import InputError

Value = str | int | float | bool
ID = "id"
"""The column that names a row; without it rows are named by their number."""


@dataclass(frozen=True)
class Row:
    number: int
    """From 1, the heading not counted."""
    id: str
    values: dict[str, Value]
    """What the row sets, by column. Empty cells are left out."""


@dataclass(frozen=True)
class Manifest:
    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_manifest(path: Path) -> Manifest:
    """Read a .csv (comma, semicolon or tab; UTF-8) or a .jsonl (one object a line).

    Raises InputError that lists everything that cannot be read.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path.name}: a manifest is a .csv or a .jsonl file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name}: is not UTF-8 text (byte {error.start}). Save it as 'CSV UTF-8'.") from error
    problems: list[str] = []
    table = reader(text, problems)
    rows = tuple(_row(number, values, problems) for number, values in table)
    seen: dict[str, int] = {}
    for row in rows:
        if seen.setdefault(row.id.casefold(), row.number) != row.number:
            problems.append(f"row {row.number}: the id '{row.id}' is that of row {seen[row.id.casefold()]} too")
    if not rows and not problems:
        problems.append("there is no row")
    refuse(path.name, problems)
    columns = dict.fromkeys(column for _, values in table for column in values)
    return Manifest(path, tuple(columns), rows)


def refuse(what: str, problems: list[str]) -> None:
    """Raises InputError that lists the problems, where there are any."""
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InputError(f"{what}: {count}.\n" + "\n".join(f"  {p}" for p in problems))


Table = list[tuple[int, dict[str, object]]]


def _read_csv(text: str, problems: list[str]) -> Table:
    heading = text.partition("\n")[0]
    delimiter = max(",;\t", key=heading.count)
    try:
        lines = list(csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True))
    except csv.Error as error:
        problems.append(f"not a CSV table: {error}")
        return []
    names = [name.strip() for name in lines[0]] if lines else []
    problems += [f"column {i + 1} has no heading" for i, name in enumerate(names) if not name]
    problems += [f"two columns are headed '{name}'" for name in dict.fromkeys(names) if name and names.count(name) > 1]
    table: Table = []
    for number, cells in enumerate((line for line in lines[1:] if any(cell.strip() for cell in line)), 1):
        if len(cells) > len(names):
            problems.append(f"row {number}: {len(cells)} cells under {len(names)} headings (quote cells that hold a '{delimiter}')")
        table.append((number, dict(zip(names, (cell.strip() for cell in cells), strict=False))))
    return table


def _read_jsonl(text: str, problems: list[str]) -> Table:
    table: Table = []
    for number, line in enumerate((line for line in text.split("\n") if line.strip()), 1):
        try:
            values = json.loads(line)
        except ValueError as error:
            problems.append(f"row {number}: not JSON ({error})")
            continue
        if isinstance(values, dict):
            table.append((number, values))
        else:
            problems.append(f"row {number}: not an object in braces")
    return table


def _row(number: int, values: dict[str, object], problems: list[str]) -> Row:
    kept: dict[str, Value] = {}
    for column, value in values.items():
        if isinstance(value, str | int | float):
            if value != "":
                kept[column] = value
        elif value is not None:
            problems.append(f"row {number}: {column} is {json.dumps(value)[:60]}; it must be text, a number, true or false")
    return Row(number, str(kept.get(ID, number)), kept)
