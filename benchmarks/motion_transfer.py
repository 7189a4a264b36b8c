"""Does the animated portrait do what the driver does? MediaPipe's landmarker is the judge, run on the written videos.

    python -m comfyui_flow3d.benchmarks.motion_transfer [--pairs s9:d12,astronaut:turn] [--frames 300] [--ideal] [--out FOLDER]
        [--json FILE]

Portraits and clips come from $FLOW3D_TEST_DATA (`sources/NAME.jpg`, `drivers/NAME.mp4`); `astronaut` and the bundled
motions are always there. Each quantity is judged where the driver moves: correlation over time and slope of the output
against the driver (for a bundled motion, against its own known angles). The row `still` is the trivial answer, the
portrait unmoved: it must miss every target of motion. With `--ideal` a row `mesh` follows, judged on shaded renders of the
very heads that the portrait was warped to: what the judge reads where nothing is lost in the picture.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from skimage.data import astronaut

from ..flow3d.animate import Options, Portrait, fit_portrait, open_driver, open_portrait, retargeted, write_animation
from ..flow3d.camera import Camera
from ..flow3d.fit import mediapipe_points as mp
from ..flow3d.fit.detect import MediaPipeDetector
from ..flow3d.fit.faces import Face
from ..flow3d.head.load import load_head
from ..flow3d.head.model import HeadModel
from ..flow3d.io.motions import motion_names
from ..flow3d.io.video import VideoReader
from ..flow3d.paths import find_weight
from ..flow3d.render.shade import shade
from ..flow3d.rotations import to_matrix
from ..flow3d.track import HeadTrack
from ..flow3d.warp.renderer import FlowWarp

FIRST_PAIRS = ["s9:d12", "s12:d10", "s1:d18", "astronaut:d12", "s4:d0"]  # those the prototype was measured on
CLIP_PAIRS = [f"{s}:{d}" for s in ("s9", "s12", "s1", "s4", "astronaut") for d in ("d10", "d12", "d18", "d0")]
MOTION_PAIRS = [f"{s}:{d}" for s in ("s9", "s12", "s1", "s4", "astronaut") for d in ("turn", "tilt", "nod")]
OPEN_MOUTHED = ("astronaut",)  # smiles with her teeth shown: jawOpen is not judged there


@dataclass(frozen=True)
class Target:
    """What counts as following: judged where the driver's standard deviation is over `moves`."""

    moves: float
    correlation: float
    slope: tuple[float, float] = (0.0, np.inf)


TARGETS = {
    "yaw": Target(2.0, 0.98, (0.7, 1.3)),
    "pitch": Target(2.0, 0.90, (0.7, 1.3)),
    "roll": Target(2.0, 0.95, (0.7, 1.3)),
    "lip gap": Target(0.05, 0.90),
    "jawOpen": Target(0.05, 0.85),
    "blink": Target(0.05, 0.90),
    "smile": Target(0.05, 0.75),
}
BLINK_DEPTH = 0.7
STILL_DB = 40.0


@dataclass(frozen=True)
class Row:
    """One quantity of one pair. `ok` is None where the driver hardly moves."""

    pair: str
    quantity: str
    correlation: float
    slope: float
    depth: float  # range of the output over the range of the driver
    ok: bool | None


def angles(turn: np.ndarray) -> tuple[float, float, float]:
    """Yaw, pitch, roll in degrees of a rotation (3, 3), signs as in `fit/edit.py`."""
    yaw, pitch, roll = Rotation.from_matrix(turn).as_euler("YXZ", degrees=True)
    return -yaw, -pitch, roll


def read(face: Face | None, first: Face, camera: Camera) -> np.ndarray:
    """(7,) the quantities of `TARGETS`, NaN without a face, in a picture that `camera` took. Angles are those of the change
    since the first face: the head of a portrait that looks aside turns about the driver's axes, not its own."""
    if face is None:
        return np.full(len(TARGETS), np.nan)
    score = dict(zip(mp.BLENDSHAPES, face.scores, strict=True))
    eyes = np.linalg.norm(face.points[mp.RIGHT_EYE_CORNER] - face.points[mp.LEFT_EYE_CORNER])
    gap = np.linalg.norm(face.points[mp.UPPER_LIP] - face.points[mp.LOWER_LIP]) / eyes
    pairs = [(score[f"{n}Left"] + score[f"{n}Right"]) / 2 for n in ("eyeBlink", "mouthSmile")]
    return np.array([*angles(face.turn(camera) @ first.turn(camera).T), gap, score["jawOpen"], *pairs])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """dB between two uint8 images, 99 where they are equal."""
    error = np.square(a.astype(np.float64) - b).mean()
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


def top_corners(image: np.ndarray) -> np.ndarray:
    """The two top corners, an eighth of each side, side by side."""
    h, w = image.shape[0] // 8, image.shape[1] // 8
    return np.concatenate([image[:h, :w], image[:h, -w:]], 1)


def judge(pair: str, driver: np.ndarray, output: np.ndarray, known: np.ndarray | None) -> list[Row]:
    """Rows of one pair: driver and output (T, 7) readings; `known` (T, 3) true angles, judged instead of the driver's."""
    truth = driver.copy()
    if known is not None:
        truth[:, :3] = known
    seen = ~np.isnan(output[:, 0]) & ~np.isnan(truth).any(1)
    rows = []
    for i, (name, target) in enumerate(TARGETS.items()):
        a, b = truth[seen, i], output[seen, i]
        if len(a) < 3 or a.std() <= target.moves or (known is not None and i >= 3):
            continue
        moved = b.std() > 1e-9
        correlation = float(np.corrcoef(a, b)[0, 1]) if moved else 0.0
        slope, depth = correlation * b.std() / a.std(), np.ptp(b) / np.ptp(a)
        ok = correlation >= target.correlation and target.slope[0] <= slope <= target.slope[1]
        if name == "blink":
            ok = ok and depth >= BLINK_DEPTH
        if name == "jawOpen" and pair.split(":")[0] in OPEN_MOUTHED:
            ok = None
        rows.append(Row(pair, name, correlation, float(slope), float(depth), None if ok is None else bool(ok)))
    return rows


def known_angles(track: HeadTrack) -> np.ndarray:
    """(T, 3) yaw, pitch, roll of a track against its first frame, degrees."""
    turns = to_matrix(track.rotation).double().numpy()
    return np.array([angles(turn @ turns[0].T) for turn in turns])


def stills(pair: str, portrait: Portrait, rendered: np.ndarray, video: np.ndarray, lost: int) -> list[Row]:
    """What must not change: the first frame and the top corners, in dB; and how many frames have no face.

    The first frame counts as it is rendered; in the file, colours at half the resolution (yuv420p) cost a saturated
    picture more than the target leaves.
    """
    first, in_file = psnr(rendered, portrait.image), psnr(video[0], portrait.image)
    corners = min(psnr(top_corners(frame), top_corners(portrait.image)) for frame in video)
    return [
        Row(pair, "first frame dB", first, 0, 0, first >= STILL_DB),
        Row(pair, "  in the file", in_file, 0, 0, None),
        Row(pair, "top corners dB", corners, 0, 0, corners >= STILL_DB),
        Row(pair, "faces lost", lost, 0, 0, lost == 0),
    ]


class Bench:
    """Runs pairs with one head and one detector."""

    def __init__(self, data: Path, out: Path, frames: int, ideal: bool = False):
        self.head: HeadModel = load_head("open")
        self.detector = MediaPipeDetector(find_weight("face_landmarker.task"))
        self.data, self.out, self.frames, self.ideal = data, out, frames, ideal

    def portrait(self, name: str) -> Portrait:
        if name == "astronaut":
            image = astronaut()
            faces = self.detector.detect(image)
            return fit_portrait(self.head, image, [self.detector.refine(image, faces[0])], name)
        return open_portrait(self.head, self.data / "sources" / f"{name}.jpg", self.detector)

    def driver_readings(self, name: str) -> np.ndarray:
        reader = VideoReader(self.data / "drivers" / f"{name}.mp4")
        frames = (image for image, _ in zip(reader, range(self.frames), strict=False))
        return self._read_all(frames, None, Camera.from_field_of_view(reader.width, reader.height))

    def _read_all(self, frames: Iterable[np.ndarray], last: Face | None, camera: Camera) -> np.ndarray:
        """(T, 7) readings of one person's face, the one that continues `last` (None: the largest)."""
        faces = []
        for image in frames:
            found = self.detector.detect(image)
            face = min(found, key=lambda f: np.linalg.norm(f.centre - last.centre) if last else -f.size, default=None)
            last = face or last
            faces.append(face)
        first = next(face for face in faces if face is not None)
        return np.array([read(face, first, camera) for face in faces])

    def _read_renders(self, source: HeadTrack, track: HeadTrack) -> np.ndarray:
        """(T, 7) readings of shaded renders of a track's heads, against one of the source's."""

        def render(head: HeadTrack) -> np.ndarray:
            return (255 * shade(self.head, head.vertices(self.head), head.camera)[0]).byte().numpy()

        first = self.detector.detect(render(source))[0]
        return self._read_all((render(track[t : t + 1]) for t in range(len(track))), first, source.camera)

    def run(self, pair: str) -> list[Row]:
        """Animate one pair into a video and judge it; the still is judged beside it."""
        source, name = pair.split(":")
        portrait = self.portrait(source)
        bundled = name in motion_names()
        start = time.perf_counter()
        path = name if bundled else self.data / "drivers" / f"{name}.mp4"
        driver = open_driver(self.head, path, lambda: self.detector, self.frames)
        track = retargeted(self.head, portrait, driver, Options(frames=self.frames))
        video_file = self.out / f"{source}_{name}.mp4"
        write_animation(self.head, portrait, track, video_file, None)
        per_frame = (time.perf_counter() - start) / len(track)
        known = known_angles(driver.track) if bundled else None
        face = self.detector.detect(portrait.image)[0]
        camera = portrait.track.camera
        still = read(face, face, camera)
        seen = np.repeat(still[None], len(track), 0) if bundled else self.driver_readings(name)
        video = np.stack(list(VideoReader(video_file)))
        output = self._read_all(video, face, camera)
        rows = judge(pair, seen, output, known)
        rendered, _ = FlowWarp(self.head, portrait.image, portrait.track).frame(track[:1])
        rows += stills(pair, portrait, rendered, video, int(np.isnan(output[:, 0]).sum()))
        rows.append(Row(pair, "ms a frame", per_frame * 1e3, 0, 0, None))
        rows += judge(f"{pair} (still)", seen, np.repeat(still[None], len(track), 0), known)
        if self.ideal:
            rows += judge(f"{pair} (mesh)", seen, self._read_renders(portrait.track, track), known)
        return rows


def show(rows: list[Row]) -> None:
    """Print rows as a table."""
    for row in rows:
        verdict = {True: "ok", False: "MISSED", None: "-"}[row.ok]
        detail = f"slope {row.slope:5.2f}  depth {row.depth:5.2f}" if row.quantity in TARGETS else ""
        print(f"{row.pair:24s} {row.quantity:15s} {row.correlation:8.3f}  {detail:26s} {verdict}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", default=",".join(dict.fromkeys(FIRST_PAIRS + MOTION_PAIRS + CLIP_PAIRS)))
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("output/motion_transfer"))
    parser.add_argument("--ideal", action="store_true", help="judge shaded renders of the heads too")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = os.environ.get("FLOW3D_TEST_DATA")
    if not data:
        print("motion_transfer: set FLOW3D_TEST_DATA to the folder with sources/ and drivers/.", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(Path(data), options.out, options.frames, options.ideal)
    rows: list[Row] = []
    with torch.inference_mode():
        for pair in options.pairs.split(","):
            fresh = bench.run(pair)
            show(fresh)
            rows += fresh
    judged = [r for r in rows if r.ok is not None and "(" not in r.pair]
    trivial = [r for r in rows if r.ok and "(still)" in r.pair]
    print(f"{sum(bool(r.ok) for r in judged)} of {len(judged)} targets met; the still meets {len(trivial)}")
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in rows], indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
