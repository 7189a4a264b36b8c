"""What holds for the repository as a whole."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20
NOT_PACKAGES = {"tests", "scripts", "benchmarks", "docs", "web", "workflows"}


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if done.returncode:
        pytest.skip("this is not a git checkout")
    return [p for name in done.stdout.decode().split("\0") if name and (p := ROOT / name).is_file()]


def python_files() -> list[Path]:
    return [p for p in tracked() if p.suffix == ".py"]


def node_classes() -> dict[str, ast.ClassDef]:
    """The node classes by their id, read from the source: importing them needs ComfyUI."""
    found = {}
    for path in sorted((ROOT / "nodes").glob("*.py")):
        for cls in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(cls, ast.ClassDef):
                ids = re.findall(r"node_id='(\w+)'", ast.unparse(cls))
                found |= {name: cls for name in ids}
    return found


def test_no_file_is_large() -> None:
    large = [str(p.relative_to(ROOT)) for p in tracked() if p.stat().st_size > 10 * MIB]
    assert not large


def test_tracked_text_names_no_machine() -> None:
    """No path of the machine it was made on, and no address of a package registry."""
    # Spelled in pieces, so that this file passes its own test.
    traces = [re.compile(t) for t in ("/wo" + r"rk/\w", "/ro" + r"ot/\w", r"/ho" + r"me/\w+/", "pypi" + r"\.org", "files.python" + "hosted")]
    hits = []
    for path in tracked():
        data = path.read_bytes()
        if b"\0" not in data[:4096]:
            text = data.decode("utf-8")
            hits += [f"{path.relative_to(ROOT)}: {m.group()}" for t in traces for m in t.finditer(text)]
    assert not hits


def test_binary_files_are_the_expected_kinds() -> None:
    kinds = {".safetensors", ".jpg", ".png", ".npz"}
    odd = [str(p.relative_to(ROOT)) for p in tracked() if b"\0" in p.read_bytes()[:4096] and p.suffix not in kinds]
    assert not odd


def test_packages_are_the_folders_with_code() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^packages = \[(.*?)\]", text, re.S | re.M)
    assert block
    listed = set(re.findall(r'"([\w.]+)"', block.group(1)))
    folders = {p.parent.relative_to(ROOT) for p in python_files() if p.name == "__init__.py"}
    there = {".".join(("comfyui_flow3d", *f.parts)) for f in folders if not f.parts or f.parts[0] not in NOT_PACKAGES}
    assert listed == there
    loose = {p.parent.relative_to(ROOT).as_posix() for p in python_files()} - {f.as_posix() for f in folders} - NOT_PACKAGES
    assert not loose, "folders with code but no __init__.py"


def imports(path: Path) -> set[str]:
    """Absolute dotted names that a file of the package imports; relative ones start with `comfyui_flow3d`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            folder = ("comfyui_flow3d", *path.relative_to(ROOT).parent.parts)
            base = ".".join(folder[: len(folder) - node.level + 1]) if node.level else ""
            names |= {".".join(filter(None, (base, node.module, a.name))) for a in node.names}
    return names


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("flow3d", ("comfy", "comfy_api", "folder_paths", "nodes", "comfyui_flow3d.nodes", "comfyui_flow3d.models", "comfyui_flow3d.training")),
        ("models", ("comfyui_flow3d.nodes", "comfyui_flow3d.training", "diffusers")),
        ("nodes", ("diffusers", "comfyui_flow3d.training")),
        ("batch", ("comfy", "comfy_api", "folder_paths", "nodes", "comfyui_flow3d.nodes", "comfyui_flow3d.models")),
    ],
)  # fmt: skip
def test_imports_go_one_way(folder: str, forbidden: tuple[str, ...]) -> None:
    for path in python_files():
        if path.relative_to(ROOT).parts[0] == folder and "comfy" not in path.relative_to(ROOT).parts[1:-1]:
            wrong = [n for n in imports(path) if n.startswith(tuple(f + "." for f in forbidden)) or n in forbidden]
            assert not wrong, path.relative_to(ROOT)


def test_importing_the_package_imports_nothing() -> None:
    code = "import sys, comfyui_flow3d; print([m for m in ('torch', 'comfy', 'mediapipe') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_node_has_a_help_page() -> None:
    ids = set(node_classes())
    pages = {p.stem for p in (ROOT / "web" / "docs").glob("*.md")}
    assert ids and ids == pages


def test_every_socket_has_a_tooltip() -> None:
    bare = []
    for name, cls in node_classes().items():
        for call in ast.walk(cls):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in ("Input", "Output"):
                if not any(k.arg == "tooltip" for k in call.keywords):
                    bare.append(f"{name}: {ast.unparse(call)[:80]}")
    assert not bare


# --- workflows -------------------------------------------------------------------------------------------------------

WORKFLOWS = sorted(p.stem for p in (ROOT / "workflows").glob("*.json"))


def test_workflows_have_both_forms_and_a_picture() -> None:
    assert WORKFLOWS
    assert WORKFLOWS == sorted(p.stem for p in (ROOT / "workflows" / "api").glob("*.json"))
    assert WORKFLOWS == sorted(p.stem for p in (ROOT / "workflows").glob("*.jpg"))


def canvas_to_api(canvas: dict) -> dict:
    """The API's form of a canvas without subgraphs: what the page sends when Run is pressed."""
    links = {link[0]: (str(link[1]), link[2]) for link in canvas["links"]}
    prompt = {}
    for node in canvas["nodes"]:
        if node["type"] in ("Note", "MarkdownNote"):
            continue
        values, inputs = list(node.get("widgets_values", [])), {}
        for slot in node.get("inputs", []):
            if slot.get("widget"):
                value = values.pop(0)
                if slot["type"] != "IMAGEUPLOAD":  # a button
                    inputs[slot["name"]] = value
                if slot["name"] in ("seed", "noise_seed"):
                    values.pop(0)  # what becomes of it after a run
            if slot.get("link") is not None:
                inputs[slot["name"]] = list(links[slot["link"]])
        assert not values, f"node {node['id']} has more values than widgets"
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
        if "title" in node:
            prompt[str(node["id"])]["_meta"] = {"title": node["title"]}
    return prompt


@pytest.mark.parametrize("name", WORKFLOWS)
def test_canvas_and_api_forms_agree(name: str) -> None:
    canvas = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    api = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    assert canvas_to_api(canvas) == api


@pytest.mark.parametrize("name", WORKFLOWS)
def test_canvas_links_are_whole(name: str) -> None:
    canvas = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    nodes = {n["id"]: n for n in canvas["nodes"]}
    assert len(nodes) == len(canvas["nodes"]) and canvas["last_node_id"] >= max(nodes)
    for link, origin, out, target, slot, kind in canvas["links"]:
        source, sink = nodes[origin]["outputs"][out], nodes[target]["inputs"][slot]
        assert link in source["links"] and sink["link"] == link
        assert source["type"] in sink["type"].split(",") and kind in (source["type"], sink["type"])


# --- style -----------------------------------------------------------------------------------------------------------


def run_tool(*command: str, cwd: Path = ROOT) -> None:
    pytest.importorskip(command[0], reason=f"{command[0]} is not installed: use `python run.py test`")
    done = subprocess.run([sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_ruff_is_clean() -> None:
    run_tool("ruff", "check", "--quiet", ".")


def test_mypy_is_clean(tmp_path: Path) -> None:
    """Under the package's name, as a checkout's folder may have one that no package can have."""
    try:
        (tmp_path / "comfyui_flow3d").symlink_to(ROOT, target_is_directory=True)
    except OSError as error:
        pytest.skip(f"this system makes no links ({error})")
    run_tool("mypy", "--config-file", str(ROOT / "pyproject.toml"), "comfyui_flow3d", cwd=tmp_path)
