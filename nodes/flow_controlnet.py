"""Load Flow ControlNet and Flow ControlNet Apply: Stable Diffusion 1.5 steered by the 3D flow."""

import logging
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from ..flow3d.errors import InputError
from ..flow3d.flow.field import FlowField
from ..models.flow_controlnet import FlowControlNet, adopted, load_flow_controlnet
from ..models.flow_hints import FlowHints
from .checks import at_the_door, checked
from .found import found_as
from .running import cancel_point
from .sockets import Field

_FOLDER = "controlnet"  # ComfyUI's own
_APPLY = "Flow ControlNet Apply"
Conditioning = list[tuple[Any, dict[str, Any]]]


def controlnet_file(name: str) -> Path:
    """The file of a name in the node's list. Raises InputError for any other name."""
    names = folder_paths.get_filename_list(_FOLDER)
    path = folder_paths.get_full_path(_FOLDER, name) if name in names else None
    if path is None:
        folder = folder_paths.get_folder_paths(_FOLDER)[0]
        raise InputError(
            f"Load Flow ControlNet: there is no '{name}' in {folder}. Put a flow ControlNet there, or make a fresh one to train "
            "with `flow3d init-controlnet`."
        )
    return Path(path)


class LoadFlowControlNet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DLoadFlowControlNet",
            display_name="Load Flow ControlNet",
            category="Flow3D/diffusion",
            **found_as("FG-Portrait", "ControlNet loader"),
            description="A ControlNet of Stable Diffusion 1.5 that reads 3D flow in place of a picture.",
            inputs=[
                io.Combo.Input(
                    "name",
                    options=folder_paths.get_filename_list(_FOLDER),
                    tooltip="A file in models/controlnet, in diffusers' or ldm's naming, with 3 channels for each flow sample.",
                ),
            ],
            outputs=[io.ControlNet.Output(display_name="control net", tooltip="To Flow ControlNet Apply.")],
        )

    @classmethod
    def validate_inputs(cls, name: Any = None) -> bool | str:
        return at_the_door(cls, {"name": controlnet_file}, name=name)

    @classmethod
    def fingerprint_inputs(cls, name: str) -> str:
        file = controlnet_file(name)
        stat = file.stat()
        return f"{file} {stat.st_size} {stat.st_mtime_ns}"

    @classmethod
    @checked(named=("name",))
    def execute(cls, name: str) -> io.NodeOutput:
        return io.NodeOutput(load_flow_controlnet(controlnet_file(name)))


class FlowControlNetApply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DFlowControlNetApply",
            display_name=_APPLY,
            category="Flow3D/diffusion",
            **found_as("FG-Portrait", "apply ControlNet"),
            description="Steers the sampling of a clip by its 3D flow. Latent frame i sees the field's frame i, in context windows too.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="What the picture shall be."),
                io.Conditioning.Input("negative", tooltip="What it shall not be."),
                io.ControlNet.Input("control_net", tooltip="From Load Flow ControlNet."),
                Field.Input("field", tooltip="From 3D Flow Encode, with the numbers that the network was trained on."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="How much of the network's output is added. 0: as if this node were not there.",
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
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where it acts, 0 to 1, over the whole picture: one mask, or one for each frame of the field.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="Steered by the flow."),
                io.Conditioning.Output(display_name="negative", tooltip="Steered by the flow."),
            ],
        )

    @classmethod
    @checked()
    def execute(
        cls,
        positive: Conditioning,
        negative: Conditioning,
        control_net: Any,
        field: FlowField,
        strength: float,
        start_percent: float,
        end_percent: float,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        # Checked at any strength: a wrong file or field is told before somebody turns the slider up.
        with torch.inference_mode(False):
            control = adopted(control_net).steered(FlowHints(field), strength, (start_percent, end_percent), mask)
            if warning := field.depth_warning(cancel_point):
                logging.warning(warning)
        if strength == 0:
            return io.NodeOutput(positive, negative)
        made: dict[Any, FlowControlNet] = {}  # one for both halves where they continue the same chain
        return io.NodeOutput(_attached(positive, control, made), _attached(negative, control, made))


def _attached(conditioning: Conditioning, control: FlowControlNet, made: dict[Any, FlowControlNet]) -> list[list[Any]]:
    """The conditioning with the control behind whatever controls it already, as ComfyUI's own node does it."""
    out = []
    for text, options in conditioning:
        before = options.get("control")
        if before not in made:
            made[before] = control.copy()
            made[before].set_previous_controlnet(before)
        out.append([text, {**options, "control": made[before], "control_apply_to_uncond": False}])
    return out
