"""The noise schedule a checkpoint was trained with, where it is not the one that ComfyUI takes from its structure."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal

import comfy.model_sampling
from comfy.model_patcher import ModelPatcher

from ..flow3d.errors import InputError

Prediction = Literal["as loaded", "eps", "v_prediction"]
PREDICTIONS: tuple[Prediction, ...] = ("as loaded", "eps", "v_prediction")
Betas = Literal["as loaded", "scaled linear", "linear"]
BETAS: tuple[Betas, ...] = ("as loaded", "scaled linear", "linear")
_IN_COMFYUI = {"scaled linear": "linear", "linear": "sqrt_linear"}
"""diffusers' and the papers' names of the two schedules to ComfyUI's: the square roots run evenly, or the betas do."""
_KINDS = {"eps": comfy.model_sampling.EPS, "v_prediction": comfy.model_sampling.V_PREDICTION}


@dataclass(frozen=True)
class NoiseSchedule:
    """What differs from the loaded model's.

    Args:
        prediction: what the network tells: the noise (SD1.5, X-Portrait, AnimateDiff) or v (MagicPortrait).
        betas: `scaled linear` (SD1.5, X-Portrait) or `linear` (AnimateDiff, MagicPortrait), both 0.00085 to 0.012.
        zero_snr: rescaled so that the last step is pure noise (Lin et al. 2024), as MagicPortrait's.
    """

    prediction: Prediction = "as loaded"
    betas: Betas = "as loaded"
    zero_snr: bool = False

    def on(self, model: ModelPatcher) -> ModelPatcher:
        """A clone of `model` with this schedule; `model` itself where nothing is set.

        Raises InputError for a model without discrete steps, and for zero terminal SNR with a network that predicts noise.
        """
        if self == NoiseSchedule():
            return model
        current = model.get_model_object("model_sampling")
        if not isinstance(current, comfy.model_sampling.ModelSamplingDiscrete):
            raise InputError(
                "the model's noise schedule has no betas. Leave 'prediction' and 'betas' at "
                "'as loaded' and 'zero terminal SNR' off, or load an SD1.5 checkpoint."
            )
        kind = type(current)
        if self.prediction != "as loaded":
            kind = type("ModelSampling", (comfy.model_sampling.ModelSamplingDiscrete, _KINDS[self.prediction]), {})
        if self.zero_snr and not issubclass(kind, comfy.model_sampling.V_PREDICTION):
            raise InputError(
                "with 'zero terminal SNR' the first step sees nothing but noise, of which a network that predicts noise learns "
                "nothing. Set 'prediction' to 'v_prediction', or switch 'zero terminal SNR' off."
            )
        settings = dict(model.model.model_config.sampling_settings)
        if self.betas != "as loaded":
            settings["beta_schedule"] = _IN_COMFYUI[self.betas]
        patched = model.clone()
        sampling = kind(SimpleNamespace(sampling_settings=settings), zsnr=self.zero_snr or current.zsnr)
        patched.add_object_patch("model_sampling", sampling)
        return patched
