"""Bringing a finished job's files here: whole or not at all, and on the disk before they are called done."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..flow3d.errors import InputError
from ..flow3d.io.files import written
from .client import Client
from .journal import DiskError, Record
from .names import Template, apart, file_fields, local
from .plan import Job
from .reply import SavedFile


@dataclass
class Delivery:
    """Where outputs go, and whose each name is."""

    folder: Path
    template: Template
    owners: dict[str, str] = field(default_factory=dict)

    def has(self, record: Record) -> bool:
        """Whether all files of a journal's `done` are there in their size; if so their names are taken."""
        paths = {f["path"]: f["bytes"] for f in record["files"]}
        there = all((self.folder / p).is_file() and (self.folder / p).stat().st_size == n for p, n in paths.items())
        if there:
            self.owners.update((p.casefold(), record["item"]) for p in paths)
        return there

    async def bring(self, client: Client, job: Job, files: tuple[SavedFile, ...], titles: dict[str, str]) -> list[dict[str, Any]]:
        """Download; returns path (relative, with '/'), size and SHA-256 of each. Raises Unreachable, Refusal, DiskError."""
        brought, own, count = [], set[str](), dict[str, int]()
        for file in files:
            count[file.node] = count.get(file.node, 0) + 1
            fields = {**job.fields, **file_fields(file.name, titles.get(file.node, file.node), count[file.node])}
            path = apart(self.template.path(fields), job.id, self.owners, own)
            size, digest = await _fetch(client, file, local(self.folder, path))
            brought.append({"path": path.as_posix(), "bytes": size, "sha256": digest})
        return brought


async def _fetch(client: Client, file: SavedFile, path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    try:
        with written(path) as part, part.open("wb") as out:
            async for chunk in client.read(file):
                digest.update(chunk)
                size += len(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
    except InputError as error:
        raise DiskError(path, error.__cause__ if isinstance(error.__cause__, OSError) else OSError(str(error))) from error
    except OSError as error:
        raise DiskError(path, error) from error
    return size, digest.hexdigest()
