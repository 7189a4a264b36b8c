"""FLAME Edit, Retarget, Mix and Time on a real ComfyUI server: what they make of bundled motions, and what they refuse."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from comfyui_flow3d.flow3d.fit.angles import pose_angles
from comfyui_flow3d.flow3d.io.motions import load_motion
from comfyui_flow3d.flow3d.io.tracks import load_track
from comfyui_flow3d.flow3d.track import HeadTrack

if TYPE_CHECKING:
    from .comfy_server import Server

FIRST_SLIDERS = ("yaw", "pitch", "roll", "x", "y", "z", "gazeYaw", "gazePitch", "jawOpen", "smile", "blink", "browUp")


def node(kind: str, **inputs: object) -> dict:
    return {"class_type": f"Flow3D{kind}", "inputs": inputs}


def motion(name: str) -> dict:
    return node("LoadHeadTrack", track=f"motion: {name}")


def edit(track: str, **changes: object) -> dict:
    """FLAME Edit as workflows saved before there were keyframes have it, but for the changes."""
    return node("FLAMEEdit", **(dict.fromkeys(FIRST_SLIDERS, 0.0) | {"track": [track, 0], "more": ""} | changes))


def time(track: str, **changes: object) -> dict:
    plain = {"start": 0, "frames": 0, "speed": 1.0, "fps": 0.0, "direction": "forward", "loop_frames": 0}
    return node("FLAMETime", **(plain | {"track": [track, 0]} | changes))


def mixed(first: str, second: str, *parts: str, **changes: object) -> dict:
    names = ("pose", "translation", "jaw", "mouth", "eyes", "eyelids", "brows", "expression")
    plain = {"first": [first, 0], "second": [second, 0], "mode": "take", "weight": 0.5, "shorter": "hold"}
    return node("FLAMEMix", **(plain | {n: n in parts for n in names} | changes))


def made(server: "Server", prompt: dict, end: str) -> HeadTrack:
    """The track that comes out of the node `end`."""
    run = server.run(prompt | {"save": node("SaveHeadTrack", track=[end, 0], filename_prefix="motion/made")})
    assert run.error is None
    return load_track(server.base / "output" / server.outputs(run)["save"]["text"][0])


def test_a_workflow_from_before_keyframes(server: "Server") -> None:
    track, talk = made(server, {"1": motion("talk"), "2": edit("1")}, "2"), load_motion("talk")
    assert torch.equal(track.rotation, talk.rotation) and torch.equal(track.expression, talk.expression[:, : track.expression.shape[1]])
    turned = made(server, {"1": motion("talk"), "2": edit("1", yaw=10.0, more="roll=5")}, "2")
    assert not torch.equal(turned.rotation, talk.rotation)


def test_a_still_with_keyframes(server: "Server") -> None:
    prompt = {
        "1": motion("talk"), "2": time("1", frames=1),
        "3": edit("2", pitch=2.0, keyframes="yaw: 0: 0, 24: 20, 48: 0 smooth\nsmile: 0: 0, 10: 1"),
    }  # fmt: skip
    still, clip = load_motion("talk")[:1], made(server, prompt, "3")
    assert len(clip) == 49
    change = pose_angles(clip.rotation) - pose_angles(still.rotation)
    t = np.minimum(np.arange(49), 48 - np.arange(49)) / 24
    assert np.allclose(change[:, 0], 20 * t * t * (3 - 2 * t), atol=0.3) and np.allclose(change[:, 1], 2, atol=0.3)


def test_one_heads_pose_and_the_others_speech(server: "Server") -> None:
    prompt = {"1": motion("turn"), "2": motion("talk"), "3": mixed("1", "2", "jaw", "mouth")}
    track, turn, talk = made(server, prompt, "3"), load_motion("turn"), load_motion("talk")
    n = min(len(turn), len(talk))
    assert torch.equal(track.rotation[:n], turn.rotation[:n])
    jaw = 24  # jawOpen, by ARKit's alphabet
    assert track.expression[:, jaw].std() > 0.5 * talk.expression[:, jaw].std() > 0


def test_time_gives_its_frame_rate(server: "Server") -> None:
    prompt = {"1": motion("talk"), "2": time("1", start=10, frames=51, fps=50.0, direction="reverse"),
              "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 1]}}}  # fmt: skip
    run = server.run(prompt)
    assert run.error is None and server.outputs(run)["3"]["text"] == ["50.0"]
    track, talk = made(server, prompt, "2"), load_motion("talk")
    assert len(track) == 101 and torch.equal(track.rotation[::2], talk.rotation[10:61].flip(0))


def test_the_reference_frame_is_the_source(server: "Server") -> None:
    parts = dict.fromkeys(("expression", "jaw", "pose", "eyes", "translation"), True)
    prompt = {"1": motion("talk"), "2": time("1", frames=1), "3": motion("turn"),
              "4": node("FLAMERetarget", source=["2", 0], driver=["3", 0], mode="relative", reference=40, **parts)}  # fmt: skip
    track, source = made(server, prompt, "4"), load_motion("talk")[:1]
    assert torch.equal(track.rotation[40], source.rotation[0]) and not torch.equal(track.rotation[0], source.rotation[0])


@pytest.mark.parametrize(("last", "says"), [
    (edit("1", keyframes="roll=1\nyaw: 0: 1, 3: 2 wobbly"), "FLAME Edit, 'keyframes': 'yaw: 0: 1, 3: 2 wobbly' (line 2) is not an edit."),
    (edit("1", more="yawn=3"), "FLAME Edit: There is no edit 'yawn'"),
    (edit("1", keyframes="yaw: curve"), "There is no curve"),
    (edit("1", frames=9), "frames, not 9. Only a still can be made longer."),
    (time("1", start=5000), "FLAME Time: The track has"),
    (time("1", direction="sideways"), "sideways"),
    (mixed("1", "1", "jaw", mode="blend", weight=2.0), "FLAME Mix: the weight is 2"),
    (mixed("1", "1", "jaw", mode="melt"), "melt"),
])  # fmt: skip
def test_what_is_wrong_is_said(server: "Server", last: dict, says: str) -> None:
    from comfy_server import Refused

    try:
        error = server.run({"1": motion("talk"), "2": last, "3": node("SaveHeadTrack", track=["2", 0], filename_prefix="motion/bad")}).error
    except Refused as refused:  # later servers check combos themselves
        error = str(refused)
    assert error and says in error
