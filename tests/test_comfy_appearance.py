"""The nodes Load Appearance Network and Appearance Reference, with small networks in ComfyUI's process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy_process import in_comfyui
from small_sd import CONTEXT, as_comfy_model, random_unet_state
from test_appearance import PROMPT, REFERENCE, conditioning, layouts, referenced, sampled

SETTINGS: dict[str, Any] = {
    "strength": 0.8, "start_percent": 0.0, "end_percent": 1.0, "timestep": "zero", "halves": "both",
    "reference": {"samples": REFERENCE}, "prompt": conditioning(PROMPT),
}  # fmt: skip


@contextmanager
def models_folder(folder: Path) -> Iterator[None]:
    """ComfyUI with one folder of appearance networks and no checkpoint."""
    import folder_paths

    before = dict(folder_paths.folder_names_and_paths)
    folder_paths.folder_names_and_paths["flow3d_appearance"] = ([str(folder)], {".safetensors", ".th", ".pth"})
    folder_paths.folder_names_and_paths["checkpoints"] = ([str(folder / "checkpoints")], {".safetensors"})
    try:
        yield
    finally:
        folder_paths.folder_names_and_paths.clear()
        folder_paths.folder_names_and_paths.update(before)


def nodes() -> Any:
    """Our module of nodes. ComfyUI's `nodes.py` puts its comfy/ first on the path, where another `utils` lies."""
    import utils.install_util  # noqa: F401 - as ComfyUI's main.py does

    from comfyui_flow3d.nodes import appearance

    return appearance


def run(node: Any, **inputs: Any) -> Any:
    return node.execute(**inputs).args[0]


@in_comfyui
def test_the_nodes_do_what_the_modules_do(tmp_path: Path) -> None:
    from comfyui_flow3d.models.appearance_network import load_appearance

    AppearanceReference, LoadAppearanceNetwork = nodes().AppearanceReference, nodes().LoadAppearanceNetwork
    torch.save(layouts(random_unet_state(1))["MagicPortrait"], tmp_path / "reference_unet.pth")
    model = as_comfy_model(random_unet_state(0))
    mask = torch.ones(8, 8)
    mask[:4] = 0
    with models_folder(tmp_path):
        loaded = run(LoadAppearanceNetwork, name="reference_unet.pth")
        assert LoadAppearanceNetwork.fingerprint_inputs("reference_unet.pth").startswith(str(tmp_path))
    assert loaded.name == "reference_unet.pth"
    got = sampled(run(AppearanceReference, model=model, appearance=loaded, mask=mask, **SETTINGS))[0][1]
    same = load_appearance(tmp_path / "reference_unet.pth")
    settings = {"strength": 0.8, "policy": "zero", "halves": "both", "mask": mask[None]}
    assert torch.equal(got, sampled(referenced(model, same, **settings))[0][1])
    own = sampled(run(AppearanceReference, model=model, **SETTINGS))[0][1]
    assert torch.equal(own, sampled(referenced(model, strength=0.8, policy="zero", halves="both"))[0][1])


@in_comfyui
def test_lists_and_names(tmp_path: Path) -> None:
    from comfyui_flow3d.flow3d.errors import InputError

    appearance_file = nodes().appearance_file
    (tmp_path / "checkpoints").mkdir()
    for name in ("b.th", "a.safetensors", "notes.txt", "checkpoints/c.safetensors", "checkpoints/a.safetensors"):
        (tmp_path / name).touch()
    with models_folder(tmp_path):
        assert [n for n in nodes().appearance_names() if "/" not in n and "\\" not in n] == [
            "a.safetensors",
            "b.th",
            "c.safetensors",
        ]
        assert appearance_file("a.safetensors") == tmp_path / "a.safetensors"
        assert appearance_file("c.safetensors") == tmp_path / "checkpoints" / "c.safetensors"
        for name in ("../b.th", "notes.txt", ""):
            with pytest.raises(
                InputError, match="Load Appearance Network: there is no .* X-Portrait's model_state-415001.th"
            ):
                appearance_file(name)
        with pytest.raises(InputError, match="Load Appearance Network: a.safetensors is cut short"):
            nodes().LoadAppearanceNetwork.execute("a.safetensors")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "timestep": ({"timestep": "never"}, "Appearance Reference: 'timestep' is 'never'"),
    "halves": ({"halves": "none"}, "Appearance Reference: 'halves' is 'none'"),
    "strength": ({"strength": float("nan")}, "Appearance Reference: 'strength' is nan"),
    "prompt": (
        {"prompt": [[torch.ones(1, 7, CONTEXT + 1), {}]]},
        f"Appearance Reference: the prompt has {CONTEXT + 1} numbers",
    ),
    "reference": (
        {"reference": {"samples": torch.ones(1, 16, 8, 8)}},
        "Appearance Reference: the reference latents have",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
@in_comfyui
def test_bad_values_are_refused(kind: str) -> None:
    from comfyui_flow3d.flow3d.errors import InputError

    change, says = REFUSED[kind]
    with pytest.raises(InputError, match=says):
        nodes().AppearanceReference.execute(**({"model": as_comfy_model(random_unet_state(0))} | SETTINGS | change))


@in_comfyui
def test_every_input_says_what_it_is(tmp_path: Path) -> None:
    for node in (nodes().AppearanceReference, nodes().LoadAppearanceNetwork):
        with models_folder(tmp_path):
            schema = node.define_schema()
        assert all(part.tooltip for part in [*schema.inputs, *schema.outputs])
        assert not {part.id for part in schema.inputs} & {part.display_name for part in schema.outputs}
