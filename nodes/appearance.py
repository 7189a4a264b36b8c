"""Load Appearance Network and Appearance Reference: a portrait whose features the sampled frames read."""

from pathlib import Path
from typing import Any

import folder_paths
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..flow3d.errors import InputError
from ..models.appearance import with_reference
from ..models.appearance_network import Appearance, load_appearance
from ..models.appearance_reference import HALVES, POLICIES, Reference
from .checks import at_the_door, checked
from .folders import APPEARANCE
from .found import found_as
from .sockets import Appearance as AppearanceSocket

_CHECKPOINTS = "checkpoints"  # ComfyUI's own
_LOAD, _REFERENCE = "Load Appearance Network", "Appearance Reference"
Conditioning = list[tuple[Any, dict[str, Any]]]


def appearance_names() -> list[str]:
    """The node's list: our folder's files first, then checkpoints."""
    return list(
        dict.fromkeys(n for folder in (APPEARANCE, _CHECKPOINTS) for n in folder_paths.get_filename_list(folder))
    )


def appearance_file(name: str) -> Path:
    """The file of a name in the node's list. Raises InputError for any other name."""
    for folder in (APPEARANCE, _CHECKPOINTS):
        if name in folder_paths.get_filename_list(folder):
            return Path(folder_paths.get_full_path_or_raise(folder, name))
    raise InputError(
        f"{_LOAD}: there is no '{name}' in {folder_paths.get_folder_paths(APPEARANCE)[0]}. Put X-Portrait's model_state-415001.th "
        "(CreativeML Open RAIL-M, linked from github.com/bytedance/X-Portrait) or MagicPortrait's reference_unet.pth (Apache-2.0, "
        "linked from github.com/weimengting/MagicPortrait) there, or choose an SD1.5 checkpoint."
    )


class LoadAppearanceNetwork(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DLoadAppearanceNetwork",
            display_name=_LOAD,
            category="Flow3D/diffusion",
            **found_as("ReferenceNet", "X-Portrait", "MagicPortrait", "AnimateAnyone"),
            description="The network that looks at the reference portrait: a second UNet of Stable Diffusion 1.5.",
            inputs=[
                io.Combo.Input(
                    "name",
                    options=appearance_names(),
                    tooltip="X-Portrait's checkpoint or a reference_unet file of MagicPortrait or AnimateAnyone in "
                    "models/flow3d_appearance, or any SD1.5 checkpoint.",
                ),
            ],
            outputs=[AppearanceSocket.Output(display_name="network", tooltip="To Appearance Reference.")],
        )

    @classmethod
    def validate_inputs(cls, name: Any = None) -> bool | str:
        return at_the_door(cls, {"name": appearance_file}, name=name)

    @classmethod
    def fingerprint_inputs(cls, name: str) -> str:
        file = appearance_file(name)
        stat = file.stat()
        return f"{file} {stat.st_size} {stat.st_mtime_ns}"

    @classmethod
    @checked(named=("name",))
    def execute(cls, name: str) -> io.NodeOutput:
        return io.NodeOutput(load_appearance(appearance_file(name)))


class AppearanceReference(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DAppearanceReference",
            display_name=_REFERENCE,
            category="Flow3D/diffusion",
            **found_as("ReferenceNet", "reference only", "identity", "X-Portrait", "AnimateAnyone"),
            description="Every sampled frame looks at the reference portrait in its self-attention, and takes over how it looks. "
            "Chain several for several references with weights of their own.",
            inputs=[
                io.Model.Input("model", tooltip="An SD1.5 model, LoRAs included."),
                io.Latent.Input(
                    "reference",
                    tooltip="The portrait, encoded by the VAE; best of the size that is sampled. A batch is several references.",
                ),
                io.Conditioning.Input(
                    "prompt",
                    tooltip="What the appearance network is told: an empty prompt for X-Portrait's, the positive prompt for "
                    "MagicPortrait's and others.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="How much a place of the reference counts against a place of the frame: 1 equally, as the networks "
                    "were trained; 0 as if this node were not there.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Where in the sampling it begins to act: 0 is the first step, 1 the last.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Where in the sampling it ceases to act: 0 is the first step, 1 the last.",
                ),
                io.Combo.Input(
                    "timestep",
                    options=list(POLICIES),
                    default="current",
                    tooltip="What the network is told of the noise. current: the step's own, one pass a step (X-Portrait). zero: "
                    "none, one pass in all (MagicPortrait, AnimateAnyone).",
                ),
                io.Combo.Input(
                    "halves",
                    options=list(HALVES),
                    default="conditional",
                    tooltip="conditional: only what the positive prompt makes looks at the reference, so that cfg strengthens it "
                    "(X-Portrait, MagicPortrait). both: the negative too.",
                ),
                AppearanceSocket.Input(
                    "appearance",
                    optional=True,
                    tooltip="From Load Appearance Network. Unconnected: the model looks at the reference itself.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Which part of the reference is looked at, 0 to 1, over the whole picture: one mask, or one for each.",
                ),
            ],
            outputs=[io.Model.Output(display_name="referenced", tooltip="The model, looking at the reference too.")],
        )

    @classmethod
    def validate_inputs(cls, timestep: Any = None, halves: Any = None) -> bool | str:
        return at_the_door(cls, timestep=timestep, halves=halves)

    @classmethod
    @checked()
    def execute(
        cls,
        model: ModelPatcher,
        reference: dict[str, Tensor],
        prompt: Conditioning,
        strength: float,
        start_percent: float,
        end_percent: float,
        timestep: str,
        halves: str,
        appearance: Appearance | None = None,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        used = Reference(
            latents=reference["samples"],
            prompt=prompt[0][0],
            network=None if appearance is None else appearance.network,
            strength=strength,
            start=start_percent,
            end=end_percent,
            policy=timestep,
            halves=halves,
            mask=None if mask is None else mask.reshape(-1, *mask.shape[-2:]),
        )
        return io.NodeOutput(with_reference(model, used, appearance))
