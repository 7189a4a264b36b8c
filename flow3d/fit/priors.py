"""How much each observation and each parameter weighs in the fit. Found by measurement; see benchmarks/RESULTS.md."""

import torch
from torch import Tensor

from ..head.model import HeadModel
from . import mediapipe_points as mp

SHAPE_PRIOR = 1.5
EXPRESSION_PRIOR = 12.0
EYE_PRIOR = 3.0
JAW_PRIOR = 4.0
ROTATION_TRUST = 400.0  # per radian
DEPTH_SHARE = 0.15
ROBUST_SCALE = 4.0
"""Residuals are in hundredths of the distance between the eyes; one beyond this counts less and less."""

_EXPRESSION_FACTORS = {"eyeBlink": 0.6, "eyeLook": 6.0, "mouthClose": 3.0, "jawOpen": 15.0}
"""MediaPipe's own score is a better judge of these than the landmarks (or, for a blink, a worse one)."""


def landmark_weights(head: HeadModel) -> Tensor:
    """(478,) weights, float64: lower where the views disagreed on a landmark's place, higher at lips and eyelids."""
    if head.landmark_spread is None:
        weights = torch.ones(mp.N_POINTS, dtype=torch.float64)
    else:
        weights = 1 / (0.6 + 250 * head.landmark_spread.double().cpu().nan_to_num(nan=1e-2))
    weights[list(mp.OVAL)] *= 0.4
    weights[list(mp.OUTER_LIPS + mp.INNER_LIPS)] *= 1.6
    weights[list(mp.LEFT_EYE + mp.RIGHT_EYE)] *= 1.6
    weights[list(mp.IRISES)] *= 0.7
    if head.landmarks_dense is not None:
        weights[~head.landmarks_dense.found.cpu()] = 0
    return weights


def depth_weights(weights: Tensor) -> Tensor:
    """(478,) weights of the detector's relief, from those of the landmarks: less, and nothing at the oval, whose place on
    the surface is least certain in depth, and at the irises, for which there is none."""
    depth = DEPTH_SHARE * weights
    depth[list(mp.OVAL + mp.IRISES)] = 0
    return depth


def expression_prior(head: HeadModel) -> Tensor:
    """(E,) weights, float64, that draw each expression coefficient to its expected value."""
    prior = torch.full((head.n_expression,), EXPRESSION_PRIOR, dtype=torch.float64)
    for i, name in enumerate(head.expression_names):
        for prefix, factor in _EXPRESSION_FACTORS.items():
            if name.startswith(prefix):
                prior[i] *= factor
    return prior
