"""A small HTTP server that speaks ComfyUI's API and misbehaves on demand. It stands for the faults of a real one."""

import asyncio
import hashlib
import json
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

PAINT = {
    "Paint": {
        "input": {
            "required": {
                "color": ["INT", {"min": 0, "max": 1000}],
                "gain": ["FLOAT", {"min": -1.0, "max": 1.0}],
                "mode": [["plain", "bold"]],
                "image": [["there.png"], {"image_upload": True}],
                "on": ["BOOLEAN", {}],
                "text": ["STRING", {}],
            },
            "optional": {"model": ["MODEL", {}]},
        },
        "display_name": "Paint It",
        "output_node": True,
    }
}
INPUTS = {"color": 0, "gain": 0.5, "mode": "plain", "image": "there.png", "on": True, "text": ""}
PROMPT = {"1": {"class_type": "Paint", "inputs": INPUTS}}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def picture(color: int) -> bytes:
    """What a job of this colour saves."""
    return hashlib.sha256(str(color).encode()).digest() * 100


@dataclass
class Toy:
    """Runs prompts one after another. Its faults are attributes; `ran` counts what it ran, by colour."""

    seconds: float = 0.01
    port: int = field(default_factory=free_port)
    ran: Counter[int] = field(default_factory=Counter)
    failing: dict[int, int] = field(default_factory=dict)
    """How many more times a colour's node raises."""
    half_valid: set[int] = field(default_factory=set)
    """Colours answered by status 200 with node errors, and queued all the same."""
    invalid: set[int] = field(default_factory=set)
    swallowed: int = 0
    """So many more answers to POST /prompt are lost after the prompt was queued."""
    torn: int = 0
    """So many more downloads end in their middle."""
    own_ids: bool = False
    sockets_work: bool = True
    name: str = "paint_{color}.png"
    subfolder: str = ""
    busy: int = 0
    """So many more questions after the history are answered by status 503."""
    dropped: list[str] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "Toy":
        self.queue: list[tuple[str, dict, str]] = []
        self.history: dict[str, Any] = {}
        self.listeners: dict[str, web.WebSocketResponse] = {}
        app = web.Application()
        app.add_routes(
            [
                web.get("/prompt", self._status), web.post("/prompt", self._prompt), web.get("/ws", self._ws),
                web.get("/history/{id}", self._history), web.get("/queue", self._queue), web.post("/queue", self._delete),
                web.post("/interrupt", self._ok), web.get("/view", self._view), web.post("/upload/image", self._upload),
                web.get("/object_info/{name}", self._info),
            ]
        )  # fmt: skip
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port).start()
        self.worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Dies; `async with` on the same object again is a restart, which remembers no prompt."""
        self.worker.cancel()
        for listener in self.listeners.values():
            await listener.close()
        await self.runner.cleanup()

    async def _work(self) -> None:
        while True:
            if not self.queue:
                await asyncio.sleep(0.002)
                continue
            prompt_id, prompt, client = self.queue[0]
            color = prompt["1"]["inputs"]["color"]
            await self._tell(client, "execution_start", {"prompt_id": prompt_id})
            await asyncio.sleep(self.seconds)
            self.ran[color] += 1
            if self.failing.get(color, 0) > 0:
                self.failing[color] -= 1
                error = {"node_id": "1", "node_type": "Paint", "exception_message": f"no paint for {color}\n"}
                entry = {"status": {"status_str": "error", "messages": [["execution_error", error]]}, "outputs": {}}
            else:
                file = {"filename": self.name.format(color=color), "subfolder": self.subfolder, "type": "output"}
                preview = {"filename": "p.png", "subfolder": "", "type": "temp"}
                entry = {"status": {"status_str": "success", "messages": []}, "outputs": {"1": {"images": [file, preview]}}}
                self.files = getattr(self, "files", {}) | {file["filename"]: picture(color)}
            self.history[prompt_id] = entry
            self.queue = [job for job in self.queue if job[0] != prompt_id]
            await self._tell(client, "executing", {"node": None, "prompt_id": prompt_id})

    async def _tell(self, client: str, kind: str, data: dict) -> None:
        if client in self.listeners and not self.listeners[client].closed:
            await self.listeners[client].send_json({"type": kind, "data": data})

    async def _ok(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _status(self, _: web.Request) -> web.Response:
        return web.json_response({"exec_info": {"queue_remaining": len(self.queue)}})

    async def _info(self, request: web.Request) -> web.Response:
        return web.json_response({k: v for k, v in PAINT.items() if k == request.match_info["name"]})

    async def _prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        prompt_id = "chosen-here-" + body["prompt_id"] if self.own_ids else body["prompt_id"]
        color = body["prompt"]["1"]["inputs"]["color"]
        told = {"1": {"class_type": "Paint", "errors": [{"message": "Value not in list", "details": f"color: {color}"}]}}
        if color in self.invalid:
            return web.json_response({"error": {"message": "Prompt outputs failed validation"}, "node_errors": told}, status=400)
        self.queue.append((prompt_id, body["prompt"], body.get("client_id", "")))
        if self.swallowed > 0:
            self.swallowed -= 1
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"prompt_id": prompt_id, "node_errors": told if color in self.half_valid else {}})

    async def _history(self, request: web.Request) -> web.Response:
        if self.busy > 0:
            self.busy -= 1
            return web.Response(status=503)
        prompt_id = request.match_info["id"]
        return web.json_response({prompt_id: self.history[prompt_id]} if prompt_id in self.history else {})

    async def _queue(self, _: web.Request) -> web.Response:
        jobs = [[i, prompt_id, prompt] for i, (prompt_id, prompt, _) in enumerate(self.queue)]
        return web.json_response({"queue_running": jobs[:1], "queue_pending": jobs[1:]})

    async def _delete(self, request: web.Request) -> web.Response:
        gone = (await request.json())["delete"]
        self.dropped += gone
        self.queue = [job for job in self.queue if job[0] not in gone]
        return web.Response()

    async def _view(self, request: web.Request) -> web.StreamResponse:
        data = self.files.get(request.query["filename"])
        if data is None:
            return web.Response(status=404)
        if self.torn > 0:
            self.torn -= 1
            answer = web.StreamResponse(headers={"Content-Length": str(len(data))})
            await answer.prepare(request)
            await answer.write(data[:100])
            assert request.transport is not None
            request.transport.close()
            return answer
        return web.Response(body=data)

    async def _upload(self, request: web.Request) -> web.Response:
        file = (await request.post())["image"]
        assert isinstance(file, web.FileField)
        self.uploads[file.filename] = file.file.read()
        return web.json_response({"name": file.filename, "subfolder": "", "type": "input"})

    async def _ws(self, request: web.Request) -> web.StreamResponse:
        if not self.sockets_work:
            return web.Response(status=400)
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        self.listeners[request.query["clientId"]] = ws
        await ws.send_str(json.dumps({"type": "status", "data": {}}))
        await ws.send_bytes(b"\0\0\0\1preview")
        async for message in ws:
            if message.type is WSMsgType.ERROR:
                break
        return ws
