"""How Flow3D's warp-lang kernels are launched on torch tensors: one source for the CPU and CUDA."""

import os
import threading
from collections.abc import Callable
from typing import Any

import torch
import warp as wp


def _start_quietly() -> None:
    """Start warp without its banner, and without the line its native part writes to stderr where there is no CUDA."""
    if hasattr(wp.config, "log_level"):
        wp.config.log_level = 30  # logging.WARNING; `quiet` alone no longer silences it
    else:
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
_loading = threading.Lock()


def as_array(tensor: torch.Tensor, dtype: Any) -> Any:
    """The tensor's memory (a copy's where it is not contiguous) as a warp array of `dtype`, vectors last."""
    return wp.from_torch(tensor.detach().contiguous(), dtype=dtype)


def to_device(numbers: list, device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Nested lists of numbers as a tensor on `device`; the host does not wait for the copy."""
    here = torch.tensor(numbers, dtype=dtype)
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here.to(device)


def kernel(function: Callable) -> Any:
    """A warp kernel without a backward pass, for use as a decorator.

    Its warp module gets a name of its own: warp makes a cache folder of that name, and by default takes the Python
    module's, which in ComfyUI begins with the path of the pack's folder.
    """
    name = "flow3d_" + function.__module__.rpartition("flow3d.")[2].replace(".", "_")
    return wp.kernel(function, enable_backward=False, module=wp.get_module(name))


def launch(kernel: Any, dim: tuple[int, ...], inputs: list, outputs: list, device: torch.device) -> None:
    """Run `kernel` over `dim` threads on `device`, on torch's own CUDA stream where there is one.

    `inputs` and `outputs` are warp arrays, structs or numbers. On the CPU the launch has ended when this returns, and
    the threads run one after the other in order. Python threads may launch at the same time.
    """
    with _loading:  # two threads must not compile the same kernels side by side
        wp.load_module(kernel.module, device=wp.device_from_torch(device))
    if device.type == "cuda":
        with wp.ScopedStream(wp.stream_from_torch(device)):
            wp.launch(kernel, dim, inputs, outputs, device=wp.device_from_torch(device))
    else:
        wp.launch(kernel, dim, inputs, outputs, device="cpu")
