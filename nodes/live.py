"""The live head in FLAME Edit: what its page asks for, and what a run leaves for it."""

import asyncio
import logging
import re
from collections.abc import Callable
from pathlib import Path

import folder_paths
from aiohttp import web
from server import PromptServer

from ..flow3d.errors import Flow3DError
from ..flow3d.fit.arkit import fault_on_head
from ..flow3d.head.files import save_head
from ..flow3d.head.load import OPEN, load_head, read_head
from ..flow3d.head.model import HeadModel
from ..flow3d.io.tracks import load_track, save_track
from ..flow3d.live import frame_packet, head_packet, track_digest
from ..flow3d.track import HeadTrack

_DIGEST = re.compile(r"[0-9a-f]{32,64}")
_FRAME = re.compile(r"[0-9]{1,9}")
_KEEP = {"Cache-Control": "private, max-age=86400, immutable"}
_ASK_AGAIN = {"Cache-Control": "no-cache"}


def left_for_page(head: HeadModel, track: HeadTrack) -> dict[str, list[dict]] | None:
    """The `ui` output of a run: the track that went in, kept with its head in ComfyUI's temporary folder.

    None where they cannot be kept: the picture on the page is no reason for a run to fail.
    """
    name = track_digest(track)
    try:
        for file, thing in ((_track_file(name), track), (_head_file(head.digest), head)):
            if not file.is_file():
                file.parent.mkdir(parents=True, exist_ok=True)
                save_track(thing, file) if isinstance(thing, HeadTrack) else save_head(thing, file)
    except (OSError, Flow3DError) as error:
        logging.warning("FLAME Edit: the page cannot show this track (%s).", error)
        return None
    return {"flow3d_live": [{"track": name, "head": head.digest, "frames": len(track)}]}


def register_routes() -> None:
    """`/flow3d/live/head/DIGEST` ('open' too) and `/flow3d/live/track/DIGEST/FRAME`, see `flow3d/live.py`."""
    routes, live = PromptServer.instance.routes, LiveRoutes()
    routes.get("/flow3d/live/head/{digest}")(live.head)
    routes.get("/flow3d/live/track/{digest}/{frame}")(live.frame)


class LiveRoutes:
    """Keeps the head that was asked for last, as a clip is asked for frame by frame."""

    def __init__(self) -> None:
        self._last: HeadModel | None = None

    async def head(self, request: web.Request) -> web.Response:
        digest = request.match_info["digest"]
        return await _answer(lambda: head_packet(self._head(digest)), _ASK_AGAIN if digest == OPEN else _KEEP)

    async def frame(self, request: web.Request) -> web.Response:
        digest, frame = request.match_info["digest"], request.match_info["frame"]
        return await _answer(lambda: self._frame(digest, frame), _KEEP)

    def _frame(self, digest: str, frame: str) -> bytes:
        track = load_track(_known(_track_file, digest))
        if not _FRAME.fullmatch(frame) or not int(frame) < len(track):
            raise Flow3DError(f"There is no frame '{frame[:20]}' in a track of {len(track)}.")
        head = self._head(track.head_digest or OPEN)
        if fault := fault_on_head(track, head):
            raise Flow3DError(f"This track cannot be drawn: {fault}.")
        return frame_packet(head, track, int(frame))

    def _head(self, digest: str) -> HeadModel:
        last = self._last
        if last is None or last.digest != digest:
            last = load_head(OPEN)
            if digest not in (OPEN, last.digest):
                last = read_head(_known(_head_file, digest))
            self._last = last
        return last


async def _answer(made: Callable[[], bytes], headers: dict[str, str]) -> web.Response:
    try:
        packet = await asyncio.to_thread(made)
    except Flow3DError as error:
        return web.json_response({"error": str(error)}, status=404)
    return web.Response(body=packet, content_type="application/octet-stream", headers=headers)


def _known(file_of: Callable[[str], Path], digest: str) -> Path:
    """The kept file; a name that is no digest never becomes a path."""
    file = file_of(digest) if _DIGEST.fullmatch(digest) else None
    if file is None or not file.is_file():
        raise Flow3DError("This server no longer has it: run the workflow again.")
    return file


def _track_file(digest: str) -> Path:
    return Path(folder_paths.get_temp_directory()) / "flow3d_live" / f"{digest}.track.safetensors"


def _head_file(digest: str) -> Path:
    return Path(folder_paths.get_temp_directory()) / "flow3d_live" / f"{digest}.head.safetensors"
