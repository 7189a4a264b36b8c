"""`flow3d batch` on real ComfyUI servers: one is killed and restarted, the client is killed, every output comes once."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tenacity", reason="tenacity is not installed: use `python run.py test`")
pytest.importorskip("websocket", reason="websocket-client is not installed: use `python run.py test`")

from comfy_server import Server  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
ITEMS = 60
PAINT = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 0}, "_meta": {"title": "Paint"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "batch"}},
}
LOAD = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}, "_meta": {"title": "Portrait"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "batch"}},
}
CODE = (
    "import argparse, sys\nfrom comfyui_flow3d.batch.command import add_arguments, batch\n"
    "from comfyui_flow3d.flow3d.errors import InputError\np = argparse.ArgumentParser()\nadd_arguments(p)\n"
    "try:\n    sys.exit(batch(p.parse_args()))\nexcept InputError as e:\n    print(e, file=sys.stderr)\n    sys.exit(2)\n"
)


def color(item: int) -> int:
    return item * 4001 + 77


def start(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", CODE, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*arguments: object) -> tuple[int, str, str]:
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def write(folder: Path, workflow: dict, rows: list[dict]) -> tuple[Path, Path]:
    (folder / "workflow.json").write_text(json.dumps(workflow), encoding="utf-8")
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder / "workflow.json", folder / "items.jsonl"


def journal(folder: Path) -> list[dict]:
    path = folder / "out" / "journal.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def done(folder: Path) -> int:
    return sum(record["event"] == "done" for record in journal(folder))


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def light(comfyui: Path, base: Path) -> Server:
    """A server without packs and models."""
    base.mkdir(parents=True)
    made = Server(sys.executable, ROOT / "scripts" / "launch_comfyui.py", comfyui, base)
    made.command.append("--disable-all-custom-nodes")
    return made


@pytest.fixture(scope="module")
def two_servers(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    base = tmp_path_factory.mktemp("two")
    servers = [light(comfyui, base / name) for name in "ab"]
    with ExitStack() as stack:
        starts = [threading.Thread(target=server.__enter__) for server in servers]
        for thread in starts:
            thread.start()
        for server, thread in zip(servers, starts, strict=True):
            thread.join()
            stack.callback(server.__exit__)
        yield servers


def colors_run(server: Server) -> Counter[int]:
    return Counter(entry["prompt"][2]["1"]["inputs"].get("color") for entry in server.get("/history").values())


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL on Windows")
def test_sixty_items_two_servers_one_killed_the_client_killed(two_servers: list[Server], tmp_path: Path) -> None:
    a, b = two_servers
    files = write(tmp_path, PAINT, [{"id": f"item{n:02}", "Paint.color": color(n)} for n in range(ITEMS)])
    arguments = (*files, "--server", a.url, "--server", b.url, "-o", tmp_path / "out", "--names", "{id}{ext}", "--patience", 60)

    client = start(*arguments)
    wait_for(lambda: done(tmp_path) >= 8)
    os.kill(a.process.pid, signal.SIGKILL)
    a.process.wait()
    wait_for(lambda: done(tmp_path) >= 16)
    client.send_signal(signal.SIGKILL)
    client.communicate()
    assert done(tmp_path) < ITEMS
    a.__enter__()  # the same address and folders, an empty memory

    status, out, err = run(*arguments)
    assert status == 0, out + err
    records = journal(tmp_path)
    assert Counter(r["item"] for r in records if r["event"] == "done") == {f"item{n:02}": 1 for n in range(ITEMS)}
    names = {p.name for p in (tmp_path / "out").iterdir() if not p.name.startswith("journal")}
    assert names == {f"item{n:02}.png" for n in range(ITEMS)}
    for record in (r for r in records if r["event"] == "done"):
        data = (tmp_path / "out" / record["files"][0]["path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == record["files"][0]["sha256"]
        picture = np.asarray(Image.open(tmp_path / "out" / f"{record['item']}.png"))
        value = color(int(record["item"][4:]))
        assert (picture == [value >> 16 & 255, value >> 8 & 255, value & 255]).all()
    ran = colors_run(a) + colors_run(b)  # of the first a nobody remembers anything
    assert set(ran.values()) == {1} and colors_run(a)

    status, out, _ = run(*arguments)
    assert status == 0 and (colors_run(a) + colors_run(b)) == ran  # nothing is done twice


def test_files_go_up_and_the_nodes_own_words_come_back(two_servers: list[Server], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "face.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    files = write(tmp_path, LOAD, [{"id": "good", "Portrait.image": "face.png"}, {"id": "bad", "Portrait.image": "broken.png"}])
    status, out, err = run(*files, "--server", two_servers[1].url, "-o", tmp_path / "out", "--retries", 0, "--names", "{id}{ext}")
    assert status == 3, out + err
    assert "failed: bad (row 2): LoadImage (node 1): cannot identify image file" in out
    assert (np.asarray(Image.open(tmp_path / "out" / "good.png")) == pixels).all()


def test_a_dry_run_lists_every_problem_and_runs_nothing(two_servers: list[Server], tmp_path: Path) -> None:
    rows = [
        {"id": "x", "Paint.color": 1, "Paint.width": 0, "Save Image.filename_prefix": "p"},
        {"id": "x", "Paint.color": "red", "Pain.color": 2, "Paint.colour": 3},
    ]
    files = write(tmp_path, PAINT | {"3": {"class_type": "NoSuchNode", "inputs": {}}}, rows)
    status, _, err = run(*files, "--server", two_servers[1].url, "-o", tmp_path / "out", "--dry-run")
    assert status == 2 and "the id 'x' is that of row 1" in err
    rows[1]["id"] = "y"
    write(tmp_path, PAINT | {"3": {"class_type": "NoSuchNode", "inputs": {}}}, rows)
    before = two_servers[1].get("/history")
    status, _, err = run(*files, "--server", two_servers[1].url, "-o", tmp_path / "out", "--dry-run")
    assert status == 2 and not (tmp_path / "out").exists() and two_servers[1].get("/history") == before
    for problem in (
        "the node 'NoSuchNode' is not installed",
        "row 1: Paint.width is 0; it must be between 1 and",
        "row 2: Paint.color is 'red'; it must be a whole number",
        "column 'Pain.color': no node is called 'Pain'",
        "column 'Paint.colour': Paint has the inputs width, height, batch_size, color",
    ):
        assert problem in err, err
