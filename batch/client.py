"""One ComfyUI server as a client sees it: over HTTP and its websocket."""

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Protocol
from urllib.parse import quote
from uuid import uuid4

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, wait_random_exponential
from yarl import URL

from ..flow3d.errors import Flow3DError, InputError
from .reply import Finished, Refusal, SavedFile, finished_of, refusal_of
from .workflow import NodeInfo, Prompt

Listener = Callable[[str, dict[str, Any]], None]
"""Called with an event's type and data."""


class Unreachable(Flow3DError):
    """The server does not answer now. It may still be working."""


class Gone(Unreachable):
    """The server is gone with all its jobs."""


class Client(Protocol):
    """What the scheduler needs of a server. Each method raises Unreachable."""

    name: str
    """Distinct among servers, and the same again when a stopped batch goes on."""

    async def ping(self) -> None:
        """Returns where the server answers."""

    async def node_info(self, classes: list[str]) -> NodeInfo:
        """What /object_info says of these classes; unknown ones are left out."""
        ...

    async def upload(self, path: Path) -> str:
        """Put a file into the server's input folder; returns its name there. Raises OSError where it cannot be read."""

    async def submit(self, prompt_id: str, prompt: Prompt) -> str:
        """Queue a prompt under this id; returns the id it got. Raises Refusal."""

    async def look(self, prompt_id: str) -> Finished | bool:
        """How it ended; True while it waits or runs, False where the server knows nothing of it."""

    async def drop(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, or stop it."""

    def read(self, file: SavedFile) -> AsyncIterator[bytes]: ...

    async def listen(self, tell: Listener) -> None:
        """Tell what the server reports of this client's prompts, until the connection ends."""

    async def close(self) -> None: ...


_TRANSIENT = (502, 503, 504)  # a proxy before a server that is starting
_FAULTS = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, asyncio.TimeoutError, ConnectionError)


@dataclass
class HttpClient:
    """A ComfyUI server at an address such as http://192.168.0.7:8188, with `user:password@` where a proxy asks for it."""

    url: str
    patience: float
    """Seconds for which the server is asked again about a prompt that it has."""

    def __post_init__(self) -> None:
        try:
            address = URL(self.url if "://" in self.url else f"http://{self.url}")
            _ = address.port
        except ValueError as error:
            raise InputError(f"'{self.url}' is no server's address ({error}). It looks like http://127.0.0.1:8188.") from error
        if address.scheme not in ("http", "https") or not address.host:
            raise InputError(f"'{self.url}' is no server's address. It looks like http://127.0.0.1:8188.")
        self.base = str(address.with_query(None).with_fragment(None)).rstrip("/")
        self.name = str(address.with_user(None).with_query(None).with_fragment(None)).rstrip("/")
        self.id = uuid4().hex
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:  # it must be made where the event loop runs
            timeout = aiohttp.ClientTimeout(total=None, connect=20, sock_read=60)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=16))
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _once(self, method: str, path: str, **body: Any) -> tuple[int, Any]:
        """Status and answer. Raises one of _FAULTS."""
        async with self.session.request(method, self._url(path), allow_redirects=False, **body) as reply:
            if reply.status in _TRANSIENT:
                raise ConnectionError(f"status {reply.status}")
            return reply.status, _parsed(await reply.read())

    async def _asked(self, path: str, patience: float) -> dict[str, Any]:
        """An answer that is JSON, asked for again and again until `patience` is over. Anything else counts as no answer."""
        async for attempt in self._attempts(patience):
            with attempt:
                status, told = await self._once("GET", path)
                if status != 200 or not isinstance(told, dict):
                    raise ConnectionError(f"status {status}")
                return told
        raise AssertionError  # tenacity ends with a result or an exception

    async def _told(self, method: str, path: str, **body: Any) -> tuple[int, Any]:
        """As `_once`, but raises Unreachable."""
        try:
            return await self._once(method, path, **body)
        except _FAULTS as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: BaseException | None) -> Unreachable:
        return Unreachable(f"{self.name} does not answer ({str(error) or type(error).__name__})")

    def _url(self, path: str) -> URL:
        return URL(self.base + path, encoded=True)

    def _attempts(self, patience: float) -> AsyncRetrying:
        def give_up(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            raise self._unreachable(error) from error

        return AsyncRetrying(
            retry=retry_if_exception_type(_FAULTS),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            stop=stop_after_delay(patience),
            retry_error_callback=give_up,
        )

    async def ping(self) -> None:
        await self._asked("/prompt", patience=0)

    async def node_info(self, classes: list[str]) -> NodeInfo:
        """Class by class: the whole /object_info is megabytes and takes a loaded server seconds."""
        info: NodeInfo = {}
        for name in classes:
            info |= await self._asked(f"/object_info/{quote(name, safe='')}", patience=0)
        return info

    async def upload(self, path: Path) -> str:
        """Named by its content, so that another file of the same name does not replace it."""
        return await self.send(path.name, await asyncio.to_thread(path.read_bytes))

    async def send(self, name: str, data: bytes) -> str:
        """Upload a file's content; returns its name on the server."""
        form, path = aiohttp.FormData(), PurePath(name)
        name = f"{path.stem[:80]}-{hashlib.sha256(data).hexdigest()[:12]}{path.suffix}"
        form.add_field("image", data, filename=name, content_type="application/octet-stream")
        status, told = await self._told("POST", "/upload/image", data=form)
        if status != 200 or not isinstance(told, dict) or not isinstance(told.get("name"), str):
            raise Refusal(f"the server refuses the file {path.name} (status {status})", final=400 <= status < 500)
        return f"{told['subfolder']}/{told['name']}" if told.get("subfolder") else told["name"]

    async def submit(self, prompt_id: str, prompt: Prompt) -> str:
        """Never sent twice blindly: where an answer got lost, the server is asked whether it has the prompt."""
        body = {"prompt": prompt, "prompt_id": prompt_id, "client_id": self.id}
        try:
            status, told = await self._told("POST", "/prompt", json=body)
        except Unreachable as error:
            if not isinstance(error.__cause__, aiohttp.ClientConnectorError) and await self.look(prompt_id) is not False:
                return prompt_id
            raise
        refused = refusal_of(status, told, prompt)
        if refused:
            if status == 200 and isinstance(told, dict) and isinstance(told.get("prompt_id"), str):
                await self.drop(told["prompt_id"])  # it would run the part of the workflow that is valid
            raise refused
        return str(told["prompt_id"])

    async def look(self, prompt_id: str) -> Finished | bool:
        for turn in (1, 2):
            told = await self._asked(f"/history/{quote(prompt_id, safe='')}", self.patience)
            if isinstance(told.get(prompt_id), dict):
                return finished_of(told[prompt_id])
            if turn == 1 and await self._queued(prompt_id):
                return True
        return False  # asked twice, as it may have left the queue between the first two questions

    async def _queued(self, prompt_id: str) -> bool:
        told = await self._asked("/queue", self.patience)
        jobs = [job for part in ("queue_running", "queue_pending") for job in told.get(part) or ()]
        return any(isinstance(job, list) and len(job) > 1 and job[1] == prompt_id for job in jobs)

    async def drop(self, prompt_id: str) -> None:
        await self._told("POST", "/queue", json={"delete": [prompt_id]})
        if await self.look(prompt_id) is True:  # an older ComfyUI would interrupt whatever runs
            await self._told("POST", "/interrupt", json={"prompt_id": prompt_id})

    async def read(self, file: SavedFile) -> AsyncIterator[bytes]:
        query = {"filename": file.name, "subfolder": file.subfolder, "type": file.type}
        url = self._url("/view").with_query(query)
        try:
            async with self.session.get(url, allow_redirects=False) as reply:
                if reply.status in _TRANSIENT:
                    raise ConnectionError(f"status {reply.status}")
                if reply.status != 200:
                    raise Refusal(f"the server does not give its file {file.name} (status {reply.status})", final=False)
                async for chunk in reply.content.iter_chunked(1 << 18):
                    yield chunk
        except _FAULTS as error:
            raise Unreachable(f"{self.name} stopped sending {file.name} ({error or type(error).__name__})") from error

    async def listen(self, tell: Listener) -> None:
        try:
            url = self._url("/ws").with_query(clientId=self.id)
            async with self.session.ws_connect(url, heartbeat=20, max_msg_size=0) as socket:
                tell("connected", {})
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.TEXT:  # the others are preview pictures
                        event = _parsed(message.data)
                        if isinstance(event, dict) and isinstance(event.get("data"), dict):
                            tell(str(event.get("type")), event["data"])
        except (aiohttp.ClientError, *_FAULTS) as error:
            raise Unreachable(f"{self.name}: no websocket ({error})") from error
        finally:
            self.id = uuid4().hex  # ComfyUI forgets the new socket of a client when it closes the old one


def _parsed(data: bytes | str) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def pause(turn: int) -> float:
    """Seconds before asking a server again: it rises to 10, with jitter so that clients do not ask in step."""
    return min(10.0, 0.25 * 2**min(turn, 6)) * random.uniform(0.8, 1.2)
