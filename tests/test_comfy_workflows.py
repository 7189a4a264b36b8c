"""The example workflows on a real ComfyUI server: their graphs, their forms on the page in a browser, and what they make."""

import copy
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from comfy_page import NoBrowserError, open_page
from comfy_page import browser as open_browser
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "scripts"))

from check_workflows import opened, photographed, problems, shipped  # noqa: E402
from examples.catalogue import EXAMPLES, drawn  # noqa: E402

if TYPE_CHECKING:
    from comfyui_flow3d.flow3d.head.model import HeadModel

    from .comfy_server import Run, Server

Api = dict[str, Any]
SAVED = sorted((ROOT / "tests" / "saved").glob("*/*.json"))
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
# Inputs whose values are files, which each computer has its own of.
FILES = {
    "LoadImage": {"image"}, "LoadVideo": {"file"}, "CheckpointLoaderSimple": {"ckpt_name"}, "ControlNetLoader": {"control_net_name"},
    "UNETLoader": {"unet_name"}, "CLIPLoader": {"clip_name"}, "VAELoader": {"vae_name"}, "CLIPVisionLoader": {"clip_name"},
    "Flow3DLoadFlowControlNet": {"name"}, "Flow3DLoadAppearanceNetwork": {"name"}, "Flow3DLoadMotionModule": {"name"},
}  # fmt: skip


@pytest.fixture(scope="module")
def object_info(server: "Server") -> dict[str, Any]:
    return server.get("/object_info")


def inputs_of(info: dict[str, Any]) -> dict[str, tuple[Any, dict[str, Any]]]:
    both = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    return {name: (spec[0], spec[1] if len(spec) > 1 else {}) for name, spec in both.items()}


def options_of(kind: Any, options: dict[str, Any]) -> list[Any] | None:
    """The values of a list, None where the input is none."""
    return kind if isinstance(kind, list) else options.get("options") if kind == "COMBO" else None


# --- the graphs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXAMPLES)
def test_both_forms_are_what_the_description_gives(object_info: dict[str, Any], name: str) -> None:
    """Run scripts/build_workflows.py where this fails."""
    canvas, api = shipped(name)
    sheet = drawn(name, object_info)
    assert sheet.api() == api
    assert json.loads(json.dumps(sheet.canvas())) == canvas


def test_every_description_is_shipped_and_nothing_else() -> None:
    assert sorted(EXAMPLES) == sorted(p.stem for p in (ROOT / "workflows").glob("*.json"))


def test_every_node_of_the_pack_is_in_an_example(object_info: dict[str, Any]) -> None:
    used = {node["class_type"] for name in EXAMPLES for node in shipped(name)[1].values()}
    assert {kind for kind in object_info if kind.startswith("Flow3D")} <= used


@pytest.mark.parametrize("name", EXAMPLES)
def test_links_connect_slots_that_exist(object_info: dict[str, Any], name: str) -> None:
    """The canvas's own slots are those that ComfyUI's nodes have, and each link goes from a type to the same type."""
    canvas, _ = shipped(name)
    nodes = {n["id"]: n for n in canvas["nodes"]}
    for node in nodes.values():
        if node["type"] == "MarkdownNote":
            continue
        info = object_info[node["type"]]
        assert [o["type"] for o in node["outputs"]] == info["output"]
        kinds = {n: "COMBO" if isinstance(kind, list) else kind for n, (kind, _) in inputs_of(info).items()}
        slots = {s["name"]: s["type"] for s in node["inputs"] if s["type"] != "IMAGEUPLOAD"}
        assert slots == kinds, node["title"]
    for _, origin, out, target, slot, kind in canvas["links"]:
        assert nodes[origin]["outputs"][out]["type"] == kind
        assert kind in nodes[target]["inputs"][slot]["type"].split(",")


@pytest.mark.parametrize("name", EXAMPLES)
def test_api_inputs_and_values_are_the_nodes_own(object_info: dict[str, Any], name: str) -> None:
    for node in shipped(name)[1].values():
        title, info = node["_meta"]["title"], object_info[node["class_type"]]
        known = inputs_of(info)
        assert node["inputs"].keys() <= known.keys(), title
        assert info["input"].get("required", {}).keys() <= node["inputs"].keys(), title
        for key, value in node["inputs"].items():
            kind, options = known[key]
            allowed = options_of(kind, options)
            if isinstance(value, list) or key in FILES.get(node["class_type"], ()):
                continue
            if allowed is not None:
                assert value in allowed, f"{title}: {key}"
            elif kind in ("INT", "FLOAT"):
                assert options.get("min", -math.inf) <= value <= options.get("max", math.inf), f"{title}: {key}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_titles_are_unique_and_addressable(name: str) -> None:
    """`flow3d batch` addresses an input as TITLE.INPUT."""
    titles = [node["_meta"]["title"] for node in shipped(name)[1].values()]
    assert len(set(titles)) == len(titles) and not [t for t in titles if "." in t or t != t.strip()]


@pytest.mark.parametrize("name", EXAMPLES)
def test_pictures_are_small(name: str) -> None:
    file = ROOT / "workflows" / f"{name}.jpg"
    picture = Image.open(file)
    assert file.stat().st_size < 100_000 and 0.5 < picture.height / picture.width < 1.05
    assert np.asarray(picture.convert("L"), dtype=float).std() > 20


# --- workflows that somebody saved -----------------------------------------------------------------------------------


def test_there_are_saved_workflows() -> None:
    assert {p.parent.name for p in SAVED} >= {"0.1.0"}


@pytest.mark.parametrize("file", SAVED, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_saved_workflows_still_run(object_info: dict[str, Any], file: Path) -> None:
    """Node ids, input names, list values and output slots as saved by an older version: see docs/compatibility.md."""
    saved: Api = json.loads(file.read_text(encoding="utf-8"))
    gone = [n["class_type"] for n in saved.values() if n["class_type"] not in object_info]
    assert not gone
    for node in (n for n in saved.values() if n["class_type"].startswith("Flow3D")):
        title, info = node["_meta"]["title"], object_info[node["class_type"]]
        known = inputs_of(info)
        assert node["inputs"].keys() <= known.keys(), title
        assert info["input"].get("required", {}).keys() <= node["inputs"].keys(), f"{title}: a new input must be optional"
        for key, value in node["inputs"].items():
            kind, options = known[key]
            allowed = options_of(kind, options)
            if isinstance(value, list):
                given = object_info[saved[value[0]]["class_type"]]["output"][value[1]]
                assert given in kind.split(","), f"{title}: {key}"
            elif allowed is not None and key not in FILES.get(node["class_type"], ()):
                assert value in allowed, f"{title}: {key}"
        # A canvas file keeps values by their place: new widgets come after those that were there.
        before = [n for n in node["inputs"] if known[n][0] in WIDGETS]
        now = [n for n in known if known[n][0] in WIDGETS]
        assert now[: len(before)] == before, f"{title}: new widgets must come last"


# --- on the page -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(server: "Server", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    server.raw("/settings/Comfy.TutorialCompleted", b"true")
    try:
        with open_browser(tmp_path_factory.mktemp("profile"), 1600, 900) as page:
            open_page(page, server.url)
            yield page
    except NoBrowserError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_page_exports_what_is_shipped(page: Any, name: str) -> None:
    """Opened and exported on ComfyUI's page: no missing node or input, values in order, nothing overlaps."""
    canvas, api = shipped(name)
    assert problems(opened(page, canvas), canvas, api) == []
    if folder := os.environ.get("FLOW3D_SCREENSHOTS"):
        photographed(page, Path(folder) / f"{name}.png")


def test_a_wrong_form_is_told(page: Any) -> None:
    """The check itself: a changed value, a lost node, values in another order, nodes over each other."""
    canvas, api = shipped("edit_still")
    ids = {node["_meta"]["title"]: key for key, node in api.items()}
    del api[ids["Save Video"]]
    api[ids["Portrait Fit"]]["inputs"]["face_index"] = 3
    nodes = {n["title"]: n for n in canvas["nodes"]}
    nodes["3D Flow Encode"]["widgets_values"][:2] = [20, 512]
    nodes["Track Report"]["pos"] = nodes["Flow Warp Preview"]["pos"]
    nodes["Portrait"]["type"] = "NoSuchNode"
    told = " | ".join(problems(opened(page, canvas), canvas, api))
    for wrong in (
        f"node {ids['Save Video']} is only in the page's form",
        "Portrait Fit: 'face_index' is 0 on the page, 3 in the file",
        "3D Flow Encode: 'size' is 20 on the page, 512 in the file",
        "Flow Warp Preview and Track Report overlap",
        "the page does not know node",
    ):
        assert wrong in told


# --- run by the API --------------------------------------------------------------------------------------------------


def titled(api: Api, title: str) -> str:
    (key,) = [k for k, node in api.items() if node["_meta"]["title"] == title]
    return key


def changed(name: str, values: dict[str, Any]) -> Api:
    """The shipped API form with inputs set by TITLE.INPUT, as a batch sets them."""
    _, api = shipped(name)
    for where, value in values.items():
        title, key = where.split(".")
        assert key in api[titled(api, title)]["inputs"], where
        api[titled(api, title)]["inputs"][key] = value
    return api


def only(api: Api, titles: Iterable[str]) -> Api:
    """The named nodes and all that they need."""
    wanted, kept = [titled(api, t) for t in titles], {}
    while wanted:
        key = wanted.pop()
        kept[key] = api[key]
        wanted += [v[0] for v in api[key]["inputs"].values() if isinstance(v, list) and v[0] not in kept]
    return kept


def ran(server: "Server", api: Api) -> "Run":
    run = server.run(api)
    assert run.error is None
    return run


def files(server: "Server", run: "Run", api: Api, title: str) -> list[Path]:
    """What a node saved or previewed."""
    folders = {"output": server.base / "output", "temp": server.base / "temp"}
    shown = server.outputs(run)[titled(api, title)]["images"]
    return [folders[f["type"]] / f["subfolder"] / f["filename"] for f in shown]


def video(server: "Server", run: "Run", api: Api) -> np.ndarray:
    """(T, H, W, 3) uint8: what Save Video saved."""
    (file,) = files(server, run, api, "Save Video")
    with av.open(str(file)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB."""
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


def moved(frames: np.ndarray) -> float:
    """Levels of 255 that the last frame differs from the first by, in the mean."""
    return float(np.abs(frames[-1].astype(float) - frames[0]).mean())


@pytest.fixture(scope="module")
def still() -> np.ndarray:
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed: use `python run.py test`")
    return data.astronaut()[:384, 40:424]


@pytest.fixture(scope="module")
def portrait(server: "Server", still: np.ndarray, face_landmarker: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A public-domain portrait in the server's input folder."""
    path = tmp_path_factory.mktemp("portrait") / "workflows_portrait.png"
    Image.fromarray(still).save(path)
    return server.upload(path)


KEYFRAMES = "yaw: 0: 0, 7: 16\njawOpen: 0: 0, 7: 0.5"


@pytest.fixture(scope="module")
def edited(server: "Server", portrait: str) -> tuple["Run", Api]:
    """The still turned by 16 degrees in 8 frames: the example `edit_still`, and the driver of others."""
    api = changed("edit_still", {"Portrait.image": portrait, "FLAME Edit.keyframes": KEYFRAMES})
    return ran(server, api), api


@pytest.fixture(scope="module")
def driver(server: "Server", edited: tuple["Run", Api]) -> str:
    (file,) = files(server, *edited, "Save Video")
    return server.upload(file)


def test_edit_still(server: "Server", edited: tuple["Run", Api], still: np.ndarray, face_landmarker: Path) -> None:
    from test_comfy_server import yaws

    frames = video(server, *edited)
    assert frames.shape == (8, *still.shape)
    assert likeness(frames[0], still) > 30
    turned = yaws(frames, face_landmarker)
    assert 6 < abs(turned[-1] - turned[0]) < 22 and (np.diff(turned) * np.sign(turned[-1] - turned[0]) > -0.5).all()
    assert Image.open(files(server, *edited, "Report")[0]).width == 1024


@pytest.mark.parametrize("name", ["flow_warp_preview", "long_clip"])
def test_a_driver_on_a_portrait(server: "Server", name: str, portrait: str, driver: str, still: np.ndarray, face_landmarker: Path) -> None:
    from test_comfy_server import yaws

    api = changed(name, {"Portrait.image": portrait, "Driver.file": driver})
    frames = video(server, ran(server, api), api)
    assert frames.shape == (8, *still.shape)
    assert likeness(frames[0], still) > 30
    turned = yaws(frames, face_landmarker)
    assert 5 < abs(turned[-1] - turned[0]) < 22


@pytest.fixture(scope="module")
def mixed(server: "Server", portrait: str) -> tuple["Run", Api]:
    """The example `mix_drivers`: every sixth of its first frames."""
    values = {"Portrait.image": portrait, "FLAME Time.frames": 31, "FLAME Time.speed": 6.0, "3D Flow Encode.preview_frames": 1}
    api = changed("mix_drivers", values)
    return ran(server, api), api


def test_mix_drivers(server: "Server", mixed: tuple["Run", Api], still: np.ndarray, open_head: "HeadModel") -> None:
    from comfyui_flow3d.flow3d.io.motions import load_motion
    from comfyui_flow3d.flow3d.io.tracks import load_track

    run, api = mixed
    frames = video(server, run, api)
    assert frames.shape == (6, *still.shape)
    assert likeness(frames[0], still) > 30 and moved(frames) > 1.5
    kept = load_track(server.base / "output" / server.outputs(run)[titled(api, "Save Mixed Motion")]["text"][0])
    turn, talk = (load_motion(motion)[:31:6] for motion in ("turn", "talk"))
    assert len(kept) == 6 and np.allclose(kept.rotation, turn.rotation, atol=1e-4), "the head of the one"
    jaw = open_head.expression_names.index("jawOpen")
    assert np.ptp(talk.expression[:, jaw].numpy()) > 0.1 and np.allclose(kept.expression[:, jaw], talk.expression[:, jaw], atol=1e-4)


def test_two_people(server: "Server", still: np.ndarray, portrait: str, tmp_path: Path) -> None:
    people = np.hstack([still, still[:, ::-1]])
    Image.fromarray(people).save(tmp_path / "workflows_people.png")
    values = {"People.image": server.upload(tmp_path / "workflows_people.png")}
    values |= {f"{side} Time.frames": 40 for side in ("Left", "Right")} | {f"{side} Time.speed": 10.0 for side in ("Left", "Right")}
    api = changed("two_people", values)
    frames = video(server, ran(server, api), api)
    assert frames.shape == (4, *people.shape)
    assert likeness(frames[0], people) > 30
    left, right = frames[:, 60:200, 90:230], frames[:, 60:200, 538:678]
    assert moved(left) > 2 and moved(right) > 2
    assert likeness(left[-1], right[-1, :, ::-1]) < 28, "each has a motion of its own"
    for corner in (np.s_[:40, :40], np.s_[:40, -40:]):
        assert np.abs(frames[-1][corner].astype(float) - people[corner]).mean() < 5, "the background stays"


def test_flow_pictures(server: "Server", portrait: str, mixed: tuple["Run", Api]) -> None:
    run, api = mixed
    motion = server.outputs(run)[titled(api, "Save Mixed Motion")]["text"][0] + " [output]"
    values = {"Portrait.image": portrait, "Motion.track": motion, "3D Flow Visualize.frames": 2, "3D Flow Visualize.size": 96}
    api = changed("flow_pictures", values)
    run = ran(server, api)
    pictures = [np.asarray(Image.open(f).convert("RGB"), dtype=float) for f in files(server, run, api, "All Views")]
    assert len(pictures) == 2 and pictures[0].shape[1] > 3 * 96 and np.abs(pictures[1] - pictures[0]).mean() > 3
    assert "mm" in server.outputs(run)[titled(api, "3D Flow Visualize")]["text"][0]


# --- those with diffusion weights: all that comes before them -----------------------------------------------------------

SHORT = {"FLAME Time.frames": 31, "FLAME Time.speed": 30.0}  # frames 0 and 30


@pytest.mark.parametrize(
    ("name", "titles"),
    [
        ("appearance_only", ["Depth"]),
        ("depth_normal_controlnets", ["Depth", "Normals"]),
        ("refine_unseen", ["Warped", "Unseen"]),
    ],
)
def test_what_steers_a_sampler(server: "Server", portrait: str, name: str, titles: list[str]) -> None:
    api = only(changed(name, SHORT | {"Portrait.image": portrait}), titles)
    run = ran(server, api)
    for title in titles:
        frames = np.stack([np.asarray(Image.open(f).convert("RGB")) for f in files(server, run, api, title)])
        assert frames.shape == (2, 512, 512, 3)
        assert moved(frames) > 0.5 and frames[-1].std() > 8, title


def test_the_flow_that_steers(server: "Server", portrait: str, driver: str) -> None:
    values = {"Portrait.image": portrait, "Driver.file": driver, "First Frames.length": 5, "3D Flow Encode.preview_frames": 0}
    api = only(changed("fg_portrait", values), ["Flow Preview"])
    run = ran(server, api)
    frames = np.stack([np.asarray(Image.open(f).convert("RGB"), dtype=float) for f in files(server, run, api, "Flow Preview")])
    assert frames.shape == (5, 512, 512, 3)
    strength = (frames.max(-1) - frames.min(-1)).mean((1, 2))
    assert strength[0] < 1 and strength[-1] > 8, "no move in the first frame, a turn in the last"


def test_the_tracks_that_steer(server: "Server", portrait: str) -> None:
    values = {"Portrait.image": portrait, "FLAME Time.frames": 8, "Flow To Tracks.length": 5, "3D Flow Encode.preview_frames": 1}
    api = changed("tracks_for_wan", values)
    tracks = titled(api, "Flow To Tracks")
    assert api[titled(api, "Wan Track To Video")]["inputs"]["tracks"] == [tracks, 1]
    shown = {"class_type": "PreviewAny", "inputs": {"source": [tracks, 1]}, "_meta": {"title": "Shown"}}
    api = only(api | {"shown": shown}, ["Shown"])
    run = ran(server, api)
    paths = json.loads(server.outputs(run)["shown"]["text"][0])
    assert len(paths) > 60 and all(len(path) == 121 for path in paths)
    start = np.array([[path[0]["x"], path[0]["y"]] for path in paths])
    assert (start >= 0).all() and (start < 640).all()


@pytest.mark.parametrize("name", EXAMPLES)
def test_only_files_are_missing_as_shipped(server: "Server", name: str) -> None:
    """Before anybody chose a picture or got a weight: refused at once, by the names of the files, and for nothing else."""
    from comfy_server import Refused

    api = copy.deepcopy(shipped(name)[1])
    for node in api.values():  # other tests have sent this server pictures under the shipped names
        if node["class_type"] in ("LoadImage", "LoadVideo"):
            (key,) = FILES[node["class_type"]]
            node["inputs"][key] = f"unsent_{node['inputs'][key]}"
    with pytest.raises(Refused) as refused:
        server.run(api)
    told = set()
    for key, errors in refused.value.reply["node_errors"].items():
        node = api[key]
        for error in errors["errors"]:
            assert error["type"] in ("value_not_in_list", "custom_validation_failed"), error
            named = [node["inputs"][key] for key in FILES[node["class_type"]]]
            assert all(file in error["details"] for file in named), error
            told |= set(named)
    wanted = {n["inputs"][key] for n in api.values() for key in FILES.get(n["class_type"], ())}
    assert told == wanted and told
