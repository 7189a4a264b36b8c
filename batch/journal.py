"""The journal: what was begun and what was done, one JSON object a line, on the disk before the work goes on.

    {"event": "submitted", "item", "key", "prompt", "server"}   written before the server is told
    {"event": "released", "item", "prompt"}                     that run is lost or given up; the item is open again
    {"event": "failed", "item", "prompt", "reason"}             that run failed
    {"event": "done", "item", "key", "prompt", "files"}         its files ({"path", "bytes", "sha256"}) are in place
"""

import asyncio
import errno
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from ..flow3d.errors import Flow3DError, InputError

Record = dict[str, Any]


class DiskError(Flow3DError):
    """Nothing more can be written here; what was written stays good."""

    def __init__(self, path: Path, error: OSError):
        reason = error.strerror or str(error)
        super().__init__(f"Cannot write {path}: {reason}. Nothing is lost: make room, then run the same command again.")


@dataclass
class Past:
    """What earlier runs left, by item."""

    done: dict[str, Record] = field(default_factory=dict)
    running: dict[str, Record] = field(default_factory=dict)
    """Submitted, and nothing heard of since."""


class Journal:
    """Opened by one process at a time. Raises InputError where another one holds it."""

    def __init__(self, path: Path):
        self.path = path
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._lock = FileLock(path.with_name(path.name + ".lock"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            self._file = open(path, "ab")  # noqa: SIM115 - closed by __exit__
        except Timeout:
            raise InputError(f"{path} is in use by another flow3d batch. Wait for it, or choose another output folder.") from None
        except OSError as error:
            raise InputError(f"Cannot write {path}: {error.strerror}. Choose a folder you may write to.") from error
        self.past = self._read()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._lock.release()

    def _read(self) -> Past:
        """A last line that a crash tore is cut off, so that the next one starts cleanly."""
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(self.path, whole)
        try:
            return replay(json.loads(line) for line in data[:whole].splitlines() if line.strip())
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.path} is no journal of flow3d batch ({error}). Choose another output folder.") from error

    async def add(self, event: str, item: str, **more: Any) -> None:
        """Returns once the record is on the disk. Records that come together share one fsync. Raises DiskError."""
        line = json.dumps({"event": event, "item": item, **more}).encode() + b"\n"
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((line, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await future

    async def flush(self) -> None:
        """Returns when nothing is being written."""
        if self._writer is not None:
            await asyncio.wait([self._writer])

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._sync, b"".join(line for line, _ in batch))
            except OSError as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(DiskError(self.path, error))
                continue
            for _, future in batch:
                if not future.done():
                    future.set_result(None)

    def _sync(self, data: bytes) -> None:
        start = os.fstat(self._file.fileno()).st_size
        try:
            if os.write(self._file.fileno(), data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError:
            os.truncate(self.path, start)  # no torn line in the middle
            raise


def replay(records: Iterable[Record]) -> Past:
    """What a journal's lines come to."""
    past = Past()
    for record in records:
        item, event = record["item"], record["event"]
        if event == "submitted":
            past.running[item] = record
        elif event in ("released", "failed"):
            if past.running.get(item, {}).get("prompt") == record["prompt"]:
                del past.running[item]
        elif event == "done":
            past.done[item] = record
            past.running.pop(item, None)
        else:
            raise ValueError(f"unknown event {event!r}")
    return past
