"""Weights that exist today: X-Portrait's appearance network, AnimateDiff's motion and a depth ControlNet."""

from .blocks import NO_TRACK, saved, words
from .diffusion import ANIMATEDIFF_SETTINGS, base, empty_latents
from .sheet import Sheet
from .weights import ANIMATEDIFF, DEPTH, SD15, X_PORTRAIT

START = """
### A portrait animated by diffusion, with weights that exist today

1. Choose a picture in **Portrait** and a motion in **Motion**.
2. Get the weights named below.
3. Press **Run**. The video appears in **Save Video**.

The depth of the moved head steers a ControlNet; the appearance network looks at the portrait; AnimateDiff's motion module makes
the frames agree.

- Describe the portrait in **Prompt**.
- **Empty Prompt** is what X-Portrait's network was trained with.
- **FLAME Time** sets how many frames are sampled. Its depth pictures set their size.
- Too stiff: lower *strength* or *end percent* in **Depth Apply**.
"""


def appearance_only(sheet: Sheet) -> None:
    head = words(sheet, START, SD15, X_PORTRAIT, ANIMATEDIFF, DEPTH)
    with sheet.group("1 Portrait"):
        portrait = sheet.node("LoadImage", "Portrait", image="portrait.png", wide=320)
        crop = sheet.node("Flow3DPortraitCrop", "Portrait Crop", image=portrait)
        source = sheet.node("Flow3DFLAMEFit", "Portrait Fit", head=head, image=crop, overlay_frames=1)
    with sheet.group("2 Motion"):
        motion = sheet.node("Flow3DLoadHeadTrack", "Motion", track="motion: talk", wide=320)
        timed = sheet.node("Flow3DFLAMETime", "FLAME Time", track=motion, frames=48)
        target = sheet.node("Flow3DFLAMERetarget", "FLAME Retarget", source=source, driver=timed, head=head)
        rendered = sheet.node("Flow3DRenderHead", "Render Head", track=target, head=head)
        sheet.node("PreviewImage", "Depth", images=rendered["depth"], space=260)
    with sheet.group("3 Networks"):
        sd = base(sheet, "a portrait photo of a person")
        empty = sheet.node("CLIPTextEncode", "Empty Prompt", clip=sd.checkpoint["CLIP"], text="")
        network = sheet.node("Flow3DLoadAppearanceNetwork", "Appearance Network", name=X_PORTRAIT.file)
        depth = sheet.node("ControlNetLoader", "Depth ControlNet", control_net_name=DEPTH.file, models=DEPTH.models)
        sheet.column()
        looks = sheet.node("VAEEncode", "Encode Portrait", pixels=crop, vae=sd.checkpoint["VAE"])
        referenced = sheet.node(
            "Flow3DAppearanceReference", model=sd.checkpoint["MODEL"], reference=looks, prompt=empty, appearance=network
        )
        steered = sheet.node(
            "ControlNetApplyAdvanced", "Depth Apply", positive=sd.prompt, negative=sd.negative, control_net=depth,
            image=rendered["depth"], strength=0.8, end_percent=0.8,
        )  # fmt: skip
        latents = empty_latents(sheet, rendered["depth"])
    with sheet.group("4 Sampling and result"):
        sampled = sheet.node(
            "Flow3DTemporalSampler", model=referenced, positive=steered["positive"], negative=steered["negative"],
            latents=latents, motion=sd.motion, source=looks, seed=1, **ANIMATEDIFF_SETTINGS,
        )  # fmt: skip
        frames = sheet.node("VAEDecode", "Decode", samples=sampled, vae=sd.checkpoint["VAE"])
        sheet.column()
        pasted = sheet.node("Flow3DPasteBack", result=frames, transform=crop["transform"], full_frame=portrait)
        saved(sheet, pasted, NO_TRACK)
