"""3D Flow Encode and 3D Flow Visualize on a real ComfyUI server."""

import re
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
    assert "moon" in server.failure(prompt)


def test_large_batches_say_what_they_take(server: "Server") -> None:
    """A batch of a gigabyte is announced at its node; one that no machine holds is refused before memory is asked for."""
    prompt = clip()
    prompt["short"]["inputs"].update(start=0, frames=60)
    prompt["grey"] = {"class_type": "EmptyImage", "inputs": {"width": 512, "height": 512, "batch_size": 60, "color": 8421504}}
    place = {"size": 1024, "box": "one box", "room": 1.0, "smoothing": 0.0, "min_confidence": 0.3}
    prompt["crop"] = node("PortraitCrop", image=["grey", 0], track=["short", 0], head=["head", 0], **place)
    prompt["shown"] = {"class_type": "PreviewAny", "inputs": {"source": ["crop", 2]}}
    run = server.run(prompt)
    assert run.error is None
    expected = f"60 frames of 1024 x 1024 pixels take {60 * 1024**2 * 16 / 1e9:.1f} GB of memory"
    assert any(text.startswith(expected) for text in run.texts)

    render = {"depth": "linear", "depth_range": "frame", "normals": "opengl", "track": ["short", 0], "head": ["head", 0]}
    prompt["render"] = node("RenderHead", size=4096, **render)
    prompt["shown"]["inputs"]["source"] = ["render", 3]
    prompt["short"]["inputs"].update(speed=0.5, fps=1000.0)
    refused = server.run(prompt).error or ""
    told = re.match(r"Render Head: (\d+) frames of 4096 x 4096 pixels take ([\d.]+) GB of memory, and [\d.]+ GB are free\. Take", refused)
    assert told, refused
    assert float(told[2]) == round(int(told[1]) * 4096**2 * 40 / 1e9, 1) > 1000
