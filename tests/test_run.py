"""run.py: what it finds, installs and repairs. The installations themselves are done by running it, as CI does."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """run.py as a module, with its folders moved to a temporary place."""
    spec = importlib.util.spec_from_file_location("flow3d_run", ROOT / "run.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    return module


def fake_comfyui(folder: Path, requirements: str = "torch\naiohttp>=3\n") -> Path:
    """A folder with the files by which ComfyUI is known."""
    (folder / "comfy").mkdir(parents=True)
    for name, text in (("main.py", ""), ("nodes.py", ""), ("requirements.txt", requirements)):
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_help_and_wrong_commands() -> None:
    def call(*args: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, ROOT / "run.py", *args], capture_output=True, text=True)

    assert call("--help").returncode == 0 and "demo" in call("--help").stdout
    assert call().returncode == 2
    wrong = call("dmeo")
    assert wrong.returncode == 1
    assert wrong.stderr.strip() == "run.py: unknown command 'dmeo'; it is one of demo, test, comfyui."


def test_only_the_standard_library() -> None:
    code = f"import sys; sys.argv = ['run.py']; exec(compile(open({str(ROOT / 'run.py')!r}).read(), 'run.py', 'exec'), {{'__name__': 'x', '__file__': {str(ROOT / 'run.py')!r}}})"
    assert subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True).returncode == 0


def test_a_sound_environment_is_kept_and_a_broken_one_made_anew(run: ModuleType) -> None:
    python = run.make_venv(run.VENV)
    assert run.answers(python, "import pip")
    kept = run.VENV / "kept"
    kept.touch()
    assert run.make_venv(run.VENV) == python and kept.exists()
    python.unlink()
    assert run.answers(run.make_venv(run.VENV), "import pip")
    assert not kept.exists()


def test_an_interrupted_environment_is_made_anew(run: ModuleType) -> None:
    run.VENV.mkdir()
    (run.VENV / "pyvenv.cfg").write_text("home = nowhere", encoding="utf-8")
    assert run.answers(run.make_venv(run.VENV), "import pip")


def test_a_failed_installation_is_one_sentence_with_its_log(run: ModuleType, tmp_path: Path) -> None:
    python = run.make_venv(run.VENV)
    with pytest.raises(run.RunError, match=r"^Installing it failed: ERROR: .*no-such-file.*install\.log\.$") as error:
        run.pip_install(python, "Installing it", ["-r", str(tmp_path / "no-such-file")])
    assert "\n" not in str(error.value)
    assert "no-such-file" in (run.VENV / "install.log").read_text(encoding="utf-8")


def test_the_fingerprint_follows_what_an_installation_depends_on(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run.fingerprint("demo")
    assert run.fingerprint("demo") == first != run.fingerprint("demo,test")
    monkeypatch.setattr(run, "TORCH", "torch==0")
    assert run.fingerprint("demo") != first


def test_torch_is_never_asked_of_comfyuis_requirements(run: ModuleType, tmp_path: Path) -> None:
    text = "torch\ntorchvision>=0.1\ntorchaudio\ntorchsde\n\n# a comment\nav>=14.2.0 # why\ntransformers[x]>=4\n"
    wanted = run.comfyui_requirements(fake_comfyui(tmp_path / "ComfyUI", text))
    assert wanted == ["torchsde", "av>=14.2.0", "transformers[x]>=4", "requests"]


def test_comfyui_is_found_by_name_then_at_home(run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run.find_comfyui() is None
    home = fake_comfyui(tmp_path / "comfy" / "ComfyUI")
    assert run.find_comfyui() == home
    named = fake_comfyui(tmp_path / "elsewhere")
    monkeypatch.setenv("COMFYUI_PATH", str(named))
    assert run.find_comfyui() == named
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(run.RunError, match="COMFYUI_PATH is .* not ComfyUI's folder"):
        run.find_comfyui()


def test_comfyui_is_found_above_the_pack(run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comfyui = fake_comfyui(tmp_path / "here" / "ComfyUI")
    monkeypatch.setattr(run, "__file__", str(comfyui / "custom_nodes" / "any-name" / "run.py"))
    assert run.find_comfyui() == comfyui


def test_comfyuis_own_python_is_preferred(run: ModuleType, tmp_path: Path) -> None:
    comfyui = fake_comfyui(tmp_path / "portable" / "ComfyUI")
    assert run.own_python(comfyui) is None
    embedded = tmp_path / "portable" / "python_embeded" / "python.exe"
    venv = run.venv_python(comfyui / "venv")
    for python in (embedded, venv):
        python.parent.mkdir(parents=True)
        python.touch()
        assert run.own_python(comfyui) == python


def test_the_pack_is_linked_once(run: ModuleType, tmp_path: Path) -> None:
    nodes = tmp_path / "custom_nodes"
    run.link_pack(nodes)
    link = nodes / run.LINK_NAME
    assert link.resolve() == ROOT
    run.link_pack(nodes)
    link.rename(nodes / "under-another-name")
    run.link_pack(nodes)
    assert [p.name for p in nodes.iterdir()] == ["under-another-name"]


def test_a_stranger_in_the_packs_place_is_left_alone(run: ModuleType, tmp_path: Path) -> None:
    stranger = tmp_path / "custom_nodes" / run.LINK_NAME
    stranger.mkdir(parents=True)
    with pytest.raises(run.RunError, match="is not this checkout"):
        run.link_pack(stranger.parent)
    assert stranger.is_dir()


@pytest.mark.parametrize(
    ("args", "value"),
    [([], "8188"), (["--port", "9"], "9"), (["--port=7", "--cpu"], "7"), (["--cpu", "--port"], "8188")],
)
def test_options_are_read(run: ModuleType, args: list[str], value: str) -> None:
    assert run.option(args, "--port", "8188") == value


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking it")
def test_a_request_to_end_reaches_what_was_started() -> None:
    """As a supervisor sends it, to run.py alone: no server is left behind that holds the port."""
    child = "import time; print('begun', flush=True); time.sleep(60)"
    code = f"import run, sys; sys.exit(run.call([sys.executable, '-c', {child!r}]))"
    begun = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "begun\n"
        process.terminate()
        assert process.stdout.read() == ""  # ends when the last one that writes to it does
    assert process.returncode != 0 and time.monotonic() - begun < 30


def test_the_second_start_is_quick() -> None:
    """The environment in which run.py runs these tests is found sound in seconds, and nothing is installed again."""
    if os.environ.get("FLOW3D_RUN") != "test":
        pytest.skip("not run by `python run.py test`")
    stamp = ROOT / ".venv" / "flow3d.json"
    code = (
        "import importlib.util as u; s = u.spec_from_file_location('r', 'run.py'); r = u.module_from_spec(s); "
        "s.loader.exec_module(r); c = r.find_comfyui(); print(r.environment('demo,test', c))"
    )
    before, start = stamp.read_bytes(), time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert time.monotonic() - start < 10
    assert "Installing" not in done.stderr
    assert stamp.read_bytes() == before and json.loads(before)
