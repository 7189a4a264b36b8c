"""The names of SD1.5's weights: held against diffusers' own networks and ComfyUI's own map."""

import pytest
from comfy_process import in_comfyui
from small_sd import as_comfy, diffusers, random_unet_state, small_unet_config

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.models import naming


def test_the_maps_are_the_names_of_diffusers_networks() -> None:
    small = {"block_out_channels": (32, 64, 128, 128), "cross_attention_dim": 16}
    assert set(naming.unet_names().values()) == set(diffusers().UNet2DConditionModel(**small).state_dict())
    assert set(naming.controlnet_names().values()) == set(diffusers().ControlNetModel(**small).state_dict())


@in_comfyui
def test_the_maps_are_comfyuis() -> None:
    import comfy.cldm.cldm
    import comfy.utils

    theirs = comfy.utils.unet_to_diffusers(small_unet_config())
    for ldm, name in naming.unet_names().items():
        assert theirs[name] == ldm
    assert set(naming.unet_names()) == set(as_comfy(random_unet_state(0)).state_dict())
    config = {k: v for k, v in small_unet_config().items() if k != "out_channels"}
    ours = set(naming.controlnet_names())
    assert ours == set(comfy.cldm.cldm.ControlNet(**config, hint_channels=60).state_dict())


@pytest.mark.parametrize("kind", ["unet", "controlnet"])
def test_there_and_back(kind: str) -> None:
    there, back = getattr(naming, f"{kind}_to_diffusers"), getattr(naming, f"{kind}_to_ldm")
    state = {name: i for i, name in enumerate(getattr(naming, f"{kind}_names")())}
    assert back(there(state)) == state
    assert naming.in_ldm(state) and not naming.in_ldm(there(state))


def test_what_is_missing_or_left_over_is_told_by_name() -> None:
    state = dict.fromkeys(naming.unet_names(), 0)
    del state["out.2.bias"]
    with pytest.raises(InputError, match="missing: out.2.bias. Take"):
        naming.unet_to_diffusers(state)
    assert "conv_out.bias" not in naming.unet_to_diffusers(state, absent=("out.",))
    with pytest.raises(InputError, match="missing: out.2.bias; unknown: a, b, c and 1 more"):
        naming.unet_to_diffusers(state | dict.fromkeys("abcd", 0))
