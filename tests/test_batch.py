"""`flow3d batch` against servers that fail in every way that ComfyUI's do. The real server's part is in test_comfy_batch.py."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from toy_comfy import PROMPT, Toy, free_port, picture

pytest.importorskip("tenacity", reason="tenacity is not installed: use `python run.py test`")

from comfyui_flow3d.batch.client import HttpClient  # noqa: E402
from comfyui_flow3d.batch.deliver import Delivery  # noqa: E402
from comfyui_flow3d.batch.journal import DiskError, Journal  # noqa: E402
from comfyui_flow3d.batch.manifest import read_manifest  # noqa: E402
from comfyui_flow3d.batch.names import Template  # noqa: E402
from comfyui_flow3d.batch.plan import plan  # noqa: E402
from comfyui_flow3d.batch.run import _is_done  # noqa: E402
from comfyui_flow3d.batch.scheduler import Scheduler, Settings  # noqa: E402
from comfyui_flow3d.batch.workflow import classes  # noqa: E402
from comfyui_flow3d.flow3d.errors import Flow3DError  # noqa: E402


class Heard:
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, bool]] = []
        self.notes: list[str] = []

    def working(self, server: str, item: str, share: float) -> None:
        assert 0 <= share <= 1

    def finished(self, server: str, item: str, well: bool) -> None:
        self.ended.append((item, well))

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def manifest_of(folder: Path, items: int) -> Path:
    path = folder / "m.csv"
    path.write_text("id,Paint It.color\n" + "".join(f"i{n},{n}\n" for n in range(items)), encoding="utf-8")
    return path


async def go(
    folder: Path, manifest: Path, urls: list[str], settings: Settings, heard: Heard, names: str = "{id}{ext}"
) -> dict[str, str]:
    """One run as the command makes it; returns the failures."""
    clients = [HttpClient(url, settings.patience) for url in urls]
    try:
        table = read_manifest(manifest)
        template = Template.parse(names, table.columns)
        with Journal(folder / "out" / "journal.jsonl") as journal:
            info = await clients[0].node_info(classes(PROMPT))
            jobs = plan(PROMPT, table, template, {clients[0].name: info})
            delivery = Delivery(folder / "out", template)
            work = Scheduler([*clients], journal, delivery, {"1": "Paint It"}, settings, heard)
            await work.run([job for job in jobs if not _is_done(job, journal, delivery)])
            return work.failures
    finally:
        for client in clients:
            await client.close()


def outputs(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / "out").rglob("*") if p.is_file() and "journal" not in p.name}


def expected(numbers: "range | list[int]") -> dict[str, bytes]:
    return {f"i{n}.png": picture(n) for n in numbers}


def test_every_output_once_and_nothing_twice_on_the_next_run(tmp_path: Path) -> None:
    async def both() -> None:
        manifest = manifest_of(tmp_path, 20)
        async with Toy() as a, Toy() as b:
            heard = Heard()
            assert not await go(tmp_path, manifest, [a.url, b.url], Settings(), heard)
            assert outputs(tmp_path) == expected(range(20))
            assert a.ran + b.ran == {n: 1 for n in range(20)} and a.ran and b.ran
            assert sorted(heard.ended) == sorted((f"i{n}", True) for n in range(20))
            assert not await go(tmp_path, manifest, [a.url, b.url], Settings(), Heard())
            assert (a.ran + b.ran).total() == 20
            (tmp_path / "out" / "i7.png").unlink()  # a file that was removed is made again, and it alone
            manifest.write_text(manifest.read_text(encoding="utf-8").replace("i3,3", "i3,103"), encoding="utf-8")  # a row that changed too
            assert not await go(tmp_path, manifest, [a.url, b.url], Settings(), Heard())
            assert outputs(tmp_path) == expected(range(20)) | {"i3.png": picture(103)}
            assert (a.ran + b.ran).total() == 22

    asyncio.run(both())


def test_the_journal_tells_the_hash_of_what_lies_there(tmp_path: Path) -> None:
    async def one() -> None:
        async with Toy() as toy:
            await go(tmp_path, manifest_of(tmp_path, 3), [toy.url], Settings(), Heard())

    asyncio.run(one())
    lines = [json.loads(x) for x in (tmp_path / "out" / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    files = [f for line in lines if line["event"] == "done" for f in line["files"]]
    assert len(files) == 3
    for file in files:
        data = (tmp_path / "out" / file["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])


def test_a_failing_node_is_tried_as_told_then_reported_in_its_own_words(tmp_path: Path) -> None:
    async def one() -> None:
        async with Toy(failing={1: 1, 2: 99}) as toy:
            failures = await go(tmp_path, manifest_of(tmp_path, 4), [toy.url], Settings(retries=2), Heard())
            assert failures == {"i2": "Paint (node 1): no paint for 2"}
            assert toy.ran == {0: 1, 1: 2, 2: 3, 3: 1}
            assert outputs(tmp_path) == expected([0, 1, 3])
            toy.failing = {}
            assert not await go(tmp_path, manifest_of(tmp_path, 4), [toy.url], Settings(), Heard())  # mended: only this one runs
            assert toy.ran == {0: 1, 1: 2, 2: 4, 3: 1}

    asyncio.run(one())


def test_node_errors_are_failures_whatever_the_status(tmp_path: Path) -> None:
    async def one() -> None:
        async with Toy(seconds=0.2, half_valid={1}, invalid={2}) as toy:
            failures = await go(tmp_path, manifest_of(tmp_path, 4), [toy.url], Settings(retries=5), Heard())
            assert failures == {f"i{n}": f"Paint (node 1): Value not in list: color: {n}" for n in (1, 2)}
            assert len(toy.dropped) == 1 and toy.ran[1] == toy.ran[2] == 0  # what was queued all the same was taken out
            assert outputs(tmp_path) == expected([0, 3])

    asyncio.run(one())


@pytest.mark.parametrize(
    "faults",
    [{"swallowed": 3}, {"torn": 4}, {"own_ids": True}, {"sockets_work": False}, {"busy": 6}],
    ids=["answer lost", "download torn", "ids of its own", "no websocket", "503"],
)
def test_faults_that_cost_time_only(tmp_path: Path, faults: dict) -> None:
    async def one() -> None:
        async with Toy(**faults) as toy:
            assert not await go(tmp_path, manifest_of(tmp_path, 6), [toy.url], Settings(patience=5), Heard())
            assert toy.ran == {n: 1 for n in range(6)}
            assert outputs(tmp_path) == expected(range(6))

    asyncio.run(one())


def test_a_websocket_that_is_cut_is_opened_again(tmp_path: Path) -> None:
    async def one() -> None:
        async with Toy(seconds=0.1) as toy:
            run = asyncio.create_task(go(tmp_path, manifest_of(tmp_path, 12), [toy.url], Settings(), Heard()))
            for _ in range(2):
                await asyncio.sleep(0.35)
                for listener in list(toy.listeners.values()):
                    await listener.close()
            assert not await asyncio.wait_for(run, 8)  # each job would wait a minute for a word, were the loss not noticed
            assert toy.ran == {n: 1 for n in range(12)} and len(toy.listeners) >= 2

    asyncio.run(one())


def test_a_server_that_dies_and_comes_back_costs_its_jobs_in_flight_only(tmp_path: Path) -> None:
    async def both() -> None:
        a, b = Toy(seconds=0.05), Toy(seconds=0.05)
        async with b:
            async with a:
                run = asyncio.create_task(go(tmp_path, manifest_of(tmp_path, 40), [a.url, b.url], Settings(patience=20), Heard()))
                while a.ran.total() < 5:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            before = a.ran.total()
            async with a:
                assert not await run
                assert outputs(tmp_path) == expected(range(40))
                assert a.ran.total() > before
                assert (a.ran + b.ran).total() <= 42  # two were in flight; each may have ended unseen

    asyncio.run(both())


def test_jobs_of_a_server_that_stays_dead_go_elsewhere(tmp_path: Path) -> None:
    async def both() -> None:
        async with Toy(seconds=0.02) as b:
            async with Toy(seconds=0.02) as a:
                heard = Heard()
                run = asyncio.create_task(go(tmp_path, manifest_of(tmp_path, 20), [a.url, b.url], Settings(patience=1), heard))
                while a.ran.total() < 3:
                    await asyncio.sleep(0.01)
            assert not await run
            assert outputs(tmp_path) == expected(range(20))
            assert any("does not answer" in note for note in heard.notes)

    asyncio.run(both())


def test_a_run_without_servers_stops_and_goes_on_later(tmp_path: Path) -> None:
    async def one() -> None:
        toy = Toy(seconds=0.05)
        async with toy:
            run = asyncio.create_task(go(tmp_path, manifest_of(tmp_path, 10), [toy.url], Settings(patience=0.5), Heard()))
            while toy.ran.total() < 3:
                await asyncio.sleep(0.01)
        with pytest.raises(Flow3DError, match="No server has answered"):
            await asyncio.wait_for(run, 20)
        async with toy:
            assert not await go(tmp_path, manifest_of(tmp_path, 10), [toy.url], Settings(), Heard())
        assert outputs(tmp_path) == expected(range(10))
        assert toy.ran.total() <= 12

    asyncio.run(one())


def test_a_job_that_kills_its_server_is_given_up(tmp_path: Path) -> None:
    """Colour 1 takes long and the server dies each time it runs; the others get through."""

    async def one() -> None:
        toy = Toy(seconds=0.02)
        run = None
        for _ in range(8):
            async with toy:
                run = run or asyncio.create_task(
                    go(tmp_path, manifest_of(tmp_path, 4), [toy.url], Settings(in_flight=1, patience=30), Heard())
                )
                while not run.done() and not (toy.queue and toy.queue[0][1]["1"]["inputs"]["color"] == 1):
                    await asyncio.sleep(0.001)
                await asyncio.sleep(0.01)
            if run.done():
                break
        assert run is not None and run.done()
        assert list(run.result()) == ["i1"] and "restarted 3 times" in run.result()["i1"]
        assert outputs(tmp_path) == expected([0, 2, 3])

    asyncio.run(one())


async def stopped_after(items: int, toy: Toy, run: Callable[[], Awaitable[object]]) -> None:
    """Run until the server has done so many, then cancel, as Ctrl-C does."""
    task = asyncio.ensure_future(run())
    while toy.ran.total() < items:
        await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_jobs_that_ran_while_the_client_was_away_are_collected(tmp_path: Path) -> None:
    async def one() -> None:
        async with Toy(seconds=0.05) as toy:
            manifest = manifest_of(tmp_path, 10)
            await stopped_after(4, toy, lambda: go(tmp_path, manifest, [toy.url], Settings(in_flight=4), Heard()))
            there = len(outputs(tmp_path))
            assert not [name for name in outputs(tmp_path) if name.endswith(".part")]
            await asyncio.sleep(0.5)
            assert toy.ran.total() > there  # the server went on
            assert not await go(tmp_path, manifest, [toy.url], Settings(), Heard())
            assert toy.ran == {n: 1 for n in range(10)}
            assert outputs(tmp_path) == expected(range(10))

    asyncio.run(one())


def test_a_changed_row_that_still_runs_is_dropped_and_run_anew(tmp_path: Path) -> None:
    async def one() -> None:
        async with Toy(seconds=0.3) as toy:
            manifest = manifest_of(tmp_path, 3)
            await stopped_after(1, toy, lambda: go(tmp_path, manifest, [toy.url], Settings(in_flight=3), Heard()))
            manifest.write_text(manifest.read_text(encoding="utf-8").replace("i2,2", "i2,102"), encoding="utf-8")
            assert not await go(tmp_path, manifest, [toy.url], Settings(), Heard())
            assert outputs(tmp_path) == expected([0, 1]) | {"i2.png": picture(102)}
            assert toy.ran == {0: 1, 1: 1, 102: 1}

    asyncio.run(one())


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_torn_last_line_is_forgotten(tmp_path: Path, cut: int) -> None:
    """Whatever a crash leaves of the journal's end, the next run ends with every output."""

    async def one() -> None:
        async with Toy() as toy:
            manifest, journal = manifest_of(tmp_path, 5), tmp_path / "out" / "journal.jsonl"
            await go(tmp_path, manifest, [toy.url], Settings(), Heard())
            os.truncate(journal, journal.stat().st_size - cut)
            assert not await go(tmp_path, manifest, [toy.url], Settings(), Heard())
            assert toy.ran.total() == 5  # the server still knew the prompt
            assert all(json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines())

    asyncio.run(one())


def test_two_runs_cannot_share_a_journal(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl"):
        with pytest.raises(Flow3DError, match="in use by another"):
            Journal(tmp_path / "journal.jsonl")
    with Journal(tmp_path / "journal.jsonl"):
        pass


@pytest.mark.parametrize(
    ("name", "subfolder"),
    [("../../evil_{color}.png", ""), ("/etc/evil_{color}.png", ""), ("..\\..\\evil_{color}.png", ".."), ("CON.png", "../x"), ("a:b{color}?.png", "/")],
)
def test_names_of_the_server_lead_nowhere(tmp_path: Path, name: str, subfolder: str) -> None:
    async def one() -> None:
        async with Toy(name=name, subfolder=subfolder) as toy:
            (tmp_path / "deep" / "er").mkdir(parents=True)
            folder = tmp_path / "deep" / "er"
            await go(folder, manifest_of(folder, 3), [toy.url], Settings(), Heard(), names="{id}/{name}{ext}")
            files = [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix == ".png"]
            assert len(files) == 3 and all(p.parent.parent == folder / "out" for p in files)
            assert not [p for p in files if set(p.name) & set('\\/:*?"<>|') or p.stem == "CON"]

    asyncio.run(one())


def test_files_are_uploaded_once_and_named_by_content(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "face.png").write_bytes(b"one")
    (tmp_path / "b" / "face.png").write_bytes(b"two")
    manifest = tmp_path / "m.csv"
    manifest.write_text("1.color;1.image\n1;a/face.png\n2;a/face.png\n3;b/face.png\n4;there.png\n", encoding="utf-8")
    seen = []

    async def one() -> None:
        async with Toy() as toy:
            assert not await go(tmp_path, manifest, [toy.url], Settings(), Heard(), names="{row}{ext}")
            assert sorted(toy.uploads.values()) == [b"one", b"two"]
            seen.extend(toy.uploads)

    asyncio.run(one())
    assert seen and all(name.startswith("face-") and name.endswith(".png") for name in seen)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on a file's size")
def test_a_full_disk_stops_the_run_and_loses_nothing(tmp_path: Path) -> None:
    """The disk is full for files above 2,000 bytes: the pictures have 3,200."""
    import resource

    async def full() -> None:
        async with Toy() as toy:
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
            try:
                with pytest.raises(DiskError, match="Nothing is lost"):
                    await go(tmp_path, manifest_of(tmp_path, 5), [toy.url], Settings(), Heard())
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            assert not outputs(tmp_path)
            assert not await go(tmp_path, manifest_of(tmp_path, 5), [toy.url], Settings(), Heard())
            assert outputs(tmp_path) == expected(range(5))
            assert toy.ran == {n: 1 for n in range(5)}

    asyncio.run(full())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_journal_on_a_full_disk_stops_the_run(tmp_path: Path) -> None:
    async def full() -> None:
        with Journal(tmp_path / "journal.jsonl") as journal:
            os.dup2(os.open("/dev/full", os.O_WRONLY), journal._file.fileno())
            with pytest.raises(DiskError, match="No space left"):
                await journal.add("submitted", "a", key="k", prompt="p", server="s")

    asyncio.run(full())


CODE = (
    "import argparse, sys\nfrom comfyui_flow3d.batch.command import add_arguments, batch\n"
    "from comfyui_flow3d.flow3d.errors import InputError\np = argparse.ArgumentParser()\nadd_arguments(p)\n"
    "try:\n    sys.exit(batch(p.parse_args()))\nexcept InputError as e:\n    print(e, file=sys.stderr)\n    sys.exit(2)\n"
)


def command(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", CODE, *map(str, arguments)], capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to whole consoles only")
def test_ctrl_c_stops_cleanly_and_the_next_run_collects(tmp_path: Path) -> None:
    workflow, manifest = tmp_path / "w.json", manifest_of(tmp_path, 12)
    workflow.write_text(json.dumps(PROMPT), encoding="utf-8")

    async def one() -> None:
        async with Toy(seconds=0.1) as toy:
            base = (workflow, manifest, "--server", toy.url, "-o", tmp_path / "out", "--names", "{id}{ext}", "--in-flight", "4")
            pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
            client = await asyncio.create_subprocess_exec(sys.executable, "-c", CODE, *map(str, base), **pipes)
            while toy.ran.total() < 3:
                await asyncio.sleep(0.01)
            client.send_signal(signal.SIGINT)
            _, err = await asyncio.wait_for(client.communicate(), 5)
            assert client.returncode == 130 and b"run the same command again" in err and b"Traceback" not in err, err
            done = await asyncio.to_thread(command, *base)
            assert done.returncode == 0, done.stderr
            assert toy.ran == {n: 1 for n in range(12)} and outputs(tmp_path) == expected(range(12))

    asyncio.run(one())


def test_the_command_and_its_exit_status(tmp_path: Path) -> None:
    workflow, manifest = tmp_path / "w.json", manifest_of(tmp_path, 3)
    workflow.write_text(json.dumps(PROMPT), encoding="utf-8")

    async def statuses() -> None:
        async with Toy(failing={1: 9}) as toy:
            base = (workflow, manifest, "--server", f"127.0.0.1:{toy.port}", "-o", tmp_path / "out", "--names", "{id}{ext}")
            dry = await asyncio.to_thread(command, *base, "--dry-run")
            assert (dry.returncode, toy.ran.total()) == (0, 0) and "3 items, no problem" in dry.stdout, dry.stderr
            some = await asyncio.to_thread(command, *base)
            assert some.returncode == 3 and "failed: i1 (row 2): Paint (node 1): no paint for 1" in some.stdout, some.stderr
            toy.failing = {}
            done = await asyncio.to_thread(command, *base)
            assert done.returncode == 0 and "3 of 3" in done.stdout, done.stderr
            assert outputs(tmp_path) == expected(range(3))

    asyncio.run(statuses())
    silent = command(workflow, manifest, "--server", f"127.0.0.1:{free_port()}", "-o", tmp_path / "out")
    assert silent.returncode == 2 and "Start ComfyUI" in silent.stderr
    for bad in (("--in-flight", 0), ("--patience", "nan"), ("--names", "../{id}"), ("--server", "ftp://x")):
        assert command(workflow, manifest, *bad).returncode == 2
