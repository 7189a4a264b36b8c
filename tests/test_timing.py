"""A track's time: frames in their order, moments between them by SciPy, loops without a jump."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.interpolate import interp1d
from scipy.spatial.transform import Rotation, Slerp
from small_head import random_track, small_head

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.fit.keyframes import MAX_FRAMES
from comfyui_flow3d.flow3d.fit.timing import ping_pong, resample, retime, reverse, seamless_loop, speed, trim
from comfyui_flow3d.flow3d.track import DETECTED, HELD, INTERPOLATED

HEAD = small_head()
PER_FRAME = (
    "expression", "joints", "rotation", "translation", "confidence", "state", "frame_offsets", "landmark_offsets",
)  # fmt: skip


def whole_track(frames, seed=4, fps=30.0):
    """A random track with every field that follows time."""
    g = torch.Generator().manual_seed(seed)
    return replace(
        random_track(HEAD, frames, seed), fps=fps, state=torch.randint(0, 3, (frames,), generator=g),
        frame_offsets=torch.randn(frames, 8, 3, generator=g).double(),
        landmark_offsets=torch.randn(frames, 478, 3, generator=g).double(),
    )  # fmt: skip


TRACK = whole_track(10)


def same_frames(track, frames, of=TRACK):
    """The track is these frames of the other, bit for bit."""
    assert len(track) == len(frames)
    for name in PER_FRAME:
        assert torch.equal(getattr(track, name), getattr(of, name)[frames]), name
    for name in ("shape", "camera", "joint_names", "head_name", "head_digest"):
        assert getattr(track, name) is getattr(of, name)


def angles_between(a, b):
    return (Rotation.from_rotvec(a.reshape(-1, 3).numpy()).inv() * Rotation.from_rotvec(b.reshape(-1, 3).numpy())).magnitude()


def test_whole_frames_keep_their_bits():
    same_frames(trim(TRACK, 3), list(range(3, 10)))
    same_frames(trim(TRACK, 3, 4), [3, 4, 5, 6])
    same_frames(reverse(TRACK), list(range(9, -1, -1)))
    same_frames(ping_pong(TRACK), [*range(10), *range(8, 0, -1)])
    same_frames(speed(TRACK, 3.0), [0, 3, 6, 9])
    same_frames(resample(TRACK, 15.0), [0, 2, 4, 6, 8])
    for frames in (1, 2):
        same_frames(ping_pong(TRACK[:frames]), list(range(frames)))
    assert speed(TRACK, 1) is resample(TRACK, 30.0) is seamless_loop(TRACK, 0) is TRACK
    assert reverse(TRACK).fps == 30 and resample(TRACK, 15.0).fps == 15 and speed(TRACK, 3.0).fps == 30


@pytest.mark.parametrize(("made", "step"), [
    (resample(TRACK, 48.0), 30 / 48), (resample(TRACK, 23.976), 30 / 23.976), (speed(TRACK, 0.4), 0.4), (speed(TRACK, 1.7), 1.7),
])  # fmt: skip
def test_moments_between_frames(made, step):
    """Oracles: SciPy's linear interpolation and Slerp, with all moments inside the clip and none missing."""
    at = np.arange(len(made)) * step
    assert at[-1] <= 9 + 1e-6 < at[-1] + step
    at = at.clip(0, 9)
    for name in ("expression", "translation", "confidence", "frame_offsets", "landmark_offsets"):
        expected = interp1d(np.arange(10), getattr(TRACK, name).numpy(), axis=0)(at)
        assert np.allclose(getattr(made, name).numpy(), expected, atol=1e-9), name
    for got, given in [(made.rotation, TRACK.rotation)] + [(made.joints[:, j], TRACK.joints[:, j]) for j in range(4)]:
        expected = Slerp(np.arange(10), Rotation.from_rotvec(given.numpy()))(at)
        assert (expected.inv() * Rotation.from_rotvec(got.numpy())).magnitude().max() < 1e-6


def test_a_moment_is_as_certain_as_both_of_its_frames():
    track = replace(TRACK[:3], state=torch.tensor([DETECTED, DETECTED, HELD]))
    assert speed(track, 0.5).state.tolist() == [DETECTED, DETECTED, DETECTED, HELD, HELD]
    track = replace(TRACK[:3], state=torch.tensor([DETECTED, INTERPOLATED, DETECTED]))
    assert speed(track, 0.5).state.tolist() == [DETECTED, INTERPOLATED, INTERPOLATED, INTERPOLATED, DETECTED]


def test_there_and_back():
    """A whole multiple of the frame rate, undone, gives every frame's bits back."""
    same_frames(resample(resample(TRACK, 90.0), 30.0), list(range(10)))
    film = resample(whole_track(50, fps=25.0), 24.0)
    assert len(film) == int(49 * 24 / 25) + 1


def test_rotations_take_the_shortest_way():
    """From 170 to -170 degrees about one axis is 20 degrees, not 340."""
    turn = torch.tensor([[0.0, 170.0, 0.0], [0.0, -170.0, 0.0]]).double().deg2rad()
    middle = speed(replace(TRACK[:2], rotation=turn), 0.5).rotation[1]
    assert np.allclose(np.degrees(Rotation.from_rotvec(middle.numpy()).magnitude()), 180)


def test_a_loop_has_no_jump():
    """A steady drift, which would jump by its whole length, closes with steps that are no larger than the fade needs."""
    t = torch.arange(60).double()
    drift = torch.stack([0.01 * t, 0.5 * torch.sin(t / 9), 0 * t], -1)
    track = replace(whole_track(60), rotation=drift, translation=drift + torch.tensor([0.0, 0.0, 1.0]).double())
    loop = seamless_loop(track, 20)
    assert len(loop) == 40
    same_frames(loop[:20], list(range(20, 40)), track)
    for values in (loop.rotation, loop.translation):
        steps = (torch.cat([values, values[:1]])[1:] - torch.cat([values, values[:1]])[:-1]).norm(dim=-1)
        assert (track.translation[59] - track.translation[0]).norm() > 0.3 and steps.max() < 0.12
    # The fade: at its middle both ends weigh half. With 21 steps, step k weighs as the smoothstep at k / 21.
    w = np.arange(1, 21) / 21
    w = w * w * (3 - 2 * w)
    assert np.allclose(w + w[::-1], 1)
    mixed = (1 - w)[:, None] * track.translation[40:].numpy() + w[:, None] * track.translation[:20].numpy()
    assert np.allclose(loop.translation[20:].numpy(), mixed)
    ends = zip(track.rotation[40:].numpy(), track.rotation[:20].numpy(), w, strict=True)
    turns = [Slerp([0, 1], Rotation.from_rotvec([a, b]))(x).as_rotvec() for a, b, x in ends]
    assert angles_between(loop.rotation[20:], torch.tensor(np.stack(turns))).max() < 1e-6


def test_all_in_one_order():
    """Trim, speed, frame rate, direction, loop."""
    made = retime(TRACK, start=1, frames=9, factor=2.0, fps=60.0, direction="reverse")
    steps = reverse(resample(speed(trim(TRACK, 1, 9), 2.0), 60.0))
    same_frames(made, list(range(len(steps))), steps)
    assert made.fps == 60 and torch.equal(made.rotation[-1], TRACK.rotation[1])
    same_frames(retime(TRACK), list(range(10)))
    assert len(retime(TRACK, direction="ping-pong", overlap=5)) == 13


@pytest.mark.parametrize(("call", "says"), [
    (lambda: trim(TRACK, 10), "10 frames, 0 to 9.*frame 10"), (lambda: trim(TRACK, -1), "frame -1"),
    (lambda: trim(TRACK, 4, 7), "6 frames from frame 4 on.*cut to 7"), (lambda: trim(TRACK, 0, 0), "cut to 0"),
    (lambda: speed(TRACK, 0.0), "speed is 0.0"), (lambda: speed(TRACK, float("nan")), "speed is nan"),
    (lambda: resample(TRACK, float("inf")), "frame rate is inf"), (lambda: resample(TRACK, -5.0), "frame rate is -5"),
    (lambda: speed(TRACK, 1e-7), f"{MAX_FRAMES} are the most"), (lambda: seamless_loop(TRACK, 6), "at least 12 frames; this has 10"),
    (lambda: seamless_loop(TRACK, -1), "cross-fade over -1"), (lambda: retime(TRACK, direction="up"), "no direction 'up'"),
])  # fmt: skip
def test_what_cannot_be(call, says):
    with pytest.raises(InputError, match=says):
        call()
