"""A reference: pictures, the network that writes their states, when it is read, and the states of the current step.

    current   X-Portrait: the clean latent with the step's own timestep, one pass for each noise level
    zero      MagicPortrait, AnimateAnyone: the clean latent with timestep 0, one pass in all

The pass is made once for all frames, halves and windows of a step, where upstream makes it for every frame. What the
network is told is a prompt of its own: X-Portrait's is empty, MagicPortrait's is the positive one.
"""

from contextlib import nullcontext
from dataclasses import dataclass, field
from math import log

import torch
from comfy.model_base import BaseModel
from torch import Tensor
from torch.nn.functional import interpolate

from .appearance_network import AppearanceNetwork, Written, write_states
from .reference_attention import Bank, Tokens

POLICIES = ("current", "zero")
HALVES = ("conditional", "both")
CONDITIONAL = 0
"""What ComfyUI calls the positive half in `cond_or_uncond`."""


class _Memory:
    """What one sampling run keeps of a reference: its noise levels, and the bank of the last timestep."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.sigmas: tuple[float, float] | None = None
        self.bank: tuple[float, Bank] | None = None


@dataclass(frozen=True, eq=False)
class Reference:
    """One use of the Appearance Reference node.

    Args:
        latents: (R, 4, h, w) as a VAE gives them: R references of equal weight, of any size.
        prompt: (1, L, D) what the appearance network is told.
        network: None: the sampled model's own, LoRAs included.
        strength: how much one reference token counts against one of the frame; 1 as upstream.
        start, end: the part of the sampling in which it acts, 0..1, counted as ComfyUI counts for ControlNets.
        mask: (1 or R, H, W) 0..1, the strength of each place of the reference; None: 1 everywhere.
    """

    latents: Tensor
    prompt: Tensor
    network: AppearanceNetwork | None = None
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    policy: str = "current"
    halves: str = "conditional"
    mask: Tensor | None = None
    memory: _Memory = field(default_factory=_Memory, repr=False)

    def read_by(self, half: int) -> bool:
        """Whether an entry of ComfyUI's `cond_or_uncond` reads it."""
        return half == CONDITIONAL or self.halves == "both"

    def active(self, model: BaseModel, sigma: float) -> bool:
        if self.memory.sigmas is None:
            percent_to_sigma = model.model_sampling.percent_to_sigma
            self.memory.sigmas = float(percent_to_sigma(self.start)), float(percent_to_sigma(self.end))
        first, last = self.memory.sigmas
        return last <= sigma <= first

    def bank(self, model: BaseModel, sigma: Tensor) -> Bank:
        """What is read at noise level `sigma` (1,), written now or, where the timestep is the last one's, remembered."""
        timestep = float(model.model_sampling.timestep(sigma)) if self.policy == "current" else 0.0
        if self.memory.bank is None or self.memory.bank[0] != timestep:
            self.memory.bank = None  # the old one is freed before the new one is made
            self.memory.bank = timestep, self._write(model, timestep, sigma.device)
        return self.memory.bank[1]

    def _write(self, model: BaseModel, timestep: float, device: torch.device) -> Bank:
        latents = model.process_latent_in(self.latents.to(device, torch.float32))
        if self.network is not None:
            unet, dtype, ejected = self.network.unet, self.network.compute_dtype, nullcontext()
        else:
            unet, dtype = model.diffusion_model, model.manual_cast_dtype or model.get_dtype()
            # Motion modules that another node has put in would take the references for frames.
            ejected = model.current_patcher.use_ejected() if model.current_patcher else nullcontext()
        with ejected:
            written = write_states(unet, latents.to(dtype), timestep, self.prompt.to(device, dtype))
        return {place: tokens_of(states, self.strength, self.mask) for place, states in written.items()}


def tokens_of(written: Written, strength: float, mask: Tensor | None) -> Tokens:
    """The states of all references as one row of tokens; those that a mask takes away altogether are left out."""
    states = written.states.flatten(0, 1)
    if mask is None:  # told apart without looking at a number on the GPU, which would wait for it
        return Tokens(states, None if strength == 1 else states.new_full((len(states),), log(strength), dtype=torch.float32))
    area = interpolate(mask[:, None].to(states.device, torch.float32), written.grid, mode="area")
    weights = strength * area.flatten(1).expand(len(written.states), -1).flatten()
    states, weights = states[weights > 0], weights[weights > 0]
    return Tokens(states, None if bool((weights == 1).all()) else weights.log())
