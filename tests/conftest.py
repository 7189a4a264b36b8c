"""What several tests share: data that lies outside the repository, the open head, and a running ComfyUI."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from comfyui_flow3d.flow3d.errors import Flow3DError
from comfyui_flow3d.flow3d.head.model import HeadModel
from comfyui_flow3d.flow3d.paths import find_weight

if TYPE_CHECKING:
    from .comfy_server import Server

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of portraits and clips; tests that need it are skipped where it is absent."""
    folder = os.environ.get("FLOW3D_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("FLOW3D_TEST_DATA names no folder of portraits (sources/) and clips (drivers/)")
    return Path(folder)


@pytest.fixture(scope="session")
def face_landmarker() -> Path:
    """MediaPipe's landmarker file; tests that need it are skipped where it is absent."""
    try:
        return find_weight("face_landmarker.task")
    except Flow3DError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def open_head() -> HeadModel:
    from comfyui_flow3d.flow3d.head.load import load_head

    return load_head("open")


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """ComfyUI's folder, named by COMFYUI_PATH; tests that need it are skipped where it cannot run here."""
    folder = os.environ.get("COMFYUI_PATH")
    if not folder or not (Path(folder) / "main.py").is_file():
        pytest.skip("no ComfyUI: `python run.py test` sets COMFYUI_PATH where it finds one")
    missing = [m for m in ("aiohttp", "torchvision", "comfyui_frontend_package") if importlib.util.find_spec(m) is None]
    if missing:
        pytest.skip(f"ComfyUI's requirements are not installed here ({', '.join(missing)}): use `python run.py test`")
    return Path(folder)


@pytest.fixture(scope="session")
def server(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Server]":
    """A running ComfyUI with this checkout linked in, in a folder of its own."""
    pytest.importorskip("websocket", reason="websocket-client is not installed: use `python run.py test`")
    from comfy_server import Server

    base = tmp_path_factory.mktemp("comfyui")
    (base / "custom_nodes").mkdir()
    try:
        (base / "custom_nodes" / "flow3d").symlink_to(ROOT, target_is_directory=True)
    except OSError as error:
        pytest.skip(f"this system makes no links ({error})")
    try:
        model = find_weight("face_landmarker.task")
        (base / "models" / "mediapipe").mkdir(parents=True)
        (base / "models" / "mediapipe" / model.name).symlink_to(model)
    except Flow3DError:
        pass  # the tests that need it ask for `face_landmarker` and are skipped
    with Server(sys.executable, ROOT / "scripts" / "launch_comfyui.py", comfyui, base) as running:
        yield running
