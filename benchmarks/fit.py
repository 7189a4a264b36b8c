"""How good is the fit? Synthetic truth, real pictures, steadiness and speed, with the trivial answers beside.

    python -m comfyui_flow3d.benchmarks.fit [--stills 200] [--clips 10] [--frames 128] [--parts synthetic,real,steady,speed]

Synthetic: heads of `synthetic_heads.py`, landmarks alone, one pixel of noise on each axis. Real: the portraits and clips of
$FLOW3D_TEST_DATA, read by MediaPipe.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from torch import Tensor

from ..flow3d.camera import Camera
from ..flow3d.fit.angles import pose_angles
from ..flow3d.fit.detect import MediaPipeDetector
from ..flow3d.fit.faces import Face
from ..flow3d.fit.landmark_model import LandmarkModel, place
from ..flow3d.fit.levenberg_marquardt import Pose, Shared, Solver
from ..flow3d.fit.observations import Observations, observe
from ..flow3d.fit.solve import fit_track
from ..flow3d.head.load import load_head
from ..flow3d.head.model import HeadModel
from ..flow3d.io.images import read_image
from ..flow3d.io.video import VideoReader
from ..flow3d.paths import find_weight
from ..flow3d.rotations import angle, compose, from_matrix, inverse
from ..flow3d.track import HeadTrack
from .synthetic_heads import Sample, moved, sample

MOVED = 0.002  # metres: what an expression must move a vertex by for it to count
_RUNS = 5  # of what is timed
Fitter = Callable[[HeadModel, Sample], HeadTrack]


@dataclass(frozen=True)
class Errors:
    """Of one sample. Rotation and translation are those of the median frame."""

    rotation: float  # degrees
    certain: float  # rotation error over its reported deviation
    translation: float  # of the distance
    certain_place: float  # translation error over its reported deviation
    shape: float  # rms over the face, of the mean head's
    expression: float  # rms over what moves, of a zero expression's


def rms(x: Tensor) -> float:
    return float(x.square().sum(-1).mean().sqrt())


def errors(head: HeadModel, truth: HeadTrack, track: HeadTrack) -> Errors:
    """How far a track is from the truth."""
    face = head.masks["face"]
    turned = torch.rad2deg(angle(compose(track.rotation, inverse(truth.rotation))))
    away = (track.translation - truth.translation).norm(dim=1) / truth.translation.norm(dim=1)
    neutral, real = (head.shaped(t.shape[None])[0][face] for t in (track, truth))
    wanted = moved(head, truth)
    counts = wanted.norm(dim=-1) > MOVED
    expression = rms((moved(head, track) - wanted)[counts]) / rms(wanted[counts]) if counts.any() else float("nan")
    certain, certain_place = float("nan"), float("nan")
    if track.rotation_deviation is not None and track.translation_deviation is not None:
        certain = float((turned / torch.rad2deg(track.rotation_deviation)).median())
        certain_place = float(
            ((track.translation - truth.translation).norm(dim=1) / track.translation_deviation).median()
        )
    return Errors(
        float(turned.median()),
        certain,
        float(away.median()),
        certain_place,
        rms(neutral - real) / rms(head.template[face] - real),
        expression,
    )


def ours(head: HeadModel, given: Sample) -> HeadTrack:
    return fit_track(head, given.faces, given.truth.camera)[0]


def trivial(head: HeadModel, given: Sample) -> HeadTrack:
    """The mean head without expression, its rotation the mean of the truth's, its place the truth's mean."""
    truth = given.truth
    mean = torch.from_numpy(Rotation.from_rotvec(truth.rotation.double().numpy()).mean().as_rotvec()).float()
    if len(truth) == 1:
        mean = torch.zeros(3)
    return replace(
        truth,
        shape=torch.zeros_like(truth.shape),
        expression=torch.zeros_like(truth.expression),
        rotation=mean.expand_as(truth.rotation),
        translation=truth.translation.mean(0).expand_as(truth.translation)
        if len(truth) > 1
        else torch.tensor([[0, 0.1, 1.0]]),
    )


def adam(head: HeadModel, given: Sample) -> HeadTrack:
    """The prototype's fit: staged Adam on all landmarks, pose for 150 steps, then everything for 300, with its rates and
    weak priors."""
    truth, camera = given.truth, given.truth.camera
    model = LandmarkModel.of(head, head.n_shape)
    points = torch.from_numpy(np.stack([f.points for f in given.faces]))
    n = len(points)
    shape, expression = (
        torch.zeros(*size, dtype=torch.float64, requires_grad=True)
        for size in ((head.n_shape,), (n, head.n_expression))
    )
    rotation = torch.zeros(n, 3, dtype=torch.float64, requires_grad=True)
    start = torch.tensor([0.0, 0.1, 1.0], dtype=torch.float64).expand(n, 3).clone()
    translation = start.requires_grad_()
    joints = torch.zeros(n, head.n_joints - 1, 3, dtype=torch.float64)

    def loss() -> Tensor:
        marks = place(model.posed(shape, expression, joints)[0], rotation, translation)
        away = (camera.project(marks) - points).square().sum(-1).mean()
        return away + 1e-2 * shape.square().mean() * len(shape) / 50 + 1e-1 * expression.square().sum(1).mean()

    stages = (
        (150, [(rotation, 2e-2), (translation, 5e-3)]),
        (300, [(rotation, 5e-3), (translation, 2e-3), (shape, 3e-2), (expression, 2e-2)]),
    )
    for steps, groups in stages:
        optimiser = torch.optim.Adam([{"params": [p], "lr": rate} for p, rate in groups])
        for _ in range(steps):
            optimiser.zero_grad()
            loss().backward()
            optimiser.step()
    return replace(
        truth, shape=shape.detach().float(), expression=expression.detach().float(),
        rotation=rotation.detach().float(), translation=translation.detach().float(),
    )  # fmt: skip


def synthetic(head: HeadModel, stills: int, clips: int, frames: int) -> None:
    """The table of errors against the truth. Adam, which takes long, sees a part of the samples."""
    print("median over samples                      rotation  / deviation  translation  / deviation  shape  expression")
    for kind, count, length in (("stills", stills, 1), (f"clips of {frames}", clips, frames)):
        few = min(count, 20 if length == 1 else 2)
        for name, fitter, most in (("ours", ours, count), ("prototype's Adam", adam, few), ("trivial", trivial, count)):
            table = np.array([astuple(measured(head, fitter, seed, length)) for seed in range(most)])
            turn, certain, away, certain_place, shape, expression = np.where(
                np.isnan(table).all(0), np.nan, np.nanmedian(table, 0)
            )
            print(
                f"{most:4d} {kind:14s} {name:18s} {turn:8.2f} deg {certain:8.2f} {100 * away:11.2f}% {certain_place:12.2f} {shape:8.2f} {expression:8.2f}",
                flush=True,
            )


def measured(head: HeadModel, fitter: Fitter, seed: int, frames: int) -> Errors:
    """The errors of one fit."""
    given = sample(head, seed, frames)
    with torch.enable_grad():
        return errors(head, given.truth, fitter(head, given))


def read_clip(detector: MediaPipeDetector, path: Path, limit: int = 10**9) -> tuple[list[Face | None], Camera]:
    reader = VideoReader(path)
    faces: list[Face | None] = []
    for image, _ in zip(reader, range(limit), strict=False):
        seen = detector.detect(image)
        faces.append(seen[0] if seen else None)
    return faces, Camera.from_field_of_view(reader.width, reader.height)


def real(head: HeadModel, data: Path, limit: int) -> None:
    """Landmark errors on portraits and clips, and rotation against MediaPipe's own."""
    detector = MediaPipeDetector(find_weight("face_landmarker.task"))
    found: list[float] = []
    for path in sorted((data / "sources").glob("*.jpg")):
        image = read_image(path)
        for face in detector.detect(image)[:1]:
            camera = Camera.from_field_of_view(image.shape[1], image.shape[0])
            _, report = fit_track(head, [detector.refine(image, face)], camera)
            found.append(report.mean_error)
    print(
        f"real pictures: {len(found)} portraits, error {np.median(found):.2f}% of the eye distance (median), worst {max(found):.2f}%"
    )
    for path in sorted((data / "drivers").glob("*.mp4")):
        faces, camera = read_clip(detector, path, limit)
        track, _ = fit_track(head, faces, camera)
        assert track.error is not None
        found += track.error[::10].tolist()
        against_mediapipe(head, path.stem, faces, camera, track)
    print(
        f"with every 10th frame of the clips: {len(found)} pictures, median {np.median(found):.2f}%, 95% {np.quantile(found, 0.95):.2f}%"
    )


def against_mediapipe(head: HeadModel, name: str, faces: list[Face | None], camera: Camera, track: HeadTrack) -> None:
    """Correlation, slope and residual of the fitted angles against MediaPipe's own, also where the fit is not told them."""
    known = [i for i, f in enumerate(faces) if f is not None]
    theirs = pose_angles(
        from_matrix(torch.from_numpy(np.stack([f.turn(camera) for f in faces if f is not None])))
    ).numpy()
    untold, _ = fit_track(head, [f and replace(f, matrix=None) for f in faces], camera)
    for label, fitted in (("told", track), ("not told", untold)):
        mine = pose_angles(fitted.rotation[known].double()).numpy()
        for i, axis in enumerate(("yaw", "pitch", "roll")):
            if theirs[:, i].std() > 2:
                slope, offset = np.polyfit(theirs[:, i], mine[:, i], 1)
                left = (mine[:, i] - theirs[:, i] - (mine - theirs)[:, i].mean()).std() / theirs[:, i].std()
                correlation = np.corrcoef(theirs[:, i], mine[:, i])[0, 1]
                print(
                    f"  {name} {axis:5s} {label:9s} correlation {correlation:.3f} slope {slope:.2f} residual {left:.2f} of a constant's"
                )


def steady(head: HeadModel, data: Path) -> None:
    """One photo repeated, with half a pixel of noise on its landmarks."""
    detector = MediaPipeDetector(find_weight("face_landmarker.task"))
    random = np.random.default_rng(0)
    for name in ("s9", "s12", "s1", "s4"):
        image = read_image(data / "sources" / f"{name}.jpg")
        face = detector.refine(image, detector.detect(image)[0])
        camera = Camera.from_field_of_view(image.shape[1], image.shape[0])
        scale = 512 / min(image.shape[:2])
        jitter = [
            replace(face, matrix=None, points=face.points + random.normal(scale=0.5 / scale, size=(478, 2)))
            for _ in range(128)
        ]
        track, _ = fit_track(head, jitter, camera)
        turned = torch.rad2deg(angle(compose(track.rotation, inverse(track.rotation[64:65]).expand_as(track.rotation))))
        turn = torch.rad2deg(compose(track.rotation, inverse(track.rotation[64:65]).expand_as(track.rotation))).std(0)
        side = 1e3 * track.translation.std(0)
        print(
            f"steadiness {name}: rotation {float(turn.norm()):.3f} degrees, translation {float(side[:2].norm()):.3f} mm sideways, {float(side[2]):.2f} mm deep; worst turn {float(turned.max()):.2f}"
        )


def speed(head: HeadModel, data: Path | None) -> None:
    """Frames a second: the whole solver, one frame's problem against SciPy's, and with the detector."""
    given = sample(head, 0, 128)
    took = [timed(lambda: fit_track(head, given.faces, given.truth.camera)) for _ in range(_RUNS + 1)][1:]
    print(
        f"solver, whole, 128 frames: {128 / np.median(took):.0f} frames a second (median of {_RUNS}; best {128 / min(took):.0f})"
    )
    seen = observe(head, given.faces, given.truth.camera)
    solver = Solver(head, given.truth.camera, seen, 100.0)
    shared = solver.shared_start()
    start = time.perf_counter()
    x = solver.frame_steps(shared, solver.pose_steps(shared, solver.start(seen), seen, 4), seen, 4)
    batch = (time.perf_counter() - start) / 128
    theirs = scipy_frame(solver, shared, x, seen)
    print(
        f"one frame, shape fixed: ours {1e3 * batch:.1f} ms in a batch of 128, SciPy's least_squares {1e3 * theirs:.0f} ms: {theirs / batch:.0f} times"
    )
    if data is None:
        return
    detector = MediaPipeDetector(find_weight("face_landmarker.task"))
    images = [image for image, _ in zip(VideoReader(data / "drivers" / "d12.mp4"), range(128), strict=False)]
    faces: list[Face] = []
    alone = timed(lambda: faces.extend(detector.detect(image)[0] for image in images))
    camera = Camera.from_field_of_view(images[0].shape[1], images[0].shape[0])
    both = alone + float(np.median([timed(lambda: fit_track(head, faces, camera)) for _ in range(_RUNS)]))
    print(
        f"detector {len(images) / alone:.0f} frames a second, detector and fit {len(images) / both:.0f}: {100 * alone / both:.0f}%"
    )


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def scipy_frame(solver: Solver, shared: Shared, x: Pose, seen: Observations) -> float:
    """Seconds of five steps of SciPy's trust region on the first frame's problem, with our residuals and priors."""
    one = seen[:1].at(solver.landmarks)
    weights = torch.stack([solver.weights] * 2, -1) / solver.noise
    first = x[slice(0, 1)]

    def residuals(v: np.ndarray) -> np.ndarray:
        now = solver.unflat(torch.from_numpy(v)[None], first)
        weight, away = solver._prior(now, one)
        return torch.cat(
            [(solver.residuals(shared, now, one)[0, :, :2] * weights).flatten(), (weight * away)[0]]
        ).numpy()

    begin = solver.pose_steps(shared, solver.start(seen[:1]), seen[:1], 4)
    start = time.perf_counter()
    least_squares(residuals, solver.flat(begin)[0].numpy(), method="trf", max_nfev=5)
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stills", type=int, default=200)
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--frames", type=int, default=128)
    parser.add_argument("--limit", type=int, default=10**9, help="frames of each real clip at most")
    parser.add_argument("--parts", default="synthetic,real,steady,speed")
    options = parser.parse_args()
    parts = options.parts.split(",")
    folder = os.environ.get("FLOW3D_TEST_DATA")
    data = Path(folder) if folder else None
    head = load_head("open")
    if "synthetic" in parts:
        synthetic(head, options.stills, options.clips, options.frames)
    if data is None and {"real", "steady"} & set(parts):
        print("fit: set FLOW3D_TEST_DATA to the folder with sources/ and drivers/.", file=sys.stderr)
        return 2
    if data is not None and "real" in parts:
        real(head, data, options.limit)
    if data is not None and "steady" in parts:
        steady(head, data)
    if "speed" in parts:
        speed(head, data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
