"""Still images as uint8 RGB arrays: read as an image viewer shows them, written whole or not at all."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from ..errors import InputError
from .files import written

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}


def read_image(path: Path | str) -> np.ndarray:
    """Read a picture as uint8 (H, W, 3) RGB in sRGB.

    EXIF rotation is applied, grey becomes RGB, transparency is laid over white, 16 bits are scaled to 8 and an embedded
    colour profile is converted. Of an animation the first frame is taken.

    Raises InputError for anything that is not a whole, readable picture.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    if path.stat().st_size == 0:
        raise InputError(f"{path.name}: the file is empty (0 bytes). Save or copy it again.")
    try:
        with Image.open(path) as image:
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise InputError(f"{path.name}: the picture is too large ({error}). Scale it down first.") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # what Pillow's decoders raise for broken files
        reason = "not a picture in a known format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise InputError(f"{path.name}: cannot be read as an image ({reason}). Save it again as PNG or JPEG.") from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Any Pillow image to uint8 (H, W, 3)."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = _deep_grey(np.asarray(image))
        return np.repeat(grey[..., None], 3, -1)
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = _in_srgb(image, "RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(_in_srgb(image, "RGB").convert("RGB"))


def _deep_grey(grey: np.ndarray) -> np.ndarray:
    """Grey of 16 or 32 bits, or floats (0..1, or 0..255 where a value exceeds 1), to uint8 (H, W)."""
    if np.issubdtype(grey.dtype, np.floating):
        grey = np.nan_to_num(grey.astype(np.float64))
        white = 1.0 if grey.max() <= 1 else 255.0
    else:
        grey = grey.astype(np.float64)
        white = 65535.0 if grey.max() <= 65535 else float(2**31 - 1)
    return np.rint(np.clip(grey / white, 0, 1) * 255).astype(np.uint8)


def _in_srgb(image: Image.Image, mode: str) -> Image.Image:
    """`image` in `mode` (RGB or RGBA), converted from its embedded profile where it has a usable one."""
    profile = image.info.get("icc_profile")
    plain = image if image.mode in ("RGB", "RGBA", "CMYK", "L") else image.convert("RGBA" if mode == "RGBA" else "RGB")
    if profile and plain.mode == {"RGBA": "RGBA"}.get(mode, plain.mode):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(plain, source, ImageCms.createProfile("sRGB"), outputMode=mode)
            if converted is not None:
                converted.info.pop("icc_profile", None)
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError):  # a broken profile: show the numbers as they are
            pass
    return plain.convert(mode)


def write_image(path: Path | str, image: np.ndarray) -> None:
    """Write uint8 (H, W) or (H, W, 3) in the format its suffix names. Raises InputError where that cannot be done."""
    path = Path(path)
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path.name}: cannot write '{path.suffix}' images. Use one of {', '.join(_FORMATS)}.")
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    with written(path) as part:
        Image.fromarray(image).save(part, kind, **options)
