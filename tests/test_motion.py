"""Motion modules: every key layout is read whole, the UNet with them computes what diffusers' UNetMotionModel computes, and
nothing of them stays in the UNet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy_process import in_comfyui
from safetensors.torch import save_file
from small_sd import CHANNELS, CONTEXT, HEADS, State, _random, as_comfy_model, diffusers, random_unet_state
from torch import Tensor, nn

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.models.naming import unet_to_ldm

FRAMES = 5
WIDTHS = [CHANNELS, 2 * CHANNELS, 4 * CHANNELS, 4 * CHANNELS]


# --- files, written from the layouts ---------------------------------------------------------------------------------


def layer(channels: int, positions: int, seed: int) -> State:
    """One temporal transformer's weights in AnimateDiff's names."""
    shapes: dict[str, tuple[int, ...]] = {"norm.weight": (channels,), "norm.bias": (channels,)}
    for linear in ("proj_in", "proj_out"):
        shapes |= {f"{linear}.weight": (channels, channels), f"{linear}.bias": (channels,)}
    block = "transformer_blocks.0."
    for n in range(2):
        attention = f"{block}attention_blocks.{n}."
        shapes |= {f"{attention}{part}.weight": (channels, channels) for part in ("to_q", "to_k", "to_v", "to_out.0")}
        shapes |= {f"{attention}to_out.0.bias": (channels,), f"{attention}pos_encoder.pe": (1, positions, channels)}
        shapes |= {f"{block}norms.{n}.{end}": (channels,) for end in ("weight", "bias")}
    shapes |= {f"{block}ff_norm.{end}": (channels,) for end in ("weight", "bias")}
    shapes |= {f"{block}ff.net.0.proj.weight": (8 * channels, channels), f"{block}ff.net.0.proj.bias": (8 * channels,)}
    shapes |= {f"{block}ff.net.2.weight": (channels, 4 * channels), f"{block}ff.net.2.bias": (channels,)}
    return _random({name: torch.empty(shape) for name, shape in shapes.items()}, seed)


def animatediff(positions: int, middle: bool) -> State:
    """The layout of AnimateDiff (v1: 24 and no middle; v2: 32 and one; v3: 32 and none) and of MagicPortrait (32 and one)."""
    state = {}
    for level, (down, up) in enumerate(zip(WIDTHS, reversed(WIDTHS), strict=True)):
        places = [(f"down_blocks.{level}", n, down) for n in range(2)] + [
            (f"up_blocks.{level}", n, up) for n in range(3)
        ]
        for part, n, channels in places:
            made = layer(channels, positions, 100 * level + 10 * n + (part[0] == "u"))
            state |= {f"{part}.motion_modules.{n}.temporal_transformer.{name}": value for name, value in made.items()}
    if middle:
        made = layer(WIDTHS[-1], positions, 999)
        state |= {f"mid_block.motion_modules.0.temporal_transformer.{name}": value for name, value in made.items()}
    return state


def x_portrait() -> State:
    """The layout of X-Portrait's checkpoint, with a few of the weights that stand beside it there."""
    state = {
        "appearance_control_model.time_embed.0.weight": torch.zeros(1),
        "model.diffusion_model.out.2.bias": torch.zeros(4),
    }
    for n in range(8):
        made = layer(WIDTHS[n // 2], 24, n)
        prefix = f"model.diffusion_model.input_blocks_motion_module.{n}.0.temporal_transformer."
        state |= {f"{prefix}{name}": value for name, value in made.items()}
    for n in range(12):
        made = layer(WIDTHS[3 - n // 3], 24, 50 + n)
        prefix = f"model.diffusion_model.output_blocks_motion_module.{n}.0.temporal_transformer."
        state |= {f"{prefix}{name}": value for name, value in made.items()}
    return state


LAYOUTS: dict[str, Callable[[], State]] = {
    "AnimateDiff v1": lambda: animatediff(24, middle=False),
    "AnimateDiff v2": lambda: animatediff(32, middle=True),
    "AnimateDiff v3": lambda: animatediff(32, middle=False),
    "MagicPortrait": lambda: animatediff(32, middle=True),
    "X-Portrait": x_portrait,
}


def written(state: State, folder: Path, name: str = "motion.safetensors") -> Path:
    save_file({key: value.clone().contiguous() for key, value in state.items()}, folder / name)
    return folder / name


@in_comfyui
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_each_layout_is_read_whole(tmp_path: Path, layout: str) -> None:
    """Every tensor of the file is in the network once, where the layout says."""
    from comfyui_flow3d.models.motion_files import read_motion

    state = LAYOUTS[layout]()
    network = read_motion(written(state, tmp_path))
    ours = network.state_dict()
    motion = {name: value for name, value in state.items() if "motion_module" in name}
    assert len(ours) == len(motion)
    assert sorted(float(v.double().sum()) for v in ours.values()) == sorted(
        float(v.double().sum()) for v in motion.values()
    )
    assert network.config.positions == (24 if layout in ("AnimateDiff v1", "X-Portrait") else 32)
    assert network.config.statistics == "frame"
    assert len(network.config.channels) == (21 if layout in ("AnimateDiff v2", "MagicPortrait") else 20)
    if layout == "X-Portrait":
        pairs = {"input_blocks_motion_module.3": "input_5", "output_blocks_motion_module.7": "output_7"}
        names = {
            f"model.diffusion_model.{t}.0.temporal_transformer.proj_in.bias": f"layers.{o}.proj_in.bias"
            for t, o in pairs.items()
        }
    else:
        pairs = {"down_blocks.2.motion_modules.1": "input_8", "up_blocks.1.motion_modules.2": "output_5"}
        names = {f"{t}.temporal_transformer.proj_in.bias": f"layers.{o}.proj_in.bias" for t, o in pairs.items()}
    for theirs, own in names.items():
        torch.testing.assert_close(ours[own], state[theirs], rtol=0, atol=0)


@in_comfyui
def test_a_trainers_file_is_read(tmp_path: Path) -> None:
    """`module.` before the names, all below `state_dict`, and no position tables, which are sines then."""
    from comfyui_flow3d.models.motion_files import read_motion

    state = {f"module.{k}": v for k, v in animatediff(32, middle=True).items() if not k.endswith(".pe")}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "trained.ckpt")
    network = read_motion(tmp_path / "trained.ckpt")
    from diffusers.models.embeddings import SinusoidalPositionalEmbedding

    table = network.state_dict()["layers.input_4.transformer_blocks.0.attention_blocks.1.pos_encoder.pe"]
    expected = SinusoidalPositionalEmbedding(2 * CHANNELS, max_seq_length=32).pe
    torch.testing.assert_close(table, expected, rtol=0, atol=1e-6)


_WRONG: dict[str, Callable[[State], object]] = {
    "missing: output_10.proj_out.bias": lambda s: s.pop(
        "up_blocks.3.motion_modules.1.temporal_transformer.proj_out.bias"
    ),
    "missing: input_4": lambda s: [s.pop(name) for name in list(s) if "down_blocks.1." in name],
    "left over: output_10.extra": lambda s: s.update(
        {"up_blocks.3.motion_modules.1.temporal_transformer.extra": torch.zeros(1)}
    ),
    "not known: down_blocks.4": lambda s: s.update(
        {"down_blocks.4.motion_modules.0.temporal_transformer.norm.bias": torch.zeros(1)}
    ),
    "NaN or infinity in layers.input_1": lambda s: s[
        "down_blocks.0.motion_modules.0.temporal_transformer.norm.bias"
    ].fill_(torch.nan),
    "another size": lambda s: s.update(
        {"mid_block.motion_modules.0.temporal_transformer.proj_in.weight": torch.zeros(8, 8)}
    ),
}


@in_comfyui
@pytest.mark.parametrize("message", list(_WRONG))
def test_a_wrong_file_is_told_by_name(tmp_path: Path, message: str) -> None:
    from comfyui_flow3d.models.motion_files import read_motion

    state = animatediff(32, middle=True)
    _WRONG[message](state)
    with pytest.raises(InputError, match=message):
        read_motion(written(state, tmp_path))


@in_comfyui
@pytest.mark.parametrize(
    "names, kind",
    [
        (
            ["model.diffusion_model.label_emb.0.0.weight", "model.diffusion_model.input_blocks.0.0.weight"],
            "an SDXL UNet",
        ),
        (["lora_unet_down_blocks_0.lora_up.weight"], "a LoRA"),
        (
            ["down_blocks.0.motion_modules.0.temporal_transformer.processor.to_q_lora.up.weight"],
            "a LoRA for AnimateDiff",
        ),
        (
            ["conv_in.weight", "blocks.0.weight", "attentions.5.norm.weight", "conv_out.weight"],
            "a guidance encoder of MagicPortrait",
        ),
    ],
)
def test_another_kind_of_file_is_named(tmp_path: Path, names: list[str], kind: str) -> None:
    from comfyui_flow3d.models.motion_files import read_motion

    with pytest.raises(InputError, match=f"is {kind}.*; this needs a motion module for SD1.5"):
        read_motion(written({name: torch.zeros(2) for name in names}, tmp_path))


# --- the UNet with temporal layers -----------------------------------------------------------------------------------


def motion_unet(middle: bool) -> Any:
    """diffusers' UNetMotionModel with random weights."""
    model = diffusers().UNetMotionModel(
        block_out_channels=tuple(WIDTHS), cross_attention_dim=CONTEXT, num_attention_heads=HEADS,
        motion_num_attention_heads=HEADS, motion_max_seq_length=32, use_motion_mid_block=middle,
    )  # fmt: skip
    made = _random({k: v for k, v in model.state_dict().items() if not k.endswith("pos_embed.pe")}, 3)
    tables = {k: v for k, v in model.state_dict().items() if k.endswith("pos_embed.pe")}
    model.load_state_dict(made | tables)
    return model.eval()


class OneFrameAtATime(nn.Module):
    """A group norm of frames, as AnimateDiff was trained, where diffusers takes the whole clip."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.norm(frame) for frame in x.unbind(2)], 2)


def in_animatediffs_names(state: State) -> State:
    """Motion weights from diffusers' names to AnimateDiff's, written here from the two layouts."""
    renamed = {}
    for name, value in state.items():
        part, rest = name.split(".motion_modules.")
        n, inner = rest.split(".", 1)
        inner = inner.replace(".attn1.", ".attention_blocks.0.").replace(".attn2.", ".attention_blocks.1.")
        inner = inner.replace(".norm1.", ".norms.0.").replace(".norm2.", ".norms.1.").replace(".norm3.", ".ff_norm.")
        inners = [inner.replace("pos_embed", f"attention_blocks.{k}.pos_encoder") for k in range(2)]
        renamed |= {f"{part}.motion_modules.{n}.temporal_transformer.{i}": value for i in inners}
    return renamed


def inputs(halves: int = 2, frames: int = FRAMES) -> tuple[Tensor, Tensor, Tensor]:
    """(halves, C, F, H, W), timesteps (halves,), context (halves, L, D)."""
    torch.manual_seed(8)
    return torch.randn(halves, 4, frames, 16, 8), torch.tensor([701.0, 33.0])[:halves], torch.randn(halves, 7, CONTEXT)


@torch.no_grad()
def comfy_result(patched: Any, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
    """What ComfyUI's UNet gives for halves whose frames stand in the batch."""
    halves, frames = len(x), x.shape[2]
    batch = x.transpose(1, 2).flatten(0, 1)
    options = {**patched.model_options["transformer_options"], "cond_or_uncond": list(range(halves))}
    patched.inject_model()
    try:
        rows = [t.repeat_interleave(frames, 0) for t in (timesteps, context)]
        out = patched.model.diffusion_model(batch, rows[0], context=rows[1], transformer_options=options)
    finally:
        patched.eject_model()
    return out.unflatten(0, (halves, frames)).transpose(1, 2)


@in_comfyui
@pytest.mark.parametrize("statistics", ["clip", "frame"])
@pytest.mark.parametrize("middle", [True, False])
def test_it_equals_diffusers_motion_unet(tmp_path: Path, middle: bool, statistics: str) -> None:
    """From diffusers' own naming with diffusers' norms; from AnimateDiff's with the norms it was trained with."""
    from comfyui_flow3d.models.motion import load_motion, with_motion

    oracle = motion_unet(middle)
    state = oracle.state_dict()
    motion = {k: v for k, v in state.items() if "motion_modules" in k}
    if statistics == "frame":
        motion = in_animatediffs_names(motion)
        for module in list(oracle.modules()):
            if type(module).__name__ == "AnimateDiffTransformer3D":
                module.norm = OneFrameAtATime(module.norm)
    loaded = load_motion(written(motion, tmp_path))
    assert loaded.network.config.statistics == statistics
    model = as_comfy_model(unet_to_ldm({k: v for k, v in state.items() if "motion_modules" not in k}))
    x, timesteps, context = inputs()
    ours = comfy_result(with_motion(model, loaded), x, timesteps, context)
    with torch.no_grad():
        theirs = oracle(x, timesteps, context.repeat_interleave(FRAMES, 0)).sample
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    plain = comfy_result(model, x, timesteps, context)
    assert (plain - theirs).abs().max() > 0.1, "the temporal layers do something"


@in_comfyui
def test_a_layer_is_computed_as_written_down() -> None:
    """Against the formula, place by place, with each half on its own."""
    from comfyui_flow3d.models.motion_network import TemporalTransformer

    torch.manual_seed(0)
    state = layer(CHANNELS, 8, 4)
    network = TemporalTransformer(CHANNELS, 8, "frame")
    network.load_state_dict(state)
    x = torch.randn(2 * 3, CHANNELS, 2, 3)
    with torch.no_grad():
        ours = network(x, 3)
    block = "transformer_blocks.0."
    normed = nn.functional.group_norm(x, 32, state["norm.weight"], state["norm.bias"], 1e-6)
    for half in range(2):
        for row in range(2):
            for column in range(3):
                t = normed[3 * half : 3 * half + 3, :, row, column] @ state["proj_in.weight"].T + state["proj_in.bias"]
                for n in range(2):
                    a = f"{block}attention_blocks.{n}."
                    norm = (state[f"{block}norms.{n}.weight"], state[f"{block}norms.{n}.bias"])
                    h = nn.functional.layer_norm(t, (CHANNELS,), *norm) + state[f"{a}pos_encoder.pe"][0, :3]
                    q, k, v = ((h @ state[f"{a}to_{p}.weight"].T).view(3, HEADS, -1) for p in "qkv")
                    scores = torch.einsum("ihd,jhd->hij", q, k) * q.shape[-1] ** -0.5
                    mixed = torch.einsum("hij,jhd->ihd", scores.softmax(-1), v).reshape(3, -1)
                    t = t + mixed @ state[f"{a}to_out.0.weight"].T + state[f"{a}to_out.0.bias"]
                norm = (state[f"{block}ff_norm.weight"], state[f"{block}ff_norm.bias"])
                h = nn.functional.layer_norm(t, (CHANNELS,), *norm)
                h, gate = (h @ state[f"{block}ff.net.0.proj.weight"].T + state[f"{block}ff.net.0.proj.bias"]).chunk(
                    2, -1
                )
                h = h * nn.functional.gelu(gate)
                t = t + h @ state[f"{block}ff.net.2.weight"].T + state[f"{block}ff.net.2.bias"]
                expected = (
                    x[3 * half : 3 * half + 3, :, row, column] + t @ state["proj_out.weight"].T + state["proj_out.bias"]
                )
                torch.testing.assert_close(
                    ours[3 * half : 3 * half + 3, :, row, column], expected, rtol=1e-4, atol=1e-4
                )


@in_comfyui
def test_halves_do_not_see_each_other(tmp_path: Path) -> None:
    """Two halves together give what each gives alone."""
    from comfyui_flow3d.models.motion import load_motion, with_motion

    patched = with_motion(as_comfy_model(random_unet_state(1)), load_motion(written(animatediff(32, True), tmp_path)))
    x, timesteps, context = inputs()
    both = comfy_result(patched, x, timesteps, context)
    alone = torch.cat([comfy_result(patched, x[i : i + 1], timesteps[i : i + 1], context[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(both, alone, rtol=0, atol=1e-4)


@in_comfyui
def test_the_unet_is_left_as_it_was(tmp_path: Path) -> None:
    """The names and weights of the UNet are the same while the layers are in it and after; twice in is once."""
    from comfyui_flow3d.models.motion import TemporalLayer, load_motion, with_motion

    model = as_comfy_model(random_unet_state(1))
    unet = model.model.diffusion_model
    names, printed = list(unet.state_dict()), str(unet)
    loaded = load_motion(written(animatediff(32, True), tmp_path))
    patched, again = with_motion(model, loaded), with_motion(model, loaded)
    patched.inject_model()
    again.inject_model()  # as after a run that was never cleaned up
    assert sorted(unet.state_dict()) == sorted(names)
    assert sum(isinstance(m, TemporalLayer) for m in unet.modules()) == 21
    kinds = [
        [type(part).__name__ for part in block]
        for block in (unet.output_blocks[5], unet.middle_block, unet.input_blocks[1])
    ]
    assert kinds == [
        ["ResBlock", "SpatialTransformer", "TemporalLayer", "Upsample"],
        ["ResBlock", "SpatialTransformer", "TemporalLayer", "ResBlock"],
        ["ResBlock", "SpatialTransformer", "TemporalLayer"],
    ]
    again.eject_model()
    patched.eject_model()
    assert (list(unet.state_dict()), str(unet)) == (names, printed)
    assert (
        not model.injections
        and not model.callbacks
        and not model.additional_models
        and not model.model_options["transformer_options"]
    )


@in_comfyui
def test_a_pass_without_the_patch_is_the_plain_unet(tmp_path: Path) -> None:
    """Something that runs the same UNet over one picture, such as a reference, is not taken for a clip."""
    from comfyui_flow3d.models.motion import load_motion, with_motion

    model = as_comfy_model(random_unet_state(1))
    patched = with_motion(model, load_motion(written(animatediff(32, True), tmp_path)))
    x, timesteps, context = inputs(1, 1)
    call = (x[:, :, 0], timesteps)
    with torch.no_grad():
        plain = model.model.diffusion_model(*call, context=context)
        patched.inject_model()
        inside = model.model.diffusion_model(*call, context=context, transformer_options={"cond_or_uncond": [0]})
        patched.eject_model()
    assert torch.equal(plain, inside)


@in_comfyui
def test_positions_and_the_window() -> None:
    """A shorter window takes the first rows; a longer one is an error, or has the table stretched over it."""
    from comfyui_flow3d.models.motion_network import positions_for

    table = torch.arange(4.0).view(1, 4, 1)
    assert positions_for(table, 3, stretch=True).flatten().tolist() == [0, 1, 2]
    torch.testing.assert_close(positions_for(table, 7, stretch=True).flatten(), torch.arange(0, 3.01, 0.5))
    with pytest.raises(InputError, match="window of 7 frames is longer than the 4 positions.*'stretch'"):
        positions_for(table, 7, stretch=False)


@in_comfyui
def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    from comfyui_flow3d.models.motion import load_motion, with_motion

    wide = animatediff(32, True)
    for name in [n for n in wide if "up_blocks.3.motion_modules.0" in n]:
        wide.pop(name)
    wide |= {f"up_blocks.3.motion_modules.0.temporal_transformer.{k}": v for k, v in layer(2 * CHANNELS, 32, 7).items()}
    with pytest.raises(InputError, match="channels, the model's UNet of 32/64/128"):
        with_motion(as_comfy_model(random_unet_state(1)), load_motion(written(wide, tmp_path)))
