"""Sliders and bundled motions on a head whose expressions have no names, against the head that it is in disguise."""

import pytest
import torch
from test_arkit_map import SCALE, SHIFT, TURN, disguised
from torch import Tensor

from comfyui_flow3d.flow3d.fit.edit import edit_names, edit_track
from comfyui_flow3d.flow3d.head.model import HeadModel
from comfyui_flow3d.flow3d.io.motions import load_motion
from comfyui_flow3d.flow3d.track import HeadTrack


@pytest.fixture(scope="module")
def nameless(open_head: HeadModel) -> HeadModel:
    return disguised(open_head)


def surface(head: HeadModel, track: HeadTrack) -> Tensor:
    return head.vertices(torch.zeros(len(track), 0), track.expression, track.joints)[0]


def farthest(open_head: HeadModel, nameless: HeadModel, ours: HeadTrack, theirs: HeadTrack) -> float:
    """Metres between the nameless head and the open head in the same disguise, at most, on the face."""
    wanted = SCALE * surface(open_head, theirs) @ TURN.T + SHIFT
    return float((surface(nameless, ours) - wanted)[:, open_head.masks["face"]].norm(dim=-1).max())


def test_a_motion_drives_it(open_head: HeadModel, nameless: HeadModel) -> None:
    assert farthest(open_head, nameless, load_motion("smile", nameless), load_motion("smile", open_head)) < 1.5e-3


@pytest.mark.parametrize(("name", "value"), [("smile", 0.8), ("eyelids", -1.0), ("jawOpen", 0.7), ("mouthSide", -0.5)])
def test_a_slider_does_what_it_says(open_head: HeadModel, nameless: HeadModel, name: str, value: float) -> None:
    ours = edit_track(nameless, load_motion("smile", nameless)[:1], {name: value})
    theirs = edit_track(open_head, load_motion("smile", open_head)[:1], {name: value})
    moved = surface(open_head, theirs) - surface(open_head, load_motion("smile", open_head)[:1])
    assert farthest(open_head, nameless, ours, theirs) < 0.35 * float(moved.norm(dim=-1).max())


def test_its_names(nameless: HeadModel) -> None:
    names = edit_names(nameless)
    assert "smile" in names and "tongueOut" not in names
    track = load_motion("smile", nameless)
    assert edit_track(nameless, track, {"smile": 0.0}) is track
