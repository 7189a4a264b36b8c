"""A portrait animated by a driver without any diffusion model."""

from .blocks import saved, words
from .sheet import Sheet

START = """
### A portrait animated by a clip, without any diffusion model

1. Choose a picture in **Portrait** and a clip of a face in **Driver**.
2. Press **Run**. The video appears in **Save Video**.

- **FLAME Edit** changes every frame; the fits are kept, only the rest is computed again.
- **FLAME Retarget** switches parts of the motion off. *relative* starts from the portrait as it is: begin the clip with a
neutral face that looks at the camera.
- **Unseen** is white where the portrait had nothing to show and the picture was filled.
- When a result looks wrong, connect the *overlay* of a fit to a Preview Image first.
"""


def flow_warp_preview(sheet: Sheet) -> None:
    head = words(sheet, START, more="Nothing else is needed.")
    with sheet.group("1 Portrait"):
        portrait = sheet.node("LoadImage", "Portrait", image="portrait.png")
        sheet.column()
        source = sheet.node("Flow3DFLAMEFit", "Portrait Fit", head=head, image=portrait, overlay_frames=1)
    with sheet.group("2 Driver", below=True):
        driver = sheet.node("LoadVideo", "Driver", file="driver.mp4")
        parts = sheet.node("GetVideoComponents", "Driver Parts", video=driver)
        sheet.column()
        driven = sheet.node("Flow3DFLAMEFit", "Driver Fit", head=head, image=parts, fps=parts["fps"])
    with sheet.group("3 Motion"):
        target = sheet.node("Flow3DFLAMERetarget", "FLAME Retarget", source=source, driver=driven, head=head)
        edited = sheet.node("Flow3DFLAMEEdit", "FLAME Edit", track=target, head=head, wide=440)
    with sheet.group("4 Flow and warp"):
        field = sheet.node("Flow3DFlowEncode", "3D Flow Encode", head=head, source=source, target=edited, wide=340)
        warped = sheet.node("Flow3DFlowWarpPreview", "Flow Warp Preview", image=portrait, field=field)
        unseen = sheet.node("MaskToImage", "Unseen as Picture", mask=warped["mask"])
        sheet.node("PreviewImage", "Unseen", images=unseen, space=320)
    with sheet.group("5 Video"):
        saved(sheet, warped, parts["fps"], parts["audio"], space=420)
