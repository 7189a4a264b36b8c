"""The hints of a flow ControlNet: each frame's flow through the hint block once, and only its result kept."""

import weakref
from collections.abc import Sequence

import comfy.model_management
import torch
from comfy.cldm.cldm import ControlNet as Network
from torch import Tensor

from ..flow3d.errors import InputError
from ..flow3d.flow.field import FlowField

_SHARE = 0.1  # of a device's free memory that the hints of all frames may take there


class FlowHints:
    """What the hint block makes of each frame of a field, kept from the first step of a run to its end.

    A frame at 512 x 512 keeps 320 x 64 x 64 numbers, 2.6 MB in float16, where its flow has 31 MB.
    """

    def __init__(self, field: FlowField):
        self.field = field
        self._resized: FlowField | None = None
        self._kept: dict[int, Tensor] = {}  # (1, 320, h, w) by frame
        # They lie in one block: small ones among the hint block's large passing ones would keep the heap from shrinking.
        self._store: Tensor | None = None

    def of(self, frames: Sequence[int], network: Network, like: Tensor, dtype: torch.dtype) -> Tensor:
        """(n, 320, h, w): the hints of these frames in the order given.

        Args:
            frames: indices into the field; a field of one frame serves them all.
            network: loaded on the device of `like`, the latents (..., h, w), which set the hints' size too.
            dtype: what the network computes in.

        Raises InputError where the field has no such frame or another shape than the latents; and ComfyUI's exception, between
        two frames, where the user cancels.
        """
        length = len(self.field)
        frames = [0] * len(frames) if length == 1 else list(frames)
        if frames and not 0 <= min(frames) <= max(frames) < length:
            raise InputError(
                f"Flow ControlNet Apply: the latents have a frame {max(frames)}, counted from 0, but the field has {length} frames. "
                "Make as many latents as the target track has frames, or fewer."
            )
        field = self._sized(like)
        for frame in frames:
            if frame not in self._kept:
                comfy.model_management.throw_exception_if_processing_interrupted()
                self._kept[frame] = self._hint(field, frame, network, like, dtype)
        return torch.cat([self._kept[f].to(like.device) for f in frames])

    def clear(self) -> None:
        """Forget what was computed."""
        self._resized = None
        self._kept = {}
        self._store = None

    def clear_with(self, owner: Tensor) -> None:
        """Forget it too when `owner` dies: ComfyUI calls no `cleanup` where a run was cancelled or failed."""
        if not self._kept:
            weakref.finalize(owner, self.clear).atexit = False

    def nbytes(self) -> int:
        """Memory of what is kept."""
        return sum(hint.nbytes for hint in self._kept.values())

    def _sized(self, like: Tensor) -> FlowField:
        """The field at 8 times the latents' size, on a device that can compute it."""
        height, width = 8 * like.shape[-2], 8 * like.shape[-1]
        camera = self.field.camera
        if abs(camera.height * width / camera.width - height) > 8:  # a latent's rounding
            raise InputError(
                f"Flow ControlNet Apply: the latents are a picture of {width} x {height} pixels, the field one of "
                f"{camera.width} x {camera.height}: another shape. Make both from the same Portrait Crop."
            )
        if self._resized is None or (self._resized.camera.width, self._resized.camera.height) != (width, height):
            self.clear()
            field = self.field.resize(width, height)
            self._resized = field.to(like.device) if like.device.type == "cuda" else field
        return self._resized

    def _hint(self, field: FlowField, frame: int, network: Network, like: Tensor, dtype: torch.dtype) -> Tensor:
        half = dtype if dtype == torch.float16 else torch.float32  # of the two that a field writes
        shape = (1, 3 * field.sampling.samples, field.camera.height, field.camera.width)
        with torch.inference_mode(False), torch.no_grad():  # the field's own tensors were not made in inference mode
            # Channels last, as convolutions want them: otherwise they copy the flow, 31 MB, once more.
            flow = torch.empty(shape, dtype=half, device=field.head.template.device, memory_format=torch.channels_last)
            field.encode([frame], out=flow)
        # One frame at a time: the memory of one, and a result that does not depend on its company.
        hint = network.input_hint_block(flow.to(like.device, dtype), None, None)
        if self._store is None:
            self._store = torch.empty((len(self.field), *hint.shape[1:]), dtype=hint.dtype, device=self._place(hint))
        return self._store[frame : frame + 1].copy_(hint)

    def _place(self, hint: Tensor) -> torch.device:
        """The device itself where it holds the hints of all frames easily, else the one that waiting models are kept on."""
        if hint.device.type == "cpu":
            return hint.device
        free = comfy.model_management.get_free_memory(hint.device) + self.nbytes()
        roomy = hint.nbytes * len(self.field) < _SHARE * free
        return hint.device if roomy else comfy.model_management.unet_offload_device()
