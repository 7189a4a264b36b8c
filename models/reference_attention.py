"""Self-attention that also reads reference tokens: queries from the frame, keys and values from frame and reference.

    attention(q = norm1(x), k = v = [norm1(x), tokens])      X-Portrait, cldm's `attention_mode='read'`; MagicPortrait,
                                                             `ReferenceAttentionControl` with fusion_blocks='full'

A token of weight w counts as w tokens: log w is added to its attention score. Weights of 1 need no such bias.

It works after the projection of queries, keys and values: the tokens are projected once for all frames, and another
pack's patch of the same attention (perturbed-attention guidance, tiling, a faster kernel) sees keys and values of the
length that it knows. Where such a patch replaces a block's attention altogether, that block reads no reference.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from comfy.ldm.modules.attention import BasicTransformerBlock, CrossAttention, SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor

Attention = Callable[..., Tensor]
Place = tuple[str, int, int]
"""A transformer block: "input", "middle" or "output", the number of the UNet's block in it, the number within that."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """What one block reads: states (T, C) after its norm1, and the log of their weights (T,); None: all weights are 1."""

    states: Tensor
    log_weights: Tensor | None

    def bias(self) -> Tensor:
        """(T,) what is added to the attention scores."""
        return self.states.new_zeros(len(self.states)) if self.log_weights is None else self.log_weights


Bank = Mapping[Place, Tokens]


def place_of(options: Mapping[str, Any]) -> Place:
    """Where a patch of ComfyUI's UNet is called, from the options that it gets."""
    name, number = options["block"]
    return name, number, options["block_index"]


def transformer_blocks(unet: UNetModel) -> dict[Place, BasicTransformerBlock]:
    """The spatial transformer blocks in the order in which the UNet runs them: 16 in SD1.5."""
    parts = [(("input", i), block) for i, block in enumerate(unet.input_blocks)]
    parts += [(("middle", 0), unet.middle_block)]
    parts += [(("output", i), block) for i, block in enumerate(unet.output_blocks)]
    return {
        (*part, i): block
        for part, layers in parts
        for layer in layers
        if isinstance(layer, SpatialTransformer)
        for i, block in enumerate(layer.transformer_blocks)
    }


class ReferenceAttention:
    """The self-attention of one call of a UNet. It holds the place in the network, so it lives no longer than that call.

    Args:
        unet: the network that reads.
        read: for each part of the batch (`cond_or_uncond`) the banks that it reads.
    """

    def __init__(self, unet: UNetModel, read: Sequence[Sequence[Bank]]):
        self._blocks, self._read = transformer_blocks(unet), read
        self._place: Place | None = None
        self._next: Attention | None = None

    def on(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of the `transformer_options` of a call with this attention in it."""
        patches = dict(options.get("patches", {}))
        patches["attn1_patch"] = [*patches.get("attn1_patch", ()), self._enter]
        patches["attn1_output_patch"] = [self._leave, *patches.get("attn1_output_patch", ())]
        self._next = options.get("optimized_attention_override")
        return {**options, "patches": patches, "optimized_attention_override": self._attend}

    def _enter(
        self, n: Tensor, context: Tensor, value: Tensor, options: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        self._place = place_of(options)
        return n, context, value

    def _leave(self, n: Tensor, _: Mapping[str, Any]) -> Tensor:
        self._place = None
        return n

    def _attend(
        self,
        function: Attention,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """What ComfyUI calls in place of `function`, for self- and cross-attention alike."""
        call = function if self._next is None else partial(self._next, function)

        def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
            return call(q, k, v, heads, mask=mask, **kwargs)

        if self._place not in self._blocks:  # cross-attention, or a layer that another pack has put in
            return attention(q, k, v, mask)
        module = self._blocks[self._place].attn1
        read = [[bank[self._place] for bank in banks if self._place in bank] for banks in self._read]
        if all(r == read[0] for r in read):
            read = read[:1]
        parts = zip(*(x.chunk(len(read)) for x in (q, k, v)), read, strict=True)
        return torch.cat([_attended(attention, module, *part) for part in parts])


def _attended(
    attention: Attention, module: CrossAttention, q: Tensor, k: Tensor, v: Tensor, read: Sequence[Tokens]
) -> Tensor:
    """The attention of queries, keys and values (B, N, C) with the tokens appended to keys and values."""
    if not read:
        return attention(q, k, v)
    states = torch.cat([tokens.states for tokens in read])[None].to(q)
    keys, values = (project(states).expand(len(q), -1, -1) for project in (module.to_k, module.to_v))
    mask = None
    if any(tokens.log_weights is not None for tokens in read):
        mask = torch.cat([q.new_zeros(k.shape[1]), *(tokens.bias().to(q) for tokens in read)])[None, None]
    return attention(q, torch.cat([k, keys], 1), torch.cat([v, values], 1), mask)
