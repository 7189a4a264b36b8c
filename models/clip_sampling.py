"""A clip through ComfyUI's own sampling, with temporal layers and in context windows. Nothing is decoded here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import comfy.sample
import comfy.utils
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..flow3d.errors import InputError
from .motion import MotionModule, with_motion
from .noise_schedule import NoiseSchedule
from .seams import Seams, measure_seams
from .window_sampling import with_windows
from .windows import Windows

InitialNoise = Literal["independent", "shared", "from source"]
INITIAL_NOISES: tuple[InitialNoise, ...] = ("independent", "shared", "from source")


@dataclass(frozen=True)
class Steps:
    """ComfyUI's own settings of a sampling run, under its own names."""

    seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    denoise: float = 1.0


@dataclass(frozen=True)
class Clip:
    """What is sampled from.

    Args:
        latents: ComfyUI's LATENT: `samples` (F, 4, h, w), and perhaps `noise_mask` and `batch_index`.
        noise: `independent` for each frame; `shared`, the same for all; `from source`: as independent, over the source's latent
            instead of the clip's, so that the first step sees the source under noise, as X-Portrait's does.
        source: (1 or F, 4, h, w), for `from source`.
    """

    latents: dict[str, Any]
    noise: InitialNoise = "independent"
    source: Tensor | None = None

    def prepared(self, model: ModelPatcher) -> Tensor:
        """The latents that noise is put over (F, C, h, w)."""
        samples = comfy.sample.fix_empty_latent_channels(model, self.latents["samples"])
        if samples.ndim != 4:
            raise InputError(
                f"the latents have the shape {tuple(samples.shape)}, not (frames, channels, height, width)."
            )
        if self.noise != "from source":
            return samples
        if self.source is None:
            raise InputError(
                "'initial noise' is 'from source', and no source is connected. Connect the source's latent."
            )
        if self.source.shape[1:] != samples.shape[1:] or len(self.source) not in (1, len(samples)):
            raise InputError(
                f"the source's latent has the shape {tuple(self.source.shape)}, the clip's {tuple(samples.shape)}. The "
                "source must have one frame, and the size of the clip."
            )
        return self.source.expand(samples.shape).clone()

    def noise_for(self, samples: Tensor, seed: int) -> Tensor:
        if self.noise == "shared":
            return comfy.sample.prepare_noise(samples[:1], seed).expand(samples.shape).clone()
        return comfy.sample.prepare_noise(samples, seed, self.latents.get("batch_index"))


def sample_clip(
    model: ModelPatcher,
    positive: list,
    negative: list,
    clip: Clip,
    steps: Steps,
    windows: Windows,
    motion: MotionModule | None = None,
    schedule: NoiseSchedule = NoiseSchedule(),  # noqa: B008 - frozen
    callback: Callable | None = None,
) -> tuple[Tensor, Seams]:
    """The sampled latents (F, C, h, w), on ComfyUI's intermediate device, and how much their windows show.

    Args:
        callback: ComfyUI's of each step, (step, denoised, x, total): previews, progress, cancel.

    Raises InputError where model, motion module, window and latents do not fit together.
    """
    samples = clip.prepared(model)
    for name, numbers in (("latents", samples), ("noise mask", clip.latents.get("noise_mask"))):
        if numbers is not None and not bool(numbers.isfinite().all()):
            raise InputError(f"the {name} hold NaN or infinity. Encode the pictures again.")
    _check_prompts(model, {"positive": positive, "negative": negative})
    frames = len(samples)
    model = schedule.on(model)
    if motion is not None:
        motion.check_window(min(frames, windows.length))
        model = with_motion(model, motion)
    model = with_windows(model, windows, steps.seed)
    result = comfy.sample.sample(
        model, clip.noise_for(samples, steps.seed), steps.steps, steps.cfg, steps.sampler_name, steps.scheduler,
        positive, negative, samples, denoise=steps.denoise, noise_mask=clip.latents.get("noise_mask"), callback=callback,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED, seed=steps.seed,
    )  # fmt: skip
    last = windows.at_step(frames, steps.steps - 1, steps.seed)
    return result, measure_seams(result, last)


def _check_prompts(model: ModelPatcher, prompts: dict[str, list]) -> None:
    """Raises InputError where a prompt was encoded for another kind of model."""
    width = model.model.model_config.unet_config.get("context_dim")
    for name, prompt in prompts.items():
        for tokens, _ in prompt:
            if width is not None and tokens.shape[-1] != width:
                raise InputError(
                    f"'{name}' has {tokens.shape[-1]} numbers a token, the model takes {width}. Encode the prompt with the CLIP of "
                    "the model's own checkpoint."
                )
