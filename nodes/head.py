"""Load Head Model."""

from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io

from ..flow3d.errors import InputError
from ..flow3d.head.load import load_head
from .checks import at_the_door, checked
from .folders import FLAME, MEDIAPIPE, model_folders
from .found import found_as
from .running import progress
from .sockets import Head

OPEN = "open head"


def head_names() -> list[str]:
    """The node's list. Landmarks that were found on a head lie beside its file and are no head."""
    return [OPEN, *(n for n in folder_paths.get_filename_list(FLAME) if not n.endswith(".landmarks.safetensors"))]


def head_file(name: str) -> Path | str:
    """What `load_head` takes for a name in the node's list. Raises InputError for any other name."""
    if name == OPEN:
        return "open"
    path = folder_paths.get_full_path(FLAME, name) if name in head_names() else None
    if path is None:
        folder = folder_paths.get_folder_paths(FLAME)[0]
        raise InputError(f"Load Head Model: there is no '{name}' in {folder}. Put the file there, or choose '{OPEN}'.")
    return Path(path)


class LoadHeadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DLoadHeadModel",
            display_name="Load Head Model",
            category="Flow3D/head",
            **found_as("FLAME model", "3DMM", "morphable model"),
            description="A parametric head: the open head (CC0) that comes with Flow3D, or a FLAME file of your own.",
            inputs=[
                io.Combo.Input(
                    "name",
                    options=head_names(),
                    default=OPEN,
                    tooltip="The open head, or a FLAME file (.pkl, .npz or .safetensors) in models/flame.",
                ),
            ],
            outputs=[Head.Output(display_name="head", tooltip="The head model, in metres.")],
        )

    @classmethod
    def validate_inputs(cls, name: Any = None) -> bool | str:
        return at_the_door(cls, {"name": head_file}, name=name)

    @classmethod
    def fingerprint_inputs(cls, name: str) -> str:
        file = head_file(name)
        if isinstance(file, str):
            return file
        stat = file.stat()
        return f"{file} {stat.st_size} {stat.st_mtime_ns}"

    @classmethod
    @checked(named=("name",))
    def execute(cls, name: str) -> io.NodeOutput:
        with torch.inference_mode(False):  # tensors born in inference mode can never be fitted
            return io.NodeOutput(load_head(head_file(name), model_folders(MEDIAPIPE), progress()))
