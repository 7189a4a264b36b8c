"""A ComfyUI of its own and its client, as a Ray actor on some machine of a cluster."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..run import find_comfyui, own_python
from .client import HttpClient
from .reply import Finished, SavedFile
from .workflow import NodeInfo, Prompt

_START_LIMIT = 900.0  # seconds: packs on a network drive load slowly
_LAUNCHER = Path(__file__).resolve().parents[1] / "scripts" / "launch_comfyui.py"
_KEEPER = Path(__file__).with_name("keeper.py")
_PATIENCE = 60.0


@dataclass(frozen=True)
class Start:
    """How a ComfyUI is started. comfyui: its folder; None: $COMFYUI_PATH or ~/comfy/ComfyUI, on the machine where it runs."""

    comfyui: str | None
    arguments: tuple[str, ...]
    cores: int | None
    """Cores of the CPU that each one gets; None: a GPU."""

    def command(self, base: Path, port: int) -> list[str]:
        """Models and packs are those of the ComfyUI folder; all that it writes goes to `base`."""
        folder = Path(self.comfyui).expanduser() if self.comfyui else find_comfyui()
        if folder is None or not (folder / "main.py").is_file():
            raise RuntimeError(f"no ComfyUI in {folder or '~/comfy/ComfyUI'} on {socket.gethostname()}; name its folder with --comfyui")
        python = str(own_python(folder) or sys.executable)
        script = [str(_LAUNCHER), str(folder)] if _LAUNCHER.is_file() else [str(folder / "main.py")]
        folders = []
        for name in ("input", "output", "temp", "user"):
            (base / name).mkdir()
            folders += [f"--{name}-directory", str(base / name)]
        database = f"sqlite:///{(base / 'comfyui.db').as_posix()}"
        device = [] if self.cores is None else ["--cpu"]
        command = [python, str(_KEEPER), str(base), *script, "--port", str(port), "--listen", "127.0.0.1", "--disable-auto-launch", "--database-url", database]
        return [*command, *folders, *device, *self.arguments]


class Worker:
    """Its constructor returns when ComfyUI answers. Where ComfyUI dies, so does the actor, and Ray makes another."""

    def __init__(self, start: Start):
        self._stopping = False
        self._base = base = Path(tempfile.mkdtemp(prefix="flow3d-worker-"))
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self._log = base / "comfyui.log"
        env = {**os.environ, **({} if start.cores is None else {"OMP_NUM_THREADS": str(start.cores)})}
        command = start.command(base, port)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=base, env=env)
        self._wait(f"http://127.0.0.1:{port}/prompt")
        self._client = HttpClient(f"http://127.0.0.1:{port}", _PATIENCE)
        threading.Thread(target=self._die_with_it, daemon=True).start()

    def _wait(self, url: str) -> None:
        end, said = time.monotonic() + _START_LIMIT, ""
        while time.monotonic() < end:
            said = self._log.read_text(encoding="utf-8", errors="replace")[-2000:] if self._log.is_file() else said
            if self._process.poll() is not None:
                break
            try:
                urllib.request.urlopen(url, timeout=10).close()
                return
            except OSError:
                time.sleep(0.5)
        raise RuntimeError(f"ComfyUI did not start on {socket.gethostname()}: {said}")

    def _die_with_it(self) -> None:
        self._process.wait()
        if not self._stopping:
            os._exit(1)

    def stop(self) -> None:
        """End ComfyUI and remove what it wrote."""
        self._stopping = True
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._base, ignore_errors=True)

    async def ping(self) -> None:
        await self._client.ping()

    async def node_info(self, classes: list[str]) -> NodeInfo:
        return await self._client.node_info(classes)

    async def send(self, name: str, data: bytes) -> str:
        return await self._client.send(name, data)

    async def submit(self, prompt_id: str, prompt: Prompt) -> str:
        return await self._client.submit(prompt_id, prompt)

    async def look(self, prompt_id: str) -> Finished | bool:
        return await self._client.look(prompt_id)

    async def drop(self, prompt_id: str) -> None:
        await self._client.drop(prompt_id)

    async def read(self, file: SavedFile) -> AsyncIterator[bytes]:
        async for chunk in self._client.read(file):
            yield chunk

    async def listen(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """What the websocket tells, until it ends."""
        told: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        ear = asyncio.ensure_future(self._client.listen(lambda kind, data: told.put_nowait((kind, data))))
        try:
            while not (ear.done() and told.empty()):
                event = asyncio.ensure_future(told.get())
                await asyncio.wait((event, ear), return_when=asyncio.FIRST_COMPLETED)
                if event.done():
                    yield event.result()
                else:
                    event.cancel()
        finally:
            ear.cancel()
