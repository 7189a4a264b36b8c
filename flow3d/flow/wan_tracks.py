"""Tracks in the forms that ComfyUI's video nodes read: TRACKS, and the JSON text of WanTrackToVideo.

Both count pixels from the picture's left upper corner, so that pixel centres are at +0.5, as here.
"""

import json
import math

import numpy as np
import torch
from numpy.typing import NDArray

from .tracks import PointTracks

SAMPLES = 121
"""Points that WanTrackToVideo reads of each track, whatever the video's length: five seconds at 24 a second."""
_FAR = 8.0
"""Sides of the picture: where the text puts hidden points. The node's weights fade with the distance and are 0 there."""


def wan_length(frames: int) -> int:
    """The longest video of 4 n + 1 pictures, which is what Wan makes, within so many frames."""
    return (frames - 1) // 4 * 4 + 1


def as_tracks(tracks: PointTracks) -> dict[str, torch.Tensor]:
    """ComfyUI's TRACKS: `track_path` (T, N, 2) float32 in pixels, `track_visibility` (T, N) bool."""
    return {"track_path": tracks.pixels.float().cpu(), "track_visibility": tracks.visible.cpu()}


def samples_read(length: int) -> NDArray[np.int64]:
    """(length,) which of the 121 samples WanTrackToVideo takes for each picture: it repeats the last 120 of them until they
    are a multiple of the pictures after the first, and takes every so-manieth."""
    moves = length - 1
    common = math.gcd(SAMPLES - 1, moves)
    every, repeats = (SAMPLES - 1) // common, max(moves // common, 1)
    later = 1 + (1 + every * np.arange(moves)) // repeats
    return np.concatenate([[0], later.clip(max=SAMPLES - 1)])


def as_json(tracks: PointTracks, width: int, height: int) -> str:
    """The text for WanTrackToVideo: for each point a list of 121 places {"x", "y"} in pixels.

    The samples that the node reads for a video of this length hold its pictures exactly; the others lie between. The form has
    no visibility: a hidden point is put far outside the picture, where the node gives it no weight.

    Args:
        width, height: of the pictures, pixels.
    """
    sample, picture = np.unique(samples_read(len(tracks.pixels)), return_index=True)
    time = np.interp(np.arange(SAMPLES), sample, picture)
    before, after = np.floor(time).astype(int), np.ceil(time).astype(int)
    pixels, visible = tracks.pixels.double().cpu().numpy(), tracks.visible.cpu().numpy()
    share = (time - before)[:, None, None]
    places = pixels[before] * (1 - share) + pixels[after] * share
    places[~(visible[before] & visible[after])] = -_FAR * max(width, height)
    rows = places.transpose(1, 0, 2).round(2).tolist()
    return json.dumps([[{"x": x, "y": y} for x, y in row] for row in rows], separators=(",", ":"))
