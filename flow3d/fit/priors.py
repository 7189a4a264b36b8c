"""What the fit expects before it looks: how far each landmark may be off, and what faces do. Found by measurement.

Landmark errors are in hundredths of the distance between the eyes, expressions in parts, angles in radians.
"""

import torch
from torch import Tensor

from ..head.model import HeadModel
from . import mediapipe_points as mp
from .observations import CONTOUR, N_LANDMARKS, SPARSE, Observations, all_landmarks

NOISE = 1.3
"""Standard deviation of a landmark, before the fit has estimated it."""
LEAST_NOISE = 0.85
"""What is estimated at least: a detector errs alike from frame to frame, which its residuals do not show."""
ROBUST_SCALE = 3.0
"""Standard deviations beyond which a residual counts less and less."""
SHAPE = 1.0
SCORED, UNSCORED = 0.083, 0.18
"""Standard deviations of an expression about the detector's score, and about 0 where there is none."""
EYE, JAW = 0.35, 0.25
ROTATION_TRUST = 400.0
"""1 / radians: how well the detector knows changes of the head's rotation within a clip."""
DEPTH_SHARE = 0.15
"""Weight of the detector's relief over that of its points."""

EXPRESSION_MOVES, BLINK_MOVES, GAZE_MOVES = 0.03, 0.5, 0.03
ROTATION_MOVES, TRANSLATION_MOVES = 0.0025, 0.001
"""Standard deviations of accelerations a frame^2, at 25 frames a second, of parts, radians and metres."""
STILLNESS = 3.0
"""Standard deviation of velocities a frame over that of accelerations."""

_SPREAD = 8e-3  # metres of disagreement between views that halve a landmark's variance
_CONTOUR = 0.5  # weight of the 68 points' jaw line, which slides along the face
_SCORED_FACTORS = {"eyeBlink": 1.7, "eyeLook": 0.17, "mouthClose": 0.33, "jawOpen": 0.067}
"""Some scores are better judges than the landmarks; a blink's is a worse one."""


def landmark_weights(head: HeadModel) -> Tensor:
    """(L,) 1 / relative standard deviation of each landmark, float64, median 1: less where the views disagreed on its
    place on the head, 0 for one that the head lacks."""
    weights = torch.ones(N_LANDMARKS, dtype=torch.float64)
    dense = weights[: mp.N_POINTS]
    if head.landmark_spread is not None:
        dense /= (1 + (head.landmark_spread.double().cpu().nan_to_num(nan=1e-2) / _SPREAD) ** 2).sqrt()
    dense[list(mp.OVAL)] *= 0.8
    dense /= dense.median()
    weights[SPARSE][:17] *= _CONTOUR
    weights[CONTOUR] *= _CONTOUR
    return weights * all_landmarks(head).found


def depth_weights(weights: Tensor) -> Tensor:
    """(L,) weights of the detector's relief, from those of the landmarks: less, and nothing at the oval, whose place on
    the surface is least certain in depth, and at the irises and the 68, for which there is none."""
    depth = DEPTH_SHARE * weights
    depth[list(mp.OVAL + mp.IRISES)] = 0
    depth[mp.N_POINTS :] = 0
    return depth


def expression_weights(head: HeadModel, seen: Observations) -> Tensor:
    """(n, E) 1 / standard deviation of each expression about `seen.scores`, float64."""
    scored = torch.full((head.n_expression,), SCORED, dtype=torch.float64)
    for i, name in enumerate(head.expression_names):
        for prefix, factor in _SCORED_FACTORS.items():
            if name.startswith(prefix):
                scored[i] *= factor
    unscored = UNSCORED if head.expression_names else 1.0  # components without names have unit variance
    return 1 / torch.where(seen.scored, scored, unscored)
