"""Flow To Tracks: points of the head as motion tracks for video models."""

from typing import Any

import torch
from comfy_api.latest import io

from ..flow3d.errors import InputError
from ..flow3d.flow.field import FlowField
from ..flow3d.flow.tracks import GRID, POINT_SETS, STARTS, covering, track_points
from ..flow3d.flow.wan_tracks import as_json, as_tracks, wan_length
from .checks import at_the_door, checked
from .found import found_as
from .motion import named
from .running import progress
from .sockets import Field

Tracks = io.Custom("TRACKS")
"""ComfyUI's own type, by its name: older versions have no class for it."""
NODE = "Flow To Tracks"


def pictures(length: int, frames: int) -> int:
    """How many pictures a video has: `length`, or as many of the frames as make 4 n + 1 where it is 0."""
    if length == 0:
        return max(1, wan_length(frames))
    if length != wan_length(length):
        raise InputError(
            f"{NODE}: 'length' is {length}, but video models make 4 n + 1 pictures. Set it to {wan_length(length)} or "
            f"{wan_length(length) + 4}."
        )
    return length


class FlowToTracks(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DFlowToTracks",
            display_name="Flow To Tracks",
            category="Flow3D/flow",
            **found_as("Wan-Move", "WanTrackToVideo", "motion tracks", "point tracking"),
            description="Follows points of the head through the target frames, for video models that are driven by motion tracks "
            "(Wan-Move, Wan ATI). Their start image is the portrait.",
            inputs=[
                Field.Input("field", tooltip="The 3D flow from 3D Flow Encode."),
                io.Combo.Input(
                    "points",
                    options=list(POINT_SETS),
                    default=GRID,
                    tooltip="grid: all of the head that the portrait shows, evenly. dense face: MediaPipe's 478 points. "
                    "68 landmarks: brows, eyes, nose, lips and jaw.",
                ),
                io.Int.Input(
                    "spacing", default=24, min=4, max=512, tooltip="Pixels of the video between the points of 'grid'."
                ),
                io.Int.Input(
                    "background_spacing",
                    default=0,
                    min=0,
                    max=512,
                    tooltip="Pixels of the video between points that stay where they are, half a head's width away from the "
                    "head and more, so that the camera does not drift; 0 for none.",
                ),
                io.Int.Input(
                    "width", default=512, min=16, max=8192, step=16, tooltip="Pixels: the video's width, as in the Wan node."
                ),
                io.Int.Input(
                    "height", default=512, min=16, max=8192, step=16, tooltip="Pixels: the video's height, as in the Wan node."
                ),
                io.Int.Input(
                    "length",
                    default=0,
                    min=0,
                    max=4097,
                    tooltip="Pictures of the video, 4 n + 1, as in the Wan node; a shorter clip holds its last frame. 0 for as "
                    "many as the field has frames for.",
                ),
                io.Combo.Input(
                    "start",
                    options=list(STARTS),
                    default=STARTS[0],
                    tooltip="What the first picture, the video's start image, shows. portrait: the source portrait. target: the "
                    "first target frame, such as the first picture of Flow Warp Preview.",
                ),
            ],
            outputs=[
                Tracks.Output(
                    display_name="tracks",
                    tooltip="For WanMoveTrackToVideo and its like: places in pixels, and where each point is seen.",
                ),
                io.String.Output(display_name="tracks_json", tooltip="For WanTrackToVideo's 'tracks'."),
                io.Int.Output(display_name="length", tooltip="Pictures of the video: connect it to the Wan node's 'length'."),
            ],
        )

    @classmethod
    def validate_inputs(cls, points: Any = None, start: Any = None) -> bool | str:
        return at_the_door(cls, points=points, start=start)

    @classmethod
    @checked()
    def execute(
        cls,
        field: FlowField,
        points: str,
        spacing: int,
        background_spacing: int,
        width: int,
        height: int,
        length: int,
        start: str,
    ) -> io.NodeOutput:
        length = pictures(length, len(field))
        camera = covering(field.camera, width, height)
        with torch.inference_mode(False), torch.no_grad(), named(NODE):
            tracks = track_points(field, camera, points, spacing, background_spacing, length, start, progress())
        return io.NodeOutput(as_tracks(tracks), as_json(tracks, width, height), length)
