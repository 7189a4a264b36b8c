"""The main job: a portrait animated by a driver, streamed frame by frame into a video."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .camera import Camera
from .errors import InputError
from .fit.edit import Edit, edit_track
from .fit.faces import Face, FaceDetector
from .fit.people import NEW_TRACK, Choice, Follower, Person, border_note, choose, notes
from .fit.photometric import refine_photometric
from .fit.retarget import retarget
from .fit.solve import fit_track
from .head.model import HeadModel
from .io.images import read_image
from .io.motions import load_motion, motion_names
from .io.tracks import load_track
from .io.video import VideoReader, VideoWriter
from .track import HeadTrack
from .warp.renderer import FlowWarp

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); it may raise to cancel."""

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif")
_TRACK_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Options:
    """What `animate` does with its source and driver."""

    mode: str = "relative"
    edits: Mapping[str, Edit] = field(default_factory=dict)
    frames: int | None = None  # at most so many; exactly so many with `loop`
    loop: bool = False
    size: int | None = None  # pixels of the source's short side; None: as it is


@dataclass(frozen=True, eq=False)
class Portrait:
    """A picture and the head in it."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB
    track: HeadTrack
    report: str


@dataclass(frozen=True, eq=False)
class Driver:
    """A head's motion, and the file its sound comes from."""

    track: HeadTrack
    report: str
    audio: Path | None = None


def sized(image: NDArray[np.uint8], size: int | None) -> NDArray[np.uint8]:
    """The image with its short side scaled to `size` pixels (None: as it is) and sides cut to even lengths."""
    if size is not None:
        factor = size / min(image.shape[:2])
        shape = (max(2, round(image.shape[1] * factor)), max(2, round(image.shape[0] * factor)))
        image = cv2.resize(image, shape, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    return np.ascontiguousarray(image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2])


def fit_portrait(
    head: HeadModel,
    image: NDArray[np.uint8],
    faces: list[Face],
    name: str = "the picture",
    choice: Choice | None = None,
    photometric: bool = False,
) -> Portrait:
    """Fit the first of the faces found in an image, which is `choice` (None: the largest), to its landmarks and, where
    asked, to the image itself. Raises InputError for none.
    """
    if not faces:
        raise InputError(f"{name}: no face found. Use a picture where the face is larger, upright and unhidden.")
    height, width = image.shape[:2]
    track, fit = fit_track(head, faces[:1], Camera.from_field_of_view(width, height))
    told = [str(fit)]
    if photometric:
        track, compared = refine_photometric(head, track, [image], faces[:1])
        told.append(str(compared))
    if len(faces) > 1:
        told.append(f"{len(faces)} faces found, {choice or Choice()} is taken")
    return Portrait(image, track, f"{name}: " + "; ".join(told + border_note(faces[:1], width, height)))


def open_portrait(
    head: HeadModel,
    path: Path,
    detector: FaceDetector,
    size: int | None = None,
    choice: Choice | None = None,
    photometric: bool = False,
) -> Portrait:
    """Read an image file, find its faces and fit one (None: the largest).

    Raises InputError for an unreadable or faceless image, or one without the chosen face.
    """
    image = sized(read_image(path), size)
    faces = detector.detect(image)
    if faces:
        chosen = choose([Person([face]) for face in faces], choice or Choice(), image.shape[1], image.shape[0]).seen[0]
        faces = [detector.refine(image, chosen), *(face for face in faces if face is not chosen)]
    return fit_portrait(head, image, faces, path.name, choice, photometric)


def detect_video(
    reader: VideoReader, detector: FaceDetector, limit: int | None, progress: Progress | None, cuts: str = NEW_TRACK
) -> Follower:
    """Everybody in a clip's first `limit` frames, each followed."""
    follower = Follower(cuts)
    for image in reader:
        if limit is not None and follower.count >= limit:
            break
        follower.add(image, detector.detect(image))
        if progress:
            progress("detect", follower.count, min(reader.frames or follower.count, limit or 10**9))
    return follower


def open_driver(
    head: HeadModel,
    driver: str | Path,
    detector: Callable[[], FaceDetector],
    limit: int | None = None,
    progress: Progress | None = None,
    choice: Choice | None = None,
    cuts: str = NEW_TRACK,
    photometric: bool = False,
) -> Driver:
    """A driver from a bundled motion's name, a saved track, a video or an image.

    Args:
        detector: called only where pictures must be looked at.
        choice: whom of the people in them (None: the largest).
        cuts: one of `fit.people.CUTS`.
        photometric: refine the fit against the pictures, see `fit.photometric`.

    Raises InputError for what is none of these, and for a choice of somebody who is not there.
    """
    path = Path(driver)
    if not path.exists() and str(driver) in motion_names():
        track = load_motion(str(driver), head)
        return Driver(track[:limit], f"bundled motion '{driver}', {len(track)} frames")
    if path.suffix.lower() == _TRACK_SUFFIX:
        track = load_track(path)
        return Driver(track[:limit], f"{path.name}: a saved track of {len(track)} frames")
    if not path.exists():
        raise InputError(f"{driver}: no such file, and no bundled motion of that name. There are {', '.join(motion_names())}.")
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        portrait = open_portrait(head, path, detector(), None, choice, photometric)
        return Driver(replace(portrait.track, offsets=None), portrait.report)
    reader = VideoReader(path)
    follower = detect_video(reader, detector(), limit, progress, cuts)
    people = follower.people()
    if not people:
        raise InputError(f"{path.name}: no face in any of its {follower.count} frames. Use a clip that shows one.")
    person = choose(people, choice or Choice(), reader.width, reader.height)
    camera = Camera.from_field_of_view(reader.width, reader.height)
    track, fit = fit_track(
        head, person.faces, camera, float(reader.fps), (lambda done, total: progress("fit", done, total)) if progress else None
    )
    compared = []
    if photometric:
        track, report = refine_photometric(
            head, track, reader, person.faces, (lambda done, total: progress("picture", done, total)) if progress else None
        )
        compared = [str(report)]
    told = [f"{path.name}: {fit}", *compared, *notes(follower, choice or Choice(), person), *filter(None, [reader.note])]
    return Driver(track, "; ".join(told), path if reader.has_audio else None)


def choose_frames(track: HeadTrack, frames: int | None, loop: bool) -> HeadTrack:
    """The first `frames` frames at most; exactly that many, repeated from the start, where it loops."""
    if frames is None:
        return track
    if loop:
        return track[[i % len(track) for i in range(frames)]]
    return track[:frames]


def retargeted(head: HeadModel, portrait: Portrait, driver: Driver, options: Options) -> HeadTrack:
    """The portrait's head doing what the driver does, edits included."""
    motion = choose_frames(driver.track, options.frames, options.loop)
    target = retarget(head, portrait.track, motion, options.mode)
    return edit_track(head, target, options.edits)


def render(warp: FlowWarp, track: HeadTrack, progress: Progress | None = None) -> Iterator[tuple[NDArray, NDArray]]:
    """The frames of a track, one at a time: (H, W, 3) uint8 RGB and (H, W) uint8 mask of what had to be filled."""
    for t in range(len(track)):
        yield warp.frame(track[t : t + 1])
        if progress:
            progress("render", t + 1, len(track))


def write_animation(
    head: HeadModel, portrait: Portrait, track: HeadTrack, out: Path, audio: Path | None, progress: Progress | None = None
) -> None:
    """Render a track of the portrait's head into a video file, which appears whole or not at all."""
    warp = FlowWarp(head, portrait.image, portrait.track)
    height, width = portrait.image.shape[:2]
    with VideoWriter(out, width, height, track.fps, audio) as writer:
        for image, _ in render(warp, track, progress):
            writer.write(image)
