"""Depth and normals of the moved head, for ComfyUI's own ControlNet nodes."""

from .blocks import NO_TRACK, saved, words
from .diffusion import ANIMATEDIFF_SETTINGS, base, empty_latents
from .sheet import Sheet
from .weights import ANIMATEDIFF, DEPTH, NORMAL, SD15

START = """
### Depth and normals of the moved head, for ControlNets that exist today

1. Choose a picture in **Portrait** and a motion in **Motion**.
2. Get the weights named below.
3. Press **Run**. The video appears in **Save Video**.

**Render Head** draws depth and normals of every frame. Two ControlNets take them, with ComfyUI's own nodes. **Appearance
Reference** has no network of its own here: the checkpoint itself looks at the portrait.

- Another style: change **Prompt** and the checkpoint, and lower *strength* in **Appearance Reference**.
- ControlNets for SDXL or Flux take the same pictures; replace the right half of the graph.
"""


def depth_normal_controlnets(sheet: Sheet) -> None:
    head = words(sheet, START, SD15, DEPTH, NORMAL, ANIMATEDIFF)
    with sheet.group("1 Portrait"):
        portrait = sheet.node("LoadImage", "Portrait", image="portrait.png", wide=320)
        crop = sheet.node("Flow3DPortraitCrop", "Portrait Crop", image=portrait)
        source = sheet.node("Flow3DFLAMEFit", "Portrait Fit", head=head, image=crop, overlay_frames=1)
    with sheet.group("2 Motion and pictures of it"):
        motion = sheet.node("Flow3DLoadHeadTrack", "Motion", track="motion: turn", wide=320)
        timed = sheet.node("Flow3DFLAMETime", "FLAME Time", track=motion, frames=48)
        target = sheet.node("Flow3DFLAMERetarget", "FLAME Retarget", source=source, driver=timed, head=head)
        rendered = sheet.node("Flow3DRenderHead", "Render Head", track=target, head=head)
        sheet.column()
        sheet.node("PreviewImage", "Depth", images=rendered["depth"], space=300)
        sheet.node("PreviewImage", "Normals", images=rendered["normal"], space=300)
    with sheet.group("3 Networks"):
        sd = base(sheet, "a portrait photo of a person")
        depth = sheet.node("ControlNetLoader", "Depth ControlNet", control_net_name=DEPTH.file, models=DEPTH.models)
        normal = sheet.node("ControlNetLoader", "Normal ControlNet", control_net_name=NORMAL.file, models=NORMAL.models)
        sheet.column()
        one = sheet.node(
            "ControlNetApplyAdvanced", "Depth Apply", positive=sd.prompt, negative=sd.negative, control_net=depth,
            image=rendered["depth"], strength=0.7, end_percent=0.8,
        )  # fmt: skip
        both = sheet.node(
            "ControlNetApplyAdvanced", "Normal Apply", positive=one["positive"], negative=one["negative"], control_net=normal,
            image=rendered["normal"], strength=0.7, end_percent=0.8,
        )  # fmt: skip
        looks = sheet.node("VAEEncode", "Encode Portrait", pixels=crop, vae=sd.checkpoint["VAE"])
        referenced = sheet.node(
            "Flow3DAppearanceReference", model=sd.checkpoint["MODEL"], reference=looks, prompt=sd.prompt
        )
        latents = empty_latents(sheet, rendered["depth"])
    with sheet.group("4 Sampling and result"):
        sampled = sheet.node(
            "Flow3DTemporalSampler", model=referenced, positive=both["positive"], negative=both["negative"], latents=latents,
            motion=sd.motion, source=looks, seed=1, **ANIMATEDIFF_SETTINGS,
        )  # fmt: skip
        frames = sheet.node("VAEDecode", "Decode", samples=sampled, vae=sd.checkpoint["VAE"])
        sheet.column()
        pasted = sheet.node("Flow3DPasteBack", result=frames, transform=crop["transform"], full_frame=portrait)
        saved(sheet, pasted, NO_TRACK)
