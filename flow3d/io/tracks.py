"""Head tracks as safetensors files: keys are `HeadTrack`'s tensor fields, everything else is JSON metadata."""

import json
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..camera import Camera
from ..errors import InputError
from ..fit.mediapipe_points import N_POINTS
from ..track import FORMAT_VERSION, STATE_NAMES, HeadTrack
from .files import written
from .json_text import parse_json

FORMAT = "flow3d-track"
_HINTS = get_type_hints(HeadTrack)
_TENSORS = tuple(f.name for f in fields(HeadTrack) if _HINTS[f.name] in (Tensor, Tensor | None))
_REQUIRED = tuple(f.name for f in fields(HeadTrack) if f.name in _TENSORS and f.default is MISSING)
_PLAIN = tuple(f.name for f in fields(HeadTrack) if f.name not in _TENSORS and f.name != "camera")
_PER_CLIP = ("shape", "offsets", "shape_deviation", "texture", "light")
"""Tensor fields without a leading time axis."""
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MOST_FPS, _MOST = 1000.0, 1e6
_SCALARS = ("confidence", "state", "error", "rotation_deviation", "translation_deviation", "shape_deviation")


def save_track(track: HeadTrack, path: Path | str) -> None:
    """Write a track, its tensors bit for bit. The file appears whole or not at all."""
    arrays = {n: getattr(track, n) for n in _TENSORS if getattr(track, n) is not None}
    meta: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION, "camera": asdict(track.camera)}
    meta |= {name: getattr(track, name) for name in _PLAIN}
    with written(Path(path)) as part:
        save_file({n: x.detach().cpu().contiguous() for n, x in arrays.items()}, part, {"flow3d": json.dumps(meta)})


def load_track(path: Path | str) -> HeadTrack:
    """Read a track that `save_track` wrote.

    Raises InputError, naming the file and the field, where it is not one, was written by a later version, or holds
    wrong shapes, NaN or infinities.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    try:
        with safe_open(path, "pt") as f:
            meta = parse_json((f.metadata() or {}).get("flow3d", "null"), path.name)
            arrays = {k: f.get_tensor(k) for k in f.keys() if k in _TENSORS}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path.name}: not a readable safetensors file ({error}). Save the track again.") from error
    try:
        _check_meta(meta)
        _check_arrays(arrays)
        values: dict[str, Any] = {n: tuple(v) if isinstance(v := meta[n], list) else v for n in _PLAIN if n in meta}
        return HeadTrack(camera=_camera(meta.get("camera")), **values, **dict[str, Any](arrays))
    except ValueError as error:
        raise InputError(f"{path.name}: not a usable head track ({error}). Save it again with Flow3D.") from error


def _check_meta(meta: object) -> None:
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise ValueError("it is some other safetensors file")
    version = meta.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"it has format version {version}, this Flow3D reads version {FORMAT_VERSION}")
    fps = meta.get("fps", 25.0)
    if not isinstance(fps, int | float) or not 1 / _MOST_FPS <= fps <= _MOST_FPS:
        raise ValueError(f"its frame rate is not a number up to {_MOST_FPS:g}")
    for name in ("head_name", "head_digest"):
        if not isinstance(text := meta.get(name, ""), str) or len(text) > 200:
            raise ValueError(f"its {name} is not a short text")
    joints = meta.get("joint_names", [])
    if not isinstance(joints, list) or not all(isinstance(name, str) for name in joints):
        raise ValueError("its joint_names are not a list of names")


def _check_arrays(arrays: dict[str, Tensor]) -> None:
    missing = [n for n in _REQUIRED if n not in arrays]
    if missing:
        raise ValueError("it lacks " + ", ".join(missing))
    if arrays["expression"].dim() != 2 or not len(arrays["expression"]):
        raise ValueError(f"expression is {tuple(arrays['expression'].shape)}, not (frames, components)")
    if arrays["shape"].dim() != 1:
        raise ValueError(f"shape is {tuple(arrays['shape'].shape)}, not (components,)")
    frames = len(arrays["expression"])
    for name, x in arrays.items():
        if name not in _PER_CLIP and (x.dim() == 0 or len(x) != frames):
            raise ValueError(f"{name} is {tuple(x.shape)} in a track of {frames} frames")
        if name != "state" and x.dtype not in _FLOATS:
            raise ValueError(f"{name} holds {str(x.dtype).removeprefix('torch.')}, not floats")
        if x.is_floating_point() and not (x.abs() < _MOST).all():
            raise ValueError(f"{name} holds NaN, infinity or values beyond {_MOST:,.0f}")
        if "offsets" in name and (x.dim() != (2 if name in _PER_CLIP else 3) or x.shape[-1] != 3):
            raise ValueError(f"{name} is {tuple(x.shape)}, not a list of points")
        if name == "landmark_offsets" and x.shape[1] != N_POINTS:
            raise ValueError(f"{name} is {tuple(x.shape)}, not (frames, {N_POINTS}, 3)")
        if name in _SCALARS and x.dim() != 1:
            raise ValueError(f"{name} is {tuple(x.shape)}, not a row of numbers")
    texture = arrays.get("texture")
    if texture is not None and texture.numel() and (texture.min() < 0 or texture.max() > 1):
        raise ValueError("texture holds values outside 0..1")
    state = arrays.get("state")
    if state is not None and (state.dtype not in (torch.int64, torch.int32, torch.uint8) or state.min() < 0 or state.max() >= len(STATE_NAMES)):
        raise ValueError(f"state holds values other than 0 to {len(STATE_NAMES) - 1}")


def _camera(values: object) -> Camera:
    if not isinstance(values, dict) or set(values) != {f.name for f in fields(Camera)}:
        raise ValueError("it has no camera")
    camera = Camera(**values)
    if camera.fault:
        raise ValueError(camera.fault)
    return camera
