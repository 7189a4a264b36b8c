"""Frames of a clip in which no face was found."""

from dataclasses import replace

import torch

from ..track import DETECTED, HELD, HeadTrack


def held(track: HeadTrack) -> HeadTrack:
    """The track with every frame that was not detected showing the last detected one; before the first, the first.

    Held frames keep their confidence. Returns the track itself where every frame, or none, was detected.
    """
    assert track.state is not None
    detected = track.state == DETECTED
    if detected.all() or not detected.any():
        return track
    frames = torch.arange(len(track))
    last = torch.where(detected, frames, -1).cummax(0).values
    last[last < 0] = int(frames[detected][0])
    return replace(
        track[last], confidence=track.confidence, state=torch.where(detected, track.state, torch.full_like(track.state, HELD))
    )
