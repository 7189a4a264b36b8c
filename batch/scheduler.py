"""Jobs to servers: at most K in flight on each, every output brought once, whatever dies on the way.

A job's way: upload, journal, submit, wait, download, journal. The prompt's id is chosen here and journalled before the
server hears of it, so that a run which was killed at any point finds out from the server how its prompts ended.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from ..flow3d.errors import Flow3DError
from .client import Client, Gone, Unreachable, pause
from .deliver import Delivery
from .journal import Journal
from .plan import Job
from .progress import Progress
from .reply import Finished, Refusal
from .slot import Slot, Wait
from .workflow import Prompt

MOST_LOSSES = 3
"""A job that ran on this many servers when they died is taken to have killed them."""


@dataclass(frozen=True)
class Settings:
    in_flight: int = 2
    retries: int = 1
    patience: float = 120.0
    """Seconds that a silent server is waited for before its jobs go elsewhere, and before a run without servers stops."""


@dataclass
class Scheduler:
    clients: list[Client]
    journal: Journal
    delivery: Delivery
    titles: dict[str, str]
    """Of nodes, for the names of outputs."""
    settings: Settings
    progress: Progress
    failures: dict[str, str] = field(default_factory=dict)
    """Why items failed, in the end, by id."""
    _attempts: Counter[str] = field(default_factory=Counter)
    _losses: Counter[str] = field(default_factory=Counter)

    async def run(self, jobs: list[Job], silent: frozenset[str] = frozenset()) -> None:
        """Bring all jobs to an end. silent: names of servers that get nothing until they answer. Raises DiskError, or Flow3DError where no server answers any more."""
        self._queue: asyncio.Queue[Job] = asyncio.Queue()
        self._slots = [Slot(client, self.progress) for client in self.clients]
        self._over = asyncio.Event()
        self._open = len(jobs)
        await self._distribute(jobs)
        for slot in self._slots:
            if slot.abandoned or slot.client.name in silent:
                slot.lost()  # it is asked first; what it should forget is dropped before it gets work
        lanes = [self._lane(slot) for slot in self._slots for _ in range(self.settings.in_flight)]
        ears = [slot.listen() for slot in self._slots]
        tasks = [asyncio.ensure_future(work) for work in (*lanes, *ears)]
        end = asyncio.ensure_future(self._over.wait())
        if not jobs:
            self._over.set()
        try:
            done, _ = await asyncio.wait((*tasks, end), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # a lane ends by an exception only
        finally:
            for task in (*tasks, end):
                task.cancel()
            await asyncio.gather(*tasks, end, return_exceptions=True)
            await self.journal.flush()

    async def _distribute(self, jobs: list[Job]) -> None:
        """What an earlier run left on a server stays there; the rest goes to whoever is free."""
        slots = {slot.client.name: slot for slot in self._slots}
        for job in jobs:
            left = self.journal.past.running.get(job.id)
            slot = slots.get(left["server"]) if left else None
            if left and slot and left["key"] == job.key:
                slot.adopted.append((job, left["prompt"]))
                continue
            if left and slot:
                slot.abandoned.append(left["prompt"])
            if left:
                await self.journal.add("released", job.id, prompt=left["prompt"])
            self._queue.put_nowait(job)

    async def _lane(self, slot: Slot) -> None:
        """One of the K places of a server."""
        while True:
            if not slot.up:
                await self._recover(slot)
            job, prompt_id = slot.adopted.popleft() if slot.adopted else (await self._queue.get(), None)
            try:
                await self._attempt(slot, job, prompt_id)
            except Refusal as refusal:
                await self._failed(slot, job, str(refusal), refusal.final)
            except Unreachable:
                slot.lost()
                self._queue.put_nowait(job)

    async def _attempt(self, slot: Slot, job: Job, prompt_id: str | None) -> None:
        adopted = prompt_id is not None
        if prompt_id is None:
            prompt = await self._filled(slot, job)
            prompt_id = uuid4().hex
            await self.journal.add("submitted", job.id, key=job.key, prompt=prompt_id, server=slot.client.name)
        wait = slot.expect(prompt_id, job, adopted)
        try:
            if not adopted:
                prompt_id = await self._submit(slot, job, prompt_id, prompt)
            await self._to_the_end(slot, job, prompt_id, wait, adopted)
        except Refusal as refusal:
            await self.journal.add("failed", job.id, prompt=prompt_id, reason=str(refusal))
            raise
        except Unreachable as error:
            if not isinstance(error, Gone):
                slot.abandoned.append(prompt_id)
            await self.journal.add("released", job.id, prompt=prompt_id)
            raise
        finally:
            slot.forget(prompt_id)

    async def _filled(self, slot: Slot, job: Job) -> Prompt:
        """The prompt with the server's names of its files. A file is sent to a server once."""
        prompt = {n: {**node, "inputs": dict(node["inputs"])} for n, node in job.prompt.items()}
        for target, path in job.uploads:
            prompt[target.node]["inputs"][target.input] = await self._uploaded(slot, path)
        return prompt

    async def _uploaded(self, slot: Slot, path: Path) -> str:
        if path not in slot.uploaded:
            slot.uploaded[path] = asyncio.ensure_future(slot.client.upload(path))
        try:
            return await asyncio.shield(slot.uploaded[path])
        except OSError as error:
            slot.uploaded.pop(path, None)
            raise Refusal(f"{path.name} cannot be read any more ({error.strerror})", final=True) from error
        except Flow3DError:
            slot.uploaded.pop(path, None)
            raise

    async def _submit(self, slot: Slot, job: Job, prompt_id: str, prompt: Prompt) -> str:
        got = await slot.client.submit(prompt_id, prompt)
        if got != prompt_id:  # a server that chooses ids itself
            slot.rename(prompt_id, got)
            await self.journal.add("submitted", job.id, key=job.key, prompt=got, server=slot.client.name)
        return got

    async def _to_the_end(self, slot: Slot, job: Job, prompt_id: str, wait: Wait, ask: bool) -> None:
        """Wait for a prompt and deal with how it ended. ask: at once, not only when the server says something."""
        turn = broken = 0
        while True:
            if not ask:
                await slot.word(wait, turn)
                turn += 1
            ask = False
            told = await slot.client.look(prompt_id)
            if told is False:
                return await self._lost(slot, job, prompt_id)
            if isinstance(told, Finished):
                try:
                    return await self._ended(slot, job, prompt_id, told)
                except Gone:
                    raise
                except Unreachable:  # in the middle of a file: the rest is fetched when the server answers again
                    broken, ask = broken + 1, True
                    if broken > MOST_LOSSES:
                        raise
                    await asyncio.sleep(pause(broken))

    async def _ended(self, slot: Slot, job: Job, prompt_id: str, told: Finished) -> None:
        if told.error is not None:
            raise Refusal(told.error, final=False)
        if not told.files:
            raise Refusal("it ran, but saved no file", final=True)
        files = await self.delivery.bring(slot.client, job, told.files, self.titles)
        await self.journal.add("done", job.id, key=job.key, prompt=prompt_id, files=files)
        self._close(slot, job, well=True)

    async def _lost(self, slot: Slot, job: Job, prompt_id: str) -> None:
        """The server knows nothing of the prompt: it was restarted, or somebody cleared its queue."""
        slot.uploaded.clear()
        self._losses[job.id] += prompt_id in slot.started
        if self._losses[job.id] >= MOST_LOSSES:
            raise Refusal(f"the server was restarted {MOST_LOSSES} times while it ran this item", final=True)
        await self.journal.add("released", job.id, prompt=prompt_id)
        self._queue.put_nowait(job)

    async def _failed(self, slot: Slot, job: Job, reason: str, final: bool) -> None:
        self._attempts[job.id] += 1
        if not final and self._attempts[job.id] <= self.settings.retries:
            self._queue.put_nowait(job)
            return
        self.failures[job.id] = reason
        self.progress.note(f"item {job.id} (row {job.row}) failed: {reason}")
        self._close(slot, job, well=False)

    def _close(self, slot: Slot, job: Job, well: bool) -> None:
        self.progress.finished(slot.client.name, job.id, well)
        self._open -= 1
        if self._open == 0:
            self._over.set()

    async def _recover(self, slot: Slot) -> None:
        """Wait until a server answers again. After some patience what an earlier run left there goes to others."""
        async with slot.recovery:
            turn = 0
            while not slot.up and not await self._back(slot):
                if turn == 0 and slot.answered:
                    self.progress.note(f"{slot.client.name} does not answer; waiting for it")
                if self._silent_for_long(slot):
                    await self._release_adopted(slot)
                if all(self._silent_for_long(s) for s in self._slots):
                    raise Flow3DError(
                        f"No server has answered for {self.settings.patience:.0f} s. "
                        "Start one, then run the same command again: it goes on."
                    )
                await asyncio.sleep(pause(turn) / 2)
                turn += 1
            slot.up = True

    async def _release_adopted(self, slot: Slot) -> None:
        while slot.adopted:
            job, prompt_id = slot.adopted.popleft()
            slot.abandoned.append(prompt_id)
            await self.journal.add("released", job.id, prompt=prompt_id)
            self._queue.put_nowait(job)

    def _silent_for_long(self, slot: Slot) -> bool:
        return not slot.up and asyncio.get_running_loop().time() - slot.down_since > self.settings.patience

    async def _back(self, slot: Slot) -> bool:
        """Whether the server answers; then it forgets what others do now."""
        try:
            await slot.client.ping()
            while slot.abandoned:
                await slot.client.drop(slot.abandoned[-1])
                slot.abandoned.pop()
            return True
        except Unreachable:
            return False
