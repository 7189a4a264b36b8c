"""The demo: the main job on a bundled portrait and a bundled motion. It needs no download and no detector."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from .animate import Driver, Options, Portrait, Progress, fit_portrait, render, retargeted, sized
from .errors import Flow3DError
from .flow.field import FlowField
from .flow.visualize import flow_picture
from .head.model import HeadModel
from .io.files import written
from .io.images import write_image
from .io.motions import load_motion
from .io.sheet import Row, contact_sheet, telling_frames
from .io.tracks import save_track
from .io.video import VideoWriter
from .render.shade import shade
from .track import HeadTrack
from .warp.renderer import FlowWarp

if TYPE_CHECKING:
    from .fit.detect import Face

LANDMARKS = Path(__file__).with_name("io") / "demo" / "astronaut_landmarks.json"
DEFAULT_MOTION = "medley"
_COLUMNS = 6


@dataclass(frozen=True)
class DemoFiles:
    """What the demo wrote."""

    video: Path
    sheet: Path
    track: Path


def run_demo(
    head: HeadModel, folder: Path, motion: str = DEFAULT_MOTION, options: Options | None = None, progress: Progress | None = None
) -> DemoFiles:
    """Animate the bundled portrait with a bundled motion: a video, a contact sheet and the track, written to `folder`.

    Raises InputError for an unknown motion or edit, or a folder that cannot be written to; Flow3DError where
    scikit-image, which brings the portrait, is not installed.
    """
    options = options or Options()
    files = DemoFiles(folder / "demo.mp4", folder / "demo.jpg", folder / "demo_track.safetensors")
    driver = Driver(load_motion(motion, head), f"bundled motion '{motion}'")
    portrait = demo_portrait(head, options.size)
    target = retargeted(head, portrait, driver, options)
    chosen = telling_frames(target, _COLUMNS)
    results = _write_video(head, portrait, target, files.video, chosen, progress)
    drive = driver.track[[t % len(driver.track) for t in chosen]]
    flow = FlowField(portrait.track, target, head, portrait.track.camera)
    driving, near = _window(head, drive), _window(head, target[chosen])
    rows = [
        Row("source", [portrait.image, portrait.image[near]]),
        Row("driver", [_shaded(head, drive[t : t + 1])[driving] for t in range(len(chosen))]),
        Row("3D flow", [p[near] for p in flow_picture(flow.pixels(chosen), flow.head_mask(chosen)).numpy()]),
        Row("result", [image[near] for image in results]),
    ]
    write_image(files.sheet, contact_sheet(rows, [f"{t / target.fps:.2f} s" for t in chosen]))
    save_track(target, files.track)
    return files


def demo_portrait(head: HeadModel, size: int | None = None) -> Portrait:
    """The bundled portrait, fitted to its bundled landmarks; `size`: pixels of its short side."""
    try:
        from skimage.data import astronaut
    except ImportError as error:
        raise Flow3DError("The demo's portrait comes with scikit-image: run 'pip install scikit-image'.") from error
    photo = astronaut()
    image = sized(photo, size)
    return fit_portrait(head, image, [load_face(LANDMARKS, image.shape[0] / photo.shape[0])], "astronaut")


def _write_video(
    head: HeadModel, portrait: Portrait, target: HeadTrack, path: Path, chosen: list[int], progress: Progress | None
) -> list[NDArray[np.uint8]]:
    """Write all frames, and keep the chosen ones."""
    kept: dict[int, NDArray[np.uint8]] = {}
    height, width = portrait.image.shape[:2]
    warp = FlowWarp(head, portrait.image, portrait.track)
    with VideoWriter(path, width, height, target.fps) as writer:
        for t, (image, _) in enumerate(render(warp, target, progress)):
            writer.write(image)
            if t in chosen:
                kept[t] = image
    return [kept[t] for t in chosen]


def _window(head: HeadModel, track: HeadTrack) -> tuple[slice, slice]:
    """Rows and columns of a square around the head in all frames of a track, within the picture."""
    pixels = track.camera.project(track.vertices(head)).flatten(0, 1)
    low, high = pixels.amin(0), pixels.amax(0)
    side = min(int(1.2 * (high - low).max()), track.camera.width, track.camera.height)
    left, top = (
        int(((low[i] + high[i] - side) / 2).clamp(0, length - side))
        for i, length in enumerate((track.camera.width, track.camera.height))
    )
    return slice(top, top + side), slice(left, left + side)


def _shaded(head: HeadModel, track: HeadTrack) -> NDArray[np.uint8]:
    """(H, W, 3): a track's one frame as a shaded head."""
    picture = shade(head, track.vertices(head), track.camera)[0]
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def save_face(face: "Face", path: Path) -> None:
    """Write a detected face as numbers in JSON: points and depth to a hundredth of a pixel."""
    numbers = {
        "points": np.round(face.points, 2).tolist(),
        "depth": np.round(face.depth, 2).tolist(),
        "scores": np.round(face.scores, 5).tolist(),
        "matrix": None if face.matrix is None else np.round(face.matrix, 6).tolist(),
        "confidence": round(float(face.confidence), 4),
    }
    with written(path) as part:
        part.write_text(json.dumps(numbers), encoding="utf-8")


def load_face(path: Path, scale: float = 1.0) -> "Face":
    """Read what `save_face` wrote, for the picture scaled by `scale`."""
    from .fit.detect import Face  # brings MediaPipe, which takes seconds to import

    numbers = json.loads(path.read_text(encoding="utf-8"))
    return Face(
        points=np.array(numbers["points"]) * scale,
        depth=np.array(numbers["depth"]) * scale,
        scores=np.array(numbers["scores"]),
        matrix=None if numbers["matrix"] is None else np.array(numbers["matrix"]),
        confidence=numbers["confidence"],
    )
