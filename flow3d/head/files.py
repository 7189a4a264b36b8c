"""Head models as safetensors files: one array a key, named like `HeadModel`'s fields, and JSON metadata."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import InputError
from ..io.files import written
from ..io.json_text import parse_json
from .model import HeadModel, Landmarks

FORMAT = "flow3d-head-1"
OPEN_HEAD = Path(__file__).with_name("open_head.safetensors")
_ARRAYS = (
    "template", "shape_basis", "expression_basis", "pose_basis", "joint_regressor", "skin_weights", "faces", "parts",
    "landmark_spread",
)  # fmt: skip
_LISTS = {"parents": int, "joint_names": str, "expression_names": str}
_NEEDED = ("template", "shape_basis", "expression_basis", "joint_regressor", "skin_weights", "faces")
_GEOMETRY = ("template", "shape_basis", "expression_basis", "pose_basis", "joint_regressor", "skin_weights", "faces")


def digest(head: HeadModel) -> str:
    """sha256 of the geometry in float32: two heads with the same digest give the same vertices."""
    h = hashlib.sha256()
    for name in _GEOMETRY:
        x = getattr(head, name)
        h.update(name.encode())
        h.update(repr(tuple(x.shape)).encode())
        h.update(x.detach().cpu().to(torch.float32 if x.is_floating_point() else torch.int64).numpy().tobytes())
    return h.hexdigest()


def save_head(head: HeadModel, path: Path, *, half: tuple[str, ...] = (), provenance: str = "") -> None:
    """Write a head; the fields named in `half` are stored as float16. The file appears whole or not at all."""
    arrays: dict[str, Tensor] = {}
    for name in _ARRAYS:
        x = getattr(head, name)
        if x is not None and not (name == "pose_basis" and not x.any()):  # zeros, a megabyte of them, are left out
            x = x.to(torch.int32) if not x.is_floating_point() else x.to(torch.float16 if name in half else torch.float32)
            arrays[name] = x.contiguous().cpu()
    for name, mask in head.masks.items():
        arrays[f"masks.{name}"] = mask.to(torch.uint8).cpu()
    for name in ("landmarks68", "landmarks_dense"):
        marks = getattr(head, name)
        if marks is not None:
            arrays[f"{name}.face"] = marks.face.to(torch.int32).cpu()
            arrays[f"{name}.bary"] = marks.bary.to(torch.float32).contiguous().cpu()
    meta = {
        "format": FORMAT,
        "name": head.name,
        "licence": head.licence,
        "provenance": provenance,
        "parents": list(head.parents),
        "joint_names": list(head.joint_names),
        "expression_names": list(head.expression_names),
    }
    with written(path) as part:
        save_file(arrays, part, {"flow3d": json.dumps(meta)})


def load_saved_head(path: Path) -> HeadModel:
    """Read a head that `save_head` wrote, floats as float32. Raises InputError where the file is not one."""
    try:
        with safe_open(path, "pt") as f:
            meta = parse_json((f.metadata() or {}).get("flow3d", "{}"), path.name)
            arrays = {k: f.get_tensor(k) for k in f.keys()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path.name}: not a readable safetensors file ({error}). Copy or download it again.") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise InputError(f"{path.name}: not a Flow3D head of the format {FORMAT}. Convert it with `flow3d convert-head`.")
    if lacking := [*_lacking(meta), *(n for n in _NEEDED if n not in arrays)]:
        raise InputError(f"{path.name}: not a whole Flow3D head: it lacks {', '.join(lacking)}. Convert it again with `flow3d convert-head`.")
    fields: dict = {"name": meta["name"], "licence": meta["licence"]}
    fields |= {k: tuple(meta[k]) for k in _LISTS}
    for name in _ARRAYS:
        if name in arrays:
            x = arrays[name]
            fields[name] = x.float() if x.is_floating_point() else x.long()
    if "pose_basis" not in fields:
        fields["pose_basis"] = torch.zeros(9 * (len(fields["parents"]) - 1), *fields["template"].shape)
    fields["masks"] = {k[6:]: x.bool() for k, x in arrays.items() if k.startswith("masks.")}
    for name in ("landmarks68", "landmarks_dense"):
        if f"{name}.face" in arrays and f"{name}.bary" in arrays:
            fields[name] = Landmarks(arrays[f"{name}.face"].long(), arrays[f"{name}.bary"].float())
    head = HeadModel(**fields)
    return replace(head, digest=digest(head))


def _lacking(meta: dict) -> list[str]:
    """The names of metadata that is not there, or not of its type."""
    lacks = [k for k in ("name", "licence") if not isinstance(meta.get(k), str)]
    for name, of in _LISTS.items():
        if not isinstance(values := meta.get(name), list) or not all(isinstance(v, of) for v in values):
            lacks.append(name)
    return lacks
