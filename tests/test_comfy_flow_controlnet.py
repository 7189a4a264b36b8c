"""Load Flow ControlNet on a real ComfyUI server: what it lists, reads and refuses."""

from typing import TYPE_CHECKING

from safetensors.torch import save_file
from small_sd import random_controlnet_state, random_unet_state

from comfyui_flow3d.models.flow_format import FlowFormat
from comfyui_flow3d.models.naming import controlnet_to_diffusers

if TYPE_CHECKING:
    from .comfy_server import Server


def load(name: str) -> dict:
    return {
        "net": {"class_type": "Flow3DLoadFlowControlNet", "inputs": {"name": name}},
        "look": {"class_type": "PreviewAny", "inputs": {"source": ["net", 0]}},
    }


def test_a_file_in_comfyuis_own_folder(server: "Server") -> None:
    folder = server.base / "models" / "controlnet"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(controlnet_to_diffusers(random_controlnet_state(5)), folder / "flow.safetensors", FlowFormat().metadata())
    save_file(random_unet_state(5), folder / "unet.safetensors")
    info = server.get("/object_info/Flow3DLoadFlowControlNet")["Flow3DLoadFlowControlNet"]
    assert {"flow.safetensors", "unet.safetensors"} <= set(info["input"]["required"]["name"][1]["options"])
    assert info["output"] == ["CONTROL_NET"]
    apply = server.get("/object_info/Flow3DFlowControlNetApply")["Flow3DFlowControlNetApply"]
    assert apply["output"] == ["CONDITIONING", "CONDITIONING"] and list(apply["input"]["optional"]) == ["mask"]
    run = server.run(load("flow.safetensors"))
    assert run.error is None and "FlowControlNet object" in server.outputs(run)["look"]["text"][0]
    error = server.run(load("unet.safetensors")).error
    assert error is not None and error.endswith("unet.safetensors is a UNet; this needs a flow ControlNet. Choose another file.")
