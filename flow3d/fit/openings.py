"""Eyes and mouth retargeted by how far they open, so that closed eyes close and a mouth opens as wide on any face.

Coefficients do not carry over: a closed eye reads as a blink of 0.4 on one person and 0.6 on another, and the same
jawOpen parts the lips less on a larger head. So the openings themselves are measured, on the driver as on the source,
and the source's blink and jawOpen are set to give the wanted ones.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..head.model import HeadModel
from ..track import HeadTrack
from . import mediapipe_points as mp
from .landmark_model import LandmarkModel

_LIDS = {
    "eyeBlinkRight": ((161, 163), (160, 144), (159, 145), (158, 153), (157, 154)),
    "eyeBlinkLeft": ((388, 390), (387, 373), (386, 374), (385, 380), (384, 381)),
}
_LIPS = ((81, 178), (82, 87), (13, 14), (312, 317), (311, 402))
"""MediaPipe landmarks on an upper and a lower rim, one above the other."""
_SEEN_OPEN = (0.12, 0.37, 0.62, 0.71, 0.79, 0.90, 1.0)
_TRULY_OPEN = (0.0, 0.28, 0.42, 0.53, 0.65, 0.82, 1.0)
"""Shares of an eye's opening as the detector sees them, and as they are: it takes half closed lids for open and nearly closed
ones for closed. Measured on renders of four heads whose lids close by known shares."""
_BATCH = 64  # frames
_GAIN = 1.2  # of the mouth's opening: a warped photo shows less of it, as its lips do not turn outward (measured)
_STRONGEST = 1.3  # of an expression, for a face larger than the model's

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class _Heights:
    """How high each landmark of a track lies in the head frame, (T, 478) metres, offsets included; float64."""

    y: Tensor
    eyes_apart: float  # metres, at rest

    @classmethod
    def of(cls, head: HeadModel, track: HeadTrack, reference: int = 0) -> "_Heights":
        """`reference` is the frame in which the distance between the eyes is taken."""
        model = LandmarkModel.of(head, len(track.shape))
        shape, expression = track.shape.double().cpu(), track.expression.double().cpu()
        at_rest = torch.zeros(1, *track.joints.shape[1:], dtype=torch.float64)
        parts = []
        for some in expression.split(_BATCH):
            points, _ = model.posed(shape, some, at_rest.expand(len(some), -1, -1))
            parts.append(-points[..., 1])
        y = torch.cat(parts)
        if track.offsets is not None:
            y += head.dense.on(track.offsets.cpu(), head.faces.cpu())[:, 1]
        if track.landmark_offsets is not None:
            y += track.landmark_offsets[..., 1].cpu()
        corners = model.posed(shape, expression[[reference]], at_rest)[0][0, [mp.RIGHT_EYE_CORNER, mp.LEFT_EYE_CORNER]]
        return cls(y, float((corners[0] - corners[1]).norm()))

    def opening(self, pairs: Pairs) -> Tensor:
        """(T,) metres between two rims, negative where they overlap."""
        upper, lower = map(list, zip(*pairs, strict=True))
        return (self.y[:, upper] - self.y[:, lower]).mean(1)


def _rate(head: HeadModel, name: str, pairs: Pairs) -> float:
    """Metres by which the expression `name` at 1 opens what lies between the pairs."""
    rise = head.dense.on(head.expression_basis[head.expression_index(name)], head.faces)[:, 1]
    upper, lower = map(list, zip(*pairs, strict=True))
    return float((rise[upper] - rise[lower]).mean())


def closing(head: HeadModel, still: HeadTrack) -> float:
    """How much mouthClose, 0..1, brings the lips of a track's first frame together, jaw joint at rest.

    0 where they meet already, and on heads without landmarks or that expression.
    """
    if head.landmarks_dense is None or "mouthClose" not in head.expression_names:
        return 0.0
    gap = float(_Heights.of(head, still[:1]).opening(_LIPS)[0])
    return min(max(gap, 0.0) / -_rate(head, "mouthClose", _LIPS), 1.0)


def _wanted_eye(driver: _Heights, source: _Heights, pairs: Pairs, reference: int) -> Tensor:
    """(T,) metres: the driver's share of its own opening in the reference frame, of the source's."""
    opening = driver.opening(pairs).clamp(min=0)
    share = (opening / opening[reference].clamp(min=1e-4)).clamp(max=1.5)
    truly = torch.from_numpy(np.interp(share.numpy(), _SEEN_OPEN, _TRULY_OPEN)) + (share - 1).clamp(min=0)
    return truly * source.opening(pairs).clamp(min=0)


def _wanted_mouth(driver: _Heights, source: _Heights, reference: int) -> Tensor:
    """(T,) metres: the source's opening and the driver's change, in distances between the eyes."""
    opening = driver.opening(_LIPS).clamp(min=0)
    change = _GAIN * (opening - opening[reference]) * (source.eyes_apart / driver.eyes_apart)
    return (source.opening(_LIPS).clamp(min=0) + change).clamp(min=0)


def match_openings(
    head: HeadModel,
    source: HeadTrack,
    driver: HeadTrack,
    target: HeadTrack,
    names: frozenset[str],
    reference: int = 0,
) -> HeadTrack:
    """The target with its blinks and jawOpen set so that eyes and mouth are as open as the driver's, frame by frame.

    Args:
        names: which of eyeBlinkLeft, eyeBlinkRight and jawOpen may be set.
        reference: the frame of driver and target that is the source.

    Heads without ARKit's names or without landmarks are left as they are; so is a frame equal to the reference.
    """
    names = names & set(head.expression_names) & {*_LIDS, "jawOpen"}
    if head.landmarks_dense is None or not names:
        return target
    seen = {"driver": _Heights.of(head, driver, reference), "source": _Heights.of(head, source)}
    now = _Heights.of(head, target)
    expression = target.expression.clone()
    rest = target.expression[reference]
    moved = (target.expression != rest).any(1)
    if driver.landmark_offsets is not None:
        moved |= (driver.landmark_offsets != driver.landmark_offsets[reference]).flatten(1).any(1).to(moved.device)
    for name in sorted(names):
        pairs = _LIDS.get(name, _LIPS)
        eyes = name in _LIDS
        wanted = _wanted_eye(**seen, pairs=pairs, reference=reference) if eyes else _wanted_mouth(**seen, reference=reference)
        missing = wanted - now.opening(pairs)
        if name == "jawOpen" and "mouthClose" in head.expression_names:  # the jaw is where it is: lips too far apart close
            _add(head, expression, "mouthClose", missing.clamp(max=0), pairs, moved, rest)
            missing = missing.clamp(min=0)
        _add(head, expression, name, missing, pairs, moved, rest)
    return replace(target, expression=expression)


def _add(
    head: HeadModel, expression: Tensor, name: str, missing: Tensor, pairs: Pairs, moved: Tensor, rest: Tensor
) -> None:
    """Change one expression (T, E), in place, by what gives the missing metres (T,) in the frames that `moved` (T,).

    It stays above 0, or above its value in `rest` (E,).
    """
    i = head.expression_index(name)
    more = (missing / _rate(head, name, pairs)).to(expression)
    least = min(float(rest[i]), 0.0)
    expression[:, i] = torch.where(moved, (expression[:, i] + more).clamp(least, _STRONGEST), expression[:, i])
