"""Heads whose truth is known: random people who pose and move, and what a noisy detector would say of them."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from ..flow3d.camera import Camera
from ..flow3d.fit.faces import Face
from ..flow3d.head.model import HeadModel
from ..flow3d.track import HeadTrack

SIZE = 512  # pixels
NOISE = 1.0  # pixels per axis
_YAW, _PITCH, _ROLL = 40.0, 20.0, 15.0  # degrees at most, each way
_ACTIVE = 0.15  # share of the expressions that a clip uses
_GAZE = 15.0  # degrees


def camera() -> Camera:
    """The default field of view on a square picture."""
    return Camera.from_field_of_view(SIZE, SIZE)


@dataclass(frozen=True, eq=False)
class Sample:
    """One synthetic clip (or still, with one frame)."""

    truth: HeadTrack
    faces: list[Face]


def _smooth_noise(random: np.random.Generator, frames: int, channels: int, period: float) -> np.ndarray:
    """(frames, channels) in -1..1 about, smooth over `period` frames; for one frame uniform."""
    if frames == 1:
        return random.uniform(-1, 1, (1, channels))
    long = gaussian_filter1d(random.normal(size=(frames + 8 * int(period), channels)), period, axis=0)
    x = long[4 * int(period) :][:frames]
    return np.clip(x / (2 * x.std(0)), -1, 1)


def person(head: HeadModel, random: np.random.Generator, frames: int) -> HeadTrack:
    """A random identity at one sigma, poses within 40 degrees of yaw, expressions and a gaze that move."""
    shape = random.normal(size=head.n_shape)
    angles = _smooth_noise(random, frames, 3, 15) * (_YAW, _PITCH, _ROLL)
    rotation = Rotation.from_euler("YXZ", angles, degrees=True).as_rotvec()
    active = random.uniform(size=head.n_expression) < _ACTIVE
    level = (_smooth_noise(random, frames, head.n_expression, 6) + 1) / 2
    expression = active * random.uniform(0.3, 1, head.n_expression) * level
    gaze = np.radians(_GAZE) * _smooth_noise(random, frames, 2, 6)
    joints = np.zeros((frames, head.n_joints - 1, 3))
    for name in ("left_eye", "right_eye"):
        joints[:, head.joint_names.index(name) - 1, :2] = gaze
    place = _smooth_noise(random, frames, 3, 20) * (0.04, 0.04, 0.06) + (0.0, 0.1, 1.0)
    return HeadTrack(
        shape=torch.from_numpy(shape).float(),
        expression=torch.from_numpy(expression).float(),
        joints=torch.from_numpy(joints).float(),
        rotation=torch.from_numpy(rotation).float(),
        translation=torch.from_numpy(place).float(),
        camera=camera(),
        joint_names=head.joint_names,
        head_name=head.name,
        head_digest=head.digest,
    )


def detections(head: HeadModel, track: HeadTrack, random: np.random.Generator, noise: float = NOISE) -> list[Face]:
    """The dense landmarks of a track with `noise` pixels on each axis, and nothing else a detector may know."""
    points = torch.cat([head.dense.on(track[t : t + 1].vertices(head), head.faces) for t in range(len(track))])
    pixels = track.camera.project(points.double()).numpy()
    pixels = pixels + random.normal(scale=noise, size=pixels.shape)
    pixels[:, ~head.dense.found.numpy()] = np.nan
    return [Face.of478(p) for p in pixels]


def sample(head: HeadModel, seed: int, frames: int, noise: float = NOISE) -> Sample:
    """A person with a seed of their own, and their noisy detections."""
    random = np.random.default_rng(seed)
    truth = person(head, random, frames)
    return Sample(truth, detections(head, truth, random, noise))


def moved(head: HeadModel, truth: HeadTrack) -> torch.Tensor:
    """(T, V, 3) metres: what the expression moves on the neutral head."""
    return torch.tensordot(truth.expression, head.expression_basis, 1)
