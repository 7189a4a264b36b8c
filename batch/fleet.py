"""ComfyUIs on a Ray cluster, one a GPU or one for so many cores. Ray is imported here and nowhere else."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from ..flow3d.errors import Flow3DError, InputError
from .client import Client, Gone, Listener, Unreachable
from .reply import Finished, SavedFile
from .run import Fleet
from .worker import Start, Worker
from .workflow import NodeInfo, Prompt

T = TypeVar("T")
_STOP_LIMIT = 10.0
_LIMIT = 90.0
"""Seconds; more than a worker itself waits for its ComfyUI's answer."""


class RayClient:
    """A Client whose server lives in an actor. The actor's death is a dead server's; Ray starts another in its place."""

    def __init__(self, name: str, actor: Any):
        self.name, self.actor = name, actor

    async def _of(self, reference: Awaitable[T], limit: float | None = _LIMIT) -> T:
        """An actor's answer; its exceptions become ours. An actor that waits for a machine does not answer at all."""
        try:
            return await asyncio.wait_for(reference, limit)
        except asyncio.TimeoutError:
            raise Unreachable(f"{self.name} does not answer") from None
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Flow3DError) else Unreachable(f"{self.name}: {error.cause}")) from error
        except ActorUnavailableError as error:
            raise Unreachable(f"{self.name} does not answer") from error
        except RayError as error:
            raise Gone(f"{self.name} is gone ({error})") from error

    async def started(self) -> None:
        """Returns when the worker's ComfyUI answers, however long its machine takes to come. Raises Unreachable where it cannot."""
        await self._of(self.actor.ping.remote(), None)

    async def ping(self) -> None:
        await self._of(self.actor.ping.remote(), 10.0)

    async def node_info(self, classes: list[str]) -> NodeInfo:
        return await self._of(self.actor.node_info.remote(classes))

    async def upload(self, path: Path) -> str:
        return await self._of(self.actor.send.remote(path.name, await asyncio.to_thread(path.read_bytes)), 10 * _LIMIT)

    async def submit(self, prompt_id: str, prompt: Prompt) -> str:
        return await self._of(self.actor.submit.remote(prompt_id, prompt))

    async def look(self, prompt_id: str) -> Finished | bool:
        return await self._of(self.actor.look.remote(prompt_id))

    async def drop(self, prompt_id: str) -> None:
        await self._of(self.actor.drop.remote(prompt_id))

    async def read(self, file: SavedFile) -> AsyncIterator[bytes]:
        async for chunk in self._stream(self.actor.read.options(num_returns="streaming").remote(file), _LIMIT):
            yield chunk

    async def listen(self, tell: Listener) -> None:
        async for kind, data in self._stream(self.actor.listen.options(num_returns="streaming").remote(), None):
            tell(kind, data)

    async def _stream(self, references: Any, limit: float | None) -> AsyncIterator[Any]:
        while True:
            try:
                reference = await self._of(references.__anext__(), limit)
            except StopAsyncIteration:
                return
            yield await self._of(reference)

    async def close(self) -> None:
        try:
            await self._of(self.actor.stop.remote())
        except Unreachable:
            pass


def ray_fleet(address: str, workers: int | None, start: Start) -> Fleet:
    """address: a cluster's, 'auto' for the one that this machine is in, 'local' for a new one of this machine alone.

    workers: how many; None for as many as fit now. More than fit now wait for machines, which an autoscaling cluster adds.
    """

    @asynccontextmanager
    async def opened() -> AsyncIterator[list[Client]]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"There is no Ray cluster at '{address}' ({error}).") from error
        clients: list[RayClient] = []
        try:
            clients = _actors(workers or _fitting(start.cores), start)
            await _one_answers(clients)
            yield [*clients]
        finally:
            await _stop(clients)
            ray.shutdown()  # ends this job's actors, wherever they are

    return opened


def _fitting(cores: int | None) -> int:
    """How many workers the machines that are there now have room for."""
    have = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    count = sum(int(r.get("GPU", 0) if cores is None else r.get("CPU", 0) // cores) for r in have)
    if count == 0:
        wanted = "GPU; say --cores N to use CPUs" if cores is None else f"machine with {cores} free cores"
        raise InputError(f"The cluster has no {wanted}, or --workers N if it grows on demand.")
    return count


def _actors(count: int, start: Start) -> list[RayClient]:
    room: dict[str, Any] = {"num_gpus": 1} if start.cores is None else {"num_cpus": start.cores}
    actor = ray.remote(Worker).options(max_restarts=-1, max_task_retries=0, scheduling_strategy="SPREAD", **room)
    run = uuid4().hex[:6]  # its servers are not those of an earlier run
    return [RayClient(f"worker {i} of run {run}", actor.remote(start)) for i in range(1, count + 1)]


async def _stop(clients: list[RayClient]) -> None:
    if clients:
        await asyncio.wait([asyncio.ensure_future(client.close()) for client in clients], timeout=_STOP_LIMIT)


async def _one_answers(clients: list[RayClient]) -> None:
    """Returns when the first one answers; the others join when they do. Raises Flow3DError where all fail."""
    waiting = {asyncio.ensure_future(client.started()) for client in clients}
    reason: BaseException | None = None
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                reason = task.exception()
                if reason is None:
                    return
    finally:
        for task in waiting:
            task.cancel()
    raise Flow3DError(f"No ComfyUI could be started on the cluster: {reason}")
