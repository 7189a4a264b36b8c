"""How Flow3D's warp-lang kernels are launched on torch tensors: one source for the CPU and CUDA."""

import os
from typing import Any

import torch
import warp as wp


def _start_quietly() -> None:
    """Start warp without its banner, and without the line its native part writes to stderr where there is no CUDA."""
    wp.config.quiet = True
    if torch.cuda.is_available():
        wp.init()
        return
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        wp.init()  # its failures are exceptions: nothing is lost with what it prints
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


_start_quietly()


def as_array(tensor: torch.Tensor, dtype: Any) -> Any:
    """The tensor's memory (a copy's where it is not contiguous) as a warp array of `dtype`, vectors last."""
    return wp.from_torch(tensor.detach().contiguous(), dtype=dtype)


def launch(kernel: Any, dim: tuple[int, ...], inputs: list, outputs: list, device: torch.device) -> None:
    """Run `kernel` over `dim` threads on `device`, on torch's own CUDA stream where there is one.

    `inputs` and `outputs` are warp arrays, structs or numbers. On the CPU the launch has ended when this returns, and
    the threads run one after the other in order.
    """
    if device.type == "cuda":
        with wp.ScopedStream(wp.stream_from_torch(device)):
            wp.launch(kernel, dim, inputs, outputs, device=wp.device_from_torch(device))
    else:
        wp.launch(kernel, dim, inputs, outputs, device="cpu")
