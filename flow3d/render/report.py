"""A track as plots and in words: how well it fits, where the head turns and moves, and what the face does."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..fit.angles import pose_angles
from ..fit.arkit import ARKIT, ARKIT_NAMES
from ..head.model import HeadModel
from ..track import HELD, INTERPOLATED, STATE_NAMES, HeadTrack
from .plot import Line, Mark, Panel, plot

_STRONGEST = 5
_STATE_COLOURS = {INTERPOLATED: (255, 200, 87), HELD: (150, 175, 215)}
_SHOWN = 8  # frame numbers in a list


def expression_names(track: HeadTrack, head: HeadModel | None = None) -> tuple[str, ...]:
    """Names of the track's expressions: ARKit's, the head's where it is the track's own, otherwise numbers."""
    count = track.expression.shape[1]
    if track.head_name == ARKIT:
        return ARKIT_NAMES
    if head is not None and len(head.expression_names) == count and track.head_digest in ("", head.digest):
        return head.expression_names
    return tuple(f"expression {i}" for i in range(count))


def strongest(track: HeadTrack, names: Sequence[str], count: int = _STRONGEST) -> list[Line]:
    """The expressions that change most over the clip (in a photo: that are strongest), the first the foremost."""
    values = track.expression.detach().cpu().double().numpy()
    strength = values.std(0) if len(values) > 1 else np.abs(values[0])
    order = np.argsort(-strength, kind="stable")[:count]
    return [Line(names[i], values[:, i]) for i in order if strength[i] > 0]


def track_plot(
    track: HeadTrack, head: HeadModel | None = None, error: NDArray[np.float64] | None = None, width: int = 1024
) -> NDArray[np.uint8]:
    """Plots over time, (H, W, 3) uint8 RGB: error or confidence, pose, place, strongest expressions. Frames that were
    interpolated or held are marked.

    Args:
        head: the track's head model, for the names of its expressions.
        error: (T,) reprojection error in hundredths of the distance between the eyes; None: not known.
        width: pixels.
    """
    angles, place = _angles(track), _place(track)
    panels = [
        _quality(track, error),
        Panel("rotation", "degrees", [Line(n, angles[:, i]) for i, n in enumerate(("yaw", "pitch", "roll"))]),
    ]
    if len(track) > 1:
        moved = 100 * (place - np.median(place, axis=0)) * (1, -1, -1)
        lines = [Line(n, moved[:, i]) for i, n in enumerate(("right", "up", "nearer"))]
        panels.append(Panel("place, from its median", "cm", lines))
    expressions = strongest(track, expression_names(track, head))
    if expressions:
        panels.append(Panel("expressions", "those that tell most", expressions, 0.0))
    state = _state(track)
    marks = [Mark(STATE_NAMES[s], state == s, colour) for s, colour in _STATE_COLOURS.items()]
    title = f"{track.head_name or 'head'}: {_amount(track)}"
    return plot(title, panels, marks, track.fps, width)


def track_summary(track: HeadTrack, head: HeadModel | None = None, error: NDArray[np.float64] | None = None) -> str:
    """The same in words and figures, a fact on a line."""
    angles, place, state = _angles(track), _place(track), _state(track)
    lines = [_amount(track)]
    if error is not None and np.isfinite(error).any():
        worst = int(np.nanargmax(error))
        mean = f"{np.nanmean(error):.2f}% of the eye distance"
        lines.append(f"reprojection error {mean}, worst {error[worst]:.2f}% in frame {worst}")
    lines.append(f"confidence {_confidence(track).mean():.2f}, lowest {_confidence(track).min():.2f}")
    for value in (INTERPOLATED, HELD):
        frames = np.flatnonzero(state == value)
        if len(frames):
            shown = ", ".join(map(str, frames[:_SHOWN])) + (", ..." if len(frames) > _SHOWN else "")
            lines.append(f"{len(frames)} frames {STATE_NAMES[value]} ({shown})")
    lines += [f"{name} {_range(angles[:, i])} degrees" for i, name in enumerate(("yaw", "pitch", "roll"))]
    lines.append(f"distance {_range(100 * place[:, 2])} cm")
    for line in strongest(track, expression_names(track, head)):
        lines.append(f"{line.name} {_range(line.values, 2)}")
    return "\n".join(lines)


def _quality(track: HeadTrack, error: NDArray[np.float64] | None) -> Panel:
    if error is None:
        return Panel("confidence", "detector's score, 0 to 1", [Line("confidence", _confidence(track))], 0.0, 1.0)
    return Panel("reprojection error", "% of the eye distance", [Line("error", np.asarray(error, np.float64))], 0.0)


def _amount(track: HeadTrack) -> str:
    if len(track) == 1:
        return "1 frame"
    return f"{len(track)} frames, {len(track) / track.fps:.2f} s at {track.fps:g} frames per second"


def _range(values: NDArray[np.float64], digits: int = 1) -> str:
    low, high = values.min(), values.max()
    return f"{low:.{digits}f}" if len(values) == 1 else f"{low:.{digits}f} to {high:.{digits}f}"


def _angles(track: HeadTrack) -> NDArray[np.float64]:
    """(T, 3) yaw, pitch, roll in degrees without jumps of a full turn."""
    return np.unwrap(pose_angles(track.rotation.detach().cpu().double()).numpy(), period=360, axis=0)


def _place(track: HeadTrack) -> NDArray[np.float64]:
    return track.translation.detach().cpu().double().numpy()


def _state(track: HeadTrack) -> NDArray[np.int64]:
    assert track.state is not None  # HeadTrack fills it in
    return track.state.cpu().numpy()


def _confidence(track: HeadTrack) -> NDArray[np.float64]:
    assert track.confidence is not None
    return track.confidence.detach().cpu().double().numpy()
