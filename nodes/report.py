"""Track Report: a track as plots and in words."""

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..flow3d.fit.arkit import ARKIT
from ..flow3d.head.load import load_head
from ..flow3d.head.model import HeadModel
from ..flow3d.render.report import track_plot, track_summary
from ..flow3d.track import HeadTrack
from .checks import checked
from .found import found_as
from .motion import HEAD_TOOLTIP
from .running import to_image
from .sockets import Head, Track


class TrackReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DTrackReport",
            display_name="Track Report",
            category="Flow3D/track",
            **found_as("tracking quality", "pose plot"),
            description="How well a head was followed, and what it does: plots of error, pose, place and expressions over time, "
            "with interpolated and held frames marked.",
            is_output_node=True,
            inputs=[
                Track.Input("track", tooltip="The track to look at: from FLAME Fit, or edited, retargeted or loaded."),
                io.Int.Input("width", default=1024, min=768, max=4096, step=8, tooltip="Pixels of the plot's width."),
                Head.Input("head", optional=True, tooltip=HEAD_TOOLTIP + " Without it other heads' expressions have numbers."),
            ],
            outputs=[
                io.Image.Output(display_name="plot", tooltip="Error or confidence, rotation, place and expressions over time."),
                io.String.Output(display_name="summary", tooltip="The same in words and figures, a fact on a line."),
            ],
        )

    @classmethod
    @checked()
    def execute(cls, track: HeadTrack, width: int, head: HeadModel | None = None) -> io.NodeOutput:
        with torch.inference_mode(False), torch.no_grad():
            if head is None and track.head_name != ARKIT:
                head = load_head("open")
            error = getattr(track, "error", None)
            error = None if error is None else np.asarray(torch.as_tensor(error).cpu(), np.float64)
            picture = to_image(track_plot(track, head, error, width))[None]
            summary = track_summary(track, head, error)
        return io.NodeOutput(picture, summary, ui=ui.PreviewText(summary))
