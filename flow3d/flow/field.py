"""FlowField: the 3D flow of a clip. It holds how to compute it, and computes the frames it is asked for."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..camera import Camera
from ..errors import InputError
from ..head.model import HeadModel
from ..render.rasterize import Fragments, rasterize
from ..track import HeadTrack
from .encode import FLOW_SCALE, encode_pairs
from .sampling import Sampling
from .topology import topology_of
from .visibility import SourcePoints, seen_in

Frames = slice | list[int] | int
ALL = slice(None)


@dataclass(frozen=True, eq=False)
class FlowField:
    """The flow from every target frame back to the source, seen by one camera. Its length is the target's.

    The arrays of its methods are on the head's device. Raises InputError where the tracks do not fit the head.
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
        for name, track in (("source", self.source), ("target", self.target)):
            if track.head_digest and self.head.digest and track.head_digest != self.head.digest:
                raise InputError(
                    f"3D flow: the {name} track was made with the head model '{track.head_name}', not with "
                    f"'{self.head.name}' as it is here. Fit it again with this head, or load the head it was made with."
                )

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, frames: Frames) -> "FlowField":
        """The field of the chosen target frames."""
        return replace(self, target=self.target[_listed(frames)])

    def encode(self, frames: Frames = ALL) -> Tensor:
        """(n, 3 N, H, W) float32: the flow in metres times `flow_scale`, channels x0 y0 z0 x1 y1 z1 ..."""
        target = self._target(frames)
        return encode_pairs(
            topology_of(self.head), self._source(len(target)), target, self.camera, self.sampling, self.flow_scale
        )

    def pixels(self, frames: Frames = ALL) -> Tensor:
        """(n, H, W, 2) float32: where in the source the surface seen at each pixel is, x and y in pixels.

        Pixel centres are at +0.5. Off the head a pixel keeps its own place.
        """
        return self._seen(frames).pixels

    def visibility(self, frames: Frames = ALL) -> Tensor:
        """(n, H, W) bool: whether that surface point can be seen in the source. False off the head."""
        return self._seen(frames).visible

    def head_mask(self, frames: Frames = ALL) -> Tensor:
        """(n, H, W) bool: where the target head is seen."""
        return self._fragments(frames).triangle >= 0

    def depth_range(self, frames: Frames = ALL) -> Tensor:
        """(n, 2): nearest and farthest depth of the target head's vertices, metres."""
        z = self._target(frames)[..., 2]
        return torch.stack([z.amin(1), z.amax(1)], 1)

    def depth_warning(self) -> str | None:
        """A sentence where the target head leaves the depths between `near` and `far`, else None."""
        ranges = torch.cat([self.depth_range([i]) for i in range(len(self))]) if len(self) else torch.zeros(0, 2)
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
