"""ARKit's 52 expressions on any head: which coefficients and joint turns each name means there, and the way back.

A head that knows the names needs no map. On any other, such as FLAME with its principal components, each name is solved
once against the open head, whose expressions are sculpted by name: the open head's displacement of the dense landmarks
is laid onto the other head by the similarity that aligns the two neutral faces (Umeyama 1991), and explained there by the
expression basis (ridge regression) and, for the names of the jaw, by a turn of the jaw joint. Eyes turn about their joints.

Turns are axis-angle vectors in the head frame and are proportional to the weight: the log of the joint's rotation is linear
in the weights, so that both directions are linear maps.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.optimize import least_squares, lsq_linear
from torch import Tensor

from ..errors import InputError
from ..head.files import OPEN_HEAD, load_saved_head
from ..head.model import HeadModel
from ..io.files import written
from ..paths import cache_folder
from .angles import FULL_JAW
from .mediapipe_points import BLENDSHAPES, IRISES, OVAL

ARKIT_NAMES = (*BLENDSHAPES, "tongueOut")
"""Apple's ARBlendShapeLocation names, sorted."""
LOOK = {"In": 21.7, "Out": 20.8, "Up": 10.4, "Down": 16.0}
"""Degrees of the eye joint that carry the open head's irises where its full eyeLook expressions do."""

_FORMAT = "flow3d-arkit-map-1"
_RIDGE = 3e-3  # of the mean square displacement of the surface, against that of the landmarks
_JAW = {"jawOpen": (0,), "jawLeft": (0, 1, 2), "jawRight": (0, 1, 2)}  # names that turn the jaw joint, and about which axes
_SPREAD = 5e-3  # metres: a landmark whose views disagree by this much counts half
_REST = 3e-5  # metres: a landmark displacement too small to tell a weight from 0


@dataclass(frozen=True, eq=False)
class ArkitMap:
    """What each of `ARKIT_NAMES` at weight 1 adds to a head's coefficients."""

    expression: Tensor  # (52, E)
    joints: Tensor  # (52, J - 1, 3) axis-angle in radians, root left out
    explained: Tensor  # (52,) 0..1: the share of the open head's displacement (mean square) that this head can follow

    def apply(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (T, 52) in the order of `ARKIT_NAMES` to expression (T, E) and joint turns (T, J - 1, 3)."""
        return weights @ self.expression.to(weights), torch.einsum("tk,kjx->tjx", weights, self.joints.to(weights))

    def knows(self, name: str) -> bool:
        """Whether the head can do anything of that name."""
        k = ARKIT_NAMES.index(name)
        return bool(self.expression[k].any() or self.joints[k].any())


def arkit_map(head: HeadModel) -> ArkitMap:
    """The map of a head: the identity where it has the names, else solved on landmarks and kept in ~/.cache/flow3d/arkit.

    A head with neither names nor landmarks takes the jaw's opening and the gaze alone.
    """
    if set(head.expression_names) & set(ARKIT_NAMES) or head.landmarks_dense is None or not head.n_expression:
        return _by_name(head)
    file = cache_folder() / "arkit" / f"{head.name}.{head.digest[:16]}.safetensors" if head.digest else None
    key = _key(head)
    kept = _read(file, key, head) if file is not None else None
    if kept is not None:
        return kept
    solved = _solved(head.to("cpu", torch.float64), load_saved_head(OPEN_HEAD).to(dtype=torch.float64))
    if file is not None:
        _keep(solved, file, key)
    return solved


def arkit_weights(head: HeadModel, expression: Tensor, joints: Tensor) -> Tensor:
    """The way back: (T, 52) weights in 0..1 whose landmarks come closest to those of a head's coefficients.

    Least squares with bounds and a small ridge. Expressions that the head has by name are taken as they are; a turned
    jaw and turned eyes are explained in addition. The neck belongs to the head's pose and is left out.

    Args:
        expression: (T, E). joints: (T, J - 1, 3) axis-angle, root left out.
    """
    mapping = arkit_map(head)
    named = _named(head)
    start = np.zeros((len(expression), len(ARKIT_NAMES)))
    for name, e in named.items():
        start[:, ARKIT_NAMES.index(name)] = expression[:, e].double().cpu().clamp(0, 1)
    free = torch.tensor([n != "neck" for n in head.joint_names[1:]])
    turns = (joints.double().cpu() * free[:, None]).flatten(1).numpy()
    wanted = np.concatenate([np.zeros_like(expression.cpu()) if named else expression.double().cpu().numpy(), turns], 1)
    moves = torch.cat([mapping.expression.double(), mapping.joints.double().flatten(1)], 1).cpu().numpy()  # (52, P)
    seen = _seen(head.to("cpu", torch.float64))  # (N, P)
    design = seen @ moves.T
    known = np.abs(design).max(0) > _REST
    lengths = np.full(int(known.sum()), _REST * np.sqrt(len(seen) / 3))
    system = np.concatenate([design[:, known], np.diag(lengths)])
    q, r = np.linalg.qr(system)  # 51 rows instead of 1,400 for each frame
    goals = (wanted @ seen.T) @ q[: len(seen)]
    offset = start[:, known] @ r.T
    out = start.copy()
    for t in range(len(start)):
        if np.abs(wanted[t]).max(initial=0) > 0:
            out[t, known] = lsq_linear(r, offset[t] + goals[t], (0, 1), method="bvls").x
    return torch.as_tensor(out.clip(0, 1), dtype=expression.dtype, device=expression.device)


def _named(head: HeadModel) -> dict[str, int]:
    return {name: e for e, name in enumerate(head.expression_names) if name in ARKIT_NAMES}


def _by_name(head: HeadModel) -> ArkitMap:
    named = _named(head)
    expression = torch.zeros(len(ARKIT_NAMES), head.n_expression)
    for name, e in named.items():
        expression[ARKIT_NAMES.index(name), e] = 1
    joints = _eye_turns(head)
    joints[[ARKIT_NAMES.index(name) for name in named]] = 0
    if "jawOpen" not in named and "jaw" in head.joint_names:
        joints[ARKIT_NAMES.index("jawOpen"), head.joint_names.index("jaw") - 1, 0] = np.radians(FULL_JAW)
    known = expression.any(1) | joints.flatten(1).any(1)
    return ArkitMap(expression, joints, known.float())


def _eye_joint(head: HeadModel, name: str) -> int | None:
    joint = ("left" if name.endswith("Left") else "right") + "_eye"
    return head.joint_names.index(joint) if joint in head.joint_names else None


def _eye_turns(head: HeadModel) -> Tensor:
    """(52, J - 1, 3): the turns of the eye joints that the eyeLook names mean. +x looks down, +y to the subject's left."""
    joints = torch.zeros(len(ARKIT_NAMES), head.n_joints - 1, 3)
    for k, name in enumerate(ARKIT_NAMES):
        if name.startswith("eyeLook") and (joint := _eye_joint(head, name)) is not None:
            way = name.removeprefix("eyeLook").removesuffix("Left").removesuffix("Right")
            to_left = 1.0 if name.endswith("Left") == (way == "Out") else -1.0
            axis, sign = {"In": (1, to_left), "Out": (1, to_left), "Up": (0, -1.0), "Down": (0, 1.0)}[way]
            joints[k, joint - 1, axis] = sign * np.radians(LOOK[way])
    return joints


def _gaze(head: HeadModel, joint: int, moved: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """The turn (3,) of an eye joint about x and y that moves the irises as (478, 3) says, and what it moves."""
    columns = torch.stack([head.dense.on(_velocity(head, joint, axis), head.faces) for axis in (0, 1)], -1).numpy()
    irises = list(IRISES)
    angles = np.linalg.lstsq(columns[irises].reshape(-1, 2), moved[irises].ravel(), rcond=None)[0]
    return torch.tensor([*angles, 0.0], dtype=torch.float32), columns @ angles


def _solved(head: HeadModel, model: HeadModel) -> ArkitMap:
    """The map of `head` against `model`, which has the names; both float64 on the CPU."""
    certainty = (_certainty(head) * _certainty(model)).numpy()
    mine, other = (h.dense.on(h.template, h.faces).numpy() for h in (head, model))
    turn = _similarity(other, mine, certainty / certainty.sum())
    moves = model.dense.on(model.expression_basis, model.faces).numpy() @ turn.T  # (52, 478, 3)
    solver = _Solver(head, certainty)
    expression = torch.zeros(len(ARKIT_NAMES), head.n_expression)
    joints = torch.zeros(len(ARKIT_NAMES), head.n_joints - 1, 3)
    explained = torch.zeros(len(ARKIT_NAMES))
    for name, e in _named(model).items():
        if moves[e].any():  # no landmark lies on the tongue
            k = ARKIT_NAMES.index(name)
            expression[k], joints[k], explained[k] = solver(name, moves[e])
    return ArkitMap(expression, joints, explained)


class _Solver:
    """Explains displacements of the dense landmarks by a head's own expression and joints."""

    def __init__(self, head: HeadModel, certainty: np.ndarray):
        self.head, self.certainty = head, certainty
        self.rest = head.dense.on(head.template, head.faces).numpy()
        self.basis = head.dense.on(head.expression_basis, head.faces).numpy()  # (E, 478, 3)
        weights = certainty.copy()
        weights[list(IRISES)] = 0  # irises follow the eye joints as far as the expression does not move them already
        self.root = np.sqrt(weights / weights.sum())[:, None]
        self.design = (self.basis * self.root).reshape(len(self.basis), -1)
        self.ridge = head.expression_basis.flatten(1).numpy() * np.sqrt(_RIDGE / len(head.template))
        gram = self.design @ self.design.T + self.ridge @ self.ridge.T
        gram += 1e-9 * np.trace(gram) / len(gram) * np.eye(len(gram))  # components that move nothing
        self.to_expression = np.linalg.solve(gram, self.design)  # (E, 1434)

    def __call__(self, name: str, moved: np.ndarray) -> tuple[Tensor, Tensor, float]:
        """Landmarks moved by (478, 3) metres: expression (E,), joint turns (J - 1, 3), and the share explained."""
        head, joints = self.head, torch.zeros(self.head.n_joints - 1, 3)
        followed = np.zeros_like(moved)
        if name in _JAW and "jaw" in head.joint_names:
            angles = least_squares(lambda a: self._cost(moved - self._jaw(name, a)), np.zeros(len(_JAW[name])), x_scale=0.1).x
            joints[head.joint_names.index("jaw") - 1, list(_JAW[name])] = torch.from_numpy(angles).float()
            followed = self._jaw(name, angles)
        expression = self.to_expression @ ((moved - followed) * self.root).ravel()
        followed = followed + np.tensordot(expression, self.basis, 1)
        if name.startswith("eyeLook") and (joint := _eye_joint(head, name)) is not None:
            joints[joint - 1], turned = _gaze(head, joint, moved - followed)
            followed = followed + turned
        left, all_of_it = (self.certainty @ (x**2).sum(1) for x in (moved - followed, moved))
        return torch.from_numpy(expression).float(), joints, max(0.0, float(1 - left / all_of_it))

    def _cost(self, moved: np.ndarray) -> np.ndarray:
        """What the best expression leaves: residuals of the landmarks and of the ridge."""
        goal = (moved * self.root).ravel()
        expression = self.to_expression @ goal
        return np.concatenate([goal - expression @ self.design, expression @ self.ridge])

    def _jaw(self, name: str, angles: np.ndarray) -> np.ndarray:
        """(478, 3) metres by which the landmarks move when the jaw joint turns."""
        head = self.head
        joints, none = head.template.new_zeros(1, head.n_joints - 1, 3), head.template.new_zeros(1, 0)
        joints[0, head.joint_names.index("jaw") - 1, list(_JAW[name])] = torch.from_numpy(angles)
        return head.dense.on(head.vertices(none, none, joints)[0][0], head.faces).numpy() - self.rest


def _seen(head: HeadModel) -> np.ndarray:
    """(N, E + 3 (J - 1)): metres by which each coefficient moves the dense landmarks (all vertices of a head without them)
    at rest, per unit or radian."""
    turns = [_velocity(head, j, axis) for j in range(1, head.n_joints) for axis in range(3)]
    moves = torch.cat([head.expression_basis, torch.stack(turns)])
    if head.landmarks_dense is None:
        return moves.flatten(1).T.numpy()
    points = head.dense.on(moves, head.faces) * _certainty(head).sqrt()[:, None]
    return points.flatten(1).T.numpy()


def _velocity(head: HeadModel, joint: int, axis: int) -> Tensor:
    """(V, 3) metres per radian about an axis of the head frame, at rest.

    A joint turns what hangs on it and on its descendants about its own place; pose correctives follow to first order.
    """
    about = torch.eye(3, dtype=head.dtype)[axis]
    place = head.joints_at_rest(head.template.new_zeros(1, 0))[0, joint]
    share = head.skin_weights[:, [i for i in range(joint, head.n_joints) if _hangs_on(head, i, joint)]].sum(1)
    velocity = torch.linalg.cross(about.expand_as(head.template), head.template - place) * share[:, None]
    generator = torch.linalg.cross(about.expand(3, 3), torch.eye(3, dtype=head.dtype)).T  # [about]x
    return velocity + torch.einsum("p,pvx->vx", generator.flatten(), head.pose_basis[9 * (joint - 1) : 9 * joint])


def _certainty(head: HeadModel) -> Tensor:
    """(478,) weights 0..1: less where the views disagreed on a landmark's place, least on the oval, which slides."""
    weights = head.dense.found.to(head.dtype)
    if head.landmark_spread is not None:
        weights = weights / (1 + (head.landmark_spread.nan_to_num(nan=1e-2) / _SPREAD) ** 2)
    weights[list(OVAL)] *= 0.2
    return weights


def _hangs_on(head: HeadModel, joint: int, ancestor: int) -> bool:
    while joint > ancestor:
        joint = head.parents[joint]
    return joint == ancestor


def _similarity(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Scale times rotation (3, 3) of the similarity that carries points (N, 3) onto others (Umeyama 1991, eq. 40-42)."""
    a, b = source - weights @ source, target - weights @ target
    u, s, vt = np.linalg.svd(b.T @ (a * weights[:, None]))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    return (u * sign) @ vt * (s @ sign) / (weights @ (a**2).sum(1))


@lru_cache
def _digest_of_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _key(head: HeadModel) -> str:
    """What the map depends on: the head's geometry and landmarks, and the open head's file."""
    marks = hashlib.sha256()
    for x in head.dense:
        marks.update(x.detach().cpu().contiguous().numpy().tobytes())
    return f"{head.digest} {marks.hexdigest()} {_digest_of_file(OPEN_HEAD)}"


def _keep(solved: ArkitMap, file: Path, key: str) -> None:
    arrays = {n: getattr(solved, n).contiguous() for n in ArkitMap.__dataclass_fields__}
    try:
        with written(file) as part:
            save_file(arrays, part, {"flow3d": json.dumps({"format": _FORMAT, "key": key})})
    except (OSError, InputError):
        pass  # nowhere to keep it: it is solved again next time


def _read(file: Path, key: str, head: HeadModel) -> ArkitMap | None:
    """The kept map; None where there is none for this head and these landmarks, or it cannot be read."""
    n, e, j = len(ARKIT_NAMES), head.n_expression, head.n_joints - 1
    try:
        with safe_open(file, "pt") as f:
            meta = json.loads((f.metadata() or {}).get("flow3d", "null"))
            kept = ArkitMap(*(f.get_tensor(name) for name in ArkitMap.__dataclass_fields__))
    except (SafetensorError, OSError, ValueError):
        return None
    whole = kept.expression.shape == (n, e) and kept.joints.shape == (n, j, 3) and kept.explained.shape == (n,)
    finite = whole and all(bool(torch.isfinite(getattr(kept, name)).all()) for name in ArkitMap.__dataclass_fields__)
    return kept if finite and meta == {"format": _FORMAT, "key": key} else None
