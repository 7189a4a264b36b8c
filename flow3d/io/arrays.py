"""Named arrays of numbers from npz, npy, pickle, safetensors, MATLAB and JSON files; nothing in a file is ever called.

What a file declares is held against its size before anything is allocated, so that a damaged or hostile file ends in an
InputError.
"""

import math
import zipfile
import zlib
from collections.abc import Callable, Collection
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from safetensors import SafetensorError, safe_open
from scipy.io import loadmat, whosmat
from scipy.io.matlab import MatReadError

from ..errors import InputError
from ..head.unpickle import LARGEST_FILE, read_pickle, to_array
from .json_text import json_in

_NUMBERS = "biuf"
"""NumPy's kinds of types: truths, whole numbers with and without a sign, floats."""
_MOST_NUMBERS = LARGEST_FILE // 4
_MOST_LISTED, _DEEPEST = 1_000_000, 8
"""Numbers of a list in a pickle, and how deep it is nested."""
_AGAIN = "Export or save the file again"


def read_arrays(path: Path, keys: Collection[str]) -> dict[str, np.ndarray]:
    """The arrays called `keys` in a file, as far as they are there, with the file's shapes and types.

    A .npy file holds one array, which is called by the file's name. JSON holds an object of numbers and nested lists.

    Raises InputError, naming the file and the array, where it cannot be read.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path.name}: cannot read '{path.suffix}' here. Use {', '.join(_READERS)}.")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file. Check its name.")
    if not 0 < path.stat().st_size <= LARGEST_FILE:
        raise InputError(f"{path.name}: {path.stat().st_size:,} bytes cannot be a file of parameters. {_AGAIN}.")
    try:
        return reader(path, keys)
    except InputError:
        raise
    except (
        ValueError, TypeError, KeyError, IndexError, EOFError, OSError, OverflowError, NotImplementedError, RuntimeError,
        MemoryError, SafetensorError, MatReadError, zlib.error,
    ) as error:  # fmt: skip
        kind = path.suffix.lower().lstrip(".")
        raise InputError(f"{path.name}: not a readable {kind} file, or a truncated one. {_AGAIN}.") from error


def npz_arrays(path: Path, keys: Collection[str], only: bool = False, kinds: str = _NUMBERS) -> dict[str, np.ndarray]:
    """The arrays called `keys` of an npz file, as far as they are there.

    A member's header is held against the size that the archive tells, before either is unpacked.

    Args:
        only: whether another array than these is an error. kinds: of NumPy's types that are taken.

    Raises InputError, naming the file and the array.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as bundle:
            members = {m.filename.removesuffix(".npy"): m for m in bundle.infolist()}
            wanted = {name: members[name] for name in keys if name in members}
            if only and (unknown := [name for name in members if name not in keys]):
                raise InputError(f"{path.name}: it has an array '{unknown[0][:40]}'. Use {', '.join(keys)} alone.")
            if sum(member.file_size for member in wanted.values()) > LARGEST_FILE:
                raise InputError(f"{path.name}: its arrays unpack to more than {LARGEST_FILE >> 30} GB. {_AGAIN}.")
            for name, member in wanted.items():
                try:
                    with bundle.open(member) as file:
                        arrays[name] = _npy(file, member.file_size, kinds)
                except ValueError as error:
                    raise InputError(f"{path.name}: {name} is {error}. {_AGAIN}.") from error
    except zipfile.BadZipFile as error:
        raise InputError(f"{path.name}: no npz file, or a damaged one. {_AGAIN}.") from error
    except (EOFError, OSError, NotImplementedError, RuntimeError, zlib.error) as error:  # encrypted, cut short, packed otherwise
        raise InputError(f"{path.name}: an npz file that cannot be unpacked: it is damaged or encrypted. {_AGAIN}.") from error
    return arrays


def _npy(file: IO[bytes], size: int, kinds: str = _NUMBERS) -> np.ndarray:
    """The array in an npy file of `size` bytes. Raises ValueError where it is none, or its header lies."""
    try:
        header = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = header(file)
    except (ValueError, SyntaxError, TokenError) as error:  # numpy reads it as a Python literal
        raise ValueError("no array, or one with a damaged header") from error
    if dtype.kind not in kinds:
        raise ValueError(f"an array of {dtype.name}, not of numbers")
    length = size - file.tell()
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != length:
        raise ValueError(f"declared as {shape} {dtype}, with {length:,} bytes of data")
    body = file.read(length)
    if len(body) != length:
        raise ValueError("cut short")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")


def _single(path: Path, keys: Collection[str]) -> dict[str, np.ndarray]:
    if path.stem not in keys:
        return {}
    with path.open("rb") as file:
        try:
            return {path.stem: _npy(file, path.stat().st_size)}
        except ValueError as error:
            raise InputError(f"{path.name} is {error}. {_AGAIN}.") from error


def _pickle(path: Path, keys: Collection[str]) -> dict[str, np.ndarray]:
    try:
        data = read_pickle(path)
        return {name: _plain(name, data[name]) for name in keys if name in data}
    except InputError as error:
        prefix = "" if str(error).startswith(path.name) else f"{path.name}: "
        remedy = " Save tensors as NumPy arrays: numpy.savez(file, **arrays)." if "torch" in str(error) else ""
        raise InputError(f"{prefix}{error}{remedy}") from None


def _plain(name: str, value: Any) -> np.ndarray:
    """Numbers, lists and arrays of a pickle as one array."""
    left = _MOST_LISTED

    def made(x: Any, depth: int) -> np.ndarray:
        nonlocal left
        left -= 1  # a list may hold another many times, and that one a third
        if left < 0 or depth > _DEEPEST:
            raise InputError(f"{name} is nested too deep or too long. {_AGAIN}.")
        if isinstance(x, int | float):
            return np.array(float(x))
        if isinstance(x, list | tuple):
            return np.stack([made(y, depth + 1) for y in x]) if x else np.zeros(0)
        try:
            return to_array(x)
        except InputError as error:
            raise InputError(f"{name}: {error}. {_AGAIN}.") from None

    return made(value, 0)


def _safetensors(path: Path, keys: Collection[str]) -> dict[str, np.ndarray]:
    with safe_open(path, "pt") as f:
        found = {name: f.get_tensor(name) for name in f.keys() if name in keys}
    return {name: (x.float() if x.is_floating_point() else x).numpy() for name, x in found.items()}


def _mat(path: Path, keys: Collection[str]) -> dict[str, np.ndarray]:
    there = {name: shape for name, shape, _ in whosmat(path)}
    wanted = [name for name in keys if name in there]
    for name in wanted:
        if math.prod(int(n) for n in there[name]) > _MOST_NUMBERS:
            raise InputError(f"{path.name}: {name} is declared as {there[name]}, which is too large. {_AGAIN}.")
    found = loadmat(path, variable_names=wanted) if wanted else {}
    for name in wanted:
        if not isinstance(found.get(name), np.ndarray) or found[name].dtype.kind not in "biuf":
            raise InputError(f"{path.name}: {name} is no array of numbers. {_AGAIN}.")
    return {name: found[name] for name in wanted}


def _json(path: Path, keys: Collection[str]) -> dict[str, np.ndarray]:
    data = json_in(path)
    if not isinstance(data, dict):
        raise InputError(f"{path.name}: it holds no object with named values. {_AGAIN}.")
    arrays = {}
    for name in keys:
        if name in data:
            try:
                arrays[name] = np.asarray(data[name], np.float64)
            except (ValueError, TypeError, OverflowError, RecursionError) as error:
                raise InputError(f"{path.name}: {name} is no even list of numbers. {_AGAIN}.") from error
    return arrays


_READERS: dict[str, Callable[[Path, Collection[str]], dict[str, np.ndarray]]] = {
    ".npz": npz_arrays, ".npy": _single, ".pkl": _pickle, ".safetensors": _safetensors, ".mat": _mat, ".json": _json,
}  # fmt: skip
SUFFIXES = tuple(_READERS)
