"""The doctor's findings, and downloads from a server of our own."""

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from comfyui_flow3d.flow3d import doctor
from comfyui_flow3d.flow3d.doctor import BAD, NOTE, OK, Row, doctor_report, download, download_weights, format_report
from comfyui_flow3d.flow3d.errors import Flow3DError, InputError
from comfyui_flow3d.flow3d.paths import WEIGHTS, Weight

ROOT = Path(__file__).resolve().parents[1]
CONTENT = bytes(range(256)) * 2_000
NAME = WEIGHTS[0].name


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and nothing else configured."""
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    for variable in ("FLOW3D_MODELS", "COMFYUI_PATH"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A web server: /good, /wrong, /short (ends early), /endless and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in ("/good", "/wrong", "/short", "/endless"):
                self.send_error(404)
                return
            self.send_response(200)
            if self.path != "/endless":
                self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            body = {"/good": CONTENT, "/wrong": CONTENT[::-1], "/short": CONTENT[:70_000]}.get(self.path, CONTENT * 20)
            try:
                self.wfile.write(body)
            except OSError:  # the client had enough
                pass

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def wanted(url: str) -> Weight:
    return Weight(NAME, url, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), "a licence", "a test")


def test_download(tmp_path: Path, address: str) -> None:
    seen: list[tuple[int, int]] = []
    target = tmp_path / "new" / NAME
    download(wanted(f"{address}/good"), target, lambda *now: seen.append(now))
    assert target.read_bytes() == CONTENT and [f.name for f in target.parent.iterdir()] == [NAME]
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and [d for d, _ in seen] == sorted({d for d, _ in seen})


@pytest.mark.parametrize("path", ["wrong", "short", "endless", "absent"])
def test_bad_downloads_leave_what_was_there(tmp_path: Path, address: str, path: str) -> None:
    target = tmp_path / NAME
    target.write_bytes(b"before")
    with pytest.raises(Flow3DError, match="by hand") as caught:
        download(wanted(f"{address}/{path}"), target)
    assert address in str(caught.value)
    assert [f.name for f in tmp_path.iterdir()] == [NAME] and target.read_bytes() == b"before"


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(Flow3DError, match="cannot be downloaded.*by hand"):
        download(wanted("http://127.0.0.1:1/x"), tmp_path / NAME)
    assert not list(tmp_path.iterdir())


def test_cancelled_download(tmp_path: Path, address: str) -> None:
    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(wanted(f"{address}/good"), tmp_path / NAME, cancel)
    assert not list(tmp_path.iterdir())


def test_unwritable_folder(tmp_path: Path, address: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="Cannot write"):
        download(wanted(f"{address}/good"), tmp_path / "file" / NAME)


def test_only_what_is_missing_is_fetched(
    home: Path, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "WEIGHTS", (wanted(f"{address}/good"),))
    cached = home / ".cache" / "flow3d" / NAME
    assert download_weights() == [cached] and cached.read_bytes() == CONTENT
    monkeypatch.setattr(doctor, "WEIGHTS", (wanted(f"{address}/absent"),))
    assert download_weights() == [cached]  # nothing is asked of the server
    cached.write_bytes(CONTENT[:-1])
    with pytest.raises(Flow3DError):
        download_weights()
    monkeypatch.setattr(doctor, "WEIGHTS", (wanted(f"{address}/good"),))
    assert download_weights() == [cached] and cached.read_bytes() == CONTENT  # damaged: replaced in its place
    assert download_weights([], tmp_path / "elsewhere") == [cached]
    cached.unlink()
    assert download_weights([], tmp_path / "elsewhere") == [tmp_path / "elsewhere" / NAME]


def rows_of(section: str, **given: object) -> dict[str, Row]:
    return {r.name: r for r in doctor_report(**given) if r.section == section}  # type: ignore[arg-type]


def test_packages_are_those_required(home: Path) -> None:
    """The doctor asks for what requirements.txt asks for, and reports the versions that are installed."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = dict(re.fullmatch(r"([\w-]+)(?:>=(.*))?", x).groups(default="") for x in lines if x and x[0] != "#")  # type: ignore[union-attr, misc]
    assert {d: floor for d, _, floor in doctor.PACKAGES if d != "torch"} == required
    rows = rows_of("Packages")
    for distribution, _, _ in doctor.PACKAGES:
        assert rows[distribution] == Row("Packages", distribution, OK, metadata.version(distribution))


def test_old_missing_and_broken_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = doctor._package_row("numpy", "numpy", "999.1")
    assert row.state == BAD and "too old" in row.detail and '"numpy>=999.1"' in row.remedy
    row = doctor._package_row("no-such-package", "nothing", "")
    assert row.state == BAD and row.detail == "not installed" and row.remedy == 'pip install "no-such-package"'
    (tmp_path / "breaks_at_import.py").write_text("raise OSError('DLL load failed')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    row = doctor._package_row("numpy", "breaks_at_import", "")
    assert row.state == BAD and "DLL load failed" in row.detail
    assert doctor._numbers("0.10.30") > doctor._numbers("0.10.4") and doctor._numbers("2.13.0+cu130") == (2, 13, 0)
    assert doctor._numbers("1.16.0rc1") == (1, 16, 0)


@pytest.mark.parametrize(
    ("owners", "state"),
    [([], BAD), (["opencv-contrib-python"], OK), (["opencv-contrib-python", "opencv-python-headless"], NOTE)],
)
def test_opencv_wheels_that_quarrel(owners: list[str], state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"cv2": owners * 2} if owners else {})
    monkeypatch.setattr(metadata, "version", lambda name: "5.0")
    row = doctor._opencv_row()
    assert row.state == state and all(f"{o} 5.0" in row.detail for o in owners)
    if state == NOTE:
        assert "pip uninstall -y opencv-contrib-python opencv-python-headless" in row.remedy


def test_weights(home: Path, tmp_path: Path) -> None:
    row = rows_of("Weights")[NAME]
    assert row.state == BAD and row.detail == "missing" and WEIGHTS[0].url in row.remedy
    (tmp_path / NAME).write_bytes(b"half a file")
    row = rows_of("Weights", extra_folders=[tmp_path])[NAME]
    assert row.state == BAD and "damaged" in row.detail and str(tmp_path) in row.detail


def test_weights_found(home: Path, face_landmarker: Path) -> None:
    row = rows_of("Weights", extra_folders=[face_landmarker.parent])[NAME]
    assert row.state == OK and str(face_landmarker) in row.detail and "Apache-2.0" in row.detail


def test_comfyui_and_its_heads(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ComfyUI with a usable head, a broken one and kept landmarks, which are no head."""
    from test_flame_files import flame_arrays

    assert rows_of("System")["ComfyUI"].state == NOTE
    folder = tmp_path / "ComfyUI"
    flame = folder / "models" / "flame"
    for made in (flame, folder / "comfy"):
        made.mkdir(parents=True)
    (folder / "main.py").touch()
    (folder / "comfyui_version.py").write_text('__version__ = "0.3.64"\n', encoding="utf-8")
    arrays = flame_arrays(200, 300, 310)
    np.savez(flame / "flame2023_Open.npz", **arrays)
    np.savez(flame / "broken.npz", **{k: v for k, v in arrays.items() if k != "f"})
    (flame / "x.landmarks.safetensors").write_bytes(b"")
    (flame / "readme.txt").touch()
    monkeypatch.setenv("COMFYUI_PATH", str(folder))
    assert rows_of("System")["ComfyUI"] == Row("System", "ComfyUI", OK, f"0.3.64 in {folder}")
    heads = rows_of("Head models")
    assert set(heads) == {"open", "flame2023_Open.npz", "broken.npz"}
    good = heads["flame2023_Open.npz"]
    assert good.state == OK and "200 vertices, 300 + 10 components" in good.detail and "CC-BY-4.0" in good.detail
    assert heads["broken.npz"].state == NOTE and "lacks f" in heads["broken.npz"].detail


def test_format() -> None:
    rows = [Row("A", "one", OK, "fine"), Row("A", "second", BAD, "gone", "get it"), Row("B", "c", NOTE, "odd")]
    text = format_report(rows)
    assert text.splitlines() == [
        "A",
        "     one     fine",
        "  !! second  gone",
        "             -> get it",
        "",
        "B",
        "   * c       odd",
        "",
        "To mend: 1 (marked !!).",
    ]
    assert format_report([replace(r, state=OK) for r in rows]).endswith("Everything needed is here.")
    text.encode("ascii")
