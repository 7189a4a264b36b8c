"""Temporal Sampler: a clip through ComfyUI's own sampling, in windows, with temporal layers."""

from typing import Any

import comfy.samplers
import latent_preview
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..models.clip_sampling import INITIAL_NOISES, Clip, Steps, sample_clip
from ..models.motion import MotionModule
from ..models.noise_schedule import BETAS, PREDICTIONS, NoiseSchedule
from ..models.seams import seams_report
from ..models.windows import FUSINGS, OFFSETS, Windows
from .checks import at_the_door, checked
from .found import found_as
from .sockets import Motion

_NODE = "Temporal Sampler"
_COMBOS: dict[str, tuple[str, ...]] = {
    "sampler_name": tuple(comfy.samplers.KSampler.SAMPLERS),
    "scheduler": tuple(comfy.samplers.KSampler.SCHEDULERS),
    "fusing": FUSINGS,
    "offset": OFFSETS,
    "initial_noise": INITIAL_NOISES,
    "prediction": PREDICTIONS,
    "betas": BETAS,
}


def _combo(name: str, tooltip: str, default: str | None = None) -> io.Combo.Input:
    return io.Combo.Input(name, options=list(_COMBOS[name]), default=default or _COMBOS[name][0], tooltip=tooltip)


def _sampling_inputs() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="An SD1.5 checkpoint, with Appearance Reference, LoRAs and the like already on it."),
        io.Conditioning.Input("positive", tooltip="What the frames show, with its ControlNets, such as Flow ControlNet's."),
        io.Conditioning.Input("negative", tooltip="What they do not show, with the same ControlNets."),
        io.Latent.Input("latents", tooltip="One a frame: empty ones, or encoded frames with 'denoise' below 1."),
        io.Int.Input(
            "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
            tooltip="Of the noise and the windows' offsets."
        ),
        io.Int.Input("steps", default=25, min=1, max=10000, tooltip="Denoising steps."),
        io.Float.Input(
            "cfg", default=3.5, min=0.0, max=100.0, step=0.1, round=0.01,
            tooltip="Guidance: times the prompt's effect; 1 is none."
        ),
        _combo("sampler_name", "ComfyUI's samplers.", "ddim"),
        _combo("scheduler", "ComfyUI's schedulers. MagicPortrait's trailing steps are 'simple'.", "simple"),
        io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="How much is sampled anew; 1 is all."),
    ]  # fmt: skip


def _window_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "window_length", default=16, min=1, max=1024,
            tooltip="Frames that are computed together; memory grows with it. AnimateDiff and X-Portrait: 16, MagicPortrait: 12.",
        ),
        io.Int.Input("overlap", default=4, min=0, max=1023, tooltip="Frames that neighbouring windows share. X-Portrait: 4."),
        io.Int.Input(
            "stride", default=1, min=1, max=8,
            tooltip="2 adds windows of every second frame, 3 also of every fourth: each sees further and costs as much again.",
        ),
        io.Boolean.Input("closed_loop", default=False, tooltip="The last frame is followed by the first: windows run across."),
        _combo("fusing", "How overlapping windows are averaged. pyramid: a window's middle counts more; uniform: X-Portrait and "
               "MagicPortrait; overlap-linear: faded within the overlap."),
        _combo("offset", "Where windows begin. none: at the same frames each step; inside: at random ones; circular: at random "
               "ones, and windows run from the clip's end to its beginning, as X-Portrait and MagicPortrait do."),
        _combo("initial_noise", "independent: each frame its own; shared: the same for all; from source: each its own, over the "
               "source's latent, as X-Portrait does."),
    ]  # fmt: skip


def _schedule_inputs() -> list[io.Input]:
    return [
        _combo("prediction", "What the checkpoint predicts: eps (SD1.5, X-Portrait) or v_prediction (MagicPortrait)."),
        _combo(
            "betas",
            "The noise schedule of its training: scaled linear (SD1.5, X-Portrait) or linear (AnimateDiff, MagicPortrait).",
        ),
        io.Boolean.Input(
            "zero_snr", default=False, tooltip="Zero terminal SNR: the first step sees pure noise. MagicPortrait: on."
        ),
    ]


class TemporalSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flow3DTemporalSampler",
            display_name=_NODE,
            category="Flow3D/diffusion",
            **found_as("KSampler", "AnimateDiff", "context windows", "video sampler"),
            description="Samples the frames of a clip together, in windows that overlap: a clip of any length fits in memory.",
            inputs=[
                *_sampling_inputs(),
                *_window_inputs(),
                *_schedule_inputs(),
                Motion.Input(
                    "motion", optional=True, tooltip="Temporal layers. Free where the model has its own (AnimateDiff-Evolved's)."
                ),
                io.Latent.Input("source", optional=True, tooltip="The source portrait's latent, one frame; for 'from source'."),
            ],
            outputs=[
                io.Latent.Output(display_name="sampled", tooltip="The clip's latents: decode them with the VAE."),
                io.String.Output(
                    display_name="seams", tooltip="Mean change between frames across windows' borders against the change inside."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(
        cls,
        sampler_name: Any = None,
        scheduler: Any = None,
        fusing: Any = None,
        offset: Any = None,
        initial_noise: Any = None,
        prediction: Any = None,
        betas: Any = None,
    ) -> bool | str:
        return at_the_door(
            cls,
            sampler_name=sampler_name,
            scheduler=scheduler,
            fusing=fusing,
            offset=offset,
            initial_noise=initial_noise,
            prediction=prediction,
            betas=betas,
        )

    @classmethod
    @checked()
    def execute(
        cls,
        model: ModelPatcher,
        positive: Any,
        negative: Any,
        latents: dict[str, Any],
        window_length: int,
        overlap: int,
        stride: int,
        closed_loop: bool,
        fusing: Any,
        offset: Any,
        initial_noise: Any,
        prediction: Any,
        betas: Any,
        zero_snr: bool,
        motion: MotionModule | None = None,
        source: dict[str, Any] | None = None,
        **steps: Any,
    ) -> io.NodeOutput:
        windows = Windows(window_length, overlap, stride, closed_loop, fusing, offset)
        clip = Clip(latents, initial_noise, None if source is None else source["samples"])
        callback = latent_preview.prepare_callback(model, steps["steps"])
        schedule = NoiseSchedule(prediction, betas, zero_snr)
        samples, seams = sample_clip(model, positive, negative, clip, Steps(**steps), windows, motion, schedule, callback)
        return io.NodeOutput({**latents, "samples": samples}, seams_report(seams, windows, len(samples)))
