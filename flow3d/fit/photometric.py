"""The photometric stage: shape, expression and pose of a track refined against the pictures themselves.

Skin is matt, of a smooth colour (see `albedo.py`), under distant light (see `render/light.py`), and only what lies inside the
silhouette counts: where that is, the landmarks tell. Shape, light and albedo are solved on a photo or on a clip's key frames
together with their expressions and poses, coarse to fine; the other frames follow one by one.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from ..head.model import HeadModel
from ..track import HeadTrack
from .anchor import Anchor
from .appearance import FaceRender
from .faces import Face, check_picture
from .levenberg_marquardt import Deviations, Pose, Shared
from .offsets import landmark_residuals, personal_offsets
from .photo_view import View, face_square, view
from .photometric_problem import Problem, State, deviations, first_look
from .smoothing import interpolate
from .solved import SHAPE_FRAMES, Solved, spread

Progress = Callable[[int, int], None]
"""Called with (done, total); it may raise to cancel."""

_SIDES = (64, 128)  # pixels of the face's square, coarse to fine
_KEY_FRAMES = 6  # whose pictures tell of shape, light and albedo
_LOOK_STEPS, _STEPS, _FRAME_STEPS = 4, 5, 3
_LEAST_PIXELS = 300  # of the face at the finest size


@dataclass(frozen=True, eq=False)
class PhotometricReport:
    """How much better the head explains the pictures."""

    residual_before: float  # median colour error (linear, 0..1) of the landmark fit, with light and albedo fitted to it
    residual_after: float
    error_before: float  # mean landmark error, hundredths of the distance between the eyes
    error_after: float
    frames: int  # that were refined
    left: int  # frames that show too little of the face

    def __str__(self) -> str:
        text = (
            f"against the picture: colour error {100 * self.residual_before:.2f}% to {100 * self.residual_after:.2f}%, landmark "
            f"error {self.error_before:.2f}% to {self.error_after:.2f}% of the eye distance"
        )
        return text + (f"; {self.left} frames show too little skin and keep the landmark fit" if self.left else "")


def refine_photometric(
    head: HeadModel,
    track: HeadTrack,
    images: Iterable[NDArray[np.uint8]],
    faces: Sequence[Face | None],
    progress: Progress | None = None,
    render: FaceRender | None = None,
) -> tuple[HeadTrack, PhotometricReport]:
    """Refine the fit of a photo or a clip against its pictures.

    Args:
        track: as `fit_track` gave it for `faces`, which are None where none was found.
        images: (H, W, 3) uint8 RGB, the picture of each frame as the track's camera took it; a clip's are gone through twice.
        progress: told at least once for each piece of work of a picture, also where no step is done yet, so that it may cancel.
        render: the head's, where it is at hand.

    Returns:
        The track with shape, expression, joints, rotation, translation, offsets, error and deviations brought up to date in
        the frames that show enough of the face, the others as they were, and with `texture` (off the face it is the skin's
        mean colour) and `light`; and how much better the pictures are explained.

    Raises:
        InputError: faces that are not the track's, pictures that are not the camera's, or none that shows enough skin.
    """
    given = _solved(head, track, faces)
    render = render or FaceRender(head)
    done, keys = 0, spread(len(given.at), _KEY_FRAMES)
    total = len(_SIDES) * _STEPS + (len(given.at) - len(keys))

    def busy() -> None:
        if progress:
            progress(done, total)

    def step() -> None:
        nonlocal done
        done += 1
        busy()

    pictures = _pictures(track, images, given.at[keys], busy)
    enough = torch.tensor([_shows_enough(render, track, given, int(k), p) for k, p in zip(keys, pictures, strict=True)])
    if not enough.any():
        raise InputError(
            "Photometric fit: hardly any skin of the face is seen, or the picture is wholly over- or underexposed. Use a larger, "
            "less hidden face, or leave the photometric stage off."
        )
    keys, chosen = keys[enough], [p for p, e in zip(pictures, enough, strict=True) if e]
    problem, state, before = _solve_keys(render, track, given, keys, chosen, step, busy)
    deviation = deviations(problem.system(state, problem.sights(state)), len(state.shape))
    x, refined = _solve_others(render, track, given, state, keys, images, step, busy)
    new = replace(given, shared=Shared(state.shape, given.shared.focal), x=x)
    report = PhotometricReport(
        residual_before=before,
        residual_after=problem.typical_residual(state),
        error_before=float(_error(given)[refined].mean()),
        error_after=float(_error(new)[refined].mean()),
        frames=int(refined.sum()),
        left=int((~refined).sum()),
    )
    track = _updated(head, track, new, given.at[keys], deviation)
    return replace(track, texture=render.texture(state.look), light=state.look.light.float().cpu()), report


def _solved(head: HeadModel, track: HeadTrack, faces: Sequence[Face | None]) -> Solved:
    """The landmark problem at the track's solution."""
    found = [f for f in faces if f is not None]
    if len(faces) != len(track) or not found:
        raise InputError(
            f"Photometric fit: {len(found)} faces are given for {len(faces)} frames, the track has {len(track)}. Fit the "
            "track to these faces first."
        )
    return Solved.of(head, track, faces)


def _error(given: Solved) -> Tensor:
    return given.solver.error(given.shared, given.x, given.seen)


def _checked(track: HeadTrack, image: NDArray[np.uint8], frame: int) -> NDArray[np.uint8]:
    check_picture(image)
    if image.shape[:2] != (track.camera.height, track.camera.width):
        raise InputError(
            f"Photometric fit: the picture of frame {frame} is {image.shape[1]} x {image.shape[0]}, the track's camera takes "
            f"{track.camera.width} x {track.camera.height}. Give the pictures that the track was fitted to."
        )
    return image


def _pictures(
    track: HeadTrack, images: Iterable[NDArray[np.uint8]], frames: Tensor, busy: Callable[[], None]
) -> list[NDArray[np.uint8]]:
    """Those of some frames. Raises InputError where they end too early."""
    wanted, last = set(frames.tolist()), int(frames.max())
    out = []
    for i, image in enumerate(images):
        busy()
        if i in wanted:
            out.append(_checked(track, image, i))
        if i == last:
            return out
    raise _too_few(track)


def _too_few(track: HeadTrack) -> InputError:
    return InputError(f"Photometric fit: there are fewer pictures than the {len(track)} frames of the track. Give all of them.")


def _face_view(render: FaceRender, track: HeadTrack, given: Solved, k: int, image: NDArray[np.uint8], side: int) -> View:
    """The face as the landmark fit has it in the k-th frame with a face."""
    vertices = render.vertices(given.shared.shape, given.x[k : k + 1])[render.painted]
    return view(image, track.camera, face_square(track.camera.project(vertices)), side)


def _shows_enough(render: FaceRender, track: HeadTrack, given: Solved, k: int, image: NDArray[np.uint8]) -> bool:
    v = _face_view(render, track, given, k, image, _SIDES[-1])
    return len(render.pixels(v, given.shared.shape, given.x[k : k + 1]).places) >= _LEAST_PIXELS


def _solve_keys(
    render: FaceRender,
    track: HeadTrack,
    given: Solved,
    keys: Tensor,
    pictures: list[NDArray[np.uint8]],
    step: Callable[[], None],
    busy: Callable[[], None],
) -> tuple[Problem, State, float]:
    """Everything from the key frames' pictures; and the colour error before their geometry moved."""
    some = torch.cat([keys, spread(len(given.at), SHAPE_FRAMES)]).unique()
    anchor = Anchor.at(given.solver, given.shared, given.x[some], given.seen[some])
    anchor = anchor.marginal(torch.searchsorted(some, keys))
    state = State(given.shared.shape, anchor.x, first_look(render))
    for side in _SIDES:
        views = [_face_view(render, track, given, int(k), p, side) for k, p in zip(keys, pictures, strict=True)]
        problem = Problem(render, anchor, views, busy)
        start = problem.look_steps(replace(state, shape=given.shared.shape, x=anchor.x), _LOOK_STEPS)
        before = problem.typical_residual(start)
        if side == _SIDES[0]:
            state = start
        state = problem.all_steps(state, _STEPS, step)
    return problem, state, before


def _solve_others(
    render: FaceRender,
    track: HeadTrack,
    given: Solved,
    solved: State,
    keys: Tensor,
    images: Iterable[NDArray[np.uint8]],
    step: Callable[[], None],
    busy: Callable[[], None],
) -> tuple[Pose, Tensor]:
    """The poses of all frames with a face, and which of them (n,) were refined."""
    x = Pose(*(getattr(given.x, name).clone() for name in Pose.__dataclass_fields__))
    refined = torch.zeros(len(given.at), dtype=torch.bool)
    _put(x, keys, solved.x)
    refined[keys] = True
    if len(keys) == len(given.at):
        return x, refined
    others = {frame: k for k, frame in enumerate(given.at.tolist()) if not refined[k]}
    for i, image in zip(range(max(others) + 1), images, strict=False):
        k = others.pop(i, None)
        if k is None:
            continue
        step()
        if not _shows_enough(render, track, given, k, _checked(track, image, i)):
            continue
        one = slice(k, k + 1)
        anchor = Anchor.at(given.solver, given.shared, given.x[one], given.seen[one])
        problem = Problem(render, anchor, [_face_view(render, track, given, k, image, _SIDES[-1])], busy)
        state = problem.frame_steps(replace(solved, x=given.x[one]), _FRAME_STEPS)
        _put(x, torch.tensor([k]), state.x)
        refined[k] = True
    if others:
        raise _too_few(track)
    return x, refined


def _put(x: Pose, at: Tensor, values: Pose) -> None:
    for name in Pose.__dataclass_fields__:
        getattr(x, name)[at] = getattr(values, name)


def _updated(head: HeadModel, track: HeadTrack, new: Solved, keys: Tensor, deviation: Deviations) -> HeadTrack:
    """The track with the refined frames' values, and with what follows from them."""

    def put(old: Tensor, values: Tensor) -> Tensor:
        return old.clone().index_copy(0, new.at, values.to(old))

    shape, x = new.shared.shape, new.x
    offsets, landmark_offsets, error = track.offsets, track.landmark_offsets, track.error
    if offsets is not None:
        offsets = personal_offsets(head, track.camera, shape, x, new.seen)
    if landmark_offsets is not None:
        landmark_offsets = put(landmark_offsets, landmark_residuals(head, track.camera, shape, x, new.seen))
    return replace(
        track,
        shape=torch.cat([shape.to(track.shape), track.shape[len(shape) :]]),
        expression=put(track.expression, x.expression),
        joints=put(track.joints, x.joints),
        rotation=put(track.rotation, x.rotation),
        translation=put(track.translation, x.translation),
        offsets=offsets,
        landmark_offsets=landmark_offsets,
        error=None if error is None else put(error, _error(new)),
        rotation_deviation=interpolate(deviation.rotation, keys, len(track)).float(),
        translation_deviation=interpolate(deviation.translation, keys, len(track)).float(),
        shape_deviation=deviation.shape.float(),
    )
