"""The appearance network: SD1.5's UNet, run on the reference for the states that its self-attentions read."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.ops
import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..flow3d.errors import InputError
from .appearance_files import read_appearance, unet_config
from .reference_attention import Place, place_of, transformer_blocks


class AppearanceNetwork(nn.Module):
    """ComfyUI's UNet without its last layers, whose output nothing uses.

    Args:
        config: UNetModel's arguments without `dtype`, `device` and `operations`.
        dtype: the type in which the weights are kept.
        compute_dtype: the type in which it runs; where it differs, weights are cast layer by layer.
    """

    def __init__(self, config: Mapping[str, Any], dtype: torch.dtype, compute_dtype: torch.dtype | None = None):
        super().__init__()
        self.compute_dtype = compute_dtype or dtype
        operations = comfy.ops.pick_operations(dtype, self.compute_dtype)
        self.unet = UNetModel(**config, dtype=dtype, operations=operations)
        self.unet.out = nn.Identity()

    def get_dtype(self) -> torch.dtype:
        """What ComfyUI's memory management asks a model for."""
        return self.unet.dtype


@dataclass(frozen=True)
class Appearance:
    """What a wire of type FLOW3D_APPEARANCE carries: an AppearanceNetwork under ComfyUI's memory management, and its name."""

    patcher: ModelPatcher
    name: str

    @property
    def network(self) -> AppearanceNetwork:
        return self.patcher.model


@dataclass(frozen=True)
class Written:
    """States (R, h * w, C) after one block's norm1, of R references, and their grid (h, w)."""

    states: Tensor
    grid: tuple[int, int]


class _AllWritten(Exception):
    """Ends a pass of a UNet: of what would follow nothing is read."""


def write_states(unet: UNetModel, latents: Tensor, timestep: float, context: Tensor) -> dict[Place, Written]:
    """A pass of a UNet over references, for the states after norm1 of every spatial transformer block. It ends with the last.

    Args:
        latents: (R, 4, h, w), clean, in the scale of the network.
        timestep: what the network is told of the noise, 0..999.
        context: (1, L, D) the encoded prompt.
    """
    wanted = len(transformer_blocks(unet))
    written: dict[Place, Written] = {}

    def write(n: Tensor, context: Tensor, value: Tensor, options: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        height, width = options["activations_shape"][-2:]
        written[place_of(options)] = Written(n, (height, width))
        if len(written) == wanted:
            raise _AllWritten
        return n, context, value

    count = len(latents)
    timesteps = torch.full((count,), timestep, device=latents.device)
    options = {"patches": {"attn1_patch": [write]}}
    with suppress(_AllWritten):
        unet(latents, timesteps=timesteps, context=context.expand(count, -1, -1), transformer_options=options)
    return written


def load_appearance(path: Path) -> Appearance:
    """The appearance network of a file, see `appearance_files.py`, on ComfyUI's offload device.

    Raises InputError for a file of another kind, and where weights are missing or left over.
    """
    state = read_appearance(path)
    load, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    parameters, weight_dtype = comfy.utils.calculate_parameters(state), comfy.utils.weight_dtype(state)
    dtype = comfy.model_management.unet_dtype(load, parameters, weight_dtype=weight_dtype)
    network = AppearanceNetwork(unet_config(state), dtype, comfy.model_management.unet_manual_cast(dtype, load))
    try:
        network.unet.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise InputError(
            f"{path.name}: its weights have other sizes than SD1.5's UNet ({first}). Choose another."
        ) from error
    return Appearance(ModelPatcher(network.to(offload).eval(), load, offload), path.name)
