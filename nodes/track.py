"""Save Head Track and Load Head Track."""

from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io, ui

from ..flow3d.errors import InputError
from ..flow3d.io.motions import load_motion, motion_names
from ..flow3d.io.tracks import load_track, save_track
from ..flow3d.track import HeadTrack
from .sockets import Track

SUFFIX = ".safetensors"
MOTION = "motion: "
_OUTPUT = " [output]"


def saved_tracks() -> list[str]:
    """Track files in the input folder and in output/flow3d, named as ComfyUI names files: the latter with [output]."""
    given = sorted(p.name for p in Path(folder_paths.get_input_directory()).glob("*" + SUFFIX))
    made = Path(folder_paths.get_output_directory())
    saved = sorted(p.relative_to(made).as_posix() for p in made.glob("flow3d/**/*" + SUFFIX))
    return given + [name + _OUTPUT for name in saved]


def track_file(name: str) -> Path:
    """The file of a name from `saved_tracks`. Raises InputError for a name that leads out of ComfyUI's folders."""
    plain, folder = folder_paths.annotated_filepath(name)
    base = Path(folder or folder_paths.get_input_directory()).resolve()
    path = (base / plain).resolve()
    if not path.is_relative_to(base) or path.suffix.lower() != SUFFIX:
        raise InputError(f"Load Head Track: '{name}' is not a {SUFFIX} file in ComfyUI's input or output folder.")
    if not path.is_file():
        raise InputError(f"Load Head Track: there is no '{name}'. Save a track first, or choose a motion.")
    return path


class SaveHeadTrack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DSaveHeadTrack",
            display_name="Save Head Track",
            category="Flow3D/track",
            description="Save a head's motion as a .safetensors file in ComfyUI's output folder.",
            is_output_node=True,
            inputs=[
                Track.Input("track", tooltip="The track to save."),
                io.String.Input(
                    "filename_prefix",
                    default="flow3d/track",
                    tooltip="Folder and start of the name, within the output folder; a number is added. Load Head Track "
                    "lists what lies under flow3d/.",
                ),
            ],
            outputs=[
                Track.Output(display_name="saved track", tooltip="The same track, to go on with."),
                io.String.Output(display_name="path", tooltip="The file's name within the output folder."),
            ],
        )

    @classmethod
    def execute(cls, track: HeadTrack, filename_prefix: str) -> io.NodeOutput:
        output = Path(folder_paths.get_output_directory()).resolve()
        if not filename_prefix.strip() or not (output / filename_prefix).resolve().is_relative_to(output):
            raise InputError(f"Save Head Track: '{filename_prefix}' is not a name within ComfyUI's output folder.")
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, str(output))
        file = f"{name}_{counter:05}_{SUFFIX}"
        save_track(track, Path(folder) / file)
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
            description="A bundled motion, or a head's motion from a file that Save Head Track wrote.",
            inputs=[
                io.Combo.Input(
                    "track",
                    options=motions + saved_tracks(),
                    tooltip="A bundled motion, a .safetensors track in the input folder, or one in output/flow3d.",
                ),
            ],
            outputs=[
                Track.Output(display_name="loaded track", tooltip="The track: one frame for a photo, more for a motion."),
                io.Float.Output(display_name="fps", tooltip="The track's frames per second."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, track: str) -> str:
        if track.startswith(MOTION):
            return track
        stat = track_file(track).stat()
        return f"{track} {stat.st_size} {stat.st_mtime_ns}"

    @classmethod
    def execute(cls, track: str) -> io.NodeOutput:
        with torch.inference_mode(False):
            if track.startswith(MOTION):
                loaded = load_motion(track.removeprefix(MOTION))
            else:
                loaded = load_track(track_file(track))
        return io.NodeOutput(loaded, loaded.fps)
