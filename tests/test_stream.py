"""A face fitted frame by frame, against heads whose truth is known and against the fit of the whole clip."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_fit import told, turn_between

from comfyui_flow3d.benchmarks.synthetic_heads import camera, detections, person
from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.fit.faces import Face
from comfyui_flow3d.flow3d.fit.one_euro import OneEuro
from comfyui_flow3d.flow3d.fit.solve import fit_track
from comfyui_flow3d.flow3d.fit.stream import Filters, StreamFit
from comfyui_flow3d.flow3d.head.model import HeadModel
from comfyui_flow3d.flow3d.track import DETECTED, HELD, HeadTrack

CAMERA, RATE, FIRST = camera(), 30.0, 8
NO_FILTER = Filters(*[OneEuro(1e9, 0)] * 5)


def streamed(head: HeadModel, faces: list[Face], filters: Filters | None = None) -> list[HeadTrack]:
    stream = StreamFit(head, CAMERA, FIRST, filters)
    tracks = [stream.add(face, i / RATE) for i, face in enumerate(faces)]
    return [track for track in tracks if track is not None]


def all_of(tracks: list[HeadTrack], name: str) -> torch.Tensor:
    return torch.cat([getattr(track, name) for track in tracks])


@pytest.fixture(scope="module")
def moving(open_head: HeadModel) -> tuple[HeadTrack, list[Face]]:
    truth = person(open_head, np.random.default_rng(1), 60)
    return truth, told(open_head, truth, 0.5)


@pytest.fixture(scope="module")
def plain(open_head: HeadModel, moving: tuple[HeadTrack, list[Face]]) -> list[HeadTrack]:
    """The moving head without filters."""
    return streamed(open_head, moving[1], NO_FILTER)


@pytest.fixture(scope="module")
def steadied(open_head: HeadModel, moving: tuple[HeadTrack, list[Face]]) -> list[HeadTrack]:
    return streamed(open_head, moving[1])


def test_each_frame_is_a_track(moving: tuple[HeadTrack, list[Face]], steadied: list[HeadTrack], open_head: HeadModel) -> None:
    assert len(steadied) == 60 and all(len(track) == 1 for track in steadied)
    for track in steadied:
        assert track.state is not None and track.state[0] == DETECTED
        assert track.vertices(open_head).isfinite().all() and track.rotation.dtype == torch.float32
    assert all_of(steadied, "confidence").min() > 0.8 and all_of(steadied, "error").max() < 2


def test_the_shape_is_that_of_the_first_faces(
    open_head: HeadModel, moving: tuple[HeadTrack, list[Face]], steadied: list[HeadTrack]
) -> None:
    known, _ = fit_track(open_head, moving[1][:FIRST], CAMERA)
    assert all(torch.equal(track.shape, known.shape) for track in steadied[FIRST - 1 :])
    first, _ = fit_track(open_head, moving[1][:1], CAMERA)
    assert torch.equal(steadied[0].shape, first.shape)


def test_it_follows_a_moving_head(
    open_head: HeadModel, moving: tuple[HeadTrack, list[Face]], plain: list[HeadTrack], steadied: list[HeadTrack]
) -> None:
    truth, faces = moving
    turned, smooth, real = all_of(plain, "rotation"), all_of(steadied, "rotation"), truth.rotation
    clip, _ = fit_track(open_head, faces, CAMERA)
    assert np.median(turn_between(turned, clip.rotation)[FIRST:]) < 2.5
    assert np.median(turn_between(smooth, real)[FIRST:]) < np.median(turn_between(turned, real)[FIRST:]) + 0.5
    expression = (all_of(steadied, "expression") - truth.expression)[FIRST:].abs().mean()
    assert expression < 0.4 * truth.expression.abs().mean()


def test_it_lags_by_less_than_a_frame(
    moving: tuple[HeadTrack, list[Face]], plain: list[HeadTrack], steadied: list[HeadTrack]
) -> None:
    """The filtered turns lie nearest to the unfiltered ones of the same moment, not of an earlier one."""
    turned, smooth = all_of(plain, "rotation")[FIRST:], all_of(steadied, "rotation")[FIRST:]
    n = len(turned)
    away = [np.median(turn_between(smooth[3:], turned[3 - k : n - k])) for k in range(4)]
    assert int(np.argmin(away)) == 0, away
    assert np.median(turn_between(turned[1:], turned[:-1])) > 0.8  # degrees a frame: it does move


def test_a_still_head_is_still(open_head: HeadModel) -> None:
    """One face again and again with half a pixel of noise."""
    still = person(open_head, np.random.default_rng(3), 1)[[0] * 40]
    faces = detections(open_head, still, np.random.default_rng(1), 0.5)
    shaken, steady = (streamed(open_head, faces, filters)[20:] for filters in (NO_FILTER, None))

    def spread(tracks: list[HeadTrack], name: str) -> torch.Tensor:
        return all_of(tracks, name).std(0).norm()

    assert torch.rad2deg(spread(steady, "rotation")) < 0.1
    assert all_of(steady, "translation").std(0)[:2].max() < 0.3e-3
    for name in ("rotation", "translation", "landmark_offsets"):
        assert spread(steady, name) < 0.6 * spread(shaken, name), name


def test_a_face_lost_and_found_elsewhere(open_head: HeadModel, moving: tuple[HeadTrack, list[Face]]) -> None:
    truth, _ = moving
    there = replace(
        truth[40:48], translation=truth.translation[40:48] + torch.tensor([0.08, -0.04, 0.1]),
        rotation=truth.rotation[40:48] * 0 + torch.tensor([0.1, -0.5, 0.2]),
    )  # fmt: skip
    before, after = told(open_head, truth[:12]), told(open_head, there)
    stream = StreamFit(open_head, CAMERA, FIRST)
    assert stream.add(None, 0.0) is None
    tracks = [stream.add(face, (1 + i) / RATE) for i, face in enumerate(before)]
    gone = [stream.add(None, (13 + i) / RATE) for i in range(20)]
    last = tracks[-1]
    for track in gone:
        assert track is not None and last is not None and track.state is not None and track.confidence is not None
        assert track.state[0] == HELD and track.confidence[0] == 0
        assert all(torch.equal(getattr(track, n), getattr(last, n)) for n in ("rotation", "translation", "expression", "shape"))
    back = [stream.add(face, (33 + i) / RATE) for i, face in enumerate(after)]
    for i, track in enumerate(back):
        assert track is not None and track.state is not None and track.state[0] == DETECTED
        assert turn_between(track.rotation, there.rotation[i : i + 1])[0] < 4
        drift = (track.translation - there.translation[i : i + 1]) / there.translation[i, 2]
        assert drift[:, :2].norm() < 0.01  # of the distance, which the shape decides


def test_a_dropped_frame_is_no_jump(open_head: HeadModel, moving: tuple[HeadTrack, list[Face]], steadied: list[HeadTrack]) -> None:
    stream = StreamFit(open_head, CAMERA, FIRST)
    dropped = [stream.add(None if i == 20 else face, i / RATE) for i, face in enumerate(moving[1][:30])]
    assert dropped[21] is not None and dropped[29] is not None
    assert turn_between(dropped[21].rotation, steadied[21].rotation)[0] < 1.0
    assert turn_between(dropped[29].rotation, steadied[29].rotation)[0] < 0.3


@pytest.mark.parametrize("time", [0.5, 0.2, -1.0, float("nan"), float("inf")])
def test_times_that_do_not_go_on(open_head: HeadModel, moving: tuple[HeadTrack, list[Face]], time: float) -> None:
    stream = StreamFit(open_head, CAMERA, FIRST)
    stream.add(None, 0.1)
    first = stream.add(moving[1][0], 0.5)
    for face in (moving[1][1], None):
        with pytest.raises(InputError, match="later time"):
            stream.add(face, time)
    held = stream.add(None, 0.6)  # the refused frames have left nothing behind
    assert first is not None and held is not None and torch.equal(held.rotation, first.rotation)


def test_other_points(open_head: HeadModel, moving: tuple[HeadTrack, list[Face]]) -> None:
    stream = StreamFit(open_head, CAMERA, 1)
    stream.add(moving[1][0], 0.0)
    sparse = Face.of68(np.random.default_rng(0).uniform(100, 400, (68, 2)))
    with pytest.raises(InputError, match="other points than the first ones"):
        stream.add(sparse, 0.1)
    assert stream.add(moving[1][1], 0.1) is not None


def test_a_stream_of_68_points(open_head: HeadModel, moving: tuple[HeadTrack, list[Face]]) -> None:
    truth, _ = moving
    marks = open_head.landmarks68
    assert marks is not None
    points = CAMERA.project(marks.on(truth.vertices(open_head, slice(0, 12)), open_head.faces).double()).numpy()
    tracks = streamed(open_head, [Face.of68(p) for p in points])
    away = turn_between(all_of(tracks, "rotation"), truth.rotation[:12])
    assert np.median(away) < 12


def test_a_calibration_on_nothing(open_head: HeadModel) -> None:
    with pytest.raises(InputError, match="Use 1 or more"):
        StreamFit(open_head, CAMERA, 0)
