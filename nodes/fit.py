"""FLAME Fit: the head in a photo or in the frames of a video."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import folder_paths
import numpy as np
import torch
from comfy_api.latest import Input, io
from torch import Tensor

from ..flow3d.camera import DEFAULT_FIELD_OF_VIEW, Camera
from ..flow3d.errors import InputError
from ..flow3d.fit.comfy_landmarks import landmarks_from_comfy
from ..flow3d.fit.detect import MediaPipeDetector
from ..flow3d.fit.face_alignment import FaceAlignmentDetector
from ..flow3d.fit.faces import Face, FaceDetector
from ..flow3d.fit.given import GivenFaces
from ..flow3d.fit.missing import held
from ..flow3d.fit.people import CUTS, LARGEST, NEW_TRACK, ORDERS, Choice, Follower, border_note, choose, notes
from ..flow3d.fit.photometric import refine_photometric
from ..flow3d.fit.solve import fit_track
from ..flow3d.head.model import HeadModel
from ..flow3d.io.landmarks import SUFFIXES, read_landmarks
from ..flow3d.io.names import path_within
from ..flow3d.io.video import VideoReader
from ..flow3d.paths import find_weight
from ..flow3d.render.overlay import draw_head
from ..flow3d.track import HeadTrack
from .checks import at_the_door, checked
from .folders import MEDIAPIPE, model_folders
from .found import found_as
from .running import cancel_point, pictures, progress, to_image
from .sockets import Head, Track

FaceLandmarks = io.Custom("FACE_LANDMARKS")  # ComfyUI's own, since 0.23
INTERPOLATE, HOLD, FAIL = MISSING = ("interpolate", "hold", "fail")
MEDIAPIPE_DETECTOR, FACE_ALIGNMENT = DETECTORS = ("MediaPipe", "face-alignment")
NO_FILE = "none"
OFF, ON = PHOTOMETRIC = ("off", "on")
_MAX_FACES = 5  # the largest, read in each picture
_CROWD = 32  # where another order, or a face beyond these, is asked for
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
    return Clip(_Pictures(image), len(image), image.shape[2], image.shape[1], fps)


def landmark_files() -> list[str]:
    """Landmarks files in ComfyUI's input folder."""
    return sorted(p.name for p in Path(folder_paths.get_input_directory()).glob("*") if p.suffix.lower() in SUFFIXES)


def landmark_file(name: str) -> Path:
    """The file of that name. Raises InputError for one that is not there, or leads out of the input folder."""
    path = path_within(Path(folder_paths.get_input_directory()), name, "ComfyUI's input folder")
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        kinds = " or ".join(SUFFIXES)
        raise InputError(f"there is no landmarks file '{name}' ({kinds}) in ComfyUI's input folder. Put it there.")
    return path


def face_alignment_folders() -> list[Path]:
    """models/face_alignment, and where extra_model_paths.yaml puts it."""
    named = folder_paths.folder_names_and_paths.get("face_alignment", ([], set()))[0]
    return [*map(Path, named), Path(folder_paths.models_dir) / "face_alignment"]


@contextmanager
def open_detector(
    name: str, min_confidence: float, choice: Choice, given: dict | None, file: str
) -> Iterator[FaceDetector]:
    """What tells where the faces are: the landmarks that are given, or the file's, else the detector of that name."""
    if given is not None and file != NO_FILE:
        raise InputError("FLAME Fit: both 'face landmarks' and a landmarks file are given. Disconnect the one or set the other "
                         f"to '{NO_FILE}'.")  # fmt: skip
    if given is not None:
        yield GivenFaces(landmarks_from_comfy(given))
    elif file != NO_FILE:
        yield GivenFaces(read_landmarks(landmark_file(file)))
    else:
        faces = _MAX_FACES if choice.order == LARGEST and choice.index < _MAX_FACES else _CROWD
        if name == FACE_ALIGNMENT:
            yield FaceAlignmentDetector.of_folders(face_alignment_folders(), faces, min_confidence)
        else:
            model = find_weight("face_landmarker.task", model_folders(MEDIAPIPE))
            with MediaPipeDetector(model, faces, min_confidence) as detector:
                yield detector


def find_faces(
    clip: Clip, detector: FaceDetector, missing: str, choice: Choice, cuts: str
) -> tuple[list[Face | None], list[str]]:
    """One person's face in every frame, None where it is not found, and notes for the report."""
    follower = Follower(cuts)
    report = progress()
    for i, image in enumerate(clip.frames):
        seen = detector.detect(image)
        if not seen and (missing == FAIL or clip.count == 1):
            raise InputError(_no_face(i, max(clip.count, i + 1), detector, image))
        follower.add(image, seen)
        report(i + 1, max(clip.count, i + 1))
    people = follower.people()
    if not people:
        raise InputError(
            f"FLAME Fit: no face in any of {follower.count} frames. Lower 'min confidence', or use a clip where the face is "
            "larger, upright and unhidden."
        )
    person = choose(people, choice, clip.width, clip.height)
    faces = person.faces
    if missing == FAIL and None in faces:
        raise InputError(
            f"FLAME Fit: the chosen face ({choice}) is not seen in frame {faces.index(None)} of {len(faces)}. Choose another, "
            "trim the clip, or set 'missing frames' to 'interpolate'."
        )
    if len(faces) == 1:
        faces = [detector.refine(image, face) for image, face in zip(clip.frames, person.seen, strict=True)]
    told = notes(follower, choice, person) + border_note(faces, clip.width, clip.height)
    if isinstance(detector, GivenFaces) and detector.left > 0:
        told.append(f"there are landmarks for {detector.left} frames more than the clip has")
    if isinstance(clip.frames, VideoReader) and clip.frames.note:
        told.append(clip.frames.note)
    return faces, told


def _no_face(frame: int, count: int, detector: FaceDetector, image: np.ndarray) -> str:
    if isinstance(detector, GivenFaces):
        return f"FLAME Fit: {detector.landmarks.name} has no face in frame {frame} of {count}. Add it, or choose other frames."
    score = detector.score(image)
    if count == 1:
        return (
            f"FLAME Fit: no face in the picture (confidence {score:.2f}). Lower 'min confidence', or use a picture where "
            "the face is larger, upright and unhidden."
        )
    return (
        f"FLAME Fit: no face in frame {frame} of {count} (confidence {score:.2f}). Lower 'min confidence', or set "
        "'missing frames' to 'interpolate'."
    )


def overlay(clip: Clip, head: HeadModel, track: HeadTrack, faces: Sequence[Face | None], most: int) -> Tensor:
    """The fitted head over `most` of the pictures, evenly spread (0: all), as an IMAGE of at most 768 pixels a side."""
    n = len(track)
    shown = set(np.linspace(0, n - 1, min(most or n, n)).round().astype(int).tolist())
    scale = min(1.0, _OVERLAY_SIDE / max(clip.width, clip.height))
    width, height = max(1, round(clip.width * scale)), max(1, round(clip.height * scale))
    camera = track.camera.resized(width, height)
    drawn = torch.empty(len(shown), height, width, 3)
    report, done = progress(), 0
    for i, image in enumerate(clip.frames):
        cancel_point()
        if i not in shown:
            continue
        small = image if scale == 1 else cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        face = faces[i]
        seen = None if face is None else face.points * (width / clip.width, height / clip.height)
        drawn[done] = to_image(draw_head(small, head, track[i : i + 1].vertices(head)[0], camera, seen))
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
            **found_as("face tracking", "head pose", "face landmarks", "3DMM fitting", "LivePortrait"),
            description="Fit a head to one face of a photo, or to one person's face through the frames of a video. "
            "Needs face_landmarker.task in models/mediapipe, or landmarks.",
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
                io.Combo.Input(
                    "face_order",
                    options=list(ORDERS),
                    default=LARGEST,
                    optional=True,
                    tooltip="How the people in the picture are counted for 'face index'. In a video: largest and most "
                    "confident over the whole clip, left to right where they are seen first.",
                ),
                io.Int.Input(
                    "face_index",
                    default=0,
                    min=0,
                    max=_CROWD - 1,
                    optional=True,
                    tooltip="Which person, from 0, in the face order. For several people use one FLAME Fit for each.",
                ),
                io.Combo.Input(
                    "cuts",
                    options=list(CUTS),
                    default=NEW_TRACK,
                    optional=True,
                    tooltip="Where a video cuts to another shot: begin a new track, so that nobody is followed across the cut; "
                    "stop with an error that names the frame; or ignore cuts and know people again by their looks.",
                ),
                io.Combo.Input(
                    "detector",
                    options=list(DETECTORS),
                    default=MEDIAPIPE_DETECTOR,
                    optional=True,
                    tooltip="What finds the face: MediaPipe (478 points, expression and pose), or face-alignment (68 points; "
                    "needs the package and two files in models/face_alignment).",
                ),
                io.Combo.Input(
                    "landmarks_file",
                    options=[NO_FILE, *landmark_files()],
                    default=NO_FILE,
                    optional=True,
                    tooltip="A .json or .npz file in the input folder with the points of the face, placed by hand or by another "
                    "program; no detector is used then. Its format is in docs/landmarks.md.",
                ),
                FaceLandmarks.Input(
                    "face_landmarks",
                    optional=True,
                    tooltip="From ComfyUI's own Detect Face Landmarks (MediaPipe), for the same pictures; no detector is used "
                    "then. Leave its missing frame fallback at 'empty'.",
                ),
                io.Boolean.Input(
                    "solve_field_of_view",
                    default=False,
                    optional=True,
                    label_on="solved",
                    label_off="as given",
                    tooltip="Take the field of view, in degrees, for a first guess and solve for it with the shape. It pays for "
                    "faces close to a wide lens; from afar the picture hardly tells, and the guess stays.",
                ),
                io.Combo.Input(
                    "photometric",
                    options=list(PHOTOMETRIC),
                    default=OFF,
                    optional=True,
                    tooltip="On: after the landmarks, shape, expression and pose are refined against the picture itself by "
                    "the shading of the skin. It takes about 5 seconds for a photo on a CPU, 1 for each frame of a clip.",
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
    def validate_inputs(
        cls,
        missing_frames: Any = None,
        face_order: Any = None,
        cuts: Any = None,
        detector: Any = None,
        landmarks_file: Any = None,
        photometric: Any = None,
    ) -> bool | str:
        return at_the_door(
            cls,
            {"landmarks_file": lambda name: name == NO_FILE or landmark_file(name)},
            missing_frames=missing_frames,
            face_order=face_order,
            cuts=cuts,
            detector=detector,
            landmarks_file=landmarks_file,
            photometric=photometric,
        )

    @classmethod
    def fingerprint_inputs(cls, landmarks_file: str = NO_FILE, **_: object) -> str:
        if landmarks_file == NO_FILE:
            return ""
        stat = landmark_file(landmarks_file).stat()
        return f"{stat.st_size} {stat.st_mtime_ns}"

    @classmethod
    @checked(named=("landmarks_file",))
    def execute(
        cls,
        head: HeadModel,
        image: Tensor | Input.Video,
        fps: float,
        field_of_view: float,
        min_confidence: float,
        missing_frames: str,
        overlay_frames: int,
        face_order: str = LARGEST,
        face_index: int = 0,
        cuts: str = NEW_TRACK,
        detector: str = MEDIAPIPE_DETECTOR,
        landmarks_file: str = NO_FILE,
        face_landmarks: dict | None = None,
        solve_field_of_view: bool = False,
        photometric: str = OFF,
    ) -> io.NodeOutput:
        choice = Choice(face_order, face_index)
        clip = clip_of(image, fps)
        with (
            torch.inference_mode(False),
            open_detector(detector, min_confidence, choice, face_landmarks, landmarks_file) as opened,
        ):
            faces, told = find_faces(clip, opened, missing_frames, choice, cuts)
            camera = Camera.from_field_of_view(clip.width, clip.height, field_of_view)
            track, fit = fit_track(head, faces, camera, clip.fps, progress(), solve_field_of_view)
            if photometric == ON:
                track, compared = refine_photometric(head, track, clip.frames, faces, progress())
                told.append(str(compared))
            if missing_frames == HOLD:
                track = held(track)
                fit = replace(fit, missing=())
                told += [f"no face in {faces.count(None)} frames, the last pose held"] if None in faces else []
            return io.NodeOutput(track, overlay(clip, head, track, faces, overlay_frames), "; ".join([str(fit), *told]))
