"""Where weights are found, and what is said when they are not."""

import hashlib
from pathlib import Path

import pytest

from comfyui_flow3d.flow3d.errors import Flow3DError, InputError
from comfyui_flow3d.flow3d.paths import WEIGHTS, cache_folder, file_sha256, find_weight, weight_folders

NAME = "face_landmarker.task"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Empty folders in place of the user's own."""
    home, models, extra = tmp_path / "home", tmp_path / "models", tmp_path / "comfyui"
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(home))
    monkeypatch.setenv("FLOW3D_MODELS", str(models))
    places = {"cache": home / ".cache" / "flow3d", "models": models, "extra": extra}
    for folder in places.values():
        folder.mkdir(parents=True)
    return places


def test_order(places: dict[str, Path]) -> None:
    assert cache_folder() == places["cache"]
    assert weight_folders([places["extra"]]) == [places["extra"], places["models"], places["cache"]]
    for where in ("cache", "models", "extra"):  # each later one comes before the ones before it
        (places[where] / NAME).write_bytes(b"x")
        assert find_weight(NAME, [places["extra"]]) == places[where] / NAME
    assert find_weight(NAME) == places["models"] / NAME


def test_without_the_variable(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOW3D_MODELS")
    assert weight_folders() == [places["cache"]]


def test_missing_says_everything_in_one_sentence(places: dict[str, Path]) -> None:
    (places["models"] / NAME).write_bytes(b"")  # a download that never began is no file
    (places["cache"] / NAME).mkdir()
    with pytest.raises(Flow3DError) as caught:
        find_weight(NAME, [places["extra"]])
    message, wanted = str(caught.value), WEIGHTS[0]
    for part in (
        NAME,
        wanted.url,
        wanted.sha256,
        wanted.licence,
        "flow3d doctor --download",
        *map(str, places.values()),
    ):
        assert part in message
    assert "\n" not in message and not isinstance(caught.value, InputError)


def test_unknown_weight() -> None:
    with pytest.raises(InputError, match=f"'unheard.of'; it knows {NAME}"):
        find_weight("unheard.of")


def test_the_installed_weight_is_the_known_one(face_landmarker: Path) -> None:
    assert face_landmarker.stat().st_size == WEIGHTS[0].size
    assert file_sha256(face_landmarker) == WEIGHTS[0].sha256


def test_sha256(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "x").write_bytes(data)
    assert file_sha256(tmp_path / "x") == hashlib.sha256(data).hexdigest()
