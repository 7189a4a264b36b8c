"""Where a portrait crop lies: from a face's landmarks or a track, steady over a clip.

The crop is made so that a camera of 25 degrees, the default, sees the head's root joint 0.95 m away, as version 2 of the
3D flow's encoding has it; a head then fills about 60% of the crop's height. So a head fitted *on the crop* with the
default field of view stands where the encoding wants it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from .camera import DEFAULT_FIELD_OF_VIEW
from .crop import PortraitCrop
from .errors import InputError
from .fit.faces import Face
from .fit.smoothing import interpolate, smooth
from .head.model import FLIP, HeadModel, Landmarks
from .track import HeadTrack

ONE_BOX, FOLLOW, FOLLOW_AND_ZOOM = MOTIONS = ("one box", "follow", "follow and zoom")
DISTANCE = 0.95
"""Metres from the camera to the root joint of a head in its crop."""

_BEHIND = 0.085  # metres: the head's middle behind the outer corners of the eyes
_FEWEST = 6
_FREE = 0.14  # crop sides that the head may stray from the middle: 0.3 more are its own half
_NATIVE = 0.05  # a crop that is nearer to its output size than this is taken in that size
_MULTIPLE = 8  # sides of a crop in the picture's own pixels are multiples of it, as networks want


class _Numbering(NamedTuple):
    """Which of a detector's landmarks lie where."""

    first: int  # those before it follow the contour that is seen
    nose_base: int  # those above it do not move with the jaw
    eyes: tuple[int, int]  # outer corners


_DENSE, _SPARSE = _Numbering(0, 2, (33, 263)), _Numbering(17, 33, (36, 45))


@dataclass(frozen=True, eq=False)
class HeadPlaces:
    """Where a head is in the pictures of a clip, and how large its crop should be."""

    centre: NDArray[np.float64]  # (T, 2) pixels
    side: NDArray[np.float64]  # (T,) pixels

    def __len__(self) -> int:
        return len(self.side)


def places_of_faces(faces: Sequence[Face | None], head: HeadModel) -> HeadPlaces:
    """One person's head by its detected landmarks; frames without a face are interpolated.

    Args:
        faces: one a frame, in pixels. head: any head with dense landmarks, such as the open head.

    Raises:
        InputError: no face in any frame.
    """
    at = [i for i, face in enumerate(faces) if face is not None]
    found = [face for face in faces if face is not None]
    if not found:
        raise InputError(f"Portrait Crop: no face in any of {len(faces)} frames. Use pictures where the face is larger.")
    dense = _Skull.of(head, head.landmarks_dense, _DENSE)
    if all(face.dense for face in found):
        seen = [dense.place(face.points, face.depth) for face in found]
    else:
        sparse = _Skull.of(head, head.landmarks68, _SPARSE)
        seen = [dense.place(f.points, f.depth) if f.dense else sparse.place(f.points68, _no_depth(f.points68)) for f in found]
    filled = interpolate(torch.tensor(seen, dtype=torch.float64), torch.tensor(at), len(faces)).numpy()
    return HeadPlaces(filled[:, :2], filled[:, 2])


def places_of_track(track: HeadTrack, head: HeadModel) -> HeadPlaces:
    """The head of a track in the pixels of its camera's picture. Raises InputError for a head without landmarks."""
    skull = _Skull.of(head, head.landmarks_dense, _DENSE)
    seen = []
    for t in range(len(track)):
        marks = head.dense.on(track.vertices(head, slice(t, t + 1))[0], head.faces).detach().double().cpu()
        depth = marks[:, 2].numpy()
        seen.append(skull.place(track.camera.project(marks).numpy(), depth * track.camera.focal / depth.mean()))
    return HeadPlaces(np.array(seen)[:, :2], np.array(seen)[:, 2])


@dataclass(frozen=True, eq=False)
class _Skull:
    """The landmarks that the jaw does not move, as a rigid body: less the root joint, with camera axes."""

    points: NDArray[np.float64]  # (L, 3) metres
    index: NDArray[np.int64]  # (L,) which of the head's landmarks
    middle: NDArray[np.float64]  # (3,) metres, what stands in the middle of the crop

    @classmethod
    def of(cls, head: HeadModel, marks: Landmarks | None, numbers: _Numbering) -> "_Skull":
        if marks is None:
            raise InputError(f"Portrait Crop: head model '{head.name}' has no landmarks. Load it with load_head.")
        template, flip = head.template.detach().double().cpu(), np.array(FLIP)
        points = Landmarks(marks.face.cpu(), marks.bary.cpu()).on(template, head.faces.cpu()).numpy()
        root = (head.joint_regressor[0].double().cpu() @ template).numpy()
        firm = marks.found.cpu().numpy() & (points[:, 1] > points[numbers.nose_base, 1])
        firm[: numbers.first] = False
        middle = points[list(numbers.eyes)].mean(0) - (0.0, 0.0, _BEHIND)
        return cls((points[firm] - root) * flip, np.flatnonzero(firm), (middle - root) * flip)

    def place(self, pixels: NDArray[np.float64], depth: NDArray[np.float64]) -> tuple[float, float, float]:
        """Centre and side of the crop of a head whose landmarks are seen at pixels (N, 2) and, in the same unit, depth (N,);
        NaN where not known.

        The body is laid on the landmarks by scale, rotation and shift; a head that turns stays as large as it is.
        """
        seen = np.column_stack([pixels, depth])[self.index]
        known = np.isfinite(seen[:, :2]).all(1)
        if known.sum() < _FEWEST:
            raise InputError(f"Portrait Crop: only {known.sum()} landmarks of eyes and nose are known, {_FEWEST} are needed.")
        model, seen = self.points[known], seen[known]
        flat, there = model - model.mean(0), seen - seen.mean(0)
        if not np.isfinite(there).all():
            there[:, 2] = _depth_by_pose(flat, there[:, :2])
        turn = Rotation.align_vectors(there, flat)[0].as_matrix()
        scale = float((there * (flat @ turn.T)).sum() / (flat**2).sum())
        x, y = seen[:, :2].mean(0) + scale * (turn @ (self.middle - model.mean(0)))[:2]
        away = DISTANCE + (turn @ model.mean(0))[2]  # of the face, when the root joint stands at DISTANCE
        return float(x), float(y), 2 * math.tan(math.radians(DEFAULT_FIELD_OF_VIEW) / 2) * away * scale


def _no_depth(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.full(len(pixels), np.nan)


def _depth_by_pose(model: NDArray[np.float64], pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """(L,) relative depth of points (L, 3) that are seen at pixels (L, 2), both centred: by the nearest scaled orthography."""
    affine = np.linalg.lstsq(model, pixels, rcond=None)[0].T
    u, scales, vt = np.linalg.svd(affine, full_matrices=False)
    rows = u @ vt
    return scales.mean() * (model @ np.cross(rows[0], rows[1]))


def place_crop(
    places: HeadPlaces,
    width: int,
    height: int,
    size: int = 512,
    motion: str = ONE_BOX,
    room: float = 1.0,
    smoothing: float = 12.0,
) -> PortraitCrop:
    """A crop of `size` pixels a side (0: the picture's own pixels) around a head in pictures of `width` x `height`.

    Boxes take whole pixels where that costs nothing, so that a crop in the picture's own pixels is a plain copy.

    Args:
        motion: one box for all frames, large enough for all of them; one that moves with the head in one size; or one
            that grows and shrinks with it too.
        room: times the box's side; 1 is that of the encoding.
        smoothing: frames, the standard deviation of the mean that steadies a moving box.
    """
    usual = float(np.median(places.side)) * room
    if motion == ONE_BOX:
        centre, side = _one_box(places)
        return _aligned(centre[None], np.array([side * room]), width, height, size)
    centre = _steady(places.centre, smoothing, _FREE * usual)
    if motion == FOLLOW:
        return _aligned(centre, np.full(len(places), usual), width, height, size)
    sides = smooth(torch.from_numpy(places.side), smoothing).numpy() * room
    return PortraitCrop(width, height, np.column_stack([centre, sides]), size or _native_side(usual))


def _one_box(places: HeadPlaces) -> tuple[NDArray[np.float64], float]:
    """Centre and side of the box that holds the head in every frame, but for the strayest hundredth."""
    centre = np.percentile(places.centre, (1, 99), axis=0).mean(0)
    reach = np.abs(places.centre - centre).max(1) + (0.5 - _FREE) * places.side
    return centre, max(float(np.median(places.side)), 2 * float(np.percentile(reach, 99)))


def _steady(centre: NDArray[np.float64], sigma: float, free: float) -> NDArray[np.float64]:
    """A smooth path (T, 2) that the head keeps near to, however fast it moves."""
    path = smooth(torch.from_numpy(centre), sigma).numpy()
    return smooth(torch.from_numpy(centre - (centre - path).clip(-free, free)), sigma / 4).numpy()


def _native_side(side: float) -> int:
    return max(_MULTIPLE, math.ceil(side / _MULTIPLE) * _MULTIPLE)


def _aligned(centre: NDArray[np.float64], side: NDArray[np.float64], width: int, height: int, size: int) -> PortraitCrop:
    """Boxes of one size; in whole pixels where they stand still or are not resampled."""
    whole = _native_side(side[0]) if size == 0 else size if abs(side[0] / size - 1) < _NATIVE else max(2, round(side[0]))
    corner = centre - whole / 2
    if len(corner) == 1 or size in (0, whole):
        corner = np.floor(corner + 0.5)
    boxes = np.column_stack([corner + whole / 2, np.full(len(corner), float(whole))])
    return PortraitCrop(width, height, boxes, size or whole)
