"""The ComfyUI nodes: one file a family. Importing this needs ComfyUI."""

from comfy_api.latest import ComfyExtension, io

from .appearance import AppearanceReference, LoadAppearanceNetwork
from .crop import PasteBack, PortraitCropNode
from .fit import FLAMEFit
from .flow import FlowEncode, FlowVisualize
from .flow_controlnet import FlowControlNetApply, LoadFlowControlNet
from .folders import register_folders
from .head import LoadHeadModel
from .live import register_routes
from .motion import FLAMEEdit, FLAMERetarget
from .motion_module import LoadMotionModule
from .render import RenderHead
from .report import TrackReport
from .temporal_sampler import TemporalSampler
from .timing import FLAMEMix, FLAMETime
from .track import LoadHeadTrack, SaveHeadTrack
from .tracks import FlowToTracks
from .warp import FlowWarpPreview, FlowWarpVideo

NODES: list[type[io.ComfyNode]] = [
    LoadHeadModel,
    FLAMEFit,
    FLAMEEdit,
    FLAMERetarget,
    FLAMEMix,
    FLAMETime,
    TrackReport,
    PortraitCropNode,
    PasteBack,
    SaveHeadTrack,
    LoadHeadTrack,
    FlowEncode,
    FlowVisualize,
    FlowToTracks,
    RenderHead,
    FlowWarpPreview,
    FlowWarpVideo,
    LoadFlowControlNet,
    FlowControlNetApply,
    LoadAppearanceNetwork,
    AppearanceReference,
    LoadMotionModule,
    TemporalSampler,
]


class Flow3DExtension(ComfyExtension):
    """What the package's entry point gives to ComfyUI."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        register_folders()
        register_routes()
        return NODES
