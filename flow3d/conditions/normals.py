"""Normal maps of a head in the colours that published networks read.

With n the normal, x to the right, y up and z towards the viewer:

- `opengl`: (n + 1) / 2 as red, green, blue: right is red, up is green, towards the viewer is blue.
- `controlnet`: the same with left as red. So are the maps of both normal ControlNets for SD1.5: Bae's estimator has its x
  axis the other way round, and the older maps are gradients of MiDaS's inverse depth, which falls to the right where a
  surface faces right.
- `magicportrait`: n itself, with everything below 0 cut off, black off the head: MagicPortrait saves its normals unscaled.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..flow.field import ALL, Frames
from ..render.maps import normal_map
from .base import PosedHead

OPENGL, CONTROLNET, MAGICPORTRAIT = "opengl", "controlnet", "magicportrait"
ENCODINGS = (CONTROLNET, OPENGL, MAGICPORTRAIT)
_SIGNS = {OPENGL: (1.0, -1.0, -1.0), CONTROLNET: (-1.0, -1.0, -1.0), MAGICPORTRAIT: (1.0, -1.0, -1.0)}
"""From the camera frame (x right, y down, z forward) to red, green and blue."""
_TOWARDS_VIEWER = (0.0, 0.0, -1.0)


def normal_colours(normals: Tensor, encoding: str) -> Tensor:
    """Colours (..., 3) 0..1 of normals (..., 3) in the camera frame, 0 off the head. Off the head the surface counts as flat,
    facing the viewer; MagicPortrait's is black. Raises InputError for no known encoding."""
    if encoding not in ENCODINGS:
        raise InputError(f"There is no normal encoding '{encoding}'. There are {', '.join(ENCODINGS)}.")
    signs = normals.new_tensor(_SIGNS[encoding])
    if encoding == MAGICPORTRAIT:
        return (normals * signs).clamp(0, 1)
    flat = torch.where((normals == 0).all(-1, keepdim=True), normals.new_tensor(_TOWARDS_VIEWER), normals)
    return (flat * signs + 1) / 2


@dataclass(frozen=True, eq=False)
class Normals:
    """Smooth normals as colours, see ENCODINGS."""

    posed: PosedHead
    encoding: str = CONTROLNET

    @property
    def channels(self) -> int:
        return 3

    def __len__(self) -> int:
        return len(self.posed)

    def encode(self, frames: Frames = ALL) -> Tensor:
        """(n, 3, H, W) float32, 0..1: red, green, blue."""
        vertices = self.posed.vertices(frames)
        normals = normal_map(vertices, self.posed.head.faces, self.posed.seen(vertices))
        return normal_colours(normals, self.encoding).movedim(-1, 1).contiguous()
