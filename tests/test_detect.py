"""Face detection on pictures of every size, and what it refuses. The faces: skimage's astronaut and the test portraits."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from comfyui_flow3d.flow3d.errors import Flow3DError, InputError
from comfyui_flow3d.flow3d.fit.detect import MediaPipeDetector, _meant, _Square
from comfyui_flow3d.flow3d.fit.faces import Face

MIDDLE = 168  # between the eyes
EYES = 33, 263  # outer corners, the subject's right and left


@pytest.fixture(scope="module")
def detector(face_landmarker: Path) -> Iterator[MediaPipeDetector]:
    with MediaPipeDetector(face_landmarker, max_faces=3) as made:
        yield made


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return skimage.data.astronaut()


def eye_distance(points: np.ndarray) -> float:
    return float(np.linalg.norm(points[EYES[0]] - points[EYES[1]]))


def error(points: np.ndarray, expected: np.ndarray) -> float:
    """Mean distance of the points, as a share of the distance between the eyes."""
    return float(np.linalg.norm(points - expected, axis=1).mean()) / eye_distance(expected)


@pytest.fixture(scope="module")
def face(detector: MediaPipeDetector, astronaut: np.ndarray) -> Face:
    return detector.refine(astronaut, detector.detect(astronaut)[0])


def test_astronaut(detector: MediaPipeDetector, astronaut: np.ndarray) -> None:
    """The eyes lie where a person sees them in the picture; a smile is a smile."""
    (found,) = detector.detect(astronaut)
    assert found.points.shape == (478, 2) and found.points.dtype == np.float64
    assert found.depth.shape == (478,) and found.scores.shape == (51,)
    assert found.matrix is not None and found.matrix.shape == (4, 4)
    np.testing.assert_allclose(found.matrix[:3, :3] @ found.matrix[:3, :3].T, np.eye(3), atol=1e-4)
    assert 0.8 < found.confidence <= 1
    assert np.linalg.norm(found.points[468] - (203, 101)) < 2  # right iris
    assert np.linalg.norm(found.points[473] - (246.5, 103.5)) < 2  # left iris
    assert found.depth[1] < found.depth[234] and found.depth[1] < found.depth[454]  # the nose before the ears
    smile = found.scores[[43, 44]]  # mouthSmileLeft, mouthSmileRight
    assert smile.min() > 0.6 and found.scores[24] < 0.2  # jawOpen


def test_scores_are_in_mediapipes_order(
    face_landmarker: Path, astronaut: np.ndarray, detector: MediaPipeDetector
) -> None:
    """The landmarker itself, asked for its names, gives them alphabetically after '_neutral'."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        BaseOptions(model_asset_buffer=face_landmarker.read_bytes()), output_face_blendshapes=True
    )
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        result = landmarker.detect(mediapipe.Image(mediapipe.ImageFormat.SRGB, astronaut))
    names = [c.category_name for c in result.face_blendshapes[0]]
    assert names[0] == "_neutral" and names[1:] == sorted(names[1:]) and "tongueOut" not in names
    theirs = np.array([c.score for c in result.face_blendshapes[0]][1:])
    assert np.abs(detector.detect(astronaut)[0].scores - theirs).max() < 0.15
    points = np.array([(p.x, p.y) for p in result.face_landmarks[0]]) * astronaut.shape[1::-1]
    assert error(detector.detect(astronaut)[0].points, points) < 0.02


@pytest.mark.parametrize("size", [64, 128, 300, 1000, 8000])
def test_any_size(detector: MediaPipeDetector, astronaut: np.ndarray, face: Face, size: int) -> None:
    scale = size / 512
    image = cv2.resize(astronaut, (size, size), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    found = detector.detect(image)[0]
    limit = {64: 0.15, 128: 0.06}.get(size, 0.015)  # 64: the eyes are 7 pixels apart
    assert error(found.points, face.points * scale) < limit
    assert abs(found.depth - face.depth * scale).mean() < 2 * limit * eye_distance(face.points) * scale


def test_image_borders_do_not_shift_points(detector: MediaPipeDetector, astronaut: np.ndarray, face: Face) -> None:
    """Cutting the picture moves the points by what was cut, off by less than 1% of the distance between the eyes."""
    for left, top, right, bottom in ((0, 0, 300, 250), (120, 30, 420, 512), (37, 11, 512, 500)):
        found = detector.detect(np.ascontiguousarray(astronaut[top:bottom, left:right]))[0]
        assert error(found.points + (left, top), face.points) < 0.015


@pytest.mark.parametrize("share", [0.12, 0.06, 0.04])
def test_small_face_in_a_large_picture(
    detector: MediaPipeDetector, astronaut: np.ndarray, face: Face, share: float
) -> None:
    """The face, `share` of the picture's side, in a corner of a large plain picture."""
    scale = share * 1500 / face.size
    small = cv2.resize(astronaut[:250, 60:380], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    image = np.full((1500, 1500, 3), 128, np.uint8)
    image[700 : 700 + small.shape[0], 900 : 900 + small.shape[1]] = small
    found = detector.detect(image)
    assert found, f"no face of {share:.0%} of the picture"
    assert error(found[0].points, (face.points - (60, 0)) * scale + (900, 700)) < 0.03


@pytest.mark.parametrize("share", [1.0, 0.9, 0.8])
def test_face_that_fills_or_leaves_the_frame(
    detector: MediaPipeDetector, astronaut: np.ndarray, face: Face, share: float
) -> None:
    """A crop of the face's own size, and ones that cut forehead, chin and cheeks off."""
    left, top, right, bottom = face.box
    half = face.size * share / 2
    x, y = round((left + right) / 2 - half), round((top + bottom) / 2 - half)
    side = round(2 * half)
    found = detector.detect(np.ascontiguousarray(astronaut[y : y + side, x : x + side]))
    assert found and error(found[0].points + (x, y), face.points) < 0.03


@pytest.mark.parametrize("degrees", [-30, 15, 45])
def test_rolled_face(detector: MediaPipeDetector, astronaut: np.ndarray, face: Face, degrees: float) -> None:
    x, y = face.points[MIDDLE]
    turn = cv2.getRotationMatrix2D((float(x) - 0.5, float(y) - 0.5), degrees, 1.0)
    rolled = cv2.warpAffine(astronaut, turn, (512, 512))
    expected = (face.points - 0.5) @ turn[:, :2].T + turn[:, 2] + 0.5
    assert error(detector.detect(rolled)[0].points, expected) < 0.03


def test_pictures_without_a_face(detector: MediaPipeDetector) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (300, 500, 3), dtype=np.uint8)
    for image in (np.zeros((64, 64, 3), np.uint8), noise, skimage.data.coffee(), skimage.data.chelsea()):
        assert detector.detect(image) == []
        assert 0 <= detector.score(image) < 0.6
    for shape in ((1, 1, 3), (1, 700, 3), (900, 2, 3)):
        assert detector.detect(np.zeros(shape, np.uint8)) == []


def test_refuses_what_is_no_rgb_image(detector: MediaPipeDetector) -> None:
    for image in (
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((64, 64, 3), np.float32),
        np.zeros((0, 64, 3), np.uint8),
    ):
        with pytest.raises(InputError, match="needs an RGB image"):
            detector.detect(image)


def test_several_faces_the_largest_first(detector: MediaPipeDetector, astronaut: np.ndarray, face: Face) -> None:
    """The astronaut three times, at 0.65, 1 and 0.8 of her size."""
    image = np.full((520, 600, 3), 90, np.uint8)
    places = {}
    for scale, x, y in ((0.65, 20, 260), (1.0, 20, 5), (0.8, 330, 260)):
        part = cv2.resize(astronaut[:250, 60:380], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        image[y : y + part.shape[0], x : x + part.shape[1]] = part
        places[scale] = (face.points - (60, 0)) * scale + (x, y)
    found = detector.detect(image)
    assert len(found) == 3 and [f.size for f in found] == sorted((f.size for f in found), reverse=True)
    for one, scale in zip(found, (1.0, 0.8, 0.65), strict=True):
        assert error(one.points, places[scale]) < 0.03


def test_most_faces(face_landmarker: Path, astronaut: np.ndarray, face: Face) -> None:
    both = np.concatenate(
        [cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA), astronaut[:256, 100:356]], 1
    )
    with MediaPipeDetector(face_landmarker, max_faces=1) as one:
        (largest,) = one.detect(np.ascontiguousarray(both))
    assert largest.box[0] > 256  # the right one, twice as large


def test_frames_do_not_depend_on_each_other(detector: MediaPipeDetector, astronaut: np.ndarray) -> None:
    first = detector.detect(astronaut)[0]
    detector.detect(np.ascontiguousarray(astronaut[:, ::-1]))
    second = detector.detect(astronaut)[0]
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_array_equal(first.scores, second.scores)


def jitter(read: list[np.ndarray]) -> float:
    """Standard deviation of points read from shifted pictures, as a share of the distance between the eyes."""
    stack = np.array(read)
    return float(np.sqrt(stack.var(0).sum(1)).mean()) / eye_distance(stack[0])


def test_refine_is_steadier(detector: MediaPipeDetector, astronaut: np.ndarray) -> None:
    """Pictures shifted by a few pixels: refined points move by less than half as much."""
    plain, refined = [], []
    for x, y in ((0, 0), (1, 0), (0, 1), (3, 2), (2, 5), (5, 3)):
        image = np.ascontiguousarray(astronaut[y : y + 500, x : x + 500])
        found = detector.detect(image)[0]
        better = detector.refine(image, found)
        plain.append(found.points + (x, y))
        refined.append(better.points + (x, y))
        assert error(better.points, found.points) < 0.01
    assert jitter(plain) < 0.005
    assert jitter(refined) < 0.5 * jitter(plain)


def test_refine_without_a_face_returns_what_it_got(detector: MediaPipeDetector, face: Face) -> None:
    assert detector.refine(np.zeros((512, 512, 3), np.uint8), face) is face


def test_test_portraits(detector: MediaPipeDetector, test_data: Path) -> None:
    """Every portrait's face is found, both of two people."""
    pictures = sorted((test_data / "sources").glob("*.jpg"))
    assert pictures
    for path in pictures:
        found = detector.detect(np.array(Image.open(path).convert("RGB")))
        assert len(found) == (2 if path.stem == "two_people" else 1), path.name
        assert found[0].confidence > 0.8, path.name


def test_unusable_model_files(tmp_path: Path) -> None:
    for content in (b"", b"not a model", b"PK\x05\x06" + b"\0" * 18):
        path = tmp_path / "face_landmarker.task"
        path.write_bytes(content)
        with pytest.raises(Flow3DError, match="face_landmarker.task.*download it again"):
            MediaPipeDetector(path)
    with pytest.raises(Flow3DError, match="absent.task"):
        MediaPipeDetector(tmp_path / "absent.task")


def test_says_nothing(face_landmarker: Path, tmp_path: Path) -> None:
    """No native log lines, not even from a program that never closes its detector."""
    program = (
        "import sys, skimage.data; from pathlib import Path\n"
        "from comfyui_flow3d.flow3d.fit.detect import MediaPipeDetector\n"
        "detector = MediaPipeDetector(Path(sys.argv[1]))\n"
        "assert len(detector.detect(skimage.data.astronaut())) == 1\n"
    )
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    run = subprocess.run(
        [sys.executable, "-c", program, str(face_landmarker)],
        capture_output=True, text=True, encoding="utf-8", cwd=tmp_path, env=env, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout == "" and run.stderr == ""


def test_errors_reach_stderr_again(detector: MediaPipeDetector, capfd: pytest.CaptureFixture) -> None:
    """Once it is built, the process's stderr is what it was."""
    os.write(2, b"still there\n")
    assert "still there" in capfd.readouterr().err


def test_a_face_within_a_face_is_not_meant(face: Face) -> None:
    """The landmarker reads a face a third as large beside the nose of some wide open mouths; its middle may be nearer."""
    left, top, right, bottom = face.box
    x, y = face.centre
    square = _Square(x + 0.1 * (right - left), y - 0.05 * (bottom - top), right - left)
    within = replace(face, points=(face.points - face.centre) / 3 + (square.x, square.y))
    beside = replace(face, points=face.points + (1.2 * (right - left), 0))
    assert _meant([within, face, beside], square) is face
    assert _meant([within, face, beside], replace(square, x=square.x + 1.2 * (right - left))) is beside
    assert _meant([beside], replace(square, x=square.x - 0.5 * square.side)) is None and _meant([], square) is None
