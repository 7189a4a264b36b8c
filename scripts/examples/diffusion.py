"""The part that examples with a ControlNet and the Temporal Sampler share."""

from dataclasses import dataclass
from typing import Any

from .sheet import Node, Output, Sheet
from .weights import ANIMATEDIFF, SD15

NEGATIVE = "blurry, deformed, text, watermark"
ANIMATEDIFF_SETTINGS: dict[str, Any] = {"steps": 25, "cfg": 8.0, "scheduler": "ddim_uniform", "betas": "linear"}


@dataclass(frozen=True)
class Base:
    checkpoint: Node
    prompt: Node
    negative: Node
    motion: Node


def base(sheet: Sheet, prompt: str) -> Base:
    """Stable Diffusion 1.5, its prompts and AnimateDiff's motion module."""
    checkpoint = sheet.node("CheckpointLoaderSimple", "Checkpoint", ckpt_name=SD15.file, models=SD15.models)
    positive = sheet.node("CLIPTextEncode", "Prompt", clip=checkpoint["CLIP"], text=prompt)
    negative = sheet.node("CLIPTextEncode", "Negative Prompt", clip=checkpoint["CLIP"], text=NEGATIVE)
    motion = sheet.node("Flow3DLoadMotionModule", "Motion Module", name=ANIMATEDIFF.file)
    return Base(checkpoint, positive, negative, motion)


def empty_latents(sheet: Sheet, like: Output) -> Node:
    """One for each of these pictures, of their size."""
    size = sheet.node("GetImageSize", "Clip Size", image=like)
    return sheet.node(
        "EmptyLatentImage", "Empty Latents", width=size["width"], height=size["height"], batch_size=size["batch_size"]
    )
