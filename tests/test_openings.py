"""Eyes and mouth open by measure: the openings are taken from the meshes themselves."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.fit.detect import MediaPipeDetector
from comfyui_flow3d.flow3d.fit.retarget import retarget
from comfyui_flow3d.flow3d.head.model import HeadModel
from comfyui_flow3d.flow3d.render.shade import shade
from comfyui_flow3d.flow3d.track import HeadTrack

LIDS = ((160, 144), (159, 145), (158, 153))
LIPS = ((82, 87), (13, 14), (312, 317))


def track_of(head: HeadModel, shape: torch.Tensor, **expressions: list[float]) -> HeadTrack:
    n = len(next(iter(expressions.values())))
    expression = torch.zeros(n, head.n_expression)
    for name, values in expressions.items():
        expression[:, head.expression_index(name)] = torch.tensor(values)
    still = torch.zeros(n, 3)
    place = torch.tensor([0.0, 0.1, 1.0]).repeat(n, 1)
    joints = torch.zeros(n, head.n_joints - 1, 3)
    return HeadTrack(shape, expression, joints, still, place, Camera.from_field_of_view(512, 512))


def opening(head: HeadModel, track: HeadTrack, pairs: tuple[tuple[int, int], ...]) -> torch.Tensor:
    """(T,) metres between two rims, down the picture, of an upright head."""
    y = head.dense.on(track.vertices(head), head.faces)[..., 1]
    return torch.stack([y[:, low] - y[:, up] for up, low in pairs]).mean(0)


@pytest.fixture(scope="module")
def detector(face_landmarker: Path) -> Iterator[MediaPipeDetector]:
    with MediaPipeDetector(face_landmarker) as it:
        yield it


@pytest.fixture(scope="module")
def shapes(open_head: HeadModel) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    return tuple(0.6 * torch.randn(open_head.n_shape, generator=random) for _ in range(2))


def test_a_closed_eye_closes(open_head: HeadModel, shapes):
    """A driver whose lids close at 0.6 of the blink closes a source that needs more."""
    source = track_of(open_head, shapes[0], eyeBlinkRight=[0.0])
    driver = track_of(open_head, shapes[1], eyeBlinkRight=[0.0, 0.3, 0.9, 0.3, 0.0])
    target = retarget(open_head, source, driver)
    ours, theirs = opening(open_head, target, LIDS), opening(open_head, driver, LIDS)
    assert ours[2] < 0.12 * ours[0]
    assert ours[1] / ours[0] < theirs[1] / theirs[0]  # what the detector sees is more than there is


def test_half_closed_eyes_are_truly_half_closed(open_head: HeadModel, detector: MediaPipeDetector):
    """Lids of a render close by known shares. What the detector sees of that, given to another face, comes nearer to the
    truth than the detector does."""
    blinks = [0.0, 0.3, 0.45, 0.6]
    rendered = track_of(open_head, torch.zeros(open_head.n_shape), eyeBlinkRight=blinks, eyeBlinkLeft=blinks)
    true = opening(open_head, rendered, LIDS)
    pictures = (255 * shade(open_head, rendered.vertices(open_head), rendered.camera)).byte().numpy()
    points = torch.tensor(np.array([detector.detect(picture)[0].points for picture in pictures]))
    seen = torch.stack([points[:, low, 1] - points[:, up, 1] for up, low in LIDS]).mean(0)
    driver = track_of(open_head, torch.zeros(open_head.n_shape), eyeBlinkRight=[0.0] * 4)
    offsets = torch.zeros(4, 478, 3)
    offsets[:, [161, 160, 159, 158, 157], 1] = -(float(true[0]) * (1 - seen / seen[0]))[:, None].float()
    source = track_of(open_head, 0.3 * torch.ones(open_head.n_shape), eyeBlinkRight=[0.0])
    target = retarget(open_head, source, replace(driver, landmark_offsets=offsets))
    ours = opening(open_head, target, LIDS)
    wrong, wrong_before = ((x / x[0] - true / true[0]).abs()[1:] for x in (ours, seen))
    assert wrong_before.max() > 0.12 and wrong.mean() < 0.6 * wrong_before.mean()


def test_the_mouth_opens_as_wide(open_head: HeadModel, shapes):
    source = track_of(open_head, shapes[0], jawOpen=[0.0])
    driver = track_of(open_head, shapes[1], jawOpen=[0.0, 0.2, 0.5])
    target = retarget(open_head, source, driver)
    ours, theirs = opening(open_head, target, LIPS), opening(open_head, driver, LIPS)
    assert ours[2] - ours[0] > 1.05 * (theirs[2] - theirs[0]) * 0.9
    assert (ours[2] - ours[0]) / (ours[1] - ours[0]) == pytest.approx(
        float((theirs[2] - theirs[0]) / (theirs[1] - theirs[0])), rel=0.25
    )


def test_offsets_count(open_head: HeadModel, shapes):
    """A driver whose lids close by landmark offsets alone, as a fit may leave them, closes the source too."""
    source = track_of(open_head, shapes[0], eyeBlinkRight=[0.0])
    driver = track_of(open_head, shapes[1], eyeBlinkRight=[0.0, 0.0])
    gap = float(opening(open_head, driver, LIDS)[0])
    offsets = torch.zeros(2, 478, 3)
    offsets[1, [161, 160, 159, 158, 157], 1] = -0.5 * gap
    target = retarget(open_head, source, replace(driver, landmark_offsets=offsets))
    # half of it comes with the offsets themselves; what the detector still sees between closed lids is more than that
    assert target.expression[1, open_head.expression_index("eyeBlinkRight")] > 0.02


def test_parts_left_are_left(open_head: HeadModel, shapes):
    source = track_of(open_head, shapes[0], jawOpen=[0.0])
    driver = track_of(open_head, shapes[1], jawOpen=[0.0, 0.5], eyeBlinkLeft=[0.0, 1.0])
    target = retarget(open_head, source, driver, parts=("pose", "translation"))
    assert torch.equal(target.expression, source.expression.repeat(2, 1))
