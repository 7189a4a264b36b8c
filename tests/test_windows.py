"""Context windows: every frame is covered, neighbours share what they should, the weights sum to one, a seed tells all."""

from itertools import pairwise, product

import pytest
import torch

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.models.seams import Seams, measure_seams, seams_report
from comfyui_flow3d.models.windows import FUSINGS, OFFSETS, Windows, borders

SIZES = [(16, 4), (16, 0), (12, 1), (8, 7), (5, 2), (1, 0)]
LENGTHS = [1, 2, 5, 15, 16, 17, 18, 28, 29, 33, 64, 96, 97]


def every_kind(stride: int = 1) -> list[Windows]:
    return [
        Windows(length, overlap, stride, closed, "pyramid", offset)
        for (length, overlap), closed, offset in product(SIZES, (False, True), OFFSETS)
    ]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("frames", LENGTHS)
def test_every_frame_is_covered_and_the_weights_sum_to_one(frames: int, stride: int) -> None:
    for windows in every_kind(stride):
        for step in range(3):
            made = windows.at_step(frames, step, seed=5)
            assert set().union(*made) == set(range(frames)), windows
            for window in made:
                assert len(window) == min(frames, windows.length) == len(set(window)), windows
        for fusing in FUSINGS:
            weights = Windows(windows.length, windows.overlap, fusing=fusing).weights(made, frames)
            torch.testing.assert_close(weights.sum(0), torch.ones(frames), rtol=0, atol=1e-6)
            for row, window in zip(weights, made, strict=True):
                assert set((row > 0).nonzero().flatten().tolist()) == set(window) and row.min() >= 0


@pytest.mark.parametrize("frames", LENGTHS)
def test_neighbouring_windows_overlap_as_told(frames: int) -> None:
    for windows in every_kind():
        made = windows.at_step(frames, 2, seed=1)
        if len(made) == 1:
            assert frames <= windows.length or frames == 1
            continue
        circular = windows.closed_loop or windows.offset == "circular"
        for one, other in pairwise([*made, made[0]] if circular else made):
            assert len(set(one) & set(other)) >= windows.overlap, (windows, made)
        wraps = any(window != sorted(window) for window in made)
        if not circular:
            assert not wraps


def test_no_more_windows_than_needed() -> None:
    """The fewest that overlap enough: ceil((frames - overlap) / (length - overlap)) in an open clip."""
    for (length, overlap), frames in product(SIZES, LENGTHS):
        made = Windows(length, overlap).at_step(frames, 0, 0)
        assert len(made) == max(1, -((overlap - frames) // (length - overlap)))


def test_known_windows() -> None:
    assert Windows(4, 1).at_step(10, 0, 0) == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert Windows(4, 1, closed_loop=True).at_step(6, 0, 0) == [[0, 1, 2, 3], [3, 4, 5, 0]]
    assert Windows(3, 1, stride=2).at_step(6, 0, 0) == [[0, 1, 2], [2, 3, 4], [3, 4, 5], [0, 2, 4], [1, 3, 5]]


def test_known_weights() -> None:
    """Before they are made to sum to one, which the second window's own frames show."""
    pair = [[0, 1, 2, 3], [2, 3, 4, 5]]
    ratio = {f: Windows(4, 2, fusing=f).weights(pair, 6)[:, 2].tolist() for f in FUSINGS}
    assert ratio["uniform"] == pytest.approx([1 / 2, 1 / 2])
    assert ratio["pyramid"] == pytest.approx([2 / 3, 1 / 3])
    assert ratio["overlap-linear"] == pytest.approx([2 / 3, 1 / 3])
    six = [[0, 1, 2, 3, 4, 5], [4, 5, 6, 7, 8, 9]]
    assert Windows(6, 1, fusing="overlap-linear").weights(six, 10)[0, 4].item() == pytest.approx(2 / 3)
    assert Windows(6, 1, fusing="pyramid").weights(six, 10)[0, 4].item() == pytest.approx(2 / 3)
    assert Windows(6, 1, fusing="uniform").weights(six, 10)[0, 4].item() == pytest.approx(1 / 2)


@pytest.mark.parametrize("offset", ["inside", "circular"])
def test_random_windows_are_the_seeds(offset: str) -> None:
    windows = Windows(16, 4, offset=offset)  # type: ignore[arg-type]
    steps = [windows.at_step(96, step, 7) for step in range(8)]
    assert steps == [windows.at_step(96, step, 7) for step in range(8)]
    assert len({str(step) for step in steps}) > 4, "they move from step to step"
    assert steps != [windows.at_step(96, step, 8) for step in range(8)]


def test_settings_that_cannot_be() -> None:
    with pytest.raises(
        InputError, match="windows of 4 frames cannot overlap by 4. Set 'overlap' below 'window length'"
    ):
        Windows(4, 4)
    with pytest.raises(InputError, match="'stride' is 0"):
        Windows(4, 1, stride=0)


# --- seams -----------------------------------------------------------------------------------------------------------


def test_borders_are_where_a_window_begins_or_ends() -> None:
    assert [i for i, b in enumerate(borders([[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]], 10)) if b] == [2, 3, 5, 6]
    assert [i for i, b in enumerate(borders([[0, 1, 2, 3], [4, 5, 6, 7]], 8)) if b] == [3]
    assert [i for i, b in enumerate(borders([[0, 1, 2, 3], [3, 4, 5, 0]], 6)) if b] == [0, 2, 3], (
        "a window around the end"
    )
    assert [i for i, b in enumerate(borders([[0, 1, 2], [2, 3, 4], [3, 4, 5], [0, 2, 4], [1, 3, 5]], 6)) if b] == [
        1,
        2,
        4,
    ]
    assert not any(borders([list(range(6))], 6))


def test_seams_of_a_clip_that_jumps_at_its_borders() -> None:
    """Frames that go on by 1, and by 3 where a window ends."""
    values = torch.tensor([0.0, 1, 2, 5, 6, 7, 10, 11, 12]).view(-1, 1, 1, 1).expand(-1, 4, 2, 2)
    windows = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    seams = measure_seams(values, windows)
    assert seams == Seams(across=3.0, inside=1.0, pairs=2, windows=3)
    assert seams.ratio == 3.0
    text = seams_report(seams, Windows(3, 0, fusing="uniform"), 9)
    assert text == (
        "Seams: 9 frames in 3 windows of 3, overlap 0, uniform fusing. Mean change between neighbouring frames, in latent units: "
        "3 across 2 borders, 1 inside, 3.00 times as much."
    )


def test_seams_where_there_is_nothing_to_compare() -> None:
    clip = torch.zeros(4, 4, 2, 2)
    assert (
        seams_report(measure_seams(clip, [[0, 1, 2, 3]]), Windows(8, 4), 4)
        == "Seams: 4 frames in one window, no borders."
    )
    single = measure_seams(torch.zeros(1, 4, 2, 2), [[0]])
    assert single == Seams(None, None, 0, 1)
    still = measure_seams(clip, [[0, 1], [2, 3]])
    assert still.ratio is None and "0 across 1 borders, 0 inside." in seams_report(still, Windows(2, 0), 4)
    dense = measure_seams(clip, [[0], [1], [2], [3]])
    assert "all of the 3 pairs of frames are parted" in seams_report(dense, Windows(1, 0), 4)
