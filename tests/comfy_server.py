"""A ComfyUI server in a process of its own, driven as a client drives it: by HTTP and by its websocket."""

import json
import mimetypes
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websocket

START_LIMIT, RUN_LIMIT = 240.0, 300.0  # seconds
TEXT = (3).to_bytes(4, "big")  # BinaryEventTypes.TEXT of ComfyUI's protocol.py: what a node says


@dataclass
class Run:
    """What the websocket told of one queued workflow."""

    prompt_id: str
    events: list[tuple[str, dict]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)  # that nodes showed while they ran

    def data(self, kind: str) -> list[dict]:
        return [data for name, data in self.events if name == kind]

    @property
    def error(self) -> str | None:
        errors = self.data("execution_error")
        return errors[0]["exception_message"].strip() if errors else None


class Refused(Exception):
    """The server did not queue a workflow; `reply` is its answer."""

    def __init__(self, reply: dict):
        super().__init__(json.dumps(reply)[:2000])
        self.reply = reply


class Server:
    def __init__(self, python: str, launcher: Path, comfyui: Path, base: Path):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.base, self.url = base, f"http://127.0.0.1:{self.port}"
        self.log = base / "server.log"
        self.command = [
            python, str(launcher), str(comfyui), "--cpu", "--port", str(self.port), "--base-directory", str(base),
            "--database-url", f"sqlite:///{(base / 'comfyui.db').as_posix()}", "--disable-auto-launch", "--disable-api-nodes",
        ]  # fmt: skip

    def __enter__(self) -> "Server":
        # FLOW3D_MODELS is emptied: the weights must be found in ComfyUI's own models folder.
        env = {**os.environ, "FLOW3D_MODELS": "", "PYTHONUNBUFFERED": "1"}
        self._file = self.log.open("wb")
        self.process = subprocess.Popen(self.command, cwd=self.base, env=env, stdout=self._file, stderr=subprocess.STDOUT)
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._file.close()

    def _wait(self) -> None:
        end = time.monotonic() + START_LIMIT
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI stopped with {self.process.returncode}:\n{self.output()[-3000:]}")
            try:
                self.get("/system_stats")
                return
            except OSError:
                time.sleep(0.5)
        raise RuntimeError(f"ComfyUI did not answer in {START_LIMIT:.0f} s:\n{self.output()[-3000:]}")

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def raw(self, path: str, data: bytes | None = None, kind: str = "application/json") -> bytes:
        request = urllib.request.Request(self.url + path, data, {"Content-Type": kind} if data is not None else {})
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.read()

    def get(self, path: str) -> Any:
        return json.loads(self.raw(path))

    def post(self, path: str, body: dict) -> Any:
        try:
            return json.loads(self.raw(path, json.dumps(body).encode()) or b"null")
        except urllib.error.HTTPError as error:
            raise Refused(json.loads(error.read() or b"{}")) from error

    def upload(self, file: Path) -> str:
        """Put a picture or a video into ComfyUI's input folder as the page does; returns its name there."""
        mark = uuid.uuid4().hex
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        head = f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="{file.name}"\r\nContent-Type: {kind}\r\n\r\n'
        body = head.encode() + file.read_bytes() + f"\r\n--{mark}--\r\n".encode()
        return json.loads(self.raw("/upload/image", body, f"multipart/form-data; boundary={mark}"))["name"]

    def run(self, workflow: dict, watch: Callable[[str, dict], None] | None = None) -> Run:
        """Queue a workflow in the API's form and follow it to its end. Raises Refused where the server rejects it."""
        client = uuid.uuid4().hex
        socket = websocket.create_connection(f"ws://127.0.0.1:{self.port}/ws?clientId={client}", timeout=RUN_LIMIT)
        try:
            reply = self.post("/prompt", {"prompt": workflow, "client_id": client})
            if reply.get("node_errors"):
                raise Refused(reply)
            run = Run(reply["prompt_id"])
            while True:
                message = socket.recv()
                if not isinstance(message, str):
                    if message[:4] == TEXT:  # and else a preview picture
                        run.texts.append(message[8 + int.from_bytes(message[4:8], "big") :].decode())
                    continue
                event = json.loads(message)
                if event["data"].get("prompt_id") != run.prompt_id:
                    continue
                run.events.append((event["type"], event["data"]))
                if watch:
                    watch(*run.events[-1])
                if event["type"] in ("execution_success", "execution_error", "execution_interrupted"):
                    return run
        finally:
            socket.close()

    def failure(self, workflow: dict) -> str:
        """Why a workflow did not succeed: refused at the door, in the words of the check, or failed in a node."""
        try:
            return self.run(workflow).error or ""
        except Refused as refused:
            errors = [e for node in refused.reply["node_errors"].values() for e in node["errors"]]
            own = [e["details"].partition(" - ")[2] for e in errors if e["type"] == "custom_validation_failed"]
            return own[0] if own else json.dumps(refused.reply)

    def outputs(self, run: Run) -> dict[str, dict]:
        """What the nodes of a finished run showed, by node id. The server writes it down just after it says so."""
        for _ in range(100):
            told = self.get(f"/history/{run.prompt_id}")
            if run.prompt_id in told:
                return told[run.prompt_id]["outputs"]
            time.sleep(0.1)
        raise RuntimeError(f"the server remembers nothing of run {run.prompt_id}")
