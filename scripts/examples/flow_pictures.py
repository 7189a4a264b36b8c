"""The 3D flow to look at: every view of it, and its figures."""

from .blocks import words
from .sheet import Sheet

START = """
### The 3D flow to look at

1. Choose a picture in **Portrait** and a motion in **Motion**.
2. Press **Run**. **All Views** shows direction, depth, arrows, layers, source pixels and visibility, with scales in
millimetres; **3D Flow Visualize** says in figures how far the surface moves.

One view alone, larger: choose it in **3D Flow Visualize**, and set *size*.
"""


def flow_pictures(sheet: Sheet) -> None:
    head = words(sheet, START, more="Nothing else is needed.")
    with sheet.group("1 Portrait and motion"):
        portrait = sheet.node("LoadImage", "Portrait", image="portrait.png", wide=320)
        motion = sheet.node("Flow3DLoadHeadTrack", "Motion", track="motion: medley")
    with sheet.group("2 Flow"):
        source = sheet.node("Flow3DFLAMEFit", "Portrait Fit", head=head, image=portrait, overlay_frames=1, wide=320)
        target = sheet.node("Flow3DFLAMERetarget", "FLAME Retarget", source=source, driver=motion, head=head)
    with sheet.group("3 Pictures"):
        field = sheet.node("Flow3DFlowEncode", "3D Flow Encode", head=head, source=source, target=target, preview_frames=4, wide=360)
        seen = sheet.node("Flow3DFlowVisualize", "3D Flow Visualize", field=field, portrait=portrait, frames=6, space=160)
        sheet.column()
        sheet.node("PreviewImage", "All Views", images=seen["images"], wide=760, space=540)
