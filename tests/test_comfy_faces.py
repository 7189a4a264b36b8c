"""FLAME Fit's choice of a face, and landmarks from a file or from another node, in a running ComfyUI."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from portrait_clips import background, crossing, cut_out, portrait

from comfyui_flow3d.flow3d.errors import Flow3DError
from comfyui_flow3d.flow3d.fit.detect import MediaPipeDetector
from comfyui_flow3d.flow3d.fit.faces import Face
from comfyui_flow3d.flow3d.io.tracks import load_track
from comfyui_flow3d.flow3d.io.video import VideoWriter
from comfyui_flow3d.flow3d.paths import find_weight

if TYPE_CHECKING:
    from .comfy_server import Run, Server

ROOT = Path(__file__).resolve().parents[1]

# ComfyUI 0.3.64, which the tests run, lacks the node that gives FACE_LANDMARKS. This one gives numbers from a file in its form.
OTHER_NODE = """
import json, numpy as np

class GiveFaceLandmarks:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"file": ("STRING", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("FACE_LANDMARKS",), "give", "tests"

    def give(self, file):
        value = json.load(open(file, encoding="utf-8"))
        for faces in value["frames"]:
            for face in faces:
                for name in ("landmarks_xy", "landmarks_3d"):
                    face[name] = np.array(face[name], np.float32)
        return (value,)

NODE_CLASS_MAPPINGS = {"GiveFaceLandmarks": GiveFaceLandmarks}
"""


@pytest.fixture(scope="module")
def comfy(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Server]":
    """A running ComfyUI with this checkout and the other node."""
    pytest.importorskip("websocket", reason="websocket-client is not installed: use `python run.py test`")
    from comfy_server import Server

    base = tmp_path_factory.mktemp("comfyui_faces")
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "other_node.py").write_text(OTHER_NODE, encoding="utf-8")
    try:
        (base / "custom_nodes" / "flow3d").symlink_to(ROOT, target_is_directory=True)
        model = find_weight("face_landmarker.task")
    except (OSError, Flow3DError) as error:
        pytest.skip(str(error))
    (base / "models" / "mediapipe").mkdir(parents=True)
    (base / "models" / "mediapipe" / model.name).symlink_to(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(base / "torch"))  # where torch hub's weights would be
        with Server(sys.executable, ROOT / "scripts" / "launch_comfyui.py", comfyui, base) as running:
            yield running


@pytest.fixture(scope="module")
def two_people(test_data: Path) -> Path:
    return test_data / "sources" / "two_people.jpg"


@pytest.fixture(scope="module")
def detector(face_landmarker: Path) -> Iterator[MediaPipeDetector]:
    with MediaPipeDetector(face_landmarker, max_faces=5) as made:
        yield made


@pytest.fixture(scope="module")
def faces(detector: MediaPipeDetector, two_people: Path) -> list[Face]:
    """Both people, from left to right."""
    image = np.array(Image.open(two_people).convert("RGB"))
    return sorted((detector.refine(image, face) for face in detector.detect(image)), key=lambda f: float(f.centre[0]))


def fits(server: "Server", upload: Path, settings: list[dict[str, Any]]) -> "Run":
    """One FLAME Fit of a picture or a video for each of the settings, its track saved."""
    return server.run(fitting(server, upload, settings))


def fitting(server: "Server", upload: Path, settings: list[dict[str, Any]]) -> dict[str, Any]:
    loader = ("LoadVideo", "file") if upload.suffix == ".mp4" else ("LoadImage", "image")
    prompt: dict[str, Any] = {
        "1": {"class_type": "Flow3DLoadHeadModel", "inputs": {"name": "open head"}},
        "2": {"class_type": loader[0], "inputs": {loader[1]: server.upload(upload)}},
    }
    for i, setting in enumerate(settings):
        shared = {"head": ["1", 0], "image": ["2", 0], "fps": 25.0, "field_of_view": 25.0, "min_confidence": 0.3,
                  "missing_frames": "interpolate", "overlay_frames": 1}  # fmt: skip
        if "file" in setting:
            prompt[f"{i}0"] = {"class_type": "GiveFaceLandmarks", "inputs": {"file": setting["file"]}}
            setting = {**setting, "face_landmarks": [f"{i}0", 0]}
            del setting["file"]
        prompt[f"{i}1"] = {"class_type": "Flow3DFLAMEFit", "inputs": {**shared, **setting}}
        prompt[f"{i}2"] = {"class_type": "PreviewAny", "inputs": {"source": [f"{i}1", 2]}}
        prompt[f"{i}3"] = {"class_type": "Flow3DSaveHeadTrack", "inputs": {"track": [f"{i}1", 0], "filename_prefix": "flow3d/face"}}
    return prompt


def tracks(server: "Server", run: "Run", count: int) -> tuple[list[Any], list[str]]:
    assert run.error is None
    shown = server.outputs(run)
    paths = [server.base / "output" / shown[f"{i}3"]["text"][0] for i in range(count)]
    return [load_track(path) for path in paths], [shown[f"{i}2"]["text"][0] for i in range(count)]


def test_two_people_by_index_file_and_socket(
    comfy: "Server", two_people: Path, faces: list[Face], tmp_path: Path
) -> None:
    """The right one of two: by its index, by a file of its points, and from another node's landmarks of both."""
    width, height = Image.open(two_people).size
    right = faces[1]
    content = {
        "points": right.points.tolist(), "depth": right.depth.tolist(), "scores": right.scores.tolist(),
        "matrix": None if right.matrix is None else right.matrix.tolist(), "confidence": 0.75, "width": width, "height": height,
    }  # fmt: skip
    (comfy.base / "input").mkdir(exist_ok=True)
    (comfy.base / "input" / "right.json").write_text(json.dumps(content), encoding="utf-8")
    listed = comfy.get("/object_info/Flow3DFLAMEFit")["Flow3DFLAMEFit"]["input"]["optional"]
    assert listed["landmarks_file"][1]["options"] == ["none", "right.json"] and listed["face_landmarks"][0] == "FACE_LANDMARKS"

    both = [{"landmarks_xy": f.points.tolist(), "landmarks_3d": np.c_[f.points, f.depth].tolist(), "score": 0.9} for f in faces]
    given = tmp_path / "both.json"
    given.write_text(json.dumps({"frames": [both], "image_size": [height, width]}), encoding="utf-8")
    run = fits(comfy, two_people, [
        {}, {"face_order": "left to right", "face_index": 0}, {"face_order": "left to right", "face_index": 1},
        {"landmarks_file": "right.json"}, {"face_order": "left to right", "face_index": 1, "file": str(given)},
    ])  # fmt: skip
    (_, by_left, by_right, by_file, by_socket), reports = tracks(comfy, run, 5)
    assert by_left.translation[0, 0] < -0.1 < 0.1 < by_right.translation[0, 0]
    np.testing.assert_allclose(by_file.translation, by_right.translation, atol=1e-3)
    np.testing.assert_allclose(by_file.rotation, by_right.rotation, atol=1e-3)
    np.testing.assert_allclose(by_socket.translation / by_socket.translation[:, 2:], by_right.translation / by_right.translation[:, 2:], atol=0.01)
    assert 0.5 < by_file.confidence.item() <= 0.75 < by_socket.confidence.item() <= 0.9
    for report, words in zip(reports, ("the largest is taken", "the leftmost is taken", "number 1 (left to right) is taken", "",
                                       "number 1 (left to right) is taken"), strict=True):  # fmt: skip
        assert f"2 faces in a picture, {words}" in report if words else "faces" not in report


def test_each_of_two_people_who_cross(comfy: "Server", detector: MediaPipeDetector, test_data: Path, tmp_path: Path) -> None:
    """Two FLAME Fits on one clip: the one goes from left to right, the other from right to left."""
    heads = []
    for name in ("s4", "s1"):
        image = portrait(test_data / "sources" / f"{name}.jpg")
        heads.append(cut_out(image, detector.detect(image)[0].box, 120))
    path, count = tmp_path / "crossing.mp4", 30
    with VideoWriter(path, 640, 360, 25) as writer:
        for frame in crossing(*heads, count, background()):
            writer.write(frame)
    order = {"face_order": "left to right"}
    run = fits(comfy, path, [{**order, "face_index": 0}, {**order, "face_index": 1}])
    (behind, front), reports = tracks(comfy, run, 2)
    for track, direction in ((behind, 1), (front, -1)):
        place = track.translation[:, 0] / track.translation[:, 2]
        assert len(track) == count and (direction * place.diff() > -0.002).all() and direction * (place[-1] - place[0]) > 0.15
    assert (front.state == 0).all() and 2 <= int((behind.state == 1).sum()) <= 10
    assert all("2 faces in a picture, " in report and "and followed" in report for report in reports)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"face_index": 7}, "FLAME Fit: there is no face number 7 (largest): there are 2 faces, numbers 0 to 1."),
        ({"face_order": "tallest"}, "FLAME Fit: 'face_order' is 'tallest', which is not one of largest, left to right"),
        ({"cuts": "maybe"}, "FLAME Fit: 'cuts' is 'maybe', which is not one of new track, error, ignore."),
        ({"detector": "dlib"}, "FLAME Fit: 'detector' is 'dlib', which is not one of MediaPipe, face-alignment."),
        ({"landmarks_file": "../secret.json"}, "FLAME Fit: '../secret.json' leads out of ComfyUI's input folder."),
        ({"landmarks_file": "broken.json"}, "FLAME Fit: broken.json: points has 3 points; it must have 478"),
        ({"detector": "face-alignment"}, "FLAME Fit: 2DFAN4-11f355bf06.pth.tar, which the detector 'face-alignment' needs, is missing: get it"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_sentence(
    comfy: "Server", two_people: Path, setting: dict[str, Any], says: str
) -> None:
    (comfy.base / "input").mkdir(exist_ok=True)
    (comfy.base / "input" / "broken.json").write_text('{"points": [[1, 2], [3, 4], [5, 6]]}', encoding="utf-8")
    (comfy.base / "secret.json").write_text("{}", encoding="utf-8")
    told = comfy.failure(fitting(comfy, two_people, [setting]))
    assert told.startswith(says) and "\n" not in told


def test_landmarks_twice_is_an_error(comfy: "Server", two_people: Path, tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text('{"frames": [], "image_size": [5, 5]}', encoding="utf-8")
    run = fits(comfy, two_people, [{"landmarks_file": "broken.json", "file": str(tmp_path / "none.json")}])
    assert run.error and run.error.startswith("FLAME Fit: both 'face landmarks' and a landmarks file are given.")
