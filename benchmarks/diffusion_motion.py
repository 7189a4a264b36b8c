"""What temporal layers cost, and whether the windows of a long clip show.

    python -m comfyui_flow3d.benchmarks.diffusion_motion COMFYUI_FOLDER [--full] [--device cuda] [--steps N] [--json FILE]

Random weights in SD1.5's structure: a tenth of its width at 256 x 256 in float32, or with `--full` its own width at 512 x 512,
in float16 on a GPU. Timed is one step of 16 frames, both halves. On the CPU the time is that of one thread of this process.

The seams are those of 96 frames in windows of 16, sampled through ComfyUI by the small network at 64 x 64, Euler, guidance
3.5, with a prompt that drifts along the clip: mean change of neighbouring frames' latents across the windows' borders over
that inside. With noise of its own for each frame the noise outweighs the windows; with shared noise frames differ by prompt and
windows alone. The rows `no overlap` and `one window` are the trivial ones: the worst, and, judged at the borders of overlap 4,
the best.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .diffusion_appearance import FRAMES, SIGMA, Size, fill, milliseconds, start_comfyui, unet_arguments

CLIP, WINDOW, TARGET, RUNS = 96, 16, 1.10, 3


def a_model(size: Size, device: torch.device) -> Any:
    """A MODEL of random weights."""
    import comfy.model_patcher
    import comfy.supported_models

    described = comfy.supported_models.SD15(unet_arguments(size))
    described.set_inference_dtype(size.dtype, None)
    base = described.get_model({}, "", device=device).to(device)
    fill(base.diffusion_model)
    return comfy.model_patcher.ModelPatcher(base, device, device)


def a_motion_module(size: Size, device: torch.device, positions: str = "as trained") -> Any:
    """Temporal layers of random weights at all 21 places, with sines for positions."""
    import comfy.model_patcher

    from ..models.motion import MotionModule
    from ..models.motion_network import MIDDLE, PLACES, MotionConfig, MotionNetwork, sinusoidal_positions

    widths = [size.channels * n for n in (1, 2, 4, 4)]
    inputs, outputs = [w for w in widths for _ in range(2)], [w for w in reversed(widths) for _ in range(3)]
    channels = dict(zip(PLACES, [*inputs, *outputs], strict=True)) | {MIDDLE: widths[-1]}
    network = MotionNetwork(MotionConfig(channels, 32))
    fill(network)
    for name, table in network.named_buffers():
        assert name.endswith("pe")
        table.copy_(sinusoidal_positions(*table.shape[1:]))
    network.to(device, size.dtype)
    return MotionModule("random", comfy.model_patcher.ModelPatcher(network, device, device), positions)  # type: ignore[arg-type]


def one_step(model: Any, size: Size, device: torch.device) -> Any:
    """A function that computes both halves of a step of 16 frames."""
    x = torch.randn(2 * FRAMES, 4, size.latent, size.latent, device=device)
    sigmas = torch.full((2 * FRAMES,), SIGMA, device=device)
    context = torch.randn(1, 77, size.context, device=device).expand(2 * FRAMES, -1, -1)

    def step() -> Tensor:
        options = {**model.model_options["transformer_options"], "cond_or_uncond": [0, 1], "sigmas": sigmas[:1]}
        return model.model.apply_model(x, sigmas, c_crossattn=context, transformer_options=options)

    return step


def times(size: Size, device: torch.device) -> dict[str, float]:
    """Milliseconds a step, without and with temporal layers."""
    from ..models.motion import with_motion

    model = a_model(size, device)
    moved = with_motion(model, a_motion_module(size, device))
    ways = {"plain UNet": one_step(model, size, device), "+ motion": one_step(moved, size, device)}
    moved.inject_model()  # without their patch the layers do nothing
    try:
        return milliseconds(ways, device, RUNS)
    finally:
        moved.eject_model()


def drifting_prompt(size: Size, frames: int) -> list:
    """A prompt for each frame, from one to another."""
    first, last = torch.randn(2, 1, 8, size.context)
    along = torch.linspace(0, 1, frames).view(-1, 1, 1)
    return [[first * (1 - along) + last * along, {}]]


def seams(size: Size, device: torch.device, steps: int, noise: str) -> dict[str, tuple[float, float, int]]:
    """(across, inside, borders) of each way of cutting the clip."""
    from ..models.clip_sampling import Clip, Steps, sample_clip
    from ..models.seams import measure_seams
    from ..models.windows import Windows

    model, motion = a_model(size, device), a_motion_module(size, device, "stretch")
    positive, negative = drifting_prompt(size, CLIP), drifting_prompt(size, 1)
    rows = {
        "no overlap": Windows(WINDOW, 0, fusing="uniform"),
        "overlap 4, uniform": Windows(WINDOW, 4, fusing="uniform"),
        "overlap 4, overlap-linear": Windows(WINDOW, 4, fusing="overlap-linear"),
        "overlap 4, pyramid": Windows(WINDOW, 4),
        "overlap 4, pyramid, inside offsets": Windows(WINDOW, 4, offset="inside"),
        "overlap 4, pyramid, circular offsets": Windows(WINDOW, 4, offset="circular"),
        "overlap 8, pyramid": Windows(WINDOW, 8),
        "one window": Windows(CLIP, 0),
    }
    clip = Clip({"samples": torch.zeros(CLIP, 4, 8, 8)}, noise)  # type: ignore[arg-type]
    settings = Steps(0, steps, 3.5, "euler", "normal")
    found = {}
    for name, windows in rows.items():
        latents, _ = sample_clip(model, positive, negative, clip, settings, windows, motion)
        judged = Windows(WINDOW, 4) if windows.length == CLIP else windows
        measured = measure_seams(latents, judged.at_step(CLIP, steps - 1, 0))
        assert measured.across is not None and measured.inside is not None
        found[name] = (measured.across, measured.inside, measured.pairs)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    kept = start_comfyui(arguments.comfyui, device)  # noqa: F841 - alive as long as this
    torch.manual_seed(0)
    small = Size(32, 16, 32, torch.float32)
    full = Size(320, 768, 64, torch.float16 if device.type == "cuda" else torch.float32)
    results: dict[str, Any] = {}
    with torch.inference_mode():
        results["milliseconds"] = timed = times(full if arguments.full else small, device)
        print(f"| one step, {FRAMES} frames, two halves | ms | of the plain UNet |\n|---|---|---|")
        for name, ms in timed.items():
            print(f"| {name} | {ms:.1f} | {ms / timed['plain UNet']:.2f} |")
        for noise in ("independent", "shared"):
            torch.manual_seed(0)
            results[f"seams, {noise} noise"] = rows = seams(small, device, arguments.steps, noise)
            print(
                f"\n| {CLIP} frames, windows of {WINDOW}, {noise} noise | across | inside | ratio |\n|---|---|---|---|"
            )
            for name, (across, inside, _) in rows.items():
                print(f"| {name} | {across:.4f} | {inside:.4f} | {across / inside:.3f} |")
            sys.stdout.flush()
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    ratios = {noise: results[f"seams, {noise} noise"]["overlap 4, pyramid"] for noise in ("independent", "shared")}
    for noise, (across, inside, _) in ratios.items():
        met = "met" if across <= TARGET * inside else "MISSED"
        print(f"target, {noise} noise: {across / inside:.3f} against at most {TARGET}: {met}")


if __name__ == "__main__":
    main()
