"""The arguments of `flow3d batch`."""

import argparse
import importlib.util
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ..flow3d.errors import InputError
from .names import DEFAULT

if TYPE_CHECKING:
    from .run import Fleet

SERVER = "http://127.0.0.1:8188"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("workflow", type=Path, metavar="WORKFLOW.json", help="a workflow saved by ComfyUI's 'Export (API)'")
    command.add_argument("manifest", type=Path, metavar="MANIFEST", help="a .csv or .jsonl: one row an item")
    command.add_argument("-o", "--output", type=Path, default=Path("output/batch"), metavar="FOLDER", help="default: output/batch")
    command.add_argument("--server", action="append", metavar="URL", help=f"may be repeated (default: {SERVER})")
    command.add_argument("--names", default=DEFAULT, metavar="TEMPLATE", help=f"names of the outputs (default: {DEFAULT})".replace("%", "%%"))
    command.add_argument("--in-flight", type=int, default=2, metavar="K", help="items that a server has at a time (default: 2)")
    command.add_argument("--retries", type=int, default=1, metavar="N", help="new tries of an item that failed (default: 1)")
    command.add_argument("--patience", type=float, default=120, metavar="SECONDS",
                         help="how long a silent server is waited for before others get its items (default: 120)")  # fmt: skip
    command.add_argument("--dry-run", action="store_true", help="check everything against the servers, list every problem, run nothing")
    ray = command.add_argument_group("many machines", "start ComfyUI on a Ray cluster: pip install flow3d-portrait[cluster]")
    ray.add_argument("--ray", metavar="ADDRESS", help="a cluster's address, 'auto' for the one this machine is in, 'local' for this machine alone")
    ray.add_argument("--workers", type=int, metavar="N", help="ComfyUIs to start (default: as many as fit now)")
    ray.add_argument("--cores", type=int, metavar="N", help="CPU cores for each ComfyUI; without it each gets a GPU")
    ray.add_argument("--comfyui", metavar="FOLDER", help="ComfyUI's folder on the machines (default: $COMFYUI_PATH there, or ~/comfy/ComfyUI)")
    ray.add_argument("--comfyui-args", default="", metavar="ARGS", help="more for ComfyUI, as in --comfyui-args='--lowvram --fast'")


def batch(options: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    needed = ("aiohttp", "tenacity", "filelock", *(("ray",) if options.ray else ()))
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"flow3d batch needs {', '.join(missing)}: pip install {' '.join(missing)}")
    from .run import Request, check, run
    from .scheduler import Settings

    for name, least in (("in_flight", 1), ("retries", 0), ("workers", 1), ("cores", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must be {least} or more.")
    if not (math.isfinite(options.patience) and options.patience > 0):
        raise InputError(f"--patience is {options.patience}; it must be a number of seconds above 0.")
    settings = Settings(options.in_flight, options.retries, options.patience)
    request = Request(options.workflow, options.manifest, options.output, options.names, settings)
    fleet = _fleet(options)
    if options.dry_run:
        print(check(request, fleet))
        return 0
    return run(request, fleet)


def _fleet(options: argparse.Namespace) -> "Fleet":
    if options.ray is None:
        from .run import servers

        return servers(options.server or [SERVER], options.patience)
    if options.server:
        raise InputError("--server names servers that run already, --ray starts its own. Choose one.")
    from .fleet import Start, ray_fleet

    start = Start(options.comfyui, tuple(shlex.split(options.comfyui_args)), options.cores)
    return ray_fleet(options.ray, options.workers, start)
