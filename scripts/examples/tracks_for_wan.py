"""Points of the head as motion tracks for Wan."""

from .blocks import words
from .sheet import Sheet
from .weights import WAN_ATI, WAN_TEXT, WAN_VAE, WAN_VISION

START = """
### The head's motion as tracks for Wan
Wan 2.1 ATI is a video model that carries pixels along given tracks.

1. Choose a picture in **Portrait** and a motion in **Motion**.
2. Get the weights named below (some 25 GB; a card of 24 GB).
3. Press **Run**. The video appears in **Save Video**.

**Flow To Tracks** follows points of the head through the motion; WanTrackToVideo takes them with the portrait as start image.

- **FLAME Time** brings the motion to Wan's 16 frames a second.
- *length* (4 n + 1) is set in **Flow To Tracks** alone.
- Wan's *width* and *height* and those of **Flow To Tracks** must be the same.
- In ComfyUI 0.5 and later, *tracks* goes into WanMoveTrackToVideo as it is.
"""
SIDE, LENGTH, FPS = 640, 81, 16.0
NEGATIVE = "blurry, low quality, static picture, subtitles, watermark, deformed face, extra limbs"


def tracks_for_wan(sheet: Sheet) -> None:
    head = words(sheet, START, WAN_ATI, WAN_TEXT, WAN_VAE, WAN_VISION)
    with sheet.group("1 Portrait"):
        portrait = sheet.node("LoadImage", "Portrait", image="portrait.png", wide=320)
        crop = sheet.node("Flow3DPortraitCrop", "Portrait Crop", image=portrait, size=SIDE, room=1.4)
        source = sheet.node("Flow3DFLAMEFit", "Portrait Fit", head=head, image=crop, overlay_frames=1)
    with sheet.group("2 Motion and tracks"):
        motion = sheet.node("Flow3DLoadHeadTrack", "Motion", track="motion: medley", wide=320)
        timed = sheet.node("Flow3DFLAMETime", "FLAME Time", track=motion, fps=FPS)
        target = sheet.node("Flow3DFLAMERetarget", "FLAME Retarget", source=source, driver=timed, head=head)
        sheet.column()
        field = sheet.node("Flow3DFlowEncode", "3D Flow Encode", head=head, source=source, target=target, wide=320)
        tracks = sheet.node(
            "Flow3DFlowToTracks", "Flow To Tracks", field=field, width=SIDE, height=SIDE, length=LENGTH, background_spacing=96
        )
        sheet.node("PreviewImage", "Flow Preview", images=field["preview"], space=300)
    with sheet.group("3 Wan"):
        model = sheet.node("UNETLoader", "Wan Model", unet_name=WAN_ATI.file, models=WAN_ATI.models)
        text = sheet.node("CLIPLoader", "Text Encoder", clip_name=WAN_TEXT.file, type="wan", models=WAN_TEXT.models)
        vae = sheet.node("VAELoader", "Wan VAE", vae_name=WAN_VAE.file, models=WAN_VAE.models)
        vision = sheet.node("CLIPVisionLoader", "Vision Encoder", clip_name=WAN_VISION.file, models=WAN_VISION.models)
        prompt = sheet.node("CLIPTextEncode", "Prompt", clip=text, text="a person turns the head and talks to the camera")
        negative = sheet.node("CLIPTextEncode", "Negative Prompt", clip=text, text=NEGATIVE)
        sheet.column()
        seen = sheet.node("CLIPVisionEncode", "See Portrait", clip_vision=vision, image=crop, crop="none")
        wan = sheet.node(
            "WanTrackToVideo", "Wan Track To Video", positive=prompt, negative=negative, vae=vae, tracks=tracks["tracks_json"],
            width=SIDE, height=SIDE, length=tracks["length"], start_image=crop, clip_vision_output=seen, topk=10,
        )  # fmt: skip
        shifted = sheet.node("ModelSamplingSD3", "Shift", model=model, shift=8.0)
    with sheet.group("4 Sampling and result"):
        sampled = sheet.node(
            "KSampler", "Sampler", model=shifted, positive=wan["positive"], negative=wan["negative"], latent_image=wan["latent"],
            seed=1, steps=20, cfg=3.0, sampler_name="uni_pc", scheduler="simple", wide=360,
        )  # fmt: skip
        frames = sheet.node("VAEDecode", "Decode", samples=sampled, vae=vae)
        video = sheet.node("CreateVideo", "Create Video", images=frames, fps=FPS)
        sheet.node("SaveVideo", "Save Video", video=video, filename_prefix="flow3d/tracks_for_wan", format="mp4", codec="h264", space=340)
