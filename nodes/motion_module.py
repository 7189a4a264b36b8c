"""Load Motion Module: temporal layers for Stable Diffusion 1.5."""

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..flow3d.errors import InputError
from ..models.motion import POSITIONS, load_motion
from .checks import at_the_door, checked
from .found import found_as
from .sockets import Motion

_MOTION, _WHOLE = "animatediff_models", "flow3d_appearance"  # X-Portrait's checkpoint holds both networks
_NODE = "Load Motion Module"


def motion_names() -> list[str]:
    """The node's list: AnimateDiff's folder first, then ours, where X-Portrait's checkpoint stands."""
    return list(dict.fromkeys(n for folder in (_MOTION, _WHOLE) for n in folder_paths.get_filename_list(folder)))


def motion_file(name: str) -> Path:
    """The file of a name in the node's list. Raises InputError for any other name."""
    for folder in (_MOTION, _WHOLE):
        if name in folder_paths.get_filename_list(folder):
            return Path(folder_paths.get_full_path_or_raise(folder, name))
    raise InputError(
        f"{_NODE}: there is no '{name}' in {folder_paths.get_folder_paths(_MOTION)[0]}. Put an AnimateDiff motion module for "
        "SD1.5 there, such as v3_sd15_mm.ckpt (Apache-2.0, linked from github.com/guoyww/AnimateDiff), or MagicPortrait's "
        "motion_module-47360.pth (Apache-2.0, linked from github.com/weimengting/MagicPortrait)."
    )


class LoadMotionModule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DLoadMotionModule",
            display_name=_NODE,
            category="Flow3D/diffusion",
            **found_as("AnimateDiff", "motion module", "temporal layers"),
            description="Temporal layers for Stable Diffusion 1.5: they make the frames of a clip agree with each other.",
            inputs=[
                io.Combo.Input(
                    "name",
                    options=motion_names(),
                    tooltip="An AnimateDiff v1, v2 or v3 module for SD1.5 or MagicPortrait's, in models/animatediff_models, or "
                    "X-Portrait's checkpoint in models/flow3d_appearance.",
                ),
                io.Combo.Input(
                    "positions",
                    options=list(POSITIONS),
                    default=POSITIONS[0],
                    tooltip="A module numbers the frames of a window, up to the 24 or 32 it was trained with. as trained: longer "
                    "windows are an error. stretch: its numbers are spread over a longer window.",
                ),
            ],
            outputs=[Motion.Output(display_name="motion", tooltip="To Temporal Sampler.")],
        )

    @classmethod
    def validate_inputs(cls, name: Any = None, positions: Any = None) -> bool | str:
        return at_the_door(cls, {"name": motion_file}, name=name, positions=positions)

    @classmethod
    def fingerprint_inputs(cls, name: str, positions: str) -> str:
        file = motion_file(name)
        stat = file.stat()
        return f"{file} {stat.st_size} {stat.st_mtime_ns} {positions}"

    @classmethod
    @checked(named=("name",))
    def execute(cls, name: str, positions: str) -> io.NodeOutput:
        return io.NodeOutput(load_motion(motion_file(name), positions))  # type: ignore[arg-type]
