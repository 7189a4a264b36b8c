"""A face fitted as its frames come in, one at a time.

The shape is solved on the first faces, again whenever there are twice as many, and then stays. Every frame is solved from
where the last one ended and steadied by One-Euro filters: it knows nothing of what comes after, so that a clip is fitted
better by `fit_track`.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from ..camera import Camera
from ..errors import InputError
from ..head.model import HeadModel
from ..rotations import compose, from_matrix, inverse
from ..track import HELD, HeadTrack
from . import priors
from .faces import Face
from .levenberg_marquardt import Pose
from .observations import Observations, observe, with_contour
from .offsets import landmark_residuals
from .one_euro import Filtered, OneEuro, filtered, filtered_rotation
from .solve import fit_track
from .solved import Solved

_LEAST_LANDMARKS = 8  # that the first faces had too
_STEPS, _FIRST_STEPS = 2, 6  # of the solver: from the last frame, and from a first guess
_AWAY = 0.5  # seconds after which a face that comes back is not steadied by what it was before
_UNSURE_ERROR = 5.0  # hundredths of the distance between the eyes: an error of this size halves the confidence


@dataclass(frozen=True)
class Filters:
    """How each part of a track is steadied; speeds are those of radians, metres or parts a second."""

    rotation: OneEuro = OneEuro(0.8, 20.0)
    translation: OneEuro = OneEuro(0.8, 150.0)
    expression: OneEuro = OneEuro(2.0, 6.0, 5.0)
    joints: OneEuro = OneEuro(1.5, 8.0, 5.0)
    offsets: OneEuro = OneEuro(2.0, 400.0, 5.0)


@dataclass(frozen=True, eq=False)
class _Calibrated:
    """What the first faces told."""

    solved: Solved
    track: HeadTrack  # their fit
    correction: Tensor | None  # (3,) from the detector's rotations to the fitted ones; None: it tells none


@dataclass(frozen=True, eq=False)
class _Frame:
    """A frame with a face."""

    time: float
    x: Pose  # as it was solved
    filters: dict[str, Filtered]
    track: HeadTrack  # as it was given out


class StreamFit:
    """The fit of one face of a stream.

    Args:
        camera: what takes the pictures. calibration: how many faces the shape is solved on. fps: written into the tracks.

    Raises InputError for a calibration on no face.
    """

    def __init__(
        self, head: HeadModel, camera: Camera, calibration: int = 16, filters: Filters | None = None, fps: float = 25.0
    ) -> None:
        if calibration < 1:
            raise InputError(f"StreamFit: a calibration on {calibration} faces is not possible. Use 1 or more.")
        self.head, self.camera, self.calibration, self.fps = head, camera, calibration, fps
        self.filters = filters or Filters()
        self._first: list[Face] = []
        self._known: _Calibrated | None = None
        self._last: _Frame | None = None
        self._time = -math.inf

    def add(self, face: Face | None, time: float) -> HeadTrack | None:
        """The next frame: its face, None where none was found, and its time in seconds.

        Returns:
            A track of one frame, float32. Without a face it is the last one, HELD and with confidence 0; None where there
            has been no face yet. Its deviations are those of the calibration.

        Raises:
            InputError: a time that is not later than the last frame's; a face of other points than the first ones.
        """
        if not math.isfinite(time) or time <= self._time:
            raise InputError(
                f"StreamFit: a frame at {time:g} s follows one at {self._time:g} s. Give each frame a later time than the one "
                "before."
            )
        if face is None:
            held, self._time = None if self._last is None else _held(self._last.track), time
            return held
        known = self._calibrated(face)
        frame = self._solved(known, _seen(self.head, self.camera, known, face), face, time)
        self._last, self._time = frame, time
        return frame.track

    def _calibrated(self, face: Face) -> _Calibrated:
        """What is known of the head, this face taken into account where it is one of the first."""
        if self._known is None or len(self._first) < self.calibration:
            first = [*self._first, face]
            if len(first) == self.calibration or len(first) & (len(first) - 1) == 0:
                self._known = _calibrated(self.head, self.camera, first)
            self._first = first
        assert self._known is not None
        return self._known

    def _solved(self, known: _Calibrated, seen: Observations, face: Face, time: float) -> _Frame:
        """The frame by itself, from where the last one ended, and then in time."""
        solver, shared = known.solved.solver, known.solved.shared
        follows = self._last is not None and self._last.time == self._time
        start, steps = (self._last.x, _STEPS) if self._last and follows else (solver.start(seen), _FIRST_STEPS)
        x = solver.pose_steps(shared, start, seen, steps)
        seen = with_contour(seen, x.rotation)
        x = solver.frame_steps(shared, x, seen, steps)
        recent = self._last is not None and time - self._last.time <= _AWAY
        filters = self._in_time(self._last.filters if self._last and recent else {}, known, x, seen, time)
        error = solver.error(shared, x, seen)
        steadied: dict[str, Any] = {name: state.value.float() for name, state in filters.items()}
        track = replace(
            known.track[-1:],
            **steadied,
            offsets=None,
            confidence=(face.confidence / (1 + (error / _UNSURE_ERROR) ** 2)).float(),
            error=error.float(),
            fps=self.fps,
        )
        return _Frame(time, x, filters, track)

    def _in_time(
        self, last: dict[str, Filtered], known: _Calibrated, x: Pose, seen: Observations, time: float
    ) -> dict[str, Filtered]:
        """Each part of the frame, filtered, by its name in a track."""
        residual = landmark_residuals(self.head, self.camera, known.solved.shared.shape, x, seen)
        f = self.filters
        return {
            "rotation": filtered_rotation(f.rotation, last.get("rotation"), time, x.rotation),
            "translation": filtered(f.translation, last.get("translation"), time, x.translation),
            "expression": filtered(f.expression, last.get("expression"), time, x.expression),
            "joints": filtered_rotation(f.joints, last.get("joints"), time, x.joints),
            "landmark_offsets": filtered(f.offsets, last.get("landmark_offsets"), time, residual),
        }


def _calibrated(head: HeadModel, camera: Camera, faces: list[Face]) -> _Calibrated:
    """The head as its first faces show it."""
    track, _ = fit_track(head, faces, camera)
    solved = Solved.of(head, track, faces)
    turns = [(t, f.turn(camera)) for t, f in enumerate(faces) if f.matrix is not None]
    correction = None
    if len(turns) > 1:  # the detector measures against a face of its own
        told = from_matrix(torch.stack([torch.from_numpy(turn) for _, turn in turns]))
        between = compose(inverse(told), track.rotation[[t for t, _ in turns]].double())
        correction = torch.from_numpy(Rotation.from_rotvec(between.numpy()).mean().as_rotvec())
    return _Calibrated(solved, track, correction)


def _seen(head: HeadModel, camera: Camera, known: _Calibrated, face: Face) -> Observations:
    """One face as the solver sees it; the detector's rotation counts where it is known how far that is off."""
    seen = observe(head, [face], camera)
    if int(seen.known[:, known.solved.solver.landmarks].sum()) < _LEAST_LANDMARKS:
        raise InputError(
            "StreamFit: the face has other points than the first ones. Use one detector, or a new StreamFit for another."
        )
    if known.correction is None or face.matrix is None:
        return seen
    rotation = compose(seen.rotation, known.correction[None])
    return replace(seen, rotation=rotation, trust=torch.full((1,), priors.ROTATION_TRUST, dtype=torch.float64))


def _held(track: HeadTrack) -> HeadTrack:
    """A frame shown again because there is none."""
    return replace(track, confidence=torch.zeros(1), state=torch.full((1,), HELD))
