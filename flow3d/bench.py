"""How fast the parts of the main job are on this machine, on the demo's portrait (512 x 512) and a bundled motion."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from .animate import Driver, Options, Progress, render, retargeted
from .bench_flow import measure_flow
from .demo import LANDMARKS, demo_portrait, load_face
from .fit.detect import MediaPipeDetector
from .fit.solve import fit_track
from .head.model import HeadModel
from .io.motions import load_motion
from .io.video import VideoReader, VideoWriter
from .paths import find_weight
from .warp.renderer import FlowWarp

_FRAMES = 50


def measure(what: str, head: HeadModel, progress: Progress | None = None) -> dict[str, float]:
    """Figures by name: milliseconds a frame, for the flow seconds. `what`: flow, fit or animate."""
    return {"flow": measure_flow, "fit": measure_fit, "animate": measure_animate}[what](head, progress or _silent)


def _silent(stage: str, done: int, total: int) -> None:
    pass


def _per_frame(frames: int, work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return (perf_counter() - start) / frames * 1000


def measure_fit(head: HeadModel, progress: Progress) -> dict[str, float]:
    """Landmarks of a clip to a track, the shape and the smoothing included."""
    face = load_face(LANDMARKS)
    faces = [replace(face, points=face.points + [0.5 * (t % 20), 0.2 * (t % 10)]) for t in range(_FRAMES)]
    camera = demo_portrait(head).track.camera
    ms = _per_frame(len(faces), lambda: fit_track(head, faces, camera, 25.0, lambda d, t: progress("fit", d, t)))
    return {"fit.clip_ms": ms}


def measure_animate(head: HeadModel, progress: Progress) -> dict[str, float]:
    """From the decoded frame to the encoded one: what each step takes, and all together."""
    landmarker = find_weight("face_landmarker.task")
    portrait = demo_portrait(head)
    target = retargeted(head, portrait, Driver(load_motion("turn", head), ""), Options(frames=_FRAMES))
    warp = FlowWarp(head, portrait.image, portrait.track)
    warp.frame(target[[1]])  # compiles the kernel
    images = []

    def draw() -> None:
        for image, _ in render(warp, target, progress):
            images.append(image)

    ms = {"animate.warp_ms": _per_frame(_FRAMES, draw)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.mp4"
        height, width = portrait.image.shape[:2]

        def encode() -> None:
            with VideoWriter(path, width, height, 25.0) as writer:
                for image in images:
                    writer.write(image)

        ms["animate.encode_ms"] = _per_frame(_FRAMES, encode)
        decoded: list = []
        ms["animate.decode_ms"] = _per_frame(_FRAMES, lambda: decoded.extend(VideoReader(path)))
    with MediaPipeDetector(landmarker) as detector:
        detector.detect(decoded[0])
        found: list = []
        ms["animate.detect_ms"] = _per_frame(_FRAMES, lambda: found.extend(detector.detect(i)[0] for i in decoded))
    ms["animate.fit_ms"] = _per_frame(_FRAMES, lambda: fit_track(head, found, portrait.track.camera, 25.0))
    ms["animate.detect_fit_warp_ms"] = sum(ms[f"animate.{step}_ms"] for step in ("detect", "fit", "warp"))
    return ms
