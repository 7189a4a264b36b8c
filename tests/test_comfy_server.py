"""The nodes on a real ComfyUI server, driven through its API."""

import copy
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from .comfy_server import Run, Server

ROOT = Path(__file__).resolve().parents[1]
CLIP_FRAMES = 16
TYPES = {"track": "FLOW3D_TRACK", "head": "FLOW3D_HEAD", "field": "FLOW3D_FIELD", "transform": "FLOW3D_CROP"}

# Node id: its sockets' types, inputs then outputs. Ids and types are promises to everybody's saved workflows.
SOCKETS = {
    "Flow3DLoadHeadModel": ({}, ["FLOW3D_HEAD"]),
    "Flow3DFLAMEFit": ({"head": "FLOW3D_HEAD", "image": "IMAGE,VIDEO", "face_landmarks": "FACE_LANDMARKS"}, ["FLOW3D_TRACK", "IMAGE", "STRING"]),
    "Flow3DFLAMEEdit": ({"track": "FLOW3D_TRACK", "head": "FLOW3D_HEAD", "curve": "FLOAT,FLOATS"}, ["FLOW3D_TRACK"]),
    "Flow3DFLAMEMix": ({"first": "FLOW3D_TRACK", "second": "FLOW3D_TRACK", "head": "FLOW3D_HEAD"}, ["FLOW3D_TRACK"]),
    "Flow3DFLAMETime": ({"track": "FLOW3D_TRACK"}, ["FLOW3D_TRACK", "FLOAT"]),
    "Flow3DTrackReport": ({"track": "FLOW3D_TRACK", "head": "FLOW3D_HEAD"}, ["IMAGE", "STRING"]),
    "Flow3DPortraitCrop": (
        {"image": "IMAGE", "track": "FLOW3D_TRACK", "head": "FLOW3D_HEAD"}, ["IMAGE", "FLOW3D_CROP", "MASK"],
    ),
    "Flow3DPasteBack": (
        {"result": "IMAGE", "transform": "FLOW3D_CROP", "full_frame": "IMAGE", "mask": "MASK"}, ["IMAGE"],
    ),
    "Flow3DFLAMERetarget": (
        {"source": "FLOW3D_TRACK", "driver": "FLOW3D_TRACK", "head": "FLOW3D_HEAD"}, ["FLOW3D_TRACK"],
    ),
    "Flow3DSaveHeadTrack": ({"track": "FLOW3D_TRACK", "head": "FLOW3D_HEAD"}, ["FLOW3D_TRACK", "STRING"]),
    "Flow3DLoadHeadTrack": ({"head": "FLOW3D_HEAD"}, ["FLOW3D_TRACK", "FLOAT"]),
    "Flow3DFlowEncode": (
        {"head": "FLOW3D_HEAD", "source": "FLOW3D_TRACK", "target": "FLOW3D_TRACK"}, ["FLOW3D_FIELD", "IMAGE", "MASK"],
    ),
    "Flow3DFlowWarpPreview": ({"image": "IMAGE", "field": "FLOW3D_FIELD"}, ["IMAGE", "MASK"]),
    "Flow3DFlowVisualize": ({"field": "FLOW3D_FIELD", "portrait": "IMAGE"}, ["IMAGE", "STRING"]),
    "Flow3DFlowToTracks": ({"field": "FLOW3D_FIELD"}, ["TRACKS", "STRING", "INT"]),
    "Flow3DRenderHead": ({"track": "FLOW3D_TRACK", "head": "FLOW3D_HEAD"}, ["IMAGE", "IMAGE", "IMAGE", "MASK"]),
    "Flow3DFlowWarpVideo": ({"image": "IMAGE", "field": "FLOW3D_FIELD", "sound": "VIDEO"}, ["VIDEO"]),
    "Flow3DLoadFlowControlNet": ({}, ["CONTROL_NET"]),
    "Flow3DFlowControlNetApply": (
        {
            "positive": "CONDITIONING", "negative": "CONDITIONING", "control_net": "CONTROL_NET", "field": "FLOW3D_FIELD",
            "mask": "MASK",
        },
        ["CONDITIONING", "CONDITIONING"],
    ),
    "Flow3DLoadAppearanceNetwork": ({}, ["FLOW3D_APPEARANCE"]),
    "Flow3DAppearanceReference": (
        {
            "model": "MODEL", "reference": "LATENT", "prompt": "CONDITIONING", "appearance": "FLOW3D_APPEARANCE", "mask": "MASK",
        },
        ["MODEL"],
    ),
    "Flow3DLoadMotionModule": ({}, ["FLOW3D_MOTION"]),
    "Flow3DTemporalSampler": (
        {
            "model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "latents": "LATENT",
            "motion": "FLOW3D_MOTION", "source": "LATENT",
        },
        ["LATENT", "STRING"],
    ),
}  # fmt: skip
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A public-domain portrait, 512 pixels a side."""
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed: use `python run.py test`")
    path = tmp_path_factory.mktemp("portrait") / "astronaut.png"
    Image.fromarray(data.astronaut()).save(path)
    return path


@pytest.fixture(scope="module")
def clip(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every sixth frame of a clip that turns left and right."""
    path = tmp_path_factory.mktemp("clip") / "turning.mp4"
    with av.open(str(test_data / "drivers" / "d12.mp4")) as source, av.open(str(path), "w") as made:
        stream = made.add_stream("libx264", rate=25)
        stream.width = stream.height = 512
        stream.pix_fmt = "yuv420p"
        for i, frame in enumerate(source.decode(video=0)):
            if i % 6 == 0 and i < 6 * CLIP_FRAMES:
                made.mux(stream.encode(av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"))))
        made.mux(stream.encode())
    return path


@pytest.fixture
def workflow() -> dict:
    return json.loads((ROOT / "workflows" / "api" / "flow_warp_preview.json").read_text(encoding="utf-8"))


def node(workflow: dict, kind: str, nth: int = 0) -> str:
    return [k for k, v in workflow.items() if v["class_type"] == kind][nth]


def given(workflow: dict, server: "Server", portrait: Path, clip: Path) -> dict:
    """The workflow with both files uploaded and put in."""
    made = copy.deepcopy(workflow)
    made[node(made, "LoadImage")]["inputs"]["image"] = server.upload(portrait)
    made[node(made, "LoadVideo")]["inputs"]["file"] = server.upload(clip)
    return made


def saved_video(server: "Server", run: "Run") -> Path:
    shown_files = [file for o in server.outputs(run).values() for file in o.get("images", ())]
    (shown,) = [file for file in shown_files if file["filename"].endswith(".mp4")]
    return server.base / "output" / shown["subfolder"] / shown["filename"]


def decoded(path: Path) -> np.ndarray:
    """(T, H, W, 3) uint8."""
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def yaws(frames: np.ndarray, model: Path) -> np.ndarray:
    """Degrees that MediaPipe's own head matrix turns each frame's face by."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        BaseOptions(model_asset_buffer=model.read_bytes()), output_facial_transformation_matrixes=True
    )
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        found = [landmarker.detect(mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(f))) for f in frames]
    matrices = [np.array(f.facial_transformation_matrixes[0]) for f in found]
    return np.array([math.degrees(math.atan2(m[0, 2], m[2, 2])) for m in matrices])


# --- the pack in the server ------------------------------------------------------------------------------------------


def test_the_pack_loads_and_breaks_nothing(server: "Server") -> None:
    info = server.get("/object_info")
    assert set(SOCKETS) == {k for k in info if k.startswith("Flow3D")}
    assert {"LoadImage", "LoadVideo", "GetVideoComponents", "CreateVideo", "SaveVideo", "KSampler"} <= set(info)
    failed = [line for line in server.output().splitlines() if "IMPORT FAILED" in line]
    assert not [line for line in failed if "nodes_audio" not in line]  # those two need torchaudio


@pytest.mark.parametrize("name", SOCKETS)
def test_sockets_are_as_promised(server: "Server", name: str) -> None:
    info = server.get(f"/object_info/{name}")[name]
    inputs = {**info["input"]["required"], **info["input"].get("optional", {})}
    sockets, outputs = SOCKETS[name]
    assert {k: v[0] for k, v in inputs.items() if v[0] not in WIDGETS} == sockets
    assert info["output"] == outputs
    assert info["category"].startswith("Flow3D/") and info["description"]
    assert all(v[1].get("tooltip") for v in inputs.values()) and all(info["output_tooltips"])
    for kind, options in inputs.values():
        if kind in ("INT", "FLOAT"):
            assert options["min"] <= options["default"] <= options["max"]


def test_help_pages_and_templates_are_served(server: "Server") -> None:
    for name in SOCKETS:
        assert server.raw(f"/extensions/flow3d/docs/{name}.md").startswith(b"# ")
    templates = server.get("/workflow_templates")["flow3d"]
    assert sorted(templates) == sorted(p.stem for p in (ROOT / "workflows").glob("*.json"))
    for name in templates:
        for ending in ("json", "jpg"):
            assert server.raw(f"/api/workflow_templates/flow3d/{name}.{ending}")


def test_the_head_list_holds_the_open_head(server: "Server") -> None:
    options = server.get("/object_info/Flow3DLoadHeadModel")["Flow3DLoadHeadModel"]["input"]["required"]["name"][1]
    assert options["options"][0] == "open head"


# --- the example workflow --------------------------------------------------------------------------------------------


def test_the_workflow_makes_a_video(
    server: "Server", workflow: dict, portrait: Path, clip: Path, face_landmarker: Path
) -> None:
    made = given(workflow, server, portrait, clip)
    run = server.run(made)
    assert run.error is None
    frames, driver = decoded(saved_video(server, run)), decoded(clip)
    still = np.asarray(Image.open(portrait).convert("RGB"))
    assert frames.shape == (CLIP_FRAMES, *still.shape)
    assert frames.mean() > 20
    # Relative mode: the first frame is the portrait, as far as H.264 keeps it.
    error = np.square(frames[0].astype(float) - still).mean()
    assert 10 * math.log10(255**2 / error) > 30
    # Seen by MediaPipe, the head turns as the driver's does; the video's corners stay.
    theirs, ours = yaws(driver, face_landmarker), yaws(frames, face_landmarker)
    assert np.ptp(theirs) > 10
    assert np.corrcoef(theirs, ours)[0, 1] > 0.95
    assert np.abs(frames[:, :64, :64].astype(float) - still[:64, :64]).mean() < 4
    progress = {n["node_id"] for e in run.data("progress_state") for n in e["nodes"].values() if n["max"] > 1}
    assert {node(made, "Flow3DFLAMEFit", 1), node(made, "Flow3DFlowWarpPreview")} <= progress

    # An edit runs what follows it, not the fits.
    edited = copy.deepcopy(made)
    edited[node(made, "Flow3DFLAMEEdit")]["inputs"]["yaw"] = 8.0
    again = server.run(edited)
    assert again.error is None
    executed = {e["node"] for e in again.data("executing")}
    assert node(made, "Flow3DFLAMEEdit") in executed and node(made, "Flow3DFLAMEFit") not in executed
    turned = yaws(decoded(saved_video(server, again)), face_landmarker)
    assert 3 < abs(np.mean(turned - ours)) < 12


def test_a_clip_streams_from_video_to_video(
    server: "Server", workflow: dict, portrait: Path, clip: Path, face_landmarker: Path
) -> None:
    """Load Video to Save Video without a batch of pictures, against the same clip by way of pictures."""
    made = given(workflow, server, portrait, clip)
    by_pictures = server.run(made)
    assert by_pictures.error is None
    fit, warp, save = node(made, "Flow3DFLAMEFit", 1), node(made, "Flow3DFlowWarpPreview"), node(made, "SaveVideo")
    video = [node(made, "LoadVideo"), 0]
    made[fit]["inputs"].update(image=video, fps=25.0)
    made[warp] = {"class_type": "Flow3DFlowWarpVideo", "inputs": {**made[warp]["inputs"], "sound": video}}
    made[save]["inputs"]["video"] = [warp, 0]
    for gone in ("GetVideoComponents", "CreateVideo", "MaskToImage", "PreviewImage"):
        del made[node(made, gone)]
    streamed = server.run(made)
    assert streamed.error is None
    a, b = (decoded(saved_video(server, run)).astype(float) for run in (by_pictures, streamed))
    assert a.shape == b.shape and 10 * math.log10(255**2 / np.square(a - b).mean()) > 32
    assert np.abs(b[0] - b[8]).mean() > 1
    assert any(n["node_id"] == warp and n["max"] == CLIP_FRAMES for e in streamed.data("progress_state") for n in e["nodes"].values())


def test_a_video_needs_no_frames_in_memory(server: "Server", clip: Path, face_landmarker: Path) -> None:
    """FLAME Fit takes a VIDEO itself; its track is saved, loaded again and the same."""
    name = server.upload(clip)
    fit = {"head": ["2", 0], "fps": 1.0, "field_of_view": 25.0, "min_confidence": 0.3, "missing_frames": "hold"}
    prompt = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": name}},
        "2": {"class_type": "Flow3DLoadHeadModel", "inputs": {"name": "open head"}},
        "3": {"class_type": "Flow3DFLAMEFit", "inputs": {**fit, "image": ["1", 0], "overlay_frames": 3}},
        "4": {"class_type": "Flow3DSaveHeadTrack", "inputs": {"track": ["3", 0], "filename_prefix": "flow3d/fitted"}},
        "5": {"class_type": "PreviewImage", "inputs": {"images": ["3", 1]}},
        "6": {"class_type": "PreviewAny", "inputs": {"source": ["3", 2]}},
    }
    run = server.run(prompt)
    assert run.error is None
    shown = server.outputs(run)
    assert len(shown["5"]["images"]) == 3
    assert "% of the eye distance" in shown["6"]["text"][0]
    path = shown["4"]["text"][0]

    from comfyui_flow3d.flow3d.io.tracks import load_track

    track = load_track(server.base / "output" / path)
    assert len(track) == CLIP_FRAMES and track.fps == 25

    listed = server.get("/object_info/Flow3DLoadHeadTrack")["Flow3DLoadHeadTrack"]["input"]["required"]["track"][1]
    assert f"{path} [output]" in listed["options"]
    copied = server.run(
        {
            "1": {"class_type": "Flow3DLoadHeadTrack", "inputs": {"track": f"{path} [output]"}},
            "2": {"class_type": "Flow3DSaveHeadTrack", "inputs": {"track": ["1", 0], "filename_prefix": "flow3d/copied"}},
        }
    )
    assert copied.error is None
    copy_path = server.base / "output" / server.outputs(copied)["2"]["text"][0]
    assert copy_path.read_bytes() == (server.base / "output" / path).read_bytes()


def test_a_missing_face_in_a_clip(
    server: "Server", clip: Path, face_landmarker: Path, tmp_path: Path
) -> None:
    """Frame 5 shows no face: interpolated, held, or named in the error, as asked for."""
    from comfyui_flow3d.flow3d.io.tracks import load_track

    frames = decoded(clip)[:8]
    frames[5] = 127
    path = tmp_path / "gap.mp4"
    with av.open(str(path), "w") as made:
        stream = made.add_stream("libx264", rate=25)
        stream.width = stream.height = 512
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            made.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        made.mux(stream.encode())
    name = server.upload(path)

    def fitted(missing: str) -> "Run":
        fit = {"fps": 25.0, "field_of_view": 25.0, "min_confidence": 0.3, "missing_frames": missing, "overlay_frames": 1}
        return server.run(
            {
                "1": {"class_type": "LoadVideo", "inputs": {"file": name}},
                "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}},
                "3": {"class_type": "Flow3DLoadHeadModel", "inputs": {"name": "open head"}},
                "4": {"class_type": "Flow3DFLAMEFit", "inputs": {**fit, "head": ["3", 0], "image": ["2", 0]}},
                "5": {"class_type": "Flow3DSaveHeadTrack", "inputs": {"track": ["4", 0], "filename_prefix": f"gap/{missing}"}},
            }
        )

    tracks = {}
    for missing in ("interpolate", "hold"):
        run = fitted(missing)
        assert run.error is None
        tracks[missing] = load_track(server.base / "output" / server.outputs(run)["5"]["text"][0])
    for missing, state in (("interpolate", 1), ("hold", 2)):
        assert tracks[missing].state.tolist() == [0, 0, 0, 0, 0, state, 0, 0]
        assert tracks[missing].confidence[5] == 0
    assert (tracks["hold"].rotation[5] == tracks["hold"].rotation[4]).all()
    assert not (tracks["interpolate"].rotation[5] == tracks["interpolate"].rotation[4]).all()
    error = fitted("fail").error
    assert error and error.startswith("FLAME Fit: no face in frame 5 of 8 (confidence 0.")
    assert error.endswith("Lower 'min confidence', or set 'missing frames' to 'interpolate'.")


def test_the_flow_of_a_bundled_motion(server: "Server") -> None:
    """The preview shows no move in the first frame and moves in the others; the mask is the head in the same frames."""
    encode = {"size": 128, "samples": 20, "delta": 0.01, "near": 0.65, "far": 1.25, "preview_frames": 3}
    prompt = {
        "1": {"class_type": "Flow3DLoadHeadModel", "inputs": {"name": "open head"}},
        "2": {"class_type": "Flow3DLoadHeadTrack", "inputs": {"track": "motion: turn"}},
        "3": {
            "class_type": "Flow3DFlowEncode",
            "inputs": {**encode, "head": ["1", 0], "source": ["2", 0], "target": ["2", 0]},
        },
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 1]}},
        "5": {"class_type": "MaskToImage", "inputs": {"mask": ["3", 2]}},
        "6": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}},
    }
    run = server.run(prompt)
    assert run.error is None

    def shown(key: str) -> np.ndarray:
        files = [server.base / "temp" / i["subfolder"] / i["filename"] for i in server.outputs(run)[key]["images"]]
        return np.stack([np.asarray(Image.open(f).convert("RGB")) for f in files])

    flow, mask = shown("4"), shown("6")[..., 0]
    assert flow.shape == (3, 128, 128, 3) and mask.shape[:3] == (3, 128, 128)
    assert set(np.unique(mask)) == {0, 255} and all(0.1 < m.mean() / 255 < 0.9 for m in mask)
    head = mask[0] == 255
    assert (flow[0][head] > 250).all() and (np.ptp(flow[0][~head], axis=0) == 0).all()
    assert np.ptp(flow[1][mask[1] == 255].astype(int), axis=-1).mean() > 20


def test_the_report_tells_of_several_and_cut_faces(
    server: "Server", test_data: Path, face_landmarker: Path, tmp_path: Path
) -> None:
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    whole = np.asarray(Image.open(test_data / "sources" / "s9.jpg").convert("RGB"))
    options = vision.FaceLandmarkerOptions(BaseOptions(model_asset_buffer=face_landmarker.read_bytes()))
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        chin = landmarker.detect(mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(whole))).face_landmarks[0][152]
    Image.fromarray(whole[: round((chin.y - 0.03) * len(whole))]).save(tmp_path / "without_chin.png")
    files = (test_data / "sources" / "two_people.jpg", tmp_path / "without_chin.png")
    fit = {"head": ["1", 0], "fps": 25.0, "field_of_view": 25.0, "min_confidence": 0.3, "missing_frames": "fail"}
    prompt: dict = {"1": {"class_type": "Flow3DLoadHeadModel", "inputs": {"name": "open head"}}}
    for i, file in enumerate(files, 1):
        image, fitted = f"{i}0", f"{i}1"
        prompt[image] = {"class_type": "LoadImage", "inputs": {"image": server.upload(file)}}
        prompt[fitted] = {"class_type": "Flow3DFLAMEFit", "inputs": {**fit, "image": [image, 0], "overlay_frames": 1}}
        prompt[f"{i}2"] = {"class_type": "PreviewAny", "inputs": {"source": [fitted, 2]}}
    run = server.run(prompt)
    assert run.error is None
    reports = [server.outputs(run)[key]["text"][0] for key in ("12", "22")]
    assert "2 faces in a picture, the largest is taken" in reports[0] and "border" not in reports[0]
    assert "the border cuts the face in 1 of 1 pictures" in reports[1] and "largest" not in reports[1]


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_picture_without_a_face_is_one_sentence(
    server: "Server", workflow: dict, clip: Path, face_landmarker: Path, tmp_path: Path
) -> None:
    path = tmp_path / "wall.png"
    Image.fromarray(np.full((300, 400, 3), (120, 140, 160), np.uint8)).save(path)
    made = given(workflow, server, path, clip)
    run = server.run(made)
    (told,) = run.data("execution_error")
    assert told["node_id"] == node(made, "Flow3DFLAMEFit")
    assert told["exception_message"].strip() == (
        "FLAME Fit: no face in the picture (confidence 0.00). Lower 'min confidence', or use a picture where the face is "
        "larger, upright and unhidden."
    )
    assert server.get("/system_stats")


def one(kind: str, **inputs: object) -> dict:
    """A prompt of one loaded motion and one node after it."""
    return {
        "1": {"class_type": "Flow3DLoadHeadTrack", "inputs": {"track": "motion: nod"}},
        "2": {"class_type": kind, "inputs": {"track": ["1", 0], **inputs}},
        "3": {"class_type": "Flow3DSaveHeadTrack", "inputs": {"track": ["2", 0], "filename_prefix": "flow3d/bad"}},
    }


ZERO = dict.fromkeys(
    ("yaw", "pitch", "roll", "x", "y", "z", "gazeYaw", "gazePitch", "jawOpen", "smile", "blink", "browUp"), 0.0
)


def failure(server: "Server", prompt: dict) -> str:
    return server.failure(prompt)


def test_a_wrong_edit_offers_the_right_one(server: "Server") -> None:
    said = failure(server, one("Flow3DFLAMEEdit", **ZERO, more="jawOpn=0.4"))
    assert "no edit 'jawOpn'" in said and "Did you mean jawOpen" in said


def test_nan_is_refused(server: "Server") -> None:
    said = failure(server, one("Flow3DFLAMEEdit", **{**ZERO, "yaw": math.nan}, more=""))
    assert said and said.startswith("FLAME Edit: 'yaw' is nan, not a finite number. ")


def test_edits_reach_the_track(server: "Server") -> None:
    from comfyui_flow3d.flow3d.io.tracks import load_track

    saved = []
    for edits in (ZERO, {**ZERO, "x": 2.5}):
        run = server.run(one("Flow3DFLAMEEdit", **edits, more=""))
        assert run.error is None
        saved.append(load_track(server.base / "output" / server.outputs(run)["3"]["text"][0]))
    moved = saved[1].translation - saved[0].translation
    np.testing.assert_allclose(moved.numpy(), np.tile([0.025, 0, 0], (len(moved), 1)), atol=1e-6)


def test_a_mode_that_is_none_is_refused(server: "Server") -> None:
    parts = dict.fromkeys(("expression", "jaw", "pose", "eyes", "translation"), True)
    prompt = {
        "1": {"class_type": "Flow3DLoadHeadTrack", "inputs": {"track": "motion: nod"}},
        "2": {
            "class_type": "Flow3DFLAMERetarget",
            "inputs": {"source": ["1", 0], "driver": ["1", 0], "mode": "sideways", **parts},
        },
        "3": {"class_type": "Flow3DSaveHeadTrack", "inputs": {"track": ["2", 0], "filename_prefix": "flow3d/bad"}},
    }
    said = failure(server, prompt)
    assert "mode" in said and "sideways" in said


@pytest.mark.parametrize("prefix", ["../outside", "flow3d/../../outside", ""])
def test_a_track_is_saved_in_the_output_folder_only(server: "Server", prefix: str) -> None:
    prompt = one("Flow3DFLAMEEdit", **ZERO, more="")
    prompt["3"]["inputs"]["filename_prefix"] = prefix
    assert "ComfyUI's output folder" in failure(server, prompt)
    assert not list(server.base.glob("outside*"))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../custom_nodes/x.safetensors", "leads out of ComfyUI's input folder."),
        ("../secret.safetensors [output]", "leads out of ComfyUI's output folder."),
        ("x.exe", "'x.exe' is no head track. Choose a .safetensors, .csv, .npz, .npy, .pkl, .mat, .json file."),
        ("nowhere.safetensors", "there is no 'nowhere.safetensors' in ComfyUI's input folder."),
        ("motion: waltz", "there is no bundled 'motion: waltz'."),
    ],
)
def test_a_track_that_is_not_listed_is_refused(server: "Server", name: str, why: str) -> None:
    """ComfyUI's server does not hold these values against the list; the node does."""
    prompt = one("Flow3DFLAMEEdit", **ZERO, more="")
    prompt["1"]["inputs"]["track"] = name
    assert why in failure(server, prompt)


def test_a_hostile_track_file_costs_its_own_run(server: "Server") -> None:
    (server.base / "input" / "hostile.safetensors").write_bytes(b"\xff" * 64)
    prompt = one("Flow3DFLAMEEdit", **ZERO, more="")
    prompt["1"]["inputs"]["track"] = "hostile.safetensors"
    assert "hostile.safetensors: not a readable safetensors file" in failure(server, prompt)
    assert server.get("/system_stats")


def test_a_run_can_be_cancelled(server: "Server", workflow: dict, portrait: Path, clip: Path, face_landmarker: Path) -> None:
    made = given(workflow, server, portrait, clip)
    fit = node(made, "Flow3DFLAMEFit", 1)
    made[fit]["inputs"]["min_confidence"] = 0.25  # not the run that is cached
    cancelled = []

    def cancel(kind: str, data: dict) -> None:
        running = kind == "progress_state" and data["nodes"].get(fit, {}).get("value", 0) >= 1
        if running and not cancelled:
            cancelled.append(data["nodes"][fit]["value"])
            server.post("/interrupt", {"prompt_id": data["prompt_id"]})

    run = server.run(made, cancel)
    assert cancelled and run.events[-1][0] == "execution_interrupted"
    assert run.events[-1][1]["node_id"] == fit
