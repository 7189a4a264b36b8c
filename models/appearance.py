"""Appearance Reference: a MODEL whose self-attention also reads references, written by an appearance network.

Nothing of the MODEL's network is changed: a wrapper of `apply_model` puts the attention of `reference_attention.py` into the
options of each call. ComfyUI's memory management loads the appearance network beside the model.
"""

from dataclasses import dataclass
from typing import Any

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrapperExecutor, WrappersMP
from torch import Tensor

from ..flow3d.errors import InputError
from .appearance_network import Appearance
from .appearance_reference import CONDITIONAL, Reference
from .reference_attention import ReferenceAttention, transformer_blocks

KEY = "flow3d_appearance"
"""The name under which wrapper, callback and network hang on a ModelPatcher."""


@dataclass(frozen=True, eq=False)
class References:
    """All references of a MODEL: a wrapper of `apply_model`, the same object in all the MODEL's clones."""

    references: tuple[Reference, ...]

    def __deepcopy__(self, _: dict) -> "References":
        return self

    def __call__(
        self,
        executor: WrapperExecutor,
        x: Tensor,
        sigmas: Tensor,
        concat: Any,
        context: Any,
        control: Any,
        options: dict,
        **more: Any,
    ) -> Tensor:
        model: BaseModel = executor.class_obj
        active = [r for r in self.references if r.active(model, float(sigmas[0]))]
        parts = options.get("cond_or_uncond") or [CONDITIONAL]
        read = [[r for r in active if r.read_by(part)] for part in parts]
        if any(read):
            banks = {r: r.bank(model, sigmas[:1]) for r in active if any(r in part for part in read)}
            attention = ReferenceAttention(model.diffusion_model, [[banks[r] for r in part] for part in read])
            options = attention.on(options)
        return executor(x, sigmas, concat, context, control, options, **more)

    def forget(self, _: ModelPatcher) -> None:
        """Free what a sampling run has kept."""
        for reference in self.references:
            reference.memory.forget()


def with_reference(model: ModelPatcher, reference: Reference, appearance: Appearance | None = None) -> ModelPatcher:
    """A clone of `model` that also reads `reference`, beside those that it reads already.

    Args:
        appearance: whose network `reference` names, to be loaded with the model.

    Raises InputError where model, network, latents and prompt do not fit together.
    """
    check_fit(model.model, reference)
    patched = model.clone()
    if reference.strength == 0:
        return patched
    before = [r for wrapper in patched.get_wrappers(WrappersMP.APPLY_MODEL, KEY) for r in wrapper.references]
    references = References((*before, reference))
    patched.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, KEY)
    patched.remove_callbacks_with_key(CallbacksMP.ON_CLEANUP, KEY)
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, references)
    patched.add_callback_with_key(CallbacksMP.ON_CLEANUP, KEY, references.forget)
    if appearance is not None:
        loaded = patched.get_additional_models_with_key(KEY)
        others = [patcher for patcher in loaded if not patcher.is_clone(appearance.patcher)]
        patched.set_additional_models(KEY, [*others, appearance.patcher])
    return patched


def check_fit(model: BaseModel, reference: Reference) -> None:
    """Raises InputError where `reference` cannot be read by `model`."""
    reads = getattr(model, "diffusion_model", None)
    if not isinstance(reads, UNetModel) or reads.num_classes is not None:
        kind = type(model).__name__
        raise InputError(
            f"the model is a {kind}, and only SD1.5's UNet can read a reference. Load an SD1.5 checkpoint."
        )
    writes = reads if reference.network is None else reference.network.unet
    if _widths(reads) != _widths(writes):
        raise InputError(
            "the appearance network and the model are of different kinds: their attention has "
            f"{_told(_widths(writes))} and {_told(_widths(reads))} channels. Both must be SD1.5's."
        )
    if reference.latents.ndim != 4 or reference.latents.shape[1] != writes.in_channels:
        raise InputError(
            f"the reference latents have the shape {tuple(reference.latents.shape)}, and the network that reads them takes "
            f"(references, {writes.in_channels}, height, width). Encode the picture with the VAE of an SD1.5 checkpoint."
        )
    width = next(iter(transformer_blocks(writes).values())).attn2.to_k.in_features
    if reference.prompt.shape[-1] != width:
        raise InputError(
            f"the prompt has {reference.prompt.shape[-1]} numbers a token, the appearance network takes {width}. Encode it with "
            "the CLIP of an SD1.5 checkpoint."
        )
    checked = {"reference latents": reference.latents, "prompt": reference.prompt, "mask": reference.mask}
    for name, numbers in checked.items():
        if numbers is not None and not bool(numbers.isfinite().all()):
            raise InputError(f"the {name} hold NaN or infinity.")
    if reference.mask is not None and len(reference.mask) not in (1, len(reference.latents)):
        masks, references = len(reference.mask), len(reference.latents)
        raise InputError(f"there are {masks} masks for {references} references. Give one, or one for each.")


def _widths(unet: UNetModel) -> dict[tuple, int]:
    return {place: block.attn1.to_q.in_features for place, block in transformer_blocks(unet).items()}


def _told(widths: dict[tuple, int]) -> str:
    return "/".join(str(width) for width in dict.fromkeys(widths.values()))
