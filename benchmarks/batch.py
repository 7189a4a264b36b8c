"""What `flow3d batch` costs an item beside the server's own time, on a ComfyUI that runs.

    python -m comfyui_flow3d.benchmarks.batch --server http://127.0.0.1:8188 [--items 200] [--json FILE]

The workflow paints a small picture and saves it. The server says itself when each prompt began and ended.
"""

import argparse
import asyncio
import json
import random
import resource
import tempfile
import time
from pathlib import Path
from statistics import mean, median

from ..batch.client import Client, HttpClient
from ..batch.deliver import Delivery
from ..batch.journal import Journal
from ..batch.names import Template
from ..batch.plan import Job
from ..batch.scheduler import Scheduler, Settings
from ..batch.workflow import Prompt


def painting(number: int, size: int) -> Prompt:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": size, "height": size, "batch_size": 1, "color": number}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "bench/batch"}},
    }


class Silent:
    """A Progress that shows nothing."""

    def working(self, server: str, item: str, share: float) -> None: ...

    def finished(self, server: str, item: str, well: bool) -> None: ...

    def note(self, sentence: str) -> None:
        print(sentence)


async def run_jobs(clients: list[Client], jobs: list[Job], settings: Settings, folder: Path) -> float:
    """Run them; returns the wall time in seconds."""
    with Journal(folder / "journal.jsonl") as journal:
        work = Scheduler(clients, journal, Delivery(folder, Template.parse("{id}{ext}", ())), {}, settings, Silent())
        start = time.perf_counter()
        await work.run(jobs)
        if work.failures:
            raise SystemExit(str(work.failures))
        return time.perf_counter() - start


async def own_seconds(client: HttpClient, count: int) -> list[float]:
    """How long the server's last prompts took, in its own words."""
    async with client.session.get(f"{client.base}/history?max_items={count}") as reply:
        entries = (await reply.json()).values()
    times = [{kind: data["timestamp"] for kind, data in entry["status"]["messages"]} for entry in entries]
    return [(t["execution_success"] - t["execution_start"]) / 1000 for t in times]


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(url: str, count: int, in_flight: int, size: int) -> dict[str, float]:
    first = random.randrange(1 << 23)  # the server keeps results: each run needs colours of its own
    jobs = [Job(str(n), n, painting(first + n, size), (), {"id": str(n)}, str(n)) for n in range(count)]
    client = HttpClient(url, patience=30)
    try:
        with tempfile.TemporaryDirectory() as folder:
            before = cpu_seconds()
            wall = await run_jobs([client], jobs, Settings(in_flight=in_flight), Path(folder))
            cpu = cpu_seconds() - before
            files = len(list(Path(folder).glob("*.png")))
        if files != count:
            raise SystemExit(f"{files} files of {count}")
        own = await own_seconds(client, count)
    finally:
        await client.close()
    key = f"in_flight_{in_flight}"
    return {
        f"{key}.wall_ms": wall / count * 1e3,
        f"{key}.server_ms": mean(own) * 1e3,
        f"{key}.server_median_ms": median(own) * 1e3,
        f"{key}.overhead_ms": (wall / count - mean(own)) * 1e3,
        f"{key}.client_cpu_ms": cpu / count * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8188")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--size", type=int, default=64, help="of the pictures, in pixels")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: dict[str, float] = {}
    for in_flight in (1, 2, 4):
        figures |= asyncio.run(measure(options.server, options.items, in_flight, options.size))
    for name, value in figures.items():
        print(f"{name:32} {value:8.1f}")
    if options.json:
        options.json.write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
