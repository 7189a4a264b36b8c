"""FLAME's arrays, as its files name them, to a HeadModel. Nothing is taken on trust: every shape and value is checked.

FLAME (Li et al. 2017): 5,023 vertices, 300 identity and 100 expression components, five joints, pose correctives.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from ..errors import InputError
from .files import digest
from .model import EYEBALLS, FLAME_JOINTS, FLAME_PARENTS, SKIN, HeadModel

N_IDENTITY = 300
"""`shapedirs` holds the identity components first, then the expression components."""

KEYS = ("v_template", "shapedirs", "posedirs", "weights", "J_regressor", "f", "kintree_table")
_NO_PARENT = 4294967295  # -1 as uint32
_JOINTS = len(FLAME_JOINTS)


def head_from_flame(arrays: Mapping[str, np.ndarray], name: str) -> HeadModel:
    """The head model that FLAME's arrays describe, without landmarks.

    Args:
        arrays: by FLAME's keys (`KEYS`; `kintree_table` may be absent): `v_template` (V, 3) metres, `shapedirs`
            (V, 3, 300 + E), `posedirs` (V, 3, 36), `weights` (V, 5), `J_regressor` (5, V), `f` (F, 3).
        name: the file's name without its ending.

    Raises InputError naming the array and what is wrong with it.
    """
    missing = [k for k in KEYS if k not in arrays and k != "kintree_table"]
    if missing:
        raise InputError(f"it lacks {', '.join(missing)}, which every FLAME model has")
    template = arrays["v_template"]
    v = len(template) if template.ndim == 2 else -1
    expected = {
        "v_template": (v, 3),
        "shapedirs": (v, 3, None),
        "posedirs": (v, 3, 9 * (_JOINTS - 1)),
        "weights": (v, _JOINTS),
        "J_regressor": (_JOINTS, v),
    }
    floats = {key: _floats(key, arrays[key], shape) for key, shape in expected.items()}
    basis = floats["shapedirs"].permute(2, 0, 1).contiguous()
    if len(basis) <= N_IDENTITY:
        raise InputError(
            f"shapedirs has {len(basis)} components; FLAME has {N_IDENTITY} for identity followed by those for expression"
        )
    _check_skeleton(arrays.get("kintree_table"))
    _check_sizes(floats)
    head = HeadModel(
        name=name,
        template=floats["v_template"],
        shape_basis=basis[:N_IDENTITY],
        expression_basis=basis[N_IDENTITY:],
        pose_basis=floats["posedirs"].permute(2, 0, 1).contiguous(),
        joint_regressor=floats["J_regressor"],
        skin_weights=floats["weights"] / floats["weights"].sum(1, keepdim=True),
        faces=_faces(arrays["f"], v),
        licence=licence_of(name),
    )
    head = with_eyeballs(head)
    return replace(head, digest=digest(head))


def with_eyeballs(head: HeadModel) -> HeadModel:
    """The head with its eyeballs as a part and as masks: what the eye joints move by more than half."""
    left, right = (head.skin_weights[:, head.joint_names.index(eye)] > 0.5 for eye in ("left_eye", "right_eye"))
    eyeballs = left | right
    parts = torch.where(eyeballs[head.faces].all(1), EYEBALLS, SKIN)
    masks = {"eyeballs": eyeballs, "left_eyeball": left, "right_eyeball": right}
    return replace(head, parts=parts, masks=head.masks | masks)


def licence_of(name: str) -> str:
    """What FLAME's site says of the file with this name. A renamed file cannot be told apart: the user must know."""
    plain = name.lower().replace("_", "").replace("-", "").replace(" ", "")
    if "open" in plain and "2023" in plain:
        return "CC-BY-4.0 (FLAME 2023 Open)"
    if "2023" in plain:
        return "FLAME 2023's own licence, non-commercial"
    if "2020" in plain or plain == "genericmodel":
        return "FLAME 2020's own licence, non-commercial"
    return "unknown: FLAME 2020 and 2023 are non-commercial, FLAME 2023 Open is CC-BY-4.0"


def _floats(key: str, array: np.ndarray, shape: tuple[int | None, ...]) -> torch.Tensor:
    """The array as float32, after a look at its shape, its type and its values."""
    fits = len(array.shape) == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits or 0 in array.shape:
        wanted = ", ".join("K" if n is None else "V" if n < 0 else str(n) for n in shape)
        raise InputError(f"{key} has shape {array.shape}, expected ({wanted})")
    if array.dtype.kind != "f":
        raise InputError(f"{key} holds {array.dtype}, expected floating-point numbers")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused with the rest
        single = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
    if not bool(torch.isfinite(single).all()):
        raise InputError(f"{key} holds values that are not finite (NaN or infinity)")
    return single


def _faces(array: np.ndarray, vertices: int) -> torch.Tensor:
    if array.ndim != 2 or array.shape[1] != 3 or not len(array) or array.dtype.kind not in "iu":
        raise InputError(f"f has shape {array.shape} and type {array.dtype}, expected (F, 3) of whole numbers")
    if int(array.min()) < 0 or int(array.max()) >= vertices:
        raise InputError(f"f names vertex {int(array.max())} (lowest {int(array.min())}) of {vertices}")
    return torch.from_numpy(array.astype(np.int64))


def _check_skeleton(kintree: np.ndarray | None) -> None:
    """`kintree_table` (2, 5): each joint's parent, then the joints themselves. The root's parent is -1, perhaps as uint32."""
    if kintree is None:
        return
    if kintree.shape != (2, _JOINTS) or kintree.dtype.kind not in "iu":
        raise InputError(
            f"kintree_table has shape {kintree.shape}, expected (2, {_JOINTS}): FLAME has the joints "
            f"{', '.join(FLAME_JOINTS)}; is this a body model?"
        )
    parents = tuple(-1 if int(p) in (-1, _NO_PARENT) else int(p) for p in kintree[0])
    if parents != FLAME_PARENTS:
        raise InputError(f"kintree_table has the parents {parents}, FLAME's are {FLAME_PARENTS}")


def _check_sizes(floats: Mapping[str, torch.Tensor]) -> None:
    """A head in metres, weights that are shares, joints that are means of vertices."""
    size = float((floats["v_template"].amax(0) - floats["v_template"].amin(0)).max())
    if not 0.1 < size < 1.0:
        raise InputError(f"v_template is {size:.3g} long; a head in metres is 0.2 to 0.5")
    weights = floats["weights"]
    if float(weights.min()) < -1e-4 or float((weights.sum(1) - 1).abs().max()) > 1e-3:
        raise InputError("weights has rows that are not shares of 1")
    if float((floats["J_regressor"].sum(1) - 1).abs().max()) > 1e-3:
        raise InputError("J_regressor has rows that do not sum to 1")
