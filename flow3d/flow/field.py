"""FlowField: the 3D flow of a clip. It holds how to compute it, and computes the frames it is asked for."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..camera import Camera
from ..errors import InputError
from ..head.files import digest
from ..head.model import HeadModel
from ..render.rasterize import Fragments, rasterize
from ..track import HeadTrack
from .check import SHAPING, check_camera, check_head, check_track
from .encode import FLOW_SCALE, VERSION, encode_pairs
from .sampling import Sampling
from .topology import topology_of
from .visibility import SourcePoints, seen_in

Frames = slice | list[int] | int
ALL = slice(None)


@dataclass(frozen=True, eq=False)
class FlowField:
    """The flow from every target frame back to the source, seen by one camera. Its length is the target's.

    Two fields are equal where their flow is. A pickled one holds the tracks, the head and numbers, and nothing computed.
    The arrays of its methods are on the head's device.

    Raises InputError where the tracks do not fit the head, hold values that are not finite, or stand behind the camera.
    """

    source: HeadTrack  # its first frame is the source portrait
    target: HeadTrack
    head: HeadModel
    camera: Camera  # sees source and target alike; its size is that of the maps
    sampling: Sampling = field(default_factory=Sampling)
    flow_scale: float = FLOW_SCALE

    def __post_init__(self) -> None:
        if len(self.source) == 0:
            raise InputError("3D flow: the source track has no frame. Fit the head to the source portrait first.")
        if not (math.isfinite(self.flow_scale) and self.flow_scale > 0):
            raise InputError(f"3D flow: the flow scale is {self.flow_scale}; it must be a number above 0.")
        check_head(self.head)
        check_camera(self.camera)
        check_track("source", self.source[:1], self.head)
        check_track("target", self.target, self.head)

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, frames: Frames) -> "FlowField":
        """The field of the chosen target frames."""
        return replace(self, target=self.target[_listed(frames)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FlowField) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __getstate__(self) -> dict[str, object]:
        state = {f.name: getattr(self, f.name) for f in fields(self)}
        return state | {"source": _owned(self.source[:1]), "target": _owned(self.target)}

    @cached_property
    def digest(self) -> str:
        """sha256 of all that the flow depends on: the same wherever and whenever the same field is made."""
        numbers = (VERSION, self.camera, self.sampling, self.flow_scale, self.head.digest or digest(self.head))
        sha = hashlib.sha256(repr(numbers).encode() + self.head.face_parts.cpu().numpy().tobytes())
        for track in (self.source[:1], self.target):
            for name in SHAPING:
                values = getattr(track, name)
                sha.update(f"{name} {None if values is None else (values.dtype, *values.shape)}".encode())
                if values is not None:
                    sha.update(values.detach().cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()

    def to(self, device: torch.device | str) -> "FlowField":
        """The same field, computed on `device`."""
        source, target = _moved(self.source, device), _moved(self.target, device)
        return replace(self, head=self.head.to(device), source=source, target=target)

    def resize(self, width: int, height: int) -> "FlowField":
        """The same view at another size in pixels: the intrinsics follow."""
        if width < 1 or height < 1:
            raise InputError(f"3D flow: the size is {width} x {height} pixels; it takes at least 1 x 1.")
        return replace(self, camera=self.camera.resized(width, height))

    def encode(self, frames: Frames = ALL, dtype: torch.dtype = torch.float32, out: Tensor | None = None) -> Tensor:
        """The flow in metres times `flow_scale`, channels x0 y0 z0 x1 y1 z1 ...

        Args:
            dtype: torch.float32 or torch.float16. out: where to write it instead, (n, 3 N, H, W) of either type with any
                strides, on the head's device.

        Returns:
            (n, 3 N, H, W): `out`, where it was given.
        """
        target = self._target(frames)
        if out is None:
            shape = (len(target), 3 * self.sampling.samples, self.camera.height, self.camera.width)
            out = torch.empty(shape, dtype=dtype, device=target.device)
        source, topology = self._source(len(target)), topology_of(self.head)
        return encode_pairs(topology, source, target, self.camera, self.sampling, self.flow_scale, out=out)

    def pixels(self, frames: Frames = ALL) -> Tensor:
        """(n, H, W, 2) float32: where in the source the surface seen at each pixel is, x and y in pixels.

        Pixel centres are at +0.5. Off the head a pixel keeps its own place.
        """
        return self._seen(frames).pixels

    def visibility(self, frames: Frames = ALL) -> Tensor:
        """(n, H, W) bool: whether that surface point can be seen in the source. False off the head."""
        return self._seen(frames).visible

    def moves(self, frames: Frames = ALL) -> Tensor:
        """(n, H, W, 3) float32: how far the surface seen at each pixel moved from the source, metres. 0 off the head."""
        target = self._target(frames)
        seen = rasterize(target, self.head.faces, self.camera)
        move = target - self._source(len(target))
        corners = self.head.faces[seen.triangle.clamp(min=0).long()]  # (n, H, W, 3)
        frame = torch.arange(len(target), device=move.device)[:, None, None, None]
        return torch.einsum("nhwc,nhwcx->nhwx", seen.bary, move[frame, corners])

    def head_mask(self, frames: Frames = ALL) -> Tensor:
        """(n, H, W) bool: where the target head is seen."""
        return self._fragments(frames).triangle >= 0

    def depth_range(self, frames: Frames = ALL) -> Tensor:
        """(n, 2): nearest and farthest depth of the target head's vertices, metres."""
        z = self._target(frames)[..., 2]
        return torch.stack([z.amin(1), z.amax(1)], 1)

    def depth_warning(self, busy: Callable[[], None] = lambda: None) -> str | None:
        """A sentence where the target head leaves the depths between `near` and `far`, else None. It poses every frame, and
        calls `busy` before each, which may raise to cancel."""
        ranges = torch.zeros(len(self), 2)
        for i in range(len(self)):
            busy()
            ranges[i] = self.depth_range([i])[0].cpu()
        near, far = self.sampling.near, self.sampling.far
        out = torch.where(~((ranges[:, 0] >= near) & (ranges[:, 1] <= far)))[0]
        if len(out) == 0:
            return None
        return (
            f"3D Flow Encode: in {len(out)} of {len(self)} frames (the first is {int(out[0])}) the head leaves the "
            f"depths from {near} to {far} m that are sampled: it reaches from {ranges[:, 0].min():.2f} to "
            f"{ranges[:, 1].max():.2f} m. Crop the portrait as Portrait Crop does, or change 'near' and 'far'."
        )

    def _target(self, frames: Frames) -> Tensor:
        """Vertices (n, V, 3). One frame at a time, for a frame must not depend on its company, not in its last bit."""
        chosen = torch.arange(len(self))[_listed(frames)].tolist()
        return torch.cat([self._source(0), *(self.target[[i]].vertices(self.head) for i in chosen)])

    def _source(self, count: int) -> Tensor:
        return self.source[:1].vertices(self.head).expand(count, -1, -1)

    def _fragments(self, frames: Frames) -> Fragments:
        return rasterize(self._target(frames), self.head.faces, self.camera)

    def _seen(self, frames: Frames) -> SourcePoints:
        return seen_in(self._source(1), self.head.faces, self.camera, self._fragments(frames))


def _listed(frames: Frames) -> slice | list[int]:
    return [frames] if isinstance(frames, int) else frames


def _moved(track: HeadTrack, device: torch.device | str) -> HeadTrack:
    tensors: dict[str, Any] = {f.name: v.to(device) for f in fields(track) if isinstance(v := getattr(track, f.name), Tensor)}
    return replace(track, **tensors)


def _owned(track: HeadTrack) -> HeadTrack:
    """The track with memory of its own: a slice would be pickled with all of the clip it was cut from."""
    tensors: dict[str, Any] = {f.name: v.clone() for f in fields(track) if isinstance(v := getattr(track, f.name), Tensor)}
    return replace(track, **tensors)
