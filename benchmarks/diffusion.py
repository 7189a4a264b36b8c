"""What the diffusion half costs, and whether the windows of a long clip show: one run, all tables.

    python -m comfyui_flow3d.benchmarks.diffusion COMFYUI_FOLDER [--full --device cuda] [--only PART ...] [--json FILE]

Random weights in SD1.5's structure. On a CPU a fifth of its width at 224 x 224 in float32, a size at which self-attention has the
share of the work that it has at full width and 512 x 512 (it grows with tokens over channels), and the time is that of one thread
of this process; with `--full` SD1.5's own width at 512 x 512, on a GPU in float16 and wall time. Parts:

    steps   one step of 16 frames with each part of the diffusion half, as upstream does it, and the trivial answers
    width   on a CPU: the pass for a reference at SD1.5's own width at 256 x 256 in float32; 3.5 GB
    seams   96 frames in windows
    memory  the hints of 240 frames at 512 x 512, in a process of its own
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from . import diffusion_memory, diffusion_seams, diffusion_steps
from .diffusion_networks import Size, start_comfyui

PARTS = ("steps", "width", "seams", "memory")
NOISES = ("independent", "shared")
SMALL, FULL = Size(64, 64, 28, torch.float32), (320, 768, 64)
_ROWS = {
    "plain": "plain UNet (trivial: not steered, nothing of the portrait, frames apart)",
    "plain_one_frame": "the same for one frame (trivial: what a pass costs at least)",
    "flow_kept": "+ flow ControlNet, hint kept: every step but the first",
    "flow_ordinary": "+ ComfyUI's ControlNet, flow at hand: hint block in every step",
    "flow_anew": "+ flow ControlNet, nothing kept: flow and hint block in every step",
    "appearance_once": "+ appearance, one pass for all frames",
    "appearance_there": "+ appearance, states of this step there: further windows, and `zero`",
    "appearance_every_frame": "+ appearance, a pass for every frame as upstream",
    "motion": "+ motion",
    "all": "+ flow (kept), appearance and motion",
}


def steps_table(figures: dict[str, float]) -> str:
    gpu = "plain_peak_mb" in figures
    lines = [f"| one step, {diffusion_steps.FRAMES} frames | ms | of the plain UNet |{' peak MB |' if gpu else ''}"]
    lines += [f"|---|---|---|{'---|' if gpu else ''}"]
    for name, told in _ROWS.items():
        ms = figures[f"{name}_ms"]
        peak = f" {figures[f'{name}_peak_mb']:.0f} |" if gpu else ""
        lines.append(f"| {told} | {ms:.0f} | {ms / figures['plain_ms']:.2f} |{peak}")
    return "\n".join(lines) + (
        f"\n\nThe appearance pass is {figures['pass_operations_share']:.4f} of a plain step in operations, "
        f"{figures['full_pass_operations_share']:.4f} at SD1.5's width and 512 x 512 ({figures['full_pass_tera']:.2f} of "
        f"{figures['full_plain_tera']:.2f} tera) ({_met(figures['full_pass_operations_share'] <= 1 / 16)}: at most 1/16 = 0.0625), and "
        f"{figures['pass_share']:.3f} in time, where one frame of the plain UNet takes {figures['one_frame_share']:.3f}; one pass "
        f"and attention add {figures['appearance_adds_operations']:.2f} of a step's operations, a pass for every frame "
        f"{figures['every_frame_over_once']:.1f} times as much ({_met(figures['every_frame_over_once'] >= 3)}: at least 3; in time "
        f"{figures['every_frame_over_once_in_time']:.1f}, a difference of rows that vary from run to run); they differ by "
        f"{figures['appearance_difference']:.1e}.\n"
        f"Flow {figures['part_flow_ms']:.0f} ms, hint block {figures['part_hint_block_ms']:.0f} ms, kept hints "
        f"{figures['part_hint_kept_ms']:.1f} ms: {figures['hint_saved_percent']:.1f}% of the hint block saved from the second step "
        f"on ({_met(figures['hint_saved_percent'] >= 90)}: at least 90%); ours and ComfyUI's differ by {figures['flow_difference']:.1e}.\n"
        f"Motion adds {figures['motion_adds_percent']:.0f}%."
    )  # fmt: skip


def width_text(figures: dict[str, float]) -> str:
    side = 8 * figures["full_width_latent"]
    return (
        f"SD1.5's own width, {side:.0f} x {side:.0f}, float32: a plain step of {diffusion_steps.FRAMES} frames "
        f"{figures['full_width_plain_ms']:.0f} ms, of one frame {figures['full_width_plain_one_frame_ms']:.0f} ms, the appearance pass "
        f"{figures['full_width_pass_ms']:.0f} ms: {figures['full_width_pass_share']:.4f}."
    )


def seams_table(seams: dict[str, dict[str, diffusion_seams.Seam]]) -> str:
    lines = [f"| {diffusion_seams.CLIP} frames, windows of {diffusion_seams.WINDOW}: across over inside |" + "".join(f" {n} noise |" for n in NOISES)]
    lines += ["|---|" + "---|" * len(NOISES)]
    lines += [f"| {row} |" + "".join(f" {seams[n][row].ratio:.3f} |" for n in NOISES) for row in seams[NOISES[0]]]
    worst = max(seams[n][diffusion_seams.JUDGED].ratio for n in NOISES)
    met = _met(worst <= diffusion_seams.TARGET)
    return "\n".join(lines) + f"\n\n{diffusion_seams.JUDGED}: {worst:.3f} at most ({met}: {diffusion_seams.TARGET})."


def memory_text(figures: dict[str, float]) -> str:
    return (
        f"Hints of {figures['memory_frames']:.0f} frames at 512 x 512: {figures['memory_kept_mb']:.0f} MB kept, peak "
        f"{figures['memory_peak_mb']:.0f} MB ({_met(figures['memory_peak_mb'] <= 700)}: 700 for 240 frames), in "
        f"{figures['memory_seconds']:.0f} s; the flow as one float16 tensor would be {figures['memory_plain_tensor_mb']:.0f} MB."
    )


def _met(met: bool) -> str:
    return "target met" if met else "target MISSED"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comfyui", type=Path, help="ComfyUI's folder")
    parser.add_argument("--full", action="store_true", help="SD1.5's own width, 512 x 512")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help="of " + ", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5, help="of which the median is taken")
    parser.add_argument("--steps", type=int, default=4, help="sampling steps of the seams")
    parser.add_argument("--frames", type=int, default=240, help="whose hints' memory is measured")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(0)
    alive = start_comfyui(arguments.comfyui, device)  # noqa: F841
    figures: dict[str, Any] = {}
    if "steps" in arguments.only:
        size = Size(*FULL, torch.float16 if device.type == "cuda" else torch.float32) if arguments.full else SMALL
        full = diffusion_steps.operations_share(Size(*FULL, torch.float16))
        taken = diffusion_steps.measure(size, device, arguments.rounds) | diffusion_steps.operations_share(size)
        figures |= (taken := taken | {f"full_{name}": value for name, value in full.items()})
        print(steps_table(taken), flush=True)
    if "width" in arguments.only and device.type == "cpu":
        figures |= (taken := diffusion_steps.full_width_share(32, 2))
        print(f"\n{width_text(taken)}", flush=True)
    if "seams" in arguments.only:
        seams = {noise: diffusion_seams.measure(device, arguments.steps, noise) for noise in NOISES}
        figures["seams"] = {noise: {row: asdict(seam) for row, seam in rows.items()} for noise, rows in seams.items()}
        print(f"\n{seams_table(seams)}", flush=True)
    if "memory" in arguments.only:
        figures |= (taken := diffusion_memory.in_a_process(arguments.comfyui, arguments.frames, device))
        print(f"\n{memory_text(taken)}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
