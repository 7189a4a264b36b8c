"""Save Head Track and Load Head Track on a real ComfyUI server, with the files of other programs."""

import csv
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from comfyui_flow3d.flow3d.head.files import save_head
from comfyui_flow3d.flow3d.head.model import HeadModel
from comfyui_flow3d.flow3d.io.motions import load_motion
from comfyui_flow3d.flow3d.io.tracks import load_track

if TYPE_CHECKING:
    from .comfy_server import Server


def node(kind: str, **inputs: object) -> dict:
    return {"class_type": f"Flow3D{kind}", "inputs": inputs}


def save(prefix: str, **options: object) -> dict:
    return node("SaveHeadTrack", track=["1", 0], filename_prefix=f"flow3d/{prefix}", **options)


def saved(server: "Server", prompt: dict, node_id: str):
    run = server.run(prompt)
    assert run.error is None
    return server.base / "output" / server.outputs(run)[node_id]["text"][0]


def test_live_link_out_and_in(server: "Server", open_head: HeadModel) -> None:
    load = node("LoadHeadTrack", track="motion: look-around")
    path = saved(server, {"1": load, "2": save("look", format="csv")}, "2")
    assert path.suffix == ".csv"
    with path.open(encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    motion = load_motion("look-around")
    assert len(rows) == len(motion)
    listed = server.get("/object_info/Flow3DLoadHeadTrack")["Flow3DLoadHeadTrack"]["input"]["required"]["track"][1]["options"]
    name = f"{path.relative_to(server.base / 'output').as_posix()} [output]"
    assert name in listed
    again = {"1": node("LoadHeadTrack", track=name), "2": save("back")}
    back = load_track(saved(server, again, "2"))
    assert torch.allclose(back.joints, motion.joints, atol=1e-6) and back.fps == 25


def test_gltf_out(server: "Server") -> None:
    load = node("LoadHeadTrack", track="motion: smile")
    path = saved(server, {"1": load, "2": save("head", format="glb")}, "2")
    assert path.suffix == ".glb" and path.read_bytes()[:4] == b"glTF"


def test_flame_parameters_in(server: "Server", open_head: HeadModel) -> None:
    values = {"shape": np.zeros((3, 100)), "exp": np.full((3, 50), 0.5), "pose": np.full((3, 6), 0.1)}
    values["cam"] = np.full((3, 3), 0.1) + [8, 0, 0]
    np.savez(server.base / "input" / "deca.npz", **values)
    head = replace(open_head, name="generic_model", expression_names=())
    save_head(head, server.base / "models" / "flame" / "generic_model.safetensors")
    prompt = {
        "head": node("LoadHeadModel", name="generic_model.safetensors"),
        "1": node("LoadHeadTrack", track="deca.npz", head=["head", 0], frame_rate=50.0),
        "2": save("deca"),
    }
    track = load_track(saved(server, prompt, "2"))
    assert track.fps == 50 and len(track) == 3 and track.expression[:, :50].min() == 0.5 and track.head_name == "generic_model"
    run = server.run(prompt | {"1": node("LoadHeadTrack", track="deca.npz")})
    assert run.error and "deca.npz: FLAME parameters need the FLAME model" in run.error


def test_what_is_refused(server: "Server") -> None:
    load = node("LoadHeadTrack", track="motion: nod")
    assert "fbx" in server.failure({"1": load, "2": save("a", format="fbx")})
    (server.base / "input" / "broken.csv").write_text("Timecode,JawOpen\n", encoding="utf-8")
    for name, says in (("broken.csv", "broken.csv: not a Live Link Face recording"), ("../../x.csv", "leads out of ComfyUI's input folder")):
        assert says in server.failure({"1": node("LoadHeadTrack", track=name), "2": save("b")})
