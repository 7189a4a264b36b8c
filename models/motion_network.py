"""Temporal layers for SD1.5's UNet: attention along the frames at each place of the picture (AnimateDiff, Guo et al. 2023).

One network for every file: the weights have AnimateDiff's own names within a layer, and a layer is named by its place in
ComfyUI's UNetModel. Built from ComfyUI's casting layers, so that its memory management can load them in parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import comfy.ops
import torch
from comfy.ldm.modules.attention import FeedForward, attention_pytorch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..flow3d.errors import InputError

HEADS, GROUPS = 8, 32
Statistics = Literal["frame", "clip"]
Place = tuple[Literal["input", "middle", "output"], int]
"""Which of the UNet's blocks a layer stands in; in the middle block it stands after the attention."""

PLACES: tuple[Place, ...] = (
    *(("input", n) for n in (1, 2, 4, 5, 7, 8, 10, 11)),
    *(("output", n) for n in range(12)),
)  # fmt: skip
MIDDLE: Place = ("middle", 0)
_OPS = comfy.ops.manual_cast


@dataclass(frozen=True)
class MotionConfig:
    """What the weights of a motion module tell of its structure.

    Args:
        channels: of each layer, by its place. Without MIDDLE: the module has no layer there.
        positions: rows of the position tables, the longest window the module was trained for.
        statistics: over what each group norm takes its mean and variance: `frame` as AnimateDiff, X-Portrait and
            MagicPortrait were trained, `clip` (all frames together) as diffusers computes.
    """

    channels: Mapping[Place, int]
    positions: int
    statistics: Statistics = "frame"


class MotionNetwork(nn.Module):
    """The temporal layers of a whole UNet; `state_dict` names them `PART_INDEX.`, such as `input_1.proj_in.weight`."""

    def __init__(self, config: MotionConfig):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleDict(
            {
                layer_name(place): TemporalTransformer(c, config.positions, config.statistics)
                for place, c in config.channels.items()
            }
        )

    @classmethod
    def without_weights(cls, config: MotionConfig) -> "MotionNetwork":
        """To be filled by `load_state_dict(..., assign=True)`."""
        with torch.device("meta"):
            return cls(config)

    def at(self, place: Place) -> "TemporalTransformer":
        layer = self.layers[layer_name(place)]
        assert isinstance(layer, TemporalTransformer)
        return layer


class TemporalTransformer(nn.Module):
    """Adds to each place of the picture what attention along the frames finds there."""

    def __init__(self, channels: int, positions: int, statistics: Statistics):
        super().__init__()
        self.statistics = statistics
        self.norm = _OPS.GroupNorm(GROUPS, channels, eps=1e-6)
        self.proj_in = _OPS.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([_Block(channels, positions)])
        self.proj_out = _OPS.Linear(channels, channels)

    def forward(self, x: Tensor, frames: int, stretch: bool = False) -> Tensor:
        """(halves * frames, C, H, W) -> the same shape; the frames of a half stand one after the other.

        Args:
            stretch: a window longer than the position table has the table interpolated over it, else it is an error.
        """
        if len(x) % frames:
            raise InputError(f"Motion module: {len(x)} pictures cannot be shared out to clips of {frames} frames.")
        height, width = x.shape[-2:]
        tokens = rearrange(self._normed(x, frames), "(b f) c h w -> (b h w) f c", f=frames)
        tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, stretch)
        return x + rearrange(self.proj_out(tokens), "(b h w) f c -> (b f) c h w", h=height, w=width)

    def _normed(self, x: Tensor, frames: int) -> Tensor:
        if self.statistics == "frame":
            return self.norm(x)
        return rearrange(self.norm(rearrange(x, "(b f) c h w -> b c f h w", f=frames)), "b c f h w -> (b f) c h w")


class _Block(nn.Module):
    def __init__(self, channels: int, positions: int):
        super().__init__()
        self.attention_blocks = nn.ModuleList([_Attention(channels, positions) for _ in range(2)])
        self.norms = nn.ModuleList([_OPS.LayerNorm(channels) for _ in range(2)])
        self.ff = FeedForward(channels, glu=True, operations=_OPS)
        self.ff_norm = _OPS.LayerNorm(channels)

    def forward(self, tokens: Tensor, stretch: bool) -> Tensor:
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            tokens = tokens + attention(norm(tokens), stretch)
        return tokens + self.ff(self.ff_norm(tokens))


class _Table(nn.Module):
    pe: Tensor

    def __init__(self, positions: int, channels: int):
        super().__init__()
        self.register_buffer("pe", torch.zeros(1, positions, channels))


class _Attention(nn.Module):
    """Self-attention along the frames (n, F, C), which are told their numbers by a table of positions."""

    def __init__(self, channels: int, positions: int):
        super().__init__()
        self.to_q, self.to_k, self.to_v = (_OPS.Linear(channels, channels, bias=False) for _ in range(3))
        self.to_out = nn.ModuleList([_OPS.Linear(channels, channels)])
        self.pos_encoder = _Table(positions, channels)

    def forward(self, tokens: Tensor, stretch: bool) -> Tensor:
        tokens = tokens + positions_for(self.pos_encoder.pe, tokens.shape[1], stretch).to(tokens)
        # A window has a few dozen tokens: torch's own attention is as good as any other, and takes the batch of all places.
        mixed = attention_pytorch(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens), HEADS)
        return self.to_out[0](mixed)


def positions_for(table: Tensor, frames: int, stretch: bool) -> Tensor:
    """The first rows of a position table (1, P, C), or the whole table stretched over more frames than it has."""
    if frames <= table.shape[1]:
        return table[:, :frames]
    if not stretch:
        raise InputError(too_long(frames, table.shape[1]))
    return interpolate(table.transpose(1, 2).float(), frames, mode="linear", align_corners=True).transpose(1, 2)


def too_long(frames: int, positions: int) -> str:
    """What is wrong with a window, and the remedy."""
    return (
        f"a window of {frames} frames is longer than the {positions} positions of the motion module. Lower 'window length' to "
        f"{positions}, or load the module with 'positions' set to 'stretch'."
    )


def sinusoidal_positions(positions: int, channels: int) -> Tensor:
    """(1, P, C) sines on even and cosines on odd channels, as AnimateDiff fills the table that some files leave out."""
    rates = torch.exp(torch.arange(0, channels, 2) * (-torch.log(torch.tensor(10000.0)) / channels))
    angles = torch.arange(positions)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[None]


def layer_name(place: Place) -> str:
    return f"{place[0]}_{place[1]}"


def layer_keys() -> Sequence[str]:
    """The names of one layer's weights, the position tables among them."""
    with torch.device("meta"):
        return list(TemporalTransformer(GROUPS, 1, "frame").state_dict())
