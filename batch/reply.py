"""What a server's answers mean. They are read as text from a stranger: whatever has another form is left out."""

from dataclasses import dataclass
from typing import Any

from ..flow3d.errors import Flow3DError
from .workflow import Prompt


class Refusal(Flow3DError):
    """The server does not do what it was asked. final: asking again would bring the same answer."""

    def __init__(self, reason: str, final: bool):
        super().__init__(reason)
        self.final = final

    def __reduce__(self) -> tuple[type["Refusal"], tuple[str, bool]]:
        return Refusal, (str(self), self.final)  # it crosses from machine to machine


@dataclass(frozen=True)
class SavedFile:
    """A file in the server's folders, and the node that saved it."""

    node: str
    name: str
    subfolder: str
    type: str


@dataclass(frozen=True)
class Finished:
    """How a prompt ended: its saved files, or the node's own words."""

    files: tuple[SavedFile, ...]
    error: str | None


def finished_of(entry: dict[str, Any]) -> Finished:
    """An entry of /history."""
    status = entry.get("status") or {}
    if status.get("status_str") == "success" or not status:
        return Finished(tuple(_files(entry.get("outputs") or {})), None)
    return Finished((), _error(status.get("messages") or []))


def _files(outputs: dict[str, Any]) -> list[SavedFile]:
    """Saved files only: previews lie in ComfyUI's temporary folder."""
    found = []
    for node, told in sorted(outputs.items()):
        lists = [v for v in told.values() if isinstance(v, list)] if isinstance(told, dict) else []
        for file in (f for entries in lists for f in entries if isinstance(f, dict)):
            name, subfolder, kind = file.get("filename"), file.get("subfolder", ""), file.get("type", "output")
            if isinstance(name, str) and name and isinstance(subfolder, str) and kind == "output":
                found.append(SavedFile(str(node), name, subfolder, kind))
    return found


def _error(messages: list[Any]) -> str:
    for kind, data in (m for m in messages if isinstance(m, list) and len(m) == 2 and isinstance(m[1], dict)):
        if kind == "execution_error":
            return f"{data.get('node_type')} (node {data.get('node_id')}): {str(data.get('exception_message', '')).strip()}"
        if kind == "execution_interrupted":
            return "interrupted on the server"
    return "failed; the server does not say why"


def refusal_of(status: int, told: Any, prompt: Prompt) -> Refusal | None:
    """The answer to POST /prompt as a refusal, None where it was queued whole. Status 200 can still carry node errors."""
    if not isinstance(told, dict):
        return Refusal(f"the server answers with status {status} and no JSON", final=400 <= status < 500)
    nodes = told.get("node_errors")
    if isinstance(nodes, dict) and nodes:
        return Refusal("; ".join(_node_errors(nodes, prompt)), final=True)
    if status == 200 and isinstance(told.get("prompt_id"), str):
        return None
    error = told.get("error")
    said = error.get("message") if isinstance(error, dict) else error
    return Refusal(f"the server refuses it: {said or f'status {status}'}", final=400 <= status < 500)


def _node_errors(nodes: dict[str, Any], prompt: Prompt) -> list[str]:
    told = []
    for node, what in nodes.items():
        name = (what.get("class_type") if isinstance(what, dict) else None) or prompt.get(node, {}).get("class_type")
        errors = what.get("errors") if isinstance(what, dict) else None
        words = [f"{e.get('message')}: {e.get('details')}" for e in errors or () if isinstance(e, dict)]
        told.append(f"{name} (node {node}): {', '.join(words) or 'refused'}")
    return told
