"""One sampling step of 16 frames in the ways that are compared: alone, and with each part of the diffusion half.

Everything is the conditional half, the one that all parts act on; guidance adds a plain half to each row.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from .diffusion_networks import Size, a_control, a_field, a_model, a_motion_module, an_appearance

FRAMES, SIGMA = 16, 2.5
Ways = dict[str, Callable[[], object]]


class Step:
    """A model, what is put on it, and its inputs."""

    def __init__(self, size: Size, device: torch.device):
        self.size, self.device = size, device
        self.model = a_model(size, device)
        self.x = torch.randn(FRAMES, 4, size.latent, size.latent, device=device)
        self.picture = torch.randn(1, 4, size.latent, size.latent, device=device)
        self.text = torch.randn(1, 77, size.context, device=device, dtype=size.dtype)
        self.sigmas = torch.full((FRAMES,), SIGMA, device=device)

    def run(self, model: Any = None, control: Any = None, frames: int = FRAMES, **patches: Any) -> Tensor:
        """The model (plain by default) on the first frames, as ComfyUI's sampler calls it."""
        model = model or self.model
        options = {**model.model_options["transformer_options"], "wrappers": model.wrappers, "cond_or_uncond": [0]}
        options |= {"sigmas": self.sigmas[:1], **({"patches": patches} if patches else {})}
        x, sigmas, text = self.x[:frames], self.sigmas[:frames], self.text.expand(frames, -1, -1)
        model.inject_model()
        try:
            return model.model.apply_model(x, sigmas, c_crossattn=text, control=control, transformer_options=options)
        finally:
            model.eject_model()


class Flow:
    """A step that a flow ControlNet steers."""

    def __init__(self, step: Step):
        self.step = step
        self.field = a_field(8 * step.size.latent, FRAMES).to(step.device)
        self.control = a_control(step.size, self.field, step.device)
        sampling = step.model.model.model_sampling
        self.control.pre_run(step.model.model, sampling.percent_to_sigma)
        self.timesteps = sampling.timestep(step.sigmas).to(step.size.dtype)
        self.given = sampling.calculate_input(step.sigmas, step.x).to(step.size.dtype)
        self.text = step.text.expand(FRAMES, -1, -1)
        self.flow = self.encoded()

    def residuals(self) -> Any:
        """Every step but the first, or the first where nothing is kept yet."""
        return self.control.get_control(self.step.x, self.step.sigmas, {"c_crossattn": self.text}, 1, {})

    def anew(self) -> Tensor:
        """Nothing kept: flow, hint block and network."""
        self.control.hints.clear()
        return self.step.run(control=self.residuals())

    def ordinary(self) -> Tensor:
        """ComfyUI's own ControlNet, with the flow of all frames at hand: the hint block in every step."""
        network = self.control.control_model
        return self.step.run(control=network(self.given, self.flow, self.timesteps, self.text))

    def encoded(self) -> Tensor:
        """The flow alone, as the network takes it."""
        return torch.cat([self.field.encode([i], self.step.size.dtype) for i in range(FRAMES)])

    def hint_block(self) -> Tensor:
        block = self.control.control_model.input_hint_block
        return torch.cat([block(frame[None], None, None) for frame in self.flow])

    def kept(self) -> Tensor:
        return self.control.hints.of(range(FRAMES), self.control.control_model, self.step.x, self.step.size.dtype)


class Looks:
    """A step that reads a portrait. `network` None: its states are the sampled model's own."""

    def __init__(self, step: Step, network: Any):
        from ..models.appearance import with_reference
        from ..models.appearance_reference import Reference

        self.step, self.network = step, network
        self.reference = Reference(step.picture, step.text, network.network if network else None)
        self.model = with_reference(step.model, self.reference, network)

    def once(self) -> Tensor:
        """One pass for all frames."""
        self.reference.memory.forget()
        return self.step.run(self.model)

    def only_the_pass(self) -> object:
        self.reference.memory.forget()
        return self.reference.bank(self.step.model.model, self.step.sigmas[:1])

    def for_every_frame(self) -> Tensor:
        """As upstream (X-Portrait): the whole network for every frame, and its states projected for every frame."""
        from ..models.reference_attention import place_of

        base, states = self.step.model.model, {}
        latents = base.process_latent_in(self.step.picture).to(self.step.size.dtype).expand(FRAMES, -1, -1, -1)
        text = self.step.text.expand(FRAMES, -1, -1)

        def write(n: Tensor, context: Tensor, value: Tensor, options: dict) -> tuple[Tensor, Tensor, Tensor]:
            states[place_of(options)] = n
            return n, context, value

        def read(n: Tensor, context: Tensor, value: Tensor, options: dict) -> tuple[Tensor, Tensor, Tensor]:
            more = states[place_of(options)]
            return n, torch.cat([context, more], 1), torch.cat([value, more], 1)

        timesteps = base.model_sampling.timestep(self.step.sigmas)
        options = {"patches": {"attn1_patch": [write]}}
        self.network.network.unet(latents, timesteps=timesteps, context=text, transformer_options=options)
        return self.step.run(attn1_patch=[read])


def measure(size: Size, device: torch.device, rounds: int) -> dict[str, float]:
    """Milliseconds of every way, on a GPU its megabytes too, and what follows from them."""
    from ..models.motion import with_motion

    step = Step(size, device)
    flow, looks = Flow(step), Looks(step, an_appearance(size, device))
    motion = a_motion_module(size, device)
    moved, everything = with_motion(step.model, motion), with_motion(looks.model, motion)

    def all_parts() -> Tensor:
        looks.reference.memory.forget()
        return step.run(everything, flow.residuals())

    ways: Ways = {
        "plain": step.run,
        "plain_one_frame": lambda: step.run(frames=1),
        "flow_anew": flow.anew,
        "flow_kept": lambda: step.run(control=flow.residuals()),
        "flow_ordinary": flow.ordinary,
        "appearance_once": looks.once,
        "appearance_there": lambda: step.run(looks.model),
        "appearance_every_frame": looks.for_every_frame,
        "motion": lambda: step.run(moved),
        "all": all_parts,
        "part_flow": flow.encoded,
        "part_hint_block": flow.hint_block,
        "part_hint_kept": flow.kept,
        "part_pass": looks.only_the_pass,
    }
    with torch.inference_mode():
        differences = {
            "flow_difference": _difference(flow.anew(), flow.ordinary()),
            "appearance_difference": _difference(looks.once(), looks.for_every_frame()),
        }
        tera = {name: operations(ways[name]) / 1e12 for name in ("plain", "appearance_once", "appearance_every_frame")}
        ms = milliseconds(ways, device, rounds)
        figures = {f"{name}_ms": taken for name, taken in ms.items()}
        if device.type == "cuda":
            figures |= {f"{name}_peak_mb": peak_megabytes(work) for name, work in ways.items()}
    times_as_much = {
        unit: (taken["appearance_every_frame"] - taken["plain"]) / (taken["appearance_once"] - taken["plain"])
        for unit, taken in (("operations", tera), ("time", ms))
    }
    return figures | differences | {
        "hint_saved_percent": 100 * (1 - ms["part_hint_kept"] / ms["part_hint_block"]),
        "pass_share": ms["part_pass"] / ms["plain"],
        "one_frame_share": ms["plain_one_frame"] / ms["plain"],
        "every_frame_over_once": times_as_much["operations"], "every_frame_over_once_in_time": times_as_much["time"],
        "appearance_adds_operations": tera["appearance_once"] / tera["plain"] - 1,
        "motion_adds_percent": 100 * (ms["motion"] / ms["plain"] - 1),
    }  # fmt: skip


def full_width_share(latent: int, rounds: int) -> dict[str, float]:
    """The pass for a reference against a step of 16 frames at SD1.5's own width, on the CPU in float32."""
    cpu = torch.device("cpu")
    step = Step(Size(320, 768, latent, torch.float32), cpu)
    looks = Looks(step, None)
    with torch.inference_mode():
        ms = milliseconds({"plain": step.run, "pass": looks.only_the_pass, "one": lambda: step.run(frames=1)}, cpu, rounds)
    return {
        "full_width_latent": latent, "full_width_plain_ms": ms["plain"], "full_width_plain_one_frame_ms": ms["one"],
        "full_width_pass_ms": ms["pass"], "full_width_pass_share": ms["pass"] / ms["plain"],
    }  # fmt: skip


def operations_share(size: Size) -> dict[str, float]:
    """Floating point operations of a plain step and of the pass for a reference, counted on tensors without numbers."""
    from ..models.appearance_network import write_states

    with torch.device("meta"):
        unet = a_model(size, torch.device("meta")).model.diffusion_model
        x = torch.empty(FRAMES, 4, size.latent, size.latent, dtype=size.dtype)
        text = torch.empty(1, 77, size.context, dtype=size.dtype)
        plain = operations(
            lambda: unet(x, timesteps=torch.empty(FRAMES), context=text.expand(FRAMES, -1, -1), transformer_options={})
        )
        once = operations(lambda: write_states(unet, x[:1], 0.0, text))
    return {"plain_tera": plain / 1e12, "pass_tera": once / 1e12, "pass_operations_share": once / plain}


def operations(work: Callable[[], object]) -> int:
    """Floating point operations of `work`, attention too, which torch's counter knows on GPUs only."""
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(q: torch.Size, k: torch.Size, v: torch.Size, *_: object, **__: object) -> int:
        return sdpa_flop_count(q, k, v)

    on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        work()
    return counter.get_total_flops()


def milliseconds(ways: Ways, device: torch.device, rounds: int) -> dict[str, float]:
    """The median of some rounds, each through all ways, after one that warms up: wall time on a GPU, on a CPU the process's own."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(rounds + 1):
        for name, work in ways.items():
            _wait(device)
            start = clock()
            work()
            _wait(device)
            if i > 0:
                taken[name].append(1e3 * (clock() - start))
    return {name: median(times) for name, times in taken.items()}


def peak_megabytes(work: Callable[[], object]) -> float:
    """How much GPU memory `work` takes beyond what is there."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _difference(a: Tensor, b: Tensor) -> float:
    """The largest, over the largest value."""
    return float((a - b).abs().max() / b.abs().max())
