"""The detector of 68 points, through the package's own code and loading; weights made by hand stand in for the published.

The made S3FD answers every white cell of 16 pixels with a box of 64 around it; the made 2DFAN-4 is random, and the package
itself, loading it in its own way, says what it should find.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from comfyui_flow3d.flow3d.errors import Flow3DError, InputError
from comfyui_flow3d.flow3d.fit.face_alignment import BOXES, POINTS, FaceAlignmentDetector, find_file

pytest.importorskip("face_alignment", reason="face-alignment is not installed: pip install --no-deps face-alignment")

SCORE = 1 / (1 + np.exp(-5.0))


def white_cell_detector() -> dict[str, torch.Tensor]:
    """S3FD's weights: brightness is passed on to one head, all other heads see background."""
    from face_alignment.detection.sfd.net_s3fd import s3fd

    state = {name: torch.zeros_like(value) for name, value in s3fd().state_dict().items()}
    state["conv1_1.weight"][0, :, 1, 1] = 1 / 3
    for name in ("1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3", "5_1", "5_2", "5_3"):
        state[f"conv{name}.weight"][0, 0, 1, 1] = 1
    state["conv5_3_norm.weight"].fill_(5)
    for name in [n for n in state if n.endswith("conf.bias")]:
        state[name][0] = 10  # background
    state["conv5_3_norm_mbox_conf.weight"][1, 0, 1, 1] = 3
    return state


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/face_alignment with both files."""
    from face_alignment.models import FAN

    made = tmp_path_factory.mktemp("face_alignment")
    torch.manual_seed(0)
    torch.save(FAN(4).state_dict(), made / POINTS)
    torch.save(white_cell_detector(), made / BOXES)
    return made


@pytest.fixture(autouse=True)
def nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Torch hub's folder is an empty one, and a download fails the test."""
    import face_alignment.utils

    def refused(url: str, *_: object, **__: object) -> None:
        raise AssertionError(f"asked for {url}")

    for module in (torch.hub, face_alignment.utils):
        monkeypatch.setattr(module, "download_url_to_file", refused)
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    yield
    torch.hub.set_dir(before)


@pytest.fixture(scope="module")
def detector(folder: Path) -> FaceAlignmentDetector:
    return FaceAlignmentDetector(folder / POINTS, folder / BOXES, max_faces=3)


def cells(side: int, *places: tuple[int, int], cell: int = 16) -> np.ndarray:
    """A black picture with white cells at (column, row)."""
    image = np.zeros((side, side, 3), np.uint8)
    for x, y in places:
        image[y * cell : (y + 1) * cell, x * cell : (x + 1) * cell] = 255
    return image


def from_the_package(folder: Path, image: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """(68, 2) what the package finds, its weights in torch hub's folder, where it looks by itself."""
    from face_alignment import FaceAlignment, LandmarksType

    checkpoints = Path(torch.hub.get_dir()) / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / POINTS).hardlink_to(folder / POINTS)
    aligner = FaceAlignment(LandmarksType.TWO_D, device="cpu", face_detector="folder", compile=False)
    return aligner.get_landmarks_from_image(image, detected_faces=[np.array([*box, 1.0])])[0]


def test_a_face_is_read_as_the_package_reads_it(detector: FaceAlignmentDetector, folder: Path) -> None:
    image = cells(320, (9, 6))
    image[image == 0] = np.random.default_rng(0).integers(0, 90, (image == 0).sum())  # too dark for a face
    (face,) = detector.detect(image)
    assert face.confidence == pytest.approx(SCORE, abs=1e-6)
    np.testing.assert_allclose(face.points68, from_the_package(folder, image, (120, 72, 184, 136)), atol=1e-4)
    assert np.isnan(face.points).all() and face.matrix is None
    assert detector.refine(image, face) is face
    assert detector.score(image) == pytest.approx(SCORE, abs=1e-6)


def test_a_large_picture_is_searched_small_and_read_whole(detector: FaceAlignmentDetector, folder: Path) -> None:
    """Twice 640 pixels: boxes are twice as large, around the same cells."""
    image = cells(1280, (9, 6), cell=32)
    (face,) = detector.detect(image)
    np.testing.assert_allclose(face.points68, from_the_package(folder, image, (240, 144, 368, 272)), atol=1e-4)


def test_several_faces_and_none(detector: FaceAlignmentDetector, folder: Path) -> None:
    places = ((3, 3), (12, 4), (6, 13), (15, 15))
    assert len(detector.detect(cells(320, *places))) == 3
    few = detector.detect(cells(320, *places[:2]))
    assert len(few) == 2 and few[0].size >= few[1].size
    assert detector.detect(cells(320)) == [] and detector.score(cells(320)) == 0
    sure = FaceAlignmentDetector(folder / POINTS, folder / BOXES, 3, min_confidence=0.999)
    assert sure.detect(cells(320, (9, 6))) == [] and sure.score(cells(320, (9, 6))) > 0.99
    with pytest.raises(InputError, match="needs an RGB image"):
        detector.detect(np.zeros((5, 5), np.uint8))


def test_files_are_found_in_a_folder_or_in_torch_hubs(folder: Path, tmp_path: Path) -> None:
    assert find_file(POINTS, [tmp_path, folder]) == folder / POINTS
    hub = Path(torch.hub.get_dir()) / "checkpoints"
    hub.mkdir(parents=True)
    (hub / BOXES).touch()
    assert find_file(BOXES, [tmp_path]) == hub / BOXES
    assert FaceAlignmentDetector.of_folders([folder]).detect(cells(320, (9, 6)))


@pytest.mark.parametrize("name", [POINTS, BOXES])
def test_a_missing_file_is_one_sentence(folder: Path, tmp_path: Path, name: str) -> None:
    other = POINTS if name == BOXES else BOXES
    (tmp_path / other).hardlink_to(folder / other)
    with pytest.raises(Flow3DError) as told:
        FaceAlignmentDetector.of_folders([tmp_path])
    text = str(told.value)
    assert text.startswith(f"{name}, which the detector 'face-alignment' needs, is missing: get it from https://") and "\n" not in text
    assert str(tmp_path) in text and "checkpoints" in text and "licence" in text


@pytest.mark.parametrize("content", ["empty", "text", "another network's", "pickle"])
@pytest.mark.parametrize("name", [POINTS, BOXES])
def test_a_broken_file_is_one_sentence(folder: Path, tmp_path: Path, name: str, content: str) -> None:
    for file in (POINTS, BOXES):
        if file != name:
            (tmp_path / file).hardlink_to(folder / file)
    path = tmp_path / name
    if content == "another network's":
        path.hardlink_to(folder / (POINTS if name == BOXES else BOXES))
    else:
        path.write_bytes({"empty": b"", "text": b"<html>404</html>", "pickle": b"cposix\nsystem\n(S'exit 7'\ntR."}[content])
    with pytest.raises(Flow3DError) as told:
        FaceAlignmentDetector.of_folders([tmp_path])
    text = str(told.value)
    assert text.startswith(f"{path}: face-alignment cannot load this file (") and f"get it again from https://www.adrianbulat.com/downloads/python-fan/{name}" in text
    assert "\n" not in text and len(text) < 500


def test_without_the_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "face_alignment", None)
    with pytest.raises(Flow3DError, match="needs the package of that name: run 'pip install face-alignment'"):
        FaceAlignmentDetector.of_folders([folder])
