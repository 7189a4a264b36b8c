"""A head in motion as glTF 2.0 (.glb): morph targets, a skinned skeleton and a camera, animated.

glTF has y up and looks along -z, so a point p of our camera frame becomes F p with `F = diag(1, -1, -1)`, metres stay
metres, and the head's rotation becomes F times its axis-angle. The mesh is the shaped head about its root joint. Morph
targets are the expression basis, then FLAME's pose correctives (their weights are the entries of the joints' rotations
less the identity), then the offsets of each frame as principal components, as many as keep every point within 5e-6 m. All
weights lie in 0..1, as Blender's sliders do, which cut off the rest: what goes below 0 has a second target with the
opposite displacement, and what goes beyond 1 a larger one. The root joint carries rotation and translation.

Source: the glTF 2.0 specification (Khronos, ISO/IEC 12113), sections 3.6 to 3.11 and 4.4.
"""

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from ..errors import InputError
from ..fit.arkit import on_head
from ..head.model import EYEBALLS, FLIP, INNER_MOUTH, SKIN, HeadModel
from ..head.skinning import pose_feature, with_root
from ..render.shade import (
    CAVITY_COLOUR,
    EYE_WHITE,
    IRIS_ANGLE,
    IRIS_COLOUR,
    SKIN_COLOUR,
    TEETH_COLOUR,
    TONGUE_COLOUR,
    vertex_normals,
)
from ..track import HeadTrack
from .files import written

TOLERANCE = 5e-6
"""Metres: how far the offsets' principal components may leave a landmark or a vertex."""
LARGEST_FILE = 1 << 31
_FLOAT, _BYTE, _SHORT, _INT = 5126, 5121, 5123, 5125
_CODES = {np.dtype("<f4"): _FLOAT, np.dtype("u1"): _BYTE, np.dtype("<u2"): _SHORT, np.dtype("<u4"): _INT}
_TYPES = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (16,): "MAT4"}
_VERTICES, _INDICES = 34962, 34963  # bufferView.target


def save_gltf(track: HeadTrack, path: Path | str, head: HeadModel) -> None:
    """Write the head with all that the track does. The file appears whole or not at all.

    A track of one frame is written without an animation. The camera looks along the picture's middle: glTF has no shifted
    principal point.

    Raises InputError where `head` is not the track's, the track holds NaN or infinity, or the file would be larger than glTF
    allows.
    """
    track = on_head(track, head)
    other = head.digest and track.head_digest and head.digest != track.head_digest
    if other or track.expression.shape[1] != head.n_expression or track.joint_names != head.joint_names:
        raise InputError(
            f"glTF: the track belongs to head model '{track.head_name}', not to '{head.name}'. Give that model as the head."
        )
    _check_numbers(track)
    data = _Scene(head.to("cpu", torch.float64), track).glb()
    if len(data) >= LARGEST_FILE:
        raise InputError(f"glTF: {len(data):,} bytes are more than a .glb file may hold. Write fewer frames.")
    with written(Path(path)) as part:
        part.write_bytes(data)


def _check_numbers(track: HeadTrack) -> None:
    for name in track.__dataclass_fields__:
        value = getattr(track, name)
        if isinstance(value, Tensor) and value.is_floating_point() and not torch.isfinite(value).all():
            raise InputError(f"glTF: the track's {name} holds NaN or infinity. Fit or edit it again.")


class _Scene:
    """The glTF document of one track: JSON and the binary buffer behind it."""

    def __init__(self, head: HeadModel, track: HeadTrack):
        self.head, self.track = head, track
        self.binary = bytearray()
        self.views: list[dict] = []
        self.accessors: list[dict] = []
        self.joints = track.joints.detach().double().cpu()
        self.shape = track.shape.detach().double().cpu()[None]
        self.places = head.joints_at_rest(self.shape)[0]  # (J, 3) head frame
        self.targets, self.weights, self.names, self.base = self._morphs()

    def glb(self) -> bytes:
        """The file: a header, the JSON chunk, the binary chunk (section 4.4)."""
        document = self._document()
        text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        self.binary += b"\0" * (-len(self.binary) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(self.binary), b"BIN\0") + self.binary
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks

    def _document(self) -> dict[str, Any]:
        head, track = self.head, self.track
        mesh, skin, nodes, animation = self._mesh(), self._skin(), self._nodes(), self._animation()
        document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "Flow3D"},
            "scene": 0,
            "scenes": [{"name": "Flow3D", "nodes": [0, 1, len(nodes) - 1]}],
            "nodes": nodes,
            "meshes": [mesh],
            "skins": [skin],
            "materials": [_material(name, colour) for name, colour in _COLOURS.items()],
            "cameras": [_camera(track)],
            "accessors": self.accessors,
            "bufferViews": self.views,
            "extras": {"head": head.name, "licence": head.licence, "fps": track.fps},
        }
        if len(track) > 1:
            document["animations"] = [animation]
        document["buffers"] = [{"byteLength": len(self.binary)}]
        return document

    def _add(self, values: Tensor | np.ndarray, dtype: str = "<f4", target: int | None = None, ends: bool = False) -> int:
        """Append an array (N, ...) to the buffer; the index of its accessor."""
        array = np.ascontiguousarray(np.asarray(values), dtype)
        self.binary += b"\0" * (-len(self.binary) % 4)
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": array.nbytes}
        self.views.append(view if target is None else view | {"target": target})
        self.binary += array.tobytes()
        kind = _TYPES[array.shape[1:]]
        accessor = {"bufferView": len(self.views) - 1, "componentType": _CODES[array.dtype], "count": len(array), "type": kind}
        if ends:
            lowest, highest = (np.atleast_1d(x).tolist() for x in (array.min(0), array.max(0)))
            accessor |= {"min": lowest, "max": highest}
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    # --- the mesh

    def _morphs(self) -> tuple[Tensor, Tensor, list[str], Tensor]:
        """Displacements (K, V, 3), weights (T, K) and names of the morph targets, and the mesh (V, 3) at weights 0."""
        head, track = self.head, self.track
        base = head.shaped(self.shape)[0] - self.places[0]
        names = list(head.expression_names) or _numbered("expression", head.n_expression)
        groups = [(head.expression_basis, track.expression.detach().double().cpu(), names)]
        features = pose_feature(with_root(self.joints))
        used = (head.pose_basis.flatten(1).any(1) & (features.abs() > 1e-9).any(0)).nonzero()[:, 0]
        groups.append((head.pose_basis[used], features[:, used], _numbered("pose", len(used))))
        if track.offsets is not None:
            base = base + track.offsets.detach().double().cpu()
        for name in ("frame_offsets", "landmark_offsets"):
            moved = getattr(track, name)
            if moved is not None:
                mean, modes, weights = _principal(moved.detach().double().cpu())
                carry = head.carry_landmarks if name == "landmark_offsets" else _as_they_are
                base = base + carry(mean)
                groups.append((carry(modes), weights, _numbered(name.replace("_", " "), len(modes))))
        parts = [_sliders(*group) for group in groups]
        targets, weights = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts], 1)
        return targets, weights, [name for p in parts for name in p[2]], base

    def _mesh(self) -> dict[str, Any]:
        attributes = {
            "POSITION": self._add(self.base, target=_VERTICES, ends=True),
            "NORMAL": self._add(_unit(vertex_normals(self.base[None], self.head.faces)[0]), target=_VERTICES),
        }
        for i, (joints, weights) in enumerate(self._influences()):
            attributes |= {f"JOINTS_{i}": joints, f"WEIGHTS_{i}": weights}
        targets = [{"POSITION": self._add(x, target=_VERTICES, ends=True)} for x in self.targets]
        primitives = []
        for material, faces in enumerate(self._parts()):
            if len(faces):
                indices = self._add(faces.flatten(), "<u4", _INDICES)
                primitives.append({"attributes": attributes, "indices": indices, "material": material})
        mesh: dict[str, Any] = {"name": self.head.name, "primitives": primitives}
        if targets:
            for primitive in primitives:
                primitive["targets"] = targets
            mesh |= {"weights": self.weights[0].tolist(), "extras": {"targetNames": self.names}}
        return mesh

    def _parts(self) -> list[Tensor]:
        """Triangles (F, 3) of each of `_COLOURS`, in their order."""
        head, parts = self.head, self.head.face_parts
        iris = torch.zeros(len(head.faces), dtype=torch.bool)
        places = self.places - self.places[0]
        for joint in (j for j, name in enumerate(head.joint_names) if "eye" in name):
            mine = (parts == EYEBALLS) & (head.skin_weights[head.faces, joint] > 0.5).all(1)
            look = _unit(self.base[head.faces].mean(1) - places[joint])
            iris |= mine & (look[:, 2] > math.cos(math.radians(IRIS_ANGLE)))
        teeth, tongue = self._masked("upper_teeth") | self._masked("lower_teeth"), self._masked("tongue")
        mouth = (parts == INNER_MOUTH) & ~teeth & ~tongue
        return [head.faces[where] for where in (parts == SKIN, (parts == EYEBALLS) & ~iris, iris, mouth, teeth, tongue)]

    def _masked(self, name: str) -> Tensor:
        """(F,) bool: triangles of the inner mouth within a mask, which a head may lack."""
        inside = self.head.masks.get(name, torch.zeros(len(self.base), dtype=torch.bool)).cpu()
        return inside[self.head.faces].all(1) & (self.head.face_parts == INNER_MOUTH)

    def _influences(self) -> list[tuple[int, int]]:
        """Accessors of joints and weights, four joints in each set (section 3.7.3.3)."""
        weights = self.head.skin_weights
        sets = max(1, math.ceil(int((weights > 0).sum(1).max()) / 4))
        if weights.shape[1] < 4 * sets:
            weights = torch.nn.functional.pad(weights, (0, 4 * sets - weights.shape[1]))
        strongest, order = weights.topk(4 * sets, 1)
        strongest = (strongest / strongest.sum(1, keepdim=True)).float()
        order = torch.where(strongest > 0, order, 0)
        kind = "u1" if self.head.n_joints < 256 else "<u2"
        return [
            (self._add(order[:, i : i + 4], kind, _VERTICES), self._add(strongest[:, i : i + 4], target=_VERTICES))
            for i in range(0, 4 * sets, 4)
        ]

    # --- skeleton and motion

    def _skin(self) -> dict[str, Any]:
        inverse = np.tile(np.eye(4), (self.head.n_joints, 1, 1))
        inverse[:, 3, :3] = (self.places[0] - self.places).numpy()  # columns first
        joints = list(range(1, self.head.n_joints + 1))
        return {"joints": joints, "skeleton": 1, "inverseBindMatrices": self._add(inverse.reshape(-1, 16))}

    def _nodes(self) -> list[dict[str, Any]]:
        """The mesh, the joints in the head's order, the camera."""
        head, places = self.head, self.places.numpy()
        nodes: list[dict[str, Any]] = [{"name": head.name, "mesh": 0, "skin": 0}]
        for j, name in enumerate(head.joint_names):
            node: dict[str, Any] = {"name": name, "rotation": self._quaternions(j)[0].tolist()}
            shift = self._shifts()[0] if j == 0 else places[j] - places[head.parents[j]]
            node["translation"] = np.asarray(shift, np.float64).tolist()
            children = [i + 1 for i, parent in enumerate(head.parents) if parent == j]
            nodes.append(node | {"children": children} if children else node)
        return [*nodes, {"name": "camera", "camera": 0}]

    def _quaternions(self, joint: int) -> np.ndarray:
        """(T, 4) x, y, z, w of a joint, the shorter way from frame to frame."""
        flip = torch.tensor(FLIP, dtype=torch.float64)
        turns = self.track.rotation.detach().double().cpu() * flip if joint == 0 else self.joints[:, joint - 1]
        q = Rotation.from_rotvec(turns.numpy()).as_quat()
        flips = np.where((q[1:] * q[:-1]).sum(1) < 0, -1.0, 1.0)
        q[1:] *= np.cumprod(flips)[:, None]
        return q

    def _shifts(self) -> np.ndarray:
        return self.track.translation.detach().double().cpu().numpy() * FLIP

    def _animation(self) -> dict[str, Any]:
        if len(self.track) == 1:
            return {}
        times = self._add(np.arange(len(self.track)) / self.track.fps, ends=True)
        samplers: list[dict] = []
        channels: list[dict] = []

        def animate(node: int, path: str, values: Tensor | np.ndarray) -> None:
            samplers.append({"input": times, "output": self._add(values), "interpolation": "LINEAR"})
            channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": path}})

        animate(1, "translation", self._shifts())
        animate(1, "rotation", self._quaternions(0))
        for j in range(1, self.head.n_joints):
            if self.joints[:, j - 1].any():
                animate(1 + j, "rotation", self._quaternions(j))
        if len(self.targets):
            animate(0, "weights", self.weights.flatten())
        return {"name": "motion", "samplers": samplers, "channels": channels}


_COLOURS = {
    "skin": SKIN_COLOUR, "eyes": EYE_WHITE, "irises": IRIS_COLOUR, "mouth": CAVITY_COLOUR, "teeth": TEETH_COLOUR,
    "tongue": TONGUE_COLOUR,
}  # fmt: skip


def _material(name: str, colour: tuple[float, ...]) -> dict[str, Any]:
    linear = [round(float(c) ** 2.2, 4) for c in colour]  # glTF's colours are linear
    shine = 0.2 if name in ("eyes", "irises") else 0.6
    surface = {"baseColorFactor": [*linear, 1.0], "metallicFactor": 0.0, "roughnessFactor": shine}
    return {"name": name, "pbrMetallicRoughness": surface}


def _camera(track: HeadTrack) -> dict[str, Any]:
    camera = track.camera
    field = 2 * math.atan(camera.height / 2 / camera.focal)
    lens = {"yfov": field, "aspectRatio": camera.width / camera.height, "znear": 0.01, "zfar": 100.0}
    return {"name": "camera", "type": "perspective", "perspective": lens}


def _principal(moved: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points (T, N, 3) as a base (N, 3), modes (K, N, 3) and weights (T, K) in 0..1, each point within `TOLERANCE`."""
    mean = moved.mean(0)
    apart = (moved - mean).flatten(1)
    u, s, vt = torch.linalg.svd(apart, full_matrices=False)
    weights = u * s
    left, kept = apart, 0
    while kept < len(s) and left.unflatten(1, (-1, 3)).norm(dim=-1).max() > TOLERANCE:
        step = max(1, min(len(s) - kept, kept // 8))
        left = left - weights[:, kept : kept + step] @ vt[kept : kept + step]
        kept += step
    modes, weights = vt[:kept], weights[:, :kept]
    low, span = weights.amin(0), (weights.amax(0) - weights.amin(0)).clamp(min=1e-12)
    mean = mean + (low @ modes).unflatten(0, (-1, 3))
    return mean, (modes * span[:, None]).unflatten(1, (-1, 3)), (weights - low) / span


def _sliders(targets: Tensor, weights: Tensor, names: list[str]) -> tuple[Tensor, Tensor, list[str]]:
    """The same displacements with weights in 0..1: targets (K, V, 3), weights (T, K), names of what goes below 0 with a -."""
    above, below = weights.clamp(min=0), -weights.clamp(max=0)
    used = below.any(0).nonzero()[:, 0]
    parts = torch.cat([above, below[:, used]], 1)
    scale = parts.amax(0).clamp(min=1)
    return (
        torch.cat([targets, -targets[used]]) * scale[:, None, None],
        parts / scale,
        names + [names[i] + " -" for i in used.tolist()],
    )


def _as_they_are(points: Tensor) -> Tensor:
    return points


def _numbered(name: str, count: int) -> list[str]:
    return [f"{name} {i:03}" for i in range(count)]


def _unit(vectors: Tensor) -> Tensor:
    """Unit vectors; a vector without a direction looks out of the face."""
    length = vectors.norm(dim=-1, keepdim=True)
    return torch.where(length > 1e-12, vectors / length.clamp(min=1e-12), vectors.new_tensor([0.0, 0.0, 1.0]))
