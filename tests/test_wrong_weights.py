"""Every loader of weights names a file of another kind for what it is, reads no file that is cut short, and runs no code."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy_process import in_comfyui
from safetensors.torch import save_file

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.models.naming import controlnet_names, unet_names

LDM = [f"model.diffusion_model.{name}" for name in unet_names()]
GUIDANCE = ["conv_in.weight", "blocks.0.weight", "attentions.5.norm.weight", "conv_out.weight"]
KINDS: dict[str, tuple[list[str], str]] = {
    "SDXL checkpoint": ([*LDM, "model.diffusion_model.label_emb.0.0.weight", "conditioner.embedders.0.x"], "an SDXL checkpoint"),
    "SDXL UNet": ([*unet_names().values(), "add_embedding.linear_1.weight"], "an SDXL UNet"),
    "SDXL ControlNet": ([*controlnet_names().values(), "add_embedding.linear_1.weight"], "an SDXL ControlNet"),
    "LoRA": (["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"], "a LoRA"),
    "motion LoRA": (["down_blocks.0.motion_modules.0.temporal_transformer.processor.to_q_lora.up.weight"], "a LoRA for AnimateDiff"),
    "guidance encoder": (GUIDANCE, "a guidance encoder of MagicPortrait"),
    "another project's": (GUIDANCE[:2] + GUIDANCE[3:], "a guidance encoder of another project"),
    "VAE": (["first_stage_model.encoder.conv_in.weight", "first_stage_model.decoder.conv_in.weight"], "a VAE"),
    "text encoder": (["text_model.encoder.layers.0.mlp.fc1.weight"], "a text encoder"),
}  # fmt: skip


class Code:
    """What a hostile file holds: a call."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.mark),)


def reader(name: str) -> Callable[[Path], Any]:
    from comfyui_flow3d.models.appearance_network import load_appearance
    from comfyui_flow3d.models.flow_controlnet import load_flow_controlnet
    from comfyui_flow3d.models.motion import load_motion

    return {"appearance": load_appearance, "flow ControlNet": load_flow_controlnet, "motion": load_motion}[name]


LOADERS = ["appearance", "flow ControlNet", "motion"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loader", LOADERS)
@in_comfyui
def test_another_kind_is_named(loader: str, kind: str, tmp_path: Path) -> None:
    names, says = KINDS[kind]
    save_file({name: torch.zeros(2) for name in names}, tmp_path / "f.safetensors")
    with pytest.raises(InputError, match=f"^f.safetensors is {says}.*; this needs .*Choose another file"):
        reader(loader)(tmp_path / "f.safetensors")


@pytest.mark.parametrize("name", ["f.safetensors", "f.pth"])
@pytest.mark.parametrize("loader", LOADERS)
@in_comfyui
def test_a_file_cut_short_is_told(loader: str, name: str, tmp_path: Path) -> None:
    state, file = {n: torch.zeros(2) for n in unet_names()}, tmp_path / name
    save_file(state, file) if name.endswith("safetensors") else torch.save(state, file)
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(InputError, match=f"^{name} is cut short"):
        reader(loader)(file)


@pytest.mark.parametrize("loader", LOADERS)
@in_comfyui
def test_code_is_not_run(loader: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(2)}, "callback": Code(tmp_path / "ran")}, tmp_path / "f.pth")
    with pytest.raises(InputError, match=r"^f.pth holds program code \(\w+\.mkdir\), which is never run"):
        reader(loader)(tmp_path / "f.pth")
    assert not (tmp_path / "ran").exists()
