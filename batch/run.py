"""`flow3d batch`: reads, checks, goes on where it stopped, runs, reports."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ..flow3d.errors import InputError
from .client import Client, HttpClient, Unreachable
from .deliver import Delivery
from .journal import Journal
from .manifest import Manifest, read_manifest
from .names import DEFAULT, Template
from .plan import Job, plan
from .progress import Bars
from .scheduler import Scheduler, Settings
from .workflow import NodeInfo, Prompt, classes, read_workflow, title

DONE, SOME_FAILED, STOPPED = 0, 3, 130
JOURNAL = "journal.jsonl"
GRACE = 5.0
"""Seconds for which the others are waited for once one server has answered."""

Fleet = Callable[[], AbstractAsyncContextManager[list[Client]]]
"""Opens the servers, inside the event loop."""


@dataclass(frozen=True)
class Request:
    workflow: Path
    manifest: Path
    output: Path
    names: str = DEFAULT
    settings: Settings = Settings()


def servers(urls: list[str], patience: float) -> Fleet:
    """Servers that run already. Raises InputError for what is no address."""
    clients = [HttpClient(url, patience) for url in urls]
    twice = {c.name for c in clients if sum(c.name == other.name for other in clients) > 1}
    if twice:
        raise InputError(f"The server {', '.join(sorted(twice))} is named twice.")

    @asynccontextmanager
    async def opened() -> AsyncIterator[list[Client]]:
        try:
            yield [*clients]
        finally:
            for client in clients:
                await client.close()

    return opened


def check(request: Request, fleet: Fleet) -> str:
    """What `--dry-run` says. Raises InputError that lists every problem."""
    prompt, manifest, template = _read(request)

    async def ask() -> list[Job]:
        async with fleet() as clients:
            info = await _node_info(prompt, clients)
            return plan(prompt, manifest, template, info)

    jobs = asyncio.run(ask())
    return f"{manifest.path.name}: {len(jobs)} items, no problem."


def run(request: Request, fleet: Fleet) -> int:
    """Run the batch, or go on with it; returns the exit status.

    Raises InputError for bad input, Flow3DError where it cannot go on (the disk is full, no server answers).
    """
    prompt, manifest, template = _read(request)
    with Journal(request.output / JOURNAL) as journal:
        try:
            return asyncio.run(_run(request, prompt, manifest, template, journal, fleet))
        except KeyboardInterrupt:
            print("stopped. What the servers have begun goes on; run the same command again to collect it.", file=sys.stderr)
            return STOPPED


def _read(request: Request) -> tuple[Prompt, Manifest, Template]:
    manifest = read_manifest(request.manifest)
    return read_workflow(request.workflow), manifest, Template.parse(request.names, manifest.columns)


async def _node_info(prompt: Prompt, clients: list[Client]) -> dict[str, NodeInfo]:
    """From all servers that answer soon after the first that does. Raises InputError where none does."""
    tasks = {asyncio.ensure_future(c.node_info(classes(prompt))): c.name for c in clients}
    info, silent, waiting = dict[str, NodeInfo](), list[str](), set(tasks)
    while waiting:
        done, waiting = await asyncio.wait(waiting, timeout=GRACE if info else None, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            break
        for task in done:
            try:
                info[tasks[task]] = task.result()
            except Unreachable as error:
                silent.append(str(error))
    for task in waiting:
        task.cancel()
    if not info:
        raise InputError(f"{'; '.join(silent[:4])}. Start ComfyUI, or name where it runs with --server.")
    if len(info) < len(clients):
        missing = len(clients) - len(info)
        print(f"flow3d: {missing} of {len(clients)} servers do not answer; going on without them until they do. {' '.join(silent[:2])}",
              file=sys.stderr)  # fmt: skip
    return info


async def _run(
    request: Request, prompt: Prompt, manifest: Manifest, template: Template, journal: Journal, fleet: Fleet
) -> int:
    async with fleet() as clients:
        info = await _node_info(prompt, clients)
        jobs = plan(prompt, manifest, template, info)
        titles = {node: title(prompt, node, next(iter(info.values()))) for node in prompt}
        delivery = Delivery(request.output, template)
        todo = [job for job in jobs if not _is_done(job, journal, delivery)]
        with Bars(len(jobs), len(jobs) - len(todo), [c.name for c in clients]) as bars:
            work = Scheduler(clients, journal, delivery, titles, request.settings, bars)
            await work.run(todo, frozenset(c.name for c in clients) - info.keys())
    return _report(request, jobs, work.failures)


def _is_done(job: Job, journal: Journal, delivery: Delivery) -> bool:
    record = journal.past.done.get(job.id)
    return record is not None and record["key"] == job.key and delivery.has(record)


def _report(request: Request, jobs: list[Job], failures: dict[str, str]) -> int:
    print(f"{len(jobs) - len(failures)} of {len(jobs)} items are in {request.output.resolve()}")
    for job in jobs:
        if job.id in failures:
            print(f"failed: {job.id} (row {job.row}): {failures[job.id]}")
    if failures:
        print("Run the same command again to try the failed ones once more.")
    return SOME_FAILED if failures else DONE
