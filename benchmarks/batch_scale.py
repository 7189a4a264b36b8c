"""How many servers one `flow3d batch` can feed: simulated servers, real HTTP, real websockets, real files and journal.

    python -m comfyui_flow3d.benchmarks.batch_scale [--workers 1000] [--seconds 20] [--rounds 3]

One other process plays all the servers: it sleeps for as long as a job takes. Linux and macOS: it needs some thousand sockets.
"""

import argparse
import asyncio
import multiprocessing
import resource
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from ..batch.client import Client, HttpClient
from ..batch.plan import Job
from ..batch.scheduler import Settings
from .batch import cpu_seconds, painting, run_jobs

FILE = bytes(200_000)
"""What each job saves."""


class Simulated:
    """Many ComfyUIs under one port: /w0, /w1, ... Each runs its prompts one after another."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.queues: dict[str, asyncio.Queue[tuple[str, str]]] = {}
        self.open: dict[str, dict[str, None]] = {}
        self.sockets: dict[str, web.WebSocketResponse] = {}
        self.history: dict[str, Any] = {}

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.post("/{w}/prompt", self.prompt), web.get("/{w}/prompt", self.ok), web.get("/{w}/history/{id}", self.told),
                web.get("/{w}/queue", self.queue), web.get("/{w}/view", self.view), web.get("/{w}/ws", self.ws),
            ]
        )  # fmt: skip
        return app

    async def ok(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def prompt(self, request: web.Request) -> web.Response:
        body, worker = await request.json(), request.match_info["w"]
        if worker not in self.queues:
            self.queues[worker] = asyncio.Queue()
            self.open[worker] = {}
            asyncio.ensure_future(self.work(self.queues[worker], self.open[worker]))
        self.open[worker][body["prompt_id"]] = None
        self.queues[worker].put_nowait((body["prompt_id"], body["client_id"]))
        return web.json_response({"prompt_id": body["prompt_id"], "node_errors": {}})

    async def work(self, queue: "asyncio.Queue[tuple[str, str]]", waiting: dict[str, None]) -> None:
        while True:
            prompt_id, client = await queue.get()
            await asyncio.sleep(self.seconds)
            file = {"filename": "a.png", "subfolder": "", "type": "output"}
            self.history[prompt_id] = {"status": {"status_str": "success"}, "outputs": {"2": {"images": [file]}}}
            del waiting[prompt_id]
            if client in self.sockets:
                data = {"node": None, "prompt_id": prompt_id}
                await self.sockets[client].send_json({"type": "executing", "data": data})

    async def told(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["id"]
        return web.json_response({prompt_id: self.history[prompt_id]} if prompt_id in self.history else {})

    async def queue(self, request: web.Request) -> web.Response:
        jobs = [[0, prompt_id] for prompt_id in self.open.get(request.match_info["w"], ())]
        return web.json_response({"queue_running": jobs[:1], "queue_pending": jobs[1:]})

    async def view(self, _: web.Request) -> web.Response:
        return web.Response(body=FILE)

    async def ws(self, request: web.Request) -> web.WebSocketResponse:
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        self.sockets[request.query["clientId"]] = answer
        async for _ in answer:
            pass
        return answer


def serve(port: int, seconds: float) -> None:
    many_sockets()
    web.run_app(Simulated(seconds).app(), host="127.0.0.1", port=port, print=None, access_log=None, backlog=4096)


def many_sockets() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most if most != resource.RLIM_INFINITY else 65536, most))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


async def measure(port: int, workers: int, seconds: float, rounds: int) -> dict[str, float]:
    clients: list[Client] = [HttpClient(f"http://127.0.0.1:{port}/w{n}", patience=120) for n in range(workers)]
    count = workers * rounds
    jobs = [Job(str(n), n, painting(n, 64), (), {"id": str(n)}, str(n)) for n in range(count)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            before = cpu_seconds()
            wall = await run_jobs(clients, jobs, Settings(in_flight=2), Path(folder))
            cpu = cpu_seconds() - before
            if len(list(Path(folder).glob("*.png"))) != count:
                raise SystemExit("files are missing")
    finally:
        for client in clients:
            await client.close()
    return {
        "workers": workers,
        "items": count,
        "wall_s": wall,
        "items_per_s": count / wall,
        "driver_cpu_ms_per_item": cpu / count * 1e3,
        "workers_busy": count * seconds / (workers * wall),
        "driver_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20.0, help="that a job takes")
    parser.add_argument("--rounds", type=int, default=3, help="items for each worker")
    options = parser.parse_args()
    many_sockets()
    port = free_port()
    servers = multiprocessing.get_context("spawn").Process(target=serve, args=(port, options.seconds), daemon=True)
    servers.start()
    for _ in range(100):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.2)
    try:
        figures = asyncio.run(measure(port, options.workers, options.seconds, options.rounds))
    finally:
        servers.kill()
    for name, value in figures.items():
        print(f"{name:32} {value:10.2f}")


if __name__ == "__main__":
    main()
