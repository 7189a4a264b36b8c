"""Save Head Track and Load Head Track."""

from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io, ui

from ..flow3d.errors import InputError
from ..flow3d.head.model import HeadModel
from ..flow3d.io.formats import OWN, READ_SUFFIXES, WRITE_SUFFIXES, read_track, write_track
from ..flow3d.io.motions import load_motion, motion_names
from ..flow3d.io.names import path_within
from ..flow3d.track import HeadTrack
from .checks import at_the_door, checked
from .found import found_as
from .motion import HEAD_TOOLTIP, head_of
from .sockets import Head, Track

LISTED = (OWN, ".csv", ".npz", ".pkl", ".mat")
FORMATS = tuple(suffix.removeprefix(".") for suffix in WRITE_SUFFIXES)
MOTION = "motion: "
_OUTPUT = " [output]"


def saved_tracks() -> list[str]:
    """Track files in the input folder and in output/flow3d, named as ComfyUI names files: the latter with [output]."""
    folder, made = Path(folder_paths.get_input_directory()), Path(folder_paths.get_output_directory())
    given = [p for p in folder.glob("*") if p.suffix.lower() in LISTED]
    data_sets = folder.glob("*/transforms.json")  # what VHAP exports
    saved = sorted(p.relative_to(made).as_posix() for p in made.glob("flow3d/**/*") if p.suffix.lower() in (OWN, ".csv"))
    return sorted(p.relative_to(folder).as_posix() for p in (*given, *data_sets)) + [name + _OUTPUT for name in saved]


def folder_of(name: str) -> Path:
    """ComfyUI's folder that a name from `saved_tracks` is in."""
    return Path(folder_paths.annotated_filepath(name)[1] or folder_paths.get_input_directory())


def track_file(name: str) -> Path:
    """The file of a name from `saved_tracks`. Raises InputError where there is none within ComfyUI's folders."""
    plain, _ = folder_paths.annotated_filepath(name)
    path = path_within(folder_of(name), plain, f"ComfyUI's {folder_of(name).name} folder")
    if path.suffix.lower() not in READ_SUFFIXES:
        raise InputError(f"'{name}' is no head track. Choose a {', '.join(READ_SUFFIXES)} file.")
    if not path.is_file():
        raise InputError(f"there is no '{name}' in ComfyUI's {folder_of(name).name} folder. Save a track first, or choose a motion.")
    return path


def known(name: str) -> None:
    """Raises InputError where a name means neither a bundled motion nor a file."""
    if not name.startswith(MOTION):
        track_file(name)
    elif name.removeprefix(MOTION) not in motion_names():
        raise InputError(f"there is no bundled '{name}'. Choose one of {', '.join(motion_names())}.")


class SaveHeadTrack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DSaveHeadTrack",
            display_name="Save Head Track",
            category="Flow3D/track",
            **found_as("export motion", "glTF", "Blender", "Live Link Face"),
            description="Save a head's motion in ComfyUI's output folder: as a track, for Unreal, or for Blender.",
            is_output_node=True,
            inputs=[
                Track.Input("track", tooltip="The track to save."),
                io.String.Input(
                    "filename_prefix",
                    default="flow3d/track",
                    tooltip="Folder and start of the name, within the output folder; a number is added. Load Head Track "
                    "lists what lies under flow3d/.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default=FORMATS[0],
                    optional=True,
                    tooltip="safetensors keeps everything; csv is Live Link Face's (expressions and angles, for Unreal and "
                    "others); glb is the head with its motion, for Blender.",
                ),
                Head.Input("head", optional=True, tooltip=HEAD_TOOLTIP),
            ],
            outputs=[
                Track.Output(display_name="saved track", tooltip="The same track, to go on with."),
                io.String.Output(display_name="path", tooltip="The file's name within the output folder."),
            ],
        )

    @classmethod
    def validate_inputs(cls, format: Any = None) -> bool | str:
        return at_the_door(cls, format=format)

    @classmethod
    @checked()
    def execute(
        cls, track: HeadTrack, filename_prefix: str, format: str = FORMATS[0], head: HeadModel | None = None
    ) -> io.NodeOutput:
        output = Path(folder_paths.get_output_directory()).resolve()
        path_within(output, filename_prefix, "ComfyUI's output folder", new=True)
        try:
            folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, str(output))
        except OSError as error:
            reason = error.strerror or "no folder can be made"
            raise InputError(f"nothing can be saved as '{filename_prefix}' ({reason}). Choose another prefix.") from error
        file = f"{name}_{counter:05}_.{format}"
        with torch.inference_mode(False):
            if f".{format}" != OWN:
                head = head_of("Save Head Track", head, track)
            write_track(track, Path(folder) / file, head)
        path = (Path(subfolder) / file).as_posix()
        return io.NodeOutput(track, path, ui=ui.PreviewText(path))


class LoadHeadTrack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        motions = [MOTION + name for name in motion_names()]
        return io.Schema(
            node_id="Flow3DLoadHeadTrack",
            display_name="Load Head Track",
            category="Flow3D/track",
            **found_as("import motion", "Live Link Face", "ARKit", "DECA", "EMOCA", "SMIRK"),
            description="A bundled motion, or a head's motion from a file: a saved track, Live Link Face, FLAME parameters.",
            inputs=[
                io.Combo.Input(
                    "track",
                    options=motions + saved_tracks(),
                    tooltip="A bundled motion, or a file in the input folder or in output/flow3d: a track (.safetensors), a "
                    "Live Link Face recording (.csv), or FLAME parameters (.npz, .pkl, .mat, VHAP's transforms.json).",
                ),
                Head.Input(
                    "head",
                    optional=True,
                    tooltip="The FLAME model that FLAME parameters belong to. Other files need none.",
                ),
                io.Float.Input(
                    "frame_rate",
                    default=25.0,
                    min=1.0,
                    max=240.0,
                    step=0.001,
                    optional=True,
                    tooltip="Frames per second of FLAME parameters, whose files do not say. Not used for other files.",
                ),
            ],
            outputs=[
                Track.Output(display_name="loaded track", tooltip="The track: one frame for a photo, more for a motion."),
                io.Float.Output(display_name="fps", tooltip="The track's frames per second."),
            ],
        )

    @classmethod
    def validate_inputs(cls, track: Any = None) -> bool | str:
        return at_the_door(cls, {"track": known}, track=track)

    @classmethod
    def fingerprint_inputs(cls, track: str, **others: Any) -> str:
        if track.startswith(MOTION):
            return track
        stat = track_file(track).stat()
        return f"{track} {stat.st_size} {stat.st_mtime_ns}"

    @classmethod
    @checked(named=("track",))
    def execute(cls, track: str, head: HeadModel | None = None, frame_rate: float = 25.0) -> io.NodeOutput:
        known(track)
        with torch.inference_mode(False):
            if track.startswith(MOTION):
                loaded = load_motion(track.removeprefix(MOTION))
            else:
                loaded = read_track(track_file(track), head, frame_rate, folder_of(track))
        return io.NodeOutput(loaded, loaded.fps)
