"""Eyelids retargeted by what they leave open, so that closed eyes close whatever their shape.

Blink coefficients do not carry over: a closed eye reads as 0.4 on one person and 0.6 on another, and a half closed eye
is what the eye sees first. So the opening between the lids is measured on the driver, as a share of its opening in the
first frame, and the source's blink is set to leave the same share.
"""

from dataclasses import replace

import torch
from torch import Tensor

from ..head.model import HeadModel
from ..track import HeadTrack
from .landmark_model import LandmarkModel

_LIDS = {
    "eyeBlinkRight": ((161, 163), (160, 144), (159, 145), (158, 153), (157, 154)),
    "eyeBlinkLeft": ((388, 390), (387, 373), (386, 374), (385, 380), (384, 381)),
}
"""MediaPipe landmarks on the upper and the lower lid, one above the other."""
_CLOSED = 0.10  # share of the opening that the detector still sees between closed lids
_STRONGEST = 1.3  # of the blink expression, for an eye larger than the model's


def _openings(head: HeadModel, track: HeadTrack, name: str) -> Tensor:
    """(T,) metres between the lids of one eye, along the head's y axis, offsets included. float64."""
    model = LandmarkModel.of(head, head.n_shape)
    shape = torch.zeros(head.n_shape, dtype=torch.float64)
    shape[: len(track.shape)] = track.shape.double().cpu()
    points, _ = model.posed(shape, track.expression.double().cpu(), track.joints.double().cpu() * 0)
    height = -points[..., 1]
    if track.offsets is not None:
        height = height + head.landmarks_dense.on(track.offsets.cpu(), head.faces.cpu())[:, 1]
    if track.landmark_offsets is not None:
        height = height + track.landmark_offsets[..., 1].double().cpu()
    upper, lower = map(list, zip(*_LIDS[name], strict=True))
    return (height[:, upper] - height[:, lower]).mean(1)


def _closing_rate(head: HeadModel, name: str) -> float:
    """Metres by which a blink of 1 closes the eye."""
    rise = head.landmarks_dense.on(head.expression_basis[head.expression_index(name)], head.faces)[:, 1]
    upper, lower = map(list, zip(*_LIDS[name], strict=True))
    return float((rise[lower] - rise[upper]).mean())


def match_lids(head: HeadModel, source: HeadTrack, driver: HeadTrack, target: HeadTrack) -> HeadTrack:
    """The target with its blinks set so that each eye is open by the driver's share, frame by frame.

    Heads without ARKit's blinks or without landmarks are left as they are; so is a frame equal to the first.
    """
    if head.landmarks_dense is None or not set(_LIDS) <= set(head.expression_names):
        return target
    expression = target.expression.clone()
    for name in _LIDS:
        open_driver = _openings(head, driver, name).clamp(min=0)
        open_source = _openings(head, source, name).clamp(min=0)
        share = (open_driver / open_driver[0].clamp(min=1e-4)).clamp(max=1.5)
        share = ((share - _CLOSED) / (1 - _CLOSED)).clamp(min=0)
        missing = _openings(head, target, name) - share * open_source
        i = head.expression_index(name)
        start = source.expression[0, i]
        wanted = target.expression[:, i] + (missing / _closing_rate(head, name)).to(expression)
        wanted = wanted.clamp(min(float(start), 0.0), _STRONGEST)
        expression[:, i] = torch.where((target.expression == target.expression[:1]).all(1), expression[:, i], wanted)
    return replace(target, expression=expression)
