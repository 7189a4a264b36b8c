"""ComfyUI's FACE_LANDMARKS, as its node builds them, become the faces that our own detector finds in the same picture."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from scipy.spatial.transform import Rotation

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.fit.comfy_landmarks import landmarks_from_comfy
from comfyui_flow3d.flow3d.fit.detect import MediaPipeDetector
from comfyui_flow3d.flow3d.fit.faces import Face

SIDE = 900


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """The astronaut in the lower right corner of a large picture."""
    canvas = np.full((700, SIDE, 3), 90, np.uint8)
    canvas[330:630, 560:880] = skimage.data.astronaut()[:300, 60:380]
    return canvas


@pytest.fixture(scope="module")
def native(image: np.ndarray, face_landmarker: Path) -> dict[str, Any]:
    """What ComfyUI's node gives, from MediaPipe's own landmarker on the whole picture, whose networks and conventions it
    carries over: pixels, crop units of 192 a side in a turned and stretched crop, names, and the matrix."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        BaseOptions(model_asset_buffer=face_landmarker.read_bytes()), num_faces=2, min_face_detection_confidence=0.3,
        output_face_blendshapes=True, output_facial_transformation_matrixes=True,
    )  # fmt: skip
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        result = landmarker.detect(mediapipe.Image(mediapipe.ImageFormat.SRGB, image))
    height, width = image.shape[:2]
    (found,) = result.face_landmarks
    points = np.array([(p.x * width, p.y * height) for p in found])
    across, down, angle = 250 / 192, 270 / 192, 0.15  # pixels a crop unit
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    crop = (points - points.mean(0)) @ turn / (across, down) + 96
    relief = np.array([p.z for p in found]) * width / across
    face = {
        "bbox_xyxy": np.concatenate([points.min(0), points.max(0)]).astype(np.float32),
        "blendshapes": {c.category_name: c.score for c in result.face_blendshapes[0]},
        "landmarks_xy": points.astype(np.float32),
        "landmarks_3d": np.c_[crop, relief].astype(np.float32),
        "presence": 20.0,
        "score": 0.93,
        "transformation_matrix": np.array(result.facial_transformation_matrixes[0], np.float32),
    }
    return {"frames": [[face], []], "image_size": (height, width), "connection_sets": {"lips": frozenset({(0, 1)})}}


@pytest.fixture(scope="module")
def ours(image: np.ndarray, face_landmarker: Path) -> Face:
    with MediaPipeDetector(face_landmarker) as detector:
        return detector.detect(image)[0]


def test_the_same_face(native: dict[str, Any], image: np.ndarray, ours: Face) -> None:
    height, width = image.shape[:2]
    (face,) = landmarks_from_comfy(native).faces(0, width, height)
    eyes = np.linalg.norm(ours.points[33] - ours.points[263])
    assert np.linalg.norm(face.points - ours.points, axis=1).mean() < 0.03 * eyes
    depth = face.depth - face.depth.mean() - (ours.depth - ours.depth.mean())
    assert np.abs(depth).mean() < 0.06 * eyes
    assert np.abs(face.scores - ours.scores).max() < 0.25 and np.abs(face.scores - ours.scores).mean() < 0.04
    assert face.confidence == pytest.approx(0.93)


def test_the_matrix_is_brought_to_a_camera_that_looks_at_the_face(native: dict[str, Any], image: np.ndarray, ours: Face) -> None:
    """Off the middle MediaPipe's matrix of the whole picture is turned by what its wide camera adds, and turned back."""
    height, width = image.shape[:2]
    (face,) = landmarks_from_comfy(native).faces(0, width, height)
    camera = Camera.from_field_of_view(width, height)

    def off(matrix: np.ndarray) -> float:
        given = Face(face.points, face.depth, face.scores, matrix, 1.0)
        return float(np.degrees(Rotation.from_matrix(given.turn(camera) @ ours.turn(camera).T).magnitude()))

    assert face.matrix is not None
    assert off(face.matrix) < 4
    assert off(native["frames"][0][0]["transformation_matrix"].astype(float)) > 2 * off(face.matrix)


def test_frames_and_sizes(native: dict[str, Any], image: np.ndarray) -> None:
    height, width = image.shape[:2]
    landmarks = landmarks_from_comfy(native)
    assert landmarks.faces(1, width, height) == []
    (face,), (double,) = landmarks.faces(0, width, height), landmarks.faces(0, 2 * width, 2 * height)
    np.testing.assert_allclose(double.points, 2 * face.points)
    with pytest.raises(InputError, match="belong to a picture of 900 x 700 pixels"):
        landmarks.faces(0, 512, 512)
    with pytest.raises(InputError, match="face landmarks: landmarks of 2 frames, but the clip goes on"):
        landmarks.faces(2, width, height)


def test_filled_frames_may_lack_matrix_and_names(native: dict[str, Any], image: np.ndarray) -> None:
    bare = deepcopy(native)
    for name in ("blendshapes", "transformation_matrix", "landmarks_3d"):
        del bare["frames"][0][0][name]
    (face,) = landmarks_from_comfy(bare).faces(0, *image.shape[1::-1])
    assert face.matrix is None and np.isnan(face.scores).all() and np.isnan(face.depth).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v: None, "frames is missing"),
        (lambda v: [v], "frames is missing"),
        (lambda v: {**v, "frames": 3}, "frames is missing"),
        (lambda v: {**v, "image_size": None}, r"image_size is not \(height, width\)"),
        (lambda v: {**v, "image_size": (0, 5)}, "image_size is 0 x 5"),
        (lambda v: {**v, "frames": [None]}, r"frames\[0\] is not a list of faces"),
        (lambda v: {**v, "frames": [["face"]]}, r"frames\[0\]\[0\] is not a face"),
        (lambda v: {**v, "frames": [[{}]]}, r"frames\[0\]\[0\].landmarks_xy has the shape \(\), not \(478, 2\)"),
        (lambda v: {**v, "frames": [[{"landmarks_xy": [["a"]]}]]}, r"frames\[0\]\[0\].landmarks_xy has no numbers"),
        (lambda v: {**v, "frames": [[{"landmarks_xy": np.full((478, 2), np.nan)}]]}, "landmarks_xy has the shape .* or a NaN"),
        (lambda v: {**v, "frames": [[{**v["frames"][0][0], "transformation_matrix": np.zeros((4, 4))}]]}, "transformation_matrix is singular"),
    ],
)  # fmt: skip
def test_what_another_node_may_call_face_landmarks(native: dict[str, Any], change: Any, says: str) -> None:
    with pytest.raises(InputError, match=f"FLAME Fit: 'face landmarks' is not what ComfyUI's node .* gives: .*{says}"):
        landmarks_from_comfy(change(deepcopy(native)))
