"""What a control network can be steered by: images of a clip's frames, computed when they are asked for."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..camera import Camera
from ..flow.check import check_camera, check_head, check_track
from ..flow.field import ALL, Frames
from ..head.model import HeadModel
from ..render.rasterize import Fragments, rasterize
from ..track import HeadTrack


class Condition(Protocol):
    """An encoder of a clip. Its length is the number of frames."""

    @property
    def channels(self) -> int: ...

    def __len__(self) -> int: ...

    def encode(self, frames: Frames = ALL) -> Tensor:
        """(n, channels, H, W) float32 of the chosen frames, on the head's device."""
        ...


@dataclass(frozen=True, eq=False)
class PosedHead:
    """A head that moves before a camera: what most conditions are pictures of.

    Raises InputError where the track does not fit the head, holds values that are not finite, or stands behind the camera.
    """

    track: HeadTrack
    head: HeadModel
    camera: Camera  # its size is that of the images

    def __post_init__(self) -> None:
        check_head(self.head)
        check_camera(self.camera)
        check_track("rendered", self.track, self.head)

    def __len__(self) -> int:
        return len(self.track)

    def vertices(self, frames: Frames = ALL) -> Tensor:
        """(n, V, 3) camera frame, metres. One frame at a time, for a frame must not depend on its company."""
        chosen = torch.arange(len(self))[[frames] if isinstance(frames, int) else frames].tolist()
        posed = [self.track[[i]].vertices(self.head) for i in chosen]
        return torch.cat(posed) if posed else self.head.template.new_empty(0, *self.head.template.shape)

    def seen(self, vertices: Tensor) -> Fragments:
        """What the camera sees of vertices (n, V, 3)."""
        return rasterize(vertices, self.head.faces, self.camera)

    def depth_range(self, progress: Callable[[int, int], None] | None = None) -> tuple[float, float]:
        """The nearest and the farthest depth of the head's vertices over the whole clip, metres. It poses every frame.

        Args:
            progress: called with (done, total) after each frame; it may raise to cancel.
        """
        near, far = math.inf, 0.0
        for t in range(len(self)):
            z = self.vertices([t])[..., 2]
            near, far = min(near, float(z.min())), max(far, float(z.max()))
            if progress:
                progress(t + 1, len(self))
        return near, far
