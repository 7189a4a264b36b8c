"""`flow3d init-controlnet`: a fresh flow ControlNet, without ComfyUI."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_sd import random_unet_state

from comfyui_flow3d import cli
from comfyui_flow3d.models.flow_controlnet_file import read_flow_controlnet
from comfyui_flow3d.models.flow_format import FlowFormat


def run(*arguments: object) -> int:
    return cli.main(["init-controlnet", *(str(a) for a in arguments)])


def test_a_fresh_network(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save_file(random_unet_state(0), tmp_path / "sd.safetensors")
    assert run("--from", tmp_path / "sd.safetensors", "-o", tmp_path / "a.safetensors") == 0
    assert "a.safetensors" in capsys.readouterr().out
    assert read_flow_controlnet(tmp_path / "a.safetensors").format == FlowFormat()
    numbers = ("--samples", 8, "--delta", 0.02, "--near", 0.5, "--far", 2, "--seed", 3)
    assert run("--from", tmp_path / "sd.safetensors", "-o", tmp_path / "b.safetensors", *numbers) == 0
    file = read_flow_controlnet(tmp_path / "b.safetensors")
    assert file.format == FlowFormat(samples=8, delta=0.02, near=0.5, far=2.0) and file.channels == 24


def test_it_needs_no_comfyui(tmp_path: Path) -> None:
    save_file(random_unet_state(0), tmp_path / "sd.safetensors")
    arguments = ["init-controlnet", "--from", str(tmp_path / "sd.safetensors"), "-o", str(tmp_path / "a.safetensors")]
    code = f"import sys; from comfyui_flow3d import cli; assert cli.main({arguments!r}) == 0; print([m for m in sys.modules if m.startswith(('comfy.', 'diffusers'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save_file({"lora_unet_x.lora_up.weight": torch.zeros(1)}, tmp_path / "lora.safetensors")
    assert run("--from", tmp_path / "lora.safetensors", "-o", tmp_path / "a.safetensors") == 2
    assert "lora.safetensors is a LoRA; this needs a checkpoint of Stable Diffusion 1.5" in capsys.readouterr().err
    assert run("--from", tmp_path / "no.safetensors", "-o", tmp_path / "a.safetensors") == 2
    assert "no such file" in capsys.readouterr().err
    assert run("--from", tmp_path / "lora.safetensors", "-o", tmp_path / "a.safetensors", "--near", 2) == 2
    assert "0 < near < far" in capsys.readouterr().err
