"""The flow ControlNet's network: ComfyUI's own class for SD1.5, run from the hint block's result on."""

from collections.abc import Callable, Mapping
from typing import Any

import comfy.model_management
import comfy.ops
import comfy.supported_models
import comfy.utils
import torch
from comfy.cldm.cldm import ControlNet as Network
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor

from ..flow3d.errors import InputError
from .flow_controlnet_file import FIRST_HINT

Control = dict[str, list[Tensor | None]]  # residuals as ComfyUI's UNet takes them

_TILE, _TILE_ON_GPU = 8, 32  # rows and columns of a hint that are made at a time: 64 launches would be long on a GPU
_BAND = 32  # rows of a hint whose flow is there at a time: a multiple of both
_BEFORE, _BEHIND = 3, 2  # rows of 8 pixels beside them that the hint block's eight convolutions look at


def build_network(state: Mapping[str, Tensor], name: str, device: torch.device) -> tuple[Network, torch.dtype | None]:
    """The network of these weights (ldm's names), where ComfyUI keeps models that wait.

    Returns the network, of the type that ComfyUI chooses for `device`, and the type to compute in where that is another.
    Raises InputError, which names the file `name`, where the weights do not fit together.
    """
    management = comfy.model_management
    possible = list(comfy.supported_models.SD15.supported_inference_dtypes)
    dtype = management.unet_dtype(model_params=-1, supported_dtypes=possible, weight_dtype=comfy.utils.weight_dtype(state))
    cast = management.unet_manual_cast(dtype, device)
    network = Network(
        **network_config(state), dtype=dtype, device=management.unet_offload_device(),
        operations=comfy.ops.pick_operations(dtype, cast),
    )  # fmt: skip
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{name}: its weights do not fit together ({str(error).splitlines()[-1].strip()}).") from error
    return network.eval(), cast


def network_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What ComfyUI's ControlNet class is built with for SD1.5, at the width of these weights (ldm's names)."""
    return {
        "image_size": 32, "in_channels": 4, "model_channels": state["input_blocks.0.0.weight"].shape[0],
        "hint_channels": state[FIRST_HINT].shape[1], "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1, "use_spatial_transformer": True,
        "context_dim": state["input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"].shape[1], "num_heads": 8,
        "legacy": False,
    }  # fmt: skip


def write_hint(
    network: Network, flow: Callable[[int, int], Tensor], device: torch.device, dtype: torch.dtype, out: Tensor
) -> None:
    """What the hint block makes of a frame's flow, into `out` (1, 320, h, w), anywhere and of any type.

    In bands of rows, so that a whole frame's flow, 31 MB at 512 x 512, is never there; and those in tiles, because a convolution
    may take nine times its input's memory for itself.

    Args:
        flow: gives the rows of pixels from one to before another, (1, C, rows, 8 w), anywhere and of any type.
        device, dtype: where the network is, and what it computes in.
    """
    height, width = out.shape[2:]
    tile = _TILE if device.type == "cpu" else _TILE_ON_GPU
    for start, stop, over in _tiles(0, height, _BAND):
        band = flow(8 * over, 8 * min(stop + _BEHIND, height))
        for top, bottom, above in _tiles(start, stop, tile):
            rows = band[:, :, 8 * (above - over) : 8 * (bottom + _BEHIND - over)]
            for left, right, before in _tiles(0, width, tile):
                part = rows[..., 8 * before : 8 * (right + _BEHIND)].to(device, dtype)
                hint = network.input_hint_block(part, None, None)
                out[:, :, top:bottom, left:right] = hint[:, :, top - above : bottom - above, left - before : right - before]


def rows_of_flow(height: int) -> int:
    """The most rows of pixels that `write_hint` asks for at a time, for a hint of `height` rows."""
    return 8 * min(height, _BEFORE + _BAND + _BEHIND)


def _tiles(first: int, end: int, tile: int) -> list[tuple[int, int, int]]:
    """(first, end, where what it depends on begins) of each."""
    return [(i, min(i + tile, end), max(i - _BEFORE, 0)) for i in range(first, end, tile)]


def residuals(network: Network, x: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor) -> Control:
    """What the network adds to the UNet, from hints that have been through its hint block: its own forward pass from there on.

    Args:
        x: (B, 4, h, w) scaled latents, B = k n. hint: (n, 320, h, w) of any type, for each of k halves. timesteps: (B,), 0 to
            999. context: (B, tokens, 768).
    """
    emb = network.time_embed(timestep_embedding(timesteps, network.model_channels, repeat_only=False).to(x.dtype))
    out: list[Tensor | None] = []
    h = x
    for i, (block, zero) in enumerate(zip(network.input_blocks, network.zero_convs, strict=True)):
        h = block(h, emb, context)
        if i == 0:
            h.unflatten(0, (-1, len(hint))).add_(hint)  # into itself, without a copy of the hint for each half
        out.append(zero(h, emb, context))
    h = network.middle_block(h, emb, context)
    return {"input": [], "middle": [network.middle_block_out(h, emb, context)], "output": out}
