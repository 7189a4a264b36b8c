"""Weight files: what is read, what is refused, and what a file of another kind is called."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from comfy_process import in_comfyui
from safetensors.torch import save_file

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.models.naming import controlnet_names, unet_names
from comfyui_flow3d.models.weights import kind_of, read_weights, unexpected

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1.0, 2.0]).half()}


class Code:
    """What a hostile file holds: a call that a full unpickler makes."""

    def __reduce__(self) -> tuple:
        return os.system, ("exit 3",)


def same(found: dict[str, torch.Tensor]) -> bool:
    return list(found) == list(STATE) and all(torch.equal(found[k], STATE[k]) and found[k].dtype == STATE[k].dtype for k in STATE)


def test_safetensors_and_its_metadata(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors", {"format": "pt", "note": "x"})
    weights = read_weights(tmp_path / "a.safetensors")
    assert same(dict(sorted(weights.state.items(), key=lambda kv: list(STATE).index(kv[0]))))
    assert weights.metadata == {"format": "pt", "note": "x"}


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3, "optimizer": {"lr": 1.0}},
        {"net": STATE},
        STATE | {"step": 7},
        {k: torch.nn.Parameter(v) for k, v in STATE.items()},
    ],
)  # fmt: skip
@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_files(tmp_path: Path, content: dict, zipped: bool) -> None:
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    weights = read_weights(tmp_path / "a.pth")
    assert same(weights.state) and weights.metadata == {} and not any(v.requires_grad for v in weights.state.values())


@in_comfyui
def test_it_reads_what_comfyui_reads(tmp_path: Path) -> None:
    import comfy.utils

    torch.save({"state_dict": STATE, "step": 1}, tmp_path / "a.ckpt")
    assert same(read_weights(tmp_path / "a.ckpt").state)
    assert same(comfy.utils.load_torch_file(str(tmp_path / "a.ckpt"), safe_load=True))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_never_run(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "bad.pth"
    torch.save({"a": torch.zeros(2), "b": Code()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"bad.pth holds program code \(\w+\.system\), which is never run. Get .* as a .safetensors"):
        read_weights(path)
    path.write_bytes(pickle.dumps(Code()))
    with pytest.raises(InputError, match="bad.pth holds"):
        read_weights(path)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no.pth: no such file"):
        read_weights(tmp_path / "no.pth")
    save_file({"a": torch.zeros(1000)}, tmp_path / "a.safetensors")
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.pth")
    torch.save({"a": torch.zeros(1000)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "a.pth", "old.pth"):
        data = (tmp_path / name).read_bytes()
        for length in (0, 5, 100, len(data) // 2, len(data) - 1):
            (tmp_path / name).write_bytes(data[:length])
            with pytest.raises(InputError, match=rf"{name} (is cut short|holds)"):
                read_weights(tmp_path / name)
    for nothing in ({}, [1, 2], torch.zeros(3), {"step": 3}):
        torch.save(nothing, tmp_path / "none.pth")
        with pytest.raises(InputError, match="none.pth holds no weights"):
            read_weights(tmp_path / "none.pth")


LDM, DIFFUSERS = list(unet_names()), list(unet_names().values())
MOTION = "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ([f"model.diffusion_model.{n}" for n in LDM] + ["cond_stage_model.transformer.x", "first_stage_model.y"], "an SD1.5 checkpoint"),
        ([f"model.diffusion_model.{n}" for n in LDM] + ["cond_stage_model.model.ln_final.weight"], "an SD2 checkpoint"),
        ([f"model.diffusion_model.{n}" for n in LDM] + ["conditioner.embedders.0.x"], "an SDXL checkpoint"),
        (LDM, "a UNet"),
        (DIFFUSERS, "a UNet"),
        ([n for n in LDM if not n.startswith("out.")], "a reference UNet"),
        ([n for n in DIFFUSERS if not n.startswith(("conv_norm_out", "conv_out"))], "a reference UNet"),
        ([*DIFFUSERS, "add_embedding.linear_1.weight"], "an SDXL UNet"),
        ([*DIFFUSERS, MOTION], "an SD1.5 UNet with motion modules"),
        ([MOTION], "an AnimateDiff motion module"),
        (["module." + MOTION], "an AnimateDiff motion module"),
        ([MOTION.replace("norm.weight", "transformer_blocks.0.attention_blocks.0.processor.to_q_lora.down.weight")], "a LoRA for AnimateDiff's motion"),
        (["lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight"], "a LoRA"),
        (["unet.down_blocks.0.attentions.0.attn1.to_q.lora_A.weight"], "a LoRA"),
        (list(controlnet_names()), "a ControlNet"),
        ([f"control_model.{n}" for n in controlnet_names()], "a ControlNet"),
        (list(controlnet_names().values()), "a ControlNet"),
        ([*controlnet_names().values(), "add_embedding.linear_1.weight"], "an SDXL ControlNet"),
        (["lora_controlnet", "zero_convs.0.0.weight"], "a Control-LoRA"),
        (["appearance_control_model.input_blocks.0.0.weight", "pose_control_model.zero_convs.0.0.weight"], "X-Portrait's checkpoint"),
        (["conv_in.weight", "blocks.0.weight", "attentions.5.norm.weight", "conv_out.weight"], "a guidance encoder of MagicPortrait"),
        (["conv_in.weight", "blocks.0.weight", "attentions.0.norm.weight", "conv_out.weight"], "a guidance encoder of another project than MagicPortrait"),
        (["encoder.conv_in.weight", "decoder.conv_in.weight"], "a VAE"),
        (["text_model.encoder.layers.0.x"], "a text encoder"),
        (["joint_blocks.0.x"], "an SD3 checkpoint"),
        (["double_blocks.0.img_attn.qkv.weight"], "a Flux checkpoint"),
        (["ip_adapter.1.to_k_ip.weight"], "an IP-Adapter"),
        (["foo.bar"], "a file of unknown weights (such as foo.bar)"),
    ],
)  # fmt: skip
def test_kinds(names: list[str], kind: str) -> None:
    assert kind_of(names) == kind
    assert kind_of({n: 0 for n in reversed(names)}) == kind


def test_the_kinds_of_our_own_files(tmp_path: Path) -> None:
    from toy_heads import still, toy_head

    from comfyui_flow3d.flow3d.camera import Camera
    from comfyui_flow3d.flow3d.io.tracks import save_track

    head = toy_head()
    save_track(still(head, Camera.from_field_of_view(64, 64)), tmp_path / "t.safetensors")
    assert kind_of(read_weights(tmp_path / "t.safetensors").state) == "a head track of Flow3D"
    file = Path(__file__).resolve().parents[1] / "flow3d" / "head"
    assert kind_of(read_weights(next(file.glob("open_head*.safetensors"))).state) == "a head model"


def test_the_error_for_another_kind() -> None:
    error = unexpected(Path("folder/x.safetensors"), "a LoRA", "a flow ControlNet")
    assert str(error) == "x.safetensors is a LoRA; this needs a flow ControlNet. Choose another file."
