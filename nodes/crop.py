"""Portrait Crop and Paste Back: work on the head in a square picture of its own, and put it back."""

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..flow3d.crop import PortraitCrop
from ..flow3d.crop_boxes import MOTIONS, ONE_BOX, HeadPlaces, place_crop, places_of_faces, places_of_track
from ..flow3d.crop_paste import ROUNDED_SQUARE, SHAPES, Blend, paste
from ..flow3d.errors import InputError
from ..flow3d.fit.detect import MediaPipeDetector
from ..flow3d.fit.people import IGNORE, Choice, Follower, choose
from ..flow3d.head.load import load_head
from ..flow3d.head.model import HeadModel
from ..flow3d.paths import find_weight
from ..flow3d.track import HeadTrack
from .batches import announce
from .checks import at_the_door, checked
from .folders import MEDIAPIPE, model_folders
from .found import found_as
from .motion import HEAD_TOOLTIP, head_of
from .running import pictures, progress
from .sockets import Crop, Head, Track

_MAX_FACES = 5


def rgb(picture: Tensor) -> np.ndarray:
    """One picture of an IMAGE (H, W, C) as (H, W, 3) float32, grey put in three channels and alpha dropped."""
    picture = picture.detach().float().cpu()
    return (picture[..., :3] if picture.shape[-1] >= 3 else picture[..., :1].expand(-1, -1, 3)).contiguous().numpy()


def detected(images: Tensor, min_confidence: float) -> HeadPlaces:
    """Where the head of the person is whose face is the largest over the clip."""
    model = find_weight("face_landmarker.task", model_folders(MEDIAPIPE))
    follower, report = Follower(IGNORE), progress()
    with MediaPipeDetector(model, _MAX_FACES, min_confidence) as detector:
        for picture in pictures(images):
            follower.add(picture, detector.detect(picture))
            report(follower.count, len(images))
    people = follower.people()
    if not people:
        raise InputError(
            f"Portrait Crop: no face in any of {len(images)} frames. Lower 'min confidence', use pictures where the face is "
            "larger and unhidden, or connect a track."
        )
    return places_of_faces(choose(people, Choice(), images.shape[2], images.shape[1]).faces, load_head("open"))


def tracked(images: Tensor, track: HeadTrack, head: HeadModel) -> HeadPlaces:
    """Where the head of a track is in the pictures it was fitted to."""
    camera, (count, height, width) = track.camera, images.shape[:3]
    if (camera.width, camera.height) != (width, height):
        raise InputError(
            f"Portrait Crop: the image is {width} x {height}, but the track was fitted to one of {camera.width} x "
            f"{camera.height}. Connect the image that went into FLAME Fit."
        )
    if len(track) not in (1, count):
        raise InputError(f"Portrait Crop: the image has {count} frames, but the track has {len(track)}. Connect its own.")
    return places_of_track(track, head)


class PortraitCropNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DPortraitCrop",
            display_name="Portrait Crop",
            category="Flow3D/crop",
            **found_as("face crop", "head crop", "face detection"),
            description="A steady square crop around the head, made for a camera of 25 degrees. Fit the head on the crop, work "
            "on the crop, and put it back with Paste Back.",
            inputs=[
                io.Image.Input("image", tooltip="A photo or the frames of a video."),
                io.Int.Input(
                    "size",
                    default=512,
                    min=0,
                    max=4096,
                    step=8,
                    tooltip="Pixels of the crop's sides; 0 for the picture's own pixels, which are then copied unchanged.",
                ),
                io.Combo.Input(
                    "box",
                    options=list(MOTIONS),
                    default=ONE_BOX,
                    tooltip="one box: the same for the whole clip, large enough for all of it. follow: moves smoothly with the "
                    "head, in one size. follow and zoom: grows and shrinks with it too.",
                ),
                io.Float.Input(
                    "room",
                    default=1.0,
                    min=0.5,
                    max=4.0,
                    step=0.05,
                    tooltip="Times the side of the box. At 1 a head fills about 60% of the height and stands 0.95 m away, as "
                    "trained networks have it; more shows more of the surroundings.",
                ),
                io.Float.Input(
                    "smoothing",
                    default=12.0,
                    min=0.0,
                    max=240.0,
                    step=0.5,
                    tooltip="Frames (standard deviation) over which the path of a moving box is smoothed. One box has none.",
                ),
                io.Float.Input(
                    "min_confidence",
                    default=0.3,
                    min=0.05,
                    max=0.95,
                    step=0.05,
                    tooltip="Detection score, 0 to 1, below which a face is not taken for one. A track makes it needless.",
                ),
                Track.Input(
                    "track",
                    optional=True,
                    tooltip="Where the head is, from FLAME Fit on the same pictures, such as the track of one person of several. "
                    "Without it the largest face is found and followed.",
                ),
                Head.Input("head", optional=True, tooltip=HEAD_TOOLTIP),
            ],
            outputs=[
                io.Image.Output(display_name="crop", tooltip="The crop of every frame, square."),
                Crop.Output(display_name="transform", tooltip="Where the crop lies in the picture, for Paste Back."),
                io.Mask.Output(
                    display_name="known", tooltip="1 where the crop shows the picture, 0 where it reaches beyond its border."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, box: Any = None) -> bool | str:
        return at_the_door(cls, box=box)

    @classmethod
    @checked()
    def execute(
        cls,
        image: Tensor,
        size: int,
        box: str,
        room: float,
        smoothing: float,
        min_confidence: float,
        track: HeadTrack | None = None,
        head: HeadModel | None = None,
    ) -> io.NodeOutput:
        with torch.inference_mode(False), torch.no_grad():
            if track is None:
                places = detected(image, min_confidence)
            else:
                places = tracked(image, track, head_of("Portrait Crop", head, track))
            transform = place_crop(places, image.shape[2], image.shape[1], size, box, room, smoothing)
            announce("Portrait Crop", len(image), (transform.size, transform.size), 4, "Take fewer frames or a smaller size.")
            crops = torch.empty(len(image), transform.size, transform.size, 3)
            known = torch.empty(len(image), transform.size, transform.size)
            report = progress()
            for t, picture in enumerate(image):
                crops[t] = torch.from_numpy(transform.cut(rgb(picture), t))
                known[t] = torch.from_numpy(transform.known(t))
                report(t + 1, len(image))
            return io.NodeOutput(crops, transform, known)


def check_counts(results: Tensor, transform: PortraitCrop, full: Tensor, mask: Tensor | None) -> None:
    """Each input has as many frames as the result, or one that serves them all. Raises InputError otherwise."""
    counts = {"the transform": len(transform), "the full frame": len(full)}
    if mask is not None:
        counts["the mask"] = len(mask)
    for name, count in counts.items():
        if count not in (1, len(results)):
            raise InputError(
                f"Paste Back: the result has {len(results)} frames, but {name} has {count}. Give it as many, or one for all."
            )


class PasteBack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DPasteBack",
            display_name="Paste Back",
            category="Flow3D/crop",
            **found_as("uncrop", "stitch", "face paste"),
            description="Put what was made of a Portrait Crop back into the full picture. What did not change keeps the full "
            "picture's own pixels.",
            inputs=[
                io.Image.Input("result", tooltip="What was made of the crop: square, of any size, one frame or more."),
                Crop.Input("transform", tooltip="From Portrait Crop."),
                io.Image.Input(
                    "full_frame",
                    tooltip="What went into Portrait Crop: one picture for each frame of the result, or a single one for all.",
                ),
                io.Combo.Input(
                    "shape",
                    options=list(SHAPES),
                    default=ROUNDED_SQUARE,
                    tooltip="What of the crop is put back: all of it, or the circle within.",
                ),
                io.Int.Input(
                    "feather",
                    default=32,
                    min=0,
                    max=1024,
                    tooltip="Pixels of the crop over which the result fades into the full picture.",
                ),
                io.Float.Input(
                    "colour_match",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="0 to 1: how far the result takes the colours that the full picture has around it.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Over the crop: 1 where the result is taken, 0 where the full picture stays. Its edge is feathered.",
                ),
            ],
            outputs=[io.Image.Output(display_name="pasted", tooltip="Full pictures, one for each frame of the result.")],
        )

    @classmethod
    def validate_inputs(cls, shape: Any = None) -> bool | str:
        return at_the_door(cls, shape=shape)

    @classmethod
    @checked()
    def execute(
        cls,
        result: Tensor,
        transform: PortraitCrop,
        full_frame: Tensor,
        shape: str,
        feather: int,
        colour_match: float,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        masks = None if mask is None else mask.detach().float().cpu().reshape(-1, *mask.shape[-2:])
        check_counts(result, transform, full_frame, masks)
        blend = Blend(shape, feather, colour_match)
        announce("Paste Back", len(result), full_frame.shape[1:3], 3, "Take fewer frames at a time.")
        pasted = torch.empty(len(result), *full_frame.shape[1:3], 3)
        report = progress()
        for t, made in enumerate(result):
            picture = rgb(full_frame[min(t, len(full_frame) - 1)])
            chosen = None if masks is None else masks[min(t, len(masks) - 1)].numpy()
            pasted[t] = torch.from_numpy(paste(picture, rgb(made), transform, t, blend, chosen))
            report(t + 1, len(result))
        return io.NodeOutput(pasted)
