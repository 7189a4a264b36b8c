"""Head models by name or file: the open head, our safetensors, and FLAME as pickle, npz or safetensors."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import Flow3DError, InputError
from ..io.arrays import npz_arrays
from ..io.files import written
from ..io.json_text import parse_json
from ..paths import cache_folder, find_weight
from .check import fault_of
from .files import FORMAT, OPEN_HEAD, load_saved_head, save_head
from .flame import KEYS, head_from_flame
from .model import HeadModel, Landmarks
from .unpickle import read_pickle, to_array

OPEN = "open"
"""The name of the head that Flow3D brings."""

ENDINGS = (".safetensors", ".npz", ".pkl")

_LANDMARKS_FORMAT = "flow3d-landmarks-1"
_LANDMARKS = ("landmarks68", "landmarks_dense")

Progress = Callable[[int, int], None]
"""Called with (done, total); raises to cancel."""


def load_head(name: str | Path, weight_folders: Iterable[Path] = (), progress: Progress | None = None) -> HeadModel:
    """The head called "open", or the one in a file, with its landmarks.

    A FLAME file brings no landmarks that we use: they are found once, by showing renders of the head to MediaPipe's
    landmarker (a minute or so), and kept beside the file, or in ~/.cache/flow3d where its folder cannot be written.

    Args:
        name: "open", or a path ending in .safetensors, .npz or .pkl.
        weight_folders: where `face_landmarker.task` may lie besides the usual folders.
        progress: told how far the search for landmarks is.

    Raises:
        InputError: no such file, or no usable head in it.
        Flow3DError: landmarks have to be found and `face_landmarker.task` is missing.
    """
    if str(name) == OPEN:
        if not OPEN_HEAD.is_file():
            raise Flow3DError(f"{OPEN_HEAD.name} is missing from this installation of Flow3D; install it again.")
        return load_saved_head(OPEN_HEAD)
    path = Path(name)
    head = _with_kept_landmarks(read_head(path), path)
    return head if head.landmarks_dense is not None else _embedded(head, path, weight_folders, progress)


def read_head(path: Path) -> HeadModel:
    """The head in a file, as it stands there: a FLAME file gives one without landmarks. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: no such head model file. Give the name '{OPEN}', or a {', '.join(ENDINGS)} file.")
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"{path.name}: a head model is a {', '.join(ENDINGS)} file.")
    if ending == ".safetensors" and _metadata(path).get("format") == FORMAT:
        return _read_ours(path)
    read = {".safetensors": _read_safetensors, ".npz": lambda p: npz_arrays(p, KEYS), ".pkl": _read_pkl}[ending]
    arrays = read(path)
    try:
        return head_from_flame(arrays, path.stem)
    except InputError as error:
        raise InputError(f"{path.name}: not a usable FLAME model: {error}. Get it again from FLAME's site.") from None


def convert_head(source: Path, target: Path) -> HeadModel:
    """Write the head in `source` as Flow3D's safetensors, with its landmarks where they were found before.

    Raises InputError where `source` is no head, or `target` does not end in .safetensors or would overwrite it.
    """
    if target.suffix.lower() != ".safetensors":
        raise InputError(f"{target.name}: a converted head is a .safetensors file.")
    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{target.name}: the converted head would overwrite its source.")
    head = _with_kept_landmarks(read_head(source), source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save_head(head, target, provenance=f"converted from {source.name}")
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}).") from error
    return head


def _read_ours(path: Path) -> HeadModel:
    head = load_saved_head(path)
    if fault := fault_of(head):
        raise InputError(f"{path.name}: not a usable Flow3D head: {fault}. Convert it again with `flow3d convert-head`.")
    return head


def _metadata(path: Path) -> dict:
    """The JSON that Flow3D puts into a safetensors file; empty in anybody else's."""
    try:
        with safe_open(path, "pt") as f:
            found = parse_json((f.metadata() or {}).get("flow3d", "{}"), path.name)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path.name}: not a readable safetensors file ({error}). Copy or download it again.") from error
    return found if isinstance(found, dict) else {}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    with safe_open(path, "pt") as f:
        arrays = {k: f.get_tensor(k) for k in f.keys() if k in KEYS}
    return {k: (x.float() if x.is_floating_point() else x).numpy() for k, x in arrays.items()}


def _read_pkl(path: Path) -> dict[str, np.ndarray]:
    data = read_pickle(path)
    arrays = {}
    for key in KEYS:
        if key in data:
            try:
                arrays[key] = to_array(data[key])
            except (ValueError, TypeError) as error:
                raise InputError(f"{path.name}: {key}: {error}. Get the model from its own site again.") from None
    return arrays


def landmark_files(path: Path, head: HeadModel) -> tuple[Path, Path]:
    """Where the landmarks found on a head file are kept: beside it, or else in the cache."""
    name = f"{path.stem}.landmarks.safetensors"
    return path.with_name(name), cache_folder() / "landmarks" / f"{path.stem}.{head.digest[:16]}.landmarks.safetensors"


def _with_kept_landmarks(head: HeadModel, path: Path) -> HeadModel:
    """The head with the landmarks that were found on it before, if they are kept anywhere."""
    if head.landmarks_dense is not None:
        return head
    for file in landmark_files(path, head):
        if file.is_file():
            found = _read_landmarks(file, head)
            if found is not None:
                return found
    return head


def _read_landmarks(file: Path, head: HeadModel) -> HeadModel | None:
    """The head with the landmarks in `file`; None where they were found on another head or cannot be read."""
    try:
        meta = _metadata(file)
        if meta.get("format") != _LANDMARKS_FORMAT or meta.get("head") != head.digest:
            return None
        with safe_open(file, "pt") as f:
            arrays = {k: f.get_tensor(k) for k in f.keys()}
        marks = {k: Landmarks(arrays[f"{k}.face"].long(), arrays[f"{k}.bary"].float()) for k in _LANDMARKS}
        found = replace(
            head,
            landmarks68=marks["landmarks68"],
            landmarks_dense=marks["landmarks_dense"],
            landmark_spread=arrays["landmark_spread"].float(),
        )
        return None if fault_of(found) else found
    except (InputError, KeyError, SafetensorError, OSError):
        return None  # they can be found again


def _embedded(head: HeadModel, path: Path, weight_folders: Iterable[Path], progress: Progress | None) -> HeadModel:
    from ..fit.detect import MediaPipeDetector  # heavy, and needed once in a head's life
    from .embed import embed_landmarks

    with MediaPipeDetector(find_weight("face_landmarker.task", weight_folders)) as detector:
        found = embed_landmarks(head, detector, progress)
    for file in landmark_files(path, head):
        try:
            _write_landmarks(found, file)
            break
        except (OSError, InputError):
            continue  # nowhere to keep them: they are found again next time
    return found


def _write_landmarks(head: HeadModel, file: Path) -> None:
    arrays: dict[str, torch.Tensor] = {}
    for name in _LANDMARKS:
        marks: Landmarks = getattr(head, name)
        arrays[f"{name}.face"] = marks.face.to(torch.int32).contiguous()
        arrays[f"{name}.bary"] = marks.bary.float().contiguous()
    if head.landmark_spread is not None:
        arrays["landmark_spread"] = head.landmark_spread.float().contiguous()
    with written(file) as part:
        save_file(arrays, part, {"flow3d": json.dumps({"format": _LANDMARKS_FORMAT, "head": head.digest})})
