"""The two namings of Stable Diffusion 1.5's weights: ldm's, which ComfyUI computes with, and diffusers'.

Nothing here needs ComfyUI. The maps are written for SD1.5's structure (four levels, two residual blocks each, attention
in all levels but the last) and hold for any width of its channels.
"""

from collections.abc import Collection, Mapping
from functools import cache
from typing import TypeVar

from ..flow3d.errors import InputError

V = TypeVar("V")
LEVELS, BLOCKS = 4, 2

_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
}
_BOTH = ("weight", "bias")
_ATTENTION = [f"{part}.{end}" for part in ("norm", "proj_in", "proj_out") for end in _BOTH]
_TRANSFORMER = [
    *(f"{part}.{end}" for part in ("norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2") for end in _BOTH),
    *(f"{a}.{part}" for a in ("attn1", "attn2") for part in ("to_q.weight", "to_k.weight", "to_v.weight")),
    *(f"{a}.to_out.0.{end}" for a in ("attn1", "attn2") for end in _BOTH),
]
_ATTENTION += [f"transformer_blocks.0.{name}" for name in _TRANSFORMER]


def unet_to_ldm(state: Mapping[str, V], absent: Collection[str] = ()) -> dict[str, V]:
    """A UNet's weights from diffusers' names to ldm's.

    Args:
        state: by their full names, without a prefix such as `unet.`.
        absent: beginnings of names (as they are in `state`) that may be missing: `("conv_norm_out.", "conv_out.")`.

    Raises InputError that tells by name what is missing or left over; so do the other three.
    """
    return _renamed(state, {d: n for n, d in unet_names().items()}, absent)


def unet_to_diffusers(state: Mapping[str, V], absent: Collection[str] = ()) -> dict[str, V]:
    """A UNet's weights from ldm's names, without `model.diffusion_model.`, to diffusers'."""
    return _renamed(state, unet_names(), absent)


def controlnet_to_ldm(state: Mapping[str, V], absent: Collection[str] = ()) -> dict[str, V]:
    """A ControlNet's weights from diffusers' names to ldm's."""
    return _renamed(state, {d: n for n, d in controlnet_names().items()}, absent)


def controlnet_to_diffusers(state: Mapping[str, V], absent: Collection[str] = ()) -> dict[str, V]:
    """A ControlNet's weights from ldm's names, without `control_model.`, to diffusers'."""
    return _renamed(state, controlnet_names(), absent)


def in_ldm(names: Collection[str]) -> bool:
    """Whether a UNet's or ControlNet's weights have ldm's names."""
    return any(name.startswith("input_blocks.") for name in names)


def without_prefix(state: Mapping[str, V], prefix: str) -> dict[str, V]:
    """The weights below `prefix`, named without it."""
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


@cache
def unet_names() -> Mapping[str, str]:
    """Every weight of SD1.5's UNet: ldm's name to diffusers'."""
    names = _encoder_names()
    for level in range(LEVELS):
        for block in range(BLOCKS + 1):
            n = level * (BLOCKS + 1) + block
            names |= _residual(f"output_blocks.{n}.0", f"up_blocks.{level}.resnets.{block}", shortcut=True)
            if level > 0:
                names |= _same(f"output_blocks.{n}.1", f"up_blocks.{level}.attentions.{block}", _ATTENTION)
            if block == BLOCKS and level < LEVELS - 1:
                last = 2 if level > 0 else 1
                names |= _same(f"output_blocks.{n}.{last}.conv", f"up_blocks.{level}.upsamplers.0.conv", _BOTH)
    return names | _same("out.0", "conv_norm_out", _BOTH) | _same("out.2", "conv_out", _BOTH)


@cache
def controlnet_names() -> Mapping[str, str]:
    """Every weight of SD1.5's ControlNet: ldm's name to diffusers'."""
    names = _encoder_names()
    for n in range(LEVELS * (BLOCKS + 1)):
        names |= _same(f"zero_convs.{n}.0", f"controlnet_down_blocks.{n}", _BOTH)
    names |= _same("middle_block_out.0", "controlnet_mid_block", _BOTH)
    hint = ["conv_in", *(f"blocks.{i}" for i in range(6)), "conv_out"]
    for i, part in enumerate(hint):
        names |= _same(f"input_hint_block.{2 * i}", f"controlnet_cond_embedding.{part}", _BOTH)
    return names


def _encoder_names() -> dict[str, str]:
    """What UNet and ControlNet have in common: time embedding, downward half, middle."""
    names = _same("time_embed.0", "time_embedding.linear_1", _BOTH) | _same("time_embed.2", "time_embedding.linear_2", _BOTH)
    names |= _same("input_blocks.0.0", "conv_in", _BOTH)
    for level in range(LEVELS):
        first = 1 + level * (BLOCKS + 1)
        for block in range(BLOCKS):
            widens = block == 0 and level in (1, 2)
            ours, theirs = f"input_blocks.{first + block}", f"down_blocks.{level}"
            names |= _residual(f"{ours}.0", f"{theirs}.resnets.{block}", shortcut=widens)
            if level < LEVELS - 1:
                names |= _same(f"{ours}.1", f"{theirs}.attentions.{block}", _ATTENTION)
        if level < LEVELS - 1:
            names |= _same(f"input_blocks.{first + BLOCKS}.0.op", f"down_blocks.{level}.downsamplers.0.conv", _BOTH)
    names |= _residual("middle_block.0", "mid_block.resnets.0") | _residual("middle_block.2", "mid_block.resnets.1")
    return names | _same("middle_block.1", "mid_block.attentions.0", _ATTENTION)


def _residual(ldm: str, diffusers: str, shortcut: bool = False) -> dict[str, str]:
    parts = _RESIDUAL | ({"skip_connection": "conv_shortcut"} if shortcut else {})
    return {f"{ldm}.{a}.{end}": f"{diffusers}.{b}.{end}" for a, b in parts.items() for end in _BOTH}


def _same(ldm: str, diffusers: str, parts: Collection[str]) -> dict[str, str]:
    return {f"{ldm}.{part}": f"{diffusers}.{part}" for part in parts}


def _renamed(state: Mapping[str, V], names: Mapping[str, str], absent: Collection[str]) -> dict[str, V]:
    missing = [n for n in names if n not in state and not n.startswith(tuple(absent))]
    unknown = [n for n in state if n not in names]
    if missing or unknown:
        told = [f"{what}: {_some(which)}" for what, which in (("missing", missing), ("unknown", unknown)) if which]
        raise InputError(f"These are not Stable Diffusion 1.5's weights, {'; '.join(told)}. Take a file made for SD1.5.")
    return {names[name]: value for name, value in state.items()}


def _some(names: list[str], shown: int = 3) -> str:
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
