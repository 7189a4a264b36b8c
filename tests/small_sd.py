"""Stable Diffusion 1.5's networks at a tenth of their width: real ones, from diffusers and in ComfyUI's terms.

32 channels where SD1.5 has 320, a context of 16 numbers where it has 768, 8 heads, float32.
"""

import functools
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from comfyui_flow3d.models.naming import controlnet_to_diffusers, controlnet_to_ldm, unet_to_diffusers, unet_to_ldm

CHANNELS, CONTEXT, HEADS = 32, 16, 8

State = dict[str, Tensor]
_LAUNCHER = Path(__file__).resolve().parents[1] / "scripts" / "launch_comfyui.py"


@functools.cache
def diffusers() -> Any:
    """The library, which the test is skipped without. It imports torchvision, which may need repair first."""
    spec = importlib.util.spec_from_file_location("launch_comfyui", _LAUNCHER)
    assert spec and spec.loader
    launcher = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(launcher)
    library = pytest.importorskip("diffusers", reason="diffusers is not installed: use `python run.py test`")
    library._flow3d_torchvision = launcher.import_torchvision()  # alive as long as the library
    return library


def small_unet_config() -> dict[str, Any]:
    """The `unet_config` that ComfyUI detects for SD1.5, with the small widths; for its UNetModel and ControlNet classes."""
    return {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": CHANNELS, "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "context_dim": CONTEXT, "num_heads": HEADS,
        "num_head_channels": -1, "use_spatial_transformer": True, "use_linear_in_transformer": False, "legacy": False,
        "use_checkpoint": False, "adm_in_channels": None, "use_temporal_attention": False, "use_temporal_resblock": False,
        "dtype": torch.float32,
    }  # fmt: skip


def _diffusers_config() -> dict[str, Any]:
    return {
        "block_out_channels": (CHANNELS, 2 * CHANNELS, 4 * CHANNELS, 4 * CHANNELS),
        "cross_attention_dim": CONTEXT, "attention_head_dim": HEADS,
    }  # fmt: skip


def random_unet_state(seed: int) -> State:
    """Random weights of the small UNet in ldm's names, without a prefix; norms and biases are random too."""
    return unet_to_ldm(_random(diffusers().UNet2DConditionModel(**_diffusers_config()).state_dict(), seed))


def random_controlnet_state(seed: int, hint_channels: int = 60) -> State:
    """Random weights of the small ControlNet in ldm's names; its zero convolutions are random too, so that it does something."""
    return controlnet_to_ldm(_random(_controlnet(hint_channels).state_dict(), seed))


def as_diffusers(state: State) -> Any:
    """diffusers' UNet2DConditionModel with these weights (ldm's names), for evaluation."""
    model = diffusers().UNet2DConditionModel(**_diffusers_config())
    model.load_state_dict(unet_to_diffusers(state))
    return model.eval()


def as_diffusers_controlnet(state: State) -> Any:
    """diffusers' ControlNetModel with these weights (ldm's names), for evaluation."""
    model = _controlnet(state["input_hint_block.0.weight"].shape[1])
    model.load_state_dict(controlnet_to_diffusers(state))
    return model.eval()


def as_comfy(state: State) -> Any:
    """ComfyUI's UNetModel with these weights (ldm's names), for evaluation. Needs a process with ComfyUI."""
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.ops import disable_weight_init

    model = UNetModel(**small_unet_config(), operations=disable_weight_init)
    model.load_state_dict(state)
    return model.eval()


def as_comfy_model(state: State) -> Any:
    """A MODEL of ComfyUI (ModelPatcher around its SD1.5 class) with these weights, for its samplers."""
    import comfy.model_patcher
    import comfy.supported_models

    config = {name: value for name, value in small_unet_config().items() if name != "dtype"}
    described = comfy.supported_models.SD15(config)
    described.unet_config |= {"num_heads": HEADS}
    described.set_inference_dtype(torch.float32, None)
    model = described.get_model({}, "")
    model.diffusion_model.load_state_dict(state)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model.eval(), load_device=cpu, offload_device=cpu)


def _controlnet(hint_channels: int) -> Any:
    return diffusers().ControlNetModel(**_diffusers_config(), conditioning_channels=hint_channels)


def _random(state: State, seed: int) -> State:
    """Weights that keep the size of what goes through them: normal, divided by the root of a layer's inputs."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, like in sorted(state.items()):
        noise = torch.randn(like.shape, generator=generator)
        if like.ndim > 1:
            made[name] = noise / like[0].numel() ** 0.5
        else:
            made[name] = 0.1 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return made
