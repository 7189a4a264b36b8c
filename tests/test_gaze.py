"""Lids that follow the gaze. Oracle: the eye joints alone turn the eyeballs to where they must still look."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_arkit_map import disguised

from comfyui_flow3d.flow3d.fit.angles import gaze_rotation
from comfyui_flow3d.flow3d.fit.edit import edit_track
from comfyui_flow3d.flow3d.fit.mediapipe_points import LEFT_IRIS, RIGHT_IRIS
from comfyui_flow3d.flow3d.head.model import HeadModel
from comfyui_flow3d.flow3d.io.motions import load_motion
from comfyui_flow3d.flow3d.rotations import compose
from comfyui_flow3d.flow3d.track import HeadTrack

UPPER, LOWER, IRISES = [386, 159], [374, 145], [*LEFT_IRIS, *RIGHT_IRIS]  # the first of each is the subject's left eye


@pytest.fixture(scope="module")
def still(open_head: HeadModel) -> HeadTrack:
    """An upright head at rest."""
    track = load_motion("idle", open_head)[[0]]
    return replace(
        track, rotation=torch.zeros(1, 3), joints=torch.zeros_like(track.joints), expression=torch.zeros_like(track.expression)
    )


def looking(head: HeadModel, still: HeadTrack, **weights: float) -> HeadTrack:
    expression = still.expression.clone()
    for name, weight in weights.items():
        expression[:, head.expression_index(name)] = weight
    return replace(still, expression=expression)


def marks(head: HeadModel, track: HeadTrack) -> torch.Tensor:
    """(478, 3) millimetres, y up."""
    return 1000 * head.dense.on(track.vertices(head), head.faces)[0] * torch.tensor([1.0, -1.0, -1.0])


@pytest.mark.parametrize("start", [{}, {"eyeLookUpLeft": 0.3, "eyeLookUpRight": 0.3}, {"eyeLookDownLeft": 0.5, "eyeLookDownRight": 0.4}])
@pytest.mark.parametrize("pitch", [-30.0, -12.0, -3.0, 3.0, 12.0, 28.0])
def test_the_pupils_go_where_the_joints_alone_would_take_them(
    open_head: HeadModel, still: HeadTrack, start: dict[str, float], pitch: float
) -> None:
    begin = looking(open_head, still, **start)
    joints = begin.joints.clone()
    turn = gaze_rotation(torch.zeros(1), torch.tensor([pitch]))
    for j in (2, 3):
        joints[:, j] = compose(joints[:, j], turn)
    edited = edit_track(open_head, begin, {"gazePitch": pitch})
    before, alone, now = (marks(open_head, t)[IRISES, :2] for t in (begin, replace(begin, joints=joints), edited))
    assert (now - alone).norm(dim=1).mean() < max(0.1 * (alone - before).norm(dim=1).mean(), 0.1)


@pytest.mark.parametrize("pitch", [-25.0, -15.0, -5.0, 5.0, 15.0, 25.0])
def test_upper_lids_ride_on_the_eyeballs(open_head: HeadModel, still: HeadTrack, pitch: float) -> None:
    before, after = marks(open_head, still), marks(open_head, edit_track(open_head, still, {"gazePitch": pitch}))
    lid, lower, pupil = ((after - before)[some, 1].mean() * np.sign(pitch) for some in (UPPER, LOWER, IRISES))
    assert 0.5 * pupil < lid < 1.15 * pupil
    assert 0 <= lower < 0.75 * lid


def test_one_eye_alone(open_head: HeadModel, still: HeadTrack) -> None:
    moved = (marks(open_head, edit_track(open_head, still, {"gazePitchLeft": -15.0})) - marks(open_head, still)).norm(dim=1)
    assert moved[UPPER[0]] > 2 and moved[UPPER[1]] == 0


def test_what_looks_the_other_way_is_taken_first(open_head: HeadModel, still: HeadTrack) -> None:
    down = looking(open_head, still, eyeLookDownLeft=0.5, eyeLookDownRight=0.5)
    edited = edit_track(open_head, down, {"gazePitch": 4.0})  # a quarter of the 16 degrees of a full eyeLookDown
    weight = dict(zip(open_head.expression_names, edited.expression[0].tolist(), strict=True))
    assert weight["eyeLookDownLeft"] == pytest.approx(0.25) and weight["eyeLookUpLeft"] == weight["eyeWideLeft"] == 0
    assert edited.joints.abs().max() < 1e-6
    far = edit_track(open_head, down, {"gazePitch": 60.0}).expression
    assert far.min() >= 0 and far.max() <= 1


def test_it_moves_nothing_but_the_eyes(open_head: HeadModel, still: HeadTrack) -> None:
    edited = edit_track(open_head, still, {"gazePitch": -25.0})
    assert torch.equal(edited.rotation, still.rotation) and torch.equal(edited.translation, still.translation)
    assert torch.equal(edited.joints[:, :2], still.joints[:, :2])
    moved = (edited.vertices(open_head) - still.vertices(open_head))[0].norm(dim=-1)
    eyes = open_head.dense.on(open_head.template, open_head.faces)[[473, 468]]
    far = torch.cdist(open_head.template, eyes).amin(1) > 0.045
    assert moved[far].max() < 1e-4 < 1e-3 < moved.max()
    assert edit_track(open_head, still, {"gazePitch": 0.0}) is still
    sideways = edit_track(open_head, still, {"gazeYaw": 20.0})
    assert torch.equal(sideways.expression, still.expression)


def test_a_head_without_names(open_head: HeadModel) -> None:
    """The open head in disguise: its lids follow through the map of ARKit's names."""
    nameless = disguised(open_head)
    start = [load_motion("smile", h)[:1] for h in (nameless, open_head)]
    moved = []
    for head, track in zip((nameless, open_head), start, strict=True):
        looked = marks(head, edit_track(head, track, {"gazePitch": -16.0})) - marks(head, track)
        moved.append(looked.norm(dim=1)[UPPER + IRISES])
    assert torch.allclose(moved[0], 1.15 * moved[1], rtol=0.1, atol=0.2)  # it is 1.15 times as large
