"""Files of flow ControlNets: each naming written and read back, fresh ones, metadata, and files of other kinds."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_sd import as_diffusers, as_diffusers_controlnet, diffusers, random_controlnet_state, random_unet_state

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.models.flow_controlnet_file import init_controlnet, read_flow_controlnet
from comfyui_flow3d.models.flow_format import FlowFormat
from comfyui_flow3d.models.naming import controlnet_to_diffusers, controlnet_to_ldm, unet_to_diffusers

State = dict[str, torch.Tensor]


def equal(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("naming", ["ldm", "control_model", "diffusers", "pth"])
def test_every_naming_is_read_back(tmp_path: Path, naming: str) -> None:
    """Nothing missing, nothing left over."""
    state = random_controlnet_state(1)
    path = tmp_path / ("f.pth" if naming == "pth" else "f.safetensors")
    written = {
        "ldm": state,
        "control_model": {f"control_model.{k}": v for k, v in state.items()},
        "diffusers": controlnet_to_diffusers(state),
        "pth": {"state_dict": state},
    }[naming]
    torch.save(written, path) if naming == "pth" else save_file(written, path)
    file = read_flow_controlnet(path)
    assert equal(file.state, state) and file.format is None and file.channels == 60


def test_diffusers_itself_reads_and_writes_the_file(tmp_path: Path) -> None:
    model = as_diffusers_controlnet(random_controlnet_state(1))
    model.save_pretrained(tmp_path)
    assert equal(read_flow_controlnet(tmp_path / "diffusion_pytorch_model.safetensors").state, random_controlnet_state(1))
    save_file(random_unet_state(0), tmp_path / "unet.safetensors")
    init_controlnet(tmp_path / "unet.safetensors", tmp_path / "diffusion_pytorch_model.safetensors")
    again = type(model).from_pretrained(tmp_path)
    assert again.conv_in.weight.equal(random_unet_state(0)["input_blocks.0.0.weight"])


@pytest.mark.parametrize("naming", ["checkpoint", "ldm", "diffusers", "ckpt"])
def test_fresh_from_a_unet(tmp_path: Path, naming: str) -> None:
    """As diffusers starts one from a UNet: the downward half copied, zero convolutions, a hint that ends in zero."""
    unet = random_unet_state(0)
    whole = {f"model.diffusion_model.{k}": v for k, v in unet.items()} | {"cond_stage_model.transformer.x": torch.zeros(1)}
    source = tmp_path / ("s.ckpt" if naming == "ckpt" else "s.safetensors")
    written = {"checkpoint": whole, "ldm": unet, "diffusers": unet_to_diffusers(unet), "ckpt": {"state_dict": whole}}[naming]
    torch.save(written, source) if naming == "ckpt" else save_file(written, source)
    init_controlnet(source, tmp_path / "f.safetensors", FlowFormat(samples=7, delta=0.02), seed=4)
    theirs = diffusers().ControlNetModel.from_unet(as_diffusers(unet), conditioning_channels=21).state_dict()
    ours = load_file(tmp_path / "f.safetensors")
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    for name, value in ours.items():
        if not name.startswith("controlnet_cond_embedding.") or "conv_out" in name:
            assert torch.equal(value, theirs[name]), name
        else:  # torch's own start: uniform, as wide as the convolution's fan-in says
            bound = ours[name.rsplit(".", 1)[0] + ".weight"][0].numel() ** -0.5
            assert value.abs().max() <= bound, name
            assert float(value.std()) == pytest.approx(bound / 3**0.5, rel=5 * (0.2 / value.numel()) ** 0.5), name
            assert not torch.equal(value, theirs[name])
    file = read_flow_controlnet(tmp_path / "f.safetensors")
    assert file.format == FlowFormat(samples=7, delta=0.02) and file.channels == 21
    again = tmp_path / "g.safetensors"
    init_controlnet(source, again, FlowFormat(samples=7, delta=0.02), seed=4)
    assert equal(load_file(again), ours)


@pytest.mark.parametrize("x_portrait", [False, True])
def test_fresh_from_a_controlnet_for_pictures(tmp_path: Path, x_portrait: bool) -> None:
    """Only the hint's convolutions are new."""
    state = {k: v.half() for k, v in random_controlnet_state(3, hint_channels=3).items()}
    if x_portrait:
        whole: Any = {f"pose_control_model.{k}": v for k, v in state.items()}
        whole |= {"appearance_control_model.input_blocks.0.0.weight": torch.zeros(1)}
        torch.save({"state_dict": whole}, source := tmp_path / "model_state.th")
    else:
        save_file(state, source := tmp_path / "depth.safetensors")
    init_controlnet(source, tmp_path / "f.safetensors")
    made = controlnet_to_ldm(load_file(tmp_path / "f.safetensors"))
    for name, value in made.items():
        assert value.dtype == torch.float16
        if name.startswith("input_hint_block."):
            assert not torch.equal(value, state[name]) if value.shape == state[name].shape else name.endswith("0.weight")
        else:
            assert torch.equal(value, state[name])
    assert made["input_hint_block.0.weight"].shape == (16, 60, 3, 3)
    assert not made["input_hint_block.14.weight"].any() and not made["input_hint_block.14.bias"].any()


def test_the_random_state_of_others_is_left_alone(tmp_path: Path) -> None:
    save_file(random_unet_state(0), tmp_path / "u.safetensors")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    init_controlnet(tmp_path / "u.safetensors", tmp_path / "f.safetensors")
    assert torch.equal(torch.rand(3), expected)


def test_the_metadata_tells_all_of_the_encoding(tmp_path: Path) -> None:
    save_file(random_unet_state(0), tmp_path / "u.safetensors")
    init_controlnet(tmp_path / "u.safetensors", tmp_path / "f.safetensors")
    with safe_open(tmp_path / "f.safetensors", "pt") as file:
        told = json.loads(file.metadata()["flow3d"])
    assert told == {
        "kind": "flow ControlNet", "samples": 20, "delta": 0.01, "near": 0.65, "far": 1.25, "flow_scale": 10.0,
        "field_of_view": 25.0, "version": 2,
    }  # fmt: skip


def test_the_format_of_a_field() -> None:
    from toy_heads import still, toy_head

    from comfyui_flow3d.flow3d.flow.field import FlowField
    from comfyui_flow3d.flow3d.flow.sampling import Sampling

    head, camera = toy_head(), Camera.from_field_of_view(96, 64, 31.0)
    track = still(head, camera)
    field = FlowField(track, track, head, camera.resized(333, 222), Sampling(5, 0.02, 0.5, 2.0), 3.0)
    found = FlowFormat.of(field)
    assert found.field_of_view == pytest.approx(31.0)
    assert found == FlowFormat(5, 0.02, 0.5, 2.0, 3.0, found.field_of_view)
    found.check(field, "x")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"samples": None}, "cannot be read .None is not a number"),
        ({"samples": 20.5}, "20.5 is not a number"),
        ({"samples": True}, "True is not a number"),
        ({"far": float("nan")}, "far nan m"),
        ({"delta": "thick"}, "'thick' is not a number"),
        ({"field_of_view": 0}, "field of view is 0 degrees"),
        ({"samples": 19}, "reads? 60 channels, but its metadata tells of 19 samples, which make 57"),
        ({"delta": ...}, "cannot be read .'delta'"),
    ],
)  # fmt: skip
def test_metadata_that_makes_no_sense(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    told = json.loads(FlowFormat().metadata()["flow3d"]) | changes
    told = {k: v for k, v in told.items() if v is not ...}
    save_file(random_controlnet_state(1), tmp_path / "f.safetensors", {"flow3d": json.dumps(told)})
    with pytest.raises(InputError, match=f"f.safetensors: .*{says}"):
        read_flow_controlnet(tmp_path / "f.safetensors")



def without(state: State, *names: str) -> State:
    return {k: v for k, v in state.items() if k not in names}


CONTROL, UNET = random_controlnet_state(1), random_unet_state(0)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (UNET, "is a UNet; this needs a flow ControlNet"),
        ({"lora_unet_x.lora_up.weight": torch.zeros(1)}, "is a LoRA; this needs a flow ControlNet"),
        (random_controlnet_state(1, 3), "is a ControlNet that reads pictures .3 channels.; this needs a flow ControlNet .60"),
        (without(CONTROL, "time_embed.0.bias"), "f.safetensors: .*missing: time_embed.0.bias. "),
        (CONTROL | {"more": torch.zeros(1)}, "unknown: more"),
        (CONTROL | {"time_embed.0.bias": torch.full((128,), torch.nan)}, "'time_embed.0.bias' holds a NaN or infinity"),
        (CONTROL | {"difference": torch.zeros(1)}, "saved as its difference from a checkpoint"),
        ({k: v[..., 0, 0] if "proj_in.weight" in k else v for k, v in CONTROL.items()}, "is made for Stable Diffusion 2"),
        ({f"pose_control_model.{k}": v for k, v in CONTROL.items()} | {"appearance_control_model.x": torch.zeros(1)}, "is X-Portrait's checkpoint"),
    ],
)  # fmt: skip
def test_files_of_other_kinds_are_not_read(tmp_path: Path, state: State, says: str) -> None:
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "f.safetensors")
    with pytest.raises(InputError, match=says):
        read_flow_controlnet(tmp_path / "f.safetensors")


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"lora_unet_x.lora_up.weight": torch.zeros(1)}, "is a LoRA; this needs a checkpoint of Stable Diffusion 1.5, its UNet"),
        (without(UNET, "input_blocks.0.0.bias"), "missing: input_blocks.0.0.bias"),
        (UNET | {"input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)}, "is made for inpainting .9 input channels."),
        ({k: v[..., 0, 0] if "proj_in.weight" in k else v for k, v in UNET.items()}, "is made for Stable Diffusion 2"),
    ],
)  # fmt: skip
def test_files_of_other_kinds_start_nothing(tmp_path: Path, state: State, says: str) -> None:
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "s.safetensors")
    with pytest.raises(InputError, match=says):
        init_controlnet(tmp_path / "s.safetensors", tmp_path / "f.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["s.safetensors"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write '.ckpt' here. Use .safetensors"):
        init_controlnet(tmp_path / "s.safetensors", tmp_path / "f.ckpt")
    with pytest.raises(InputError, match="s.safetensors: no such file"):
        init_controlnet(tmp_path / "s.safetensors", tmp_path / "f.safetensors")
    assert not list(tmp_path.iterdir())
