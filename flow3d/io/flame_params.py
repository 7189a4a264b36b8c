"""FLAME parameters as face trackers write them (DECA, EMOCA, SMIRK, VHAP), as tracks of a FLAME head.

The trackers' axes are FLAME's own: x to the subject's left, y up, z out of the face. They pose `R (v - J0) + J0`, with J0
the root joint of the head with its expression and offsets; our `exp(rotation) F (v - J0) + translation` is the same with
`rotation = F r` and the root's place carried along. Neck, jaw and eyes are the same axis-angles in both.

| tracker | keys | FLAME | camera |
|---|---|---|---|
| DECA | shape, exp, pose (global and jaw), cam | 2020 | weak perspective (s, tx, ty) on a square of 224 pixels |
| EMOCA | files shape.npy, exp.npy, pose.npy, one folder a frame; or shapecode, expcode, posecode, cam | 2020 | as DECA's |
| SMIRK | shape_params, expression_params, pose_params, jaw_params, eyelid_params, cam | 2020 | as DECA's |
| VHAP | shape, expr, rotation, translation, neck_pose, jaw_pose, eyes_pose, static_offset | 2023, 2020 | pinhole |

Sources: DECA `decalib/deca.py` (`encode`), `decalib/models/FLAME.py` (`forward`), `decalib/utils/util.py`
(`batch_orth_proj`); EMOCA `gdl_apps/EMOCA/utils/io.py` (`save_codes`); SMIRK `src/smirk_encoder.py`, `src/FLAME/FLAME.py`;
VHAP `vhap/model/tracker.py` (`save_result`, and RT for videos), `vhap/model/flame.py`, `vhap/export_as_nerf_dataset.py`.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..camera import DEFAULT_FIELD_OF_VIEW, Camera
from ..errors import InputError
from ..fit.arkit_map import ARKIT_NAMES, arkit_map
from ..head.model import FLAME_JOINTS, FLIP, HeadModel
from ..rotations import from_matrix, to_matrix
from ..track import HeadTrack
from .arrays import read_arrays
from .json_text import json_in

CROP = 224
"""Pixels: the side of the square that DECA, EMOCA and SMIRK look at. Where it lay in the photo, their files do not say."""
DISTANCE = 0.95
"""Metres from the camera to the head's middle where a file knows no camera."""
MOST_FRAMES = 200_000
_MOST_BYTES = 4 << 30
_TEETH = 120  # vertices that VHAP adds behind FLAME's
_F = torch.tensor(FLIP, dtype=torch.float64)


@dataclass(frozen=True)
class _Layout:
    """A tracker's names for what all of them know."""

    tracker: str
    versions: tuple[str, ...]
    shape: str
    expression: str
    needed: tuple[str, ...]
    others: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.shape, self.expression, *self.needed, *self.others)


_LAYOUTS = (
    _Layout("VHAP", ("2023", "2020"), "shape", "expr", ("rotation", "translation", "neck_pose", "jaw_pose", "eyes_pose"),
            ("static_offset", "dynamic_offset", "focal_length", "image_size")),
    _Layout("SMIRK", ("2020",), "shape_params", "expression_params", ("pose_params", "jaw_params"), ("eyelid_params", "cam")),
    _Layout("EMOCA", ("2020",), "shapecode", "expcode", ("posecode",), ("cam",)),
    _Layout("DECA or EMOCA", ("2020",), "shape", "exp", ("pose",), ("cam",)),
)  # fmt: skip
_MESHES = ("verts", "trans_verts", "vertices")  # DECA's .mat files hold these instead
_KEYS = {key for layout in _LAYOUTS for key in layout.keys} | set(_MESHES)
_WIDTHS = {
    "pose": 6, "posecode": 6, "pose_params": 3, "jaw_params": 3, "eyelid_params": 2, "cam": 3,
    "rotation": 3, "translation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6,
}  # fmt: skip

Values = dict[str, np.ndarray]


def load_flame_params(
    path: Path | str,
    head: HeadModel,
    fps: float = 25.0,
    field_of_view: float = DEFAULT_FIELD_OF_VIEW,
    within: Path | None = None,
) -> HeadTrack:
    """The parameters in a file or folder as a track of `head`, which must be the FLAME version they belong to.

    Shapes of several frames are averaged. DECA's weak perspective becomes a pinhole that agrees with it at the depth of the
    head's middle. SMIRK's eyelids become the head's eyeBlink, as far as its expression basis can close the eyes. FLAME
    takes its joints from the head with its expression, ours from the neutral one: jaw and eyes turn about places that
    may differ by what the expression moves them.

    Args:
        path: an npz, npy, pkl, safetensors, mat or json file; `transforms.json` of VHAP; a folder of one npz file a frame, or
            of EMOCA.
        fps: frames a second; the files do not say.
        field_of_view: degrees across the picture's short side, where the file knows no focal length.
        within: the folder that VHAP's files must lie in, whatever `transforms.json` says; None: the one beside its own.

    Raises InputError, naming the file and the array, where it is no such file, has wrong shapes, NaN or infinities, or
    belongs to another version of FLAME.
    """
    path = Path(path)
    layout, values, cameras = _gathered(path, within)
    _check_head(path, layout, head)
    part = _Part(path, layout, values, head.to("cpu", torch.float64), field_of_view, cameras)
    return part.track(head, fps)


def flame_version(head: HeadModel) -> str:
    """"2020", "2023" or "2023 Open" by the name of the head's file; empty where it does not tell."""
    plain = re.sub(r"[\s_-]", "", head.name.lower())
    if "2023" in plain:
        return "2023 Open" if "open" in plain else "2023"
    return "2020" if "2020" in plain or plain == "genericmodel" else ""


def _check_head(path: Path, layout: _Layout, head: HeadModel) -> None:
    belongs = f"{path.name}: {layout.tracker}'s parameters belong to FLAME {' or '.join(layout.versions)}"
    if head.joint_names != FLAME_JOINTS or head.expression_names:
        raise InputError(f"{belongs}, but the head model is '{head.name}', which is no FLAME. Load that FLAME file as the head.")
    version = flame_version(head)
    if version and version not in layout.versions:
        raise InputError(
            f"{belongs}, but the head model '{head.name}' is FLAME {version}, to which they do not carry over. "
            "Load the version they belong to."
        )


# --- files -----------------------------------------------------------------------------------------------------------


def _gathered(path: Path, within: Path | None) -> tuple[_Layout, Values, list[dict] | None]:
    """The layout, the values of all frames together, and VHAP's camera of each frame where they are known."""
    if path.is_dir():
        layout, values = _folder(path)
        return layout, values, None
    if path.suffix.lower() == ".json" and (frames := _vhap_frames(path)) is not None:
        files = [_inside(path, frame["flame_param_path"], within) for frame in frames]
        layout, values = _stacked(path, _read(path, files))
        return layout, values, frames
    if path.suffix.lower() == ".npy":
        layout, values = _folder(path.parent)
        return layout, values, None
    values = read_arrays(path, _KEYS)
    return _layout(path, values), values, None


def _folder(folder: Path) -> tuple[_Layout, Values]:
    """EMOCA's folder of one frame, the folder of those folders, or a folder of one npz file a frame."""
    if (folder / "exp.npy").is_file():
        return _stacked(folder, [(folder, _emoca(folder))])
    files = sorted(folder.glob("*.npz"), key=_counted)
    frames = _read(folder, files)
    frames = frames or [(f.parent, _emoca(f.parent)) for f in sorted(folder.glob("*/exp.npy"), key=_counted)]
    if not frames:
        raise InputError(f"{folder.name}: no .npz files and no folders with exp.npy in this folder.")
    return _stacked(folder, frames)


def _emoca(folder: Path) -> Values:
    files = [folder / f"{name}.npy" for name in ("shape", "exp", "pose", "cam")]
    return {f.stem: read_arrays(f, _KEYS)[f.stem] for f in files if f.is_file()}


def _counted(path: Path) -> list:
    """Sorts frame_9 before frame_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.as_posix())]


def _stacked(path: Path, frames: Sequence[tuple[Path, Values]]) -> tuple[_Layout, Values]:
    """Files of one frame each as one: per-frame values follow each other, those of the clip are the first file's."""
    layout = _layout(frames[0][0], frames[0][1])
    if len(frames) > MOST_FRAMES:
        raise InputError(f"{path.name}: {len(frames):,} frames are too many.")
    joined = {}
    for key, first in frames[0][1].items():
        if key not in layout.keys or key in ("static_offset", "focal_length", "image_size"):
            joined[key] = first
            continue
        missing = next((f.name for f, values in frames if key not in values), None)
        if missing is not None:
            raise InputError(f"{missing}: it lacks {key}, which {frames[0][0].name} has.")
        rows = [_even_rows(f, key, values[key], 3 if key == "dynamic_offset" else 2) for f, values in frames]
        odd = next((f.name for (f, _), row in zip(frames, rows, strict=True) if row.shape[1:] != rows[0].shape[1:]), None)
        if odd is not None:
            raise InputError(f"{odd}: {key} has another shape than in {frames[0][0].name}.")
        joined[key] = np.concatenate(rows)
    return layout, joined


def _layout(path: Path, values: Values) -> _Layout:
    for layout in _LAYOUTS:
        if layout.expression in values and layout.needed[0] in values:
            missing = [key for key in (layout.shape, *layout.needed) if key not in values]
            if missing:
                raise InputError(f"{path.name}: {layout.tracker}'s parameters, but it lacks {', '.join(missing)}. Save these too.")
            return layout
    if any(key in values for key in _MESHES):
        raise InputError(
            f"{path.name}: it holds the vertices that DECA made, not its parameters. Save the dictionary that encode() gives."
        )
    known = "; ".join(f"{one.tracker}: {', '.join((one.shape, one.expression, *one.needed))}" for one in _LAYOUTS)
    raise InputError(f"{path.name}: no FLAME parameters that Flow3D knows. Give it the names of a tracker ({known}).")


def _vhap_frames(path: Path) -> list[dict] | None:
    """The frames of the first camera of a NeRF data set that VHAP exported, in order of time; None for other JSON files."""
    try:
        if path.stat().st_size > 1 << 28:
            raise InputError(f"{path.name}: {path.stat().st_size:,} bytes are too many for a list of frames.")
        data = json_in(path)
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read ({error.strerror}). Check the file.") from error
    frames = data.get("frames") if isinstance(data, dict) else None
    if not isinstance(frames, list):
        return None
    usable = [f for f in frames if isinstance(f, dict) and isinstance(f.get("flame_param_path"), str)]
    if not usable:
        raise InputError(f"{path.name}: no frame in it names a flame_param_path; export with VHAP's mode 'param'.")
    usable = [f for f in usable if f.get("camera_index") == usable[0].get("camera_index")][: MOST_FRAMES + 1]
    return sorted(usable, key=lambda f: f["timestep_index"] if isinstance(f.get("timestep_index"), int) else 0)


def _read(path: Path, files: Sequence[Path]) -> list[tuple[Path, Values]]:
    """The values of each file, while all of them together are of a size that a list of frames can have."""
    read, size = [], 0
    for file in files:
        values = read_arrays(file, _KEYS)
        size += sum(value.nbytes for value in values.values())
        if size > _MOST_BYTES:
            raise InputError(f"{path.name}: its frames hold more than {_MOST_BYTES >> 30} GB. Use fewer of them.")
        read.append((file, values))
    return read


def _inside(path: Path, name: str, within: Path | None) -> Path:
    """The file that a list of frames names. Data sets that were combined lie beside each other.

    The text is judged before the file system is asked: Windows signs in where a path names another computer.
    """
    beside = path.absolute().parent.parent
    file = Path(os.path.normpath(path.absolute().parent / name)) if name.isprintable() else Path()
    try:
        if file.is_relative_to(beside):
            file = file.resolve()
            if file.is_relative_to(beside.resolve()) and (within is None or file.is_relative_to(within.resolve())):
                return file
    except (OSError, RuntimeError):  # a circle of links, or a name that is too long
        pass
    raise InputError(f"{path.name}: it names '{name[:100]}', which lies outside its data set. Export the data set again.")


def _even_rows(path: Path, key: str, value: np.ndarray, dims: int) -> np.ndarray:
    """(K,) or (T, K) as (T, K), (V, 3) or (T, V, 3) as (T, V, 3), more axes of length 1 or not: finite numbers."""
    if value.dtype.kind not in "biuf" or not value.size or not np.isfinite(value).all():
        raise InputError(f"{path.name}: {key} holds no numbers, or NaN or infinity. Save it again.")
    tail = value.shape[max(value.ndim - dims + 1, 0) :]
    lead = value.shape[: max(value.ndim - dims + 1, 0)]
    if len(tail) != dims - 1 or sum(n > 1 for n in lead) > 1:
        wanted = "points, 3" if dims == 3 else "values"
        raise InputError(f"{path.name}: {key} has shape {value.shape}, expected (frames, {wanted}).")
    return np.array(value, np.float64).reshape(-1, *tail)  # a copy: a file's own bytes cannot be written to


# --- what they mean --------------------------------------------------------------------------------------------------


class _Part:
    """One file's values, checked, and where they put the head."""

    def __init__(
        self, path: Path, layout: _Layout, values: Values, head: HeadModel, field_of_view: float, cameras: list[dict] | None
    ):
        self.path, self.layout, self.values, self.head, self.cameras = path, layout, values, head, cameras
        self.field_of_view = field_of_view
        self.expression = self._padded(layout.expression, head.n_expression)
        self.frames = len(self.expression)
        if self.frames > MOST_FRAMES:
            raise InputError(f"{path.name}: {self.frames:,} frames are too many.")
        self.shape = self._padded(layout.shape, head.n_shape).mean(0)
        self.offsets = self._points("static_offset", 1)
        self.frame_offsets = self._points("dynamic_offset", self.frames)

    def track(self, head: HeadModel, fps: float) -> HeadTrack:
        if not 0 < fps < 1000:
            raise InputError(f"{self.path.name}: {fps} is no frame rate.")
        rotation, joints = self._turns()
        camera, rotation, translation = self._placed(rotation)
        expression = self.expression
        if "eyelid_params" in self.values:
            expression = expression + self._eyelids()
        return HeadTrack(
            shape=self.shape.float(),
            expression=expression.float(),
            joints=joints.float(),
            rotation=rotation.float(),
            translation=translation.float(),
            camera=camera,
            fps=float(fps),
            joint_names=head.joint_names,
            offsets=None if self.offsets is None else self.offsets[0].float(),
            frame_offsets=None if self.frame_offsets is None else self.frame_offsets.float(),
            head_name=head.name,
            head_digest=head.digest,
        )

    def _rows(self, key: str) -> Tensor:
        """(T, width) of a value of each frame; one row stands for all frames."""
        rows = _even_rows(self.path, key, self.values[key], 2)
        width = _WIDTHS.get(key)
        if width is not None and rows.shape[1] != width:
            raise InputError(f"{self.path.name}: {key} has shape {self.values[key].shape}, expected (frames, {width}).")
        if hasattr(self, "frames") and len(rows) != self.frames:
            if len(rows) != 1:
                raise InputError(f"{self.path.name}: {key} has {len(rows)} frames, {self.layout.expression} has {self.frames}.")
            rows = rows.repeat(self.frames, 0)
        return torch.from_numpy(np.ascontiguousarray(rows))

    def _padded(self, key: str, width: int) -> Tensor:
        """(T, width): trackers use the first of FLAME's components."""
        rows = _even_rows(self.path, key, self.values[key], 2)
        if rows.shape[1] > width and rows[:, width:].any():
            raise InputError(
                f"{self.path.name}: {key} has {rows.shape[1]} components, the head model '{self.head.name}' has {width}."
            )
        rows = rows[:, :width]
        return torch.from_numpy(np.pad(rows, ((0, 0), (0, width - rows.shape[1]))))

    def _points(self, key: str, frames: int) -> Tensor | None:
        """(frames, V, 3) metres; VHAP's teeth, which FLAME lacks, are left out."""
        if key not in self.values:
            return None
        points, v = _even_rows(self.path, key, self.values[key], 3), len(self.head.template)
        if points.shape not in ((frames, v, 3), (frames, v + _TEETH, 3)):
            raise InputError(
                f"{self.path.name}: {key} has shape {self.values[key].shape}, expected ({frames}, {v}, 3), or {_TEETH} more "
                "points for the teeth."
            )
        return torch.from_numpy(np.ascontiguousarray(points[:, :v]))

    def _turns(self) -> tuple[Tensor, Tensor]:
        """The head's turn (T, 3) in FLAME's axes, and the joints (T, 4, 3) neck, jaw, left eye, right eye."""
        none = torch.zeros(self.frames, 3, dtype=torch.float64)
        if self.layout.tracker == "VHAP":
            eyes = self._rows("eyes_pose")
            parts = [self._rows("neck_pose"), self._rows("jaw_pose"), eyes[:, :3], eyes[:, 3:]]
            return self._rows("rotation"), torch.stack(parts, 1)
        if self.layout.tracker == "SMIRK":
            return self._rows("pose_params"), torch.stack([none, self._rows("jaw_params"), none, none], 1)
        pose = self._rows(self.layout.needed[0])
        return pose[:, :3], torch.stack([none, pose[:, 3:], none, none], 1)

    def _eyelids(self) -> Tensor:
        """(T, E) of the eyelids, left and right, 0..1."""
        lids = self._rows("eyelid_params").clamp(0, 1)
        columns = arkit_map(self.head).expression.double()
        return lids @ columns[[ARKIT_NAMES.index("eyeBlinkLeft"), ARKIT_NAMES.index("eyeBlinkRight")]]

    def _roots(self) -> tuple[Tensor, Tensor]:
        """The root joint as the tracker has it (T, 3), with expression and offsets, and as ours (3,), without."""
        rest = self.head.joint_regressor[0]
        moved = torch.einsum("v,evx->ex", rest, self.head.expression_basis)
        root = self.head.joints_at_rest(self.shape[None])[0, 0]
        theirs = root + self.expression @ moved
        for points in (self.offsets, self.frame_offsets):
            if points is not None:
                theirs = theirs + torch.einsum("v,tvx->tx", rest, points)
        return theirs, root

    def _placed(self, turn: Tensor) -> tuple[Camera, Tensor, Tensor]:
        """The camera, and rotation and translation (T, 3) of the head as this camera sees it."""
        theirs, ours = self._roots()
        if self.layout.tracker == "VHAP":
            camera, axes, place = self._vhap_camera()  # (T, 3, 3) world to camera, (T, 3) the camera in the world
            matrix = axes @ to_matrix(turn) @ torch.diag(_F)
            root = (axes @ (theirs + self._rows("translation") - place)[..., None])[..., 0]
            rotation = from_matrix(matrix)
        else:
            camera = Camera.from_field_of_view(CROP, CROP, self.field_of_view)
            rotation = turn * _F
            root = self._weak(camera, rotation, theirs)
        moved = (to_matrix(rotation) @ ((ours - theirs) * _F)[..., None])[..., 0]
        return camera, rotation, root + moved

    def _weak(self, camera: Camera, rotation: Tensor, root: Tensor) -> Tensor:
        """Where the root stands (T, 3) so that the head's middle is seen as by x = s (X + tx), y = -s (Y + ty) in -1..1."""
        middle = self.head.shaped(self.shape[None])[0].mean(0)
        reach = (to_matrix(rotation) @ ((middle - root) * _F)[..., None])[..., 0]  # from the root to the middle
        if "cam" not in self.values:
            return ((root - middle) * _F).mean(0) + torch.tensor([0.0, 0.0, DISTANCE]).double().expand_as(root)
        cam = self._rows("cam")
        if (cam[:, 0] <= 0).any():
            frame = int((cam[:, 0] <= 0).nonzero()[0])
            scale = float(cam[frame, 0])
            raise InputError(f"{self.path.name}: cam has the scale {scale:g} in frame {frame}; it must be positive.")
        depth = 2 * camera.focal / (cam[:, 0] * camera.width)
        side = root[:, :2] + cam[:, 1:]
        return torch.stack([side[:, 0], -side[:, 1], depth - reach[:, 2]], 1)

    def _vhap_camera(self) -> tuple[Camera, Tensor, Tensor]:
        """The camera, the turns (T, 3, 3) from the world's axes to ours, and its places (T, 3) in the world, metres.

        VHAP's cameras look along -z with y up, so F stands between; a video's one stands at (0, 0, 1).
        """
        if self.cameras is None:
            axes = torch.diag(_F).expand(self.frames, 3, 3)
            return self._vhap_pinhole(), axes, torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
        first = self.cameras[0]
        try:
            poses = torch.tensor([f["transform_matrix"] for f in self.cameras], dtype=torch.float64)
            numbers = [float(first[key]) for key in ("fl_x", "cx", "cy", "w", "h")]
            if not np.isfinite(numbers).all():
                raise ValueError
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"{self.path.name}: its frames lack a camera: fl_x, cx, cy, w, h and transform_matrix. Export the data set again."
            ) from error
        turns = poses[:, :3, :3] if poses.shape[1:] == (4, 4) else poses
        orthogonal = turns.shape[1:] == (3, 3) and torch.allclose(turns @ turns.mT, torch.eye(3).double(), atol=1e-3)
        if not orthogonal or not torch.isfinite(poses).all():
            raise InputError(f"{self.path.name}: a transform_matrix is no rotation and translation (4, 4).")
        focal, cx, cy, width, height = numbers
        camera = Camera(focal, cx, cy, round(width), round(height))
        _check_camera(self.path, camera)
        return camera, torch.diag(_F) @ turns.mT, poses[:, :3, 3]

    def _vhap_pinhole(self) -> Camera:
        """VHAP's focal length is in parts of the picture's longer side."""
        size = np.asarray(self.values.get("image_size", [512, 512]), np.float64).ravel()
        if len(size) != 2 or not np.isfinite(size).all() or not (size >= 1).all() or (size > 1e5).any():
            raise InputError(f"{self.path.name}: image_size is {size[:4]}, expected height and width in pixels.")
        height, width = (int(n) for n in size)
        if "focal_length" not in self.values:
            return Camera.from_field_of_view(width, height, self.field_of_view)
        focal = np.asarray(self.values["focal_length"], np.float64).ravel()
        if len(focal) != 1:
            raise InputError(f"{self.path.name}: focal_length has {len(focal)} values, expected 1.")
        camera = Camera(float(focal[0]) * max(height, width), width / 2, height / 2, width, height)
        _check_camera(self.path, camera)
        return camera


def _check_camera(path: Path, camera: Camera) -> None:
    if camera.fault:
        raise InputError(f"{path.name}: {camera.fault}. Export the data set again.")
