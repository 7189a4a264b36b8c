"""Cancel: how long each stage with a loop goes on after it was told to stop, on a real server and in ComfyUI's own sampling."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from busy import second
from comfy_process import in_comfyui
from PIL import Image

if TYPE_CHECKING:
    from comfy_server import Server

LONG = 97  # frames: 25 at a quarter of their speed
State = dict[str, Any]
"""A node's in ComfyUI's `progress_state`: `value` of `max` steps are done."""


def ours(kind: str, **inputs: object) -> dict:
    return {"class_type": f"Flow3D{kind}", "inputs": inputs}


def moving() -> dict:
    """A bundled motion, slowed down to many frames, on a head that is its own source; and a picture of the same size."""
    time = {"speed": 1.0, "fps": 0.0, "direction": "forward", "loop_frames": 0}
    field = {"size": 512, "samples": 20, "delta": 0.01, "near": 0.65, "far": 1.25, "preview_frames": 1}
    return {
        "motion": ours("LoadHeadTrack", track="motion: turn"),
        "first": ours("FLAMETime", track=["motion", 0], start=0, frames=1, **time),
        "slow": ours("FLAMETime", track=["motion", 0], start=20, frames=25, **time | {"speed": 0.25}),
        "head": ours("LoadHeadModel", name="open head"),
        "field": ours("FlowEncode", head=["head", 0], source=["first", 0], target=["slow", 0], **field),
        "picture": {"class_type": "EmptyImage", "inputs": {"width": 512, "height": 512, "batch_size": 1, "color": 0x8090A0}},
        "pictures": {"class_type": "RepeatImageBatch", "inputs": {"image": ["picture", 0], "amount": LONG}},
        "crop": ours("PortraitCrop", image=["pictures", 0], track=["slow", 0], size=512, box="follow", room=1.0, smoothing=12.0,
                     min_confidence=0.3),
    }  # fmt: skip


STAGES = {
    "3D Flow Encode": moving()["field"] | {"inputs": moving()["field"]["inputs"] | {"preview_frames": 0}},
    "3D Flow Visualize": ours("FlowVisualize", field=["field", 0], view="sheet", window="head", size=512, scale=0.0, frames=0),
    "Flow Warp Preview": ours("FlowWarpPreview", image=["picture", 0], field=["field", 0]),
    "Flow Warp Video": ours("FlowWarpVideo", image=["picture", 0], field=["field", 0]),
    "Render Head": ours("RenderHead", track=["slow", 0], size=1024, depth="inverse", depth_range="clip", normals="controlnet"),
    "Flow To Tracks": ours("FlowToTracks", field=["field", 0], points="grid", spacing=16, background_spacing=0, width=1024,
                           height=1024, length=0, start="portrait"),
    "Portrait Crop": ours("PortraitCrop", image=["pictures", 0], track=["slow", 0], size=1024, box="follow", room=1.0,
                          smoothing=12.0, min_confidence=0.3),
    "Paste Back": ours("PasteBack", result=["crop", 0], transform=["crop", 1], full_frame=["pictures", 0],
                       shape="rounded square", feather=32, colour_match=1.0),
}  # fmt: skip
"""The node under test, by its name."""


def cancelled(server: "Server", prompt: dict, when: Callable[[State], bool]) -> float:
    """Seconds from POST /interrupt, sent once the node 'long' is where it is wanted, to the server's word that it stopped."""
    asked: list[float] = []

    def watch(event: str, data: dict) -> None:
        state = data["nodes"].get("long") if event == "progress_state" else None
        if state and state["state"] == "running" and not asked and when(state):
            asked.append(time.monotonic())
            server.post("/interrupt", {"prompt_id": data["prompt_id"]})

    run = server.run(prompt, watch)
    took = time.monotonic() - asked[0] if asked else float("nan")
    assert run.error is None and asked, run.error or "it never came to where it is to be cancelled"
    kind, told = run.events[-1]
    assert (kind, told.get("node_id")) == ("execution_interrupted", "long"), "it ran to its end"
    return took


def shown(prompt: dict, long: dict) -> dict:
    """The prompt with a node 'long' and one that asks for what it makes."""
    return prompt | {"long": long, "end": {"class_type": "PreviewAny", "inputs": {"source": ["long", 0]}}}


@pytest.mark.parametrize("name", STAGES)
def test_a_loop_over_frames_stops_within_a_second(server: "Server", name: str, record_property: Callable) -> None:
    took = cancelled(server, shown(moving(), STAGES[name]), lambda s: 1 <= s["value"] < s["max"])
    record_property("seconds to stop", round(took, 2))
    assert took < second()


@pytest.mark.parametrize("stage", ["finding faces", "fitting them", "by the picture"])
def test_the_fit_stops_within_a_second(
    server: "Server", face_landmarker: Path, tmp_path: Path, stage: str, record_property: Callable
) -> None:
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed: use `python run.py test`")
    Image.fromarray(data.astronaut()).save(tmp_path / "portrait.png")
    frames = 1 if stage == "by the picture" else LONG
    prompt = {
        "head": ours("LoadHeadModel", name="open head"),
        "portrait": {"class_type": "LoadImage", "inputs": {"image": server.upload(tmp_path / "portrait.png")}},
        "pictures": {"class_type": "RepeatImageBatch", "inputs": {"image": ["portrait", 0], "amount": frames}},
    }
    fit = ours("FLAMEFit", head=["head", 0], image=["pictures", 0], fps=25.0, field_of_view=25.0, min_confidence=0.3,
               missing_frames="fail", overlay_frames=1, photometric="on" if frames == 1 else "off")  # fmt: skip
    reached = {
        "finding faces": lambda s: s["max"] == LONG and s["value"] >= 2,
        "fitting them": lambda s: s["max"] == 2 * LONG,  # by themselves, then in time
        "by the picture": lambda s: s["max"] > 2,
    }
    took = cancelled(server, shown(prompt, fit), reached[stage])
    record_property("seconds to stop", round(took, 2))
    assert took < second()


@in_comfyui
def test_the_sampler_stops_within_a_second() -> None:
    """Between windows, of which one step has many."""
    import comfy.model_management
    from test_temporal_sampler import latents, model, motion, prompt

    from comfyui_flow3d.nodes.temporal_sampler import TemporalSampler

    asked: list[float] = []

    def cancel() -> None:
        asked.append(time.monotonic())
        comfy.model_management.interrupt_current_processing(True)

    timer = threading.Timer(2.0, cancel)
    timer.start()
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            TemporalSampler.execute(
                model(), prompt(1), prompt(2), latents(600, 16, 16), window_length=16, overlap=4, stride=1, closed_loop=False,
                fusing="pyramid", offset="none", initial_noise="independent", prediction="eps", betas="scaled linear",
                zero_snr=False, motion=motion(), seed=1, steps=50, cfg=2.0, sampler_name="euler", scheduler="normal",
                denoise=1.0,
            )  # fmt: skip
        assert time.monotonic() - asked[0] < second()
    finally:
        timer.cancel()
        comfy.model_management.interrupt_current_processing(False)


def test_the_server_goes_on(server: "Server") -> None:
    run = server.run(shown(moving(), moving()["first"]))
    assert run.error is None and run.events[-1][0] == "execution_success"
