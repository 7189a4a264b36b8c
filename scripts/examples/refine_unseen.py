"""The warped clip, with what the portrait never showed painted by a checkpoint."""

from .blocks import NO_TRACK, saved, words
from .diffusion import base
from .sheet import Sheet
from .weights import ANIMATEDIFF, SD15

START = """
### What the portrait never showed, painted
The animated portrait is blurred where the photo had nothing to show. A checkpoint paints those pixels, and only those.

1. Choose a picture in **Portrait** and a motion in **Motion**.
2. Get the weights named below, or choose any SD1.5 checkpoint.
3. Press **Run**. The video appears in **Save Video**.

**Flow Warp Preview** gives the clip and a mask of the unseen. The Temporal Sampler paints within the mask, **Only the Unseen**
keeps all else as it was, to the pixel.

- Describe the portrait in **Prompt**.
- More freedom: raise *denoise*. A wider seam: raise *expand* in **Grow**.
- The checkpoint looks at the portrait through **Appearance Reference**.
"""


def refine_unseen(sheet: Sheet) -> None:
    head = words(sheet, START, SD15, ANIMATEDIFF)
    with sheet.group("1 Portrait"):
        portrait = sheet.node("LoadImage", "Portrait", image="portrait.png", wide=320)
        crop = sheet.node("Flow3DPortraitCrop", "Portrait Crop", image=portrait)
        source = sheet.node("Flow3DFLAMEFit", "Portrait Fit", head=head, image=crop, overlay_frames=1)
    with sheet.group("2 Motion and warp"):
        motion = sheet.node("Flow3DLoadHeadTrack", "Motion", track="motion: turn", wide=320)
        timed = sheet.node("Flow3DFLAMETime", "FLAME Time", track=motion, frames=48)
        target = sheet.node("Flow3DFLAMERetarget", "FLAME Retarget", source=source, driver=timed, head=head)
        field = sheet.node("Flow3DFlowEncode", "3D Flow Encode", head=head, source=source, target=target)
        warped = sheet.node("Flow3DFlowWarpPreview", "Flow Warp Preview", image=crop, field=field)
    with sheet.group("3 What was never seen"):
        grown = sheet.node("GrowMask", "Grow", mask=warped["mask"], expand=6, wide=320)
        unseen = sheet.node("MaskToImage", "Unseen as Picture", mask=grown)
        sheet.node("PreviewImage", "Unseen", images=unseen, space=260)
        sheet.node("PreviewImage", "Warped", images=warped["images"], space=260)
    with sheet.group("4 Networks"):
        sd = base(sheet, "a portrait photo of a person")
        sheet.column()
        looks = sheet.node("VAEEncode", "Encode Portrait", pixels=crop, vae=sd.checkpoint["VAE"])
        referenced = sheet.node(
            "Flow3DAppearanceReference", model=sd.checkpoint["MODEL"], reference=looks, prompt=sd.prompt
        )
        clip = sheet.node("VAEEncode", "Encode Warped", pixels=warped["images"], vae=sd.checkpoint["VAE"])
        latents = sheet.node("SetLatentNoiseMask", "Only There", samples=clip, mask=grown)
    with sheet.group("5 Sampling and result"):
        sampled = sheet.node(
            "Flow3DTemporalSampler", model=referenced, positive=sd.prompt, negative=sd.negative, latents=latents, motion=sd.motion,
            seed=1, steps=25, cfg=5.0, scheduler="ddim_uniform", denoise=0.6, betas="linear",
        )  # fmt: skip
        painted = sheet.node("VAEDecode", "Decode", samples=sampled, vae=sd.checkpoint["VAE"])
        sheet.column()
        whole = sheet.node(
            "ImageCompositeMasked", "Only the Unseen", destination=warped["images"], source=painted, mask=grown
        )
        pasted = sheet.node("Flow3DPasteBack", result=whole, transform=crop["transform"], full_frame=portrait)
        saved(sheet, pasted, NO_TRACK)
