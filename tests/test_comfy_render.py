"""Render Head and Flow To Tracks on a real ComfyUI server."""

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from comfyui_flow3d.flow3d.head.model import HeadModel
from comfyui_flow3d.flow3d.io.motions import load_motion
from comfyui_flow3d.flow3d.render.rasterize import rasterize

if TYPE_CHECKING:
    from .comfy_server import Run, Server

RENDER = {"track": ["short", 0], "size": 128, "depth": "inverse", "depth_range": "clip", "normals": "controlnet"}
TRACKS = {
    "field": ["field", 0], "points": "grid", "spacing": 16, "background_spacing": 0, "width": 256, "height": 256,
    "length": 0, "start": "portrait",
}  # fmt: skip
FRAMES = 6


def node(kind: str, **inputs: object) -> dict:
    return {"class_type": f"Flow3D{kind}", "inputs": inputs}


def clip() -> dict:
    """The first frames of a bundled motion."""
    plain = {"speed": 1.0, "fps": 0.0, "direction": "forward", "loop_frames": 0}
    return {
        "motion": node("LoadHeadTrack", track="motion: turn"),
        "short": node("FLAMETime", track=["motion", 0], start=20, frames=FRAMES, **plain),
        "first": node("FLAMETime", track=["motion", 0], start=20, frames=1, **plain),
        "head": node("LoadHeadModel", name="open head"),
        "field": node(
            "FlowEncode", head=["head", 0], source=["first", 0], target=["short", 0], size=256, samples=4, delta=0.01,
            near=0.65, far=1.25, preview_frames=1,
        ),
    }  # fmt: skip


def pictures(server: "Server", run: "Run", name: str) -> np.ndarray:
    assert run.error is None
    shown = server.outputs(run)[name]["images"]
    return np.stack([np.array(Image.open(server.base / "output" / s["subfolder"] / s["filename"])) for s in shown])


def test_the_pictures_of_a_clip(server: "Server", open_head: HeadModel) -> None:
    prompt = clip() | {"render": node("RenderHead", **RENDER)}
    prompt["mask"] = {"class_type": "MaskToImage", "inputs": {"mask": ["render", 3]}}
    for i, name in enumerate(("depth", "normal", "shaded", "mask")):
        images = ["mask", 0] if name == "mask" else ["render", i]
        prompt[f"save {name}"] = {"class_type": "SaveImage", "inputs": {"images": images, "filename_prefix": name}}
    run = server.run(prompt)
    got = {name: pictures(server, run, f"save {name}").astype(int) for name in ("depth", "normal", "shaded", "mask")}
    assert all(p.shape == (FRAMES, 128, 128, 3) for p in got.values())

    track = load_motion("turn", open_head)[20 : 20 + FRAMES]
    seen = rasterize(track.vertices(open_head), open_head.faces, track.camera.resized(128, 128))
    on = (seen.triangle >= 0).numpy()
    assert 0.1 < on.mean() < 0.7
    mask = got["mask"][..., 0]
    assert ((mask > 127) == on).mean() > 0.995 and ((mask > 0) & (mask < 255)).any()
    depth = got["depth"]
    assert (depth[~on] == 0).all() and (depth[..., 0] == depth[..., 2]).all()
    z, nearer = seen.depth.numpy()[on], depth[..., 0][on]
    assert np.corrcoef(1 / z, nearer)[0, 1] > 0.9999 and depth.max() > 245
    normal = got["normal"]
    assert (np.abs(normal[~on] - [127, 127, 255]) <= 1).all()
    x = np.broadcast_to(np.arange(128), on.shape)
    assert np.corrcoef(normal[..., 0][on], x[on])[0, 1] < -0.7  # what faces left is red
    assert (got["shaded"][~on] == got["shaded"][0, 0, 0]).all() and got["shaded"][on].std() > 15
    assert run.data("progress_state"), "no progress was told"


def test_tracks_are_read_as_json_and_hold_the_fields_points(server: "Server", open_head: HeadModel) -> None:
    prompt = clip() | {"tracks": node("FlowToTracks", **TRACKS)}
    for i, name in ((1, "text"), (2, "length")):
        prompt[name] = {"class_type": "PreviewAny", "inputs": {"source": ["tracks", i]}}
    run = server.run(prompt)
    assert run.error is None
    shown = server.outputs(run)
    assert shown["length"]["text"] == ["5"]
    rows = json.loads(shown["text"]["text"][0])
    places = torch.tensor([[[p["x"], p["y"]] for p in row] for row in rows])
    assert places.shape[0] > 40 and places.shape[1:] == (121, 2)
    start = places[:, 0]
    assert ((start - 8) % 16).minimum((8 - start) % 16).max() < 0.02  # a grid, 16 pixels apart

    # The same by hand: where the middle of the first picture's points is on the head, and where that is in the last one.
    track = load_motion("turn", open_head)[20:25]
    view = track.camera.resized(256, 256)
    vertices = track.vertices(open_head)
    seen = rasterize(vertices[:1], open_head.faces, view)
    moved = []
    for x, y in start.round().int().tolist():  # the corner of four pixels: the mean of their points
        around = [(y - 1, x - 1), (y - 1, x), (y, x - 1), (y, x)]
        if all(seen.triangle[0][p] >= 0 for p in around):
            corners = [vertices[4][open_head.faces[int(seen.triangle[0][p])]] for p in around]
            points = torch.stack([(c * seen.bary[0][p][:, None]).sum(0) for c, p in zip(corners, around, strict=True)])
            moved.append(view.project(points).mean(0))
        else:
            moved.append(torch.full((2,), torch.nan))
    gap = (torch.stack(moved) - places[:, 119]).norm(dim=1)
    assert gap.nanmedian() < 0.1 and gap.isfinite().float().mean() > 0.8


@pytest.mark.parametrize(("kind", "inputs"), [
    ("RenderHead", RENDER | {"size": 1024}),
    ("FlowToTracks", TRACKS | {"width": 1024, "height": 1024}),
])  # fmt: skip
def test_the_work_can_be_cancelled(server: "Server", kind: str, inputs: dict) -> None:
    prompt = clip() | {"long": node(kind, **inputs), "end": {"class_type": "PreviewAny", "inputs": {"source": ["long", 1]}}}
    prompt["short"]["inputs"]["frames"] = 106
    cancelled: list[int] = []

    def cancel(event: str, data: dict) -> None:
        value = data["nodes"].get("long", {}).get("value", 0) if event == "progress_state" else 0
        if value >= 1 and not cancelled:
            cancelled.append(value)
            server.post("/interrupt", {"prompt_id": data["prompt_id"]})

    run = server.run(prompt, cancel)
    assert cancelled and run.events[-1][0] == "execution_interrupted" and run.events[-1][1]["node_id"] == "long"


@pytest.mark.parametrize(("kind", "inputs", "says"), [
    ("RenderHead", {"depth": "midas"}, "Render Head: 'depth' is 'midas'"),
    ("RenderHead", {"normals": "../x"}, "Render Head: 'normals' is '../x'"),
    ("FlowToTracks", {"length": 80}, "'length' is 80, but video models make 4 n + 1 pictures. Set it to 77 or 81."),
    ("FlowToTracks", {"points": "ears"}, "Flow To Tracks: 'points' is 'ears'"),
    ("FlowToTracks", {"width": 4096, "height": 4096, "spacing": 4}, "more than 5000. Set them farther apart."),
])  # fmt: skip
def test_what_is_wrong_is_said(server: "Server", kind: str, inputs: dict, says: str) -> None:
    from comfy_server import Refused

    plain, output = (RENDER, 0) if kind == "RenderHead" else (TRACKS, 1)
    prompt = clip() | {"bad": node(kind, **(plain | inputs))}
    prompt["end"] = {"class_type": "PreviewAny", "inputs": {"source": ["bad", output]}}
    try:
        error = server.run(prompt).error
    except Refused as refused:  # later servers check combos themselves
        error = str(refused).replace("value_not_in_list", says)
    assert error and says in error
