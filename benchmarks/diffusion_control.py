"""What the flow ControlNet costs: one sampling step of 16 frames, without it, with its hint kept, and with its hint made anew.

    python -m comfyui_flow3d.benchmarks.diffusion_control COMFYUI_FOLDER [--full] [--device cuda] [--memory FRAMES] [--json FILE]

Random weights in SD1.5's structure: a tenth of its width at 256 x 256 in float32, or with `--full` its own width at 512 x 512,
in float16 on a GPU. The flow is that of a bundled motion. An ordinary ControlNet keeps the hint as it is and sends it through
the hint block in every step; ours keeps what the hint block makes of it. On the CPU the time is that of one thread of this
process. With `--memory` the hints of a whole clip at 512 x 512 in float16 are made, and the memory of the process is watched.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..flow3d.camera import Camera
from ..flow3d.flow.field import FlowField
from ..flow3d.head.load import load_head
from ..flow3d.io.motions import load_motion
from .diffusion_appearance import FRAMES, SIGMA, Size, fill, milliseconds, start_comfyui, unet_arguments

MEMORY = Size(320, 768, 64, torch.float16)


def a_field(pixels: int, frames: int) -> FlowField:
    """A bundled motion, over and over, in the view of a portrait crop."""
    head = load_head("open")
    motion = load_motion("turn", head)
    target = motion[[i % len(motion) for i in range(frames)]]
    return FlowField(motion[:1], target, head, Camera.from_field_of_view(pixels, pixels))


def flow_controlnet(size: Size, field: FlowField, device: torch.device) -> Any:
    """A flow ControlNet of random weights, steered by the field."""
    import comfy.ops
    from comfy.cldm.cldm import ControlNet

    from ..models.flow_controlnet import FlowControlNet
    from ..models.flow_hints import FlowHints

    arguments = unet_arguments(size) | {"hint_channels": 60, "dtype": size.dtype, "device": device}
    del arguments["out_channels"]
    network = ControlNet(**arguments, operations=comfy.ops.disable_weight_init)
    fill(network)
    return FlowControlNet(network, "random", None, load_device=device).steered(FlowHints(field), 1.0, (0.0, 1.0), None)


class Step:
    """The conditional half of one sampling step, and the ways of making it."""

    def __init__(self, size: Size, device: torch.device):
        import comfy.supported_models

        described = comfy.supported_models.SD15(unet_arguments(size))
        described.set_inference_dtype(size.dtype, None)
        self.model = described.get_model({}, "", device=device).to(device)
        fill(self.model.diffusion_model)
        self.control = flow_controlnet(size, a_field(8 * size.latent, FRAMES), device)
        self.control.pre_run(self.model, self.model.model_sampling.percent_to_sigma)
        self.x = torch.randn(FRAMES, 4, size.latent, size.latent, device=device)
        self.text = torch.randn(1, 77, size.context, device=device, dtype=size.dtype).expand(FRAMES, -1, -1)
        self.sigmas = torch.full((FRAMES,), SIGMA, device=device)
        self.dtype = size.dtype

    def forward(self, control: Any = None) -> Tensor:
        options = {"cond_or_uncond": [0], "sigmas": self.sigmas}
        return self.model.apply_model(self.x, self.sigmas, c_crossattn=self.text, control=control, transformer_options=options)

    def ours(self) -> Tensor:
        """Every step but the first, or the first where nothing is kept yet."""
        return self.forward(self.control.get_control(self.x, self.sigmas, {"c_crossattn": self.text}, 1, {}))

    def anew(self) -> Tensor:
        """Nothing kept: flow, hint block and network."""
        self.control.hints.clear()
        return self.ours()

    def flow(self) -> Tensor:
        """The flow alone, as the network takes it."""
        field = self.control.hints._sized(self.x)
        return torch.cat([field.encode([i]) for i in range(FRAMES)]).to(self.x.device, self.dtype)

    def hint_block(self, flow: Tensor) -> Tensor:
        block = self.control.control_model.input_hint_block
        return torch.cat([block(frame[None], None, None) for frame in flow])

    def ordinary(self, flow: Tensor) -> Tensor:
        """ComfyUI's own ControlNet, with the flow of all frames at hand."""
        sampling = self.model.model_sampling
        x, t = sampling.calculate_input(self.sigmas, self.x).to(self.dtype), sampling.timestep(self.sigmas).to(self.dtype)
        return self.forward(self.control.control_model(x=x, hint=flow, timesteps=t, context=self.text))


def measure(size: Size, device: torch.device, runs: int) -> dict[str, float]:
    step = Step(size, device)
    with torch.inference_mode():
        flow = step.flow()
        ordinary = step.ordinary(flow)
        difference = float((step.ours() - ordinary).abs().max() / ordinary.abs().max())
        every = list(range(FRAMES))
        ways = {
            "plain": step.forward,
            "ours": step.ours,
            "ordinary": lambda: step.ordinary(flow),
            "hint_block": lambda: step.hint_block(flow),
            "hint_kept": lambda: step.control.hints.of(every, step.control.control_model, step.x, size.dtype),
        }
        times = milliseconds(ways, device, runs) | milliseconds({"flow": step.flow, "anew": step.anew}, device, 1)
    figures = {f"{name}_ms": taken for name, taken in times.items()}
    kept, block = figures["hint_kept_ms"], figures["hint_block_ms"]
    return figures | {
        "hint_saved_percent": 100 * (1 - kept / block),
        "kept_mb": step.control.hints.nbytes() / 1e6,
        "flow_mb": flow.nbytes / 1e6,
        "difference": difference,
    }


def memory(frames: int, device: torch.device) -> dict[str, float]:
    """The hints of a whole clip at 512 x 512 in float16, window by window: what they take, and the peak above the start."""
    field = a_field(512, frames)
    control = flow_controlnet(MEMORY, field, device)
    like = torch.zeros(1, 4, 64, 64, device=device)
    network, hints = control.control_model, control.hints
    with torch.inference_mode():
        hints.of([0], network, like[..., :8, :8], MEMORY.dtype)  # kernels and libraries are there
        before, began = _peak(device), time.perf_counter()
        for first in range(0, frames, FRAMES):
            hints.of(range(first, min(first + FRAMES, frames)), network, like, MEMORY.dtype)
    return {
        "memory_frames": frames,
        "memory_kept_mb": hints.nbytes() / 1e6,
        "memory_peak_mb": (_peak(device) - before) / 1e6,
        "memory_plain_tensor_mb": frames * 60 * 512 * 512 * 2 / 1e6,
        "memory_seconds": time.perf_counter() - began,
    }


def _peak(device: torch.device) -> int:
    """The most bytes taken so far, on the GPU or by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def table(figures: dict[str, float]) -> str:
    plain = figures["plain_ms"]
    rows = [
        ("plain UNet (the trivial answer: not steered)", "plain"),
        ("+ flow ControlNet, hint kept: every step but the first", "ours"),
        ("+ ComfyUI's own ControlNet with the flow at hand: hint block in every step", "ordinary"),
        ("+ flow ControlNet, nothing kept: flow and hint block in every step", "anew"),
    ]
    lines = ["| one step, conditional half, 16 frames | ms | added |", "|---|---|---|"]
    lines += [f"| {told} | {figures[f'{n}_ms']:.0f} | {figures[f'{n}_ms'] - plain:.0f} |" for told, n in rows]
    lines += [
        "",
        f"Flow {figures['flow_ms']:.0f} ms, hint block {figures['hint_block_ms']:.0f} ms, kept hints {figures['hint_kept_ms']:.1f} ms: "
        f"{figures['hint_saved_percent']:.1f}% of the hint block saved from the second step on (target: 90%). Kept: "
        f"{figures['kept_mb']:.1f} MB, the flow {figures['flow_mb']:.1f} MB. The two differ by {figures['difference']:.1e}.",
    ]
    if "memory_frames" in figures:
        lines.append(
            f"{figures['memory_frames']:.0f} frames at 512 x 512 in float16: {figures['memory_kept_mb']:.0f} MB kept, peak "
            f"{figures['memory_peak_mb']:.0f} MB (target: 700 MB for 240); the flow as one tensor would be "
            f"{figures['memory_plain_tensor_mb']:.0f} MB."
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What the flow ControlNet costs.")
    parser.add_argument("comfyui", type=Path, help="ComfyUI's folder")
    parser.add_argument("--full", action="store_true", help="SD1.5's own width, 512 x 512, float16 on a GPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory", type=int, metavar="FRAMES", help="also make the hints of so many frames at 512 x 512")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    half = torch.float16 if device.type == "cuda" else torch.float32
    size = Size(320, 768, 64, half) if arguments.full else Size(32, 64, 32, torch.float32)
    if device.type == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(0)
    alive = start_comfyui(arguments.comfyui, device)  # noqa: F841
    # Memory first: a process is told its peak since its start.
    figures = memory(arguments.memory, device) if arguments.memory else {}
    figures |= measure(size, device, arguments.runs)
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
