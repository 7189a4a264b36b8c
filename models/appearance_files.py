"""Appearance networks from the files that carry them, as a state of ComfyUI's UNetModel (ldm naming, without `out`).

    X-Portrait                      appearance_control_model.* in ldm naming, without `out`, with an unused `input_hint_block`
    MagicPortrait, AnimateAnyone    reference_unet files in diffusers naming, with or without `conv_norm_out` and `conv_out`
    an SD1.5 checkpoint             model.diffusion_model.*, or that network alone in either naming

Whatever has no use here, the rest of a checkpoint and the layers behind the last attention, is passed over.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.model_detection
from torch import Tensor

from ..flow3d.errors import InputError
from .naming import in_ldm, unet_to_diffusers, unet_to_ldm, without_prefix
from .weights import kind_of, read_weights, unexpected

WANTED = "X-Portrait's checkpoint, a reference_unet file of MagicPortrait or AnimateAnyone, or an SD1.5 checkpoint"
_PREFIXES = ("appearance_control_model.", "model.diffusion_model.")
_UNUSED = ("out.", "input_hint_block.")
_HEADS = {"num_heads": 8, "num_head_channels": -1}
"""SD1.5's attention heads, which no weight tells."""


def read_appearance(path: Path) -> dict[str, Tensor]:
    """The appearance network in a file. Raises InputError for a file of another kind, or with weights missing or left over."""
    state = read_weights(path).state
    network = next((part for prefix in _PREFIXES if (part := without_prefix(state, prefix))), state)
    if not {"input_blocks.0.0.weight", "conv_in.weight"} & network.keys() or _of_another_kind(network):
        raise unexpected(path, kind_of(state), WANTED)
    try:
        if not in_ldm(network):
            network = unet_to_ldm(network, absent=("conv_norm_out.", "conv_out."))
        network = {name: weight for name, weight in network.items() if not name.startswith(_UNUSED)}
        unet_to_diffusers(network, absent=("out.",))  # tells by name what is missing or left over
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from error
    return network


def unet_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of ComfyUI's UNetModel for a network in ldm naming."""
    return {**comfy.model_detection.detect_unet_config(dict(state), ""), **_HEADS}


def _of_another_kind(network: Mapping[str, Tensor]) -> bool:
    """Whether it is no UNet (a ControlNet, a guidance encoder), or SDXL's, which takes a label beside the prompt."""
    ours = ("output_blocks.", "up_blocks.")
    return not any(n.startswith(ours) for n in network) or any(
        n.startswith(("label_emb.", "add_embedding.")) for n in network
    )
