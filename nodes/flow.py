"""3D Flow Encode and 3D Flow Visualize: for every pixel of the target, where it came from on the source."""

import logging
from typing import Any

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..flow3d.camera import Camera
from ..flow3d.errors import InputError
from ..flow3d.flow.field import FlowField
from ..flow3d.flow.pictures import VIEWS, FlowPictures, around_the_head, spread
from ..flow3d.flow.report import flow_report
from ..flow3d.flow.sampling import Sampling
from ..flow3d.flow.visualize import flow_picture
from ..flow3d.head.model import HeadModel
from ..flow3d.track import HeadTrack
from .batches import announce
from .checks import at_the_door, checked
from .found import found_as
from .running import cancel_point, progress, to_image, to_uint8
from .sockets import Field, Head, Track

_DEFAULT = Sampling()


def scaled(camera: Camera, short_side: int) -> Camera:
    """The camera with `short_side` pixels across its short side; 0: as it is."""
    factor = short_side / min(camera.width, camera.height) if short_side else 1.0
    return camera.resized(max(1, round(camera.width * factor)), max(1, round(camera.height * factor)))


def pictures_and_masks(field: FlowField, most: int) -> tuple[Tensor, Tensor]:
    """The flow of `most` frames (0: all) in colour, an IMAGE, and the head in the same frames, a MASK."""
    shown = spread(len(field), most or len(field))
    size = field.camera.height, field.camera.width
    announce("3D Flow Encode", len(shown), size, 4, "Lower 'preview_frames'; the field itself holds no pictures.")
    colours, masks = torch.empty(len(shown), *size, 3), torch.empty(len(shown), *size)
    report = progress()
    for i, t in enumerate(shown):
        head = field.head_mask([t])
        masks[i] = head[0]
        colours[i] = to_image(flow_picture(field.pixels([t]), head)[0].cpu().numpy())
        report(i + 1, len(shown))
    return colours, masks


class FlowEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DFlowEncode",
            display_name="3D Flow Encode",
            category="Flow3D/flow",
            **found_as("optical flow", "correspondence", "motion field"),
            description="Where each pixel of the target came from on the source. The field holds how to compute the flow, "
            "never a whole video of it. Flow Warp Preview needs no more than the three connections.",
            inputs=[
                Head.Input("head", tooltip="The head model that both tracks were fitted with."),
                Track.Input("source", tooltip="The portrait's track, from FLAME Fit: one frame."),
                Track.Input("target", tooltip="What the head shall do, from FLAME Retarget or FLAME Edit."),
                io.Int.Input(
                    "size",
                    default=512,
                    min=0,
                    max=4096,
                    step=8,
                    tooltip="Pixels across the short side of the flow, preview and mask; 0 for the portrait's own size.",
                ),
                io.Int.Input(
                    "samples",
                    default=_DEFAULT.samples,
                    min=1,
                    max=128,
                    tooltip="Points along each pixel's ray. Trained networks take 20 (60 channels).",
                ),
                io.Float.Input(
                    "delta",
                    default=_DEFAULT.delta,
                    min=0.0,
                    max=0.5,
                    step=0.001,
                    round=0.0001,
                    tooltip="Metres before and behind the surface that are sampled on the head. Trained networks take 0.01.",
                ),
                io.Float.Input(
                    "near",
                    default=_DEFAULT.near,
                    min=0.01,
                    max=100.0,
                    step=0.01,
                    round=0.001,
                    tooltip="Metres: the nearest depth that is sampled beside the head. No part in warping.",
                ),
                io.Float.Input(
                    "far",
                    default=_DEFAULT.far,
                    min=0.02,
                    max=100.0,
                    step=0.01,
                    round=0.001,
                    tooltip="Metres: the farthest depth that is sampled beside the head. No part in warping.",
                ),
                io.Int.Input(
                    "preview_frames",
                    default=16,
                    min=0,
                    max=4096,
                    tooltip="Frames of the preview and the mask, evenly spread over the clip; 0 for all of them, which takes memory for each.",
                ),
            ],
            outputs=[
                Field.Output(display_name="field", tooltip="The 3D flow of every frame, computed where it is used."),
                io.Image.Output(
                    display_name="preview",
                    tooltip="The flow in colour: hue is the direction of the move in the picture, strength its length.",
                ),
                io.Mask.Output(display_name="mask", tooltip="1 where the target head is, in the preview's frames."),
            ],
        )

    @classmethod
    @checked()
    def execute(
        cls,
        head: HeadModel,
        source: HeadTrack,
        target: HeadTrack,
        size: int,
        samples: int,
        delta: float,
        near: float,
        far: float,
        preview_frames: int,
    ) -> io.NodeOutput:
        with torch.inference_mode(False), torch.no_grad():
            field = FlowField(source, target, head, scaled(source.camera, size), Sampling(samples, delta, near, far))
            warning = field.depth_warning(cancel_point)
            if warning:
                logging.info(warning)  # of no account to a warp, which is what full pictures are for
            return io.NodeOutput(field, *pictures_and_masks(field, preview_frames))


_NODE = "3D Flow Visualize"
_WINDOWS = ("head", "whole picture")


class FlowVisualize(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DFlowVisualize",
            display_name=_NODE,
            category="Flow3D/flow",
            **found_as("optical flow", "flow preview"),
            description="The 3D flow in pictures, with scales in millimetres, and in figures.",
            is_output_node=True,
            inputs=[
                Field.Input("field", tooltip="The 3D flow from 3D Flow Encode."),
                io.Combo.Input(
                    "view",
                    options=list(VIEWS),
                    default=VIEWS[0],
                    tooltip="sheet: all of them on one page. direction and depth: how the surface moved, in colour. arrows: from "
                    "the portrait to here. layers: the flow at each sample along the rays. checkerboard: the portrait's pixels "
                    "where they are now. visibility: what the portrait shows of the surface.",
                ),
                io.Combo.Input(
                    "window",
                    options=list(_WINDOWS),
                    default=_WINDOWS[0],
                    tooltip="head: a square that holds the head in all frames. whole picture: the field's own view.",
                ),
                io.Int.Input(
                    "size",
                    default=512,
                    min=64,
                    max=2048,
                    step=8,
                    tooltip="Pixels across the short side of one view; a sheet is three views wide and two high.",
                ),
                io.Float.Input(
                    "scale",
                    default=0.0,
                    min=0.0,
                    max=1000.0,
                    step=1.0,
                    tooltip="Millimetres of the strongest colour; 0: a round number that the clip does not often exceed.",
                ),
                io.Int.Input(
                    "frames",
                    default=16,
                    min=0,
                    max=4096,
                    tooltip="Frames to show, evenly spread over the clip; 0 for all of them.",
                ),
                io.Image.Input(
                    "portrait",
                    optional=True,
                    tooltip="The image that went into FLAME Fit, for arrows and checkerboard. Without it the head is shaded.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="One picture for each frame shown."),
                io.String.Output(
                    display_name="report", tooltip="How far the surface moves in millimetres, and how that is spread."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, view: Any = None, window: Any = None) -> bool | str:
        return at_the_door(cls, view=view, window=window)

    @classmethod
    @checked()
    def execute(
        cls, field: FlowField, view: str, window: str, size: int, scale: float, frames: int, portrait: Tensor | None = None
    ) -> io.NodeOutput:
        if len(field) == 0:
            raise InputError(f"{_NODE}: the field has no frames. Retarget a driver that has some.")
        with torch.inference_mode(False), torch.no_grad():
            picture = None if portrait is None else to_uint8(portrait[0])
            if window == "head":
                shown, picture = around_the_head(field, picture, size)
            else:
                camera = scaled(field.camera, size)
                shown = field.resize(camera.width, camera.height)
            pictures, chosen = FlowPictures(shown, picture, scale, cancel_point), spread(len(field), frames or len(field))
            images = _pictures(pictures, view, chosen)
            summary = flow_report(field, lambda *_: cancel_point())
        return io.NodeOutput(images, summary, ui=ui.PreviewText(summary))


def _pictures(of: FlowPictures, view: str, chosen: list[int]) -> Tensor:
    """An IMAGE of the chosen frames."""
    report = progress()
    first = of.picture(view, chosen[0])
    announce(_NODE, len(chosen), first.shape[:2], 3, "Lower 'frames' or 'size'.")
    images = torch.empty(len(chosen), *first.shape)
    for i, t in enumerate(chosen):
        images[i] = to_image(first if i == 0 else of.picture(view, t))
        report(i + 1, len(chosen))
    return images
