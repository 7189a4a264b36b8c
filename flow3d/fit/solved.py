"""The landmark problem at its solution: what `fit_track` solved, taken up again from the track that it gave."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..head.model import HeadModel
from ..track import HeadTrack
from . import mediapipe_points as mp
from . import priors
from .faces import Face
from .levenberg_marquardt import Pose, Shared, Solver
from .observations import Observations, observe

SHAPE_FRAMES = 48
"""Frames at most that are looked at for what all frames share."""


@dataclass(frozen=True, eq=False)
class Solved:
    """The n frames with a face, as the solver has them."""

    solver: Solver
    shared: Shared
    x: Pose
    seen: Observations
    at: Tensor  # (n,) their places in the track

    @classmethod
    def of(cls, head: HeadModel, track: HeadTrack, faces: Sequence[Face | None]) -> "Solved":
        """The solution that a track is for its faces, which are None where none was found; at least one is there."""
        found = [f for f in faces if f is not None]
        at = torch.tensor([i for i, f in enumerate(faces) if f is not None])
        x = Pose(*(getattr(track, name)[at].double() for name in Pose.__dataclass_fields__))
        seen = observe(head, found, track.camera)
        if len(found) > 1:  # in a clip the landmark fit trusts the detector's rotations
            measured = torch.tensor([f.matrix is not None for f in found])
            seen = replace(seen, rotation=x.rotation, trust=measured * priors.ROTATION_TRUST)
        solver = Solver(head, track.camera, seen, _eye_distance(head, track[at]))
        shared = Shared(track.shape[: solver.n_shape].double(), track.camera.focal)
        some = spread(len(found), SHAPE_FRAMES)
        return cls(solver.with_noise(solver.noise_level(shared, x[some], seen[some])), shared, x, seen, at)


def spread(count: int, most: int) -> Tensor:
    """(n,) at most `most` indices, evenly over `count`."""
    return torch.linspace(0, count - 1, min(count, most)).round().long().unique()


def _eye_distance(head: HeadModel, track: HeadTrack) -> float:
    """Pixels between the eyes' outer corners of the fitted head, of the typical frame."""
    some = spread(len(track), SHAPE_FRAMES)
    marks = head.dense.on(track[some].vertices(head), head.faces)[:, [mp.RIGHT_EYE_CORNER, mp.LEFT_EYE_CORNER]]
    corners = track.camera.project(marks)
    return max(float((corners[:, 0] - corners[:, 1]).norm(dim=-1).median()), 2.0)
