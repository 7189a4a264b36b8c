"""The flow ControlNet in ComfyUI: against diffusers' ControlNetModel, and in ComfyUI's own sampling.

The fields are real: a head that moves by i millimetres in frame i has a flow of -i mm at each pixel and sample.
"""

import gc
import logging
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy_process import in_comfyui
from small_sd import (
    CHANNELS,
    CONTEXT,
    as_comfy_model,
    as_diffusers_controlnet,
    random_controlnet_state,
    random_unet_state,
)
from torch import Tensor
from toy_heads import still, toy_head

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.flow.field import FlowField
from comfyui_flow3d.flow3d.flow.sampling import Sampling

SIDE = 8  # of the latents
SAMPLES = 4
TEXT = torch.randn(1, 3, CONTEXT, generator=torch.Generator().manual_seed(1))


def shifted(frames: int, side: int = 8 * SIDE, **changes: Any) -> FlowField:
    """A field whose frame i has a flow of (-i mm, 0, 0) everywhere."""
    head, camera = toy_head(4, 6), Camera.from_field_of_view(side, side)
    source = still(head, camera)
    way = torch.zeros(frames, 3)
    way[:, 0] = 0.001 * torch.arange(frames)
    changed = {n: getattr(source, n).expand(frames, *getattr(source, n).shape[1:]) for n in ("expression", "joints", "rotation")}
    target = replace(source, translation=source.translation + way, confidence=None, state=None, **changed)
    return FlowField(source, target, head, camera, **{"sampling": Sampling(samples=SAMPLES), **changes})


def network(state: dict[str, Tensor], format: Any = None) -> Any:
    from comfyui_flow3d.models.flow_controlnet import build_flow_controlnet
    from comfyui_flow3d.models.flow_controlnet_file import FlowControlNetFile

    return build_flow_controlnet(FlowControlNetFile(state, format), "small.safetensors")


def steered(field: FlowField, state: dict[str, Tensor] | None = None, strength: float = 1.0, mask: Tensor | None = None) -> Any:
    from comfyui_flow3d.models.flow_hints import FlowHints

    state = random_controlnet_state(5, 3 * SAMPLES) if state is None else state
    return network(state).steered(FlowHints(field), strength, (0.0, 1.0), mask)


def ready(control: Any) -> tuple[Any, Any]:
    """The control as a sampler leaves it before its first step, and the model it was told of."""
    model = as_comfy_model(random_unet_state(2)).model
    control.pre_run(model, model.model_sampling.percent_to_sigma)
    return control, model


def ask(control: Any, x: Tensor, sigma: Tensor, batched: int = 1, **options: Any) -> Any:
    with torch.no_grad():
        return control.get_control(x, sigma, {"c_crossattn": TEXT.expand(len(x), -1, -1)}, batched, options)


def noise(frames: int, seed: int = 0) -> Tensor:
    return torch.randn(frames, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def sample(
    control: Any, frames: int, handler: Any = None, watch: Callable[[dict], None] | None = None, negative: Any = None, steps: int = 2
) -> Tensor:
    """ComfyUI's own sampling of the small model, with the control on both halves unless `negative` is given."""
    import comfy.sample

    model = as_comfy_model(random_unet_state(2))
    if handler:
        model.model_options["context_handler"] = handler
    if watch:

        def wrapper(apply: Any, arguments: dict) -> Tensor:
            watch(arguments)
            return apply(arguments["input"], arguments["timestep"], **arguments["c"])

        model.set_model_unet_function_wrapper(wrapper)
    text = [[TEXT, {"control": control, "control_apply_to_uncond": False} if control else {}]]
    negative = text if negative is None else negative
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise(frames), steps, 3.0, "euler", "normal", text, negative, torch.zeros(frames, 4, SIDE, SIDE), seed=0
        )


def handler_of(windows: Sequence[Sequence[int]], tell: Callable[[dict, Sequence[int]], None]) -> Any:
    """A context handler that evaluates these windows and keeps the last result of each frame."""
    from comfy.context_windows import ContextHandlerABC

    class Handler(ContextHandlerABC):
        def should_use_context(self, *_: Any) -> bool:
            return True

        def get_resized_cond(self, cond_in: Any, *_: Any) -> Any:
            return cond_in

        def execute(self, calc: Any, model: Any, conds: Any, x: Tensor, timestep: Tensor, model_options: dict) -> list[Tensor]:
            results = [torch.zeros_like(x) for _ in conds]
            for window in windows:
                tell(model_options["transformer_options"], window)
                found = calc(model, conds, x[window], timestep[window], model_options)
                for whole, part in zip(results, found, strict=True):
                    whole[window] = part
            return results

    return Handler()


def tell_comfyui(options: dict, window: Sequence[int]) -> None:
    from comfy.context_windows import IndexListContextWindow

    options["context_window"] = IndexListContextWindow(window, dim=0)


def tell_animatediff(options: dict, window: Sequence[int]) -> None:
    options["ad_params"] = {"sub_idxs": window, "full_length": 6}


# --- the network -----------------------------------------------------------------------------------------------------


@in_comfyui
def test_residuals_are_those_of_diffusers() -> None:
    """12 down residuals and the middle one, of 60 channels, for frames in another order than the field's."""
    field = shifted(4, sampling=Sampling())
    field = replace(field, target=replace(field.target, rotation=torch.linspace(0, 0.5, 12).reshape(4, 3)))
    state = random_controlnet_state(5)
    control, model = ready(steered(field, state))
    sigma = model.model_sampling.sigmas[[600, 600]]
    x = noise(2)
    window = [3, 1]
    got = ask(control, x, sigma, context_window=type("Window", (), {"index_list": window})())
    with torch.no_grad():
        down, middle = as_diffusers_controlnet(state)(
            model.model_sampling.calculate_input(sigma, x), torch.tensor([600, 600]), TEXT.expand(2, -1, -1),
            torch.cat([field.encode([i]) for i in window]), return_dict=False,
        )  # fmt: skip
    assert len(got["output"]) == len(down) == 12
    for ours, theirs in zip([*got["output"], *got["middle"]], [*down, middle], strict=True):
        assert theirs.std() > 0.05
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@in_comfyui
def test_its_own_forward_pass_from_the_hint_on_is_comfyuis() -> None:
    """Bit for bit, so that nothing is left out of the loop that we run in place of ComfyUI's."""
    from comfyui_flow3d.models.flow_network import residuals

    net = network(random_controlnet_state(6, 12)).control_model
    x, t, text, flow = noise(2), torch.tensor([10.0, 700.0]), TEXT.expand(2, -1, -1), torch.randn(2, 12, 64, 64)
    with torch.no_grad():
        theirs = net(x, flow, t, text)
        ours = residuals(net, x, net.input_hint_block(flow, None, None), t, text)
    for a, b in zip([*ours["output"], *ours["middle"]], [*theirs["output"], *theirs["middle"]], strict=True):
        assert torch.equal(a, b)


@in_comfyui
def test_comfyuis_own_loader_reads_the_file(tmp_path: Path) -> None:
    """At SD1.5's full width, which is the only one it knows. Flow ControlNet Apply takes what it loads."""
    import comfy.controlnet
    from safetensors.torch import save_file

    from comfyui_flow3d.models.flow_controlnet import adopted
    from comfyui_flow3d.models.flow_format import FlowFormat
    from comfyui_flow3d.models.naming import controlnet_to_diffusers

    with torch.device("meta"):
        from comfy.cldm.cldm import ControlNet
        from small_sd import small_unet_config

        config = small_unet_config() | {"model_channels": 320, "context_dim": 768, "hint_channels": 60}
        del config["out_channels"]
        shapes = {name: value.shape for name, value in ControlNet(**config).state_dict().items()}
    state = {name: torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}
    state["input_hint_block.0.weight"][:] = 0.25
    path = tmp_path / "flow.safetensors"
    save_file(controlnet_to_diffusers(state), path, FlowFormat().metadata())
    loaded = comfy.controlnet.load_controlnet(str(path))
    assert loaded.control_model.input_hint_block[0].weight.shape == (16, 60, 3, 3)
    assert (loaded.control_model.input_hint_block[0].weight == 0.25).all()
    assert adopted(loaded).channels == 60


# --- frames ----------------------------------------------------------------------------------------------------------


def reading_the_flow() -> dict[str, Tensor]:
    """A network whose first residual is a rising function of the flow's x, whatever the latents are."""
    state = {name: torch.zeros_like(value) for name, value in random_controlnet_state(0, 3 * SAMPLES).items()}
    for i in range(8):
        state[f"input_hint_block.{2 * i}.weight"][0, 0, 1, 1] = -30.0 if i == 0 else 1.0
        state[f"input_hint_block.{2 * i}.bias"][:] = 3.0
    state["zero_convs.0.0.weight"][:, :, 0, 0] = torch.eye(CHANNELS)
    return state


@pytest.mark.parametrize("convention", ["comfyui", "animatediff"])
@in_comfyui
def test_frame_i_of_a_windowed_run_sees_hint_i(convention: str) -> None:
    """Windows that overlap, run backwards over the end and close the loop; both halves in one batch or apart."""
    field, state = shifted(6), reading_the_flow()
    embed = as_diffusers_controlnet(state).controlnet_cond_embedding
    with torch.no_grad():
        expected = torch.cat([embed(field.encode([i])) for i in range(6)])[:, 0, 3, 3]
    assert (expected.diff() > 0.05).all()
    windows, seen = [[0, 1, 2], [2, 3, 4], [4, 5, 0], [5, 4, 3]], []

    def watch(arguments: dict) -> None:
        first = arguments["c"]["control"]["output"][0]
        halves = len(arguments["cond_or_uncond"])
        seen.append(first[:, 0, 3, 3].reshape(halves, -1))

    tell = tell_comfyui if convention == "comfyui" else tell_animatediff
    sample(steered(field, state), 6, handler_of(windows, tell), watch)
    assert len(seen) == 2 * len(windows)
    for window, values in zip(2 * windows, seen, strict=True):
        for half in values:
            torch.testing.assert_close(half, expected[window], atol=1e-5, rtol=1e-5)


@in_comfyui
def test_a_longer_field_is_cut_a_still_one_repeated_a_shorter_one_refused() -> None:
    control, model = ready(steered(shifted(4)))
    sigma = model.model_sampling.sigmas[[500, 500]]
    x = noise(2)
    whole = ask(control, x, sigma, ad_params={"sub_idxs": [0, 3]})["output"][0]
    cut = ask(control, x, sigma)["output"][0]
    torch.testing.assert_close(cut[0], whole[0], atol=1e-6, rtol=1e-5)
    still_one = ready(steered(shifted(4)[[0]]))[0]
    torch.testing.assert_close(ask(still_one, x, sigma)["output"][0][0], whole[0], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(ask(still_one, x, sigma)["output"][0][1], whole[1], atol=1e-4)
    with pytest.raises(InputError, match="have a frame 5, counted from 0, but the field has 4 frames"):
        ask(control, x, sigma, ad_params={"sub_idxs": [2, 5]})
    with pytest.raises(InputError, match="a context window of 3 frames came with 2 latents"):
        ask(control, x, sigma, ad_params={"sub_idxs": [2, 3, 1]})
    with pytest.raises(InputError, match="a picture of 64 x 128 pixels, the field one of 64 x 64: another shape"):
        ask(control, torch.zeros(2, 4, 16, 8), sigma)


@in_comfyui
def test_the_latents_decide_the_size() -> None:
    """A field at half or twice the size is the same view: the flow is computed anew, not resampled."""
    field = shifted(2)
    control, model = ready(steered(field.resize(96, 96)))
    same = ready(steered(field))[0]
    sigma = model.model_sampling.sigmas[[500, 500]]
    for a, b in zip(ask(control, noise(2), sigma)["output"], ask(same, noise(2), sigma)["output"], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@in_comfyui
def test_batches_do_not_matter() -> None:
    """Both halves in one batch, or each alone; all frames at once, or one by one."""
    control, model = ready(steered(shifted(3)))
    x = noise(3)
    sigma = model.model_sampling.sigmas[400].expand(6)
    together = ask(control, torch.cat([x, x + 1]), sigma, batched=2)["output"]
    for half, latents in enumerate((x, x + 1)):
        apart = ask(control, latents, sigma[:3])["output"]
        for frame in range(3):
            alone = ask(control, latents[[frame]], sigma[:1], ad_params={"sub_idxs": [frame]})["output"]
            for all_of_it, part, one in zip(together, apart, alone, strict=True):
                torch.testing.assert_close(all_of_it[3 * half + frame], part[frame], atol=1e-4, rtol=1e-4)
                torch.testing.assert_close(part[frame], one[0], atol=1e-4, rtol=1e-4)


# --- strength, range, mask, chains -----------------------------------------------------------------------------------


@in_comfyui
def test_strength_scales_and_zero_is_nothing() -> None:
    field = shifted(2)
    plain = sample(None, 2)
    assert torch.equal(sample(steered(field, strength=0.0), 2), plain)
    assert not torch.allclose(sample(steered(field), 2), plain, atol=1e-2)
    control, model = ready(steered(field, strength=0.25))
    full = ready(steered(field))[0]
    sigma = model.model_sampling.sigmas[[500, 500]]
    for a, b in zip(ask(control, noise(2), sigma)["output"], ask(full, noise(2), sigma)["output"], strict=True):
        torch.testing.assert_close(a, 0.25 * b)


@in_comfyui
def test_a_fresh_network_changes_nothing(tmp_path: Path) -> None:
    """Started from the sampled UNet itself: bit for bit."""
    from safetensors.torch import save_file

    from comfyui_flow3d.models.flow_controlnet import load_flow_controlnet
    from comfyui_flow3d.models.flow_controlnet_file import init_controlnet
    from comfyui_flow3d.models.flow_format import FlowFormat
    from comfyui_flow3d.models.flow_hints import FlowHints

    save_file(random_unet_state(2), tmp_path / "unet.safetensors")
    init_controlnet(tmp_path / "unet.safetensors", tmp_path / "flow.safetensors", FlowFormat(samples=SAMPLES))
    control = load_flow_controlnet(tmp_path / "flow.safetensors")
    assert control.format == FlowFormat(samples=SAMPLES)
    seen = []

    def watch(arguments: dict) -> None:
        seen.append(len(arguments["c"]["control"]["output"]))

    assert torch.equal(sample(control.steered(FlowHints(shifted(2)), 1.0, (0, 1), None), 2, watch=watch), sample(None, 2))
    assert seen == [12, 12]


@in_comfyui
def test_start_and_end() -> None:
    control, model = ready(steered(shifted(2)))
    sigmas = model.model_sampling.sigmas
    control.timestep_percent_range = (0.2, 0.6)
    control.pre_run(model, model.model_sampling.percent_to_sigma)
    assert [ask(control, noise(2), sigmas[[t, t]]) is not None for t in (900, 700, 500, 300)] == [False, True, True, False]


@in_comfyui
def test_masks() -> None:
    """One for all frames or one each; the right one in a window."""
    field, x = shifted(3), noise(2)
    mask = torch.zeros(3, 64, 64)
    mask[1, :, 32:] = 1.0
    mask[2] = 0.5
    plain, model = ready(steered(field))
    sigma = model.model_sampling.sigmas[[500, 500]]
    window = {"ad_params": {"sub_idxs": [2, 1]}}
    whole = ask(plain, x, sigma, **window)["output"]
    for a, b in zip(ask(ready(steered(field, mask=mask))[0], x, sigma, **window)["output"], whole, strict=True):
        half = b.shape[-1] // 2
        torch.testing.assert_close(a[0], 0.5 * b[0])
        if half:
            assert (a[1, ..., :half] == 0).all()
            torch.testing.assert_close(a[1, ..., half:], b[1, ..., half:])
    one = ask(ready(steered(field, mask=mask[2:]))[0], x, sigma, **window)["output"]
    for a, b in zip(one, whole, strict=True):
        torch.testing.assert_close(a, 0.5 * b)
    with pytest.raises(InputError, match="the mask has 2 frames, the field 3"):
        steered(field, mask=mask[:2])


@in_comfyui
def test_chains_with_other_controlnets() -> None:
    """Behind ComfyUI's own ControlNet for pictures and another of ours: the residuals add up."""
    import comfy.controlnet

    picture_net = network(random_controlnet_state(8, 3)).control_model
    cpu = torch.device("cpu")

    def picture() -> Any:
        control = comfy.controlnet.ControlNet(picture_net, load_device=cpu)
        return control.set_cond_hint(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3)), 0.7)

    field, x = shifted(2), noise(2)
    sigmas = ready(picture())[1].model_sampling.sigmas[[500, 500]]
    other = random_controlnet_state(9, 3 * SAMPLES)
    alone = [ask(ready(c)[0], x, sigmas) for c in (picture(), steered(field), steered(field, other))]
    chained = steered(field, other)
    chained.set_previous_controlnet(steered(field))
    chained.previous_controlnet.set_previous_controlnet(picture())
    assert len(chained.get_models()) == 3
    together = ask(ready(chained)[0], x, sigmas)
    for key in ("output", "middle"):
        for i, found in enumerate(together[key]):
            torch.testing.assert_close(found, sum(a[key][i] for a in alone), atol=1e-5, rtol=1e-4)
    chained.cleanup()
    assert chained.previous_controlnet.previous_controlnet.cond_hint is None
    assert chained.hints.nbytes() == chained.previous_controlnet.hints.nbytes() == 0
    chained.strength = 0.0
    ready(chained)
    both = ask(chained, x, sigmas)["output"]
    torch.testing.assert_close(both[0], alone[0]["output"][0] + alone[1]["output"][0], atol=1e-5, rtol=1e-4)


# --- memory ----------------------------------------------------------------------------------------------------------


@in_comfyui
def test_each_frame_goes_through_the_hint_block_once() -> None:
    control = steered(shifted(4))
    calls: list[int] = []
    control.control_model.input_hint_block.register_forward_hook(lambda _, given, __: calls.append(len(given[0])))
    first = sample(control, 4, handler_of([[0, 1, 2], [1, 2, 3], [3, 0, 1]], tell_comfyui), steps=5)
    assert calls == [1, 1, 1, 1]
    assert torch.equal(sample(control, 4, handler_of([[0, 1, 2], [1, 2, 3], [3, 0, 1]], tell_comfyui), steps=5), first)
    assert calls == 8 * [1]


@pytest.mark.parametrize(("rows", "columns"), [(16, 5), (17, 16), (32, 31), (5, 49), (33, 3), (70, 9)])
@in_comfyui
def test_tiles_of_a_frame_are_the_frame(rows: int, columns: int) -> None:
    """In float64, where the order of sums shows in no digit that counts: not one pixel of a seam."""
    from comfyui_flow3d.models.flow_network import rows_of_flow, write_hint

    net = network(random_controlnet_state(6, 12)).control_model.double()
    flow = torch.randn(1, 12, 8 * rows, 8 * columns, dtype=torch.float64, generator=torch.Generator().manual_seed(rows))
    sizes: list[int] = []
    net.input_hint_block[0].register_forward_pre_hook(lambda _, given: sizes.append(max(given[0].shape[2:])))
    bands: list[tuple[int, int]] = []

    def band(top: int, bottom: int) -> Tensor:
        bands.append((top, bottom))
        return flow[:, :, top:bottom]

    with torch.no_grad():
        whole = net.input_hint_block(flow, None, None)
        hint = torch.full((1, CHANNELS, rows, columns), torch.nan, dtype=torch.float64)
        write_hint(net, band, torch.device("cpu"), torch.float64, hint)
    torch.testing.assert_close(hint, whole, rtol=0, atol=1e-12)
    assert len(sizes) == 1 + -(-rows // 8) * -(-columns // 8) and max(sizes[1:]) <= 8 * 13
    assert len(bands) == -(-rows // 32) and 0 <= min(bands)[0] and max(bands)[1] == 8 * rows
    assert max(bottom - top for top, bottom in bands) <= rows_of_flow(rows) <= 8 * 37


@in_comfyui
def test_the_bands_of_a_picture_are_the_picture() -> None:
    """70 rows of latents, whose flow is encoded in three bands of rows, against that of the whole camera."""
    from comfyui_flow3d.models.flow_hints import FlowHints

    turned = torch.tensor([[0.6, 0.0, 0.0], [-0.6, 0.3, 0.0]])  # so that the flow is another in each row
    field = replace(shifted(2), camera=Camera(1800.0, 30.7, 291.3, 48, 560))
    field = replace(field, target=replace(field.target, rotation=field.target.rotation + turned))
    net = network(random_controlnet_state(5, 3 * SAMPLES)).control_model
    with torch.no_grad():
        got = FlowHints(field).of([1, 0], net, torch.zeros(2, 4, 70, 6), torch.float32)
        whole = net.input_hint_block(field.encode([1, 0]), None, None)
    largest = whole.abs().max()
    assert (got - whole).abs().max() < 2e-5 * largest
    assert (whole[0] - whole[1]).abs().max() > 1e-2 * largest, "the frames differ"
    assert (whole[:, :, 1:] - whole[:, :, :-1]).abs().amax((0, 1, 3)).min() > 5e-4 * largest, "and each row from the next"


@in_comfyui
def test_hints_are_kept_as_the_weights_are() -> None:
    """Where a device knows no float16, ComfyUI computes in float32 with weights in float16: no more is known of the hint."""
    import comfy.ops
    from comfy.cldm.cldm import ControlNet as Network
    from small_sd import small_unet_config

    from comfyui_flow3d.models.flow_hints import FlowHints

    config = {k: v for k, v in small_unet_config().items() if k not in ("out_channels", "transformer_depth_output", "dtype")}
    net = Network(**config, hint_channels=3 * SAMPLES, dtype=torch.float16, operations=comfy.ops.manual_cast)
    net.load_state_dict({n: w.half() for n, w in random_controlnet_state(5, 3 * SAMPLES).items()})
    hints = FlowHints(shifted(3))
    with torch.no_grad():
        got = hints.of([2, 1], net, noise(2), torch.float32).float()
        exact = torch.cat([net.input_hint_block(hints.field.encode([i]), None, None) for i in (2, 1)])
    assert hints.nbytes() == 2 * CHANNELS * SIDE * SIDE * 2
    torch.testing.assert_close(got, exact, rtol=2e-3, atol=2e-3 * float(exact.abs().max()))
    assert not torch.equal(got, exact)


@in_comfyui
def test_240_frames_keep_little() -> None:
    """320 channels at 512 x 512 and float16: 629 MB. Here 32 channels at 64 x 64, and what is kept is exactly that."""
    frames = 240
    control, model = ready(steered(shifted(frames)))
    assert control.hints.nbytes() == 0
    sizes = []
    for start in range(0, frames, 40):
        window = list(range(start, start + 40))
        ask(control, noise(40), model.model_sampling.sigmas[500].expand(40), ad_params={"sub_idxs": window})
        sizes.append(control.hints.nbytes())
    assert sizes == [n * CHANNELS * SIDE * SIDE * 4 for n in range(40, 241, 40)]
    at_512_in_float16 = sizes[-1] * 320 / CHANNELS * (64 / SIDE) ** 2 / 2
    assert at_512_in_float16 == 240 * 320 * 64 * 64 * 2 < 700e6
    assert 240 * 60 * 512 * 512 * 2 > 7.5e9


@in_comfyui
def test_a_run_leaves_nothing_behind() -> None:
    control = steered(shifted(2))
    kept = []

    def watch(arguments: dict) -> None:
        kept.append(weakref.ref(control.hints._kept[1]))

    sample(control, 2, watch=watch)
    gc.collect()
    assert len(kept) == 2 and all(hint() is None for hint in kept)
    assert control.hints.nbytes() == 0 and control.model_sampling_current is None
    assert not control.control_model._forward_hooks and not control.control_model._forward_pre_hooks


@in_comfyui
def test_a_cancelled_run_leaves_nothing_behind() -> None:
    """ComfyUI calls no cleanup then; and a cancel stops between two frames of the first step."""
    import comfy.model_management as management

    control = steered(shifted(3))

    def stop(arguments: dict) -> None:
        assert control.hints.nbytes() > 0
        raise management.InterruptProcessingException

    with pytest.raises(management.InterruptProcessingException):
        sample(control, 3, watch=stop)
    gc.collect()
    assert control.hints.nbytes() == 0
    calls: list[int] = []

    def interrupt(*_: Any) -> None:
        calls.append(1)
        management.interrupt_current_processing()

    control.control_model.input_hint_block.register_forward_hook(interrupt)
    with pytest.raises(management.InterruptProcessingException):
        sample(control, 3)
    gc.collect()
    assert calls == [1] and control.hints.nbytes() == 0


@in_comfyui
def test_copies_share_weights_and_hints() -> None:
    control = steered(shifted(2), mask=torch.ones(1, 8, 8))
    twin = control.copy()
    assert type(twin) is type(control) and twin is not control
    assert twin.control_model is control.control_model and twin.control_model_wrapped is control.control_model_wrapped
    assert twin.hints is control.hints and twin.mask is control.mask and twin.format is control.format
    assert twin.timestep_percent_range == (0.0, 1.0) and twin.strength == 1.0
    twin.strength = 0.5
    assert control.strength == 1.0
    assert control.inference_memory_requirements(torch.float16) == 64 * 64 * (2 * 12 + 32) * 2


@in_comfyui
def test_the_sampler_loads_the_network() -> None:
    """It is told of to ComfyUI's memory management as a model of its own."""
    import comfy.model_management as management

    control = steered(shifted(2))
    loaded: list[bool] = []

    def watch(_: dict) -> None:
        loaded.append(any(m.model is control.control_model_wrapped for m in management.current_loaded_models))

    sample(control, 2, watch=watch)
    assert loaded == [True, True]


# --- the nodes -------------------------------------------------------------------------------------------------------


@in_comfyui
def test_load(tmp_path: Path) -> None:
    import folder_paths
    from safetensors.torch import save_file

    from comfyui_flow3d.models.naming import controlnet_to_diffusers
    from comfyui_flow3d.nodes.flow_controlnet import LoadFlowControlNet

    known = folder_paths.folder_names_and_paths["controlnet"]
    folder_paths.folder_names_and_paths["controlnet"] = ([str(tmp_path)], known[1])
    try:
        state = random_controlnet_state(5)
        save_file(controlnet_to_diffusers(state), tmp_path / "flow.safetensors")
        save_file(random_unet_state(0), tmp_path / "unet.safetensors")
        first = LoadFlowControlNet.fingerprint_inputs("flow.safetensors")
        loaded = LoadFlowControlNet.execute("flow.safetensors").args[0]
        assert loaded.channels == 60 and loaded.name == "flow.safetensors"
        assert all(torch.equal(v, state[k]) for k, v in loaded.control_model.state_dict().items())
        save_file(controlnet_to_diffusers(random_controlnet_state(6)), tmp_path / "flow.safetensors")
        assert LoadFlowControlNet.fingerprint_inputs("flow.safetensors") != first
        with pytest.raises(InputError, match="unet.safetensors is a UNet; this needs a flow ControlNet"):
            LoadFlowControlNet.execute("unet.safetensors")
        with pytest.raises(InputError, match=r"there is no '\.\./flow.safetensors' in .*flow3d init-controlnet"):
            LoadFlowControlNet.execute("../flow.safetensors")
    finally:
        folder_paths.folder_names_and_paths["controlnet"] = known


@in_comfyui
def test_apply() -> None:
    from comfyui_flow3d.nodes.flow_controlnet import FlowControlNetApply

    field, net = shifted(2), network(random_controlnet_state(5, 3 * SAMPLES))
    positive, negative = [[TEXT, {"a": 1}], [TEXT, {}]], [[TEXT, {"control": steered(field)}]]
    kept = [[list(c) for c in half] for half in (positive, negative)]
    same = FlowControlNetApply.execute(positive, negative, net, field, 0.0, 0.0, 1.0).args
    assert same[0] is positive and same[1] is negative
    ours, theirs = FlowControlNetApply.execute(positive, negative, net, field, 0.5, 0.1, 0.9).args
    first, second, other = ours[0][1]["control"], ours[1][1]["control"], theirs[0][1]["control"]
    assert first is second and first is not other and first.hints is other.hints
    assert first.previous_controlnet is None and other.previous_controlnet is negative[0][1]["control"]
    assert first.strength == 0.5 and first.timestep_percent_range == (0.1, 0.9) and ours[0][1]["a"] == 1
    assert [[list(c) for c in half] for half in (positive, negative)] == kept and net.hints is None
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    FlowControlNetApply.execute(positive, negative, net, field, 0.5, 0.1, 0.9)
    assert not any("leaves the depths" in line for line in told)
    narrow = shifted(2, sampling=Sampling(SAMPLES, near=0.1, far=0.2))
    FlowControlNetApply.execute(positive, negative, net, narrow, 0.5, 0.1, 0.9)
    logging.getLogger().removeHandler(handler)
    assert any("in 2 of 2 frames" in line and "leaves the depths from 0.1 to 0.2 m" in line for line in told)
    with pytest.raises(InputError, match="'strength' is nan"):
        FlowControlNetApply.execute(positive, negative, net, field, float("nan"), 0.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sampling": Sampling(samples=5)}, "takes 3D flow with samples 4, but the field has 5. Set 'samples' in 3D Flow Encode"),
        ({"sampling": Sampling(SAMPLES, delta=0.02)}, "with delta 0.01 m, but the field has 0.02 m"),
        ({"sampling": Sampling(SAMPLES, near=0.5)}, "with near 0.65 m, but the field has 0.5 m"),
        ({"sampling": Sampling(SAMPLES, far=2.0)}, "with far 1.25 m, but the field has 2 m"),
        ({"flow_scale": 1.0}, "with flow scale 10, but the field has 1"),
        ({"camera": Camera.from_field_of_view(64, 64, 30.0)}, "with field of view 25 degrees, but the field has 30 degrees"),
    ],
)  # fmt: skip
@in_comfyui
def test_a_field_of_another_encoding_is_refused(changes: dict[str, Any], says: str) -> None:
    from comfyui_flow3d.models.flow_format import FlowFormat
    from comfyui_flow3d.models.flow_hints import FlowHints

    net = network(random_controlnet_state(5, 3 * SAMPLES), FlowFormat(samples=SAMPLES))
    net.steered(FlowHints(shifted(2)), 1.0, (0.0, 1.0), None)
    with pytest.raises(InputError, match=says):
        net.steered(FlowHints(replace(shifted(2), **changes)), 1.0, (0.0, 1.0), None)


@in_comfyui
def test_what_does_not_fit_is_told() -> None:
    import comfy.controlnet

    from comfyui_flow3d.models.flow_controlnet import adopted
    from comfyui_flow3d.models.flow_format import FlowFormat
    from comfyui_flow3d.models.flow_hints import FlowHints

    net = network(random_controlnet_state(5, 3 * SAMPLES))
    with pytest.raises(InputError, match="reads 12 channels, but the field has 15.*Set 'samples' .* to 4"):
        net.steered(FlowHints(shifted(2, sampling=Sampling(5))), 1.0, (0, 1), None)
    older = network(random_controlnet_state(5, 3 * SAMPLES), FlowFormat(samples=SAMPLES, version=1))
    with pytest.raises(InputError, match="with encoding version 1, but the field has 2"):
        older.steered(FlowHints(shifted(2)), 1.0, (0, 1), None)
    with pytest.raises(InputError, match="the field has no frames"):
        net.steered(FlowHints(shifted(2)[[]]), 1.0, (0, 1), None)
    with pytest.raises(InputError, match="small.safetensors reads 3D flow .12 channels., not pictures"):
        net.copy().set_cond_hint(torch.zeros(1, 3, 64, 64), 1.0, (0, 1))
    picture = comfy.controlnet.ControlNet(network(random_controlnet_state(8, 3)).control_model, load_device=torch.device("cpu"))
    with pytest.raises(InputError, match="reads pictures, not 3D flow"):
        adopted(picture)
    with pytest.raises(InputError, match="is no flow ControlNet"):
        adopted(comfy.controlnet.ControlBase())
    control, model = ready(steered(shifted(1)))
    with pytest.raises(InputError, match="whose text has 16 numbers a token; this model's has 2048"):
        control.get_control(noise(1), model.model_sampling.sigmas[[500]], {"c_crossattn": torch.zeros(1, 3, 2048)}, 1, {})
    broken = random_controlnet_state(5, 12) | {"time_embed.0.bias": torch.zeros(3)}
    with pytest.raises(InputError, match="small.safetensors: its weights do not fit together .*time_embed.0.bias"):
        network(broken)
