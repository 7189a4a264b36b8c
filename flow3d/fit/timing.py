"""A track's time: cut, turned round, looped, faster, slower, at another frame rate."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputError
from ..track import HeadTrack
from .between import between
from .keyframes import MAX_FRAMES

DIRECTIONS = ("forward", "reverse", "ping-pong")
_EXACT = 1e-6  # frames: a moment this near to a frame is that frame


def trim(track: HeadTrack, start: int = 0, frames: int | None = None) -> HeadTrack:
    """`frames` frames (None: all) from frame `start` on. Raises InputError where the track has not so many."""
    rest = len(track) - start
    if not 0 <= start < len(track):
        raise InputError(f"The track has {len(track)} frames, 0 to {len(track) - 1}: it cannot start at frame {start}.")
    if frames is not None and not 1 <= frames <= rest:
        raise InputError(f"The track has {rest} frames from frame {start} on: it cannot be cut to {frames}.")
    return track[start : None if frames is None else start + frames]


def reverse(track: HeadTrack) -> HeadTrack:
    """The last frame first."""
    return track[list(range(len(track) - 1, -1, -1))]


def ping_pong(track: HeadTrack) -> HeadTrack:
    """There and back, 2 T - 2 frames: neither end is doubled, also where it repeats."""
    return track[[*range(len(track)), *range(len(track) - 2, 0, -1)]]


def at(track: HeadTrack, moments: Tensor) -> HeadTrack:
    """The track at `moments` (n,) in frames, 0 to T - 1, fractions between two frames; whole ones bit for bit."""
    near = moments.round()
    moments = torch.where((moments - near).abs() < _EXACT, near, moments)
    before = moments.floor().long()
    after = (before + 1).clamp(max=len(track) - 1)
    return between(track[before], track[after], moments - before)


def _stepped(track: HeadTrack, step: float) -> HeadTrack:
    """Every `step`-th moment of the track, in frames, from the first on and none beyond the last."""
    count = math.floor((len(track) - 1) / step + _EXACT) + 1
    if count > MAX_FRAMES:
        raise InputError(f"That makes {count} frames; {MAX_FRAMES} are the most. Raise the speed, or take fewer frames.")
    moments = torch.arange(count, dtype=torch.float64, device=track.rotation.device) * step
    return at(track, moments.clamp(max=len(track) - 1))


def resample(track: HeadTrack, fps: float) -> HeadTrack:
    """The same motion in the same time at `fps` frames a second. Raises InputError for a rate that is none."""
    _positive("frame rate", fps)
    return track if fps == track.fps else replace(_stepped(track, track.fps / fps), fps=fps)


def speed(track: HeadTrack, factor: float) -> HeadTrack:
    """`factor` times as fast at the same frame rate. Raises InputError for a factor that is not above 0."""
    _positive("speed", factor)
    return track if factor == 1 else _stepped(track, factor)


def seamless_loop(track: HeadTrack, overlap: int) -> HeadTrack:
    """A loop without a jump: the last `overlap` frames fade into the first, T - overlap frames remain.

    It begins with frame `overlap`; its end is the old end fading into the frames before that. Raises InputError where
    the track is shorter than two overlaps.
    """
    if overlap == 0:
        return track
    if overlap < 0 or 2 * overlap > len(track):
        raise InputError(
            f"A cross-fade over {overlap} frames needs a track of at least {2 * abs(overlap)} frames; this has {len(track)}. "
            f"Use {len(track) // 2} or less."
        )
    n = len(track) - overlap
    t = torch.arange(1, overlap + 1, dtype=torch.float64, device=track.rotation.device) / (overlap + 1)
    fade = torch.cat([torch.zeros(n - overlap).to(t), t * t * (3 - 2 * t)])
    # Frame k of the loop is frame overlap + k of the track; at its end it fades into frame overlap + k - n.
    start = [max(overlap + k - n, 0) for k in range(n)]
    return between(track[overlap:], track[start], fade)


def retime(
    track: HeadTrack,
    start: int = 0,
    frames: int | None = None,
    factor: float = 1.0,
    fps: float | None = None,
    direction: str = "forward",
    overlap: int = 0,
) -> HeadTrack:
    """All of it in this order: trim, speed, frame rate, direction, loop. Raises InputError where one of them does."""
    if direction not in DIRECTIONS:
        raise InputError(f"There is no direction '{direction}'. Choose one of {', '.join(DIRECTIONS)}.")
    track = speed(trim(track, start, frames), factor)
    track = track if fps is None else resample(track, fps)
    track = {"forward": lambda t: t, "reverse": reverse, "ping-pong": ping_pong}[direction](track)
    return seamless_loop(track, overlap)


def _positive(what: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"The {what} is {value}; it must be above 0.")
