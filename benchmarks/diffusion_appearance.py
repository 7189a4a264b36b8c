"""What the appearance reference costs: one sampling step of 16 frames, without it, with ours, and as upstream does it.

    python -m comfyui_flow3d.benchmarks.diffusion_appearance COMFYUI_FOLDER [--full] [--device cuda] [--json FILE]

Random weights in SD1.5's structure: with `--full` its own width at 512 x 512, in float16 on a GPU; without, a fifth of that
width at 224 x 224 in float32, a size at which self-attention has the share of the work that it has there (it grows with
tokens over channels). Timed is the conditional half of a step, the only one that reads the reference. Upstream (X-Portrait)
writes the reference once for every frame and projects keys and values of every frame's copy. On the CPU the time is that
of one thread of this process.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FRAMES, SIGMA = 16, 2.5


@dataclass(frozen=True)
class Size:
    channels: int
    context: int
    latent: int
    dtype: torch.dtype


def start_comfyui(folder: Path, device: torch.device) -> object:
    """Make `import comfy` find ComfyUI in `folder`; it must come before our modules that need it. Keep what it returns."""
    sys.path.insert(0, str(folder))
    sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
    from launch_comfyui import import_torchvision

    repaired = import_torchvision()
    import comfy.cli_args

    comfy.cli_args.args.cpu = device.type == "cpu"
    comfy.cli_args.args.use_pytorch_cross_attention = (
        True  # as on a GPU; on the CPU ComfyUI's own takes several times as long
    )
    return repaired


def unet_arguments(size: Size) -> dict[str, Any]:
    """SD1.5's structure for ComfyUI's UNetModel."""
    return {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": size.channels,
        "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "transformer_depth_middle": 1,
        "context_dim": size.context, "num_heads": 8, "num_head_channels": -1, "use_spatial_transformer": True,
        "use_linear_in_transformer": False, "legacy": False, "use_checkpoint": False, "adm_in_channels": None,
        "use_temporal_attention": False, "use_temporal_resblock": False,
    }  # fmt: skip


def fill(module: torch.nn.Module) -> None:
    """Random weights that keep the size of what goes through them."""
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1)


class Step:
    """The conditional half of one sampling step, and the three ways of making it."""

    def __init__(self, size: Size, device: torch.device):
        import comfy.model_patcher
        import comfy.supported_models

        from ..models.appearance_network import Appearance, AppearanceNetwork

        described = comfy.supported_models.SD15(unet_arguments(size))
        described.set_inference_dtype(size.dtype, None)
        base = described.get_model({}, "", device=device).to(device)
        network = AppearanceNetwork(unet_arguments(size), size.dtype).to(device)
        fill(base.diffusion_model)
        fill(network)
        self.model = comfy.model_patcher.ModelPatcher(base, device, device)
        self.appearance = Appearance(comfy.model_patcher.ModelPatcher(network, device, device), "random")
        self.x = torch.randn(FRAMES, 4, size.latent, size.latent, device=device)
        self.reference = torch.randn(1, 4, size.latent, size.latent, device=device)
        self.prompt = torch.randn(1, 77, size.context, device=device)

    def forward(self, options: dict[str, Any], frames: int = FRAMES) -> Tensor:
        sigmas = torch.full((frames,), SIGMA, device=self.x.device)
        options = {"cond_or_uncond": [0], "sigmas": sigmas, **options}
        context = self.prompt.expand(frames, -1, -1)
        return self.model.model.apply_model(self.x[:frames], sigmas, c_crossattn=context, transformer_options=options)

    def ours(self, written_before: bool = False) -> Tensor:
        """With the reference pass, or reading a bank that is there already."""
        from ..models.appearance import with_reference
        from ..models.appearance_reference import Reference

        if not written_before:
            reference = Reference(self.reference, self.prompt, self.appearance.network)
            self.patched = with_reference(self.model, reference, self.appearance)
        return self.forward({"wrappers": self.patched.wrappers})

    def upstream(self) -> Tensor:
        """The reference pass for every frame, and its states before the projection of keys and values."""
        from ..models.appearance_network import write_states
        from ..models.reference_attention import place_of

        base = self.model.model
        latents = base.process_latent_in(self.reference).to(base.get_dtype()).expand(FRAMES, -1, -1, -1)
        timestep = float(base.model_sampling.timestep(torch.tensor(SIGMA)))
        context = self.prompt.to(base.get_dtype())
        bank = write_states(self.appearance.network.unet, latents, timestep, context)

        def read(n: Tensor, context: Tensor, value: Tensor, options: dict) -> tuple[Tensor, Tensor, Tensor]:
            states = bank[place_of(options)].states
            return n, torch.cat([context, states], 1), torch.cat([value, states], 1)

        return self.forward({"patches": {"attn1_patch": [read]}})


def milliseconds(ways: dict[str, Callable[[], object]], device: torch.device, rounds: int) -> dict[str, float]:
    """The best of some rounds through all ways, after one that warms up: wall time on a GPU, on a CPU the process's own."""
    best = dict.fromkeys(ways, float("inf"))
    for i in range(rounds + 1):
        for name, work in ways.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            clock = time.perf_counter if device.type == "cuda" else time.process_time
            start = clock()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if i > 0:
                best[name] = min(best[name], 1e3 * (clock() - start))
    return best


def peak_megabytes(work: Callable[[], object]) -> float:
    """How much GPU memory `work` takes beyond what is there."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def measure(size: Size, device: torch.device, rounds: int) -> dict[str, float]:
    step = Step(size, device)
    ways: dict[str, Callable[[], object]] = {
        "plain": lambda: step.forward({}),
        "plain_one_frame": lambda: step.forward({}, 1),
        "ours": step.ours,
        "ours_bank_there": lambda: step.ours(written_before=True),
        "upstream": step.upstream,
    }
    with torch.inference_mode():
        difference = float((step.ours() - step.upstream()).abs().max() / step.upstream().abs().max())
        best = milliseconds(ways, device, rounds)
        figures = {f"{name}_ms": time for name, time in best.items()}
        if device.type == "cuda":
            figures |= {f"{name}_peak_mb": peak_megabytes(work) for name, work in ways.items()}
    added = {name: best[name] - best["plain"] for name in ("ours", "upstream")}
    return figures | {
        "pass_share_of_a_unet_pass": (best["ours"] - best["ours_bank_there"]) / best["plain"],
        "upstream_adds_over_ours": added["upstream"] / added["ours"],
        "difference_of_the_two": difference,
    }


def table(figures: dict[str, float]) -> str:
    plain = figures["plain_ms"]
    rows = [
        ("plain UNet (the trivial answer: nothing of the portrait)", "plain"),
        ("the same for one frame: what a pass costs at least", "plain_one_frame"),
        ("+ appearance, one pass for all frames", "ours"),
        (
            "+ appearance, bank of this step there (next windows; every step but the first with `zero`)",
            "ours_bank_there",
        ),
        ("+ appearance, a pass for every frame as upstream", "upstream"),
    ]
    lines = ["| one step, conditional half, 16 frames | ms | added |", "|---|---|---|"]
    lines += [
        f"| {told} | {figures[f'{n}_ms']:.0f} | {100 * (figures[f'{n}_ms'] / plain - 1):.1f}% |" for told, n in rows
    ]
    lines += [
        "",
        f"The pass is {figures['pass_share_of_a_unet_pass']:.3f} of a UNet pass over the frames (target: 1/16 = 0.0625); upstream adds "
        f"{figures['upstream_adds_over_ours']:.1f} times as much (target: 3). The two differ by {figures['difference_of_the_two']:.1e}.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What the appearance reference costs.")
    parser.add_argument("comfyui", type=Path, help="ComfyUI's folder")
    parser.add_argument("--full", action="store_true", help="SD1.5's own width, 512 x 512")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    half = torch.float16 if device.type == "cuda" else torch.float32
    size = Size(320, 768, 64, half) if arguments.full else Size(64, 64, 28, torch.float32)
    if device.type == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(0)
    alive = start_comfyui(arguments.comfyui, device)  # noqa: F841
    figures = measure(size, device, arguments.rounds)
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
