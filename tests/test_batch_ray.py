"""`flow3d batch --ray` on a cluster of two machines, which are processes here; one is killed in the middle."""

import hashlib
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

pytest.importorskip("ray", reason="ray is not installed (optional): pip install ray")
pytest.importorskip("tenacity", reason="tenacity is not installed: use `python run.py test`")

from test_comfy_batch import PAINT, color, done, journal, start, wait_for, write  # noqa: E402

ITEMS = 80
LARGER = PAINT | {"1": PAINT["1"] | {"inputs": {"width": 768, "height": 768, "batch_size": 1, "color": 0}}}
"""So that a worker has work when it is killed."""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray and its actors write: its sockets need a short path, and this one tells their processes from others."""
    with tempfile.TemporaryDirectory(prefix="f3d") as folder:
        for name in ("TMPDIR", "RAY_TMPDIR"):
            monkeypatch.setenv(name, folder)
        yield Path(folder)


@pytest.fixture
def cluster(comfyui: Path, short: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that runs nothing."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


def comfyuis(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if any(str(folder) in part for part in line) and "--port" in line:
            found.append(process)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="Ray's clusters of processes are tested on Linux")
def test_a_machine_of_two_dies(cluster: Any, short: Path, tmp_path: Path) -> None:
    one = cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    files = write(tmp_path, LARGER, [{"id": f"item{n:02}", "Paint.color": color(n)} for n in range(ITEMS)])
    client = start(
        *files, "-o", tmp_path / "out", "--names", "{id}{ext}", "--ray", cluster.address, "--cores", 1, "--patience", 60,
        "--workers", 3,  # one more than there is room for, as on a cluster that grows
        "--comfyui-args=--disable-all-custom-nodes",
    )  # fmt: skip
    wait_for(lambda: client.poll() is not None or (done(tmp_path) >= 5 and len(workers_used(tmp_path)) == 2), 120)
    assert client.poll() is None, client.communicate()
    raylet = one.all_processes["raylet"][0].process.pid
    actors = [process.parent() for process in comfyuis(short)]
    assert len(actors) == 2
    victims = [psutil.Process(raylet), *(actor for actor in actors if actor.ppid() == raylet)]
    assert len(victims) == 2
    for process in victims:
        process.kill()
    assert done(tmp_path) < ITEMS - 10
    out, err = client.communicate(timeout=120)
    assert client.returncode == 0, out + err

    records = journal(tmp_path)
    assert Counter(r["item"] for r in records if r["event"] == "done") == {f"item{n:02}": 1 for n in range(ITEMS)}
    assert {p.name for p in (tmp_path / "out").iterdir() if p.suffix == ".png"} == {f"item{n:02}.png" for n in range(ITEMS)}
    assert not list((tmp_path / "out").glob("*.part"))
    for record in (r for r in records if r["event"] == "done"):
        path = tmp_path / "out" / record["files"][0]["path"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == record["files"][0]["sha256"]
        value = color(int(record["item"][4:]))
        assert (np.asarray(Image.open(path)) == [value >> 16 & 255, value >> 8 & 255, value & 255]).all()
    assert any(r["event"] == "released" for r in records)  # the dead machine had work
    wait_for(lambda: not comfyuis(short), 20)  # no ComfyUI outlives its actor


def workers_used(folder: Path) -> set[str]:
    submitted = {r["prompt"]: r["server"] for r in journal(folder) if r["event"] == "submitted"}
    return {submitted[r["prompt"]] for r in journal(folder) if r["event"] == "done"}
