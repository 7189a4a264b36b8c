"""Reading and writing pictures, against Pillow's own pixels and hand-made files."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.io.images import read_image, write_image


@pytest.fixture
def picture() -> np.ndarray:
    """A picture without any symmetry, uint8 (48, 64, 3)."""
    y, x = np.mgrid[:48, :64]
    return np.stack([4 * x, 5 * y, 255 - 2 * x - y], -1).astype(np.uint8)


def test_png_round_trip_is_exact(tmp_path, picture):
    write_image(tmp_path / "a.png", picture)
    assert (read_image(tmp_path / "a.png") == picture).all()
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_grey_becomes_rgb(tmp_path, picture):
    Image.fromarray(picture[..., 0]).save(tmp_path / "grey.png")
    assert (read_image(tmp_path / "grey.png") == picture[..., :1]).all()


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation(tmp_path, picture, turn):
    """Oracle: the definition of the eight orientations (EXIF 2.3, tag 0x0112)."""
    stored = {
        1: picture, 2: picture[:, ::-1], 3: picture[::-1, ::-1], 4: picture[::-1], 5: picture.transpose(1, 0, 2),
        6: np.rot90(picture), 7: picture[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(picture, -1),
    }[turn]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "turned.png", exif=exif)
    assert (read_image(tmp_path / "turned.png") == picture).all()


def test_transparency_lies_over_white(tmp_path, picture):
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[:, :10], alpha[:, 10:20] = 0, 51
    Image.fromarray(np.dstack([picture, alpha])).save(tmp_path / "a.png")
    got = read_image(tmp_path / "a.png").astype(float)
    a = alpha[..., None] / 255
    assert np.abs(got - (a * picture + (1 - a) * 255)).max() <= 1
    Image.fromarray(np.dstack([picture[..., 0], alpha])).save(tmp_path / "la.png")
    got = read_image(tmp_path / "la.png").astype(float)
    assert np.abs(got - (a * picture[..., :1] + (1 - a) * 255)).max() <= 1


def test_palette_with_a_transparent_entry(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), mode="P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.save(tmp_path / "p.png", transparency=1)
    assert read_image(tmp_path / "p.png").tolist() == [[[10, 20, 30], [255] * 3], [[255] * 3, [10, 20, 30]]]


def test_sixteen_bits_are_scaled(tmp_path):
    deep = np.linspace(0, 65535, 4096).round().astype(np.uint16).reshape(64, 64)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        assert np.abs(read_image(tmp_path / name)[..., 1] - deep / 257.0).max() <= 0.5


def test_sixteen_bit_colour(tmp_path):
    """Written by OpenCV, which Pillow's decoder knows nothing of."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV writes the 16-bit colour file")
    deep = np.random.default_rng(0).integers(0, 65536, (16, 16, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep[..., ::-1])
    assert np.abs(read_image(tmp_path / "deep.png") - deep / 257.0).max() <= 1


def test_cmyk(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    red, green, blue = read_image(tmp_path / "red.jpg")[4, 4]
    assert red > 220 and green < 80 and blue < 80


def test_colour_profile_is_converted(tmp_path):
    """An sRGB profile changes nothing; a broken one is ignored."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (4, 4), (90, 120, 150)).save(tmp_path / "s.png", icc_profile=profile)
    assert np.abs(read_image(tmp_path / "s.png").astype(int) - [90, 120, 150]).max() <= 1
    broken = io.BytesIO(b"no profile at all").getvalue()
    Image.new("RGB", (4, 4), (90, 120, 150)).save(tmp_path / "b.png", icc_profile=broken)
    assert (read_image(tmp_path / "b.png") == [90, 120, 150]).all()


@pytest.mark.parametrize("size", [(64, 64), (8000, 1000)])
def test_sizes(tmp_path, size):
    Image.new("RGB", size, "teal").save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").shape == (size[1], size[0], 3)


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_broken_files_name_themselves(tmp_path, picture, kind):
    whole, cut, empty, other = (tmp_path / f"{n}.{kind}" for n in ("whole", "cut", "empty", "other"))
    write_image(whole, np.tile(picture, (8, 8, 1)))
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    empty.write_bytes(b"")
    other.write_text("not a picture", encoding="utf-8")
    for path in (cut, empty, other, tmp_path / f"absent.{kind}", tmp_path):
        with pytest.raises(InputError, match=path.name):
            read_image(path)


def test_unwritable_places(tmp_path, picture):
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "file" / "a.png", tmp_path / "folder.png", tmp_path / "a.xyz"):
        with pytest.raises(InputError):
            write_image(path, picture)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_failed_write_leaves_the_old_file(tmp_path, picture):
    write_image(tmp_path / "a.png", picture)
    with pytest.raises(TypeError):
        write_image(tmp_path / "a.png", picture.astype(np.complex64))
    assert (read_image(tmp_path / "a.png") == picture).all()
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
