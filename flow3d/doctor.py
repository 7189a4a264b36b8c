"""What is installed, what was found where, what is missing and how to mend it; and the download of weight files."""

import hashlib
import http.client
import importlib
import os
import platform
import re
import sys
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .errors import Flow3DError
from .head.files import OPEN_HEAD, load_saved_head
from .head.load import ENDINGS, landmark_files, read_head
from .io.files import written
from .paths import WEIGHTS, Weight, cache_folder, file_sha256, missing_weight, weight_folders

OK, NOTE, BAD = "ok", "note", "bad"

PACKAGES = (
    ("torch", "torch", "2.0"),
    ("numpy", "numpy", ""),
    ("scipy", "scipy", ""),
    ("safetensors", "safetensors", ""),
    ("einops", "einops", ""),
    ("kornia", "kornia", "0.7.1"),
    ("warp-lang", "warp", "1.16"),
    ("mediapipe", "mediapipe", "0.10.30"),
    ("av", "av", "14.2"),
    ("pillow", "PIL", ""),
    ("tqdm", "tqdm", ""),
)
"""Distribution, module, lowest version: those of requirements.txt, and torch."""

NON_COMMERCIAL = ("smplx", "nvdiffrast")
"""Packages that Flow3D can use and whose licences forbid commercial use."""

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all); raises to cancel."""


@dataclass(frozen=True)
class Row:
    """One finding. `state` is "ok", "note" (worth knowing) or "bad" (something will not work until it is mended)."""

    section: str
    name: str
    state: str
    detail: str
    remedy: str = ""


def doctor_report(extra_folders: Iterable[Path] = ()) -> list[Row]:
    """Everything `flow3d doctor` has to say.

    Args:
        extra_folders: where weights and head models may lie besides ComfyUI's models/mediapipe and models/flame,
            $FLOW3D_MODELS and the cache.
    """
    comfyui = find_comfyui()
    folders = [Path(f) for f in extra_folders]
    if comfyui:
        folders += [comfyui / "models" / "mediapipe", comfyui / "models" / "flame"]
    return [
        _python_row(),
        _device_row(),
        _comfyui_row(comfyui),
        *(_package_row(*package) for package in PACKAGES),
        _opencv_row(),
        *_licence_rows(),
        *(_weight_row(w, weight_folders(folders)) for w in WEIGHTS),
        *_head_rows(weight_folders(folders)),
    ]


def format_report(rows: Iterable[Row]) -> str:
    """The rows as plain text, a section each; what to do stands under what is wrong."""
    rows = list(rows)
    marks = {OK: "   ", NOTE: " * ", BAD: "!! "}
    width = max((len(r.name) for r in rows), default=0)
    lines: list[str] = []
    section = ""
    for row in rows:
        if row.section != section:
            lines += ["", row.section] if lines else [row.section]
            section = row.section
        lines.append(f"  {marks[row.state]}{row.name:<{width}}  {row.detail}")
        if row.remedy:
            lines.append(f"     {'':<{width}}  -> {row.remedy}")
    bad = sum(r.state == BAD for r in rows)
    lines += ["", "Everything needed is here." if not bad else f"To mend: {bad} (marked !!)."]
    return "\n".join(lines)


def download_weights(
    extra_folders: Iterable[Path] = (), folder: Path | None = None, progress: Progress | None = None
) -> list[Path]:
    """Fetch the weight files that are missing or damaged. Returns where each weight file lies now.

    Args:
        extra_folders: looked into before the usual folders. folder: where to put what is missing, the cache if None.
        progress: told the bytes of each file.

    Raises Flow3DError where a file cannot be fetched, and says how to get it by hand.
    """
    searched = weight_folders(extra_folders)
    return [_fetched(wanted, searched, folder or cache_folder(), progress) for wanted in WEIGHTS]


def download(wanted: Weight, target: Path, progress: Progress | None = None) -> None:
    """Fetch one weight file to `target`, which appears only once its sha256 is right.

    Raises Flow3DError where it cannot be fetched or is not the file that was wanted.
    """
    h, done = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(wanted.url, timeout=30) as response, written(target) as part:
            with part.open("wb") as f:
                while block := response.read(1 << 16):
                    f.write(block)
                    h.update(block)
                    done += len(block)
                    if done > 2 * wanted.size:
                        break
                    if progress:
                        progress(done, max(wanted.size, done))
            if h.hexdigest() != wanted.sha256:
                raise Flow3DError(
                    f"{wanted.name}: what {wanted.url} sent ({done:,} bytes) is not the file that was wanted "
                    f"({wanted.size:,} bytes, sha256 {wanted.sha256}); nothing was kept. Try again, or get it by hand."
                )
    except (OSError, http.client.HTTPException) as error:
        raise Flow3DError(
            f"{wanted.name} cannot be downloaded ({error}). Get it by hand from {wanted.url} (sha256 {wanted.sha256}) "
            f"and put it into {target.parent}."
        ) from error


def _fetched(wanted: Weight, searched: list[Path], folder: Path, progress: Progress | None) -> Path:
    here = _found(wanted, searched)
    if here and file_sha256(here) == wanted.sha256:
        return here
    target = here or folder / wanted.name
    download(wanted, target, progress)
    return target


def _found(wanted: Weight, folders: Iterable[Path]) -> Path | None:
    return next((f / wanted.name for f in folders if (f / wanted.name).is_file()), None)


def find_comfyui() -> Path | None:
    """The ComfyUI that COMFYUI_PATH names, that this pack lies in, or in ~/comfy/ComfyUI; None where there is none."""
    named = os.environ.get("COMFYUI_PATH")
    candidates = [Path(named)] if named else []
    candidates += [p.parent for p in Path(__file__).parents if p.name == "custom_nodes"]
    candidates.append(Path.home() / "comfy" / "ComfyUI")
    return next((c for c in candidates if (c / "main.py").is_file() and (c / "comfy").is_dir()), None)


def _python_row() -> Row:
    version = platform.python_version()
    remedy = "" if sys.version_info >= (3, 10) else "Flow3D needs Python 3.10 or newer"
    return Row("System", "Python", BAD if remedy else OK, f"{version}, {platform.platform()}", remedy)


def _package_row(distribution: str, module: str, floor: str) -> Row:
    """Whether a package is there, new enough, and whether it can be imported: on Windows those are two things."""
    wanted = f"{distribution}>={floor}" if floor else distribution
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return Row("Packages", distribution, BAD, "not installed", f'pip install "{wanted}"')
    if floor and _numbers(version) < _numbers(floor):
        return Row("Packages", distribution, BAD, f"{version} is too old", f'pip install --upgrade "{wanted}"')
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever a broken package raises, the report goes on
        remedy = f'pip install --force-reinstall --no-deps "{wanted}"'
        return Row("Packages", distribution, BAD, f"{version} does not import ({error})", remedy)
    return Row("Packages", distribution, OK, version)


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "2.13.0+cpu" is (2, 13, 0)."""
    return tuple(int(n) for n in re.findall(r"\d+", re.split(r"[+a-z]", version, maxsplit=1)[0]))


def opencv_owners() -> list[str]:
    """The installed distributions that bring a folder `cv2`, with their versions."""
    return sorted(f"{d} {metadata.version(d)}" for d in set(metadata.packages_distributions().get("cv2", [])))


def _opencv_row() -> Row:
    owners = opencv_owners()
    if not owners:
        return Row("Packages", "OpenCV", BAD, "not installed", "pip install opencv-contrib-python")
    if len(owners) == 1:
        return Row("Packages", "OpenCV", OK, owners[0])
    names = " ".join(o.split()[0] for o in owners)
    remedy = f"if cv2 misbehaves: pip uninstall -y {names}, then pip install opencv-contrib-python"
    return Row("Packages", "OpenCV", NOTE, f"{len(owners)} packages own the folder cv2: {', '.join(owners)}", remedy)


def _licence_rows() -> Iterator[Row]:
    for name in NON_COMMERCIAL:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        yield Row("Packages", name, NOTE, f"{version}, optional; its licence forbids commercial use")


def _device_row() -> Row:
    try:
        import torch

        if torch.cuda.is_available():
            names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
            return Row("System", "CUDA", OK, f"{names} (torch built for CUDA {torch.version.cuda})")
        return Row("System", "CUDA", NOTE, f"none: everything runs on the CPU, {torch.get_num_threads()} threads")
    except Exception as error:  # a broken torch has its own row already
        return Row("System", "CUDA", BAD, f"torch cannot say ({error})")


def _comfyui_row(comfyui: Path | None) -> Row:
    if comfyui is None:
        remedy = "'python run.py comfyui' sets one up; the command line needs none"
        return Row("System", "ComfyUI", NOTE, "not found", remedy)
    source = comfyui / "comfyui_version.py"
    text = source.read_text(encoding="utf-8", errors="replace") if source.is_file() else ""
    version = re.search(r'__version__\s*=\s*"([^"]+)"', text)
    return Row("System", "ComfyUI", OK, f"{version.group(1) if version else 'unknown version'} in {comfyui}")


def _weight_row(wanted: Weight, folders: list[Path]) -> Row:
    path = _found(wanted, folders)
    if path is None:
        return Row("Weights", wanted.name, BAD, "missing", missing_weight(wanted, folders))
    if file_sha256(path) != wanted.sha256:
        detail = f"{path} is damaged or another version: its sha256 is not {wanted.sha256}"
        return Row("Weights", wanted.name, BAD, detail, "flow3d doctor --download replaces it")
    return Row("Weights", wanted.name, OK, f"{path}, sha256 as expected, licence {wanted.licence}")


def _head_rows(folders: list[Path]) -> Iterator[Row]:
    if OPEN_HEAD.is_file():
        head = load_saved_head(OPEN_HEAD)
        size = f"{len(head.template):,} vertices, {head.n_shape} + {head.n_expression} components"
        yield Row("Head models", "open", OK, f"{size}, licence {head.licence}")
    else:
        yield Row("Head models", "open", BAD, f"{OPEN_HEAD.name} is missing", "install Flow3D again")
    for path in sorted(p for folder in folders if folder.is_dir() for p in folder.iterdir()):
        if path.suffix.lower() in ENDINGS and not path.name.endswith(".landmarks.safetensors"):
            yield _head_file_row(path)


def _head_file_row(path: Path) -> Row:
    try:
        head = read_head(path)
    except Flow3DError as error:
        return Row("Head models", path.name, NOTE, f"no head model: {error}", f"in {path.parent}")
    size = f"{len(head.template):,} vertices, {head.n_shape} + {head.n_expression} components"
    kept = head.landmarks_dense is not None or any(f.is_file() for f in landmark_files(path, head))
    landmarks = "landmarks found" if kept else "landmarks are found at first use (a minute or so)"
    return Row("Head models", path.name, OK, f"{path.parent}: {size}, {landmarks}, licence {head.licence}")
