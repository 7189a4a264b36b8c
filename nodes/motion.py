"""FLAME Edit and FLAME Retarget: what a head does, changed or carried over to another head."""

import torch
from comfy_api.latest import io

from ..flow3d.errors import InputError
from ..flow3d.fit.edit import edit_track, parse_edits
from ..flow3d.fit.retarget import MODES, PARTS, retarget
from ..flow3d.head.load import load_head
from ..flow3d.head.model import HeadModel
from ..flow3d.track import HeadTrack
from .running import finite, one_of
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
    ("gazePitch", 35.0, 0.5, "Degrees, both eyes. Positive looks up."),
    ("jawOpen", 1.0, 0.01, "Parts of a fully open mouth, added to what is there."),
    ("smile", 1.0, 0.01, "Parts of a full smile, added to what is there."),
    ("blink", 1.0, 0.01, "Parts of closed eyes, added to what is there; -1 opens closed eyes."),
    ("browUp", 1.0, 0.01, "Parts of fully raised brows, added to what is there."),
)


def head_of(node: str, head: HeadModel | None, *tracks: HeadTrack) -> HeadModel:
    """The connected head, or the open head where the tracks are its own."""
    if head is not None:
        return head
    head = load_head("open")
    others = [t.head_name for t in tracks if t.head_digest and t.head_digest != head.digest]
    if others:
        raise InputError(f"{node}: the track was fitted with head model '{others[0]}'. Connect that model to 'head'.")
    return head


class FLAMEEdit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        sliders = [
            io.Float.Input(name, default=0.0, min=-limit, max=limit, step=step, tooltip=tooltip)
            for name, limit, step, tooltip in _SLIDERS
        ]
        return io.Schema(
            node_id="Flow3DFLAMEEdit",
            display_name="FLAME Edit",
            category="Flow3D/track",
            description="Turn, move and reshape a head on every frame of its track. All at 0 changes nothing.",
            inputs=[
                Track.Input("track", tooltip="The track to edit: one frame of a photo or the frames of a video."),
                *sliders,
                io.String.Input(
                    "more",
                    multiline=True,
                    default="",
                    placeholder="eyeBlinkLeft=1",
                    tooltip="More edits, NAME=VALUE, one on a line or separated by commas: gaze of one eye in degrees "
                    "(gazeYawLeft, ...) and every expression of the head by its ARKit name, in parts of the full one.",
                ),
                Head.Input("head", optional=True, tooltip=HEAD_TOOLTIP),
            ],
            outputs=[Track.Output(display_name="edited", tooltip="The edited track: as many frames as the input.")],
        )

    @classmethod
    def execute(cls, track: HeadTrack, more: str = "", head: HeadModel | None = None, **sliders: float) -> io.NodeOutput:
        finite("FLAME Edit", **sliders)
        edits = {name: value for name, value in sliders.items() if value != 0}
        for name, value in parse_edits([e for e in more.replace(",", "\n").splitlines() if e.strip()]).items():
            edits[name] = edits.get(name, 0.0) + value
        with torch.inference_mode(False):
            return io.NodeOutput(edit_track(head_of("FLAME Edit", head, track), track, edits))


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
            description="Put a driver's motion on the source's head. The result is seen by the source's camera.",
            inputs=[
                Track.Input("source", tooltip="The track of the source portrait: one frame."),
                Track.Input("driver", tooltip="The track whose motion is taken: a fitted video or a bundled motion."),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="relative",
                    tooltip="relative: what the driver changes since its first frame is added to the source, so that "
                    "the first frame is the portrait. absolute: the driver's pose and expression as they are.",
                ),
                *takes,
                Head.Input("head", optional=True, tooltip=HEAD_TOOLTIP),
            ],
            outputs=[Track.Output(display_name="target", tooltip="The source's head with the driver's motion.")],
        )

    @classmethod
    def execute(
        cls, source: HeadTrack, driver: HeadTrack, mode: str, head: HeadModel | None = None, **parts: bool
    ) -> io.NodeOutput:
        one_of("FLAME Retarget", "mode", mode, MODES)
        taken = {name for name in PARTS if parts.get(name, True)}
        with torch.inference_mode(False):
            return io.NodeOutput(retarget(head_of("FLAME Retarget", head, source, driver), source, driver, mode, taken))
