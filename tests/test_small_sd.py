"""The small networks are the same ones in diffusers' classes and in ComfyUI's."""

import torch
from comfy_process import in_comfyui
from small_sd import CONTEXT, as_comfy, as_comfy_model, as_diffusers, random_unet_state


@in_comfyui
def test_both_libraries_give_the_same_noise() -> None:
    state = random_unet_state(3)
    x, t, text = torch.randn(2, 4, 16, 16), torch.tensor([7, 801]), torch.randn(2, 5, CONTEXT)
    with torch.no_grad():
        theirs = as_diffusers(state)(x, t, text).sample
        ours = as_comfy(state)(x, t, text)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@in_comfyui
def test_a_model_for_the_samplers() -> None:
    """eps-prediction: what is left of x when the noise found at that sigma is taken off."""
    state = random_unet_state(3)
    model = as_comfy_model(state).model
    x, text = torch.randn(2, 4, 16, 16), torch.randn(2, 5, CONTEXT)
    sigma = model.model_sampling.sigmas[[300, 300]]
    with torch.no_grad():
        noise = as_diffusers(state)(x / (sigma**2 + 1)[:, None, None, None] ** 0.5, torch.tensor([300, 300]), text).sample
        found = model.apply_model(x, sigma, c_crossattn=text)
    torch.testing.assert_close(found, x - noise * sigma[:, None, None, None], atol=1e-4, rtol=1e-4)
