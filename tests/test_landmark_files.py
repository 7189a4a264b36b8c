"""Landmarks files: what is read is what was written, in any of the forms; every broken file is told by field."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data

from comfyui_flow3d.flow3d.demo import LANDMARKS, load_face
from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.fit.faces import Face
from comfyui_flow3d.flow3d.fit.given import GivenFaces, Landmarks
from comfyui_flow3d.flow3d.fit.mediapipe_points import BLENDSHAPES
from comfyui_flow3d.flow3d.io.landmarks import read_landmarks

WIDTH, HEIGHT = 400, 300
DENSE = np.random.default_rng(0).uniform(50, 250, (478, 2)).round(2)
SPARSE = np.random.default_rng(1).uniform(50, 250, (68, 2)).round(2)


def written(path: Path, content: Any) -> Landmarks:
    """A file with the content, JSON or arrays, read again."""
    if path.suffix == ".npz":
        np.savez(path, **content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_landmarks(path)


def rows(points: np.ndarray) -> list:
    return [None if np.isnan(row).any() else row.tolist() for row in points]


def same(face: Face, points: np.ndarray) -> None:
    ours, theirs = (face.points, face.points68) if len(points) == 478 else (face.points68, face.points)
    np.testing.assert_allclose(ours, points, atol=1e-9)
    assert np.isnan(theirs).all()


@pytest.mark.parametrize("points", [DENSE, SPARSE], ids=["478", "68"])
@pytest.mark.parametrize("form", ["points", "faces", "frames", "a face a frame", "npz 2", "npz 3", "npz 4", "normalised", "npz normalised"])
def test_every_form_of_one_face(tmp_path: Path, points: np.ndarray, form: str) -> None:
    """The same face from a file of each form, at the same pixels."""
    face, shares = {"points": rows(points)}, points / (WIDTH, HEIGHT)
    contents: dict[str, Any] = {
        "points": face,
        "faces": {"faces": [face]},
        "frames": {"frames": [[face]]},
        "a face a frame": {"frames": [face], "comment": "placed by hand"},
        "npz 2": {"points": points},
        "npz 3": {"points": points[None]},
        "npz 4": {"points": points[None, None].astype(np.float32)},
        "normalised": {"points": rows(shares), "units": "normalised"},
        "npz normalised": {"points": shares, "units": "normalised"},
    }
    name = "face.npz" if form.startswith("npz") else "face.json"
    read = written(tmp_path / name, contents[form])
    (found,) = read.faces(0, WIDTH, HEIGHT)
    np.testing.assert_allclose(found.points if len(points) == 478 else found.points68, points, atol=1e-4)
    assert np.isnan(found.points68 if len(points) == 478 else found.points).all()
    assert found.confidence == 1 and found.matrix is None and np.isnan(found.scores).all()


def test_several_faces_and_missing_frames(tmp_path: Path) -> None:
    """Two faces, none, one: from JSON and from arrays; the largest comes first."""
    large = DENSE * 1.2
    content = {"frames": [[{"points": rows(DENSE), "confidence": 0.5}, {"points": rows(large)}], None, [], {"points": rows(DENSE)}]}
    arrays = np.full((4, 2, 478, 2), np.nan)
    arrays[0, 0], arrays[0, 1], arrays[3, 1] = DENSE, large, DENSE
    confidence = np.ones((4, 2))
    confidence[0, 0] = 0.5
    for path, value in ((tmp_path / "a.json", content), (tmp_path / "a.npz", {"points": arrays, "confidence": confidence})):
        read = written(path, value)
        faces = [read.faces(i, WIDTH, HEIGHT) for i in range(4)]
        assert [len(f) for f in faces] == [2, 0, 0, 1]
        same(faces[0][0], large)
        same(faces[0][1], DENSE)
        assert faces[0][1].confidence == 0.5
        same(faces[3][0], DENSE)


def test_unseen_points_and_missing_irises(tmp_path: Path) -> None:
    points = DENSE.copy()
    points[:400] = np.nan
    (face,) = written(tmp_path / "a.json", {"points": rows(points)}).faces(0, WIDTH, HEIGHT)
    same(face, points)
    (face,) = written(tmp_path / "b.json", {"points": rows(DENSE[:468])}).faces(0, WIDTH, HEIGHT)
    np.testing.assert_array_equal(face.points[:468], DENSE[:468])
    assert np.isnan(face.points[468:]).all()


def test_depth_scores_and_matrix(tmp_path: Path) -> None:
    """MediaPipe's own output, normalised: depth goes with the width; scores by name or in order; what is left out is 0."""
    depth = np.linspace(-0.1, 0.1, 478)
    matrix = np.diag([2.0, 2.0, 2.0, 1.0])
    content = {
        "points": np.c_[DENSE / (WIDTH, HEIGHT), depth].tolist(), "units": "normalised", "confidence": 0.8,
        "scores": {"jawOpen": 0.4, "_neutral": 0.1, "tongueOut": 0.3}, "matrix": matrix.tolist(),
    }  # fmt: skip
    (face,) = written(tmp_path / "a.json", content).faces(0, WIDTH, HEIGHT)
    np.testing.assert_allclose(face.depth, depth * WIDTH)
    assert face.scores[BLENDSHAPES.index("jawOpen")] == 0.4 and face.scores.sum() == 0.4
    np.testing.assert_array_equal(face.matrix, matrix)
    scores = np.linspace(0, 1, 51)
    arrays = {"points": np.c_[DENSE, depth * WIDTH], "scores": scores, "matrix": matrix, "confidence": 0.8}
    (again,) = written(tmp_path / "a.npz", arrays).faces(0, WIDTH, HEIGHT)
    np.testing.assert_allclose(again.depth, face.depth)
    np.testing.assert_array_equal(again.scores, scores)
    assert again.confidence == 0.8


def test_the_bundled_face_is_a_landmarks_file() -> None:
    """The demo's landmarks of skimage's astronaut, read as any user's file."""
    (face,) = read_landmarks(LANDMARKS).faces(0, *skimage.data.astronaut().shape[1::-1])
    known = load_face(LANDMARKS)
    for name in ("points", "depth", "scores", "matrix"):
        np.testing.assert_array_equal(getattr(face, name), getattr(known, name))
    assert face.confidence == known.confidence


def test_a_picture_of_another_size(tmp_path: Path) -> None:
    read = written(tmp_path / "a.json", {"points": rows(DENSE), "width": WIDTH, "height": HEIGHT})
    same(read.faces(0, WIDTH, HEIGHT)[0], DENSE)
    same(read.faces(0, WIDTH * 2, HEIGHT * 2)[0], DENSE * 2)
    with pytest.raises(InputError, match="a.json: the landmarks belong to a picture of 400 x 300 pixels, but the picture has 300 x 300"):
        read.faces(0, 300, 300)
    unnamed = written(tmp_path / "b.json", {"points": rows(DENSE)})
    same(unnamed.faces(0, 999, 500)[0], DENSE)
    same(unnamed.of_picture(WIDTH, HEIGHT).faces(0, WIDTH // 2, HEIGHT // 2)[0], DENSE / 2)


def test_played_back_as_a_detector(tmp_path: Path) -> None:
    detector = GivenFaces(written(tmp_path / "a.json", {"frames": [{"points": rows(DENSE)}, None, {"points": rows(DENSE + 5)}]}))
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    assert detector.left == 3
    (face,) = detector.detect(image)
    assert detector.refine(image, face) is face and detector.score(image) == 0
    assert detector.detect(image) == [] and detector.left == 1
    same(detector.detect(image)[0], DENSE + 5)
    with pytest.raises(InputError, match="a.json: landmarks of 3 frames, but the clip goes on"):
        detector.detect(image)


FACE = {"points": rows(SPARSE)}


def changed(**fields: Any) -> dict:
    return {**FACE, **fields}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "not readable JSON: expecting value in line 1"),
        ("{", "not readable JSON: .* in line 1, column 2"),
        ("[" * 100000, "not readable JSON: its lists are nested too deep"),
        ("[]", r"is \[\]; it must be an object"),
        ('{"points": NaN}', "has a NaN; write null"),
        ('{"points": [[Infinity, 0]]}', "has a Infinity; write null"),
        ("{}", "one of points .*, faces .* and frames"),
        ({**FACE, "faces": []}, "one of points"),
        ({"pionts": []}, "unknown field 'pionts'; use frames, faces, units"),
        ({"points": None}, "points is missing; it must be a list"),
        ({"points": 5}, "points is 5; it must be a list"),
        ({"points": rows(SPARSE)[:67]}, "points has 67 points; it must have 478 .*, 468 .* or 68"),
        ({"points": [None] * 68}, "points has fewer than 8 points that are not null"),
        ({"points": [*rows(SPARSE)[:67], "x"]}, r'points\[67\] is "x"; it must be a list'),
        ({"points": [*rows(SPARSE)[:67], [1]]}, r"points\[67\] has 1 numbers; a point is \[x, y\]"),
        ({"points": [*rows(SPARSE)[:67], [1, True]]}, r"points\[67\]\[1\] is true; it must be a finite number"),
        ({"points": [*rows(SPARSE)[:67], [1, "2"]]}, r'points\[67\]\[1\] is "2"; it must be a finite number'),
        ('{"points": [' + "[1, 2]," * 67 + "[1e999, 2]]}", r"points\[67\]\[0\] is Infinity; it must be a finite number"),
        ('{"points": [' + "[1, 2]," * 67 + f"[1{'0' * 400}, 2]]}}", r"points\[67\]\[0\] is 1000.*; it must be a finite number"),
        ({"points": [*rows(SPARSE)[:67], [1, 2, 3]]}, r"points mixes \[x, y\] and \[x, y, z\]"),
        ({"points": [[1, 2, 3]] * 68}, r"points has \[x, y, z\]; 68 points must be \[x, y\]"),
        (changed(depth=[0] * 68), "depth belongs to 478 points"),
        ({"points": rows(DENSE), "depth": [0] * 5}, "depth has 5 numbers"),
        (changed(scores=[0.5] * 52), "scores has 52 numbers; it must have 51, or be an object"),
        (changed(scores={"smile": 1}), "scores has an unknown field 'smile'"),
        (changed(scores={"jawOpen": 1.5}), "scores.jawOpen is 1.5; it must be between 0 and 1"),
        (changed(confidence=-1), "confidence is -1; it must be between 0 and 1"),
        (changed(confidence="high"), 'confidence is "high"; it must be a finite number'),
        (changed(matrix=[[1, 0], [0, 1]]), "matrix must be 4 rows of 4 numbers"),
        (changed(matrix=np.zeros((4, 4)).tolist()), "matrix must be a rotation"),
        (changed(units="inches"), 'units is "inches"; it must be pixels or normalised'),
        (changed(units=["pixels"]), r'units is \["pixels"\]; it must be pixels or normalised'),
        (changed(width=400), "height is missing; give width and height, or neither"),
        (changed(width=0, height=300), "width is 0; it must be at least 1 pixel"),
        (changed(units="normalised"), "units are 'normalised', but points are far beyond 1"),
        ({"frames": {}}, r"frames is \{\}; it must be a list"),
        ({"frames": []}, "no face in any of 0 frames"),
        ({"frames": [None, []]}, "no face in any of 2 frames"),
        ({"frames": [FACE, 3]}, r"frames\[1\] is 3; it must be a list"),
        ({"frames": [FACE, [FACE, {"points": [1]}]]}, r"frames\[1\]\[1\].points\[0\] is 1; it must be a list"),
        ({"frames": [{}]}, r"frames\[0\].points is missing"),
        ({"faces": [None]}, r"faces\[0\] is null; it must be an object"),
    ],
)
def test_broken_json(tmp_path: Path, content: Any, says: str) -> None:
    with pytest.raises(InputError, match=f"^mine.json: .*{says}") as told:
        written(tmp_path / "mine.json", content)
    assert len(str(told.value)) < 400 and "\n" not in str(told.value)


def test_broken_bytes(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(b"\xff\xfe\x00\x80{}")
    with pytest.raises(InputError, match="mine.json: not a JSON file"):
        read_landmarks(path)
    for name in ("absent.json", "absent.npz"):
        with pytest.raises(InputError, match=f"{name}: cannot be read"):
            read_landmarks(tmp_path / name)
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match="folder.npz: "):
        read_landmarks(tmp_path / "folder.npz")
    with pytest.raises(InputError, match="mine.txt: not a landmarks file. Use .json or .npz"):
        read_landmarks(tmp_path / "mine.txt")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({}, "points is missing"),
        ({"landmarks": DENSE}, "it has an array 'landmarks'"),
        ({"points": np.array(["a"])}, "points has numbers of type <U1"),
        ({"points": np.array([{}], dtype=object)}, "points is an array of object, not of numbers"),
        ({"points": DENSE.astype(complex)}, "points is an array of complex128, not of numbers"),
        ({"points": DENSE[0]}, r"points has the shape \(2,\)"),
        ({"points": DENSE[:, [0, 0, 0, 1]]}, r"points has the shape \(478, 4\)"),
        ({"points": DENSE[None, None, None]}, "points has the shape"),
        ({"points": DENSE[:100]}, r"points\[0\]\[0\] has 100 points"),
        ({"points": np.where(np.arange(478)[:, None] == 3, np.inf, DENSE)}, r"points\[0\]\[0\] has an infinity"),
        ({"points": np.where(np.arange(956).reshape(478, 2) == 8, np.nan, DENSE)}, r"points\[0\]\[0\] has an infinity, or a point of which"),
        ({"points": DENSE * np.nan}, "no face in any of 1 frames"),
        ({"points": DENSE[None].repeat(3, 0), "confidence": np.ones(2)}, r"confidence has the shape \(2,\)"),
        ({"points": DENSE, "confidence": np.array(np.nan)}, r"confidence\[0\]\[0\] has a NaN"),
        ({"points": DENSE, "confidence": np.array(2.0)}, r"confidence\[0\]\[0\] is 2; it must be between 0 and 1"),
        ({"points": DENSE, "scores": np.ones(52)}, r"scores has the shape \(52,\)"),
        ({"points": DENSE, "matrix": np.zeros((4, 4))}, r"matrix\[0\]\[0\] must be a rotation"),
        ({"points": DENSE, "units": np.array("cm")}, 'units is "cm"'),
        ({"points": DENSE, "units": np.array(["pixels"] * 2)}, r"units has the shape \(2,\)"),
        ({"points": DENSE, "width": np.array(3.0)}, "height is missing"),
    ],
)
def test_broken_arrays(tmp_path: Path, arrays: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(InputError, match=f"^mine.npz: .*{says}") as told:
        written(tmp_path / "mine.npz", arrays)
    assert len(str(told.value)) < 400 and "\n" not in str(told.value)


def test_hostile_archives(tmp_path: Path) -> None:
    """No archive, half an archive, one that claims terabytes, one that grows, one with a header of nonsense."""
    path = tmp_path / "mine.npz"
    np.savez(path, points=DENSE)
    whole = path.read_bytes()
    huge = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 478, 2), }".ljust(117) + b"\n"

    def archive(content: bytes, compress: int = zipfile.ZIP_STORED) -> bytes:
        with zipfile.ZipFile(path, "w", compress) as made:
            made.writestr("points.npy", content)
        return path.read_bytes()

    broken: dict[str, Callable[[], bytes]] = {
        "empty": lambda: b"",
        "text": lambda: b"hello",
        "half": lambda: whole[: len(whole) // 2],
        "flipped": lambda: whole[:300] + bytes(b ^ 255 for b in whole[300:600]) + whole[600:],
        "terabytes": lambda: archive(huge),
        "bomb": lambda: archive(bytes(1 << 23), zipfile.ZIP_DEFLATED),
        "nonsense": lambda: archive(b"\x93NUMPY\x01\x00v\x00" + b"(" * 118),
        "no array": lambda: archive(b"text"),
    }
    for name, content in broken.items():
        path.write_bytes(content())
        says = "points is (no array|declared as)" if name in ("terabytes", "bomb", "nonsense", "no array") else "(no|an) npz file"
        with pytest.raises(InputError, match=f"^mine.npz: {says}"):
            read_landmarks(path)
            raise AssertionError(name)


def test_points_that_cannot_be_of_this_picture(tmp_path: Path) -> None:
    small = written(tmp_path / "a.json", {"frames": [None, {"points": rows(DENSE / 1000)}]})
    with pytest.raises(InputError, match="a.json: the face in frame 1 is 0.2 pixels large. Set the units .* to 'normalised'"):
        small.faces(1, WIDTH, HEIGHT)
    far = written(tmp_path / "b.json", {"points": rows(DENSE + 1e6)})
    with pytest.raises(InputError, match="b.json: points of frame 0 lie far outside the picture of 400 x 300 pixels"):
        far.faces(0, WIDTH, HEIGHT)
