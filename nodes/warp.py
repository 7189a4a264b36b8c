"""The portrait animated by the 3D flow alone: as pictures, or written frame by frame into a video."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import folder_paths
import numpy as np
import torch
from comfy_api.latest import Input, InputImpl, io
from torch import Tensor

from ..flow3d.errors import InputError
from ..flow3d.flow.field import FlowField
from ..flow3d.io.video import VideoWriter
from ..flow3d.warp.renderer import FlowWarp
from .batches import announce
from .checks import checked
from .found import found_as
from .running import progress, to_image, to_uint8
from .sockets import Field


@contextmanager
def warped(node: str, image: Tensor, field: FlowField) -> Iterator[Iterator[tuple[np.ndarray, np.ndarray]]]:
    """The animation's frames one by one, (H, W, 3) and the mask of what was filled (H, W), uint8. Shows progress and can be
    cancelled. Raises InputError for an image of another size than the source track was fitted to."""
    camera = field.source.camera
    if tuple(image.shape[1:3]) != (camera.height, camera.width):
        raise InputError(
            f"{node}: the image is {image.shape[2]} x {image.shape[1]}, but the source track was fitted to "
            f"one of {camera.width} x {camera.height}. Connect the image that went into FLAME Fit."
        )
    with torch.inference_mode(False), torch.no_grad():
        warp, report = FlowWarp(field.head, to_uint8(image[0]), field.source[:1]), progress()

        def frames() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for t in range(len(field)):
                yield warp.frame(field.target[t : t + 1])
                report(t + 1, len(field))

        yield frames()


class FlowWarpPreview(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DFlowWarpPreview",
            display_name="Flow Warp Preview",
            category="Flow3D/warp",
            **found_as("animate portrait", "talking head", "face reenactment", "LivePortrait"),
            description="Animate the portrait without a diffusion model: pixels move with the head, the motion fades into "
            "a still background, and what the photo never showed is filled and marked.",
            inputs=[
                io.Image.Input(
                    "image", tooltip="The portrait that the field's source track was fitted to, in full size."
                ),
                Field.Input("field", tooltip="The 3D flow from 3D Flow Encode."),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images",
                    tooltip="One picture for each frame, as large as the portrait: with the mask 4.2 MB a frame at 512 x 512.",
                ),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="1 where the portrait had nothing to show and the picture was filled; for inpainting.",
                ),
            ],
        )

    @classmethod
    @checked()
    def execute(cls, image: Tensor, field: FlowField) -> io.NodeOutput:
        size = field.source.camera.height, field.source.camera.width
        remedy = "Flow Warp Video writes the same frame by frame and keeps none."
        announce("Flow Warp Preview", len(field), size, 4, remedy)
        with warped("Flow Warp Preview", image, field) as frames:
            images, mask = torch.empty(len(field), *size, 3), torch.empty(len(field), *size)
            for t, (picture, filled) in enumerate(frames):
                images[t], mask[t] = to_image(picture), to_image(filled)
            return io.NodeOutput(images, mask)


class FlowWarpVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DFlowWarpVideo",
            display_name="Flow Warp Video",
            category="Flow3D/warp",
            **found_as("animate portrait", "talking head", "LivePortrait"),
            description="Animate the portrait as Flow Warp Preview does, written frame by frame into a video: the memory it needs "
            "does not grow with the length. Connect the video to Save Video.",
            inputs=[
                io.Image.Input(
                    "image", tooltip="The portrait that the field's source track was fitted to, in full size."
                ),
                Field.Input("field", tooltip="The 3D flow from 3D Flow Encode."),
                io.Video.Input(
                    "sound",
                    optional=True,
                    tooltip="A video whose sound goes along, usually the driver; it starts with the first frame.",
                ),
            ],
            outputs=[
                io.Video.Output(
                    display_name="video", tooltip="H.264 at the target track's frame rate, as large as the portrait."
                )
            ],
        )

    @classmethod
    @checked()
    def execute(cls, image: Tensor, field: FlowField, sound: Input.Video | None = None) -> io.NodeOutput:
        folder = Path(folder_paths.get_temp_directory())
        folder.mkdir(parents=True, exist_ok=True)
        out = folder / f"flow_warp_{uuid.uuid4().hex}.mp4"
        camera = field.source.camera
        with (
            warped("Flow Warp Video", image, field) as frames,
            VideoWriter(out, camera.width, camera.height, field.target.fps, _file_of(sound)) as writer,
        ):
            for picture, _ in frames:
                writer.write(picture)
        return io.NodeOutput(InputImpl.VideoFromFile(str(out)))


def _file_of(video: Input.Video | None) -> Path | None:
    """The video's file. Raises InputError for one that is none, such as Create Video's."""
    if video is None:
        return None
    source = video.get_stream_source()
    if not isinstance(source, str):
        raise InputError(
            "Flow Warp Video: 'sound' is not a video file. Connect Load Video, or add the sound in Create Video."
        )
    return Path(source)
