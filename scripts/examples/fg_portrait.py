"""The whole path: a portrait animated by diffusion, steered by the 3D flow."""

from .blocks import saved, words
from .sheet import Sheet
from .weights import FLOW, SD15, X_PORTRAIT

START = """
### A portrait animated by Stable Diffusion 1.5, steered by the 3D flow

1. Choose a picture in **Portrait** and a clip of a face in **Driver**.
2. Get the weights named below.
3. Press **Run**. The video appears in **Save Video**.

Both heads are fitted, the driver's motion is put on the portrait's head, and the 3D flow says for every pixel where it came
from on the portrait. It steers the sampling; the appearance network keeps the looks.

- **First Frames** sets how much of the driver is used.
- **FLAME Edit** turns the head and changes the face.
- **Flow Preview** shows what steers, before anything is sampled.
- The prompts stay empty: the networks were trained so.
"""


def fg_portrait(sheet: Sheet) -> None:
    head = words(
        sheet, START, SD15, FLOW, X_PORTRAIT, more="X-Portrait's file holds two networks used here: appearance and motion."
    )
    with sheet.group("1 Portrait"):
        portrait = sheet.node("LoadImage", "Portrait", image="portrait.png")
        sheet.column()
        crop = sheet.node("Flow3DPortraitCrop", "Portrait Crop", image=portrait)
        source = sheet.node("Flow3DFLAMEFit", "Portrait Fit", head=head, image=crop, overlay_frames=1)
    with sheet.group("2 Driver", below=True):
        driver = sheet.node("LoadVideo", "Driver", file="driver.mp4")
        parts = sheet.node("GetVideoComponents", "Driver Parts", video=driver)
        first = sheet.node("ImageFromBatch", "First Frames", image=parts, length=48)
        sheet.column()
        driver_crop = sheet.node("Flow3DPortraitCrop", "Driver Crop", image=first)
        driven = sheet.node("Flow3DFLAMEFit", "Driver Fit", head=head, image=driver_crop, fps=parts["fps"])
    with sheet.group("3 Motion and 3D flow"):
        target = sheet.node("Flow3DFLAMERetarget", "FLAME Retarget", source=source, driver=driven, head=head)
        edited = sheet.node("Flow3DFLAMEEdit", "FLAME Edit", track=target, head=head, wide=440)
        sheet.column()
        field = sheet.node("Flow3DFlowEncode", "3D Flow Encode", head=head, source=source, target=edited, wide=340)
        sheet.node("PreviewImage", "Flow Preview", images=field["preview"], space=340)
    with sheet.group("4 Networks"):
        checkpoint = sheet.node("CheckpointLoaderSimple", "Checkpoint", ckpt_name=SD15.file, models=SD15.models)
        prompt = sheet.node("CLIPTextEncode", "Prompt", clip=checkpoint["CLIP"], text="")
        negative = sheet.node("CLIPTextEncode", "Negative Prompt", clip=checkpoint["CLIP"], text="")
        control = sheet.node("Flow3DLoadFlowControlNet", "Flow ControlNet", name=FLOW.file)
        network = sheet.node("Flow3DLoadAppearanceNetwork", "Appearance Network", name=X_PORTRAIT.file)
        motion = sheet.node("Flow3DLoadMotionModule", "Motion Module", name=X_PORTRAIT.file)
        sheet.column()
        looks = sheet.node("VAEEncode", "Encode Portrait", pixels=crop, vae=checkpoint["VAE"])
        referenced = sheet.node(
            "Flow3DAppearanceReference", model=checkpoint["MODEL"], reference=looks, prompt=negative, appearance=network
        )
        steered = sheet.node(
            "Flow3DFlowControlNetApply", positive=prompt, negative=negative, control_net=control, field=field
        )
        size = sheet.node("GetImageSize", "Clip Size", image=driver_crop)
        latents = sheet.node(
            "EmptyLatentImage", "Empty Latents", width=size["width"], height=size["height"], batch_size=size["batch_size"]
        )
    with sheet.group("5 Sampling and result"):
        sampled = sheet.node(
            "Flow3DTemporalSampler", model=referenced, positive=steered["positive"], negative=steered["negative"],
            latents=latents, motion=motion, source=looks, seed=1, steps=30, cfg=5.0, scheduler="ddim_uniform", fusing="uniform",
            offset="circular", initial_noise="from source", betas="scaled linear",
        )  # fmt: skip
        frames = sheet.node("VAEDecode", "Decode", samples=sampled, vae=checkpoint["VAE"])
        sheet.column()
        pasted = sheet.node("Flow3DPasteBack", result=frames, transform=crop["transform"], full_frame=portrait)
        saved(sheet, pasted, parts["fps"], parts["audio"])
