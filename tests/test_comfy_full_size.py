"""The FG-Portrait workflow on a real ComfyUI server with networks of SD1.5's full size and random weights.

4 frames at 64 x 64 in 2 steps. Every file has the names, shapes and type that the real one has: an SD1.5 checkpoint in float16
(2.1 GB), X-Portrait's checkpoint (appearance and motion), a flow ControlNet that `flow3d init-controlnet` started, and one whose
zero convolutions are random. The files are removed at the end.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
import torch
from comfy_process import in_comfyui
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor

from comfyui_flow3d.cli import main
from comfyui_flow3d.flow3d.paths import find_weight

if TYPE_CHECKING:
    from .comfy_server import Server

Api = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
FRAMES, SIDE, STEPS = 4, 64, 2
CHECKPOINT, FRESH = "v1-5-pruned-emaonly-fp16.safetensors", "fresh.safetensors"
UNET, SPREAD = "model.diffusion_model.", 0.02
GB = 1e9


# --- the files -------------------------------------------------------------------------------------------------------


class Pool:
    """Random weights: norms about 1, all else small, cut out of one block, for drawing a billion numbers takes long."""

    def __init__(self, seed: int):
        self.block = SPREAD * torch.randn(40_000_000, generator=torch.Generator().manual_seed(seed))
        self.block = self.block.half()
        self.places = np.random.default_rng(seed)

    def fill(self, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
        return {name: self._weight(name, shape) for name, shape in shapes.items()}

    def _weight(self, name: str, shape: torch.Size) -> Tensor:
        count = shape.numel()
        first = int(self.places.integers(len(self.block) - count + 1))
        weight = self.block[first : first + count].view(shape)
        return weight + 1 if len(shape) == 1 and name.endswith("weight") else weight


def shapes_of(module: torch.nn.Module, prefix: str = "") -> dict[str, torch.Size]:
    return {f"{prefix}{name}": value.shape for name, value in module.state_dict().items()}


@in_comfyui
def write_files(base: str) -> None:
    """The checkpoint by ComfyUI's own classes and its own naming of saved checkpoints; X-Portrait's beside it."""
    import comfy.sd1_clip
    import comfy.supported_models
    from comfy.ldm.models.autoencoder import AutoencoderKL
    from small_sd import small_unet_config

    config = {k: v for k, v in small_unet_config().items() if k != "dtype"} | {"model_channels": 320, "context_dim": 768}
    described = comfy.supported_models.SD15(config)
    described.set_inference_dtype(torch.float16, None)
    details = {
        "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128, "ch_mult": [1, 2, 4, 4],
        "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    with torch.device("meta"):
        unet = shapes_of(described.get_model({}, "", device="meta").diffusion_model)
        vae = AutoencoderKL(ddconfig=details, embed_dim=4).state_dict()
        clip = comfy.sd1_clip.SD1ClipModel(device="meta", dtype=torch.float16).state_dict()
    saved = described.process_clip_state_dict_for_saving(clip) | described.process_vae_state_dict_for_saving(vae)
    shapes = {f"{UNET}{n}": shape for n, shape in unet.items()} | {n: value.shape for n, value in saved.items()}
    pool, models = Pool(0), Path(base) / "models"
    for folder in ("checkpoints", "controlnet", "flow3d_appearance"):
        (models / folder).mkdir(parents=True, exist_ok=True)
    weights = {name: value.clone() for name, value in pool.fill(shapes).items()}
    save_file(weights, models / "checkpoints" / CHECKPOINT)
    write_x_portrait(models / "flow3d_appearance" / "model_state-415001.th", unet)


def write_x_portrait(path: Path, unet: dict[str, torch.Size]) -> None:
    """Its weights share one block, which a pickled file holds once."""
    from comfyui_flow3d.models.motion_network import PLACES, MotionConfig, MotionNetwork

    widths = [320, 640, 1280, 1280]
    channels = [w for w in widths for _ in range(2)] + [w for w in reversed(widths) for _ in range(3)]
    motion = MotionNetwork.without_weights(MotionConfig(dict(zip(PLACES, channels, strict=True)), 24))
    shapes = {f"appearance_control_model.{n}": shape for n, shape in unet.items() if not n.startswith("out.")}
    for part in ("input", "output"):
        for i, place in enumerate(p for p in PLACES if p[0] == part):
            prefix = f"{UNET}{part}_blocks_motion_module.{i}.0.temporal_transformer."
            shapes |= shapes_of(motion.at(place), prefix)
    torch.save({"state_dict": Pool(1).fill(shapes)}, path)


def write_controlnets(models: Path) -> None:
    """A fresh one, and the same with random weights where a fresh one has zeros."""
    fresh, trained = models / "controlnet" / FRESH, models / "controlnet" / "flow_controlnet.safetensors"
    assert main(["init-controlnet", "--from", str(models / "checkpoints" / CHECKPOINT), "-o", str(fresh)]) == 0
    state, pool = load_file(fresh), Pool(2)
    zeros = {name: value.shape for name, value in state.items() if not value.any()}
    assert {"controlnet_mid_block.weight", "controlnet_cond_embedding.conv_out.weight"} < zeros.keys()
    with safe_open(fresh, "pt") as file:
        save_file(state | {n: w.clone() for n, w in pool.fill(zeros).items()}, trained, file.metadata())


# --- the server ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full_size(comfyui: Path, face_landmarker: Path, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Server]":
    """A server with the files in its models folder, its weights in float16: computed with in float32, as a CPU has no other."""
    pytest.importorskip("websocket", reason="websocket-client is not installed: use `python run.py test`")
    from comfy_server import Server

    base = tmp_path_factory.mktemp("full_size")
    try:
        (base / "custom_nodes").mkdir()
        try:
            (base / "custom_nodes" / "flow3d").symlink_to(ROOT, target_is_directory=True)
        except OSError as error:
            pytest.skip(f"this system makes no links ({error})")
        (base / "models" / "mediapipe").mkdir(parents=True)
        shutil.copy(find_weight("face_landmarker.task"), base / "models" / "mediapipe")
        write_files(comfyui=comfyui, base=str(base))
        write_controlnets(base / "models")
        started = Server(sys.executable, ROOT / "scripts" / "launch_comfyui.py", comfyui, base)
        started.command += ["--fp16-unet", "--fp16-text-enc"]
        with started as server:
            yield server
    finally:
        shutil.rmtree(base)


@pytest.fixture(scope="module")
def workflow(full_size: "Server", test_data: Path) -> Api:
    """The shipped one at a small size, with the latents saved too."""
    made = json.loads((ROOT / "workflows" / "api" / "fg_portrait.json").read_text(encoding="utf-8"))
    clip = full_size.base / "driver.mp4"
    write_clip(test_data / "drivers" / "d12.mp4", clip)
    made = changed(
        made,
        {
            "Portrait": {"image": full_size.upload(test_data / "sources" / "s9.jpg")},
            "Driver": {"file": full_size.upload(clip)},
            "First Frames": {"length": FRAMES},
            "Portrait Crop": {"size": SIDE},
            "Driver Crop": {"size": SIDE},
            "3D Flow Encode": {"size": SIDE},
            "Checkpoint": {"ckpt_name": CHECKPOINT},
            "Temporal Sampler": {"steps": STEPS},
        },
    )
    return made | {"save": node("SaveLatent", samples=[named(made, "Temporal Sampler"), 0], filename_prefix="latents/sampled")}


def write_clip(source: Path, target: Path) -> None:
    """Every twelfth frame of a head that turns."""
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        stream = written.add_stream("libx264", rate=25)
        stream.width = stream.height = 256
        stream.pix_fmt = "yuv420p"
        for i, frame in enumerate(read.decode(video=0)):
            if i % 12 == 0 and i < 12 * (FRAMES + 2):
                written.mux(stream.encode(frame.reformat(256, 256, "yuv420p")))
        written.mux(stream.encode())


def node(kind: str, **inputs: object) -> Api:
    return {"class_type": kind, "inputs": inputs}


def named(workflow: Api, title: str) -> str:
    (found,) = (k for k, v in workflow.items() if v.get("_meta", {}).get("title") == title)
    return found


def changed(workflow: Api, values: dict[str, dict[str, Any]]) -> Api:
    """The workflow with other values, by the titles of its nodes; None takes an optional link away."""
    made = json.loads(json.dumps(workflow))
    for title, inputs in values.items():
        given = made[named(made, title)]["inputs"]
        for name, value in inputs.items():
            if value is None:
                del given[name]
            else:
                assert name in given, f"{title} has no input '{name}'"
                given[name] = value
    return made


def run(server: "Server", workflow: Api, *shown: str) -> tuple[Tensor, dict[str, Any]]:
    """The latents (F, 4, h, w) of a run that ends in SaveLatent and in the nodes of these titles, and what it showed."""
    ends = {"SaveVideo", "PreviewImage", "SaveLatent"}
    kept = {named(workflow, title) for title in shown} | {"save"}
    result = server.run({k: v for k, v in workflow.items() if v["class_type"] not in ends or k in kept})
    assert result.error is None, result.error
    outputs = server.outputs(result)
    (file,) = outputs["save"]["latents"]
    latents = load_file(server.base / "output" / file["subfolder"] / file["filename"])["latent_tensor"]
    assert latents.shape == (FRAMES, 4, SIDE // 8, SIDE // 8) and bool(latents.isfinite().all())
    return latents, outputs


# --- the tests -------------------------------------------------------------------------------------------------------

ALONE = {"Temporal Sampler": {"motion": None, "initial_noise": "independent"}}
"""Nothing but the two that have a strength: temporal layers, and noise over the portrait, have none."""


@pytest.fixture(scope="module")
def vanilla(full_size: "Server", workflow: Api) -> Tensor:
    """ComfyUI's own KSampler on the checkpoint, with the Temporal Sampler's settings."""
    sampler = workflow[named(workflow, "Temporal Sampler")]["inputs"]
    same = ("latents", "seed", "steps", "cfg", "sampler_name", "scheduler", "denoise")
    inputs = {name: sampler[name] for name in same} | {"latent_image": sampler["latents"]}
    del inputs["latents"]
    texts = {"positive": [named(workflow, "Prompt"), 0], "negative": [named(workflow, "Negative Prompt"), 0]}
    plain = node("KSampler", model=[named(workflow, "Checkpoint"), 0], **texts, **inputs)
    return run(full_size, workflow | {"ksampler": plain, "save": node("SaveLatent", samples=["ksampler", 0], filename_prefix="latents/plain")})[0]


def test_with_every_strength_at_0_it_is_vanilla(full_size: "Server", workflow: Api, vanilla: Tensor) -> None:
    off = {"Flow ControlNet Apply": {"strength": 0.0}, "Appearance Reference": {"strength": 0.0}}
    assert torch.equal(run(full_size, changed(workflow, ALONE | off))[0], vanilla)


def test_a_fresh_controlnet_changes_nothing(full_size: "Server", workflow: Api, vanilla: Tensor) -> None:
    fresh = {"Flow ControlNet": {"name": FRESH}, "Appearance Reference": {"strength": 0.0}}
    assert torch.equal(run(full_size, changed(workflow, ALONE | fresh))[0], vanilla)


def test_the_whole_workflow(full_size: "Server", workflow: Api) -> None:
    """Flow, appearance and motion at once: a video of the source's size; flow and appearance matter, twice is the same."""
    everything, outputs = run(full_size, workflow, "Save Video", "Flow Preview")
    (video,) = outputs[named(workflow, "Save Video")]["images"]
    with av.open(str(full_size.base / "output" / video["subfolder"] / video["filename"])) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(frames) == FRAMES and min(frames[0].shape[:2]) > SIDE
    for part in ("Flow ControlNet Apply", "Appearance Reference"):
        without = run(full_size, changed(workflow, {part: {"strength": 0.0}}))[0]
        assert (without - everything).abs().mean() > 0.01 * everything.std(), part
    assert torch.equal(run(full_size, workflow)[0], everything)


def test_memory(full_size: "Server") -> None:
    """The most that the server had in memory, all networks and mapped files counted."""
    status = Path(f"/proc/{full_size.process.pid}/status")
    if not status.is_file():
        pytest.skip("this system tells no process's peak")
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    peak = 1024 * int(line.split()[1])
    print(f"peak {peak / GB:.2f} GB")
    assert 3 * GB < peak < 8 * GB
