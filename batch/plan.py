"""From workflow, manifest and template to jobs, with every problem of all three told at once."""

import copy
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from ..flow3d.errors import InputError
from .manifest import Manifest, Row, Value, refuse
from .names import Template, check_apart
from .values import LocalFile, convert
from .workflow import NodeInfo, Prompt, Target, classes, is_link, map_columns, specs, title


@dataclass(frozen=True)
class Job:
    """One row, ready to be queued but for its files, which are uploaded to the server that gets it."""

    id: str
    row: int
    prompt: Prompt
    uploads: tuple[tuple[Target, Path], ...]
    fields: dict[str, Value]
    """For the names of its outputs."""
    key: str
    """Changes with whatever changes the result: values, workflow, files."""


def plan(prompt: Prompt, manifest: Manifest, template: Template, servers: dict[str, NodeInfo]) -> list[Job]:
    """The jobs. servers: by name, what each says of the workflow's classes.

    Raises InputError that lists every problem.
    """
    problems: list[str] = []
    for name, info in servers.items():
        where = f" on {name}" if len(servers) > 1 else ""
        problems += [p + where for p in workflow_problems(prompt, info)]
    info = next(iter(servers.values()))
    targets = map_columns(prompt, manifest.columns, info, problems)
    jobs = [_job(prompt, row, targets, info, manifest.path.parent, problems) for row in manifest.rows]
    try:
        check_apart(template, [(job.row, job.fields) for job in jobs], problems)
    except InputError as error:
        problems.append(str(error))
    refuse(manifest.path.name, problems)
    return jobs


def workflow_problems(prompt: Prompt, info: NodeInfo) -> list[str]:
    """What keeps this workflow from running, as far as /object_info tells."""
    missing = [name for name in classes(prompt) if not info.get(name)]
    problems = [f"the node '{name}' is not installed" for name in missing]
    for node, what in prompt.items():
        required = info.get(str(what["class_type"]), {}).get("input", {}).get("required", {})
        absent = [name for name in required if name not in what["inputs"]]
        problems += [f"{title(prompt, node, info)} (node {node}) misses its input '{name}'" for name in absent]
        broken = [name for name, v in what["inputs"].items() if is_link(v) and str(v[0]) not in prompt]
        problems += [f"{title(prompt, node, info)} (node {node}): '{name}' is linked to a node that is not there" for name in broken]
    if not missing and not any(info[name].get("output_node") for name in classes(prompt)):
        problems.append("the workflow saves nothing: add a node such as Save Image or Save Video")
    return problems


def _job(
    prompt: Prompt, row: Row, targets: dict[str, Target], info: NodeInfo, folder: Path, problems: list[str]
) -> Job:
    filled, uploads = copy.deepcopy(prompt), []
    for column, target in targets.items():
        if column not in row.values:
            continue
        spec = specs(info, str(prompt[target.node]["class_type"])).get(target.input)
        try:
            value = convert(row.values[column], spec, folder)
        except ValueError as error:
            problems.append(f"row {row.number}: {column} {error}")
            continue
        if isinstance(value, LocalFile):
            uploads.append((target, value.path))
        else:
            filled[target.node]["inputs"][target.input] = value
    fields = {**row.values, "id": row.id, "row": row.number}
    return Job(row.id, row.number, filled, tuple(uploads), fields, _key(filled, uploads))


def _key(prompt: Prompt, uploads: list[tuple[Target, Path]]) -> str:
    """Files count by size and time of change: reading thousands of clips at each start would take minutes."""
    bare = {n: {k: v for k, v in node.items() if k != "_meta"} for n, node in prompt.items()}
    files = [(t.node, t.input, p.name, p.stat().st_size, p.stat().st_mtime_ns) for t, p in uploads]
    return hashlib.sha256(json.dumps([bare, files], sort_keys=True).encode()).hexdigest()[:32]
