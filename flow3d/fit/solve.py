"""Detected faces to a HeadTrack.

Shape (and focal length, where asked) are solved on a few key frames together with their poses; every frame is then solved
by itself with the shape fixed, and all of them once more with what is expected of motion. What the model could not follow
stays in the track as landmark offsets (and, for a photo, as vertex offsets), so that a renderer can put the surface
exactly where the picture has it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from ..camera import Camera
from ..errors import InputError
from ..head.model import HeadModel
from ..rotations import compose, inverse
from ..track import DETECTED, INTERPOLATED, HeadTrack
from . import mediapipe_points as mp
from . import priors
from .faces import Face
from .levenberg_marquardt import Pose, Shared, Solver
from .observations import Observations, observe, with_contour
from .offsets import landmark_residuals, personal_offsets
from .smoothing import interpolate, interpolate_rotations
from .temporal import Channels, in_time

Progress = Callable[[int, int], None]
"""Called with (done, total); it may raise to cancel."""

_KEY_FRAMES = (8, 48)  # first for a guess, and for the level of the noise
_JOINT_STEPS = 8
_POSE_STEPS, _FRAME_STEPS = 2, 2  # of every frame, from what the key frames tell of it
_BATCH = 128
_RIGHT_CORNER68, _LEFT_CORNER68 = 36, 45  # of iBUG's 68 points
_UNSURE_ERROR = 5.0  # hundredths of the distance between the eyes: an error of this size halves the confidence


@dataclass(frozen=True)
class FitReport:
    """How well a fit went. Errors are hundredths of the distance between the eyes."""

    mean_error: float
    worst_error: float
    worst_frame: int
    missing: tuple[int, ...]
    rotation_deviation: float  # degrees, of the typical frame

    def __str__(self) -> str:
        text = (
            f"fit error {self.mean_error:.2f}% of the eye distance, worst {self.worst_error:.2f}% in frame {self.worst_frame}; "
            f"rotation certain to {self.rotation_deviation:.1f} degrees"
        )
        if self.missing:
            shown = ", ".join(map(str, self.missing[:8])) + (", ..." if len(self.missing) > 8 else "")
            text += f"; no face in {len(self.missing)} frames, interpolated ({shown})"
        return text


@dataclass(frozen=True, eq=False)
class _Fit:
    """All frames with a face, solved."""

    solver: Solver
    seen: Observations
    shared: Shared
    pose: Pose
    keys: Tensor  # (k,) frames that the shape was solved on


def _with_trusted_rotation(seen: Observations, keys: Tensor, x: Pose, measured: Tensor) -> Observations:
    """The observations with the detector's rotations corrected by their constant difference from the fitted ones at the
    key frames, and trusted where they are `measured` (n,).

    The detector judges depth as well as outline, so it tells a nod from an open mouth better than 2D points do; but it
    measures against its own canonical face.
    """
    chosen = measured[keys]
    if len(seen) == 1 or not chosen.any():
        return seen
    between = compose(inverse(seen.rotation[keys]), x.rotation)[chosen]
    mean = torch.from_numpy(Rotation.from_rotvec(between.numpy()).mean().as_rotvec())
    rotation = torch.where(measured[:, None], compose(seen.rotation, mean.expand_as(seen.rotation)), seen.rotation)
    return replace(seen, rotation=rotation, trust=measured * priors.ROTATION_TRUST)


def _solve(solver: Solver, seen: Observations, measured: Tensor, solve_focal: bool, reached: Callable[[int], None]) -> _Fit:
    """Shape and focal length from the key frames, the noise as they show it, then every frame."""

    def at_the_keys() -> None:
        reached(0)

    shared = solver.shared_start()
    for most in _KEY_FRAMES:
        keys = torch.linspace(0, len(seen) - 1, min(len(seen), most)).round().long().unique()
        x = solver.pose_steps(shared, solver.start(seen[keys]), seen[keys], 5)
        part = with_contour(seen[keys], x.rotation)
        at_the_keys()
        x = solver.frame_steps(shared, x, part, 2)
        part = with_contour(seen[keys], x.rotation)
        shared, x = solver.joint_steps(shared, x, part, _JOINT_STEPS, solve_focal, at_the_keys)
        solver = solver.with_noise(solver.noise_level(shared, x, part))
    seen = _with_trusted_rotation(with_contour(seen, _filled(x, keys, len(seen)).rotation), keys, x, measured)
    near = _filled(x, keys, len(seen))
    done: list[Pose] = []
    for first in range(0, len(seen), _BATCH):
        part = seen[first : first + _BATCH]
        x = solver.pose_steps(shared, near[first : first + _BATCH], part, _POSE_STEPS)
        reached(first)
        done.append(solver.frame_steps(shared, x, part, _FRAME_STEPS))
        reached(min(first + _BATCH, len(seen)))
    fields = Pose.__dataclass_fields__
    return _Fit(solver, seen, shared, Pose(*(torch.cat([getattr(y, name) for y in done]) for name in fields)), keys)


def _filled(x: Pose, at: Tensor, count: int) -> Pose:
    """Poses of the frames `at` (n,) to all `count` frames, interpolated."""
    return Pose(
        interpolate(x.expression, at, count),
        interpolate(x.joints, at, count),
        interpolate_rotations(x.rotation, at, count),
        interpolate(x.translation, at, count),
    )


def _channels(head: HeadModel, solver: Solver) -> Channels:
    """What is expected of each of the solver's unknowns over time."""
    moves = [priors.BLINK_MOVES if n.startswith("eyeBlink") else priors.EXPRESSION_MOVES for n in head.expression_names]
    moves = moves or [priors.EXPRESSION_MOVES * 3] * head.n_expression  # components of unit variance
    moves += [priors.GAZE_MOVES] * len(solver.free_joints)
    moves += [priors.ROTATION_MOVES] * 3 + [priors.TRANSLATION_MOVES] * 3
    acceleration = torch.tensor(moves, dtype=torch.float64)
    return Channels(acceleration, priors.STILLNESS * acceleration, len(moves) - 6)


def _in_time(
    head: HeadModel, fit: _Fit, known: list[int], count: int, fps: float, reached: Callable[[int], None]
) -> Pose:
    """All `count` frames with what is expected of motion; those without a face follow from their neighbours."""
    solver, seen = fit.solver, fit.seen.at(fit.solver.landmarks)
    place = {frame: i for i, frame in enumerate(known)}

    def precision(frames: slice) -> Tensor:
        here = [t for t in range(frames.start, frames.stop) if t in place]
        values = solver.flat(fit.pose)
        out = torch.zeros(frames.stop - frames.start, values.shape[1], values.shape[1], dtype=torch.float64)
        for first in range(0, len(here), _BATCH):
            some = torch.tensor([place[t] for t in here[first : first + _BATCH]])
            at = torch.tensor(here[first : first + _BATCH]) - frames.start
            out[at] = solver.normal(fit.shared, fit.pose[some], seen[some], 0).frames
            reached(frames.start)
        return out

    filled = _filled(fit.pose, torch.tensor(known), count)
    return solver.unflat(in_time(solver.flat(filled), precision, _channels(head, solver), fps, reached), filled)


def fit_track(
    head: HeadModel,
    faces: Sequence[Face | None],
    camera: Camera,
    fps: float = 25.0,
    progress: Progress | None = None,
    solve_focal: bool = False,
) -> tuple[HeadTrack, FitReport]:
    """Fit a head to a photo (one face) or a clip (one face a frame, None where none was found).

    Args:
        faces: detections in pixels of the image that `camera` describes.
        progress: told often, also where nothing is done with another frame yet, so that it may cancel at any time.
        solve_focal: take the camera's focal length for a first guess only. One that the pictures hardly tell stays near it.

    Returns:
        The track, float32, and how well it fits. Missing frames are interpolated, marked in `state` and have
        confidence 0. Its deviations are those of the key frames, interpolated.

    Raises:
        InputError: no face in any frame.
    """
    known = [i for i, f in enumerate(faces) if f is not None]
    found = [f for f in faces if f is not None]
    if not found:
        raise InputError(
            f"FLAME Fit: no face in any of {len(faces)} frames. Use a picture where the face is larger or clearer."
        )
    count, every = len(faces), len(found) + len(faces)  # the frames with a face by themselves, then all of them in time

    def reached(frames: int) -> None:
        if progress:
            progress(frames, every)

    reached(0)
    seen = observe(head, found, camera)
    measured = torch.tensor([f.matrix is not None for f in found])
    solver = Solver(head, camera, seen, max(_eye_distance(found), 2.0))
    fit = _solve(solver, seen, measured, solve_focal, reached)
    camera = replace(camera, focal=fit.shared.focal)
    error = fit.solver.error(fit.shared, fit.pose, fit.seen)
    at = torch.tensor(known)
    deviation = fit.solver.deviations(fit.shared, fit.pose[fit.keys], fit.seen[fit.keys])
    residual = None if count == 1 else landmark_residuals(head, camera, fit.shared.shape, fit.pose, fit.seen)
    x = _in_time(head, fit, known, count, fps, lambda frames: reached(len(found) + frames))
    reached(every)
    state = torch.full((count,), INTERPOLATED)
    state[at] = DETECTED
    confidence = torch.zeros(count)
    score = torch.tensor([f.confidence for f in found])
    confidence[at] = (score / (1 + (error / _UNSURE_ERROR) ** 2)).float()
    track = HeadTrack(
        shape=fit.shared.shape.float(),
        expression=x.expression.float(),
        joints=x.joints.float(),
        rotation=x.rotation.float(),
        translation=x.translation.float(),
        camera=camera,
        fps=fps,
        confidence=confidence,
        state=state,
        joint_names=head.joint_names,
        offsets=personal_offsets(head, camera, fit.shared.shape, fit.pose, fit.seen) if count == 1 else None,
        landmark_offsets=None if residual is None else interpolate(residual, at, count).float(),
        error=interpolate(error, at, count).float(),
        rotation_deviation=interpolate(deviation.rotation, at[fit.keys], count).float(),
        translation_deviation=interpolate(deviation.translation, at[fit.keys], count).float(),
        shape_deviation=deviation.shape.float(),
        head_name=head.name,
        head_digest=head.digest,
    )
    worst = int(error.argmax())
    missing = tuple(i for i, f in enumerate(faces) if f is None)
    unsure = float(torch.rad2deg(deviation.rotation.median()))
    return track, FitReport(float(error.mean()), float(error[worst]), known[worst], missing, unsure)


def _eye_distance(faces: Sequence[Face]) -> float:
    """Pixels between the eyes' outer corners, of the typical face; half the face's size where no corners are seen."""
    dense = [f.points[mp.RIGHT_EYE_CORNER] - f.points[mp.LEFT_EYE_CORNER] for f in faces]
    sparse = [f.points68[_RIGHT_CORNER68] - f.points68[_LEFT_CORNER68] for f in faces]
    distance = np.linalg.norm([dense, sparse], axis=-1)
    seen = distance[np.isfinite(distance)]
    return float(np.median(seen) if len(seen) else np.median([f.size for f in faces]) / 2)
