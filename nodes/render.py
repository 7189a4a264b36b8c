"""Render Head: depth, normals, a shaded picture and a mask of a moving head, for published control networks."""

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..flow3d.conditions.base import PosedHead
from ..flow3d.conditions.depth import inverse_depth, linear_depth, vertex_range
from ..flow3d.conditions.normals import ENCODINGS, normal_colours
from ..flow3d.errors import InputError
from ..flow3d.head.model import HeadModel
from ..flow3d.render.coverage import coverage
from ..flow3d.render.maps import normal_map
from ..flow3d.render.rasterize import Fragments
from ..flow3d.render.shade import shade
from ..flow3d.track import HeadTrack
from .batches import announce
from .checks import at_the_door, checked
from .flow import scaled
from .found import found_as
from .motion import HEAD_TOOLTIP, head_of, named
from .running import progress
from .sockets import Head, Track

INVERSE, LINEAR, METRES = "inverse", "linear", "metres"
DEPTHS = (INVERSE, LINEAR, METRES)
CLIP, FRAME = "clip", "frame"
ENDS = (CLIP, FRAME)


def depth_map(seen: Fragments, vertices: Tensor, depth: str, ends: tuple[float, float] | None) -> Tensor:
    """(1, H, W): one of DEPTHS; near and far are `ends`, or those of the frame's vertices (1, V, 3) where there are none."""
    if depth == METRES:
        return seen.depth
    near, far = ends or vertex_range(vertices)
    return (inverse_depth if depth == INVERSE else linear_depth)(seen, near, far)


def rendered(posed: PosedHead, depth: str, ends: str, normals: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Depth, normals and shaded pictures (T, H, W, 3) and the mask (T, H, W) of all frames, computed one by one."""
    n, head, camera = len(posed), posed.head, posed.camera
    depths, colours, pictures = (torch.empty(n, camera.height, camera.width, 3) for _ in range(3))
    mask = torch.empty(n, camera.height, camera.width)
    report, first, whole = progress(), 0, None
    if depth != METRES and ends == CLIP:
        first, whole = n, posed.depth_range(lambda done, _: report(done, 2 * n))
    for t in range(n):
        vertices = posed.vertices([t])
        seen = posed.seen(vertices)
        depths[t] = depth_map(seen, vertices, depth, whole)[0, ..., None]
        colours[t] = normal_colours(normal_map(vertices, head.faces, seen), normals)[0]
        pictures[t] = shade(head, vertices, camera, seen)[0]
        mask[t] = coverage(vertices, head.faces, camera)[0]
        report(first + t + 1, first + n)
    return depths, colours, pictures, mask


class RenderHead(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DRenderHead",
            display_name="Render Head",
            category="Flow3D/render",
            **found_as("depth map", "normal map", "face mesh"),
            description="Pictures of the head alone, frame by frame, for depth and normal ControlNets that exist today. Connect "
            "a track from FLAME Retarget or FLAME Edit.",
            inputs=[
                Track.Input("track", tooltip="What the head does, and the camera that sees it."),
                io.Int.Input(
                    "size",
                    default=512,
                    min=0,
                    max=4096,
                    step=8,
                    tooltip="Pixels across the short side; 0 for the size of the picture that the track was fitted to.",
                ),
                io.Combo.Input(
                    "depth",
                    options=list(DEPTHS),
                    default=INVERSE,
                    tooltip="inverse: near is white, as depth ControlNets (MiDaS, Depth Anything) read it. linear: the same in "
                    "equal steps of depth, as MagicPortrait has it. metres: camera depth, 0 off the head, not a picture.",
                ),
                io.Combo.Input(
                    "depth_range",
                    options=list(ENDS),
                    default=CLIP,
                    tooltip="Which frames' nearest point is white and farthest point black. clip: all together, so that "
                    "brightness does not flicker. frame: each for itself, as MagicPortrait has it.",
                ),
                io.Combo.Input(
                    "normals",
                    options=list(ENCODINGS),
                    default=ENCODINGS[0],
                    tooltip="controlnet: left is red, up green, front blue (SD1.5's normal ControlNets). opengl: right is red, "
                    "else the same. magicportrait: opengl's axes unscaled, values below 0 cut off, on black.",
                ),
                Head.Input("head", optional=True, tooltip=HEAD_TOOLTIP),
            ],
            outputs=[
                io.Image.Output(display_name="depth", tooltip="The depth map, three equal channels, black off the head."),
                io.Image.Output(display_name="normal", tooltip="The normal map in the chosen colours."),
                io.Image.Output(display_name="shaded", tooltip="The head in plain skin and light, on grey."),
                io.Mask.Output(
                    display_name="mask", tooltip="1 on the head, 0 beside it, shares of a pixel along the edge."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, depth: Any = None, depth_range: Any = None, normals: Any = None) -> bool | str:
        return at_the_door(cls, depth=depth, depth_range=depth_range, normals=normals)

    @classmethod
    @checked()
    def execute(
        cls, track: HeadTrack, size: int, depth: str, depth_range: str, normals: str, head: HeadModel | None = None
    ) -> io.NodeOutput:
        node = "Render Head"
        if len(track) == 0:
            raise InputError(f"{node}: the track has no frames. Connect one that has some.")
        head = head_of(node, head, track)
        camera = scaled(track.camera, size)
        announce(node, len(track), (camera.height, camera.width), 10, "Take fewer frames at a time, or a smaller size.")
        with torch.inference_mode(False), torch.no_grad(), named(node):
            posed = PosedHead(track, head, camera)
            return io.NodeOutput(*rendered(posed, depth, depth_range, normals))
