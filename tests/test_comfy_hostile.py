"""Hostile requests to a running ComfyUI: each is answered in words, nothing outside is touched, and the server goes on.

`tests/hostile` has the requests; here they go to a server in a folder that nothing else uses.
"""

import pickle
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from hostile import judge, wires
from hostile.client import Client
from hostile.corpus import Case
from hostile.files import Trap, hostile_files
from hostile.run import Place, Report, chosen, deliver, messages, run, summary

from comfyui_flow3d.flow3d.errors import Flow3DError
from comfyui_flow3d.flow3d.paths import find_weight

ROOT = Path(__file__).resolve().parents[1]
GROWTH = 100e6  # bytes that 80 requests may leave behind when they are sent once more


@dataclass(frozen=True)
class Played:
    """What all requests came to."""

    place: Place
    report: Report
    again: list[int]  # bytes of the server, before and after a quarter of the files were sent a second time
    before: dict[str, str]
    after: dict[str, str]
    read: list[str]
    alive: bool
    log: str


@pytest.fixture(scope="module")
def played(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    pytest.importorskip("websocket", reason="websocket-client is not installed: use `python run.py test`")
    from comfy_server import Server

    place, scratch = Place(tmp_path_factory.mktemp("hostile")), tmp_path_factory.mktemp("scratch")
    (place.base / "custom_nodes").mkdir()
    shutil.copy(wires.__file__, place.base / "custom_nodes" / "hostile_wires.py")
    try:
        (place.base / "custom_nodes" / "flow3d").symlink_to(ROOT, target_is_directory=True)
        place.fill(scratch)
    except OSError as error:
        pytest.skip(f"this system makes no links ({error})")
    try:
        model = find_weight("face_landmarker.task")
        (place.base / "models" / "mediapipe").mkdir(parents=True)
        (place.base / "models" / "mediapipe" / model.name).symlink_to(model)
    except Flow3DError:
        pass  # then the answer is that it is missing, which is one as well
    files = list(hostile_files(place.trap, scratch, place.secret))
    launcher = ROOT / "scripts" / "launch_comfyui.py"
    with Server(sys.executable, launcher, comfyui, place.base) as server, Client(server.url) as client:
        deliver(client, files, place.base)
        cases = list(every_second(chosen(client, files, place, folders=True)))
        before = place.tree()
        place.forget_reading()
        report = run(client, cases, server.process.pid)
        read, after, memory = place.read(), place.tree(), psutil.Process(server.process.pid).memory_info
        again = [memory().rss]
        run(client, [c for c in cases if c.family == "files"][::4], None)
        again.append(memory().rss)
        yield Played(place, report, again, before, after, read, server.process.poll() is None, server.output())


def every_second(cases: list[Case]) -> Iterator[Case]:
    """All cases but every second of the two largest families, for time; the script sends all."""
    for i, case in enumerate(cases):
        if case.family not in ("inputs", "wires") or i % 2:
            yield case


def test_there_are_hundreds_of_requests(played: Played) -> None:
    cases = [o.case for o in played.report.outcomes]
    assert len({(c.family, c.name) for c in cases}) == len(cases) >= 500
    assert len({c.family for c in cases}) >= 12


def test_every_answer_is_the_right_one(played: Played) -> None:
    """Refused, failed with the node's own message, or harmless, as the corpus says."""
    assert not played.report.wrong, summary(played.report)


def test_the_server_goes_on(played: Played) -> None:
    """It lives, and after every family of requests it made the same picture as before the first."""
    assert not played.report.troubles and played.alive
    assert "Exception in thread" not in played.log


def test_no_code_in_a_file_runs(played: Played) -> None:
    assert played.place.trap.sprung() == []


def test_nothing_outside_is_touched(played: Played) -> None:
    """Files beside the server's folder are not read, and none is made, changed or removed but in output, temp and user."""
    assert played.after == played.before
    assert list(played.place.outside.iterdir()) == []
    assert played.read == []


def test_memory_does_not_grow_with_requests(played: Played) -> None:
    assert played.again[1] - played.again[0] < GROWTH
    assert max(played.report.memory) < 3e9


def test_messages_say_what_was_wrong(played: Played) -> None:
    """Hundreds of different faults are not told in a few general sentences."""
    told = {o.message for o in played.report.outcomes if o.case.path is None and o.message and not o.case.core}
    assert len(told) > 300, messages(played.report)[:2000]


# --- that these tests can fail ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("'NoneType' object has no attribute 'shape'", "tells of the inside"),
        ("FLAME Edit: mat1 and mat2 shapes cannot be multiplied (1x3 and 4x5). Use another.", "tells of the inside"),
        ("FLAME Edit: not usable (KeyError('faces')). Convert it.", "tells of the inside"),
        ("yaw is nan. Enter a number.", "does not begin"),
        ("FLAME Edit: yaw is nan.", "names no remedy"),
        ("FLAME Edit: '\x1b[2J' is no name. Choose another.", "control character"),
        ("FLAME Edit: Use " + "x" * 5000 + ".", "characters"),
        ("FLAME Edit: use a number from 1 to", "middle of a sentence"),
    ],
)
def test_the_judge_knows_a_bad_message(message: str, fault: str) -> None:
    assert any(fault in found for found in judge.faults(message, "FLAME Edit"))


def test_the_judge_knows_a_good_message() -> None:
    assert not judge.faults("FLAME Edit: 'yaw' is nan, not a finite number. Enter one from -60 to 60.", "FLAME Edit")


def test_the_trap_springs(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path).code("sprung"))).close()
    assert Trap(tmp_path).sprung() == ["sprung"]


def test_reading_and_writing_are_seen(tmp_path: Path) -> None:
    place = Place(tmp_path)
    (place.secret / "face.json").write_text("{}")
    before = place.tree()
    place.forget_reading()
    assert place.read() == []
    (place.secret / "face.json").read_text()
    if place.read() != ["face.json"]:
        pytest.skip("this file system writes down no time of access")
    (place.base / "models").mkdir()
    (place.base / "models" / "new").touch()
    (place.base / "output" / "allowed").touch()
    assert set(place.tree()) - set(before) == {"base/models/new"}
