"""FLAME Fit: the head in a photo or in the frames of a video."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from comfy_api.latest import Input, io
from torch import Tensor

from ..flow3d.camera import DEFAULT_FIELD_OF_VIEW, Camera
from ..flow3d.errors import InputError
from ..flow3d.fit.detect import Face, MediaPipeDetector, follow
from ..flow3d.fit.missing import held
from ..flow3d.fit.solve import fit_track
from ..flow3d.head.model import HeadModel
from ..flow3d.io.video import VideoReader
from ..flow3d.paths import find_weight
from ..flow3d.render.overlay import draw_head
from ..flow3d.track import HeadTrack
from .folders import MEDIAPIPE, model_folders
from .running import finite, one_of, pictures, progress, to_image
from .sockets import Head, Track

INTERPOLATE, HOLD, FAIL = MISSING = ("interpolate", "hold", "fail")
_MAX_FACES = 5
_OVERLAY_SIDE = 768  # pixels: the longer side of overlay pictures at most


@dataclass(frozen=True)
class Clip:
    """Pictures that can be gone through more than once."""

    frames: Iterable[np.ndarray]  # (H, W, 3) uint8 RGB
    count: int  # an estimate for a video file
    width: int
    height: int
    fps: float


class _Pictures:
    """An IMAGE as uint8 pictures, converted one at a time."""

    def __init__(self, images: Tensor):
        self.images = images

    def __iter__(self) -> Iterator[np.ndarray]:
        return pictures(self.images)


def clip_of(image: Tensor | Input.Video, fps: float) -> Clip:
    """What is connected to the node: an IMAGE (B, H, W, C), or a VIDEO, whose file is read frame by frame."""
    if isinstance(image, Input.Video):
        source = image.get_stream_source()
        if isinstance(source, str):
            reader = VideoReader(Path(source))
            return Clip(reader, reader.frames, reader.width, reader.height, float(reader.fps))
        parts = image.get_components()
        image, fps = parts.images, float(parts.frame_rate)
    if image.ndim != 4 or 0 in image.shape:
        raise InputError(f"FLAME Fit: the image is {tuple(image.shape)}, not (frames, height, width, channels).")
    return Clip(_Pictures(image), len(image), image.shape[2], image.shape[1], fps)


def find_faces(clip: Clip, detector: MediaPipeDetector, missing: str) -> tuple[list[Face | None], list[str]]:
    """One person's face in every frame, None where it is not found, and notes for the report."""
    faces: list[Face | None] = []
    notes: list[str] = []
    last: Face | None = None
    most = 0
    report = progress()
    for i, image in enumerate(clip.frames):
        seen = detector.detect(image)
        face = follow(seen, last)
        if face is None and (missing == FAIL or clip.count == 1):
            raise InputError(_no_face(i, max(clip.count, i + 1), detector.score(image)))
        if face is not None and clip.count == 1:
            face = detector.refine(image, face)
        last = face or last
        most = max(most, len(seen))
        faces.append(face)
        report(i + 1, max(clip.count, i + 1))
    if not any(faces):
        raise InputError(
            f"FLAME Fit: no face in any of {len(faces)} frames. Lower 'min confidence', or use a clip where the face is "
            "larger, upright and unhidden."
        )
    if most > 1:
        notes.append(f"{most} faces in a picture, the largest is taken" + (" and followed" if len(faces) > 1 else ""))
    cut = sum(face is not None and _leaves(face, clip) for face in faces)
    if cut:
        notes.append(f"the border cuts the face in {cut} of {len(faces)} pictures, so the fit is less certain")
    if isinstance(clip.frames, VideoReader) and clip.frames.note:
        notes.append(clip.frames.note)
    return faces, notes


def _leaves(face: Face, clip: Clip) -> bool:
    left, top, right, bottom = face.box
    return left < 0 or top < 0 or right > clip.width or bottom > clip.height


def _no_face(frame: int, count: int, score: float) -> str:
    if count == 1:
        return (
            f"FLAME Fit: no face in the picture (confidence {score:.2f}). Lower 'min confidence', or use a picture where "
            "the face is larger, upright and unhidden."
        )
    return (
        f"FLAME Fit: no face in frame {frame} of {count} (confidence {score:.2f}). Lower 'min confidence', or set "
        "'missing frames' to 'interpolate'."
    )


def overlay(clip: Clip, head: HeadModel, track: HeadTrack, most: int) -> Tensor:
    """The fitted head over `most` of the pictures, evenly spread (0: all), as an IMAGE of at most 768 pixels a side."""
    n = len(track)
    shown = set(np.linspace(0, n - 1, min(most or n, n)).round().astype(int).tolist())
    scale = min(1.0, _OVERLAY_SIDE / max(clip.width, clip.height))
    width, height = max(1, round(clip.width * scale)), max(1, round(clip.height * scale))
    camera = track.camera.resized(width, height)
    drawn = torch.empty(len(shown), height, width, 3)
    report, done = progress(), 0
    for i, image in enumerate(clip.frames):
        if i not in shown:
            continue
        small = image if scale == 1 else cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        drawn[done] = to_image(draw_head(small, head, track[i : i + 1].vertices(head)[0], camera))
        done += 1
        report(done, len(shown))
        if done == len(shown):
            break
    return drawn[:done]


class FLAMEFit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DFLAMEFit",
            display_name="FLAME Fit",
            category="Flow3D/track",
            description="Fit a head to the largest face of a photo, or to one face through the frames of a video. "
            "Needs face_landmarker.task in models/mediapipe.",
            inputs=[
                Head.Input("head", tooltip="The head model to fit."),
                io.MultiType.Input(
                    "image",
                    types=[io.Image, io.Video],
                    tooltip="A photo, the frames of a video, or a video itself, which is read frame by frame and needs "
                    "no memory for its length.",
                ),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=240.0,
                    step=0.001,
                    round=0.001,
                    tooltip="Frames per second of image frames. A photo does not use it, a video brings its own.",
                ),
                io.Float.Input(
                    "field_of_view",
                    default=DEFAULT_FIELD_OF_VIEW,
                    min=5.0,
                    max=120.0,
                    step=0.5,
                    tooltip="Degrees across the short side of the picture. 25 suits portraits; a phone held close has 50 "
                    "to 60. Use the same for source and driver unless you know better.",
                ),
                io.Float.Input(
                    "min_confidence",
                    default=0.3,
                    min=0.05,
                    max=0.95,
                    step=0.05,
                    tooltip="Detection score, 0 to 1, below which a face is not taken for one.",
                ),
                io.Combo.Input(
                    "missing_frames",
                    options=list(MISSING),
                    default=INTERPOLATE,
                    tooltip="Frames without a face: interpolate between their neighbours, hold the last pose, or fail with "
                    "the frame's number. A photo without a face always fails.",
                ),
                io.Int.Input(
                    "overlay_frames",
                    default=16,
                    min=0,
                    max=4096,
                    tooltip="Frames of the overlay output, evenly spread over the clip; 0 for all of them.",
                ),
            ],
            outputs=[
                Track.Output(display_name="track", tooltip="The head in every frame: metres, radians, camera frame."),
                io.Image.Output(
                    display_name="overlay",
                    tooltip="The fitted mesh and its landmarks over the pictures, at most 768 pixels a side.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="How well it fits, in % of the distance between the eyes, and what to know about it.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        head: HeadModel,
        image: Tensor | Input.Video,
        fps: float,
        field_of_view: float,
        min_confidence: float,
        missing_frames: str,
        overlay_frames: int,
    ) -> io.NodeOutput:
        finite("FLAME Fit", fps=fps, field_of_view=field_of_view, min_confidence=min_confidence)
        one_of("FLAME Fit", "missing frames", missing_frames, MISSING)
        clip = clip_of(image, fps)
        model = find_weight("face_landmarker.task", model_folders(MEDIAPIPE))
        with torch.inference_mode(False), MediaPipeDetector(model, _MAX_FACES, min_confidence) as detector:
            faces, notes = find_faces(clip, detector, missing_frames)
            camera = Camera.from_field_of_view(clip.width, clip.height, field_of_view)
            track, fit = fit_track(head, faces, camera, clip.fps, progress())
            if missing_frames == HOLD:
                track = held(track)
                fit = replace(fit, missing=())
                notes += [f"no face in {faces.count(None)} frames, the last pose held"] if None in faces else []
            return io.NodeOutput(track, overlay(clip, head, track, overlay_frames), "; ".join([str(fit), *notes]))
