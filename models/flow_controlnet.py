"""The flow ControlNet inside ComfyUI: its own adapter for ControlNets, steered by a FlowField."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import comfy.controlnet
import comfy.model_management
import torch
import torch.nn.functional as F
from comfy.cldm.cldm import ControlNet as Network
from torch import Tensor

from ..flow3d.errors import InputError
from ..flow3d.flow.field import FlowField
from .flow_controlnet_file import FlowControlNetFile, read_flow_controlnet
from .flow_format import FlowFormat
from .flow_hints import FlowHints
from .flow_network import Control, build_network, residuals

_NODE = "Flow ControlNet Apply"


class FlowControlNet(comfy.controlnet.ControlNet):
    """ComfyUI's ControlNet whose hint is a FlowField: it asks for the frames of the current context window only.

    Loading, chaining, strength, range and memory are ComfyUI's own. Copies share the weights, and the hints of one field.
    """

    def __init__(self, network: Network | None, name: str, format: FlowFormat | None, **options: Any):
        super().__init__(network, **options)
        self.name = name  # of the file, for messages
        self.format = format  # None: the file told nothing of its encoding
        self.hints: FlowHints | None = None
        self.mask: Tensor | None = None

    @property
    def channels(self) -> int:
        """Of the flow it reads."""
        return self.control_model.input_hint_block[0].weight.shape[1]

    def set_cond_hint(self, *_: Any, **__: Any) -> "FlowControlNet":
        """What nodes for pictures call."""
        raise InputError(f"{self.name} reads 3D flow ({self.channels} channels), not pictures. Connect it to {_NODE}.")

    def steered(self, hints: FlowHints, strength: float, span: tuple[float, float], mask: Tensor | None) -> "FlowControlNet":
        """A copy that is steered by the hints' field.

        Args:
            span: from which part of the sampling to which, 0 to 1.
            mask: (F, H, W), 0 to 1, where it acts: F is 1 or as long as the field.

        Raises InputError where the field is encoded in another way than the network was trained on.
        """
        self._check(hints.field)
        if mask is not None and len(mask) not in (1, len(hints.field)):
            raise InputError(
                f"{_NODE}: the mask has {len(mask)} frames, the field {len(hints.field)}. Give one mask, or one for each frame."
            )
        control = self.copy()
        control.hints, control.mask = hints, mask
        control.strength, control.timestep_percent_range = strength, span
        return control

    def get_control(
        self, x_noisy: Tensor, t: Tensor, cond: Mapping[str, Any], batched_number: int, transformer_options: dict[str, Any]
    ) -> Control | None:
        """The residuals for x_noisy (batched_number * n, 4, h, w), n frames of the current window."""
        previous = None
        if self.previous_controlnet is not None:
            previous = self.previous_controlnet.get_control(x_noisy, t, cond, batched_number, transformer_options)
        if self.hints is None or self.strength == 0 or self._outside(t):
            return previous
        frames = frames_of(transformer_options, x_noisy.shape[0] // batched_number)
        sigmas = transformer_options.get("sample_sigmas")
        if sigmas is not None:
            self.hints.clear_with(sigmas)
        dtype = self.manual_cast_dtype or self.control_model.dtype
        hint = self.hints.of(frames, self.control_model, x_noisy, dtype)
        sampling = self.model_sampling_current
        control = residuals(
            self.control_model,
            sampling.calculate_input(t, x_noisy).to(dtype),
            hint,
            sampling.timestep(t).to(dtype),
            self._context(cond, x_noisy.device, dtype),
        )
        if self.mask is not None:
            mask = self.mask[frames if len(self.mask) > 1 else [0] * len(frames)].to(x_noisy.device)
            control = masked(control, mask.repeat(batched_number, 1, 1))
        return self.control_merge(control, previous, output_dtype=None)

    def copy(self) -> "FlowControlNet":
        c = FlowControlNet(None, self.name, self.format, load_device=self.load_device, manual_cast_dtype=self.manual_cast_dtype)
        c.control_model, c.control_model_wrapped = self.control_model, self.control_model_wrapped
        self.copy_to(c)
        c.hints, c.mask = self.hints, self.mask
        return c

    def pre_run(self, model: Any, percent_to_timestep_function: Any) -> None:
        super().pre_run(model, percent_to_timestep_function)
        if self.hints is not None:
            self.hints.clear()

    def cleanup(self) -> None:
        super().cleanup()
        if self.hints is not None:
            self.hints.clear()

    def inference_memory_requirements(self, dtype: torch.dtype) -> float:
        """Beside the network's own: one frame's flow and the widest pair of layers of the hint block, in bytes."""
        more = super().inference_memory_requirements(dtype)
        if self.hints is None:
            return more
        camera = self.hints.field.camera
        return more + camera.width * camera.height * (2 * self.channels + 32) * comfy.model_management.dtype_size(dtype)

    def _outside(self, t: Tensor) -> bool:
        """Whether this sigma lies outside the range from `start` to `end`."""
        return self.timestep_range is not None and bool(t[0] > self.timestep_range[0] or t[0] < self.timestep_range[1])

    def _context(self, cond: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> Tensor:
        text = cond.get("crossattn_controlnet", cond["c_crossattn"])
        wanted = self.control_model.input_blocks[1][1].transformer_blocks[0].attn2.to_k.weight.shape[1]
        if text.shape[-1] != wanted:
            raise InputError(
                f"{_NODE}: {self.name} is for Stable Diffusion 1.5, whose text has {wanted} numbers a token; this model's has "
                f"{text.shape[-1]}. Load a checkpoint of SD1.5."
            )
        return comfy.model_management.cast_to_device(text, device, dtype)

    def _check(self, field: FlowField) -> None:
        if len(field) == 0:
            raise InputError(f"{_NODE}: the field has no frames. Retarget a driver that has some.")
        if self.format is not None:
            self.format.check(field, self.name)
        channels = FlowFormat.of(field).channels
        if channels != self.channels:
            raise InputError(
                f"{_NODE}: {self.name} reads {self.channels} channels, but the field has {channels}, 3 for each of its "
                f"{field.sampling.samples} samples. Set 'samples' in 3D Flow Encode to {self.channels // 3}."
            )


def load_flow_controlnet(path: Path) -> FlowControlNet:
    """The network of a file, where ComfyUI keeps models that wait. Raises InputError for a file of another kind."""
    return build_flow_controlnet(read_flow_controlnet(path), path.name)


def build_flow_controlnet(file: FlowControlNetFile, name: str) -> FlowControlNet:
    """The control net of these weights; `name` is for messages."""
    device = comfy.model_management.get_torch_device()
    network, cast = build_network(file.state, name, device)
    return FlowControlNet(network, name, file.format, load_device=device, manual_cast_dtype=cast)


def adopted(control_net: Any) -> FlowControlNet:
    """The flow ControlNet on a CONTROL_NET wire: ours, or ComfyUI's own loading of the same file, without its metadata.

    Raises InputError for any other.
    """
    if isinstance(control_net, FlowControlNet):
        return control_net
    network = getattr(control_net, "control_model", None)
    if type(control_net) is not comfy.controlnet.ControlNet or not isinstance(network, Network):
        raise InputError(f"{_NODE}: this control net is no flow ControlNet. Load one with Load Flow ControlNet.")
    c = FlowControlNet(
        None, "this control net", None, load_device=control_net.load_device, manual_cast_dtype=control_net.manual_cast_dtype
    )
    c.control_model, c.control_model_wrapped = network, control_net.control_model_wrapped
    if c.channels == 3:
        raise InputError(f"{_NODE}: this control net reads pictures, not 3D flow. Use Apply ControlNet for it.")
    return c


def frames_of(transformer_options: Mapping[str, Any], count: int) -> list[int]:
    """Which frames of the clip the latents of this call are: those of the context window, by ComfyUI's own handler or by
    AnimateDiff-Evolved's, or the first `count`. Raises InputError where a window has another length."""
    window = transformer_options.get("context_window")
    frames: Sequence[int] | Tensor | None = getattr(window, "index_list", None)
    if frames is None:
        frames = (transformer_options.get("ad_params") or {}).get("sub_idxs")
    if frames is None:
        return list(range(count))
    listed = [int(f) for f in frames]
    if len(listed) != count:
        raise InputError(f"{_NODE}: a context window of {len(listed)} frames came with {count} latents. Use 'dim' 0 for SD1.5.")
    return listed


def masked(control: Control, mask: Tensor) -> Control:
    """The residuals times the mask (B, H, W), brought to the size of each."""

    def faded(x: Tensor | None) -> Tensor | None:
        return None if x is None else x * F.interpolate(mask[:, None], x.shape[-2:], mode="area").to(x.dtype)

    return {key: [faded(x) for x in values] for key, values in control.items()}
