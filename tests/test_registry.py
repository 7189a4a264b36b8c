"""What the Comfy Registry takes: the package without what no ComfyUI reads, with everything that one does."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("__init__.py", "batch", "cli.py", "docs", "flow3d", "LICENSE", "locales", "models", "nodes", "pyproject.toml",
          "README.md", "requirements.txt", "run.py", "scripts/launch_comfyui.py", "web", "workflows")  # fmt: skip
LEFT_OUT = (".ci", ".github", "benchmarks", "tests", "scripts/build_motions.py")


@pytest.fixture(scope="module")
def packed() -> list[str]:
    """The tracked files that .comfyignore leaves, as the registry's own tool chooses them."""
    pathspec = pytest.importorskip("pathspec", reason="pathspec is not installed: use `python run.py test`")
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this is not a git checkout")
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    ignored = pathspec.GitIgnoreSpec.from_lines([x for x in lines if x.strip() and not x.startswith("#")])
    return [name for name in done.stdout.splitlines() if not ignored.match_file(name)]


def test_everything_that_runs_is_packed(packed: list[str]) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", *NEEDED], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    missing = [name for name in tracked if name and name not in packed and name != "docs/site.css"]
    assert not missing
    assert all(any(name == part or name.startswith(part + "/") for name in packed) for part in NEEDED)


def test_nothing_else_is(packed: list[str]) -> None:
    assert not [name for name in packed if name.startswith(LEFT_OUT)]
    assert sum((ROOT / name).stat().st_size for name in packed) < 15e6


def test_the_metadata_the_registry_reads() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^\[tool\.comfy\]\n((?:.+\n)+)", text, re.M)
    assert block
    fields = dict(re.findall(r"^([\w-]+) = (.+)$", block.group(1), re.M))
    assert {"PublisherId", "DisplayName", "requires-comfyui"} <= fields.keys()
    assert "web" not in fields, "ComfyUI would serve web/ under a second name and load every script twice"
    version = re.search(r"^COMFYUI_VERSION = \"v(.+)\"$", (ROOT / "run.py").read_text(encoding="utf-8"), re.M)
    assert version and fields["requires-comfyui"] == f'">={version.group(1)}"'
