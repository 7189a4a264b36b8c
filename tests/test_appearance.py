"""Appearance Reference against diffusers' UNet with processors that write and read a bank, by ComfyUI's own samplers."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy_process import in_comfyui
from small_sd import CONTEXT, as_comfy_model, as_diffusers, random_unet_state
from torch import Tensor
from torch.nn.functional import interpolate

FRAMES, SIDE, CFG, SIGMA = 3, 16, 3.0, 2.5
CLOSE = 1e-4  # of values up to 16: what another order of the same sums makes; the plain model has 2e-5 of it
SCALE = 0.18215  # of SD1.5's latents


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def conditioning(seed: int) -> list:
    return [[randn(seed, 1, 7, CONTEXT), {}]]


POSITIVE, NEGATIVE, PROMPT = 11, 12, 13
NOISE, REFERENCE = randn(1, FRAMES, 4, SIDE, SIDE), randn(2, 2, 4, 12, SIDE)


def network(state: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Any:
    """An Appearance of random weights, as the loader makes it of a file."""
    from comfy.model_patcher import ModelPatcher
    from small_sd import small_unet_config

    from comfyui_flow3d.models.appearance_network import Appearance, AppearanceNetwork

    config = {name: value for name, value in small_unet_config().items() if name != "dtype"}
    made = AppearanceNetwork(config, dtype).eval()
    made.unet.load_state_dict({n: w for n, w in state.items() if not n.startswith("out.")})
    cpu = torch.device("cpu")
    return Appearance(ModelPatcher(made, cpu, cpu), "random")


def referenced(
    model: Any, appearance: Any = None, latents: Tensor = REFERENCE, prompt: int = PROMPT, **settings: Any
) -> Any:
    from comfyui_flow3d.models.appearance import with_reference
    from comfyui_flow3d.models.appearance_reference import Reference

    used = None if appearance is None else appearance.network
    return with_reference(model, Reference(latents, conditioning(prompt)[0][0], used, **settings), appearance)


def sampled(
    model: Any, noise: Tensor = NOISE, sigmas: tuple[float, ...] = (SIGMA,), cfg: float = CFG
) -> list[tuple[Tensor, Tensor]]:
    """(what the model was given, what it made of it) at each noise level, through ComfyUI's sampling."""
    import comfy.sample
    import comfy.samplers

    calls: list[tuple[Tensor, Tensor]] = []

    def function(model: Any, x: Tensor, levels: Tensor, extra_args: dict, **_: Any) -> Tensor:
        for level in levels[:-1]:
            calls.append((x, model(x, level.expand(len(x)), **extra_args)))
        return calls[-1][1]

    with torch.inference_mode():
        comfy.sample.sample_custom(
            model, noise, cfg, comfy.samplers.KSAMPLER(function), torch.tensor([*sigmas, 0.0]), conditioning(POSITIVE),
            conditioning(NEGATIVE), torch.zeros_like(noise), disable_pbar=True,
        )  # fmt: skip
    return calls


class Banked:
    """diffusers' attention, written out: self-attention leaves its states in `bank`, or reads them with weights."""

    def __init__(self, bank: list[Tensor], weights: list[Tensor] | None = None, rows: list[bool] | None = None):
        self.bank, self.weights, self.rows, self.calls = bank, weights or [], rows, 0

    def __call__(self, attn: Any, hidden: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        if encoder_hidden_states is not None:
            return self.attend(attn, hidden, encoder_hidden_states, torch.ones(encoder_hidden_states.shape[1]))
        if self.rows is None:
            self.bank.append(hidden)
            return self.attend(attn, hidden, hidden, torch.ones(hidden.shape[1]))
        tokens, weights = self.bank[self.calls].flatten(0, 1), self.weights[self.calls]
        self.calls += 1
        made = []
        for row, reads in zip(hidden, self.rows, strict=True):
            keys = torch.cat([row, tokens]) if reads else row
            counts = torch.cat([torch.ones(len(row)), weights]) if reads else torch.ones(len(row))
            made.append(self.attend(attn, row[None], keys[None], counts))
        return torch.cat(made)

    @staticmethod
    def attend(attn: Any, hidden: Tensor, keys: Tensor, counts: Tensor) -> Tensor:
        q, k, v = (attn.head_to_batch_dim(f(x)) for f, x in ((attn.to_q, hidden), (attn.to_k, keys), (attn.to_v, keys)))
        shares = (q @ k.transpose(1, 2) * attn.scale).exp() * counts
        return attn.to_out[0](attn.batch_to_head_dim(shares / shares.sum(-1, keepdim=True) @ v))


@torch.no_grad()
def oracle(
    state: dict, writer: dict, x: Tensor, timestep: int, told: float, latents: Tensor = REFERENCE, strength: float = 1.0,
    mask: Tensor | None = None, both: bool = False, cfg: float = CFG,
) -> Tensor:  # fmt: skip
    """What the bank-reading UNet makes of `x` at `timestep`, where the writing one was told of timestep `told`."""
    bank: list[Tensor] = []
    writing, reading = as_diffusers(writer), as_diffusers(state)
    writing.set_attn_processor(Banked(bank))
    writing(latents * SCALE, told, conditioning(PROMPT)[0][0].expand(len(latents), -1, -1))
    assert len(bank) == 16
    weights = []
    for step in (1, 1, 2, 2, 4, 4, 8, 4, 4, 4, 2, 2, 2, 1, 1, 1):
        grid = (-(-latents.shape[2] // step), -(-latents.shape[3] // step))
        area = torch.ones(len(latents), *grid) if mask is None else interpolate(mask[:, None], grid, mode="area")[:, 0]
        weights.append(strength * area.expand(len(latents), -1, -1).flatten())
    predicted = []
    for seed, reads in ((POSITIVE, True), (NEGATIVE, both)):
        reading.set_attn_processor(Banked(bank, weights, [reads] * len(x)))
        context = conditioning(seed)[0][0].expand(len(x), -1, -1)
        eps = reading(x / (SIGMA**2 + 1) ** 0.5, timestep, context).sample
        predicted.append(x - SIGMA * eps)
    return predicted[1] + cfg * (predicted[0] - predicted[1])


HALF_MASK = torch.zeros(1, 24, 32)
HALF_MASK[:, :, :16] = 1
SOFT_MASKS = torch.rand(2, 12, 16, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    "settings",
    [
        {"policy": "current"},
        {"policy": "zero"},
        {"halves": "both"},
        {"strength": 0.3},
        {"mask": HALF_MASK},
        {"mask": SOFT_MASKS, "strength": 2.0, "halves": "both"},
    ],
    ids=["current", "zero", "both halves", "strength", "hard mask", "soft masks"],
)
@in_comfyui
def test_it_is_a_bank_reading_unet(settings: dict) -> None:
    state, writer = random_unet_state(0), random_unet_state(1)
    model = as_comfy_model(state)
    [(x, got)] = sampled(referenced(model, network(writer), **settings))
    timestep = int(model.model.model_sampling.timestep(torch.tensor(SIGMA)))
    told = timestep if settings.get("policy") != "zero" else 0
    kept = {name: settings[name] for name in ("strength", "mask") if name in settings}
    expected = oracle(state, writer, x, timestep, told, both=settings.get("halves") == "both", **kept)
    [(_, plain)] = sampled(model)
    assert (got - expected).abs().max() < 1e-4
    assert (got - plain).abs().max() > 0.1


@in_comfyui
def test_without_a_file_the_model_reads_what_it_writes_itself() -> None:
    state = random_unet_state(0)
    model = as_comfy_model(state)
    [(x, got)] = sampled(referenced(model))
    timestep = int(model.model.model_sampling.timestep(torch.tensor(SIGMA)))
    assert (got - oracle(state, state, x, timestep, timestep)).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@in_comfyui
def test_network_and_model_may_compute_in_different_types(dtype: torch.dtype) -> None:
    from comfyui_flow3d.models.appearance_network import AppearanceNetwork

    state, model = random_unet_state(1), as_comfy_model(random_unet_state(0))
    exact, other = network(state), network(state, dtype)
    assert isinstance(other.network, AppearanceNetwork) and other.patcher.model_dtype() == dtype
    a, b = (sampled(referenced(model, appearance))[0][1] for appearance in (exact, other))
    assert b.dtype == a.dtype
    assert (a - b).abs().mean() < (0.1 if dtype == torch.bfloat16 else 1e-5)


@in_comfyui
def test_a_lora_acts_on_what_the_model_writes_itself() -> None:
    name = "input_blocks.4.1.transformer_blocks.0.attn1.to_k.weight"
    state = random_unet_state(0)
    change = 0.3 * randn(5, *state[name].shape)
    model = as_comfy_model({n: w.clone() for n, w in state.items()})
    model.add_patches({f"diffusion_model.{name}": ("diff", (change,))}, 0.5)
    [(x, got)] = sampled(referenced(model))
    changed = state | {name: state[name] + 0.5 * change}
    timestep = int(model.model.model_sampling.timestep(torch.tensor(SIGMA)))
    assert (got - oracle(changed, changed, x, timestep, timestep)).abs().max() < 1e-4
    assert (got - oracle(state, state, x, timestep, timestep)).abs().max() > 1e-3


@in_comfyui
def test_several_references_count_as_one_of_several() -> None:
    model, appearance = as_comfy_model(random_unet_state(0)), network(random_unet_state(1))
    together = sampled(referenced(model, appearance))[0][1]
    chained = referenced(referenced(model, appearance, REFERENCE[:1]), appearance, REFERENCE[1:])
    assert len(chained.get_additional_models()) == 1
    assert (sampled(chained)[0][1] - together).abs().max() < CLOSE
    twice = referenced(referenced(model, appearance, REFERENCE[:1]), appearance, REFERENCE[:1])
    double = referenced(model, appearance, REFERENCE[:1], strength=2.0)
    assert (sampled(twice)[0][1] - sampled(double)[0][1]).abs().max() < CLOSE


@in_comfyui
def test_strength_0_changes_no_bit() -> None:
    model, appearance = as_comfy_model(random_unet_state(0)), network(random_unet_state(1))
    [(_, plain)] = sampled(model)
    assert torch.equal(sampled(referenced(model, appearance, strength=0.0))[0][1], plain)
    assert torch.equal(sampled(referenced(model, appearance, mask=torch.zeros(1, 8, 8)))[0][1], plain)
    assert torch.equal(sampled(referenced(model, appearance, start=0.9))[0][1], plain)
    assert not torch.equal(sampled(referenced(model, appearance, end=0.9))[0][1], plain)


@in_comfyui
def test_only_the_conditional_half_reads() -> None:
    model, appearance = as_comfy_model(random_unet_state(0)), network(random_unet_state(1))
    plain, cond_only, both = (
        sampled(m, cfg=0.0)[0][1]
        for m in (model, referenced(model, appearance), referenced(model, appearance, halves="both"))
    )
    assert (plain - cond_only).abs().max() < 1e-6  # cfg 0 is the unconditional half alone
    assert (plain - both).abs().max() > 0.1


@pytest.mark.parametrize("halves", ["conditional", "both"])
@in_comfyui
def test_how_the_batch_is_split_changes_nothing(halves: str) -> None:
    model = referenced(as_comfy_model(random_unet_state(0)), network(random_unet_state(1)), halves=halves)
    whole = sampled(model)[0][1]
    model.model.memory_usage_factor = 1e30  # ComfyUI then runs one half after the other
    assert (sampled(model)[0][1] - whole).abs().max() < CLOSE
    singles = torch.cat([sampled(model, NOISE[i : i + 1])[0][1] for i in range(FRAMES)])
    assert (singles - whole).abs().max() < CLOSE


def windows(length: int, stride: int) -> Any:
    """A context handler in ComfyUI's terms: windows one after the other, frames that are seen twice averaged."""
    from comfy.context_windows import ContextHandlerABC, IndexListContextWindow

    class Windows(ContextHandlerABC):
        def should_use_context(self, *_: Any) -> bool:
            return True

        def get_resized_cond(self, cond_in: Any, *_: Any) -> Any:
            return cond_in

        def execute(
            self, calc_cond_batch: Any, model: Any, conds: Any, x_in: Tensor, timestep: Tensor, model_options: Any
        ) -> Any:
            total, count = [torch.zeros_like(x_in) for _ in conds], torch.zeros(len(x_in), 1, 1, 1)
            for start in range(0, len(x_in) - length + 1, stride):
                window = IndexListContextWindow(list(range(start, start + length)))
                model_options["transformer_options"]["context_window"] = window
                i = window.index_list
                count[i] += 1
                for sum_, part in zip(
                    total, calc_cond_batch(model, conds, x_in[i], timestep[i], model_options), strict=True
                ):
                    sum_[i] += part
            return [sum_ / count for sum_ in total]

    return Windows()


@pytest.mark.parametrize(("policy", "passes"), [("current", 3), ("zero", 1)])
@in_comfyui
def test_one_pass_a_step_for_all_frames_windows_and_halves(policy: str, passes: int) -> None:
    appearance, noise, sigmas = network(random_unet_state(1)), randn(6, 6, 4, 8, 8), (8.0, 8.0, 2.0, 0.5)
    model = referenced(as_comfy_model(random_unet_state(0)), appearance, policy=policy)
    whole = sampled(model, noise, sigmas)
    model.model_options["context_handler"] = windows(4, 2)
    model.model.memory_usage_factor = 1e30
    seen: list[int] = []
    hooks = [appearance.network.unet.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))]
    reads: list[int] = []
    hooks += [model.model.diffusion_model.register_forward_hook(lambda _, inputs, __: reads.append(len(inputs[0])))]
    windowed = sampled(model, noise, sigmas)
    for hook in hooks:
        hook.remove()
    assert seen == [2] * passes
    assert reads == [4] * (4 * 2 * 2)  # steps, windows, halves
    for (_, a), (_, b) in zip(whole, windowed, strict=True):
        assert (a - b).abs().max() < CLOSE


@in_comfyui
def test_the_pass_ends_with_the_last_state() -> None:
    """What of the UNet runs, by its modules: nothing behind the last block's first norm."""
    appearance = network(random_unet_state(1))
    unet, ran = appearance.network.unet, []
    names = {m: name for name, m in unet.named_modules() if not list(m.children()) and not name.endswith("_upd")}
    hooks = [m.register_forward_pre_hook(lambda module, _: ran.append(names[module])) for m in names]
    sampled(referenced(as_comfy_model(random_unet_state(0)), appearance))
    for hook in hooks:
        hook.remove()
    block = "output_blocks.11.1.transformer_blocks.0."
    behind = (f"{block}attn", f"{block}norm2", f"{block}norm3", f"{block}ff", "output_blocks.11.1.proj_out", "out.")
    assert ran[-1] == f"{block}norm1"
    assert {name for name in names.values() if name not in ran} == {n for n in names.values() if f"{n}.".startswith(behind)}


@in_comfyui
def test_it_runs_again_and_leaves_nothing() -> None:
    model, appearance = as_comfy_model(random_unet_state(0)), network(random_unet_state(1))
    patched = referenced(model, appearance)
    before = {n: w.clone() for n, w in model.model.state_dict().items()}
    methods = {n: m.__dict__.keys() for n, m in model.model.named_modules()}
    written: list[weakref.ref] = []

    def watch(module: Any, _: Any, output: Tensor) -> None:
        written.append(weakref.ref(output))

    norms = [m for n, m in appearance.network.unet.named_modules() if n.endswith("norm1")]
    hooks = [norm.register_forward_hook(watch) for norm in norms]
    first = sampled(patched, sigmas=(SIGMA, 1.0))
    for hook in hooks:
        hook.remove()
    gc.collect()
    assert len(written) == 2 * 16 and not any(ref() is not None for ref in written)
    second = sampled(patched, sigmas=(SIGMA, 1.0))
    for (_, a), (_, b) in zip(first, second, strict=True):
        assert torch.equal(a, b)
    assert model.model_options == {"transformer_options": {}} == patched.model_options
    assert not model.wrappers and not model.callbacks and not model.additional_models
    assert all(torch.equal(w, before[n]) for n, w in model.model.state_dict().items())
    assert {n: m.__dict__.keys() for n, m in model.model.named_modules()} == methods
    assert not any(m._forward_hooks for m in [*model.model.modules(), *appearance.network.modules()])
    assert sampled(model)[0][1].equal(sampled(as_comfy_model(random_unet_state(0)))[0][1])


@in_comfyui
def test_an_error_while_sampling_frees_the_bank_too() -> None:
    from comfy.patcher_extension import WrappersMP

    patched = referenced(as_comfy_model(random_unet_state(0)), network(random_unet_state(1)))
    [references] = patched.get_wrappers(WrappersMP.APPLY_MODEL, "flow3d_appearance")

    def stop(x: Tensor, _: Any) -> Tensor:
        assert references.references[0].memory.bank is not None
        raise InterruptedError

    patched.set_model_attn1_output_patch(stop)
    with pytest.raises(InterruptedError):
        sampled(patched)
    assert references.references[0].memory.bank is None


@in_comfyui
def test_the_network_is_loaded_with_the_model() -> None:
    import comfy.model_management

    comfy.model_management.unload_all_models()
    appearance = network(random_unet_state(1))
    patched = referenced(as_comfy_model(random_unet_state(0)), appearance)
    sampled(patched)
    loaded = [m.model for m in comfy.model_management.current_loaded_models]
    assert any(m.is_clone(appearance.patcher) for m in loaded) and any(m.is_clone(patched) for m in loaded)
    comfy.model_management.unload_all_models()
    assert not comfy.model_management.current_loaded_models
    clone = patched.clone()
    assert clone.wrappers == patched.wrappers  # a clone shares the references; nothing is copied
    sampled(clone)


def another_packs_attention(model: Any) -> Any:
    """An IP-Adapter's kind of patch (another cross-attention added), values scaled before self-attention, and its output."""
    added = randn(7, 1, 5, CONTEXT)
    model = model.clone()
    blocks = {
        ("input", 4): model.model.diffusion_model.input_blocks[4],
        ("output", 6): model.model.diffusion_model.output_blocks[6],
    }

    def adapter(attn: Any) -> Any:
        def replaced(q: Tensor, k: Tensor, v: Tensor, options: dict) -> Tensor:
            from comfy.ldm.modules.attention import optimized_attention

            more = added.expand(len(q), -1, -1)
            out = optimized_attention(q, k, v, options["n_heads"])
            return out + 0.7 * optimized_attention(q, attn.to_k(more), attn.to_v(more), options["n_heads"])

        return replaced

    for (name, number), block in blocks.items():
        model.set_model_attn2_replace(adapter(block[1].transformer_blocks[0].attn2), name, number)
    model.set_model_attn1_patch(lambda n, context, value, options: (n, context, 1.5 * value))
    model.set_model_attn1_output_patch(lambda n, options: 0.5 * n)
    return model


@in_comfyui
def test_it_stacks_with_another_packs_attention_in_any_order() -> None:
    model, appearance = as_comfy_model(random_unet_state(0)), network(random_unet_state(1))
    ours_last, ours_first = (
        referenced(another_packs_attention(model), appearance),
        another_packs_attention(referenced(model, appearance)),
    )
    a, b, ours, theirs = (
        sampled(m)[0][1] for m in (ours_last, ours_first, referenced(model, appearance), another_packs_attention(model))
    )
    assert torch.equal(a, b)
    assert (a - ours).abs().max() > 0.05 and (a - theirs).abs().max() > 0.05


@in_comfyui
def test_it_stacks_with_another_attention_function() -> None:
    """Such as a faster kernel: it gets the calls that ComfyUI's own would have got, with the tokens in them."""
    model = referenced(as_comfy_model(random_unet_state(0)), network(random_unet_state(1)))
    plain, lengths = sampled(model)[0][1], []

    def kernel(function: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, **kwargs: Any) -> Tensor:
        lengths.append((len(q), q.shape[1], k.shape[1]))
        return function(q, k, v, heads, **kwargs)

    model.model_options["transformer_options"]["optimized_attention_override"] = kernel
    assert torch.equal(sampled(model)[0][1], plain)
    count, side, tokens = FRAMES, SIDE * SIDE, 2 * 12 * SIDE
    assert (
        (count, side, side + tokens) in lengths and (count, side, side) in lengths and (2 * count, side, 7) in lengths
    )


@in_comfyui
def test_a_block_whose_attention_another_pack_replaces_keeps_its_lengths() -> None:
    """Perturbed-attention guidance gives the values back as they are; more of them than queries would not fit."""
    model = referenced(as_comfy_model(random_unet_state(0)), network(random_unet_state(1)))
    model.set_model_attn1_replace(lambda q, k, v, options: v, "middle", 0)
    assert sampled(model)[0][1].isfinite().all()


@in_comfyui
def test_motion_modules_never_see_the_references() -> None:
    from comfy.patcher_extension import PatcherInjection

    seen: list[int] = []

    class Frames(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            frames = x.unflatten(0, (-1, FRAMES))
            return (0.5 * frames + 0.5 * frames.mean(1, keepdim=True)).flatten(0, 1)

    model = as_comfy_model(random_unet_state(0))
    layer = Frames()
    block = model.model.diffusion_model.input_blocks[1]

    def inject(_: Any) -> None:
        eject(_)  # a clone of an injected MODEL counts as injected, and ComfyUI then ejects and injects once more
        block.append(layer)

    def eject(_: Any) -> None:
        if block[-1] is layer:
            del block[-1]

    model.set_injections("motion", [PatcherInjection(inject, eject)])
    alone = sampled(model)[0][1]
    patched = referenced(model)
    own = sampled(patched)[0][1]
    assert seen == [2 * FRAMES, 2 * FRAMES] and (alone - own).abs().max() > 0.05
    assert block[-1] is layer  # it is put back before the frames are run
    patched.detach()
    assert len(block) == 2


# --- files -----------------------------------------------------------------------------------------------------------


def layouts(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The same network as each of the files that carry one."""
    from comfyui_flow3d.models.naming import unet_to_diffusers

    names = unet_to_diffusers(state)
    headless = {n: w for n, w in names.items() if not n.startswith(("conv_norm_out.", "conv_out."))}
    bare = {n: w for n, w in state.items() if not n.startswith("out.")}
    other = {n: w + 1 for n, w in state.items()}
    hint = {"appearance_control_model.input_hint_block.0.weight": torch.ones(16, 3, 3, 3)}
    return {
        "X-Portrait": {
            **{f"appearance_control_model.{n}": w for n, w in bare.items()},
            **hint,
            **{f"model.diffusion_model.{n}": w for n, w in other.items()},
            "pose_control_model.zero_convs.0.0.weight": torch.ones(32, 32, 1, 1),
            "first_stage_model.decoder.conv_in.weight": torch.ones(4, 4, 3, 3),
        },
        "MagicPortrait": headless,
        "AnimateAnyone": names,
        "SD1.5": {
            **{f"model.diffusion_model.{n}": w for n, w in state.items()},
            "first_stage_model.decoder.conv_in.weight": torch.ones(4, 4, 3, 3),
            "cond_stage_model.transformer.text_model.final_layer_norm.bias": torch.ones(4),
        },
        "UNet": state,
    }


@pytest.mark.parametrize("layout", ["X-Portrait", "MagicPortrait", "AnimateAnyone", "SD1.5", "UNet"])
@pytest.mark.parametrize("wrapped", [False, True])
@in_comfyui
def test_each_layout_is_read_back(layout: str, wrapped: bool, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from comfyui_flow3d.models.appearance_network import load_appearance

    state = random_unet_state(1)
    written = {n: w.clone() for n, w in layouts(state)[layout].items()}
    file = tmp_path / ("reference.th" if wrapped else "reference.safetensors")
    if wrapped:
        torch.save({"state_dict": written, "global_step": 3}, file)
    else:
        save_file(written, file)
    read = load_appearance(file).network.unet.state_dict()
    wanted = {n: w for n, w in state.items() if not n.startswith("out.")}
    assert read.keys() == wanted.keys()
    assert all(torch.equal(read[n], wanted[n]) for n in wanted)


@in_comfyui
def test_a_loaded_network_writes_what_the_file_says(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from comfyui_flow3d.models.appearance_network import load_appearance

    state, writer = random_unet_state(0), random_unet_state(1)
    save_file({n: w.clone() for n, w in layouts(writer)["X-Portrait"].items()}, tmp_path / "x.safetensors")
    model = as_comfy_model(state)
    a = sampled(referenced(model, load_appearance(tmp_path / "x.safetensors")))[0][1]
    assert torch.equal(a, sampled(referenced(model, network(writer)))[0][1])


REFUSED = {
    "a weight is missing": (
        lambda s: {n: w for n, w in s.items() if n != "mid_block.attentions.0.proj_in.bias"},
        "r.safetensors: .*missing: mid_block.attentions.0.proj_in.bias",
    ),
    "a weight is left over": (
        lambda s: s | {"down_blocks.0.motion_modules.0.x": torch.ones(1)},
        "r.safetensors: .*unknown: down_blocks.0.motion_modules.0.x",
    ),
    "an SDXL UNet": (
        lambda s: s | {"add_embedding.linear_1.weight": torch.ones(1)}, "r.safetensors is an SDXL UNet; this needs X-Portrait's",
    ),
    "a LoRA": (lambda s: {"lora_unet_down_blocks_0.lora_up.weight": torch.ones(1)}, "r.safetensors is a LoRA; this needs"),
    "other sizes": (lambda s: s | {"conv_in.weight": torch.ones(64, 4, 3, 3)}, "r.safetensors: its weights have other sizes"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
@in_comfyui
def test_other_files_are_named(kind: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from comfyui_flow3d.flow3d.errors import InputError
    from comfyui_flow3d.models.appearance_network import load_appearance

    change, says = REFUSED[kind]
    save_file(
        {n: w.clone() for n, w in change(layouts(random_unet_state(1))["MagicPortrait"]).items()},
        tmp_path / "r.safetensors",
    )
    with pytest.raises(InputError, match=says):
        load_appearance(tmp_path / "r.safetensors")


MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "latents": (
        {"latents": randn(2, 1, 16, 8, 8)},
        r"latents have the shape \(1, 16, 8, 8\).*takes \(references, 4, height, width\)",
    ),
    "video latents": ({"latents": randn(2, 1, 4, 2, 8, 8)}, "latents have the shape"),
    "NaN": ({"latents": REFERENCE * float("nan")}, "the reference latents hold NaN"),
    "masks": ({"mask": torch.ones(3, 8, 8)}, "3 masks for 2 references"),
    "mask": ({"mask": torch.full((1, 8, 8), float("inf"))}, "the mask hold NaN"),
}


@pytest.mark.parametrize("kind", MISFITS)
@in_comfyui
def test_what_does_not_fit_is_told(kind: str) -> None:
    from comfyui_flow3d.flow3d.errors import InputError

    settings, says = MISFITS[kind]
    with pytest.raises(InputError, match=says):
        referenced(as_comfy_model(random_unet_state(0)), network(random_unet_state(1)), **settings)
