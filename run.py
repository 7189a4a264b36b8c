#!/usr/bin/env python3
"""Run Flow3D from a fresh checkout; only Python 3.10 or newer is needed.

    python run.py demo [ARGS]      the main job on bundled input (see `demo --help`)
    python run.py test [ARGS]      the tests; ARGS go to pytest
    python run.py comfyui [ARGS]   ComfyUI with this pack linked in; ARGS (such as --port 8190) go to ComfyUI

The first run makes `.venv` beside this file and installs what it needs; later runs reuse it. Delete `.venv` to start over.
"""

from __future__ import annotations  # so that an older Python comes as far as the sentence at the end

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
TORCH = "torch==2.13.0"
TORCHVISION = "torchvision==0.28.0"  # the release that belongs to TORCH; ComfyUI imports it
MODULES = ("torch", "numpy", "scipy", "safetensors", "einops", "kornia", "warp", "mediapipe", "av", "PIL", "tqdm")
COMFYUI_HOME = "https://github.com/comfyanonymous/ComfyUI"
COMFYUI_VERSION = "v0.3.64"
LINK_NAME = "flow3d"
HAS_ACCELERATOR = """
import sys, torch
sys.exit(not (torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()))
"""


class RunError(Exception):
    """What went wrong, in one sentence for the terminal."""


# --- the environment -------------------------------------------------------------------------------------------------


def venv_python(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def answers(python: Path, code: str) -> bool:
    """Whether `python` starts and runs `code` without an error."""
    try:
        return subprocess.run([python, "-c", code], capture_output=True, timeout=120, cwd=VENV.parent).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def finds(python: Path, modules: tuple[str, ...]) -> bool:
    """Whether `python` finds every one of `modules` (it does not import them)."""
    return answers(python, f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {modules!r})))")


def make_venv(venv: Path) -> Path:
    """The environment's interpreter; the environment is made where it is absent and made anew where it is broken."""
    python = venv_python(venv)
    if python.exists() and answers(python, "import pip"):
        return python
    if venv.exists():
        say(f"{venv.name} is broken: making it anew.")
        shutil.rmtree(venv)
    say(f"Making {venv} ...")
    done = subprocess.run([sys.executable, "-m", "venv", venv], capture_output=True, text=True)
    if done.returncode or not answers(python, "import pip"):
        shutil.rmtree(venv, ignore_errors=True)
        hint = " On Debian and Ubuntu: sudo apt install python3-venv." if "ensurepip" in done.stdout + done.stderr else ""
        raise RunError(f"cannot make {venv} with {sys.executable}: {last_line(done.stdout + done.stderr)}.{hint}")
    return python


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no output"])[-1].rstrip(".")


def pip_install(python: Path, label: str, args: list[str]) -> None:
    """One `pip install`, shown as one line; its whole output goes to `.venv/install.log`."""
    log = VENV / "install.log" if VENV.exists() else ROOT / "install.log"
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *args]
    live, start, output = sys.stderr.isatty(), time.monotonic(), ""
    if not live:
        say(f"{label} ...")
    pip = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace"
    )
    assert pip.stdout
    with pip, log.open("a", encoding="utf-8") as file:
        file.write(" ".join(command) + "\n")
        for line in pip.stdout:
            file.write(line)
            output += line
            if live and line.strip():
                width = shutil.get_terminal_size().columns - 1
                sys.stderr.write(f"\r{f'{label}: {line.strip()}'[:width]:<{width}}")
    if live:
        sys.stderr.write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
    if pip.returncode:
        raise RunError(f"{label} failed: {last_line(output)}. The whole output is in {log}.")
    say(f"{label}: done in {time.monotonic() - start:.0f} s")


def fingerprint(*parts: str) -> str:
    """What an installation depends on: the requirements, this checkout's place, and `parts`."""
    h = hashlib.sha256()
    for part in (*(read(ROOT / n) for n in ("requirements.txt", "pyproject.toml")), str(ROOT), TORCH, *parts):
        h.update(part.encode() + b"\0")
    return h.hexdigest()


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def environment(extras: str, comfyui: Path | None = None) -> Path:
    """The interpreter of `.venv` with this checkout, the named extras, and with `comfyui` what that ComfyUI requires."""
    wanted = comfyui_requirements(comfyui) if comfyui else []
    modules = (*MODULES, "comfyui_flow3d", *(("torchvision", "aiohttp") if comfyui else ()))
    stamp = VENV / "flow3d.json"
    python = make_venv(VENV)
    stamps = json.loads(read(stamp)) if stamp.exists() else {}
    group, mark = f"{extras}{'+comfyui' if comfyui else ''}", fingerprint(extras, *wanted)
    if stamps.get(group) == mark:
        if finds(python, modules):
            return python
        say(f"{VENV.name} has lost packages: making it anew.")
        shutil.rmtree(VENV)
        python, stamps = make_venv(VENV), {}
    constraint = VENV / "constraint.txt"
    constraint.write_text(TORCH + "\n", encoding="utf-8")
    steps = [
        ("Installing PyTorch", [TORCH]),  # first and alone: asked for by another package, pip would take the newest
        ("Installing Flow3D", ["-c", str(constraint), "-e", f".[{extras}]"]),
    ]
    if comfyui:
        listed = VENV / "comfyui.txt"
        listed.write_text("\n".join(wanted) + "\n", encoding="utf-8")
        steps.append(("Installing what ComfyUI requires", ["-c", str(constraint), "-r", str(listed)]))
        steps.append(("Installing torchvision", ["--no-deps", TORCHVISION]))
    for i, (label, args) in enumerate(steps, 1):
        pip_install(python, f"[{i}/{len(steps)}] {label}", args)
    if not finds(python, modules):
        raise RunError(f"the installation is incomplete; delete {VENV} and run this again.")
    stamp.write_text(json.dumps({**stamps, group: mark}), encoding="utf-8")
    return python


# --- ComfyUI ---------------------------------------------------------------------------------------------------------


def is_comfyui(folder: Path) -> bool:
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir() and (folder / "nodes.py").is_file()


def find_comfyui() -> Path | None:
    """ComfyUI's folder: $COMFYUI_PATH, or the one whose custom_nodes this checkout lies in, or ~/comfy/ComfyUI."""
    named = os.environ.get("COMFYUI_PATH")
    if named:
        if not is_comfyui(Path(named)):
            raise RunError(f"COMFYUI_PATH is {named}, which is not ComfyUI's folder (it has no main.py with a comfy folder).")
        return Path(named).resolve()
    here = Path(os.path.abspath(__file__)).parent  # not resolved: the checkout may be linked into custom_nodes
    return next((c for c in (here.parent.parent, Path.home() / "comfy" / "ComfyUI") if is_comfyui(c)), None)


def clone_comfyui() -> Path:
    folder = Path.home() / "comfy" / "ComfyUI"
    say(f"No ComfyUI found: cloning {COMFYUI_VERSION} to {folder}. To use your own, set COMFYUI_PATH to its folder.")
    if not shutil.which("git"):
        raise RunError("git is not installed; install it, or set COMFYUI_PATH to ComfyUI's folder.")
    part = folder.with_name("ComfyUI.part")
    shutil.rmtree(part, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    clone = ["git", "clone", "--depth", "1", "--branch", COMFYUI_VERSION, COMFYUI_HOME, str(part)]
    if subprocess.call(clone, stdin=subprocess.DEVNULL):
        shutil.rmtree(part, ignore_errors=True)
        raise RunError(f"could not clone ComfyUI from {COMFYUI_HOME}; set COMFYUI_PATH to a ComfyUI folder.")
    os.replace(part, folder)
    return folder


def comfyui_requirements(comfyui: Path) -> list[str]:
    """ComfyUI's requirements but for torch's own packages, which are installed apart, and `requests`, which it forgets."""
    lines = (line.split("#")[0].strip() for line in read(comfyui / "requirements.txt").splitlines())
    apart = ("torch", "torchvision", "torchaudio")
    return [x for x in lines if x and re.split(r"[^\w-]", x)[0].lower() not in apart] + ["requests"]


def own_python(comfyui: Path) -> Path | None:
    """The interpreter that this ComfyUI brings: its virtual environment, or the one of the portable Windows package."""
    embedded = comfyui.parent / "python_embeded" / "python.exe"
    return next((p for p in (venv_python(comfyui / ".venv"), venv_python(comfyui / "venv"), embedded) if p.exists()), None)


def complete(python: Path) -> None:
    """Install what this pack still misses in ComfyUI's own environment, moving nothing that ComfyUI stands on."""
    if finds(python, MODULES):
        return
    say(f"Adding what Flow3D needs to ComfyUI's own environment ({python}).")
    if not answers(python, "import pip"):
        raise RunError(f"{python} has no pip; install {ROOT / 'requirements.txt'} into it with the tool that made it.")
    done = subprocess.run([python, "-m", "pip", "freeze", "--all"], capture_output=True, text=True)
    kept = ("torch", "torchvision", "torchaudio", "numpy", "transformers", "tokenizers", "huggingface-hub")
    pins = [x for x in done.stdout.splitlines() if "==" in x and x.split("==")[0].lower().replace("_", "-") in kept]
    constraint = ROOT / "output" / "comfyui-constraint.txt"
    constraint.parent.mkdir(exist_ok=True)
    constraint.write_text("\n".join(pins) + "\n", encoding="utf-8")
    pip_install(python, "Installing what Flow3D needs", ["-c", str(constraint), "-r", str(ROOT / "requirements.txt")])


def link_pack(custom_nodes: Path) -> None:
    """Make this checkout one of ComfyUI's packs: a link in `custom_nodes`, unless it is there already."""
    custom_nodes.mkdir(parents=True, exist_ok=True)
    if any(p.resolve() == ROOT for p in custom_nodes.iterdir() if p.is_dir()):
        return
    link = custom_nodes / LINK_NAME
    if os.path.lexists(link):
        raise RunError(f"{link} exists and is not this checkout; rename or remove it.")
    if os.name == "nt":  # a junction: Windows lets only administrators make symbolic links
        done = subprocess.run(["cmd", "/c", "mklink", "/J", str(link), str(ROOT)], capture_output=True, text=True)
        if done.returncode:
            raise RunError(f"could not link {ROOT} to {link}: {last_line(done.stdout + done.stderr)}.")
    else:
        link.symlink_to(ROOT, target_is_directory=True)
    say(f"Linked the pack: {link}")


def option(args: list[str], name: str, default: str) -> str:
    """The value of `--name VALUE` or `--name=VALUE` in `args`."""
    for i, arg in enumerate(args):
        if arg == name and i + 1 < len(args) and not args[i + 1].startswith("-"):
            return args[i + 1]
        if arg.startswith(name + "="):
            return arg.split("=", 1)[1]
    return default


# --- the commands ----------------------------------------------------------------------------------------------------


def call(command: list[str | Path], **kwargs) -> int:
    """Run to the end and give the exit status. Ctrl-C is left to the child, and a request to end is passed on to it."""
    process = subprocess.Popen([str(c) for c in command], **kwargs)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def demo(args: list[str]) -> int:
    python = environment("demo")
    return call([python, "-c", "import sys; from comfyui_flow3d.cli import main; sys.exit(main())", "demo", *args])


def test(args: list[str]) -> int:
    comfyui = find_comfyui()
    python = environment("demo,test", comfyui)
    # Threads that wait for each other must not spin: on two busy cores that costs many times the work itself.
    env = {"OMP_WAIT_POLICY": "passive", **os.environ, "FLOW3D_RUN": "test", **({"COMFYUI_PATH": str(comfyui)} if comfyui else {})}
    if not args:  # all of them: two files at a time, each with one thread, which suits the tests' small pictures and networks
        args, env = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"], {"OMP_NUM_THREADS": "1", **env}
    return call([python, "-m", "pytest", *args], cwd=ROOT, env=env)


def comfyui(args: list[str]) -> int:
    folder = find_comfyui() or clone_comfyui()
    python = own_python(folder)
    if python:
        complete(python)
    else:
        python = environment("demo", folder)
    base = Path(option(args, "--base-directory", str(folder)))
    link_pack(base.resolve() / "custom_nodes")
    if "--cpu" not in args and not answers(python, HAS_ACCELERATOR):
        args = [*args, "--cpu"]
    host = option(args, "--listen", "127.0.0.1").split(",")[0]
    say(f"ComfyUI ({folder}) will answer at http://{host}:{option(args, '--port', '8188')}")
    start = [folder / "main.py"] if answers(python, "import torchvision") else [ROOT / "scripts/launch_comfyui.py", folder]
    return call([python, *start, *args], cwd=folder)


COMMANDS = {"demo": demo, "test": test, "comfyui": comfyui}


def main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__.strip())
        return 0 if argv else 2
    try:
        if argv[0] not in COMMANDS:
            raise RunError(f"unknown command {argv[0]!r}; it is one of {', '.join(COMMANDS)}.")
        return COMMANDS[argv[0]](argv[1:])
    except RunError as error:
        say(f"run.py: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    if sys.version_info < (3, 10):  # noqa: UP036 - the one file that an older Python may run
        sys.exit("run.py: Python 3.10 or newer is needed, this is " + sys.version.split()[0] + ".")
    sys.exit(main(sys.argv[1:]))
