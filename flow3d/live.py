"""What a page needs to draw and edit a head by itself: the model, the edits as tables, and one frame of a track.

Packets are safetensors in memory: arrays by name, and one JSON text, `live`, in the metadata. The bases travel as float16,
whose steps are under 0.02 mm for displacements below 6 cm; positions, which are larger, stay float32. Nothing about the edits
is written down here: signs, gains and weights are asked from the functions that make them.
"""

import hashlib
import json
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from .fit import mediapipe_points as mp
from .fit.angles import gaze_rotation, jaw_rotation, pose_rotation
from .fit.arkit_map import ARKIT_NAMES, LOOK, arkit_map
from .fit.edit import GAINS, GAZE_EDITS, NEUTRALISE, POSE_EDITS, edit_names, edit_track
from .fit.gaze import lids_follow
from .fit.openings import closing
from .fit.parts import expression_parts, joint_part
from .fit.sliders import expression_sliders
from .head.model import HeadModel
from .track import HeadTrack

REGIONS = ("brows", "eyes", "mouth", "jaw")
"""What can be pointed at on a face, in the order of `regions`' columns."""
_BROWS = (70, 63, 105, 66, 107, 46, 53, 52, 65, 55, 300, 293, 334, 296, 336, 276, 283, 282, 295, 285)
_CHIN = (152, 148, 176, 377, 400, 175, 199, 200, 171, 396, 149, 378, 150, 379, 136, 365, 169, 394, 32, 262, 208, 428)
_POINTS = (_BROWS, (*mp.LEFT_EYE, *mp.RIGHT_EYE, *mp.IRISES), (*mp.OUTER_LIPS, *mp.INNER_LIPS), _CHIN)
_REACH = 9e-3  # metres from a landmark at which a region fades to 1/e
_TINTS = {
    "lips": (190, 122, 108), "inner_mouth": (120, 52, 48), "tongue": (190, 96, 92),
    "upper_teeth": (236, 230, 216), "lower_teeth": (236, 230, 216), "eyeballs": (240, 238, 232),
}  # fmt: skip
_SKIN = (208, 176, 156)


def head_packet(head: HeadModel) -> bytes:
    """The model: bases, skeleton and skinning, triangles, what to point at, colours, and how its edits work.

    Arrays (V vertices, E expressions, J joints, F triangles): `rest` (V, 3) and `skeleton` (J, 3) in metres, of the mean
    face; `expression_basis` (E, V, 3); `pose_basis` (9 (J - 1), V, 3) where the head has correctives; `skin_weights` (V, J);
    `faces` (F, 3); `regions` (V, 4) and `tint` (V, 3) as bytes; for a head without names `map_expression` (52, E) and
    `map_joints` (52, J - 1, 3), see `fit/arkit_map.py`.
    """
    head = head.to("cpu", torch.float32)
    arrays = {
        "rest": head.template,
        "skeleton": head.joints_at_rest(head.template.new_zeros(1, 0))[0],
        "expression_basis": head.expression_basis.half(),
        "skin_weights": head.skin_weights,
        "faces": head.faces.int(),
        "regions": (regions(head) * 255).round().to(torch.uint8),
        "tint": tints(head),
    }
    if head.pose_basis.any():
        arrays["pose_basis"] = head.pose_basis.half()
    if not head.expression_names:
        mapping = arkit_map(head)
        arrays |= {"map_expression": mapping.expression, "map_joints": mapping.joints}
    return _packed(arrays, {"name": head.name, "digest": head.digest, "parents": head.parents} | edit_tables(head))


def edit_tables(head: HeadModel) -> dict[str, Any]:
    """How `edit_track` works on this head, as plain data; turns and shifts are per degree and per centimetre."""
    known = edit_names(head)
    names = head.expression_names or ARKIT_NAMES
    sliders = expression_sliders(tuple(n for n in names if n in known))
    return {
        "joints": head.joint_names[1:],
        "names": names,
        "named": bool(head.expression_names),
        "edits": known,
        "sliders": {name: axes for name, axes in sliders.items() if name in known},
        "pose": [[name, _turn(pose_rotation, i, 3)] for i, name in enumerate(POSE_EDITS[:3])],
        "shift": [[name, _shift(head, name)] for name in POSE_EDITS[3:]],
        "gaze": {
            "edits": [n for n in GAZE_EDITS if n in known],
            "yaw": _turn(gaze_rotation, 0, 2),
            "pitch": _turn(gaze_rotation, 1, 2),
            "sides": {side: f"{side.lower()}_eye" for side in ("Left", "Right")},
            **_lids(),
        },
        "jawByJoint": jaw_rotation(torch.ones(())).tolist() if "jawOpen" in known and "jawOpen" not in sliders else None,
        "neutralise": NEUTRALISE,
        "gains": GAINS,
        "expressionParts": expression_parts(head),
        "jointParts": [joint_part(n) for n in head.joint_names[1:]],
        "regions": REGIONS,
    }


def frame_packet(head: HeadModel, track: HeadTrack, frame: int) -> bytes:
    """One frame of a track, and of its first frame what edits refer to.

    Arrays: `rest` (V, 3) metres, the person's neutral face with this frame's offsets; `skeleton` (J, 3); `expression`,
    `joints`, `rotation`, `translation` of the frame; `first_expression`, `first_joints`, `first_rotation`.
    """
    still = track[[frame]]
    first = track[[0]]
    rest = head.shaped(still.shape[None].float())[0]
    for moved in (still.offsets, None if still.frame_offsets is None else still.frame_offsets[0]):
        rest = rest if moved is None else rest + moved.float()
    if still.landmark_offsets is not None:
        rest = rest + head.carry_landmarks(still.landmark_offsets[0].float())
    arrays = {"rest": rest, "skeleton": head.joints_at_rest(still.shape[None].float())[0]}
    arrays |= {n: getattr(still, n)[0] for n in ("expression", "joints", "rotation", "translation")}
    arrays |= {f"first_{n}": getattr(first, n)[0] for n in ("expression", "joints", "rotation")}
    told = {"frames": len(track), "frame": frame, "fps": track.fps, "head": head.digest, "shut": _shut(head, first)}
    return _packed({n: x.float() for n, x in arrays.items()}, told)


def track_digest(track: HeadTrack) -> str:
    """Sixteen bytes, in hexadecimal, of what `frame_packet` reads."""
    hashed = hashlib.sha256(track.head_digest.encode())
    for name in ("shape", "expression", "joints", "rotation", "translation", "offsets", "frame_offsets", "landmark_offsets"):
        x = getattr(track, name)
        hashed.update(name.encode() if x is None else x.detach().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()[:32]


def regions(head: HeadModel) -> Tensor:
    """(V, 4) 0..1: how much of each of `REGIONS` lies at a vertex; zeros on a head without landmarks."""
    if head.landmarks_dense is None:
        return head.template.new_zeros(len(head.template), len(REGIONS))
    points = head.landmarks_dense.on(head.template, head.faces)
    near = torch.stack([torch.cdist(head.template, points[list(p)]).amin(1) for p in _POINTS], 1)
    share = torch.exp(-((near / _REACH) ** 2))
    mouth = REGIONS.index("mouth")
    for name, mask in head.masks.items():  # what lies inside has no landmarks of its own
        if name in ("inner_mouth", "tongue", "upper_teeth", "lower_teeth"):
            share[mask] = torch.eye(len(REGIONS))[mouth]
        elif name == "eyeballs":
            share[mask] = torch.eye(len(REGIONS))[REGIONS.index("eyes")]
    return share


def tints(head: HeadModel) -> Tensor:
    """(V, 3) bytes, sRGB: clay with lips, teeth and eyes, as far as the head tells them apart."""
    colours = torch.tensor(_SKIN, dtype=torch.uint8).repeat(len(head.template), 1)
    for name, colour in _TINTS.items():
        if name in head.masks:
            colours[head.masks[name].cpu()] = torch.tensor(colour, dtype=torch.uint8)
    return colours


def _packed(arrays: dict[str, Tensor], told: dict[str, Any]) -> bytes:
    return save({n: x.detach().cpu().contiguous() for n, x in arrays.items()}, {"live": json.dumps(told)})


def _turn(rotation: Any, axis: int, count: int) -> list[float]:
    """The axis-angle of one degree of one angle; a turn about one axis is proportional to its angle."""
    angles = torch.eye(count, dtype=torch.float64)[axis]
    return rotation(*angles).tolist()


def _shift(head: HeadModel, name: str) -> list[float]:
    """Metres in the camera frame for one centimetre."""
    one = replace(_nobody(head), translation=torch.zeros(1, 3, dtype=torch.float64))
    return edit_track(head, one, {name: 1.0}).translation[0].tolist()


def _nobody(head: HeadModel) -> HeadTrack:
    from .camera import Camera

    none = torch.zeros(1, 3, dtype=torch.float64)
    return HeadTrack(
        shape=none[0, :0], expression=none.new_zeros(1, head.n_expression), joints=none.new_zeros(1, head.n_joints - 1, 3),
        rotation=none, translation=none, camera=Camera.from_field_of_view(64, 64), joint_names=head.joint_names,
        head_name=head.name, head_digest=head.digest,
    )  # fmt: skip


def _lids() -> dict[str, float]:
    """Weights that the lids take for each degree of the eye, and the degrees that the full eyeLook expressions carry it."""
    names = ("eyeLookUpLeft", "eyeLookDownLeft", "eyeWideLeft")
    rest = {n: torch.zeros(1, dtype=torch.float64) for n in names}
    up, down = (lids_follow(rest, "Left", torch.full((1,), d, dtype=torch.float64))[0] for d in (1.0, -1.0))
    per_degree = {"up": up[names[0]], "down": down[names[1]], "wide": up[names[2]]}
    return {n: float(x) for n, x in per_degree.items()} | {"lookUp": LOOK["Up"], "lookDown": LOOK["Down"]}


def _shut(head: HeadModel, first: HeadTrack) -> float:
    """How far mouthClose goes when the first frame's expression is taken away, see `edit.py`, neutralise."""
    if not head.expression_names:
        return 0.0
    gaze = torch.tensor([part == "eyes" for part in expression_parts(head)])
    return closing(head, replace(first, expression=torch.where(gaze, first.expression, 0.0)))
