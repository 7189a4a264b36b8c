"""What the scheduler knows of one server: whether it answers, what it was given before, what it says of running prompts."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .client import Client, Unreachable, pause
from .plan import Job
from .progress import Progress

QUIET = 60.0
"""Seconds without a word after which a server is asked, though its websocket stands."""
_AFTER_END = 0.5


@dataclass
class Wait:
    """A prompt that somebody waits for."""

    job: Job
    connection: int | None
    """The websocket that will tell of it, None for a prompt of an earlier run: ComfyUI tells only who submitted it."""
    event: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever there is reason to ask the server."""


@dataclass
class Slot:
    client: Client
    progress: Progress
    adopted: deque[tuple[Job, str]] = field(default_factory=deque)
    """Prompts that an earlier run submitted here."""
    abandoned: list[str] = field(default_factory=list)
    """Prompts that went to another server meanwhile: to be dropped when this one comes back."""
    started: set[str] = field(default_factory=set)
    uploaded: dict[Path, asyncio.Future[str]] = field(default_factory=dict)
    """What local files are called on the server."""
    up: bool = True
    answered: bool = False
    """Whether it ever did."""
    down_since: float = 0.0
    connected: bool = False
    recovery: asyncio.Lock = field(default_factory=asyncio.Lock)
    _connection: int = 0
    _waiting: dict[str, Wait] = field(default_factory=dict)

    def expect(self, prompt_id: str, job: Job, submitted_before: bool) -> Wait:
        self._waiting[prompt_id] = Wait(job, None if submitted_before else self._connection)
        return self._waiting[prompt_id]

    async def word(self, wait: Wait, turn: int) -> None:
        """Wait until there is reason to ask after a prompt for the turn-th time."""
        hears = self.connected and wait.connection == self._connection
        try:
            await asyncio.wait_for(wait.event.wait(), QUIET if hears else pause(turn))
        except asyncio.TimeoutError:
            pass
        wait.event.clear()

    def rename(self, prompt_id: str, got: str) -> None:
        self._waiting[got] = self._waiting.pop(prompt_id)

    def forget(self, prompt_id: str) -> None:
        self._waiting.pop(prompt_id, None)
        self.started.discard(prompt_id)

    def lost(self) -> None:
        """The server does not answer; what was uploaded may be gone with it."""
        if self.up:
            self.up, self.down_since = False, asyncio.get_running_loop().time()
        self.uploaded.clear()

    async def listen(self) -> None:
        """Follow the websocket for ever."""
        turn = 0
        while True:
            try:
                await self.client.listen(self._told)
            except Unreachable:
                pass
            turn = 0 if self.connected else turn + 1
            self.connected = False
            self._connection += 1
            for wait in self._waiting.values():
                wait.event.set()
            await asyncio.sleep(pause(turn))

    def _told(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "connected":
            self.connected = self.answered = True
        wait = self._waiting.get(str(data.get("prompt_id")))
        if wait is None:
            return
        self.started.add(str(data["prompt_id"]))
        if kind == "executing" and data.get("node") is None:  # sent after the history is written
            wait.event.set()
        elif kind in ("execution_success", "execution_error", "execution_interrupted"):  # sent before that
            asyncio.get_running_loop().call_later(_AFTER_END, wait.event.set)
        elif kind == "progress_state" and isinstance(data.get("nodes"), dict):
            self.progress.working(self.client.name, wait.job.id, _share(data["nodes"], len(wait.job.prompt)))


def _share(nodes: dict[str, Any], total: int) -> float:
    """How much of a prompt is done, each node counting the same."""
    done = 0.0
    for node in (n for n in nodes.values() if isinstance(n, dict)):
        value, high = node.get("value"), node.get("max")
        if isinstance(value, int | float) and isinstance(high, int | float) and high > 0:
            done += min(1.0, value / high)
    return min(1.0, done / total)
