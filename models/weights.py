"""Reading weight files, safely, and saying what kind of weights a file holds.

Nothing here needs ComfyUI. What it reads is what ComfyUI's `load_torch_file` reads with safe loading: safetensors, and
pickled files (.pt, .pth, .ckpt, .bin, .th) as tensors only, never as code.
"""

import pickle
import re
import zipfile
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..flow3d.errors import InputError

SAFETENSORS = (".safetensors", ".sft")
_AGAIN = "Download it again"


@dataclass(frozen=True)
class Weights:
    """What a file holds: tensors by name, and, of a safetensors file, its metadata."""

    state: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)


def read_weights(path: Path) -> Weights:
    """The tensors of a file, on the CPU; of a pickled one its `state_dict` where it has one.

    Raises InputError where the file is missing, cut short, damaged, or a pickle that holds code.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file. Check the name and the folder.")
    weights = _read_safetensors(path) if path.suffix.lower() in SAFETENSORS else Weights(_read_pickled(path))
    if not weights.state:
        raise InputError(f"{path.name} holds no weights. {_AGAIN}, or choose another file.")
    return weights


def _read_safetensors(path: Path) -> Weights:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return Weights({name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path.name} is cut short or is no safetensors file ({error}). {_AGAIN}.") from error


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        with _harmless():
            # Mapped, a part of a large checkpoint does not cost the memory of all of it; the old format cannot be.
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"program code ({code[1]}), which is never run" if code else "something else than weights, or is damaged"
        raise InputError(f"{path.name} holds {what}. Get these weights as a .safetensors file.") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path.name} is cut short or damaged. {_AGAIN}.") from error
    return _tensors(found)


def _tensors(found: Any) -> dict[str, Tensor]:
    """The tensors of what was saved: below `state_dict`, below the only entry, or as they are."""
    if not isinstance(found, Mapping):
        return {}
    if isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    elif len(found) == 1 and isinstance(only := next(iter(found.values())), Mapping):
        found = only
    return {str(name): value.detach() for name, value in found.items() if isinstance(value, Tensor)}


def _harmless() -> AbstractContextManager:
    """Lets the classes through that old checkpoints of trainers hold beside their weights, none of which is code."""
    if not hasattr(torch.serialization, "safe_globals"):  # before torch 2.5
        return nullcontext()
    from _codecs import encode

    from numpy import dtype
    from numpy.core.multiarray import scalar
    from numpy.dtypes import Float64DType

    checkpoint = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks.model_checkpoint"})
    return torch.serialization.safe_globals([checkpoint, scalar, dtype, Float64DType, encode])


# --- what a file is --------------------------------------------------------------------------------------------------

_UNET = r"(model\.diffusion_model\.)?"
_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    # A kind, and patterns that must all be found among its names; the first kind that fits is told.
    ("a LoRA for AnimateDiff's motion", (r"motion_modules?\..*(lora|processor)",)),
    ("a LoRA", (r"(lora_(up|down|A|B)\b|\.lora\.(up|down)|_lora\.(up|down)|hada_w1|lokr_w1)",)),
    ("a LyCORIS", (r"^lora_unet_",)),
    ("a Control-LoRA", (r"^lora_controlnet$",)),
    ("an IP-Adapter", (r"^(ip_adapter|image_proj)\.",)),
    ("X-Portrait's checkpoint", (r"^appearance_control_model\.",)),
    ("a guidance encoder of MagicPortrait", (r"^conv_in\.", r"^blocks\.0\.", r"^attentions\.5\.", r"^conv_out\.")),
    ("a guidance encoder of another project than MagicPortrait", (r"^conv_in\.", r"^blocks\.0\.", r"^conv_out\.")),
    ("a guidance encoder", (r"^guidance_attention\.",)),
    ("an SDXL ControlNet", (r"^(add_embedding|control_add_embedding)\.", r"^controlnet_")),
    ("an SDXL ControlNet", (r"^(control_model\.)?label_emb\.", r"zero_convs\.0\.")),
    ("a ControlNet", (r"^controlnet_cond_embedding\.",)),
    ("a ControlNet", (r"(^|\.)zero_convs\.0\.0\.",)),
    ("a ControlNet for a transformer (SD3 or Flux)", (r"^controlnet_blocks\.0\.",)),
    ("a T2I adapter", (r"^(adapter\.)?body\.0\.(resnets|in_conv|block1)",)),
    ("an SDXL checkpoint", (r"^conditioner\.embedders\.",)),
    ("an SDXL UNet", (rf"^({_UNET}label_emb|add_embedding)\.",)),
    ("an SD3 checkpoint", (r"joint_blocks\.0\.",)),
    ("a Flux checkpoint", (r"(double_blocks\.0\.|single_transformer_blocks\.0\.)",)),
    ("an SD2 checkpoint", (rf"^{_UNET}input_blocks\.0\.", r"^cond_stage_model\.model\.")),
    ("an SD1.5 UNet with motion modules", (r"^down_blocks\.0\.resnets\.0\.", r"^up_blocks\.", r"motion_modules\.")),
    ("an AnimateDiff motion module", (r"^(module\.)?(down_blocks|up_blocks|mid_block)\..*motion_modules\.",)),
    ("an SD1.5 checkpoint", (r"^model\.diffusion_model\.input_blocks\.0\.", r"^(cond_stage_model|first_stage_model)\.")),
    ("a UNet", (rf"^{_UNET}input_blocks\.0\.", rf"^{_UNET}out\.2\.")),
    ("a UNet", (r"^down_blocks\.0\.resnets\.0\.", r"^up_blocks\.", r"^conv_out\.")),
    ("a reference UNet", (r"^down_blocks\.0\.resnets\.0\.", r"^up_blocks\.")),
    ("a reference UNet", (rf"^{_UNET}input_blocks\.0\.", rf"^{_UNET}output_blocks\.0\.")),
    ("a VAE", (r"(^|\.)decoder\.(conv_in|mid)", r"(^|\.)encoder\.(conv_in|mid)")),
    ("a CLIP vision model", (r"(^|\.)vision_model\.",)),
    ("a text encoder", (r"(^|\.)text_model\.encoder\.|^encoder\.block\.0\.layer\.|^transformer\.resblocks\.",)),
    ("a textual inversion", (r"^(emb_params|clip_l|clip_g)$",)),
    ("a head track of Flow3D", (r"^expression$", r"^translation$")),
    ("a head model", (r"^(template|v_template)$",)),
)


def kind_of(names: Collection[str]) -> str:
    """What the weights of these names are, in a user's words, with an article: "an SDXL checkpoint", "a LoRA"."""
    text = "\n".join(names)
    for kind, patterns in _KINDS:
        if all(re.search(pattern, text, re.MULTILINE) for pattern in patterns):
            return kind
    return f"a file of unknown weights (such as {next(iter(names), 'none at all')})"


def unexpected(path: Path, found: str, wanted: str) -> InputError:
    """The error for a file of another kind; `found` as `kind_of` says it, `wanted` with its article too."""
    return InputError(f"{path.name} is {found}; this needs {wanted}. Choose another file.")
