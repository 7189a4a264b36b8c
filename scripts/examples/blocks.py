"""What several examples have in common."""

from typing import Any

from .sheet import Node, Output, Sheet
from .weights import LANDMARKER, Weight, table

NO_TRACK = 25.0  # frames per second of a still, and of the bundled motions


def words(sheet: Sheet, start: str, *weights: Weight, more: str = "") -> Node:
    """The column of notes on the left, with the head model below them."""
    with sheet.group():
        sheet.note("Start here", start)
        sheet.note("Weights", f"{table(LANDMARKER, *weights)}\n\n{more}")
        return sheet.node("Flow3DLoadHeadModel", "Head Model", name="open head")


def saved(sheet: Sheet, images: Node, fps: Output | float, audio: Output | None = None, space: int = 300) -> None:
    """The pictures as a video in ComfyUI's output folder."""
    sound: dict[str, Any] = {} if audio is None else {"audio": audio}
    video = sheet.node("CreateVideo", "Create Video", images=images, fps=fps, **sound)
    sheet.node("SaveVideo", "Save Video", video=video, filename_prefix=f"flow3d/{sheet.name}", format="mp4", codec="h264", space=space)
