"""Send the corpus to a server and say what is wrong with its answers."""

import argparse
import hashlib
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from safetensors.torch import save_file

from .client import Answer, Client
from .corpus import ANY, DOOR, ERROR, FINE, GOOD, LINKS, WIRE, Case, corpus
from .files import HostileFile, Trap, hostile_files, track_bytes, video
from .judge import faults

SLOWEST = 20.0  # seconds that an answer may take
_FREE = {"output", "temp", "user"}
"""Folders that a server may write into."""
_OWN = ("server.log", "comfyui.db")


@dataclass(frozen=True)
class Outcome:
    case: Case
    answer: Answer | None  # None: the server gave none
    faults: tuple[str, ...]

    @property
    def message(self) -> str:
        """What the user is told."""
        if self.answer is None:
            return ""
        if self.answer.failed:
            return str(self.answer.failed["exception_message"]).strip()
        told = [e for errors in (self.answer.refused or {}).values() for e in errors]
        return "; ".join(f"{e['message']}: {e['details']}" for e in told) or str(self.answer.body)


@dataclass
class Report:
    outcomes: list[Outcome] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)  # with the server, not with one answer
    memory: list[int] = field(default_factory=list)  # bytes, after each block
    skipped: int = 0

    @property
    def wrong(self) -> list[Outcome]:
        return [o for o in self.outcomes if o.faults]


class Place:
    """The folders around a server's base directory that a test has for itself.

    `base` is the server's; `secret` and `outside` lie beside it: nothing may be read from the one or written to the other.
    """

    def __init__(self, folder: Path):
        self.folder, self.base = folder, folder / "base"
        self.secret, self.outside, self.trap = folder / "secret", folder / "outside", Trap(folder / "trap")
        for made in (self.base, self.secret, self.outside, self.trap.folder, self.base / "input", self.base / "output"):
            made.mkdir(parents=True, exist_ok=True)

    def fill(self, scratch: Path) -> None:
        """Files in the secret folder that every loader would take, and links into it and out of the output folder."""
        (self.secret / "good.safetensors").write_bytes(track_bytes(scratch))
        np.savez(self.secret / "flame.npz", exp=np.zeros((1, 50)), pose=np.zeros((1, 6)), shape=np.zeros((1, 100)))
        save_file({"a": torch.zeros(3)}, self.secret / "w.safetensors")
        (self.secret / "face.json").write_text('{"points": []}')
        video(self.secret / "clip.ts", frames=60, side=256)
        for name, target in (("link", self.secret), ("link-good.safetensors", self.secret / "good.safetensors"),
                             ("link-face.json", self.secret / "face.json")):  # fmt: skip
            (self.base / "input" / name).symlink_to(target)
        (self.base / "output" / "link").symlink_to(self.outside)

    def forget_reading(self) -> None:
        """Set the time of last access of the secret files to long ago, where the system writes it down."""
        for path in self.secret.iterdir():
            os.utime(path, (0, path.stat().st_mtime))

    def read(self) -> list[str]:
        """The secret files that somebody has read since."""
        return sorted(p.name for p in self.secret.iterdir() if p.stat().st_atime)

    def tree(self) -> dict[str, str]:
        """A digest of every file and link but those that the server may write."""
        found = {}
        for path in sorted(_walk(self.folder)):
            inner = path.relative_to(self.base).parts if path.is_relative_to(self.base) else ("",)
            if inner[0] in _FREE or inner[0].startswith(_OWN):
                continue
            found[path.relative_to(self.folder).as_posix()] = (
                os.readlink(path) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
            )
        return found


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if f != "__pycache__"]
        yield from (Path(root) / name for name in files)
        yield from (Path(root) / name for name in folders if (Path(root) / name).is_symlink())


def deliver(client: Client, files: Sequence[HostileFile], base: Path | None) -> None:
    """Upload what the server takes from anybody; put the rest into its models folders where `base` is known."""
    for file in files:
        if not file.folder.startswith("models/"):
            client.upload(file.name, file.data, file.folder)
        elif base is not None:
            path = base / file.folder / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.data)


class GoodJob:
    """A small animation that has to come out the same as the first time."""

    def __init__(self, client: Client):
        self.client, self.first = client, None

    def __call__(self) -> str:
        """Empty, or what is wrong."""
        nodes = {
            **{k: v for k, v in LINKS.items() if v["class_type"] != WIRE},
            "warp": {"class_type": "Flow3DFlowWarpPreview", "inputs": GOOD["Flow3DFlowWarpPreview"]},
        }
        nodes["show"] = {"class_type": "PreviewImage", "inputs": {"images": ["warp", 0]}}
        answer = self.client.queue(nodes)
        if not answer.succeeded:
            return f"the good job failed: {answer.failed or answer.body}"
        shown = answer.outputs()["show"]["images"][-1]
        query = "&".join(f"{k}={shown[k]}" for k in ("filename", "subfolder", "type"))
        picture = self.client.ask(f"/view?{query}").body
        made = hashlib.sha256(_pixels(picture)).hexdigest()
        self.first = self.first or made
        return "" if made == self.first else "the good job's picture is another than at first"


def _pixels(png: bytes) -> bytes:
    import io

    return Image.open(io.BytesIO(png)).convert("RGB").tobytes()


def run(client: Client, cases: Sequence[Case], pid: int | None, told: Callable[[str], None] = print) -> Report:
    """Send all cases, family after family; after each the server has to do a good job."""
    report, job = Report(), GoodJob(client)
    names = {k: v["display_name"] for k, v in client.ask("/object_info").body.items()}
    if trouble := job():
        raise RuntimeError(f"before the first hostile request {trouble}")
    for family, group in itertools.groupby(cases, lambda case: case.family):
        start, count = time.monotonic(), 0
        for case in group:
            outcome = attempt(client, case, names)
            report.outcomes.append(outcome)
            count += 1
            if outcome.answer is None:
                report.troubles.append(f"{family}: {case.name}: no answer")
                return report
        if trouble := job():
            report.troubles.append(f"after {family}: {trouble}")
        if pid:
            report.memory.append(psutil.Process(pid).memory_info().rss)
        told(
            f"{family}: {count} requests, {time.monotonic() - start:.1f} s"
            + (f", {report.memory[-1] / 1e6:.0f} MB" if pid else "")
        )
    return report


def attempt(client: Client, case: Case, names: dict[str, str]) -> Outcome:
    try:
        if case.path is not None:
            answer = client.ask(case.path, case.body)
        else:
            answer = client.queue(case.body)
    except (OSError, TimeoutError) as error:
        return Outcome(case, None, (f"no answer ({error})",))
    wrong = _wrong_route(case, answer) if case.path is not None else _wrong(case, answer, names)
    if answer.seconds > SLOWEST:
        wrong.append(f"took {answer.seconds:.0f} s")
    return Outcome(case, answer, tuple(wrong))


def _wrong_route(case: Case, answer: Answer) -> list[str]:
    if case.expect == FINE:
        return [] if answer.status == 200 else [f"answered {answer.status}"]
    if case.core:  # ComfyUI's own address: that it goes on is all that is asked
        return [] if answer.status >= 400 else [f"answered {answer.status}"]
    return [] if answer.status in (400, 404, 405) else [f"answered {answer.status}"]


def _wrong(case: Case, answer: Answer, names: dict[str, str]) -> list[str]:
    got = (
        DOOR
        if answer.refused is not None
        else ERROR
        if answer.failed
        else FINE
        if answer.succeeded
        else f"HTTP {answer.status}"
    )
    if got != case.expect and not (case.expect == ANY and got in (ERROR, FINE)):
        return [f"{got}, not {case.expect}"]
    if got == FINE or case.core:
        return []
    if got == DOOR:
        assert answer.refused is not None
        if case.node not in answer.refused:
            return [f"refused for {list(answer.refused)}, not for {case.node}"]
        return [
            w for e in answer.refused[case.node] for w in _wrong_refusal(e, names[case.body[case.node]["class_type"]])
        ]
    assert answer.failed is not None
    node, message = answer.failed["node_id"], answer.failed["exception_message"].strip()
    if case.node not in ("*", node):
        return [f"node {node} failed, not {case.node}"]
    wrong = faults(message, names[answer.failed["node_type"]])
    return wrong + [f"does not say '{text}'" for text in case.says if text not in message]


def _wrong_refusal(error: dict[str, Any], node: str) -> list[str]:
    """A refusal that our own check gave: its words stand behind the input's name."""
    if error["type"] != "custom_validation_failed":
        return [f"refused by ComfyUI: {error['type']}: {error['details'][:200]}"]
    return faults(error["details"].partition(" - ")[2], node)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--server", required=True, help="address, such as http://127.0.0.1:8188; it is not left as it was"
    )
    parser.add_argument("--base", type=Path, help="the server's base directory, for files in its models folders")
    parser.add_argument("--pid", type=int, help="the server's process, to watch its memory")
    parser.add_argument("--family", help="only this family of requests")
    parser.add_argument("--messages", type=Path, help="write every distinct message to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Client(options.server) as client:
        place = Place(Path(folder))
        (scratch := Path(folder) / "scratch").mkdir()
        files = list(hostile_files(place.trap, scratch, place.secret))
        deliver(client, files, options.base)
        report = run(client, chosen(client, files, place, options.base is not None, options.family), options.pid)
        report.troubles += [f"code in a file ran: {name}" for name in place.trap.sprung()]
    if options.messages:
        options.messages.write_text(messages(report), encoding="utf-8")
    print(summary(report))
    return 1 if report.wrong or report.troubles else 0


def chosen(
    client: Client, files: Sequence[HostileFile], place: Place, folders: bool, family: str | None = None
) -> list[Case]:
    """The cases that this server can be asked: those with its files, and with the node of `wires.py` where it has that."""
    info = client.ask("/object_info").body
    cases = corpus(info, list(files), str(place.secret))
    able = [c for c in cases if (folders or not c.folders) and (not c.wires or WIRE in info)]
    return [c for c in able if family in (None, c.family)]


def summary(report: Report) -> str:
    lines = [f"{o.case.family}: {o.case.name}: {'; '.join(o.faults)}\n    {o.message[:500]!r}" for o in report.wrong]
    lines += report.troubles
    return "\n".join(
        [
            *lines,
            f"{len(report.outcomes)} requests, {len(report.wrong)} answered wrongly, {len(report.troubles)} troubles",
        ]
    )


def messages(report: Report) -> str:
    """Every distinct message with the first case that gave it."""
    first: dict[str, str] = {}
    for o in report.outcomes:
        if o.message and not o.case.core:
            first.setdefault(o.message, f"{o.case.family}: {o.case.name}")
    return "\n".join(f"[{case}]\n{message}\n" for message, case in first.items())


if __name__ == "__main__":
    sys.exit(main())
