"""3D Flow Encode: for every pixel of the target, where it came from on the source."""

import logging

import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..flow3d.camera import Camera
from ..flow3d.flow.field import FlowField
from ..flow3d.flow.sampling import Sampling
from ..flow3d.flow.visualize import flow_picture
from ..flow3d.head.model import HeadModel
from ..flow3d.track import HeadTrack
from .running import finite, progress, to_image
from .sockets import Field, Head, Track

_DEFAULT = Sampling()


def scaled(camera: Camera, short_side: int) -> Camera:
    """The camera with `short_side` pixels across its short side; 0: as it is."""
    factor = short_side / min(camera.width, camera.height) if short_side else 1.0
    return camera.resized(max(1, round(camera.width * factor)), max(1, round(camera.height * factor)))


def pictures_and_mask(field: FlowField, most: int) -> tuple[Tensor, Tensor]:
    """The flow of `most` frames (0: all) in colour, an IMAGE, and the head in all frames, a MASK."""
    n = len(field)
    shown = set(np.linspace(0, n - 1, min(most or n, n)).round().astype(int).tolist())
    size = field.camera.height, field.camera.width
    colours, mask = torch.empty(len(shown), *size, 3), torch.empty(n, *size)
    report, painted = progress(), 0
    for t in range(n):
        head = field.head_mask([t])
        mask[t] = head[0]
        if t in shown:
            colours[painted] = to_image(flow_picture(field.pixels([t]), head)[0].cpu().numpy())
            painted += 1
        report(t + 1, n)
    return colours, mask


class FlowEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DFlowEncode",
            display_name="3D Flow Encode",
            category="Flow3D/flow",
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
                    tooltip="Frames of the preview output, evenly spread over the clip; 0 for all of them.",
                ),
            ],
            outputs=[
                Field.Output(display_name="field", tooltip="The 3D flow of every frame, computed where it is used."),
                io.Image.Output(
                    display_name="preview",
                    tooltip="The flow in colour: hue is the direction of the move in the picture, strength its length.",
                ),
                io.Mask.Output(display_name="mask", tooltip="1 where the target head is, in every frame."),
            ],
        )

    @classmethod
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
        finite("3D Flow Encode", delta=delta, near=near, far=far)
        with torch.inference_mode(False), torch.no_grad():
            field = FlowField(source, target, head, scaled(source.camera, size), Sampling(samples, delta, near, far))
            warning = field.depth_warning()
            if warning:
                logging.info(warning)  # of no account to a warp, which is what full pictures are for
            return io.NodeOutput(field, *pictures_and_mask(field, preview_frames))
