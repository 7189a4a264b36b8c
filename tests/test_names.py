"""Names of files that somebody else has chosen."""

from pathlib import Path

import pytest

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.io import names
from comfyui_flow3d.flow3d.io.names import path_within


@pytest.mark.parametrize(
    "name", ["a.csv", "flow3d/track_00001_.safetensors", "b c/ä.npz", "..a", "a..b/c", "console.csv", "com10", "-"]
)
def test_names_within_the_folder(tmp_path: Path, name: str) -> None:
    for new in (False, True):
        assert path_within(tmp_path, name, new=new) == tmp_path.resolve() / name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "no name"), ("  ", "no name"), ("..", "out of here"), ("a/../../b", "out of here"), ("a\\..\\..\\b", "out of here"),
        ("a/.. /b", "out of here"), ("/etc/passwd", "whole path"), ("\\\\server\\share\\x", "whole path"), ("//server/share", "whole path"),
        ("C:\\x", "whole path"), ("c:x", "whole path"), ("CON", "device"), ("a/nul.csv", "device"), ("LPT1 .txt", "device"),
        ("com²", "device"), ("a\0b", "printed"), ("a\nb", "printed"), ("\ud800", "printed"), ("a\u202eb", "printed"),
        ("x" * 256, "longer"), ("d/" * 600 + "x", "longer"),
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(InputError, match=f"{says}.*Give the name of a file within here."):
        path_within(tmp_path, name, "here")


@pytest.mark.parametrize("name", ["ab:c", "a.csv:stream", "a.", "a /b"])
def test_names_that_windows_has_not(tmp_path: Path, name: str) -> None:
    """They are refused where a file is made, and in Windows; elsewhere such a file may be there."""
    with pytest.raises(InputError, match="not a name in Windows"):
        path_within(tmp_path, name, new=True)
    if names.os.name != "nt":
        assert path_within(tmp_path, name) == tmp_path.resolve() / name


def test_links(tmp_path: Path) -> None:
    """A link within the folder is followed, one that leads out is not, nor one that leads to itself."""
    base = tmp_path / "base"
    (base / "inner").mkdir(parents=True)
    try:
        for name, target in (("in", base / "inner"), ("out", tmp_path), ("loop", base / "loop")):
            (base / name).symlink_to(target)
    except OSError as error:
        pytest.skip(f"this system makes no links ({error})")
    assert path_within(base, "in/x") == (base / "inner" / "x").resolve()
    for name in ("out/x", "out", "loop/x"):
        with pytest.raises(InputError, match="leads (out of|nowhere)"):
            path_within(base, name)


def test_no_name_is_looked_up_before_its_text_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Windows, a look at another computer's name signs in there."""
    monkeypatch.setattr(Path, "resolve", lambda *_: pytest.fail("the file system was asked"))
    for name in ("\\\\server\\share\\x", "//server/share/x", "nul", "../x"):
        with pytest.raises(InputError):
            path_within(Path("base"), name)
