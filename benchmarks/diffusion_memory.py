"""How much memory the hints of a long clip take, measured in a process of its own, whose peak nothing else has raised.

    python -m comfyui_flow3d.benchmarks.diffusion_memory COMFYUI_FOLDER [--frames 240] [--device cuda]

The hints are made window by window at 512 x 512 by a hint block of SD1.5's width with weights in float16. On a CPU it
computes in float32, as ComfyUI has it there and on GPUs that are slow at float16; the peak is that of the process's resident
memory, and on a GPU of torch's allocations. It prints its figures as JSON.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from .diffusion_networks import HINT_CHANNELS, Size, a_field, control_network, fill, start_comfyui

SIZE = Size(320, 768, 64, torch.float16)
WINDOW, PIXELS = 16, 512


def in_a_process(comfyui: Path, frames: int, device: torch.device) -> dict[str, float]:
    """The figures of a fresh process."""
    command = [sys.executable, "-m", __name__, str(comfyui), "--frames", str(frames), "--device", str(device)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(frames: int, device: torch.device) -> dict[str, float]:
    import comfy.ops

    from ..models.flow_hints import FlowHints

    computes = torch.float32 if device.type == "cpu" else torch.float16
    network = control_network(SIZE, "meta", comfy.ops.manual_cast)  # of its weights only the hint block's are there
    network.input_hint_block.to_empty(device=device)
    fill(network.input_hint_block)
    hints = FlowHints(a_field(PIXELS, frames))
    like = torch.zeros(1, 4, SIZE.latent, SIZE.latent, device=device)
    with torch.inference_mode():
        hints.of([0], network, like[..., :8, :8], computes)  # kernels and libraries are there
        before, start = _peak(device), time.perf_counter()
        for first in range(0, frames, WINDOW):
            hints.of(range(first, min(first + WINDOW, frames)), network, like, computes)
    kept, peak = hints.nbytes(), _peak(device) - before
    if peak < kept:
        raise SystemExit(f"the peak is {peak} bytes, less than the {kept} that are kept: it was not measured")
    return {
        "memory_frames": frames,
        "memory_kept_mb": kept / 1e6,
        "memory_peak_mb": peak / 1e6,
        "memory_plain_tensor_mb": frames * HINT_CHANNELS * PIXELS * PIXELS * 2 / 1e6,
        "memory_seconds": time.perf_counter() - start,
    }


def _peak(device: torch.device) -> int:
    """The most bytes taken so far, on the GPU or by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    if sys.platform == "linux":  # whose `ru_maxrss` of a new process begins at its parent's
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("comfyui", type=Path, help="ComfyUI's folder")
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    alive = start_comfyui(arguments.comfyui, device)  # noqa: F841
    print(json.dumps(measure(arguments.frames, device)))


if __name__ == "__main__":
    main()
