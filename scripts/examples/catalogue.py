"""Every example by its name."""

from collections.abc import Callable
from typing import Any

from .appearance_only import appearance_only
from .depth_normal_controlnets import depth_normal_controlnets
from .edit_still import edit_still
from .fg_portrait import fg_portrait
from .flow_pictures import flow_pictures
from .flow_warp_preview import flow_warp_preview
from .long_clip import long_clip
from .mix_drivers import mix_drivers
from .refine_unseen import refine_unseen
from .sheet import Sheet
from .tracks_for_wan import tracks_for_wan
from .two_people import two_people

_ALL = (
    flow_warp_preview, edit_still, mix_drivers, two_people, long_clip, flow_pictures,
    fg_portrait, appearance_only, depth_normal_controlnets, refine_unseen, tracks_for_wan,
)  # fmt: skip
EXAMPLES: dict[str, Callable[[Sheet], None]] = {example.__name__: example for example in _ALL}


def drawn(name: str, object_info: dict[str, Any]) -> Sheet:
    """The example's sheet, for the nodes of a ComfyUI that gave this `/object_info`."""
    sheet = Sheet(name, object_info)
    EXAMPLES[name](sheet)
    return sheet
