"""FLAME Mix and FLAME Time: two tracks made one, and a track's time."""

from typing import Any

import torch
from comfy_api.latest import io

from ..flow3d.fit.keyframes import MAX_FRAMES
from ..flow3d.fit.mix import LENGTHS, MODES, PARTS, mix
from ..flow3d.fit.timing import DIRECTIONS, retime
from ..flow3d.head.model import HeadModel
from ..flow3d.track import HeadTrack
from .checks import at_the_door, checked
from .found import found_as
from .motion import HEAD_TOOLTIP, edit_value, head_of, named
from .sockets import Head, Track


class FLAMEMix(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        takes = [
            io.Boolean.Input(part, default=True, label_on="mixed", label_off="from first", tooltip=tooltip)
            for part, tooltip in (
                ("pose", "The rotation of head and neck. Off: the first track's stays."),
                ("translation", "Where the head is. Off: it stays where the first track has it."),
                ("jaw", "The opening of the mouth and the jaw's shifts. Off: the first track's stay."),
                ("mouth", "Lips and tongue; speech needs the jaw too. Off: the first track's stay."),
                ("eyes", "The direction of gaze. Off: the first track's stays."),
                ("eyelids", "Blinks, squints and wide eyes. Off: the first track's stay."),
                ("brows", "The brows. Off: the first track's stay."),
                ("expression", "Cheeks and nose, and every nameless expression. Off: the first track's stay."),
            )
        ]
        return io.Schema(
            node_id="Flow3DFLAMEMix",
            display_name="FLAME Mix",
            category="Flow3D/track",
            **found_as("blend motions", "combine expressions"),
            description="Blend two tracks, put one's motion on top of the other, or take parts of each.",
            inputs=[
                Track.Input("first", tooltip="The track whose head, camera and frame rate the result has."),
                Track.Input("second", tooltip="The track that is mixed in. Another frame rate is brought to the first's."),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="blend",
                    tooltip="blend: between the two, at 'weight'. add: what the second changes since its first frame, times "
                    "'weight', on top of the first. take: the parts that are on as in the second, whatever the weight.",
                ),
                io.Float.Input(
                    "weight",
                    default=0.5,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    tooltip="blend: 0 is the first, 1 the second. add: 1 is the whole change, below 0 mirrors it. A list of "
                    "numbers, one a frame, fades from one to the other.",
                ),
                *takes,
                io.Combo.Input(
                    "shorter",
                    options=list(LENGTHS),
                    default="hold",
                    tooltip="What the shorter track does when it is over: hold its last frame, or loop from its first.",
                ),
                Head.Input("head", optional=True, tooltip=HEAD_TOOLTIP),
            ],
            outputs=[Track.Output(display_name="mixed", tooltip="As many frames as the longer of the two tracks.")],
        )

    @classmethod
    def validate_inputs(cls, mode: Any = None, shorter: Any = None) -> bool | str:
        return at_the_door(cls, mode=mode, shorter=shorter)

    @classmethod
    @checked(curves=True)
    def execute(
        cls,
        first: HeadTrack,
        second: HeadTrack,
        mode: str,
        weight: float,
        shorter: str,
        head: HeadModel | None = None,
        **parts: bool,
    ) -> io.NodeOutput:
        taken = {name for name in PARTS if parts.get(name, True)}
        value = edit_value("FLAME Mix", "weight", weight)
        with torch.inference_mode(False):
            head = head_of("FLAME Mix", head, first, second)
            return io.NodeOutput(mix(head, first, second, mode, value, taken, shorter))


class FLAMETime(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DFLAMETime",
            display_name="FLAME Time",
            category="Flow3D/track",
            **found_as("retime", "trim", "loop", "reverse", "speed"),
            description="Trim a track, change its speed and frame rate, turn it round, make it loop: in this order.",
            inputs=[
                Track.Input("track", tooltip="The track whose time is changed."),
                io.Int.Input(
                    "start", default=0, min=0, max=MAX_FRAMES, tooltip="The first frame that is kept; frames count from 0."
                ),
                io.Int.Input(
                    "frames", default=0, min=0, max=MAX_FRAMES, tooltip="How many frames are kept. 0: all from start on."
                ),
                io.Float.Input(
                    "speed", default=1.0, min=0.01, max=100.0, step=0.01, tooltip="2 is twice as fast, in half as many frames."
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=1000.0,
                    step=0.01,
                    tooltip="Frames per second of the result, which takes the same time as before. 0: the track's own.",
                ),
                io.Combo.Input(
                    "direction",
                    options=list(DIRECTIONS),
                    default="forward",
                    tooltip="forward, reverse, or ping-pong: there and back, without doubled ends.",
                ),
                io.Int.Input(
                    "loop_frames",
                    default=0,
                    min=0,
                    max=10_000,
                    tooltip="Frames over which the end fades into the beginning, so that the clip loops without a jump. The "
                    "result is shorter by as many. 0: no loop.",
                ),
            ],
            outputs=[
                Track.Output(display_name="retimed", tooltip="The track in its new time."),
                io.Float.Output(display_name="frame rate", tooltip="The track's frames per second, for Create Video."),
            ],
        )

    @classmethod
    def validate_inputs(cls, direction: Any = None) -> bool | str:
        return at_the_door(cls, direction=direction)

    @classmethod
    @checked()
    def execute(
        cls,
        track: HeadTrack,
        start: int = 0,
        frames: int = 0,
        speed: float = 1.0,
        fps: float = 0.0,
        direction: str = "forward",
        loop_frames: int = 0,
    ) -> io.NodeOutput:
        with torch.inference_mode(False), named("FLAME Time"):
            made = retime(track, start, frames or None, speed, fps or None, direction, loop_frames)
        return io.NodeOutput(made, made.fps)
