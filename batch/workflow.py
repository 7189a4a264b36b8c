"""A workflow in the API's form, and where a manifest's columns go in it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..flow3d.errors import InputError
from .manifest import ID

Prompt = dict[str, dict[str, Any]]
"""Nodes by id: `class_type`, `inputs`, perhaps `_meta.title`."""
NodeInfo = dict[str, dict[str, Any]]
"""The server's /object_info, by class_type."""


@dataclass(frozen=True)
class Target:
    """An input of a node."""

    node: str
    input: str


def read_workflow(path: Path) -> Prompt:
    """Read a workflow that was saved by 'Export (API)'. Raises InputError for anything else."""
    try:
        prompt = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise InputError(f"{path.name}: is not JSON ({error}).") from error
    if isinstance(prompt, dict) and isinstance(prompt.get("nodes"), list):
        raise InputError(f"{path.name}: is in the canvas's form. Save it with 'Export (API)' in ComfyUI's menu.")
    nodes = prompt.values() if isinstance(prompt, dict) else ()
    if not nodes or not all(isinstance(n, dict) and "class_type" in n and isinstance(n.get("inputs"), dict) for n in nodes):
        raise InputError(f"{path.name}: is no workflow in the API's form. Save it with 'Export (API)' in ComfyUI's menu.")
    return prompt


def classes(prompt: Prompt) -> list[str]:
    return sorted({str(node["class_type"]) for node in prompt.values()})


def title(prompt: Prompt, node: str, info: NodeInfo) -> str:
    """What the canvas shows over a node: the workflow's own title, else the node's display name on the server."""
    own = prompt[node].get("_meta", {}).get("title")
    name = str(prompt[node]["class_type"])
    return str(own or info.get(name, {}).get("display_name") or name)


def map_columns(prompt: Prompt, columns: tuple[str, ...], info: NodeInfo, problems: list[str]) -> dict[str, Target]:
    """Where each column that names an input goes. A column without a dot (`id`, a remark) names none."""
    found: dict[str, Target] = {}
    taken: dict[Target, str] = {}
    for column in columns:
        if column == ID or "." not in column:
            continue
        target = _target(prompt, column, info, problems)
        if target is None:
            continue
        if target in taken:
            problems.append(f"columns '{taken[target]}' and '{column}' set the same input")
        found[column], taken[target] = target, column
    return found


def _target(prompt: Prompt, column: str, info: NodeInfo, problems: list[str]) -> Target | None:
    """Titles and input names may hold dots themselves, so each dot is tried."""
    cuts = [(column[:i], column[i + 1 :]) for i, c in enumerate(column) if c == "."]
    nodes = {(n, i) for name, i in cuts for n in prompt if name == n or name == title(prompt, n, info)}
    if not nodes:
        known = ", ".join(sorted({f"'{title(prompt, n, info)}'" for n in prompt}))
        problems.append(f"column '{column}': no node is called '{column.rpartition('.')[0]}'; there are {known}")
        return None
    fitting = {(n, i) for n, i in nodes if i in _inputs(prompt, n, info)}
    if not fitting:
        node = min(nodes)[0]
        problems.append(f"column '{column}': {title(prompt, node, info)} has the inputs {', '.join(_inputs(prompt, node, info))}")
        return None
    if len(fitting) > 1:
        choices = " or ".join(sorted(f"'{n}.{i}'" for n, i in fitting))
        problems.append(f"column '{column}': several nodes have this name; say {choices}")
        return None
    return Target(*fitting.pop())


def _inputs(prompt: Prompt, node: str, info: NodeInfo) -> list[str]:
    return list(dict.fromkeys((*specs(info, str(prompt[node]["class_type"])), *prompt[node]["inputs"])))


def specs(info: NodeInfo, name: str) -> dict[str, list[Any]]:
    """The inputs of a class: `[type or list of choices, options]` by name."""
    groups = info.get(name, {}).get("input", {})
    return {**groups.get("required", {}), **groups.get("optional", {})}


def is_link(value: object) -> bool:
    """Whether an input's value is `[node, output]`."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], int)
