"""A motion module on a MODEL: its temporal layers stand in the UNet while the MODEL samples, and leave it afterwards.

They are put in by ComfyUI's `PatcherInjection`, and run by its `forward_timestep_embed_patch`, which tells them how many halves a
batch has: the frames of the current window are what is left. Where that patch is not set (a pass of the same UNet over
something else than frames) they do nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import comfy.model_management
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, TimestepEmbedSequential, UNetModel, Upsample
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, PatcherInjection
from torch import Tensor, nn

from ..flow3d.errors import InputError
from .motion_files import read_motion
from .motion_network import PLACES, MotionNetwork, Place, TemporalTransformer, too_long

KEY = "flow3d_motion"
"""The name under which injection, callbacks and network hang on a ModelPatcher, and of the layers within a block."""

Positions = Literal["as trained", "stretch"]
POSITIONS: tuple[Positions, ...] = ("as trained", "stretch")


@dataclass(frozen=True, eq=False)
class MotionModule:
    """What the Load Motion Module node gives: a network, ComfyUI's manager of its memory, and how its positions are read.

    Args:
        positions: what a window longer than the network's table of positions is: an error, or a reason to stretch the table.
    """

    name: str
    patcher: ModelPatcher
    positions: Positions = "as trained"

    @property
    def network(self) -> MotionNetwork:
        return self.patcher.model

    def check_window(self, frames: int) -> None:
        """Raises InputError where a window of `frames` frames is longer than the module's positions."""
        longest = self.network.config.positions
        if frames > longest and self.positions != "stretch":
            raise InputError(too_long(frames, longest))


class TemporalLayer(nn.Module):
    """What stands in the UNet's block. It does not own the network: the UNet's weights and their names stay as they are."""

    def __init__(self, transformer: TemporalTransformer, stretch: bool):
        super().__init__()
        self._transformer = (transformer,)
        self._stretch = stretch

    def forward(self, x: Tensor) -> Tensor:
        return x

    def over_frames(self, x: Tensor, frames: int) -> Tensor:
        return self._transformer[0](x, frames, self._stretch)


def load_motion(path: Path, positions: Positions = "as trained") -> MotionModule:
    """A motion module from a file, in CPU memory until it samples. Raises InputError as `read_motion` does."""
    return motion_module(path.name, read_motion(path), positions)


def motion_module(name: str, network: MotionNetwork, positions: Positions = "as trained") -> MotionModule:
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    return MotionModule(name, ModelPatcher(network, load_device=device, offload_device=offload), positions)


def with_motion(model: ModelPatcher, motion: MotionModule) -> ModelPatcher:
    """A clone of `model` whose frames attend to each other. Raises InputError where the two do not fit."""
    unet = _fitting(model, motion)
    layers = {
        place: TemporalLayer(motion.network.at(place), motion.positions == "stretch")
        for place in motion.network.config.channels
    }
    patched = model.clone()
    patched.set_injections(KEY, [PatcherInjection(lambda _: _put_in(unet, layers), lambda _: take_out(unet))])
    # A MODEL may stay loaded, or be dropped, between two runs: the layers are there from the start of a run to its end only.
    patched.add_callback_with_key(CallbacksMP.ON_PRE_RUN, KEY, lambda patcher: patcher.inject_model())
    patched.add_callback_with_key(CallbacksMP.ON_CLEANUP, KEY, lambda patcher: patcher.eject_model())
    patched.set_model_forward_timestep_embed_patch((TemporalLayer, _run))
    patched.set_additional_models(KEY, [motion.patcher])
    return patched


def _run(layer: TemporalLayer, x: Tensor, emb: Tensor, context: Tensor, options: dict, *_: Any) -> Tensor:
    return layer.over_frames(x, len(x) // len(options.get("cond_or_uncond") or (0,)))


def _fitting(model: ModelPatcher, motion: MotionModule) -> UNetModel:
    unet = getattr(model.model, "diffusion_model", None)
    if not isinstance(unet, UNetModel) or (len(unet.input_blocks), len(unet.output_blocks)) != (12, 12):
        raise InputError(
            f"the motion module {motion.name} is for SD1.5, and the model is another one. Load an SD1.5 checkpoint."
        )
    theirs, ours = {p: _channels(unet, p) for p in PLACES}, motion.network.config.channels
    if any(ours[p] != theirs[p] for p in PLACES):
        raise InputError(
            f"the motion module {motion.name} has layers of {_told(ours)} channels, the model's UNet of {_told(theirs)}. Both "
            "must be SD1.5's."
        )
    return unet


def _block(unet: UNetModel, place: Place) -> TimestepEmbedSequential:
    part, n = place
    return unet.middle_block if part == "middle" else (unet.input_blocks if part == "input" else unet.output_blocks)[n]


def _channels(unet: UNetModel, place: Place) -> int:
    return _block(unet, place)[0].out_channels


def _told(channels: dict[Place, int] | Any) -> str:
    return "/".join(str(c) for c in dict.fromkeys(channels[p] for p in PLACES))


# --- in and out of the UNet ------------------------------------------------------------------------------------------


def _put_in(unet: UNetModel, layers: dict[Place, TemporalLayer]) -> None:
    take_out(unet)  # what a run that never came to its end has left
    for place, layer in layers.items():
        block = _block(unet, place)
        later = list(_behind(block))
        block.add_module(KEY, layer)
        for name in later:  # to the end again, under its own name, so that weights are found under theirs
            block._modules[name] = block._modules.pop(name)


def _behind(block: TimestepEmbedSequential) -> Iterator[str]:
    """What of a block comes after its attention: an upsampling, or the middle block's second residual block."""
    for name, part in block.named_children():
        if isinstance(part, Upsample) or (isinstance(part, ResBlock) and name != "0"):
            yield name


def take_out(unet: UNetModel) -> None:
    """The UNet as it was; nothing where no layer stands in it."""
    for block in (*unet.input_blocks, unet.middle_block, *unet.output_blocks):
        block._modules.pop(KEY, None)
