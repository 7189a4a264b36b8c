"""The head from one motion and the face from another."""

from .blocks import saved, words
from .sheet import Sheet

START = """
### The head from one motion, the face from another, on your portrait

1. Choose a picture in **Portrait**.
2. Press **Run**. The video appears in **Save Video**; the mixed motion is kept in `output/flow3d` for Load Head Track.
3. Choose other motions in **Head Motion** and **Face Motion**.

A clip of your own: Load Video, then FLAME Fit, in place of a Load Head Track. Files of Live Link Face and of FLAME parameters
go into the input folder and are chosen in Load Head Track.

- **FLAME Mix** says which parts come from the face's motion.
- **FLAME Time** trims, slows down, turns round or loops what was mixed.
"""


def mix_drivers(sheet: Sheet) -> None:
    head = words(sheet, START, more="Nothing else is needed.")
    with sheet.group("1 Portrait"):
        portrait = sheet.node("LoadImage", "Portrait", image="portrait.png", wide=320)
        source = sheet.node("Flow3DFLAMEFit", "Portrait Fit", head=head, image=portrait, overlay_frames=1)
    with sheet.group("2 Two motions"):
        turning = sheet.node("Flow3DLoadHeadTrack", "Head Motion", track="motion: turn", head=head, wide=320)
        talking = sheet.node("Flow3DLoadHeadTrack", "Face Motion", track="motion: talk", head=head)
        mixed = sheet.node(
            "Flow3DFLAMEMix", "FLAME Mix", first=turning, second=talking, mode="take", pose=False, translation=False,
            shorter="loop", head=head,
        )  # fmt: skip
        timed = sheet.node("Flow3DFLAMETime", "FLAME Time", track=mixed, frames=100)
    with sheet.group("3 On the portrait"):
        kept = sheet.node("Flow3DSaveHeadTrack", "Save Mixed Motion", track=timed, filename_prefix="flow3d/mixed", head=head, wide=360)
        target = sheet.node("Flow3DFLAMERetarget", "FLAME Retarget", source=source, driver=kept, head=head)
        report = sheet.node("Flow3DTrackReport", "Track Report", track=target, head=head)
        sheet.node("PreviewImage", "Report", images=report, space=240)
    with sheet.group("4 Flow, warp and video"):
        field = sheet.node("Flow3DFlowEncode", "3D Flow Encode", head=head, source=source, target=target, wide=400)
        warped = sheet.node("Flow3DFlowWarpPreview", "Flow Warp Preview", image=portrait, field=field)
        saved(sheet, warped, timed["frame rate"])
