"""A driver of any length: from video to video, frame by frame."""

from .blocks import words
from .sheet import Sheet

START = """
### A clip of any length, from video to video

1. Choose a picture in **Portrait** and a long clip of a face in **Driver**.
2. Press **Run**. The video appears in **Save Video**, with the driver's sound.

The driver goes into the fit as a video, and the result is written frame by frame: memory does not grow with the length.

- **Driver Overlay** shows how well the head was found. A cut to another shot is told in the fit's *report*.
- To have the pictures instead of a video, use the example *flow_warp_preview*.
"""


def long_clip(sheet: Sheet) -> None:
    head = words(sheet, START, more="Nothing else is needed.")
    with sheet.group("1 Portrait and driver"):
        portrait = sheet.node("LoadImage", "Portrait", image="portrait.png", wide=320)
        driver = sheet.node("LoadVideo", "Driver", file="driver.mp4")
    with sheet.group("2 Fits"):
        source = sheet.node("Flow3DFLAMEFit", "Portrait Fit", head=head, image=portrait, overlay_frames=1)
        driven = sheet.node("Flow3DFLAMEFit", "Driver Fit", head=head, image=driver)
    with sheet.group("3 Motion and flow"):
        target = sheet.node("Flow3DFLAMERetarget", "FLAME Retarget", source=source, driver=driven, head=head, wide=320)
        field = sheet.node("Flow3DFlowEncode", "3D Flow Encode", head=head, source=source, target=target)
        sheet.node("PreviewImage", "Driver Overlay", images=driven["overlay"], space=260)
    with sheet.group("4 Video"):
        video = sheet.node("Flow3DFlowWarpVideo", "Flow Warp Video", image=portrait, field=field, sound=driver, wide=440)
        sheet.node(
            "SaveVideo", "Save Video", video=video, filename_prefix="flow3d/long_clip", format="mp4", codec="h264", space=420
        )
