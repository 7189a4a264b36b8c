"""Portrait Crop, Paste Back and Track Report on a real ComfyUI server."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from .comfy_server import Run, Server

CROP = {"size": 256, "box": "one box", "room": 1.0, "smoothing": 12.0, "min_confidence": 0.3}
PASTE = {"shape": "rounded square", "feather": 32, "colour_match": 1.0}
FIT = {"fps": 25.0, "field_of_view": 25.0, "min_confidence": 0.3, "missing_frames": "interpolate", "overlay_frames": 1}


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A public-domain portrait, 512 pixels a side."""
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed: use `python run.py test`")
    path = tmp_path_factory.mktemp("portrait") / "astronaut.png"
    Image.fromarray(data.astronaut()).save(path)
    return path


def saved(server: "Server", run: "Run", node: str) -> list[np.ndarray]:
    assert run.error is None
    shown = server.outputs(run)[node]["images"]
    return [np.array(Image.open(server.base / "output" / s["subfolder"] / s["filename"]).convert("RGB")) for s in shown]


def graph(image: str) -> dict:
    """A crop, put back as it is."""
    return {
        "image": {"class_type": "LoadImage", "inputs": {"image": image}},
        "crop": {"class_type": "Flow3DPortraitCrop", "inputs": {"image": ["image", 0], **CROP}},
        "paste": {
            "class_type": "Flow3DPasteBack",
            "inputs": {"result": ["crop", 0], "transform": ["crop", 1], "full_frame": ["image", 0], **PASTE},
        },
        "save": {"class_type": "SaveImage", "inputs": {"images": ["paste", 0], "filename_prefix": "pasted"}},
    }


@pytest.mark.usefixtures("face_landmarker")
def test_an_unchanged_crop_gives_the_picture_back(server: "Server", portrait: Path) -> None:
    prompt = graph(server.upload(portrait))
    (pasted,) = saved(server, server.run(prompt), "save")
    assert (pasted == np.array(Image.open(portrait))).all()


@pytest.mark.usefixtures("face_landmarker")
def test_a_still_is_repeated_for_every_result_and_other_counts_are_refused(server: "Server", portrait: Path) -> None:
    prompt = graph(server.upload(portrait))
    prompt["dark"] = {"class_type": "EmptyImage", "inputs": {"width": 256, "height": 256, "batch_size": 3, "color": 0}}
    prompt["paste"]["inputs"].update(result=["dark", 0], colour_match=0.0)
    pasted = saved(server, server.run(prompt), "save")
    original = np.array(Image.open(portrait))
    assert len(pasted) == 3 and all((p == pasted[0]).all() for p in pasted)
    assert (pasted[0] == 0).all(-1).mean() > 0.1 and (pasted[0][-40:] == original[-40:]).all()
    prompt["pair"] = {"class_type": "RepeatImageBatch", "inputs": {"image": ["image", 0], "amount": 2}}
    prompt["paste"]["inputs"]["full_frame"] = ["pair", 0]
    error = server.run(prompt).error
    assert error is not None and "the result has 3 frames, but the full frame has 2" in error


@pytest.mark.usefixtures("face_landmarker")
def test_a_track_places_the_crop_and_is_reported(server: "Server", portrait: Path) -> None:
    prompt = graph(server.upload(portrait))
    prompt["head"] = {"class_type": "Flow3DLoadHeadModel", "inputs": {"name": "open head"}}
    prompt["fit"] = {"class_type": "Flow3DFLAMEFit", "inputs": {"head": ["head", 0], "image": ["image", 0], **FIT}}
    prompt["by track"] = {"class_type": "Flow3DPortraitCrop", "inputs": {**prompt["crop"]["inputs"], "track": ["fit", 0]}}
    prompt["both"] = {"class_type": "ImageBatch", "inputs": {"image1": ["crop", 0], "image2": ["by track", 0]}}
    prompt["save"]["inputs"]["images"] = ["both", 0]
    prompt["report"] = {"class_type": "Flow3DTrackReport", "inputs": {"track": ["fit", 0], "width": 1024}}
    prompt["plot"] = {"class_type": "SaveImage", "inputs": {"images": ["report", 0], "filename_prefix": "plot"}}
    run = server.run(prompt)
    found, tracked = saved(server, run, "save")
    assert found.shape == (256, 256, 3) and np.abs(found.astype(int) - tracked).mean() < 12
    assert saved(server, run, "plot")[0].shape[1] == 1024
    (summary,) = server.outputs(run)["report"]["text"]
    assert summary.startswith("1 frame\n") and "yaw" in summary


@pytest.mark.usefixtures("face_landmarker")
def test_a_picture_without_a_face_says_so(server: "Server", tmp_path: Path) -> None:
    Image.new("RGB", (300, 200)).save(tmp_path / "blank.png")
    error = server.run(graph(server.upload(tmp_path / "blank.png"))).error
    assert error is not None and error.startswith("Portrait Crop: no face in any of 1 frames")
