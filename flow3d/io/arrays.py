"""Named arrays of numbers from npz, npy, pickle, safetensors, MATLAB and JSON files; nothing in a file is ever called.

What a file declares is held against its size before anything is allocated, so that a damaged or hostile file ends in an
InputError.
"""

import io
import json
import math
import zipfile
import zlib
from collections.abc import Callable, Collection
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.lib import format as npy
from safetensors import SafetensorError, safe_open
from scipy.io import loadmat, whosmat
from scipy.io.matlab import MatReadError

from ..errors import InputError
from ..head.unpickle import LARGEST_FILE, read_pickle, to_array

_MOST_NUMBERS = LARGEST_FILE // 4


def read_arrays(path: Path, keys: Collection[str]) -> dict[str, np.ndarray]:
    """The arrays called `keys` in a file, as far as they are there, with the file's shapes and types.

    A .npy file holds one array, which is called by the file's name. JSON holds an object of numbers and nested lists.

    Raises InputError, naming the file and the array, where it cannot be read.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path.name}: cannot read '{path.suffix}' here. Use {', '.join(_READERS)}.")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    if not 0 < path.stat().st_size <= LARGEST_FILE:
        raise InputError(f"{path.name}: {path.stat().st_size:,} bytes cannot be a file of parameters.")
    try:
        return reader(path, keys)
    except InputError:
        raise
    except (
        ValueError, TypeError, KeyError, IndexError, EOFError, OSError, OverflowError, NotImplementedError, RuntimeError,
        MemoryError, SafetensorError, MatReadError, zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        kind = path.suffix.lower().lstrip(".")
        raise InputError(f"{path.name}: not a readable {kind} file, or a truncated one ({str(error)[:200]}).") from error


def npy_array(data: bytes) -> np.ndarray:
    """The array of numbers in the bytes of a .npy file. Raises ValueError where it is none, or its header lies."""
    stream = io.BytesIO(data)
    version = npy.read_magic(stream)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        shape, fortran, dtype = header(stream)
    except (SyntaxError, TokenError) as error:  # numpy reads it as a Python literal
        raise ValueError(f"a damaged header ({error})") from error
    if dtype.kind not in "biuf":
        raise ValueError(f"an array of {dtype}")
    body = data[stream.tell() :]
    if math.prod(shape) * dtype.itemsize != len(body):
        raise ValueError(f"an array declared as {shape} {dtype} with {len(body):,} bytes of data")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")


def _npz(path: Path, keys: Collection[str]) -> dict[str, np.ndarray]:
    arrays = {}
    with zipfile.ZipFile(path) as bundle:
        for member in bundle.infolist():
            name = member.filename.removesuffix(".npy")
            if name in keys:
                if member.file_size > LARGEST_FILE:
                    raise InputError(f"{path.name}: {name}: {member.file_size:,} bytes are too many.")
                try:
                    arrays[name] = npy_array(bundle.read(member))
                except ValueError as error:
                    raise InputError(f"{path.name}: {name}: {error}.") from error
    return arrays


def _npy(path: Path, keys: Collection[str]) -> dict[str, np.ndarray]:
    return {path.stem: npy_array(path.read_bytes())} if path.stem in keys else {}


def _pickle(path: Path, keys: Collection[str]) -> dict[str, np.ndarray]:
    try:
        data = read_pickle(path)
        return {name: _plain(name, data[name]) for name in keys if name in data}
    except InputError as error:
        prefix = "" if str(error).startswith(path.name) else f"{path.name}: "
        raise InputError(f"{prefix}{error}. Tensors have to be saved as NumPy arrays: numpy.savez(file, **arrays).") from None


def _plain(name: str, value: Any) -> np.ndarray:
    """Numbers, lists and arrays of a pickle as one array."""
    if isinstance(value, int | float):
        return np.array(float(value))
    if isinstance(value, list | tuple):
        return np.stack([_plain(name, x) for x in value]) if value else np.zeros(0)
    try:
        return to_array(value)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def _safetensors(path: Path, keys: Collection[str]) -> dict[str, np.ndarray]:
    with safe_open(path, "pt") as f:
        found = {name: f.get_tensor(name) for name in f.keys() if name in keys}
    return {name: (x.float() if x.is_floating_point() else x).numpy() for name, x in found.items()}


def _mat(path: Path, keys: Collection[str]) -> dict[str, np.ndarray]:
    there = {name: shape for name, shape, _ in whosmat(path)}
    wanted = [name for name in keys if name in there]
    for name in wanted:
        if math.prod(int(n) for n in there[name]) > _MOST_NUMBERS:
            raise InputError(f"{path.name}: {name} is declared as {there[name]}, which is too large.")
    found = loadmat(path, variable_names=wanted) if wanted else {}
    for name in wanted:
        if not isinstance(found.get(name), np.ndarray) or found[name].dtype.kind not in "biuf":
            raise InputError(f"{path.name}: {name} is no array of numbers.")
    return {name: found[name] for name in wanted}


def _json(path: Path, keys: Collection[str]) -> dict[str, np.ndarray]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise InputError(f"{path.name}: its lists are nested too deep.") from error
    if not isinstance(data, dict):
        raise InputError(f"{path.name}: it holds no object with named values.")
    arrays = {}
    for name in keys:
        if name in data:
            try:
                arrays[name] = np.asarray(data[name], np.float64)
            except (ValueError, TypeError, RecursionError) as error:
                raise InputError(f"{path.name}: {name} is no even list of numbers ({str(error)[:100]}).") from error
    return arrays


_READERS: dict[str, Callable[[Path, Collection[str]], dict[str, np.ndarray]]] = {
    ".npz": _npz, ".npy": _npy, ".pkl": _pickle, ".safetensors": _safetensors, ".mat": _mat, ".json": _json,
}  # fmt: skip
SUFFIXES = tuple(_READERS)
