"""HeadTrack: what a head does over time. One shape, and for each frame its expression, joints and pose."""

from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from .camera import Camera
from .head.model import FLAME_JOINTS, HeadModel, to_camera
from .render.light import N_HARMONICS

FORMAT_VERSION = 1
DETECTED, INTERPOLATED, HELD = 0, 1, 2
"""Values of `HeadTrack.state`."""
PER_FRAME = (
    "expression", "joints", "rotation", "translation", "confidence", "state", "frame_offsets", "landmark_offsets", "error",
    "rotation_deviation", "translation_deviation",
)  # fmt: skip
"""Fields of `HeadTrack` with a row for each frame."""
STATE_NAMES = ("detected", "interpolated", "held")


@dataclass(frozen=True, eq=False, repr=False)
class HeadTrack:
    """The motion of one head. A photo is a track of one frame.

    Raises ValueError where the shapes disagree.
    """

    shape: Tensor  # (S,)
    expression: Tensor  # (T, E)
    joints: Tensor  # (T, J - 1, 3) axis-angle in radians, named by joint_names[1:]
    rotation: Tensor  # (T, 3) axis-angle in radians, camera frame
    translation: Tensor  # (T, 3) metres, camera frame: where the root joint stands
    camera: Camera
    fps: float = 25.0
    confidence: Tensor | None = None  # (T,) 0..1; None: all 1
    state: Tensor | None = None  # (T,) int64; None: all DETECTED
    joint_names: tuple[str, ...] = FLAME_JOINTS
    offsets: Tensor | None = None  # (V, 3) metres on the neutral head: what the shape basis cannot express
    frame_offsets: Tensor | None = None  # (T, V, 3)
    landmark_offsets: Tensor | None = None  # (T, 478, 3) metres, head frame: what the model missed at each landmark
    error: Tensor | None = None  # (T,) mean reprojection error of the fit, hundredths of the distance between the eyes
    rotation_deviation: Tensor | None = None  # (T,) radians: the fit's posterior standard deviation
    translation_deviation: Tensor | None = None  # (T,) metres, likewise
    shape_deviation: Tensor | None = None  # (S,), likewise
    texture: Tensor | None = None  # (V, 3) the skin's linear albedo 0..1 at each vertex
    light: Tensor | None = None  # (9, 3) distant light's radiance in real spherical harmonics, camera frame (`render/light.py`)
    head_name: str = ""
    head_digest: str = ""

    def __post_init__(self) -> None:
        t = len(self.expression)
        wrong = [
            f"{name} is {tuple(getattr(self, name).shape)}, not {shape}"
            for name, shape in (
                ("joints", (t, len(self.joint_names) - 1, 3)),
                ("rotation", (t, 3)),
                ("translation", (t, 3)),
            )
            if tuple(getattr(self, name).shape) != shape
        ]
        wrong += [
            f"{name} has {len(value)} frames, not {t}"
            for name in PER_FRAME
            if (value := getattr(self, name)) is not None and len(value) != t
        ]
        wrong += self._wrong_looks()
        if wrong:
            raise ValueError("HeadTrack: " + "; ".join(wrong))
        if self.confidence is None:
            object.__setattr__(self, "confidence", torch.ones(t))
        if self.state is None:
            object.__setattr__(self, "state", torch.zeros(t, dtype=torch.int64))

    def _wrong_looks(self) -> list[str]:
        wrong = []
        if self.texture is not None:
            vertices = len(self.texture) if self.offsets is None else len(self.offsets)
            if self.texture.shape != (vertices, 3):
                wrong.append(f"texture is {tuple(self.texture.shape)}, not {(vertices, 3)}")
        if self.light is not None and self.light.shape != (N_HARMONICS, 3):
            wrong.append(f"light is {tuple(self.light.shape)}, not {(N_HARMONICS, 3)}")
        return wrong

    def __repr__(self) -> str:
        """Short: ComfyUI puts every input of a failed node into its message."""
        return f"<HeadTrack of '{self.head_name}', {len(self)} frames at {self.fps:g} a second>"

    def __len__(self) -> int:
        return len(self.expression)

    def __getitem__(self, frames: slice | Tensor | list[int]) -> "HeadTrack":
        """The same head at the chosen frames: a slice, a list or an index tensor."""
        return replace(self, **{n: getattr(self, n)[frames] for n in PER_FRAME if getattr(self, n) is not None})

    def joint(self, name: str) -> Tensor:
        """(T, 3) axis-angle of the joint `name`. Raises ValueError where there is none of that name."""
        return self.joints[:, self.joint_names.index(name) - 1]

    @property
    def neck(self) -> Tensor:
        return self.joint("neck")

    @property
    def jaw(self) -> Tensor:
        return self.joint("jaw")

    @property
    def eyes(self) -> Tensor:
        """(T, 2, 3): left eye, right eye."""
        return torch.stack([self.joint("left_eye"), self.joint("right_eye")], 1)

    def vertices(self, head: HeadModel, frames: slice = slice(None)) -> Tensor:
        """The chosen frames' vertices (n, V, 3) in the camera frame, metres."""
        part = self[frames]
        n = len(part)
        moves = [m for m in (part.offsets, part.frame_offsets) if m is not None]
        if part.landmark_offsets is not None:
            moves.append(head.carry_landmarks(part.landmark_offsets))
        offsets = reduce(torch.add, moves) if moves else None
        posed, root = head.vertices(part.shape.expand(n, -1), part.expression, part.joints, offsets)
        return to_camera(posed, root, part.rotation, part.translation)
