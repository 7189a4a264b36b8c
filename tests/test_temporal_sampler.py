"""The Temporal Sampler's work on real small networks: windows that change nothing where frames do not see each other, and
show each frame its own conditioning; schedules as diffusers has them; nothing left behind."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from comfy_process import in_comfyui
from small_sd import CONTEXT, as_comfy_model, as_diffusers, diffusers, random_controlnet_state, random_unet_state
from test_motion import animatediff
from torch import Tensor

from comfyui_flow3d.flow3d.errors import InputError

FRAMES = 9
_CACHE: dict[str, Any] = {}


def model() -> Any:
    if "model" not in _CACHE:
        _CACHE["model"] = as_comfy_model(random_unet_state(1))
    return _CACHE["model"]


def motion(positions: str = "as trained") -> Any:
    """A motion module with random weights, of 24 positions."""
    from comfyui_flow3d.models.motion import motion_module
    from comfyui_flow3d.models.motion_files import _by_place, _same
    from comfyui_flow3d.models.motion_network import MotionConfig, MotionNetwork, layer_name

    if "motion" not in _CACHE:
        from pathlib import Path

        places = _by_place(Path("test"), animatediff(24, middle=True), _same)
        network = MotionNetwork(MotionConfig({p: len(w["norm.weight"]) for p, w in places.items()}, 24))
        network.load_state_dict({f"layers.{layer_name(p)}.{n}": v for p, w in places.items() for n, v in w.items()})
        _CACHE["motion"] = network
    return motion_module("test", _CACHE["motion"], positions)  # type: ignore[arg-type]


def prompt(seed: int, rows: int = 1) -> list:
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(rows, 7, CONTEXT, generator=generator), {}]]


def latents(frames: int = FRAMES, height: int = 8, width: int = 8) -> dict[str, Tensor]:
    return {"samples": torch.zeros(frames, 4, height, width)}


def run(windows: Any, positive: list | None = None, negative: list | None = None, **changes: Any) -> Tensor:
    """`sample_clip` with 2 steps of Euler where nothing else is told: the samples."""
    from comfyui_flow3d.models.clip_sampling import Clip, Steps, sample_clip

    settings = {"seed": 3, "steps": 2, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal"}
    settings |= {name: changes.pop(name) for name in list(changes) if name in settings or name == "denoise"}
    clip = changes.pop("clip", None) or Clip(latents())
    on = changes.pop("on", None) or model()
    conds = positive or prompt(1), negative or prompt(2)
    return sample_clip(on, *conds, clip, Steps(**settings), windows, **changes)[0]


def same(one: Tensor, other: Tensor) -> None:
    """But for the rounding of another batch size."""
    assert (one - other).abs().max() <= 5e-5 * other.abs().max()


def whole() -> Any:
    from comfyui_flow3d.models.windows import Windows

    return Windows(FRAMES, 0)


def vanilla(on: Any, **settings: Any) -> Tensor:
    """ComfyUI's own sampling of the same."""
    import comfy.sample

    zeros = latents()["samples"]
    return comfy.sample.sample(
        on, comfy.sample.prepare_noise(zeros, 3), 2, 2.0, "euler", "normal", prompt(1), prompt(2), zeros,
        seed=3, disable_pbar=True, **settings,
    )  # fmt: skip


# --- windows ---------------------------------------------------------------------------------------------------------


@in_comfyui
def test_frames_within_one_window_are_comfyuis_own_sampling() -> None:
    from comfyui_flow3d.models.motion import with_motion
    from comfyui_flow3d.models.windows import Windows

    long = Windows(16, 4, offset="circular")
    assert torch.equal(run(long), vanilla(model()))
    assert torch.equal(run(long, motion=motion()), vanilla(with_motion(model(), motion())))
    assert (run(long, motion=motion()) - run(long)).abs().max() > 0.1


@in_comfyui
@pytest.mark.parametrize("fusing", ["uniform", "pyramid", "overlap-linear"])
def test_windows_change_nothing_where_frames_do_not_see_each_other(fusing: str) -> None:
    """Without temporal layers each frame is sampled on its own, however the clip is cut."""
    from comfyui_flow3d.models.windows import OFFSETS, Windows

    plain = run(whole())
    cuts = [Windows(4, 1, offset=offset, fusing=fusing) for offset in OFFSETS]  # type: ignore[arg-type]
    for windows in [*cuts, Windows(4, 1, stride=2, closed_loop=True, fusing=fusing)]:  # type: ignore[arg-type]
        cut = run(windows)
        same(cut, plain)


@in_comfyui
@pytest.mark.parametrize("sampler", ["dpm_2", "heun", "dpmpp_2m_sde"])
def test_samplers_that_ask_between_steps(sampler: str) -> None:
    from comfyui_flow3d.models.windows import Windows

    plain = run(whole(), sampler_name=sampler, steps=3)
    cut = run(Windows(4, 1, offset="circular"), sampler_name=sampler, steps=3)
    same(cut, plain)


@in_comfyui
def test_frame_i_sees_conditioning_i() -> None:
    """A prompt, a mask and a noise mask for each frame: as without windows, where ComfyUI gives frame i row i."""
    from comfyui_flow3d.models.clip_sampling import Clip
    from comfyui_flow3d.models.windows import Windows

    positive = prompt(5, FRAMES)
    positive[0][1]["mask"] = (torch.arange(FRAMES) % 3).view(-1, 1, 1).expand(FRAMES, 8, 8) / 2
    positive += prompt(6)
    clip = Clip(latents() | {"samples": torch.ones(FRAMES, 4, 8, 8), "noise_mask": torch.rand(FRAMES, 1, 8, 8)})
    plain = run(whole(), positive, clip=clip)
    cut = run(Windows(4, 1, offset="circular"), positive, clip=clip)
    same(cut, plain)
    turned = [[positive[0][0].roll(1, 0), positive[0][1]], positive[1]]
    assert (run(whole(), turned, clip=clip) - plain).abs().max() > 1e-2, "the frames' prompts are not the same"


def core_control(hints: Tensor, previous: Any = None) -> Any:
    """ComfyUI's ControlNet with the small random network and a hint (F, H, W, 3) for each frame."""
    import comfy.controlnet
    import comfy.ops
    from comfy.cldm.cldm import ControlNet as Network
    from small_sd import small_unet_config

    if "control" not in _CACHE:
        config = {k: v for k, v in small_unet_config().items() if k not in ("out_channels", "transformer_depth_output")}
        network = Network(**config, hint_channels=3, operations=comfy.ops.manual_cast)
        network.load_state_dict(random_controlnet_state(4, 3))
        _CACHE["control"] = network
    control = comfy.controlnet.ControlNet(_CACHE["control"], load_device=torch.device("cpu"))
    control.set_cond_hint(hints.movedim(-1, 1), 1.0, (0.0, 1.0))
    return control.set_previous_controlnet(previous) if previous is not None else control


def numbered_hints() -> Tensor:
    """Pictures whose brightness is their frame's number."""
    return (torch.arange(FRAMES) / FRAMES).view(-1, 1, 1, 1).expand(FRAMES, 64, 64, 3)


@in_comfyui
def test_frame_i_sees_hint_i_of_a_controlnet() -> None:
    """Two of ComfyUI's own in a chain, which give each window the first frames' hints if nobody slices them."""
    from comfyui_flow3d.models.windows import Windows

    hints = numbered_hints()
    control = core_control(hints.flip(0), previous=core_control(hints))
    positive = [[c[0], {"control": control}] for c in prompt(1)]
    plain = run(whole(), positive, steps=1)
    same(run(Windows(4, 1, offset="circular"), positive, steps=1), plain)
    assert len(control.cond_hint_original) == FRAMES and control.cond_hint is None, "the control itself is left alone"
    turned = [[c[0], {"control": core_control(hints.roll(1, 0))}] for c in prompt(1)]
    assert (run(whole(), turned, steps=1) - plain).abs().max() > 1e-3, "the hints matter"


def numbering_control(previous: Any = None) -> Any:
    """A ControlNet of another pack: asks for its window, and pushes each frame by its own number."""
    import comfy.controlnet

    class Numbering(comfy.controlnet.ControlBase):
        def get_control(self, x_noisy: Tensor, t: Tensor, cond: dict, batched_number: int, options: dict) -> dict:
            before = None
            if self.previous_controlnet is not None:
                before = self.previous_controlnet.get_control(x_noisy, t, cond, batched_number, options)
            window = options.get("context_window")
            frames = window.index_list if window is not None else list(range(FRAMES))
            if window is not None:
                assert options["ad_params"] == {
                    "sub_idxs": frames,
                    "full_length": FRAMES,
                    "context_length": len(frames),
                }
            assert len(frames) * batched_number == len(x_noisy)
            push = torch.tensor(frames * batched_number, dtype=x_noisy.dtype).view(-1, 1, 1, 1) / FRAMES
            size = x_noisy.shape[-1] // 8
            return self.control_merge(
                {"input": [], "middle": [push.expand(-1, 128, size, size).clone()], "output": []}, before, None
            )

    control = Numbering()
    return control.set_previous_controlnet(previous) if previous is not None else control


@in_comfyui
def test_frame_i_sees_hint_i_of_a_controlnet_that_slices_itself() -> None:
    """Standing upon one of ComfyUI's, which does not."""
    from comfyui_flow3d.models.windows import Windows

    control = numbering_control(core_control(numbered_hints()))
    positive, negative = ([[c[0], {"control": control}] for c in prompt(n)] for n in (1, 2))
    plain = run(whole(), positive, negative, steps=1)
    same(run(Windows(4, 1, offset="circular"), positive, negative, steps=1), plain)
    assert (plain - run(whole(), steps=1)).abs().max() > 1e-2


def flow_control(strength: float = 1.0) -> Any:
    """A flow ControlNet whose frame i has a flow of -i mm."""
    from test_flow_controlnet import shifted, steered

    return steered(shifted(FRAMES), strength=strength)


@in_comfyui
def test_frame_i_sees_flow_i() -> None:
    from comfyui_flow3d.models.windows import Windows

    control = flow_control()
    positive, negative = ([[c[0], {"control": control}] for c in prompt(n)] for n in (1, 2))
    plain = run(whole(), positive, negative)
    for windows in (Windows(4, 1, offset="circular"), Windows(4, 2, offset="inside"), Windows(4, 1, stride=2, closed_loop=True)):
        same(run(windows, positive, negative), plain)
    still = control.copy()
    still.hints = type(control.hints)(control.hints.field[[0] * FRAMES])
    positive, negative = ([[c[0], {"control": still}] for c in prompt(n)] for n in (1, 2))
    other = run(whole(), positive, negative)
    same(other[:1], plain[:1])
    assert (other - plain).abs().flatten(1).amax(1)[1:].min() > 1e-3, "the flow matters"


@in_comfyui
def test_the_windows_of_temporal_layers_are_calls_of_the_window_alone() -> None:
    """One step in windows with motion is the weighted mean of one step of each window as a clip of its own."""
    import comfy.sample

    from comfyui_flow3d.models.clip_sampling import Clip
    from comfyui_flow3d.models.windows import Windows

    windows = Windows(4, 1, fusing="pyramid", offset="circular")
    cut = run(windows, motion=motion(), steps=1)
    noise = comfy.sample.prepare_noise(latents()["samples"], 3)
    made = windows.at_step(FRAMES, 0, 3)
    expected = torch.zeros_like(cut)
    for window, weight in zip(made, windows.weights(made, FRAMES), strict=True):
        with patch.object(comfy.sample, "prepare_noise", lambda *_, window=window: noise[window]):
            alone = run(Windows(4, 0), motion=motion(), steps=1, clip=Clip(latents(4)))
        expected[window] += alone * weight[window].view(-1, 1, 1, 1)
    same(cut, expected)
    assert (cut - run(whole(), motion=motion(), steps=1)).abs().max() > 1e-2, "windows matter to temporal layers"


@in_comfyui
def test_results_do_not_depend_on_how_batches_are_split() -> None:
    """With no memory to spare ComfyUI computes the two halves of a step one after the other."""
    import comfy.model_management

    from comfyui_flow3d.models.windows import Windows

    calls: list[list[int]] = []

    def free(amount: float) -> Any:
        return lambda device=None, torch_free_too=False: (amount, amount) if torch_free_too else amount

    def counted(apply: Any, arguments: dict) -> Tensor:
        calls.append(arguments["cond_or_uncond"])
        return apply(arguments["input"], arguments["timestep"], **arguments["c"])

    on = model().clone()
    on.set_model_unet_function_wrapper(counted)
    with patch.object(comfy.model_management, "get_free_memory", free(1e12)):
        together = run(Windows(5, 2), motion=motion(), on=on)
    assert {len(call) for call in calls} == {2}
    calls.clear()
    with patch.object(comfy.model_management, "get_free_memory", free(0.0)):
        apart = run(Windows(5, 2), motion=motion(), on=on)
    assert {len(call) for call in calls} == {1}
    same(apart, together)


@in_comfyui
def test_memory_is_sized_by_the_window() -> None:
    import comfy.sampler_helpers

    from comfyui_flow3d.models.windows import Windows

    shapes = []
    estimate = comfy.sampler_helpers.estimate_memory

    def noted(on: Any, noise_shape: Any, conds: Any) -> Any:
        shapes.append(list(noise_shape))
        return estimate(on, noise_shape, conds)

    with patch.object(comfy.sampler_helpers, "estimate_memory", noted):
        run(Windows(5, 2))
    assert shapes == [[5, 4, 8, 8]]


# --- nothing stays ---------------------------------------------------------------------------------------------------


def state_of(on: Any) -> tuple:
    return (
        str(on.model), list(on.injections), list(on.callbacks), list(on.wrappers), list(on.additional_models),
        str(on.model_options), list(on.object_patches),
    )  # fmt: skip


def tensor_bytes() -> int:
    gc.collect()
    return sum(t.numel() * t.element_size() for t in gc.get_objects() if type(t) in (Tensor, torch.nn.Parameter))


@in_comfyui
def test_running_twice_is_the_same_and_leaves_nothing() -> None:
    from comfyui_flow3d.models.noise_schedule import NoiseSchedule
    from comfyui_flow3d.models.windows import Windows

    control = core_control(numbered_hints())
    positive = [[c[0], {"control": control}] for c in prompt(1)]
    settings = {"motion": motion(), "schedule": NoiseSchedule("v_prediction", "linear", True)}
    before = state_of(model())
    first = run(Windows(4, 1, offset="circular"), positive, **settings).clone()
    assert state_of(model()) == before
    held = tensor_bytes()
    second = run(Windows(4, 1, offset="circular"), positive, **settings)
    assert torch.equal(first, second)
    del second
    assert (state_of(model()), tensor_bytes()) == (before, held)
    assert torch.equal(run(whole()), vanilla(model())), "the plain model afterwards"


def all_parts(strength: float) -> tuple[Any, list, list]:
    """The model with an appearance reference of its own, and a prompt of each half with a flow ControlNet."""
    from comfyui_flow3d.models.appearance import with_reference
    from comfyui_flow3d.models.appearance_reference import Reference

    control = flow_control(strength)
    halves = [[[c[0], {"control": control}] for c in prompt(n)] for n in (1, 2)]
    return with_reference(model(), Reference(torch.ones(1, 4, 8, 8), prompt(9)[0][0], strength=strength)), *halves


@in_comfyui
def test_all_parts_together_run_twice_and_leave_nothing() -> None:
    """Flow, appearance and motion in windows. With strength 0 not a bit of flow and appearance remains."""
    from comfyui_flow3d.models.windows import Windows

    windows, before = Windows(4, 1, offset="circular"), state_of(model())
    on, positive, negative = all_parts(1.0)
    first = run(windows, positive, negative, on=on, motion=motion()).clone()
    kept = state_of(on)
    held = tensor_bytes()
    second = run(windows, positive, negative, on=on, motion=motion())
    assert torch.equal(first, second)
    del second
    assert (state_of(on), state_of(model()), tensor_bytes()) == (kept, before, held)
    moved = run(windows, motion=motion())
    assert (first - moved).abs().max() > 1e-2
    on, positive, negative = all_parts(0.0)
    assert torch.equal(run(windows, positive, negative, on=on, motion=motion()), moved)


@in_comfyui
def test_a_cancelled_run_leaves_nothing() -> None:
    import comfy.model_management

    from comfyui_flow3d.models.windows import Windows

    def cancel(step: int, *_: Any) -> None:
        comfy.model_management.interrupt_current_processing(True)

    before = state_of(model())
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(Windows(4, 1), motion=motion(), callback=cancel)
    comfy.model_management.interrupt_current_processing(False)
    assert state_of(model()) == before
    assert torch.equal(run(whole()), vanilla(model()))


@in_comfyui
def test_it_samples_with_an_appearance_reference() -> None:
    """A reference that the sampled UNet itself writes is written without the temporal layers that stand in it then: as by a
    second network of the same weights."""
    from test_appearance import network

    from comfyui_flow3d.models.appearance import with_reference
    from comfyui_flow3d.models.appearance_reference import Reference
    from comfyui_flow3d.models.windows import Windows

    latent, text = torch.ones(1, 4, 8, 8), prompt(9)[0][0]
    other = network(random_unet_state(1))
    own = with_reference(model(), Reference(latent, text))
    apart = with_reference(model(), Reference(latent, text, other.network), other)
    settings = {"windows": Windows(5, 2, offset="inside"), "motion": motion(), "steps": 1}
    result = run(**settings, on=own)
    same(result, run(**settings, on=apart))
    assert (result - run(**settings)).abs().max() > 1e-2


# --- noise and schedule ----------------------------------------------------------------------------------------------


@contextmanager
def seen_inputs(on: Any) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """What a MODEL's network is given: ComfyUI's x, before its scaling, and sigma."""
    seen: list[tuple[Tensor, Tensor]] = []

    def noted(apply: Any, arguments: dict) -> Tensor:
        seen.append((arguments["input"], arguments["timestep"]))
        return apply(arguments["input"], arguments["timestep"], **arguments["c"])

    on.set_model_unet_function_wrapper(noted)
    yield seen


@in_comfyui
def test_initial_noise() -> None:
    from comfyui_flow3d.models.clip_sampling import Clip

    shared = run(whole(), clip=Clip(latents(), "shared"))
    torch.testing.assert_close(shared, shared[:1].expand_as(shared), rtol=0, atol=1e-4)
    independent = run(whole())
    assert (independent[1:] - independent[:1]).abs().flatten(1).amax(1).min() > 0.1


@in_comfyui
def test_noise_from_the_source_is_the_source_under_noise() -> None:
    """The first step sees sqrt(a) source + noise with diffusers' a of the first timestep, as q_sample does at T."""
    import comfy.sample

    from comfyui_flow3d.models.clip_sampling import Clip

    torch.manual_seed(0)
    source = 5 * torch.randn(1, 4, 8, 8)
    on = model().clone()
    with seen_inputs(on) as seen:
        run(whole(), clip=Clip(latents(), "from source", source), on=on, cfg=1.0)
    x, sigma = seen[0]
    given = x / (sigma[0] ** 2 + 1) ** 0.5
    scheduler = diffusers().DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    noise = comfy.sample.prepare_noise(latents()["samples"], 3)
    expected = scheduler.add_noise(0.18215 * source.expand(FRAMES, -1, -1, -1), noise, torch.tensor([999]))
    torch.testing.assert_close(given, expected, rtol=0, atol=0.02)
    assert (given - noise).abs().max() > 0.1


@in_comfyui
@pytest.mark.parametrize("betas, theirs", [("linear", "linear"), ("scaled linear", "scaled_linear")])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_schedules_are_diffusers(betas: str, theirs: str, zero_snr: bool) -> None:
    from comfyui_flow3d.models.noise_schedule import NoiseSchedule

    patched = NoiseSchedule("v_prediction", betas, zero_snr).on(model())  # type: ignore[arg-type]
    sigmas = patched.get_model_object("model_sampling").sigmas.double()
    scheduler = diffusers().DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule=theirs, rescale_betas_zero_snr=zero_snr
    )
    torch.testing.assert_close(1 / (sigmas**2 + 1), scheduler.alphas_cumprod.double(), rtol=0, atol=1e-5)


@in_comfyui
def test_magicportraits_recipe_is_diffusers_ddim() -> None:
    """v-prediction, linear betas, zero terminal SNR, trailing steps ('simple'), DDIM, guidance 3.5: diffusers' loop."""
    import comfy.sample

    from comfyui_flow3d.models.noise_schedule import NoiseSchedule

    ours = run(
        whole(),
        sampler_name="ddim",
        scheduler="simple",
        steps=4,
        cfg=3.5,
        schedule=NoiseSchedule("v_prediction", "linear", True),
    )
    scheduler = diffusers().DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="linear", rescale_betas_zero_snr=True, prediction_type="v_prediction",
        timestep_spacing="trailing", clip_sample=False,
    )  # fmt: skip
    scheduler.set_timesteps(4)
    unet = as_diffusers(random_unet_state(1))
    x = comfy.sample.prepare_noise(latents()["samples"], 3)
    context = [prompt(n)[0][0].expand(FRAMES, -1, -1) for n in (1, 2)]
    with torch.no_grad():
        for t in scheduler.timesteps:
            conditional, unconditional = (unet(x, t, c).sample for c in context)
            x = scheduler.step(unconditional + 3.5 * (conditional - unconditional), t, x).prev_sample
    torch.testing.assert_close(ours * 0.18215, x, rtol=0, atol=5e-3)


@in_comfyui
def test_settings_as_loaded_are_the_model_itself() -> None:
    from comfyui_flow3d.models.noise_schedule import NoiseSchedule

    assert NoiseSchedule().on(model()) is model()


# --- errors ----------------------------------------------------------------------------------------------------------


@in_comfyui
def test_what_does_not_fit_is_told() -> None:
    from comfyui_flow3d.models.clip_sampling import Clip
    from comfyui_flow3d.models.noise_schedule import NoiseSchedule
    from comfyui_flow3d.models.windows import Windows

    with pytest.raises(InputError, match="window of 30 frames is longer than the 24 positions"):
        run(Windows(30, 4), motion=motion(), clip=Clip(latents(30)))
    assert run(Windows(30, 4), motion=motion("stretch"), clip=Clip(latents(30)), steps=1).isfinite().all()
    assert run(Windows(30, 4), motion=motion(), steps=1).isfinite().all(), "the clip is shorter than the window"
    with pytest.raises(InputError, match="no source is connected"):
        run(whole(), clip=Clip(latents(), "from source"))
    with pytest.raises(InputError, match=r"source's latent has the shape \(1, 4, 4, 4\), the clip's \(9, 4, 8, 8\)"):
        run(whole(), clip=Clip(latents(), "from source", torch.zeros(1, 4, 4, 4)))
    with pytest.raises(InputError, match=r"shape \(1, 4, 5, 8, 8\), not \(frames"):
        run(whole(), clip=Clip({"samples": torch.zeros(1, 4, 5, 8, 8)}))
    with pytest.raises(InputError, match="latents hold NaN"):
        run(whole(), clip=Clip({"samples": torch.full((2, 4, 8, 8), torch.nan)}))
    with pytest.raises(InputError, match="Set 'prediction' to 'v_prediction'"):
        run(whole(), schedule=NoiseSchedule(zero_snr=True))
