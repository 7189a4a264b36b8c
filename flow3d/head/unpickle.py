"""Read a pickle as data: arrays, strings and dictionaries come out, and nothing in the file is ever called.

This is not Python's unpickler with a filter. `pickletools` splits the file into opcodes, and a small stack machine
builds plain values from them. Where a pickle asks for a class or function, only its name is noted; calls and states
are kept as `Record`s, and `to_array` makes arrays of those whose names it knows: numpy arrays, scipy's sparse
matrices and chumpy's array holders. Every other name is refused as soon as it is met.
"""

import math
import pickletools
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short  # values in messages may be nested a million deep
from typing import Any, Literal, NamedTuple

import numpy as np

from ..errors import InputError

LARGEST_FILE = 1 << 30
"""Bytes; FLAME's files are 35 to 60 MB."""

_MOST_OPCODES = 5_000_000
_MOST_DENSE = 10_000_000  # elements of a sparse matrix written out; FLAME's joint regressor has 25,115

_NUMPY = {
    f"{package}.{name}"
    for package in ("numpy.core", "numpy._core")
    for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
} | {"numpy.ndarray", "numpy.dtype"}
_RECONSTRUCTORS = {"copy_reg._reconstructor", "copyreg._reconstructor"}
_CONTAINERS = {"__builtin__.object", "builtins.object", "__builtin__.set", "builtins.set", "collections.OrderedDict"}
_BYTES = {"__builtin__.bytes", "builtins.bytes"}
_ALLOWED = _NUMPY | _RECONSTRUCTORS | _CONTAINERS | _BYTES | {"_codecs.encode"}
_SPARSE = re.compile(r"scipy\.sparse\.(?:\w+\.)?(csc|csr|coo)_matrix")
_CHUMPY = re.compile(r"chumpy\.(?:\w+\.)?\w+")
_PLAIN_DTYPE = re.compile(r"b1|[iu][1248]|f[248]")


class Name(NamedTuple):
    """A class or function that the pickle names: only its name."""

    name: str


@dataclass(eq=False)
class Record:
    """An object that the pickle describes: what it would have called, with what, and the state it would have set."""

    made_by: str
    arguments: tuple
    state: Any = None


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary that a pickle file holds; its values are plain data and Records (see `to_array`).

    Raises InputError where the file is no pickle of a dictionary, or names anything but array types.
    """
    size = path.stat().st_size
    if not 0 < size <= LARGEST_FILE:
        raise InputError(f"{path.name}: {size:,} bytes cannot be a head model. Download it again.")
    try:
        value = _Machine().run(path.read_bytes())  # not the open file: reading a declared length would allocate it
    except InputError as error:
        raise InputError(f"{path.name}: {str(error).removesuffix('.')}.") from None
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, struct.error) as error:
        raise InputError(f"{path.name}: not a readable pickle, or a truncated one. Copy or download it again.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path.name}: the pickle holds no dictionary. Choose a file of named arrays.")
    return value


def to_array(value: Any) -> np.ndarray:
    """The numpy array that a value of `read_pickle` stands for; sparse matrices come dense.

    Raises InputError where it stands for no array of numbers, or where shape, type and data disagree.
    """
    for _ in range(4):  # a chumpy array may hold another
        if not (isinstance(value, Record) and _CHUMPY.fullmatch(value.made_by)):
            break
        if not isinstance(value.state, dict) or "x" not in value.state:
            raise InputError(
                f"{value.made_by} is computed, not stored: save it as a plain array (numpy.array(x)) in an .npz file"
            )
        value = value.state["x"]
    if isinstance(value, Record) and value.made_by.endswith("._reconstruct"):
        return _dense_array(value)
    if isinstance(value, Record) and value.made_by.endswith("._frombuffer"):
        return _buffer_array(value)
    if isinstance(value, Record) and _SPARSE.fullmatch(value.made_by):
        return _sparse_array(value)
    raise InputError(f"expected an array, found {value.made_by if isinstance(value, Record) else type(value).__name__}")


def _dense_array(record: Record) -> np.ndarray:
    """numpy's state of an array: (version, shape, dtype, Fortran order, bytes)."""
    if not (isinstance(record.state, tuple) and len(record.state) == 5):
        raise InputError("an array without data")
    _, shape, dtype, fortran, data = record.state
    if isinstance(data, str):  # Python 2 wrote its bytes as a string
        data = data.encode("latin-1")
    return _array(data, dtype, shape, "F" if fortran else "C")


def _buffer_array(record: Record) -> np.ndarray:
    """An array as pickle protocol 5 stores it: (bytes, dtype, shape, order)."""
    if len(record.arguments) != 4:
        raise InputError("an array without data")
    data, dtype, shape, order = record.arguments
    return _array(data, dtype, shape, "F" if order == "F" else "C")


def _array(data: Any, dtype_record: Any, shape: Any, order: Literal["C", "F"]) -> np.ndarray:
    dtype = _dtype(dtype_record)
    if not isinstance(data, bytes | bytearray):
        raise InputError("an array of Python objects")
    if not _is_shape(shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise InputError(f"an array declared as {short(shape)} {dtype} with {len(data):,} bytes of data")
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _dtype(record: Any) -> np.dtype:
    """numpy's dtype('f8', ...) with the state (version, byte order, ...): numbers only."""
    if not (isinstance(record, Record) and record.made_by == "numpy.dtype" and record.arguments):
        raise InputError("an array without a type")
    code = record.arguments[0]
    if not (isinstance(code, str) and _PLAIN_DTYPE.fullmatch(code)):
        raise InputError(f"an array of type {short(code)}, which is no number")
    order = record.state[1] if isinstance(record.state, tuple) and len(record.state) > 1 else "|"
    return np.dtype((order if order in ("<", ">") else "=") + code)


def _sparse_array(record: Record) -> np.ndarray:
    """A compressed or coordinate matrix, dense; every index is checked before it is used."""
    state = record.state
    if not isinstance(state, dict):
        raise InputError("a sparse matrix without data")
    shape: Any = state.get("_shape", state.get("shape"))
    if not _is_shape(shape) or len(shape) != 2 or math.prod(shape) > _MOST_DENSE:
        raise InputError(f"a sparse matrix of shape {short(shape)}")
    data = to_array(state.get("data"))
    if record.made_by.endswith("coo_matrix"):
        coords = state["coords"] if "coords" in state else (state.get("row"), state.get("col"))
        row, col = (to_array(c) for c in coords)
    else:
        minor, starts = to_array(state.get("indices")), to_array(state.get("indptr"))
        major_length = shape[1] if record.made_by.endswith("csc_matrix") else shape[0]
        if starts.shape != (major_length + 1,) or starts.dtype.kind not in "iu" or minor.ndim != 1:
            raise InputError("a sparse matrix whose pointers do not fit its shape")
        counts: np.ndarray = np.diff(starts.astype(np.int64))
        if (counts < 0).any() or (counts > len(minor)).any() or counts.sum() != len(minor):
            raise InputError("a sparse matrix whose pointers do not fit its data")
        major = np.repeat(np.arange(major_length), counts)
        row, col = (minor, major) if record.made_by.endswith("csc_matrix") else (major, minor)
    whole = row.dtype.kind in "iu" and col.dtype.kind in "iu"
    if not (whole and data.ndim == 1 and row.shape == col.shape == data.shape):
        raise InputError("a sparse matrix whose indices do not fit its data")
    if len(row) and (min(row.min(), col.min()) < 0 or row.max() >= shape[0] or col.max() >= shape[1]):
        raise InputError("a sparse matrix with an index outside its shape")
    dense = np.zeros(shape, np.float64)
    np.add.at(dense, (row, col), data)
    return dense


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)


def _checked_name(module: Any, name: Any) -> Name:
    if not (isinstance(module, str) and isinstance(name, str)):
        raise InputError("the pickle names a class by something that is no text")
    full = f"{module}.{name}"
    if full in _ALLOWED or _SPARSE.fullmatch(full) or _CHUMPY.fullmatch(full):
        return Name(full)
    raise InputError(
        f"the pickle asks for '{full[:200]}', which a file of numbers has no use for. It was not run. Get the "
        "file from its own site again."
    )


class _Machine:
    """The pickle machine, with data instead of calls. Opcodes that a head model has no use for are refused."""

    def __init__(self) -> None:
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[Any, Any] = {}

    def run(self, data: bytes) -> Any:
        argument: Any
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count > _MOST_OPCODES:
                raise InputError("too many values for a head model")
            name = opcode.name
            if name == "STOP":
                return self.stack[-1]
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _LITERALS:
                self.stack.append(argument)
            elif name in _BYTE_STRINGS:
                self.stack.append(bytes(argument))
            elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
                self.memo[argument] = self.stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                self.stack.append(self.memo[argument])
            elif name not in ("PROTO", "FRAME"):
                self._step(name, argument)
        raise ValueError("it ends before its end mark")

    def _step(self, name: str, argument: Any) -> None:
        step = getattr(self, f"_{name.lower()}", None)
        if step is None:
            raise InputError(f"the pickle uses {name}, which a file of numbers has no use for. Get the file from its own site again.")
        if name == "GLOBAL":
            step(argument)
        else:
            step()

    def _since_mark(self) -> list:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _pop_many(self, count: int) -> list:
        if len(self.stack) < count:
            raise IndexError("its stack runs empty")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def _mark(self) -> None:
        self.marks.append(len(self.stack))

    def _pop(self) -> None:
        self.stack.pop()

    def _pop_mark(self) -> None:
        self._since_mark()

    def _memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _empty_list(self) -> None:
        self.stack.append([])

    def _empty_set(self) -> None:
        self.stack.append([])  # chumpy notes what changed in a set; nobody reads it

    def _additems(self) -> None:
        self._extend(self._since_mark())

    def _empty_dict(self) -> None:
        self.stack.append({})

    def _empty_tuple(self) -> None:
        self.stack.append(())

    def _tuple(self) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _tuple1(self) -> None:
        self.stack.append(tuple(self._pop_many(1)))

    def _tuple2(self) -> None:
        self.stack.append(tuple(self._pop_many(2)))

    def _tuple3(self) -> None:
        self.stack.append(tuple(self._pop_many(3)))

    def _list(self) -> None:
        self.stack.append(self._since_mark())

    def _dict(self) -> None:
        items = self._since_mark()
        self.stack.append({})
        self._fill(items)

    def _append(self) -> None:
        self._extend(self._pop_many(1))

    def _appends(self) -> None:
        self._extend(self._since_mark())

    def _setitem(self) -> None:
        self._fill(self._pop_many(2))

    def _setitems(self) -> None:
        self._fill(self._since_mark())

    def _extend(self, values: list) -> None:
        if not isinstance(self.stack[-1], list):
            raise InputError("the pickle appends to something that is no list")
        self.stack[-1].extend(values)

    def _fill(self, items: list) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or not all(isinstance(k, str | bytes | int) for k in items[::2]):
            raise InputError("the pickle has keys that are no names")
        keys = (k.decode("latin-1") if isinstance(k, bytes) else k for k in items[::2])
        target.update(zip(keys, items[1::2], strict=True))

    def _global(self, argument: str) -> None:
        self.stack.append(_checked_name(*argument.split(" ", 1)))

    def _stack_global(self) -> None:
        self.stack.append(_checked_name(*self._pop_many(2)))

    def _newobj(self) -> None:
        self._reduce()

    def _reduce(self) -> None:
        made_by, arguments = self._pop_many(2)
        if not (isinstance(made_by, Name) and isinstance(arguments, tuple)):
            raise InputError("the pickle calls something that is no function")
        self.stack.append(_made(made_by.name, arguments))

    def _build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], Record):
            raise InputError("the pickle sets the state of something that is no object")
        self.stack[-1].state = state


def _made(name: str, arguments: tuple) -> Any:
    """What a call stands for: text, an empty dictionary, or a record of it."""
    if name == "_codecs.encode":
        text, encoding = arguments
        if not (isinstance(text, str) and encoding in ("latin1", "latin-1")):
            raise InputError(f"the pickle encodes text as {short(encoding)}")
        return text.encode("latin-1")
    if name == "collections.OrderedDict" and not arguments:
        return {}
    if name in _BYTES and not arguments:  # how Python 3 writes b"" for Python 2
        return b""
    if name in _RECONSTRUCTORS:
        of = arguments[0]
        if not isinstance(of, Name):
            raise InputError("the pickle makes an object of no class")
        return Record(of.name, ())
    return Record(name, arguments)


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_BYTE_STRINGS = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
