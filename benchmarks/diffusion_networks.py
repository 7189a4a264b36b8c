"""Random networks of SD1.5's structure at any width, for the benchmarks of the diffusion half, and ComfyUI to run them in."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..flow3d.camera import Camera
from ..flow3d.flow.field import FlowField
from ..flow3d.head.load import load_head
from ..flow3d.io.motions import load_motion

HINT_CHANNELS = 60


@dataclass(frozen=True)
class Size:
    """Channels where SD1.5 has 320, numbers a token of text where it has 768, and the latents' side."""

    channels: int
    context: int
    latent: int
    dtype: torch.dtype


def start_comfyui(folder: Path, device: torch.device) -> object:
    """Make `import comfy` find ComfyUI in `folder`; it must come before our modules that need it. Keep what it returns."""
    sys.path.insert(0, str(folder))
    sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
    from launch_comfyui import import_torchvision

    repaired = import_torchvision()
    import comfy.cli_args

    comfy.cli_args.args.cpu = device.type == "cpu"
    # As on a GPU; on the CPU ComfyUI's own attention takes several times as long.
    comfy.cli_args.args.use_pytorch_cross_attention = True
    return repaired


def fill(module: nn.Module) -> None:
    """Random weights that keep the size of what goes through them."""
    for weight in module.parameters():
        nn.init.normal_(weight, std=weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1)


def a_model(size: Size, device: torch.device) -> Any:
    """A MODEL: ComfyUI's ModelPatcher around its SD1.5 class."""
    import comfy.model_patcher
    import comfy.supported_models

    described = comfy.supported_models.SD15(_unet_arguments(size))
    described.set_inference_dtype(size.dtype, None)
    base = described.get_model({}, "", device=device).to(device).eval()
    fill(base.diffusion_model)
    return comfy.model_patcher.ModelPatcher(base, device, device)


def an_appearance(size: Size, device: torch.device) -> Any:
    """What Load Appearance Network gives."""
    import comfy.model_patcher

    from ..models.appearance_network import Appearance, AppearanceNetwork

    network = AppearanceNetwork(_unet_arguments(size), size.dtype).to(device).eval()
    fill(network)
    return Appearance(comfy.model_patcher.ModelPatcher(network, device, device), "random")


def a_control(size: Size, field: FlowField, device: torch.device) -> Any:
    """A flow ControlNet steered by the field."""
    import comfy.ops

    from ..models.flow_controlnet import FlowControlNet
    from ..models.flow_hints import FlowHints

    network = control_network(size, device, comfy.ops.disable_weight_init)
    fill(network)
    control = FlowControlNet(network, "random", None, load_device=device)
    return control.steered(FlowHints(field), 1.0, (0.0, 1.0), None)


def control_network(size: Size, device: torch.device | str, operations: Any) -> Any:
    """ComfyUI's ControlNet for hints of 60 channels, its weights not yet filled."""
    from comfy.cldm.cldm import ControlNet

    arguments = _unet_arguments(size) | {"hint_channels": HINT_CHANNELS, "dtype": size.dtype, "device": device}
    del arguments["out_channels"]
    return ControlNet(**arguments, operations=operations).eval()


def a_motion_module(size: Size, device: torch.device, positions: str = "as trained") -> Any:
    """Temporal layers at all 21 places, with sines for positions."""
    import comfy.model_patcher

    from ..models.motion import MotionModule
    from ..models.motion_network import MIDDLE, PLACES, MotionConfig, MotionNetwork, sinusoidal_positions

    widths = [size.channels * n for n in (1, 2, 4, 4)]
    inputs, outputs = [w for w in widths for _ in range(2)], [w for w in reversed(widths) for _ in range(3)]
    channels = dict(zip(PLACES, [*inputs, *outputs], strict=True)) | {MIDDLE: widths[-1]}
    network = MotionNetwork(MotionConfig(channels, 32))
    fill(network)
    for name, table in network.named_buffers():
        assert name.endswith("pe")
        table.copy_(sinusoidal_positions(*table.shape[1:]))
    network.to(device, size.dtype)
    return MotionModule("random", comfy.model_patcher.ModelPatcher(network, device, device), positions)  # type: ignore[arg-type]


def a_field(pixels: int, frames: int) -> FlowField:
    """A bundled motion, over and over, in the view of a portrait crop."""
    head = load_head("open")
    motion = load_motion("turn", head)
    target = motion[[i % len(motion) for i in range(frames)]]
    return FlowField(motion[:1], target, head, Camera.from_field_of_view(pixels, pixels))


def _unet_arguments(size: Size) -> dict[str, Any]:
    """SD1.5's structure for ComfyUI's UNetModel."""
    return {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": size.channels,
        "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "transformer_depth_middle": 1,
        "context_dim": size.context, "num_heads": 8, "num_head_channels": -1, "use_spatial_transformer": True,
        "use_linear_in_transformer": False, "legacy": False, "use_checkpoint": False, "adm_in_channels": None,
        "use_temporal_attention": False, "use_temporal_resblock": False,
    }  # fmt: skip
