"""Files of flow ControlNets: reading one of any naming, and starting one from Stable Diffusion 1.5.

The network is SD1.5's ControlNet with 3 N conditioning channels, diffusers' `ControlNetModel(conditioning_channels=60)`.
Nothing here needs ComfyUI.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..flow3d.errors import InputError
from ..flow3d.io.files import check_target, written
from .flow_format import FlowFormat
from .naming import (
    controlnet_names,
    controlnet_to_diffusers,
    controlnet_to_ldm,
    in_ldm,
    unet_to_diffusers,
    unet_to_ldm,
    without_prefix,
)
from .weights import kind_of, read_weights, unexpected

State = dict[str, Tensor]
HINT = "input_hint_block."
FIRST_HINT = f"{HINT}0.weight"
Rename = Callable[[State], State]
_CONTROLNETS = ("a ControlNet", "X-Portrait's checkpoint")
_CHECKPOINTS = ("an SD1.5 checkpoint", "a UNet")
_LDM_PREFIX, _X_PORTRAIT = "control_model.", "pose_control_model."


@dataclass(frozen=True)
class FlowControlNetFile:
    """A flow ControlNet's weights, in ldm's names."""

    state: State
    format: FlowFormat | None  # None: the file tells nothing of the encoding it was trained on

    @property
    def channels(self) -> int:
        return self.state[FIRST_HINT].shape[1]


def read_flow_controlnet(path: Path) -> FlowControlNetFile:
    """Read a file in diffusers' or ldm's naming.

    Raises InputError where it holds something else, or its weights contradict its metadata or are not finite.
    """
    weights = read_weights(path)
    wanted = "a flow ControlNet"
    if (kind := kind_of(weights.state)) != "a ControlNet":
        raise unexpected(path, kind, wanted)
    state = _controlnet(weights.state, path)
    file = FlowControlNetFile(state, FlowFormat.read(weights.metadata, path.name))
    if file.channels == 3:
        raise unexpected(path, "a ControlNet that reads pictures (3 channels)", f"{wanted} (60 channels)")
    if file.format and file.channels != file.format.channels:
        raise InputError(
            f"{path.name}: its weights read {file.channels} channels, but its metadata tells of {file.format.samples} samples, "
            f"which make {file.format.channels}. Make or download the file again."
        )
    bad = next((name for name, value in state.items() if not value.isfinite().all()), None)
    if bad:
        raise InputError(f"{path.name}: '{bad}' holds a NaN or infinity. Make or download the file again.")
    return file


def init_controlnet(source: Path, target: Path, format: FlowFormat | None = None, seed: int = 0) -> None:
    """Write a fresh flow ControlNet, to be trained, as safetensors in diffusers' naming with the encoding's metadata.

    From a checkpoint or UNet of SD1.5 it takes the downward half, and its zero convolutions are zero: the network changes
    nothing yet. From X-Portrait's checkpoint or another ControlNet it takes everything but the hint's convolutions. These
    are new, the last of them zero (Zhang et al., Adding Conditional Control to Text-to-Image Diffusion Models, ICCV 2023).

    Args:
        source: weights in ldm's or diffusers' naming; the result has their type.
        format: the encoding it is to be trained on; None: version 2.
        seed: of the new convolutions' random weights.

    Raises InputError where the source is of another kind, or `target` cannot be written.
    """
    check_target(target, (".safetensors",))
    format = format or FlowFormat()
    state = _without_hint(read_weights(source).state, source)
    first = state["input_blocks.0.0.weight"]
    state |= _new_hint(format.channels, first.shape[0], first.dtype, seed)
    named = {name: value.contiguous() for name, value in controlnet_to_diffusers(state).items()}
    with written(target) as part:
        save_file(named, part, format.metadata())


def _without_hint(weights: State, path: Path) -> State:
    """A ControlNet in ldm's names, but for its hint's convolutions."""
    if kind_of(weights) in _CONTROLNETS:
        return {name: value for name, value in _controlnet(weights, path).items() if not name.startswith(HINT)}
    unet = _unet(weights, path)
    shared = [name for name in controlnet_names() if name.startswith(("time_embed.", "input_blocks.", "middle_block."))]
    return {name: unet[name] for name in shared} | _zero_convolutions(unet)


def _zero_convolutions(unet: State) -> State:
    """One behind each of the 12 input blocks, one behind the middle."""
    last = ("0.weight", "0.op.weight", "0.out_layers.3.weight")
    widths = [next(len(unet[k]) for end in last if (k := f"input_blocks.{n}.{end}") in unet) for n in range(12)]
    like = unet["input_blocks.0.0.weight"]
    made: State = {}
    for name, width in [*((f"zero_convs.{n}.0", width) for n, width in enumerate(widths)), ("middle_block_out.0", widths[-1])]:
        made |= {f"{name}.weight": like.new_zeros(width, width, 1, 1), f"{name}.bias": like.new_zeros(width)}
    return made


def _new_hint(channels: int, width: int, dtype: torch.dtype, seed: int) -> State:
    """Eight convolutions of 3 x 3 as torch starts them, the last one zero."""
    widths = [channels, 16, 16, 32, 32, 96, 96, 256, width]
    made: State = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for i, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            conv = torch.nn.Conv2d(before, after, 3)
            made |= {f"{HINT}{2 * i}.{end}": value.detach().to(dtype) for end, value in conv.named_parameters()}
    return made | {name: torch.zeros_like(value) for name, value in made.items() if name.startswith(f"{HINT}14.")}


def _controlnet(weights: State, path: Path) -> State:
    """An SD1.5 ControlNet of any naming in ldm's."""
    if "difference" in weights:
        raise unexpected(path, "a ControlNet saved as its difference from a checkpoint", "one with its full weights")
    for prefix in (_X_PORTRAIT, _LDM_PREFIX):
        weights = without_prefix(weights, prefix) or weights
    return _in_ldm(weights, path, controlnet_to_ldm, controlnet_to_diffusers)


def _unet(weights: State, path: Path) -> State:
    """The UNet of an SD1.5 checkpoint of any naming in ldm's."""
    kind = kind_of(weights)
    if kind not in _CHECKPOINTS:
        raise unexpected(path, kind, "a checkpoint of Stable Diffusion 1.5, its UNet, or a ControlNet for it")
    return _in_ldm(without_prefix(weights, "model.diffusion_model.") or weights, path, unet_to_ldm, unet_to_diffusers)


def _in_ldm(state: State, path: Path, to_ldm: Rename, to_diffusers: Rename) -> State:
    """The network in ldm's names. Raises InputError where it is not SD1.5's."""
    try:
        state = to_ldm(to_diffusers(state) if in_ldm(state) else state)  # there and back: all names are looked at
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from error
    if state["input_blocks.1.1.proj_in.weight"].ndim != 4:
        raise unexpected(path, "made for Stable Diffusion 2", "a file for Stable Diffusion 1.5")
    inputs = state["input_blocks.0.0.weight"].shape[1]
    if inputs != 4:
        raise unexpected(path, f"made for inpainting ({inputs} input channels)", "a file for plain Stable Diffusion 1.5 (4)")
    return state
