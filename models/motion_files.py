"""Motion modules from the files that carry them, as one network.

    AnimateDiff v1 (24 positions), v2 (a layer in the middle block), v3 (32 positions), MagicPortrait (all three)
                    {down_blocks.0-3 | mid_block | up_blocks.0-3}.motion_modules.N.temporal_transformer.*
    X-Portrait      model.diffusion_model.{input | output}_blocks_motion_module.N.0.temporal_transformer.*
    diffusers       a MotionAdapter: as AnimateDiff's without `temporal_transformer`, other names within a layer

What a trainer or a whole checkpoint holds besides is passed over; of the motion weights nothing may be missing or left over.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from ..flow3d.errors import InputError
from .motion_network import (
    MIDDLE,
    PLACES,
    MotionConfig,
    MotionNetwork,
    Place,
    layer_keys,
    layer_name,
    sinusoidal_positions,
)
from .weights import kind_of, read_weights, unexpected

WANTED = "a motion module for SD1.5: AnimateDiff v1, v2 or v3, MagicPortrait's, or X-Portrait's checkpoint"
_TABLES = tuple(f"transformer_blocks.0.attention_blocks.{n}.pos_encoder.pe" for n in range(2))
_UNWRITTEN_POSITIONS = 32
"""Rows of the table of sines that a file without tables was trained with: AnimateDiff's v2, and what came after it."""

_ANIMATEDIFF = re.compile(
    r"^(?:module\.|unet\.)*(?P<part>down_blocks|mid_block|up_blocks)(?:\.(?P<block>\d+))?\.motion_modules\.(?P<n>\d+)"
    r"\.(?P<inner>temporal_transformer\.)?(?P<rest>.+)$"
)
_X_PORTRAIT = re.compile(
    r"^(?:model\.diffusion_model\.)?(?P<part>input|output)_blocks_motion_module\.(?P<n>\d+)\.0"
    r"\.temporal_transformer\.(?P<rest>.+)$"
)
_IN_DIFFUSERS = {
    "attn1.": "attention_blocks.0.",
    "attn2.": "attention_blocks.1.",
    "norm1.": "norms.0.",
    "norm2.": "norms.1.",
    "norm3.": "ff_norm.",
}
Named = tuple[Place, str]


def read_motion(path: Path) -> MotionNetwork:
    """The motion module in a file, in the file's own precision.

    Raises InputError for a file of another kind, and where motion weights are missing or left over, by name.
    """
    state = read_weights(path).state
    found = {name: value for name, value in state.items() if "motion_module" in name}
    if not found or "LoRA" in (kind := kind_of(state)):
        raise unexpected(path, kind if found else kind_of(state), WANTED)
    in_diffusers = not any(".temporal_transformer." in name for name in found)
    layers = _by_place(path, found, _diffusers_names if in_diffusers else _same)
    _with_positions(layers)
    _check_names(path, layers)
    config = MotionConfig(
        {place: len(weights["norm.weight"]) for place, weights in layers.items()},
        next(iter(layers.values()))[_TABLES[0]].shape[1],
        "clip" if in_diffusers else "frame",
    )
    return _built(path, layers, config).eval().requires_grad_(False)


def _by_place(
    path: Path, found: Mapping[str, Tensor], names: Callable[[str], list[str]]
) -> dict[Place, dict[str, Tensor]]:
    layers: dict[Place, dict[str, Tensor]] = {}
    unknown = []
    for name, value in found.items():
        where = _place(name)
        if where is None:
            unknown.append(name)
            continue
        place, rest = where
        layers.setdefault(place, {}).update({n: value for n in names(rest)})
    if unknown:
        raise InputError(f"{path.name} has motion weights that are not known: {_some(unknown)}. Choose {WANTED}.")
    return layers


def _place(name: str) -> Named | None:
    """Where in ComfyUI's UNetModel a weight belongs, and its name there; None: nowhere in SD1.5's."""
    if match := _X_PORTRAIT.match(name):
        places = [place for place in PLACES if place[0] == match["part"]]
        place = places[int(match["n"])] if int(match["n"]) < len(places) else None
    elif match := _ANIMATEDIFF.match(name):
        block, n = int(match["block"] or 0), int(match["n"])
        if match["part"] == "mid_block":
            place = MIDDLE if n == 0 else None
        elif match["part"] == "down_blocks":
            place = ("input", 1 + 3 * block + n) if block < 4 and n < 2 else None
        else:
            place = ("output", 3 * block + n) if block < 4 and n < 3 else None
    else:
        return None
    return (place, match["rest"]) if place else None


def _same(rest: str) -> list[str]:
    return [rest]


def _diffusers_names(rest: str) -> list[str]:
    """diffusers has one table of positions for both attentions of a block."""
    head, dot, tail = rest.partition("transformer_blocks.0.")
    if not dot:
        return [rest]
    if tail == "pos_embed.pe":
        return list(_TABLES)
    for theirs, ours in _IN_DIFFUSERS.items():
        if tail.startswith(theirs):
            return [f"transformer_blocks.0.{ours}{tail[len(theirs) :]}"]
    return [rest]


def _with_positions(layers: Mapping[Place, dict[str, Tensor]]) -> None:
    """Fills in the tables of a file that has none at all: they are sines, which newer trainers do not write."""
    if any(table in weights for weights in layers.values() for table in _TABLES):
        return
    for weights in layers.values():
        if (norm := weights.get("norm.weight")) is not None:
            weights |= dict.fromkeys(_TABLES, sinusoidal_positions(_UNWRITTEN_POSITIONS, len(norm)).to(norm.dtype))


def _check_names(path: Path, layers: Mapping[Place, Mapping[str, Tensor]]) -> None:
    places = (*PLACES, MIDDLE) if MIDDLE in layers else PLACES
    wanted = {(place, name) for place in places for name in layer_keys()}
    given = {(place, name) for place, weights in layers.items() for name in weights}
    for what, names in (("missing", wanted - given), ("left over", given - wanted)):
        if names:
            told = _some(sorted(f"{layer_name(place)}.{name}" for place, name in names))
            raise InputError(f"{path.name}: motion weights are {what}: {told}. Choose {WANTED}.")


def _built(path: Path, layers: Mapping[Place, Mapping[str, Tensor]], config: MotionConfig) -> MotionNetwork:
    state = {
        f"layers.{layer_name(place)}.{name}": value
        for place, weights in layers.items()
        for name, value in weights.items()
    }
    network = MotionNetwork.without_weights(config)
    wrong = [name for name, like in network.state_dict().items() if state[name].shape != like.shape]
    if wrong:
        raise InputError(
            f"{path.name}: motion weights of another size than their layers': {_some(wrong)}. Choose {WANTED}."
        )
    bad = [name for name, value in state.items() if not bool(value.isfinite().all())]
    if bad:
        raise InputError(f"{path.name}: NaN or infinity in {_some(bad)}. Download the file again.")
    network.load_state_dict(state, assign=True)
    return network


def _some(names: list[str], shown: int = 3) -> str:
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
