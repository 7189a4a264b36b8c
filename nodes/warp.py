"""Flow Warp Preview: the portrait animated by the 3D flow alone."""

import torch
from comfy_api.latest import io
from torch import Tensor

from ..flow3d.errors import InputError
from ..flow3d.flow.field import FlowField
from ..flow3d.warp.renderer import FlowWarp
from .running import progress, to_image, to_uint8
from .sockets import Field


class FlowWarpPreview(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DFlowWarpPreview",
            display_name="Flow Warp Preview",
            category="Flow3D/warp",
            description="Animate the portrait without a diffusion model: pixels move with the head, the motion fades into "
            "a still background, and what the photo never showed is filled and marked.",
            inputs=[
                io.Image.Input("image", tooltip="The portrait that the field's source track was fitted to, in full size."),
                Field.Input("field", tooltip="The 3D flow from 3D Flow Encode."),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="One picture for each frame, as large as the portrait."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="1 where the portrait had nothing to show and the picture was filled; for inpainting.",
                ),
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, field: FlowField) -> io.NodeOutput:
        camera = field.source.camera
        size = (camera.height, camera.width)
        if tuple(image.shape[1:3]) != size:
            raise InputError(
                f"Flow Warp Preview: the image is {image.shape[2]} x {image.shape[1]}, but the source track was fitted to "
                f"one of {camera.width} x {camera.height}. Connect the image that went into FLAME Fit."
            )
        with torch.inference_mode(False), torch.no_grad():
            warp = FlowWarp(field.head, to_uint8(image[0]), field.source[:1])
            images, mask = torch.empty(len(field), *size, 3), torch.empty(len(field), *size)
            report = progress()
            for t in range(len(field)):
                picture, filled = warp.frame(field.target[t : t + 1])
                images[t], mask[t] = to_image(picture), to_image(filled)
                report(t + 1, len(field))
            return io.NodeOutput(images, mask)
