"""FLAME Edit and FLAME Retarget: what a head does, changed or carried over to another head."""

import numbers
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from comfy_api.latest import io

from ..flow3d.errors import InputError
from ..flow3d.fit.arkit import fault_on_head, on_head
from ..flow3d.fit.edit import GAINS, Edit, combined, edit_track, parse_edits
from ..flow3d.fit.keyframes import MAX_FRAMES, Keyframes
from ..flow3d.fit.retarget import MODES, PARTS, retarget
from ..flow3d.head.load import load_head
from ..flow3d.head.model import HeadModel
from ..flow3d.track import HeadTrack
from .checks import at_the_door, checked
from .found import found_as
from .live import left_for_page
from .sockets import Head, Track

HEAD_TOOLTIP = "The head model the track was fitted with. Not needed for the open head."
_SLIDERS = (
    # name, limit, step, tooltip
    ("yaw", 60.0, 0.5, "Degrees. Positive turns the head to its own left: the nose goes to the right in the picture."),
    ("pitch", 45.0, 0.5, "Degrees. Positive looks up."),
    ("roll", 60.0, 0.5, "Degrees. Positive tilts the top of the head to the right in the picture."),
    ("x", 50.0, 0.1, "Centimetres. Positive moves the head to the right in the picture."),
    ("y", 50.0, 0.1, "Centimetres. Positive moves the head up."),
    ("z", 50.0, 0.1, "Centimetres. Positive moves the head towards the camera."),
    ("gazeYaw", 45.0, 0.5, "Degrees, both eyes. Positive looks to the right in the picture."),
    ("gazePitch", 35.0, 0.5, "Degrees, both eyes. Positive looks up. The lids follow."),
    ("jawOpen", 1.0, 0.01, "Parts of a fully open mouth, added to what is there."),
    ("smile", 1.0, 0.01, "1 is a broad smile, added to what is there."),
    ("blink", 1.0, 0.01, "Parts of closed eyes, added to what is there; -1 opens closed eyes."),
    ("browUp", 1.0, 0.01, "Parts of fully raised brows, added to what is there."),
)
_MORE_SLIDERS = (
    ("gazeYawLeft", 45.0, 0.5, "Degrees, the subject's left eye alone, added to gazeYaw. Positive looks right in the picture."),
    ("gazeYawRight", 45.0, 0.5, "Degrees, the subject's right eye alone, added to gazeYaw. Positive looks right in the picture."),
    ("gazePitchLeft", 35.0, 0.5, "Degrees, the subject's left eye alone, added to gazePitch. Positive looks up."),
    ("gazePitchRight", 35.0, 0.5, "Degrees, the subject's right eye alone, added to gazePitch. Positive looks up."),
    ("eyelidsLeft", 1.0, 0.01, "The subject's left eye: 1 is wide open, -1 closed."),
    ("eyelidsRight", 1.0, 0.01, "The subject's right eye: 1 is wide open, -1 closed."),
    ("brows", 1.0, 0.01, "1 is fully raised brows, -1 fully lowered ones."),
    ("mouthCorners", 1.0, 0.01, "1 is fully raised mouth corners, -1 fully lowered ones."),
    ("pucker", 1.0, 0.01, "Parts of fully puckered lips, added to what is there."),
)
_GAINS = (
    ("expressionGain", "Times the expression of brows, eyelids, cheeks and lips. 1 leaves it, 0 takes it away, 2 doubles it."),
    ("poseGain", "Times the head's and neck's rotation since the first frame. 1 leaves it, 0 keeps the head still."),
    ("jawGain", "Times the opening and the shifts of the jaw. 1 leaves them, 0 closes the mouth."),
    ("gazeGain", "Times the turn of the eyes. 1 leaves it, 0 looks straight ahead."),
)
_TIMED = "A list of numbers, one a frame, may be connected."


def head_of(node: str, head: HeadModel | None, *tracks: HeadTrack) -> HeadModel:
    """The connected head, or the open head where the tracks are its own."""
    if head is None:
        head = load_head("open")
        others = [t.head_name for t in tracks if t.head_digest and t.head_digest != head.digest]
        if others:
            raise InputError(f"{node}: the track was fitted with head model '{others[0]}'. Connect that model to 'head'.")
    for track in tracks:
        if fault := fault_on_head(track, head):
            raise InputError(f"{node}: {fault}. Connect the head model it was made with, or fit it again.")
    return head


@contextmanager
def named(node: str) -> Iterator[None]:
    """Puts the node's name before what is wrong with the input."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{node}: {error}") from error


def edit_value(node: str, name: str, value: Any) -> Edit:
    """What a slider gives: a number, or the curve of a node that puts a list of numbers on its FLOAT output."""
    if isinstance(value, numbers.Real):
        return float(value)
    with named(f"{node}, '{name}'"):
        return Keyframes.every_frame(value)


def _slider(name: str, limit: float, step: float, tooltip: str, optional: bool) -> io.Float.Input:
    tooltip = f"{tooltip} {_TIMED}"
    return io.Float.Input(name, optional=optional, default=0.0, min=-limit, max=limit, step=step, tooltip=tooltip)


class FLAMEEdit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        # What came after the first version is optional, so that workflows saved for the API go on working.
        sliders = [_slider(*slider, optional=False) for slider in _SLIDERS]
        more_sliders = [_slider(*slider, optional=True) for slider in _MORE_SLIDERS]
        gains = [
            io.Float.Input(
                name, optional=True, default=1.0, min=-4.0, max=4.0, step=0.01, tooltip=f"{tooltip} {_TIMED}"
            )
            for name, tooltip in _GAINS
        ]
        return io.Schema(
            node_id="Flow3DFLAMEEdit",
            display_name="FLAME Edit",
            category="Flow3D/track",
            **found_as("expression editor", "head pose", "gaze", "smile", "blink", "LivePortrait"),
            description="Turn, move and reshape a head on every frame of its track or over time. All sliders at 0 and gains at 1 "
            "change nothing.",
            inputs=[
                Track.Input("track", tooltip="The track to edit: one frame of a photo or the frames of a video."),
                *sliders,
                io.String.Input(
                    "more",
                    multiline=True,
                    default="",
                    placeholder="eyeBlinkLeft=1",
                    tooltip="More edits, NAME=VALUE, one on a line or separated by commas: gaze of one eye in degrees "
                    "(gazeYawLeft, ...) and every expression of the head by its ARKit name, in parts of the full one. "
                    "Keyframes are written here too.",
                ),
                Head.Input("head", optional=True, tooltip=HEAD_TOOLTIP),
                io.String.Input(
                    "keyframes",
                    optional=True,
                    multiline=True,
                    default="",
                    placeholder="yaw: 0: 0, 24: 20, 48: 0 smooth\nsmile: curve * 0.8",
                    tooltip="Values over time, one slider on a line: NAME: FRAME: VALUE, FRAME: VALUE, and 'linear' or "
                    "'smooth' at the end. Frames count from 0; units are the sliders'. NAME: curve * NUMBER takes 'curve'.",
                ),
                io.MultiType.Input(
                    "curve",
                    types=[io.Float, io.Custom("FLOATS")],
                    optional=True,
                    tooltip="A list of numbers, one a frame, such as a spline editor gives; lines of 'keyframes' use it "
                    "under the name curve.",
                ),
                io.Int.Input(
                    "frames",
                    optional=True,
                    default=0,
                    min=0,
                    max=MAX_FRAMES,
                    tooltip="How many frames a still becomes. 0: up to the last keyframe. A clip keeps its length: leave 0 there.",
                ),
                *more_sliders,
                io.Float.Input(
                    "neutralise",
                    optional=True,
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of the first frame's own expression is taken away from every frame: 1 is a portrait "
                    f"without its smile. {_TIMED}",
                ),
                *gains,
            ],
            outputs=[
                Track.Output(
                    display_name="edited", tooltip="The edited track: as many frames as the input, or a clip made of a still."
                )
            ],
        )

    @classmethod
    @checked(curves=True)
    def execute(
        cls,
        track: HeadTrack,
        more: str = "",
        head: HeadModel | None = None,
        keyframes: str = "",
        curve: Any = None,
        frames: int = 0,
        **sliders: Any,
    ) -> io.NodeOutput:
        edits = {name: edit_value("FLAME Edit", name, value) for name, value in sliders.items()}
        edits = {name: edit for name, edit in edits.items() if edit != (1.0 if name in GAINS else 0.0)}
        with named("FLAME Edit, 'curve'"):
            shape = None if curve is None else Keyframes.every_frame(curve)
        if shape is not None and "curve" not in more + keyframes:
            raise InputError("FLAME Edit: a curve is connected, but nothing uses it. Write 'yaw: curve * 20' in 'keyframes'.")
        for field, text in (("more", more), ("keyframes", keyframes)):
            with named(f"FLAME Edit, '{field}'"):
                for name, edit in parse_edits(text.splitlines(), shape).items():
                    edits[name] = combined(name, edits[name], edit) if name in edits else edit
        head = head_of("FLAME Edit", head, track)
        with torch.inference_mode(False), named("FLAME Edit"):
            track = on_head(track, head)
            return io.NodeOutput(edit_track(head, track, edits, frames or None), ui=left_for_page(head, track))


class FLAMERetarget(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        takes = [
            io.Boolean.Input(part, default=True, label_on="from driver", label_off="from source", tooltip=tooltip)
            for part, tooltip in (
                ("expression", "Brows, lids, cheeks and lips. Off: the source's own expression stays."),
                ("jaw", "The jaw and the mouth's opening. Off: the source's stay."),
                ("pose", "The rotation of head and neck. Off: the source's stays."),
                ("eyes", "The direction of gaze. Off: the source's stays."),
                ("translation", "Where the head is in the picture. Off: it stays where the source has it."),
            )
        ]
        return io.Schema(
            node_id="Flow3DFLAMERetarget",
            display_name="FLAME Retarget",
            category="Flow3D/track",
            **found_as("expression transfer", "face reenactment", "motion transfer", "LivePortrait"),
            description="Put a driver's motion on the source's head. The result is seen by the source's camera.",
            inputs=[
                Track.Input("source", tooltip="The track of the source portrait: one frame."),
                Track.Input("driver", tooltip="The track whose motion is taken: a fitted video or a bundled motion."),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="relative",
                    tooltip="relative: what the driver changes since its reference frame, the first, is added to the source, so "
                    "that this frame is the portrait. absolute: the driver's pose and expression as they are.",
                ),
                *takes,
                Head.Input("head", optional=True, tooltip=HEAD_TOOLTIP),
                io.Int.Input(
                    "reference",
                    optional=True,
                    default=0,
                    min=0,
                    max=MAX_FRAMES,
                    tooltip="relative: the driver's frame that is taken for the portrait; frames count from 0. Choose one "
                    "where the driver looks as the portrait does.",
                ),
            ],
            outputs=[Track.Output(display_name="target", tooltip="The source's head with the driver's motion.")],
        )

    @classmethod
    def validate_inputs(cls, mode: Any = None) -> bool | str:
        return at_the_door(cls, mode=mode)

    @classmethod
    @checked()
    def execute(
        cls,
        source: HeadTrack,
        driver: HeadTrack,
        mode: str,
        head: HeadModel | None = None,
        reference: int = 0,
        **parts: bool,
    ) -> io.NodeOutput:
        taken = {name for name in PARTS if parts.get(name, True)}
        with torch.inference_mode(False):
            head = head_of("FLAME Retarget", head, source, driver)
            return io.NodeOutput(retarget(head, source, driver, mode, taken, reference))
