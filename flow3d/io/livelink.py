"""Live Link Face CSV, in and out: ARKit's 52 weights, the head's and the eyes' angles, a timecode a row.

Columns, in the order that the app (Epic Games, iOS) records them: Timecode, BlendShapeCount (61), ARKit's 52 names in
PascalCase, then HeadYaw, HeadPitch, HeadRoll and the same three for LeftEye and RightEye. They are read by name, whatever
their order and case. Sources: recordings in github.com/alexdjulin/LiveLinkFace-CSV-Retarget-For-Motionbuilder (order,
radians, timecode, the signs of the eyes' angles against the eyeLook weights); Unreal Engine's
AppleARKitFaceMeshConversion.h (`ToBlendShapeMap`: the head's angles are made as the eyes' are, an FRotator each).

Angles are radians: yaw, then pitch, then roll about the turned axes. Positive yaw turns to the subject's right, positive
pitch down, positive roll to the subject's left shoulder. Our edits' signs are the opposite, the opposite and the same.

A timecode is hours:minutes:seconds:frame.fraction with 60 frames a second, whatever the camera's rate (the recordings
count 2 for each of their 30 frames a second); another base is told by the numbers. The format knows no position: the head
turns about the joint of skull and spine, which stays where the bundled motions have it.
"""

import csv
import math
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor

from ..camera import Camera
from ..errors import InputError
from ..fit.arkit import ARKIT, ARKIT_NAMES
from ..fit.arkit_map import arkit_weights
from ..head.model import FLAME_JOINTS, FLIP, HeadModel
from ..rotations import compose, to_matrix
from ..track import DETECTED, INTERPOLATED, HeadTrack
from .files import written

ROOT, PIVOT = (0.0, 0.12, 0.95), (0.0, -0.055, -0.02)
"""Metres, camera frame: the foot of the neck, and from there to the joint of skull and spine, as in the bundled motions."""
FULL_LOOK = {"In": 35.0, "Out": 35.0, "Up": 32.0, "Down": 32.0}
"""Degrees of the eye at weight 1 of ARKit's eyeLook names: the slope in the recordings named above."""
LARGEST_FILE = 512 << 20  # bytes: two hours at 60 frames a second
LONGEST_GAP = 10.0  # seconds
RATES = (23.976, 24.0, 25.0, 29.97, 30.0, 48.0, 50.0, 59.94, 60.0, 120.0)

_SIDES = ("Left", "Right")
_WAYS = ("In", "Out", "Up", "Down")
_ORDER = (
    *(f"eye{what}{side}" for side in _SIDES
      for what in ("Blink", "LookDown", "LookIn", "LookOut", "LookUp", "Squint", "Wide")),
    "jawForward", "jawRight", "jawLeft", "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthRight", "mouthLeft",
    *(f"mouth{what}{side}" for what in ("Smile", "Frown", "Dimple", "Stretch") for side in _SIDES),
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    *(f"mouth{what}{side}" for what in ("Press", "LowerDown", "UpperUp") for side in _SIDES),
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
_ANGLES = tuple(f"{of}{angle}" for of in ("Head", "LeftEye", "RightEye") for angle in ("Yaw", "Pitch", "Roll"))
COLUMNS = ("Timecode", "BlendShapeCount", *(n[0].upper() + n[1:] for n in _ORDER), *_ANGLES)
_BASE = 60
_BASES = (24, 25, 30, 48, 50, 60, 100, 120, 240)


def load_livelink(path: Path | str) -> HeadTrack:
    """A recording as a track of ARKit's expressions (`head_name` ARKIT), which every head takes.

    Weights are bounded to 0..1. The gaze goes into the eye joints, and the eyeLook weights become 0, as a head would look
    twice as far by both; they give the gaze where the file has no eye angles. Rows without a face and dropped frames are
    interpolated and marked so in `state`.

    Raises InputError, naming the file and the row, for anything that is no such recording.
    """
    path = Path(path)
    times, values = _table(path)
    fps, frames, weights, angles, state = _even(path, times, values)
    names = [n.lower() for n in _ORDER]
    expression = torch.tensor(weights[:, [names.index(n.lower()) for n in ARKIT_NAMES]]).clamp(0, 1)
    turns = torch.tensor(angles)  # (T, 3, 3) axis-angle, head frame: head, left eye, right eye
    joints = torch.zeros(frames, len(FLAME_JOINTS) - 1, 3, dtype=torch.float64)
    for side, (name, joint) in enumerate((("Left", "left_eye"), ("Right", "right_eye"))):
        looks = [ARKIT_NAMES.index(f"eyeLook{way}{name}") for way in _WAYS]
        seen = turns[:, 1 + side]
        joints[:, FLAME_JOINTS.index(joint) - 1] = seen if seen.any() else _gaze(expression[:, looks], name)
        expression[:, looks] = 0
    rotation = turns[:, 0] * torch.tensor(FLIP, dtype=torch.float64)
    pivot = torch.tensor(PIVOT, dtype=torch.float64)
    return HeadTrack(
        shape=torch.zeros(0),
        expression=expression.float(),
        joints=joints.float(),
        rotation=rotation.float(),
        translation=(torch.tensor(ROOT, dtype=torch.float64) + pivot - to_matrix(rotation) @ pivot).float(),
        camera=Camera.from_field_of_view(512, 512),
        fps=fps,
        state=torch.tensor(state),
        head_name=ARKIT,
    )


def save_livelink(track: HeadTrack, path: Path | str, head: HeadModel | None = None) -> None:
    """Write a track as a recording. The file appears whole or not at all.

    The head's angles are those of rotation and neck together; where the head is, its shape and its offsets are lost.

    Args:
        head: the head model of the track; not needed for a track of ARKit's expressions.

    Raises InputError where the head is needed and missing, or is not the track's.
    """
    weights = _weights(track, head).double().cpu()
    neck = track.neck.double().cpu() if "neck" in track.joint_names else torch.zeros(len(track), 3, dtype=torch.float64)
    flip = torch.tensor(FLIP, dtype=torch.float64)
    turns = [compose(track.rotation.double().cpu() * flip, neck)]
    for side, joint in (("Left", "left_eye"), ("Right", "right_eye")):
        looks = [ARKIT_NAMES.index(f"eyeLook{way}{side}") for way in _WAYS]
        turned = track.joint(joint).double().cpu() if joint in track.joint_names else torch.zeros_like(turns[0])
        turns.append(compose(_gaze(weights[:, looks], side), turned) if weights[:, looks].any() else turned)
        weights[:, looks] = _looks(turns[-1], side)
    angles = np.concatenate([_to_angles(t.numpy()) for t in turns], 1)
    rows = np.concatenate([weights[:, [ARKIT_NAMES.index(n) for n in _ORDER]].numpy(), angles], 1)
    with written(Path(path)) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for t, row in enumerate(rows):
            table.writerow([_timecode(t / track.fps), len(COLUMNS) - 2, *(f"{x:.10f}" for x in row)])


def _weights(track: HeadTrack, head: HeadModel | None) -> Tensor:
    """(T, 52) of any track. The eye joints stay out: they are written as angles."""
    if track.head_name == ARKIT:
        return track.expression.clone()
    if head is None or (head.digest and track.head_digest and head.digest != track.head_digest):
        raise InputError(
            f"Live Link Face CSV: the track belongs to head model '{track.head_name}'"
            + (f", not to '{head.name}'" if head is not None else "") + ". Give that model as the head."
        )  # fmt: skip
    eyes = torch.tensor(["eye" in n for n in track.joint_names[1:]])
    return arkit_weights(head, track.expression, track.joints * ~eyes[:, None].to(track.joints.device))


# --- rows ------------------------------------------------------------------------------------------------------------


def _table(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Seconds (N,) and the values (N, 61) in the order of `COLUMNS` of the rows that hold a face."""
    try:
        if not path.is_file():
            raise InputError(f"{path}: there is no such file.")
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(f"{path.name}: {path.stat().st_size:,} bytes are too many for a Live Link Face recording.")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name}: not UTF-8 text ({error.reason}). Save it as CSV (UTF-8).") from error
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read ({error.strerror}).") from error
    if "\0" in text:
        raise InputError(f"{path.name}: not a text file. Save it as CSV (UTF-8).")
    rows = csv.reader(text.splitlines())
    try:
        order = _columns(path, next(rows, []))
        parsed = [_row(path, number, row, order) for number, row in enumerate(rows, 2) if row]
    except csv.Error as error:
        raise InputError(f"{path.name}: not a readable CSV file ({error}). Save it as CSV (UTF-8) again.") from error
    whole = [(clock, row) for clock, row in parsed if row is not None]
    if not whole:
        raise InputError(f"{path.name}: there is no row with a face in it. Record it again with the face in view.")
    return _seconds(path, [clock for clock, _ in whole]), np.array([row for _, row in whole])


def _columns(path: Path, header: list[str]) -> list[int]:
    """Where each of `COLUMNS` but BlendShapeCount stands in the file; -1 for an angle that it lacks."""
    there = {name.strip().lower(): i for i, name in enumerate(header)}
    missing = [n for n in COLUMNS if n.lower() not in there and n not in (*_ANGLES, "BlendShapeCount")]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(f"{path.name}: not a Live Link Face recording: it lacks the columns {', '.join(missing[:3])}{more}. Choose one that the app made.")
    return [there.get(n.lower(), -1) for n in COLUMNS if n != "BlendShapeCount"]


def _row(path: Path, number: int, row: list[str], order: list[int]) -> tuple[tuple[float, ...], list[float] | None]:
    """Hours, minutes, seconds and frame; and 61 values, or None for a row without a face, whose cells are empty."""
    try:
        clock = tuple(float(x) for x in row[order[0]].replace(";", ":").split(":"))
        if len(clock) != 4 or not all(math.isfinite(x) and 0 <= x < 1000 for x in clock):
            raise ValueError
    except (ValueError, IndexError):
        shown = row[order[0]][:40] if order[0] < len(row) else ""
        raise InputError(f"{path.name}: row {number} has the timecode '{shown}', not hours:minutes:seconds:frame. Mend or leave out that row.") from None
    cells = ["0" if i < 0 else row[i] if i < len(row) else "" for i in order[1:]]
    if not any(cell.strip() for cell, i in zip(cells, order[1:], strict=True) if i >= 0):
        return clock, None
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        name = next(n for n, cell in zip((*COLUMNS[2:],), cells, strict=True) if not _is_number(cell))
        raise InputError(f"{path.name}: row {number} has no number for {name}; the file is cut short or damaged. Mend or leave out that row.") from None
    for name, value in zip(COLUMNS[2:], values, strict=True):
        if not math.isfinite(value) or abs(value) > (2 * math.pi if name in _ANGLES else 2.0):
            unit = "radians" if name in _ANGLES else "a weight between 0 and 1"
            raise InputError(f"{path.name}: row {number} has {name} = {value:g}; it must be {unit}.")
    return clock, values


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _seconds(path: Path, clocks: list[tuple[float, ...]]) -> np.ndarray:
    """Timecodes (N, 4) to seconds (N,) since the first, rising."""
    hours, minutes, seconds, frames = np.array(clocks).T
    whole = np.round((hours * 60 + minutes) * 60 + seconds)
    whole = whole + 86400 * np.cumsum(np.diff(whole, prepend=whole[0]) < -43200)  # over midnight
    times = whole + frames / _timebase(whole, frames)
    times = times - times[0]
    back = np.flatnonzero(np.diff(times) < 0)
    if len(back):
        raise InputError(f"{path.name}: row {back[0] + 3} is earlier than the row before it; the file holds two recordings. Cut it there.")
    return times


def _timebase(whole: np.ndarray, frames: np.ndarray) -> int:
    """Frames a second of the timecode: by how far the frame number falls where the second changes; 60 where it never does."""
    ticks = np.diff(whole) == 1
    within = np.diff(frames)[np.diff(whole) == 0]
    if ticks.any() and (within > 0).any():
        base = np.median(np.median(within[within > 0]) - np.diff(frames)[ticks])
        nearest = min(_BASES, key=lambda b: abs(b - base))
    else:
        nearest = _BASE
    return next((b for b in (nearest, *_BASES) if b > np.floor(frames.max())), 1000)


def _even(
    path: Path, times: np.ndarray, values: np.ndarray
) -> tuple[float, int, np.ndarray, np.ndarray, np.ndarray]:
    """Rows at any times to even frames: rate, their number, weights (T, 52), turns (T, 3, 3) and `HeadTrack.state`."""
    new = np.concatenate([[True], np.diff(times) > 1e-6])  # a row written twice
    times, values = times[new], values[new]
    longest = np.diff(times).max(initial=0)
    if longest > LONGEST_GAP:
        start = times[np.diff(times).argmax()]
        raise InputError(f"{path.name}: {longest:.0f} seconds are missing after {start:.2f} s. Cut the recording there.")
    rate = _rate(times)
    places = times * rate  # in frames
    if rate > 1000 or places[-1] > 20 * len(places) + 1000:
        raise InputError(f"{path.name}: {len(places)} rows for {places[-1]:.0f} frames; the timecodes are damaged. Record it again.")
    frames = np.arange(round(float(places[-1])) + 1)
    nearest = _nearest(places, frames)
    there = np.abs(places[nearest] - frames) < 0.3
    weights, turns = values[nearest, :52], np.stack([_from_angles(values[nearest, i : i + 3]) for i in (52, 55, 58)], 1)
    if not there.all():
        between = frames[~there].clip(0, places[-1])
        weights[~there] = np.stack([np.interp(between, places, column) for column in values[:, :52].T], 1)
        for i in range(3):
            rows = Rotation.from_rotvec(_from_angles(values[:, 52 + 3 * i : 55 + 3 * i]))
            turns[~there, i] = Slerp(places, rows)(between).as_rotvec()
    return _usual(rate), len(frames), weights, turns, np.where(there, DETECTED, INTERPOLATED)


def _nearest(places: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """(T,) the row closest to each frame."""
    after = np.searchsorted(places, frames).clip(min(1, len(places) - 1), len(places) - 1)
    before = (after - 1).clip(0)
    return np.where(frames - places[before] < places[after] - frames, before, after)


def _rate(times: np.ndarray) -> float:
    """Frames a second, as measured: the median step tells how many frames each step is, all together tell the rate."""
    if len(times) < 2:
        return 60.0
    steps = np.diff(times)
    return float(np.maximum(np.round(steps / np.median(steps)), 1).sum() / times[-1])


def _usual(rate: float) -> float:
    """The rate the camera meant: clocks drift."""
    nearest = min(RATES, key=lambda usual: abs(usual - rate))
    return nearest if abs(nearest - rate) < 4e-4 * nearest else round(rate, 3)


def _timecode(seconds: float) -> str:
    thousandths = round(seconds * _BASE * 1000)
    whole, rest = divmod(thousandths, _BASE * 1000)
    return f"{whole // 3600 % 24:02}:{whole // 60 % 60:02}:{whole % 60:02}:{rest // 1000:02}.{rest % 1000:03}"


# --- angles ----------------------------------------------------------------------------------------------------------


def _from_angles(angles: np.ndarray) -> np.ndarray:
    """Yaw, pitch, roll (N, 3) in radians, the format's signs, to axis-angle (N, 3) in the head frame."""
    return Rotation.from_euler("YXZ", angles * [-1.0, 1.0, -1.0]).as_rotvec()


def _to_angles(turns: np.ndarray) -> np.ndarray:
    return Rotation.from_rotvec(turns).as_euler("YXZ") * [-1.0, 1.0, -1.0]


def _gaze(looks: Tensor, side: str) -> Tensor:
    """Weights (T, 4) of In, Out, Up, Down to the axis-angle (T, 3) of the eye joint."""
    inwards, outwards, up, down = (looks * torch.deg2rad(looks.new_tensor([*FULL_LOOK.values()]))).unbind(-1)
    yaw = (inwards - outwards) if side == "Left" else (outwards - inwards)
    return torch.from_numpy(_from_angles(torch.stack([yaw, down - up, torch.zeros_like(yaw)], -1).double().numpy()))


def _looks(turns: Tensor, side: str) -> Tensor:
    """The inverse of `_gaze`, 0..1."""
    yaw, pitch, _ = np.degrees(_to_angles(turns.numpy())).T
    inwards = yaw if side == "Left" else -yaw
    ways = np.stack([inwards, -inwards, -pitch, pitch], 1) / list(FULL_LOOK.values())
    return torch.from_numpy(ways.clip(0, 1))
