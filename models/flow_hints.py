"""The hints of a flow ControlNet: each frame's flow through the hint block once, and only its result kept."""

import math
import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import comfy.model_management
import torch
from comfy.cldm.cldm import ControlNet as Network
from torch import Tensor

from ..flow3d.errors import InputError
from ..flow3d.flow.field import FlowField
from .flow_network import rows_of_flow, write_hint

_SHARE = 0.1  # of a device's free memory that the hints of all frames may take there


class FlowHints:
    """What the hint block makes of each frame of a field, kept from the first step of a run to its end.

    A frame at 512 x 512 keeps 320 x 64 x 64 numbers, 2.6 MB in float16, where its flow has 31 MB, about half of which is there at
    a time. They are kept as precisely as the network's weights, also where it computes in float32 because the device knows no
    other.
    """

    def __init__(self, field: FlowField):
        self.field = field
        self._resized: FlowField | None = None
        self._kept: dict[int, Tensor] = {}  # (1, 320, h, w) by frame
        # They lie in one block: small ones among the hint block's large passing ones would keep the heap from shrinking.
        self._store: Tensor | None = None

    def of(self, frames: Sequence[int], network: Network, like: Tensor, dtype: torch.dtype) -> Tensor:
        """(n, 320, h, w): the hints of these frames in the order given, on the device of `like`, of the type they are kept in. To
        be read only.

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
        new = [frame for frame in dict.fromkeys(frames) if frame not in self._kept]
        if new:
            self._make(new, field, network, like, dtype)
        first, store = frames[0], self._store
        if store is not None and store.device == like.device and frames == list(range(first, first + len(frames))):
            return store[first : first + len(frames)]  # as they lie there: most windows, without 42 MB for a copy of 16 frames
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

    def _make(self, frames: list[int], field: FlowField, network: Network, like: Tensor, dtype: torch.dtype) -> None:
        """One frame at a time: the memory of one, and a result that does not depend on its company."""
        kept = network.dtype if network.dtype.itemsize > 1 else dtype  # 8 bits are for weights only
        if self._store is None:
            self._store = self._room(network.model_channels, like, kept)
        half = kept if kept == torch.float16 else torch.float32  # of the two that a field writes
        shape = (1, 3 * field.sampling.samples, rows_of_flow(like.shape[-2]), field.camera.width)
        # Channels last, as convolutions want them: otherwise they copy the flow once more.
        with torch.inference_mode(False):
            room = torch.empty(shape, dtype=half, device=field.head.template.device, memory_format=torch.channels_last)
        for frame in frames:
            comfy.model_management.throw_exception_if_processing_interrupted()
            hint = self._store[frame : frame + 1]
            write_hint(network, partial(_rows, field[[frame]], room), like.device, dtype, hint)
            self._kept[frame] = hint

    def _room(self, channels: int, like: Tensor, dtype: torch.dtype) -> Tensor:
        """For the hints of all frames: on the device itself where it holds them easily, else where waiting models are kept."""
        shape = (len(self.field), channels, *like.shape[-2:])
        device = like.device
        if device.type != "cpu":
            free = comfy.model_management.get_free_memory(device)
            roomy = math.prod(shape) * dtype.itemsize < _SHARE * free
            device = device if roomy else comfy.model_management.unet_offload_device()
        return torch.empty(shape, dtype=dtype, device=device)


def _rows(frame: FlowField, room: Tensor, top: int, bottom: int) -> Tensor:
    """(1, 3 N, bottom - top, W): these rows of pixels of a field of one frame, in the memory of `room`."""
    camera = frame.camera.cropped(0, top, frame.camera.width, bottom - top)
    with torch.inference_mode(False), torch.no_grad():  # the field's own tensors were not made in inference mode
        return replace(frame, camera=camera).encode(out=room[:, :, : bottom - top])
