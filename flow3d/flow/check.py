"""Whether tracks, a head and a camera make a flow. What does not is refused with a sentence that says where and what to do."""

import math

import torch

from ..camera import Camera
from ..errors import InputError
from ..head.model import HeadModel
from ..track import PER_FRAME, HeadTrack

SHAPING = (
    "shape", "expression", "joints", "rotation", "translation", "offsets", "frame_offsets", "landmark_offsets",
)  # fmt: skip
"""Fields of a track that say where its vertices are."""


def check_camera(camera: Camera) -> None:
    """Raises InputError unless the camera can see something."""
    if camera.width < 1 or camera.height < 1:
        raise InputError(f"3D flow: the size is {camera.width} x {camera.height} pixels; it takes at least 1 x 1.")
    if not (math.isfinite(camera.focal + camera.cx + camera.cy) and camera.focal > 0):
        raise InputError(
            f"3D flow: the camera's focal length is {camera.focal} and its principal point ({camera.cx}, {camera.cy}) pixels; "
            "they must be finite, and the focal length more than 0. Fit the portrait again."
        )


def check_head(head: HeadModel) -> None:
    """Raises InputError where there is no surface."""
    if len(head.faces) == 0:
        raise InputError(f"3D flow: the head model '{head.name}' has no triangles. Load another one.")


def check_track(name: str, track: HeadTrack, head: HeadModel) -> None:
    """Raises InputError where the track `name` is not this head's, holds values that are not finite, or is out of sight."""
    if track.head_digest and head.digest and track.head_digest != head.digest:
        raise InputError(
            f"3D flow: the {name} track was made with the head model '{track.head_name}', not with "
            f"'{head.name}' as it is here. Fit it again with this head, or load the head it was made with."
        )
    _check_topology(name, track, head)
    for field in SHAPING:
        values = getattr(track, field)
        if values is not None and not bool((finite := values.isfinite()).all()):
            where = ""
            if field in PER_FRAME:
                where = f" in frame {int(torch.where(~finite.reshape(len(track), -1).all(1))[0][0])} of {len(track)}"
            raise InputError(
                f"3D flow: the {name} track's {field.replace('_', ' ')} is not finite{where}. "
                "Fit the clip again, or mend the edit that the track went through."
            )
    behind = torch.where(track.translation[:, 2] <= 0)[0]
    if len(behind):
        first = int(behind[0])
        raise InputError(
            f"3D flow: in frame {first} of {len(track)} of the {name} track the head stands behind the camera "
            f"(its depth is {float(track.translation[first, 2]):.3f} m). Move it away from the camera, or fit it again."
        )


def _check_topology(name: str, track: HeadTrack, head: HeadModel) -> None:
    vertices = len(head.template)
    counts = (
        ("shape components", track.shape.shape[-1], head.n_shape, True),
        ("expression components", track.expression.shape[-1], head.n_expression, True),
        ("joints", track.joints.shape[1] + 1, head.n_joints, False),
        ("vertices in its offsets", vertices if track.offsets is None else track.offsets.shape[-2], vertices, False),
        ("vertices in its frame offsets", _columns(track.frame_offsets, vertices), vertices, False),
    )
    for what, has, wanted, fewer in counts:
        if has > wanted or (has < wanted and not fewer):
            raise InputError(
                f"3D flow: the {name} track has {has} {what}, the head model '{head.name}' {wanted}. "
                "Load the head model that the track was made with, or fit it again with this one."
            )


def _columns(offsets: torch.Tensor | None, otherwise: int) -> int:
    return otherwise if offsets is None else offsets.shape[1]
