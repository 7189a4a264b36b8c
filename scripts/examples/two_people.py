"""Two people in one picture, each with a motion of their own."""

from .blocks import NO_TRACK, saved, words
from .sheet import Node, Sheet

START = """
### Two people in one picture, each with a motion of their own

1. Choose a picture of two people in **People**.
2. Press **Run**. The video appears in **Save Video**.
3. Choose other motions in **Left Motion** and **Right Motion**.

People are counted from left to right: *face index* 0 is the left one. Each is cut out around the own head, animated, and put
back; the second goes onto the pictures of the first.

- Both motions have as many frames: **Left Time** and **Right Time** see to it.
- A clip of your own: Load Video, then FLAME Fit, in place of a motion.
- If a crop holds both faces, its fit takes the one in the middle.
"""
FRAMES = 75


def person(sheet: Sheet, side: str, index: int, head: Node, people: Node, motion: str) -> tuple[Node, Node]:
    """One of them, animated on a crop: the pictures, and the crop."""
    with sheet.group(f"{index + 2} The person on the {side.lower()}", below=index > 0):
        found = sheet.node(
            "Flow3DFLAMEFit", f"{side} Face", head=head, image=people, overlay_frames=1, face_order="left to right", face_index=index
        )
        sheet.column()
        crop = sheet.node("Flow3DPortraitCrop", f"{side} Crop", image=people, track=found, head=head)
        driver = sheet.node("Flow3DLoadHeadTrack", f"{side} Motion", track=motion)
        timed = sheet.node("Flow3DFLAMETime", f"{side} Time", track=driver, frames=FRAMES)
        sheet.column()
        source = sheet.node(
            "Flow3DFLAMEFit", f"{side} Fit", head=head, image=crop, overlay_frames=1, face_order="most central"
        )
        sheet.column()
        target = sheet.node("Flow3DFLAMERetarget", f"{side} Retarget", source=source, driver=timed, head=head)
        field = sheet.node("Flow3DFlowEncode", f"{side} Flow", head=head, source=source, target=target)
        warped = sheet.node("Flow3DFlowWarpPreview", f"{side} Warp", image=crop, field=field)
    return warped, crop


def two_people(sheet: Sheet) -> None:
    head = words(sheet, START, more="Nothing else is needed.")
    with sheet.group("1 Picture"):
        people = sheet.node("LoadImage", "People", image="two_people.png")
    left, left_crop = person(sheet, "Left", 0, head, people, "motion: talk")
    right, right_crop = person(sheet, "Right", 1, head, people, "motion: look-around")
    with sheet.group("4 Put back"):
        one = sheet.node(
            "Flow3DPasteBack", "Paste Left", result=left, transform=left_crop["transform"], full_frame=people, wide=360
        )
        both = sheet.node("Flow3DPasteBack", "Paste Right", result=right, transform=right_crop["transform"], full_frame=one)
        saved(sheet, both, NO_TRACK, space=340)
