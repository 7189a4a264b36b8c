"""3D Flow Encode and 3D Flow Visualize on a real ComfyUI server."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from .comfy_server import Run, Server

VISUALIZE = {"field": ["field", 0], "view": "sheet", "window": "head", "size": 128, "scale": 0.0, "frames": 2}
ENCODE = {"size": 200, "samples": 5, "delta": 0.01, "near": 0.65, "far": 1.25, "preview_frames": 2}


def node(kind: str, **inputs: object) -> dict:
    return {"class_type": f"Flow3D{kind}", "inputs": inputs}


def clip(**encode: object) -> dict:
    """The flow of a few frames of a bundled motion, 200 pixels a side: no multiple of 64."""
    plain = {"speed": 1.0, "fps": 0.0, "direction": "forward", "loop_frames": 0}
    return {
        "motion": node("LoadHeadTrack", track="motion: turn"),
        "short": node("FLAMETime", track=["motion", 0], start=20, frames=6, **plain),
        "first": node("FLAMETime", track=["motion", 0], start=0, frames=1, **plain),
        "head": node("LoadHeadModel", name="open head"),
        "field": node("FlowEncode", head=["head", 0], source=["first", 0], target=["short", 0], **{**ENCODE, **encode}),
    }


def pictures(server: "Server", run: "Run", name: str) -> np.ndarray:
    assert run.error is None
    shown = server.outputs(run)[name]["images"]
    return np.stack([np.array(Image.open(server.base / "output" / s["subfolder"] / s["filename"])) for s in shown])


def test_pictures_and_figures_of_a_clip(server: "Server") -> None:
    prompt = clip()
    for view in ("sheet", "direction"):
        prompt[view] = node("FlowVisualize", **{**VISUALIZE, "view": view, "scale": 40.0})
        prompt[f"save {view}"] = {"class_type": "SaveImage", "inputs": {"images": [view, 0], "filename_prefix": view}}
    prompt["save preview"] = {"class_type": "SaveImage", "inputs": {"images": ["field", 1], "filename_prefix": "flow"}}
    prompt["mask"] = {"class_type": "MaskToImage", "inputs": {"mask": ["field", 2]}}
    prompt["save mask"] = {"class_type": "SaveImage", "inputs": {"images": ["mask", 0], "filename_prefix": "mask"}}
    run = server.run(prompt)
    sheet, direction = (pictures(server, run, f"save {view}") for view in ("sheet", "direction"))
    assert len(sheet) == len(direction) == 2 and direction.shape[1:3] == (128, 128)
    assert sheet.shape[1] > 256 and sheet.shape[2] > 384 and direction.std() > 10
    text = server.outputs(run)["sheet"]["text"][0]
    assert text.startswith("6 frames, 200 x 200 pixels, 5 samples a ray") and "mm (median)" in text
    preview, mask = (pictures(server, run, f"save {name}") for name in ("preview", "mask"))
    assert preview.shape == (2, 200, 200, 3) and mask.shape[0] == 2 and 0.02 < (mask > 127).mean() < 0.8


def test_what_makes_no_flow_is_refused_in_words(server: "Server") -> None:
    near = server.run(clip(near=1.5) | {"look": node("FlowVisualize", **VISUALIZE)}).error
    assert near is not None and "they must satisfy 0 < near < far" in near
    prompt = clip() | {"look": node("FlowVisualize", **{**VISUALIZE, "view": "moon"})}
    answer = server.run(prompt).error
    assert answer is not None and "moon" in answer
