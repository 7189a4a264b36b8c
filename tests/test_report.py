"""A track as plots and in words."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_head import NAMES, random_track, small_head

from comfyui_flow3d.flow3d.fit.angles import pose_rotation
from comfyui_flow3d.flow3d.fit.arkit import ARKIT, ARKIT_NAMES
from comfyui_flow3d.flow3d.render.plot import PALETTE, PAPER, Line, Mark, Panel, plot
from comfyui_flow3d.flow3d.render.report import expression_names, strongest, track_plot, track_summary
from comfyui_flow3d.flow3d.track import HELD, INTERPOLATED, HeadTrack

HEAD = small_head()
SIZE = 1024


def sure(track: HeadTrack) -> HeadTrack:
    """In float32, as fitted tracks are."""
    return replace(track, rotation=track.rotation.float(), translation=track.translation.float())


TRACK = sure(random_track(HEAD, 40, 5))


def near(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """(n, 2) pixels x, y of a colour."""
    return np.argwhere(np.abs(image.astype(int) - colour).max(-1) < 12)[:, ::-1]


def plotted(values: list[float], marks: list[Mark] | None = None, **ends: float) -> np.ndarray:
    return plot("", [Panel("", "", [Line("", np.array(values))], **ends)], marks or [], 25.0, SIZE)


def test_a_rising_line_rises_by_its_values() -> None:
    values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    points = near(plotted(values), PALETTE[0])
    points = points[points[:, 1] > 84]  # less the legend
    mean = {x: points[points[:, 0] == x, 1].mean() for x in np.unique(points[:, 0])}
    x, y = np.array(list(mean)), np.array(list(mean.values()))
    slope, start = np.polyfit(x, y, 1)
    assert slope < 0 and np.abs(y - (slope * x + start)).max() < 1.5
    again = near(plotted([10 * v for v in values]), PALETTE[0])
    assert abs(again[again[:, 1] > 84, 1].min() - y.min()) <= 2  # the axis follows the values


def test_gaps_and_single_values_are_drawn() -> None:
    points = near(plotted([1.0, 1.0, np.nan, 1.0, 2.0]), PALETTE[0])
    columns = np.unique(points[points[:, 1] > 84, 0])
    assert np.diff(columns).max() > SIZE / 5
    assert len(near(plotted([3.0]), PALETTE[0])) > 20
    assert plotted([np.nan, np.nan]).shape[1] == SIZE and plotted([]).shape[1] == SIZE


def test_marked_frames_are_shaded_where_they_are() -> None:
    chosen = np.zeros(10, bool)
    chosen[[3, 4]] = True
    image = plotted([0.0] * 5 + [1.0] * 5, [Mark("held", chosen, (0, 0, 255))])
    plain = plotted([0.0] * 5 + [1.0] * 5)
    changed = np.argwhere((image != plain).any(-1) & (np.arange(len(image)) > 84)[:, None])[:, 1]
    left, width = 70, SIZE - 70 - 24
    assert abs(changed.min() - (left + 0.3 * width)) < 3 and abs(changed.max() - (left + 0.5 * width)) < 3
    assert (near(plotted([1.0]), (0, 0, 255)).size == 0) and (image[0, 0] == PAPER).all()


@pytest.mark.parametrize("width", [768, 1024, 2048])
def test_the_plot_has_its_width_and_a_panel_for_the_error_only_where_known(width: int) -> None:
    without, known = track_plot(TRACK, HEAD, width=width), track_plot(TRACK, HEAD, np.full(40, 2.0), width)
    assert without.shape == known.shape and without.shape[1] == width and without.dtype == np.uint8
    assert (without != known).any()
    assert len(track_plot(TRACK[:1], HEAD, width=width)) < len(without)


def test_numbers_in_the_summary_are_those_of_the_track() -> None:
    yaw = torch.linspace(-20, 35, 40)
    state = torch.zeros(40, dtype=torch.int64)
    state[[7, 8]], state[30] = INTERPOLATED, HELD
    place = torch.tensor([0.0, 0.0, 0.9]) + torch.linspace(0, 0.1, 40)[:, None] * torch.tensor([0.0, 0.0, 1.0])
    track = replace(TRACK, rotation=pose_rotation(yaw, 0 * yaw, 0 * yaw), translation=place, state=state)
    error = np.linspace(1, 3, 40)
    error[39] = np.nan
    words = track_summary(track, HEAD, error).splitlines()
    assert words[0].startswith("40 frames")
    assert f"reprojection error {np.nanmean(error):.2f}% of the eye distance, worst {error[38]:.2f}% in frame 38" in words
    assert "2 frames interpolated (7, 8)" in words and "1 frames held (30)" in words
    assert "yaw -20.0 to 35.0 degrees" in words and "distance 90.0 to 100.0 cm" in words
    assert not any("error" in w for w in track_summary(track, HEAD).splitlines())


def test_a_turn_past_half_a_circle_does_not_jump() -> None:
    roll = torch.linspace(150, 210, 40)
    track = replace(TRACK, rotation=pose_rotation(0 * roll, 0 * roll, roll))
    assert "roll 150.0 to 210.0 degrees" in track_summary(track, HEAD)


def test_expressions_are_ranked_by_what_they_do() -> None:
    expression = torch.zeros(40, HEAD.n_expression)
    expression[:, 1] = torch.linspace(0, 1, 40)
    expression[:, 0] = 0.9  # never moves
    lines = strongest(replace(TRACK, expression=expression), NAMES)
    assert [line.name for line in lines] == [NAMES[1]]
    photo = strongest(replace(TRACK, expression=expression)[:1], NAMES)
    assert [line.name for line in photo] == [NAMES[0]]


def test_expressions_have_the_names_of_their_own_head() -> None:
    assert expression_names(TRACK, HEAD) == HEAD.expression_names
    other = replace(TRACK, head_digest="another")
    assert expression_names(other, HEAD)[2] == "expression 2" == expression_names(TRACK)[2]
    live = replace(TRACK, expression=torch.zeros(40, len(ARKIT_NAMES)), head_name=ARKIT)
    assert expression_names(live, HEAD) == ARKIT_NAMES
