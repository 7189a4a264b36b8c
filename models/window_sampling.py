"""Context windows on a MODEL: a handler of ComfyUI's own context windows, for frames that stand in the batch.

Each window is a call of ComfyUI's `calc_cond_batch` with the window's part of everything that runs along the frames. What
slices itself (ControlNets of other packs, attention patches) finds the window in `transformer_options`: `context_window` is
ComfyUI's way to tell it, `ad_params` AnimateDiff-Evolved's.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import comfy.context_windows
import comfy.controlnet
import comfy.model_management
import torch
from comfy.context_windows import ContextHandlerABC, IndexListContextWindow
from comfy.controlnet import ControlBase
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .windows import Windows

Conds = list[list[dict[str, Any]] | None]


def with_windows(model: ModelPatcher, windows: Windows, seed: int) -> ModelPatcher:
    """A clone of `model` that samples clips longer than a window in windows, with memory reserved for a window alone."""
    patched = model.clone()
    patched.model_options["context_handler"] = WindowHandler(windows, seed)
    comfy.context_windows.create_prepare_sampling_wrapper(patched)
    return patched


@dataclass(frozen=True)
class WindowHandler(ContextHandlerABC):
    """ComfyUI's handler: `dim` and `context_length` are what its wrapper of the memory estimate reads."""

    windows: Windows
    seed: int
    dim: ClassVar[int] = 0

    @property
    def context_length(self) -> int:
        return self.windows.length

    def should_use_context(
        self, model: BaseModel, conds: Conds, x_in: Tensor, timestep: Tensor, model_options: dict
    ) -> bool:
        return len(x_in) > self.windows.length

    def execute(
        self,
        calc_cond_batch: Callable,
        model: BaseModel,
        conds: Conds,
        x_in: Tensor,
        timestep: Tensor,
        model_options: dict,
    ) -> list[Tensor]:
        """The denoised clip (F, C, H, W) for each of `conds`: the weighted mean of what the windows give."""
        windows = self.windows.at_step(len(x_in), nearest_step(timestep, model_options), self.seed)
        weights = self.windows.weights(windows, len(x_in)).to(x_in)
        fused = [torch.zeros_like(x_in) for _ in conds]
        for frames, weight in zip(windows, weights, strict=True):
            comfy.model_management.throw_exception_if_processing_interrupted()
            window = IndexListContextWindow(frames, dim=self.dim)
            parts = self._parts(conds, x_in, window)
            options = _told_of(window, len(x_in), model_options)
            results = calc_cond_batch(
                model, parts, x_in[frames], timestep[frames] if len(timestep) > 1 else timestep, options
            )
            for total, result in zip(fused, results, strict=True):
                total[frames] += result * weight[frames].view(-1, *[1] * (x_in.ndim - 1))
        return fused

    def _parts(self, conds: Conds, x_in: Tensor, window: IndexListContextWindow) -> Conds:
        # Both halves of a guided step may have one ControlNet, and are computed together only while it is the same object.
        controls: dict[int, ControlBase] = {}
        return [
            None if cond is None else [_sliced(entry, len(x_in), window.index_list, controls) for entry in cond]
            for cond in conds
        ]

    def get_resized_cond(
        self, cond_in: list[dict] | None, x_in: Tensor, window: IndexListContextWindow, device: Any = None
    ) -> Any:
        return self._parts([cond_in], x_in, window)[0]


def nearest_step(timestep: Tensor, model_options: dict) -> int:
    """The number of the step: samplers also ask between two steps, at noise levels that are not in their list."""
    sigmas = model_options["transformer_options"]["sample_sigmas"]
    return int((sigmas - timestep.flatten()[0].to(sigmas)).abs().argmin())


def _told_of(window: IndexListContextWindow, frames: int, model_options: dict) -> dict:
    options = model_options["transformer_options"]
    animatediff = {
        **options.get("ad_params", {}),
        "sub_idxs": window.index_list,
        "full_length": frames,
        "context_length": window.context_length,
    }
    return {**model_options, "transformer_options": {**options, "context_window": window, "ad_params": animatediff}}


# --- the part of a conditioning that belongs to a window -------------------------------------------------------------


def _sliced(entry: dict[str, Any], frames: int, chosen: list[int], controls: dict[int, ControlBase]) -> dict[str, Any]:
    """One conditioning, with every tensor that has a row for each frame cut down to the window's."""
    part = {name: _rows(value, frames, chosen) for name, value in entry.items()}
    part["model_conds"] = {
        name: cond._copy_with(_rows(cond.cond, frames, chosen))
        if isinstance(getattr(cond, "cond", None), Tensor)
        else cond
        for name, cond in entry.get("model_conds", {}).items()
    }
    if entry.get("control") is not None:
        part["control"] = _sliced_control(entry["control"], frames, chosen, controls)
    return part


def _rows(value: Any, frames: int, chosen: list[int]) -> Any:
    along_frames = isinstance(value, Tensor) and value.ndim > 0 and len(value) == frames
    return value[chosen] if along_frames else value


def _sliced_control(control: ControlBase, frames: int, chosen: list[int], made: dict[int, ControlBase]) -> ControlBase:
    """ComfyUI's own ControlNets know no windows: each gets a light copy with the window's hints, sharing the network.

    Others slice for themselves; one is copied only where a ControlNet that it stands upon is.
    """
    if id(control) in made:
        return made[id(control)]
    previous = control.previous_controlnet
    below = None if previous is None else _sliced_control(previous, frames, chosen, made)
    own = type(control).__module__ == comfy.controlnet.__name__ and _runs_along(control, frames)
    sliced = control
    if own or below is not previous:
        sliced = copy.copy(control)
        sliced.previous_controlnet = below
    if own:
        sliced.cond_hint_original = _rows(control.cond_hint_original, frames, chosen)
        sliced.extra_concat_orig = [_rows(extra, frames, chosen) for extra in control.extra_concat_orig]
        sliced.cond_hint = sliced.extra_concat = None
        if hasattr(sliced, "control_input"):  # a T2I adapter's
            sliced.control_input = None
    made[id(control)] = sliced
    return sliced


def _runs_along(control: ControlBase, frames: int) -> bool:
    return any(
        isinstance(t, Tensor) and len(t) == frames for t in (control.cond_hint_original, *control.extra_concat_orig)
    )
