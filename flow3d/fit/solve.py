"""Detected faces to a HeadTrack.

Shape and pose are solved in turn on a few key frames; then every frame is solved by itself with the shape fixed.
What the model could not follow stays in the track as landmark offsets (and, for a photo, as vertex offsets), so that
a renderer can put the surface exactly where the picture has it.
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
from ..rotations import compose, from_matrix, inverse
from ..track import DETECTED, INTERPOLATED, HeadTrack
from . import mediapipe_points as mp
from . import priors
from .detect import Face
from .gauss_newton import GaussNewton, Observations, Pose
from .offsets import landmark_residuals, personal_offsets
from .smoothing import interpolate, interpolate_rotations, smooth, smooth_rotations

Progress = Callable[[int, int], None]
"""Called with (done, total); it may raise to cancel."""

SMOOTHING = 0.4  # frames
_KEY_FRAMES = 12
_ROUNDS = 10
_BATCH = 64


@dataclass(frozen=True)
class FitReport:
    """How well a fit went. Errors are hundredths of the distance between the eyes."""

    mean_error: float
    worst_error: float
    worst_frame: int
    missing: tuple[int, ...]

    def __str__(self) -> str:
        text = f"fit error {self.mean_error:.2f}% of the eye distance, worst {self.worst_error:.2f}% in frame {self.worst_frame}"
        if self.missing:
            shown = ", ".join(map(str, self.missing[:8])) + (", ..." if len(self.missing) > 8 else "")
            text += f"; no face in {len(self.missing)} frames, interpolated ({shown})"
        return text


def observe(head: HeadModel, faces: Sequence[Face], camera: Camera) -> Observations:
    """Detections as the solver wants them; the detector's blendshape scores where the head has components of their names."""
    n = len(faces)
    scores = torch.zeros(n, head.n_expression, dtype=torch.float64)
    named = [(i, mp.BLENDSHAPES.index(name)) for i, name in enumerate(head.expression_names) if name in mp.BLENDSHAPES]
    if named:
        ours, theirs = map(list, zip(*named, strict=True))
        scores[:, ours] = torch.from_numpy(np.stack([f.scores for f in faces])).double()[:, theirs]
    turns = [f.turn(camera) for f in faces]
    points = torch.from_numpy(np.stack([f.points for f in faces])).double()
    depth = torch.from_numpy(np.stack([f.depth for f in faces])).double()
    return Observations(points, depth, scores, from_matrix(torch.from_numpy(np.stack(turns))), points.new_zeros(n))


def _with_trusted_rotation(seen: Observations, keys: Tensor, x: Pose) -> Observations:
    """The observations with the detector's rotations corrected by their constant difference from the fitted ones at the
    key frames, and trusted.

    The detector judges depth as well as outline, so it tells a nod from an open mouth better than 2D points do; but it
    measures against its own canonical face.
    """
    between = compose(inverse(seen.rotation[keys]), x.rotation)
    mean = torch.from_numpy(Rotation.from_rotvec(between.numpy()).mean().as_rotvec())
    rotation = compose(seen.rotation, mean.expand_as(seen.rotation))
    known = seen.rotation.abs().amax(-1) > 0
    return replace(seen, rotation=rotation, trust=known * (priors.ROTATION_TRUST if len(seen) > 1 else 0.0))


def _solve(solver: GaussNewton, seen: Observations, progress: Progress | None) -> tuple[Tensor, Pose]:
    shape = torch.zeros(solver.n_shape, dtype=torch.float64)
    keys = torch.linspace(0, len(seen) - 1, min(len(seen), _KEY_FRAMES)).round().long().unique()
    x = solver.start(seen[keys])
    for _ in range(5):
        x = solver.pose_step(shape, x, seen[keys])
    for _ in range(_ROUNDS):
        shape = solver.shape_step(shape, x, seen[keys])
        for _ in range(2):
            x = solver.frame_step(shape, x, seen[keys])
    seen = _with_trusted_rotation(seen, keys, x)
    done: list[Pose] = []
    for first in range(0, len(seen), _BATCH):
        part = seen[first : first + _BATCH]
        y = solver.start(part)
        for _ in range(5):
            y = solver.pose_step(shape, y, part)
        for _ in range(5):
            y = solver.frame_step(shape, y, part)
        done.append(y)
        if progress:
            progress(min(first + _BATCH, len(seen)), len(seen))
    fields = ("expression", "joints", "rotation", "translation")
    return shape, Pose(*(torch.cat([getattr(y, name) for y in done]) for name in fields))


def _smooth(head: HeadModel, x: Pose) -> Pose:
    """Jitter out, blinks kept: they last two or three frames."""
    expression = smooth(x.expression, SMOOTHING)
    for i, name in enumerate(head.expression_names):
        if name.startswith("eyeBlink"):
            expression[:, i] = x.expression[:, i]
    return Pose(
        expression, smooth(x.joints, SMOOTHING), smooth_rotations(x.rotation, SMOOTHING), smooth(x.translation, SMOOTHING)
    )


def fit_track(
    head: HeadModel,
    faces: Sequence[Face | None],
    camera: Camera,
    fps: float = 25.0,
    progress: Progress | None = None,
) -> tuple[HeadTrack, FitReport]:
    """Fit a head to a photo (one face) or a clip (one face a frame, None where none was found).

    Args:
        faces: detections in pixels of the image that `camera` describes.

    Returns:
        The track, float32, and how well it fits. Missing frames are interpolated, marked in `state` and have
        confidence 0.

    Raises:
        InputError: no face in any frame.
    """
    known = [i for i, f in enumerate(faces) if f is not None]
    found = [f for f in faces if f is not None]
    if not found:
        raise InputError(f"FLAME Fit: no face in any of {len(faces)} frames. Use a picture where the face is larger or clearer.")
    seen = observe(head, found, camera)
    eyes = seen.points[:, mp.RIGHT_EYE_CORNER] - seen.points[:, mp.LEFT_EYE_CORNER]
    solver = GaussNewton(head, camera, float(eyes.norm(dim=-1).median().clamp(min=2)))
    shape, x = _solve(solver, seen, progress)
    error = solver.error(shape, x, seen)
    offsets = personal_offsets(head, solver, shape, x, seen) if len(faces) == 1 else None
    residual = None if len(faces) == 1 else landmark_residuals(solver, shape, x, seen)
    at = torch.tensor(known)
    x = _smooth(head, Pose(
        interpolate(x.expression, at, len(faces)),
        interpolate(x.joints, at, len(faces)),
        interpolate_rotations(x.rotation, at, len(faces)),
        interpolate(x.translation, at, len(faces)),
    ))
    state = torch.full((len(faces),), INTERPOLATED)
    state[at] = DETECTED
    confidence = torch.zeros(len(faces))
    confidence[at] = torch.tensor([f.confidence for f in found], dtype=torch.float32)
    worst = int(error.argmax())
    track = HeadTrack(
        shape=shape.float(),
        expression=x.expression.float(),
        joints=x.joints.float(),
        rotation=x.rotation.float(),
        translation=x.translation.float(),
        camera=camera,
        fps=fps,
        confidence=confidence,
        state=state,
        joint_names=head.joint_names,
        offsets=offsets,
        landmark_offsets=None if residual is None else interpolate(residual, at, len(faces)).float(),
        head_name=head.name,
        head_digest=head.digest,
    )
    missing = tuple(i for i, f in enumerate(faces) if f is None)
    return track, FitReport(float(error.mean()), float(error[worst]), known[worst], missing)
