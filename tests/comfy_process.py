"""Tests that need `import comfy` run in one process of their own, where ComfyUI's folder comes first on the path.

A test function below `@in_comfyui` is called there, by its file and name, with its arguments pickled (paths, numbers,
strings: no fixtures that cannot be pickled). Helpers in its file run where the test runs. The process starts with the
first such test of a run and lives as long as pytest does.
"""

import atexit
import functools
import importlib.util
import inspect
import multiprocessing
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 600.0  # seconds for one test


def in_comfyui(test: Callable[..., None]) -> Callable[..., None]:
    """Decorator: the test runs in the process with ComfyUI; it is skipped where there is none."""

    @functools.wraps(test)
    def run(comfyui: Path, **arguments: Any) -> None:
        outcome, text = _process(comfyui).call(Path(inspect.getfile(test)), test.__name__, arguments)
        if outcome == "skipped":
            pytest.skip(text)
        if outcome == "failed":
            pytest.fail(f"in the process with ComfyUI:\n{text}", pytrace=False)

    wanted = inspect.signature(test).parameters
    if "comfyui" in wanted:
        raise TypeError(f"{test.__name__}: 'comfyui' is the process itself")
    first = inspect.Parameter("comfyui", inspect.Parameter.KEYWORD_ONLY)
    keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in wanted.values()]
    run.__signature__ = inspect.Signature([first, *keywords])  # type: ignore[attr-defined]
    return run


class _Process:
    def __init__(self, comfyui: Path):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, str(comfyui)), daemon=True)
        self.process.start()
        theirs.close()

    def call(self, file: Path, name: str, arguments: dict[str, Any]) -> tuple[str, str]:
        try:
            self.connection.send((str(file), name, arguments))
            if self.connection.poll(LIMIT):
                return self.connection.recv()
            text = f"no answer in {LIMIT:.0f} s"
        except (EOFError, OSError):
            text = "the process ended"
        self.stop()
        return "failed", f"{text} ({name})"

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        _process.cache_clear()


@functools.cache
def _process(comfyui: Path) -> _Process:
    started = _Process(comfyui)
    atexit.register(started.process.kill)
    return started


def _serve(connection: Connection, comfyui: str) -> None:
    """The other process: ComfyUI first on the path and on the CPU, this checkout's root off the path."""
    sys.path[:] = [comfyui, *(p for p in sys.path if p and Path(p).resolve() != ROOT)]
    sys.path.append(str(ROOT / "scripts"))
    from launch_comfyui import import_torchvision

    library = import_torchvision()  # noqa: F841 - alive as long as this process
    import comfy.cli_args
    import utils.extra_config  # noqa: F401 - as in main.py: ComfyUI's `nodes` puts a folder with another `utils` first

    comfy.cli_args.args.cpu = True
    while True:
        try:
            file, name, arguments = connection.recv()
        except EOFError:
            return
        connection.send(_outcome(file, name, arguments))


def _outcome(file: str, name: str, arguments: dict[str, Any]) -> tuple[str, str]:
    try:
        inspect.unwrap(getattr(_module(file), name))(**arguments)
    except pytest.skip.Exception as skipped:
        return "skipped", str(skipped)
    except BaseException:
        return "failed", traceback.format_exc()
    return "passed", ""


@functools.cache
def _module(file: str) -> Any:
    if str(Path(file).parent) not in sys.path:
        sys.path.append(str(Path(file).parent))
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
