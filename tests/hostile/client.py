"""A client of ComfyUI that sends what it is told to, right or wrong, and says what came back."""

import json
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from typing import Any

import websocket

ANSWER_LIMIT = 120.0  # seconds


@dataclass
class Answer:
    """What the server said to a request."""

    status: int
    body: Any  # of the reply: an object where it was JSON, else bytes
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def refused(self) -> dict[str, list[dict[str, Any]]] | None:
        """The errors by node, where the request was not queued."""
        if self.status == 200 or not isinstance(self.body, dict):
            return None
        return {node: told["errors"] for node, told in self.body.get("node_errors", {}).items()}

    @property
    def failed(self) -> dict[str, Any] | None:
        """What `execution_error` said."""
        return next((data for kind, data in self.events if kind == "execution_error"), None)

    @property
    def succeeded(self) -> bool:
        return any(kind == "execution_success" for kind, _ in self.events)

    def outputs(self) -> dict[str, dict[str, Any]]:
        """What nodes showed, by their id."""
        return {data["node"]: data["output"] for kind, data in self.events if kind == "executed" and data["output"]}


class Client:
    """One websocket for all requests. Use it as a context manager."""

    def __init__(self, url: str):
        self.url, self.name = url.rstrip("/"), uuid.uuid4().hex

    def __enter__(self) -> "Client":
        address = self.url.replace("http", "ws", 1) + f"/ws?clientId={self.name}"
        self._socket = websocket.create_connection(address, timeout=ANSWER_LIMIT)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(
        self, path: str, body: bytes | None = None, kind: str = "application/json", method: str | None = None
    ) -> Answer:
        """GET, or POST a body. The path goes out as it stands."""
        headers = {"Content-Type": kind} if body is not None else {}
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        start = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_LIMIT) as reply:
                status, data = reply.status, reply.read()
        except urllib.error.HTTPError as error:
            status, data = error.code, error.read()
        try:
            return Answer(status, json.loads(data), seconds=time.monotonic() - start)
        except ValueError:
            return Answer(status, data, seconds=time.monotonic() - start)

    def queue(self, prompt: Any) -> Answer:
        """POST a workflow; where it is queued, follow it to its end. Raises TimeoutError where there is none."""
        start = time.monotonic()
        answer = self.ask("/prompt", json.dumps({"prompt": prompt, "client_id": self.name}).encode())
        if answer.status != 200 or not isinstance(answer.body, dict) or "prompt_id" not in answer.body:
            return answer
        if answer.body.get(
            "node_errors"
        ):  # ComfyUI queues what is left of a workflow when one of its outputs is refused
            raise RuntimeError("a case has one output: a second one would hide what became of it")
        while time.monotonic() - start < ANSWER_LIMIT:
            try:
                message = self._socket.recv()
            except websocket.WebSocketException as error:
                raise TimeoutError(f"no word for {ANSWER_LIMIT:.0f} s ({error})") from error
            event = json.loads(message) if isinstance(message, str) else None
            if event is None or event["data"].get("prompt_id") != answer.body["prompt_id"]:
                continue
            answer.events.append((event["type"], event["data"]))
            if event["type"] in ("execution_success", "execution_error", "execution_interrupted"):
                answer.seconds = time.monotonic() - start
                return answer
        raise TimeoutError(f"no end after {ANSWER_LIMIT:.0f} s")

    def upload(self, name: str, data: bytes, folder: str) -> None:
        """Put a file into the input, output or temporary folder, or one below it, as the page does."""
        kind, _, below = folder.partition("/")
        mark, parts = uuid.uuid4().hex, []
        for field_name, value in (("type", kind), ("subfolder", below), ("overwrite", "true")):
            parts.append(f'--{mark}\r\nContent-Disposition: form-data; name="{field_name}"\r\n\r\n{value}\r\n'.encode())
        head = f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
        parts.append(head.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + data + b"\r\n")
        body = b"".join(parts) + f"--{mark}--\r\n".encode()
        answer = self.ask("/upload/image", body, f"multipart/form-data; boundary={mark}")
        if answer.status != 200:
            raise RuntimeError(f"{folder}/{name}: the server does not take it ({answer.status})")
