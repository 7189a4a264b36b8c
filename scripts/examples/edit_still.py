"""A still that turns, smiles and blinks, by keyframes."""

from .blocks import NO_TRACK, saved, words
from .sheet import Sheet

START = """
### A still brought to life by keyframes
No driver and no diffusion model are needed.

1. Choose a picture in **Portrait**.
2. Press **Run**. The video appears in **Save Video**.
3. Change *keyframes* in **FLAME Edit**, or set keys on the strip below the live head, and run again.

`yaw: 0: 0, 20: 22, 50: -22, 75: 0 smooth` turns the head by 22 degrees to each side. Frames count from 0, 25 a second; the
clip ends with the last key. The node's help page (the question mark) has every name.

**Track Report** draws the motion over time.
"""
KEYFRAMES = """
yaw: 0: 0, 20: 22, 50: -22, 75: 0 smooth
gazeYaw: 0: 0, 15: 12, 40: -12, 60: 0 smooth
roll: 25: 0, 38: 8, 51: 0 smooth
browUp: 10: 0, 20: 0.7, 34: 0 smooth
blink: 33: 0, 36: 1, 39: 0
""".strip()


def edit_still(sheet: Sheet) -> None:
    head = words(sheet, START, more="Nothing else is needed.")
    with sheet.group("1 Portrait"):
        portrait = sheet.node("LoadImage", "Portrait", image="portrait.png", wide=320)
        source = sheet.node("Flow3DFLAMEFit", "Portrait Fit", head=head, image=portrait, overlay_frames=1, fps=NO_TRACK)
    with sheet.group("2 Motion"):
        edited = sheet.node("Flow3DFLAMEEdit", "FLAME Edit", track=source, head=head, keyframes=KEYFRAMES, wide=460)
    with sheet.group("3 Flow and warp"):
        field = sheet.node("Flow3DFlowEncode", "3D Flow Encode", head=head, source=source, target=edited, wide=360)
        warped = sheet.node("Flow3DFlowWarpPreview", "Flow Warp Preview", image=portrait, field=field)
        report = sheet.node("Flow3DTrackReport", "Track Report", track=edited, head=head)
        sheet.node("PreviewImage", "Report", images=report, space=240)
    with sheet.group("4 Video"):
        saved(sheet, warped, NO_TRACK, space=420)
