"""FLAME files in every format they come in, made here with FLAME's own shapes; and hostile ones."""

import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from safetensors.numpy import save_file

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.head import embed, load
from comfyui_flow3d.flow3d.head.flame import licence_of
from comfyui_flow3d.flow3d.head.load import convert_head, load_head, read_head
from comfyui_flow3d.flow3d.head.model import EYEBALLS, FLAME_PARENTS, INNER_MOUTH, HeadModel, Landmarks
from comfyui_flow3d.flow3d.head.unpickle import read_pickle, to_array

V, F = 5023, 9976
PARENTS = np.array([[4294967295, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32)


def flame_arrays(vertices: int = V, triangles: int = F, components: int = 400) -> dict[str, np.ndarray]:
    """Random arrays with FLAME's keys, shapes and types."""
    rng = np.random.default_rng(7)
    weights = rng.random((vertices, 5))
    weights[:400, 3] += 20  # two eyeballs
    weights[400:800, 4] += 20
    regressor = np.zeros((5, vertices))
    for joint in range(5):
        regressor[joint, rng.choice(vertices, 30, replace=False)] = 1 / 30
    return {
        "v_template": rng.uniform(-0.12, 0.12, (vertices, 3)),
        "shapedirs": rng.normal(0, 1e-3, (vertices, 3, components)),
        "posedirs": rng.normal(0, 1e-3, (vertices, 3, 36)),
        "weights": weights / weights.sum(1, keepdims=True),
        "J_regressor": regressor,
        "f": rng.integers(0, vertices, (triangles, 3)).astype(np.uint32),
        "kintree_table": PARENTS,
    }


@contextmanager
def chumpy() -> Iterator[type]:
    """A module that pickles like chumpy's array holder; it is gone again before anything is read."""
    package, module = types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")

    class Ch:
        def __init__(self, x: np.ndarray) -> None:
            self.x = x
            self._dirty_vars = {"x"}
            self._itr = None
            self.dterms = ("x",)

        def __getstate__(self) -> dict:
            return dict(self.__dict__)

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    module.Ch = Ch  # type: ignore[attr-defined]
    package.ch = module  # type: ignore[attr-defined]
    sys.modules |= {"chumpy": package, "chumpy.ch": module}
    try:
        yield Ch
    finally:
        del sys.modules["chumpy"], sys.modules["chumpy.ch"]


def write_flame(path: Path, arrays: dict[str, np.ndarray], protocol: int = 2, sparse: str = "csc") -> Path:
    """A pickle like FLAME 2020's: chumpy arrays, a sparse regressor, and strings beside them."""
    with chumpy() as ch:
        holder = getattr(scipy.sparse, f"{sparse}_matrix")
        data = arrays | {
            "shapedirs": ch(arrays["shapedirs"]),
            "v_template": ch(ch(arrays["v_template"])),
            "J_regressor": holder(arrays["J_regressor"]),
            "bs_style": "lbs",
            "bs_type": "lrotmin",
        }
        path.write_bytes(pickle.dumps(data, protocol))
    assert "chumpy" not in sys.modules
    return path


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(path, allow_pickle=True, **arrays)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return flame_arrays()


@pytest.fixture(scope="module")
def small() -> dict[str, np.ndarray]:
    return flame_arrays(200, 300, 310)


def assert_same(head: HeadModel, arrays: dict[str, np.ndarray]) -> None:
    """The head holds the arrays, value for value in float32."""
    shapes = np.moveaxis(arrays["shapedirs"], 2, 0).astype(np.float32)
    expected = {
        "template": arrays["v_template"].astype(np.float32),
        "shape_basis": shapes[:300],
        "expression_basis": shapes[300:],
        "pose_basis": np.moveaxis(arrays["posedirs"], 2, 0).astype(np.float32),
        "joint_regressor": arrays["J_regressor"].astype(np.float32),
        "faces": arrays["f"].astype(np.int64),
    }
    for name, value in expected.items():
        np.testing.assert_array_equal(getattr(head, name).numpy(), value, err_msg=name)
    np.testing.assert_allclose(head.skin_weights.numpy(), arrays["weights"], atol=1e-7)
    assert head.parents == FLAME_PARENTS
    assert all(x.is_contiguous() for x in (head.template, head.shape_basis, head.pose_basis))


@pytest.mark.parametrize(("protocol", "sparse"), [(2, "csc"), (4, "csr"), (5, "coo")])
def test_flame_pickle(tmp_path: Path, arrays: dict[str, np.ndarray], protocol: int, sparse: str) -> None:
    head = read_head(write_flame(tmp_path / "generic_model.pkl", arrays, protocol, sparse))
    assert_same(head, arrays)
    assert (head.n_shape, head.n_expression, head.n_joints) == (300, 100, 5)
    assert "non-commercial" in head.licence


def test_open_flame_pickle_without_chumpy(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    path = tmp_path / "flame2023_Open.pkl"
    path.write_bytes(pickle.dumps(arrays | {"J_regressor": scipy.sparse.csc_matrix(arrays["J_regressor"])}, 4))
    head = read_head(path)
    assert_same(head, arrays)
    assert head.licence.startswith("CC-BY-4.0")


def test_npz_and_safetensors(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    npz, tensors = tmp_path / "flame.npz", tmp_path / "flame.safetensors"
    write_npz(npz, arrays)
    save_file({k: v if k != "f" else v.astype(np.int32) for k, v in arrays.items()}, tensors)
    assert_same(read_head(npz), arrays)
    assert_same(read_head(tensors), arrays)


def test_python_2_pickle(tmp_path: Path, small: dict[str, np.ndarray]) -> None:
    """Python 2 wrote bytes as strings, classes through copy_reg, and sets by name."""

    def text(s: bytes) -> bytes:
        return b"U" + bytes([len(s)]) + s if len(s) < 256 else b"T" + struct.pack("<i", len(s)) + s

    def number(n: int) -> bytes:
        return b"J" + struct.pack("<i", n)

    def array(x: np.ndarray) -> bytes:
        made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + number(0) + b"t" + text(b"b") + b"tR"
        dtype = b"cnumpy\ndtype\n(" + text(x.dtype.str[1:].encode()) + number(0) + number(1) + b"tR"
        dtype += b"(" + number(3) + text(b"<") + b"NNN" + number(-1) * 2 + number(0) + b"tb"
        shape = b"(" + b"".join(number(n) for n in x.shape) + b"t"
        return made + b"(" + number(1) + shape + dtype + b"I00\n" + text(x.tobytes()) + b"tb"

    def held(x: np.ndarray) -> bytes:
        made = b"ccopy_reg\n_reconstructor\n(cchumpy.ch\nCh\nc__builtin__\nobject\nNtR"
        dirty = b"c__builtin__\nset\n((l" + text(b"x") + b"atR"
        return made + b"(d" + text(b"_dirty_vars") + dirty + b"s" + text(b"x") + array(x) + b"sb"

    body = b"".join(text(k.encode()) + (held(v) if k == "shapedirs" else array(v)) + b"s" for k, v in small.items())
    path = tmp_path / "flame.pkl"
    path.write_bytes(b"\x80\x02}" + body + b".")
    assert_same(read_head(path), small)


def test_fortran_and_big_endian_arrays(tmp_path: Path, small: dict[str, np.ndarray]) -> None:
    odd = small | {
        "shapedirs": np.asfortranarray(small["shapedirs"]),
        "posedirs": small["posedirs"].astype(">f8"),
        "weights": small["weights"].astype(np.float32),
    }
    pkl, npz = tmp_path / "a.pkl", tmp_path / "a.npz"
    pkl.write_bytes(pickle.dumps(odd, 2))
    np.savez_compressed(npz, allow_pickle=False, **odd)
    for path in (pkl, npz):
        assert_same(read_head(path), small)


def test_reader_agrees_with_pickle(tmp_path: Path) -> None:
    """Arrays of all plain types come out as Python's own unpickler gives them."""
    rng = np.random.default_rng(0)
    data = {
        f"{kind}{order}": (rng.random((3, 4, 2)) * 100).astype(kind).copy(order=order)
        for kind in ("?", "i1", "u2", "<i4", ">i4", "u8", "f2", "<f4", ">f8")
        for order in ("C", "F")
    } | {"empty": np.zeros((0, 3))}
    for protocol in (2, 3, 4, 5):
        path = tmp_path / f"{protocol}.pkl"
        path.write_bytes(pickle.dumps(data, protocol))
        ours = read_pickle(path)
        for key, value in pickle.loads(path.read_bytes()).items():
            read = to_array(ours[key])
            assert read.shape == value.shape and read.dtype.kind == value.dtype.kind
            np.testing.assert_array_equal(read, value, err_msg=f"{key}, protocol {protocol}")


def test_eyeballs(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    write_npz(tmp_path / "a.npz", arrays)
    head = read_head(tmp_path / "a.npz")
    left, right = arrays["weights"][:, 3] > 0.5, arrays["weights"][:, 4] > 0.5
    assert left.sum() >= 400 and right.sum() >= 400
    np.testing.assert_array_equal(head.masks["left_eyeball"].numpy(), left)
    np.testing.assert_array_equal(head.masks["right_eyeball"].numpy(), right)
    np.testing.assert_array_equal(head.face_parts.numpy() == EYEBALLS, (left | right)[arrays["f"].astype(int)].all(1))


def test_posed_head_moves_as_its_arrays_say(tmp_path: Path, small: dict[str, np.ndarray]) -> None:
    """Identity 4 and expression 2 of the file are identity 4 and expression 2 of the head."""
    write_npz(tmp_path / "a.npz", small)
    head = read_head(tmp_path / "a.npz")
    shape, expression = torch.zeros(1, 300), torch.zeros(1, 10)
    shape[0, 4], expression[0, 2] = 2.0, -1.5
    vertices, root = head.vertices(shape, expression)
    expected = small["v_template"] + 2.0 * small["shapedirs"][..., 4] - 1.5 * small["shapedirs"][..., 302]
    np.testing.assert_allclose(vertices[0].numpy(), expected, atol=1e-7)
    at_rest = small["v_template"] + 2.0 * small["shapedirs"][..., 4]
    np.testing.assert_allclose(root[0].numpy(), small["J_regressor"][0] @ at_rest, atol=1e-7)


# What a file can get wrong


def broken(name: str, small: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    bad = {k: v.copy() for k, v in small.items()}
    if name == "nan":
        bad["shapedirs"][5, 1, 7] = np.nan
    elif name == "infinite":
        bad["v_template"][0, 0] = np.inf
    elif name == "beyond float32":
        bad["posedirs"][3, 2, 1] = 1e200
    elif name == "transposed":
        bad["shapedirs"] = np.moveaxis(bad["shapedirs"], 2, 0)
    elif name == "few components":
        bad["shapedirs"] = bad["shapedirs"][..., :300]
    elif name == "pose":
        bad["posedirs"] = bad["posedirs"][..., :27]
    elif name == "index":
        bad["f"][3, 1] = len(bad["v_template"])
    elif name == "float faces":
        bad["f"] = bad["f"].astype(np.float32)
    elif name == "whole numbers":
        bad["v_template"] = np.ones_like(bad["v_template"], dtype=np.int64)
    elif name == "weights":
        bad["weights"] *= 2
    elif name == "regressor":
        bad["J_regressor"] *= 0.5
    elif name == "parents":
        bad["kintree_table"][0, 2] = 0
    elif name == "body":
        bad["kintree_table"] = np.zeros((2, 24), np.int64)
    elif name == "millimetres":
        bad["v_template"] *= 1000
    elif name == "missing":
        del bad["posedirs"]
    elif name == "empty":
        bad["f"] = bad["f"][:0]
    return bad


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nan", "shapedirs.*finite"),
        ("infinite", "v_template.*finite"),
        ("beyond float32", "posedirs.*finite"),
        ("transposed", r"shapedirs has shape \(310, 200, 3\)"),
        ("few components", "300 components"),
        ("pose", r"posedirs has shape \(200, 3, 27\), expected \(200, 3, 36\)"),
        ("index", "names vertex 200"),
        ("float faces", "whole numbers"),
        ("whole numbers", "v_template holds int64"),
        ("weights", "shares of 1"),
        ("regressor", "J_regressor.*sum to 1"),
        ("parents", "parents"),
        ("body", "body model"),
        ("millimetres", "head in metres"),
        ("missing", "lacks posedirs"),
        ("empty", "f has shape"),
    ],
)
@pytest.mark.parametrize("ending", [".npz", ".pkl", ".safetensors"])
def test_broken_arrays_are_named(tmp_path: Path, small: dict, name: str, says: str, ending: str) -> None:
    path, bad = tmp_path / f"head{ending}", broken(name, small)
    if ending == ".npz":
        write_npz(path, bad)
    elif ending == ".pkl":
        path.write_bytes(pickle.dumps(bad, 4))
    else:
        save_file({k: np.ascontiguousarray(v) for k, v in bad.items()}, path)
    with pytest.raises(InputError, match=f"(?s)^head{ending}: .*{says}"):
        read_head(path)


@pytest.mark.parametrize("ending", [".npz", ".pkl", ".safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.999])
def test_truncated_files(tmp_path: Path, small: dict, ending: str, keep: float) -> None:
    path = tmp_path / f"head{ending}"
    if ending == ".npz":
        write_npz(path, small)
    elif ending == ".pkl":
        write_flame(path, small)
    else:
        save_file(small, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(InputError, match=f"head{ending}"):
        read_head(path)


def test_wrong_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such head model"):
        read_head(tmp_path / "absent.pkl")
    (tmp_path / "head.txt").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="is a .safetensors, .npz, .pkl file"):
        read_head(tmp_path / "head.txt")
    with pytest.raises(InputError, match="no such head model"):
        read_head(tmp_path)


# Hostile pickles: each tries to leave a file behind


class Runs:
    """Pickles as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def getattr_chain(sentinel: str) -> bytes:
    """getattr(os, "system")("touch ..."), written by hand."""
    call = b"cbuiltins\ngetattr\n(cos\npath\nX\x06\x00\x00\x00systemtR"
    return b"\x80\x02" + call + b"(X" + struct.pack("<I", len(sentinel)) + sentinel.encode() + b"tR."


def hostile(name: str, sentinel: Path) -> bytes:
    touch = f"touch {sentinel}" if os.name == "posix" else f"type nul > {sentinel}"
    python = f"open({str(sentinel)!r}, 'w').close()"
    array = pickle.dumps(np.zeros(3), 2)[2:-1]
    written: dict[str, bytes] = {
        "os.system": pickle.dumps({"f": Runs(os.system, touch)}, 2),
        "os.system, protocol 4": pickle.dumps({"f": Runs(os.system, touch)}, 4),
        "eval": pickle.dumps({"f": Runs(eval, python)}, 2),
        "exec, protocol 5": pickle.dumps({"f": Runs(exec, python)}, 5),
        "getattr": getattr_chain(touch),
        "dotted name": b"\x80\x04\x8c\x02os\x8c\x0bpath.system\x93.",
        "dotted chumpy": b"\x80\x04\x8c\x09chumpy.ch\x8c\x0dCh.os.system.\x93.",
        "runpy in numpy": b"\x80\x02cnumpy.testing._private.utils\nrunstring\n(X"
        + struct.pack("<I", len(python)) + python.encode() + b"}tR.",
        "numpy load": b"\x80\x02cnumpy\nload\n(X\x01\x00\x00\x00xtR.",
        "old-style instance": b"(S'" + touch.encode() + b"'\nios\nsystem\n.",
        "object opcode": b"(cos\nsystem\nS'" + touch.encode() + b"'\no.",
        "build on a name": b"\x80\x02cchumpy.ch\nCh\n}b.",
        "build on an array's dictionary": b"\x80\x02}}b.",
        "new object with keywords": b"\x80\x04cchumpy.ch\nCh\n)}\x92.",
        "call of a string": b"\x80\x02X\x01\x00\x00\x00xX\x01\x00\x00\x00y\x85R.",
        "extension registry": b"\x80\x02\x82\x01.",
        "extension registry, 4 bytes": b"\x80\x02\x84\x01\x00\x00\x00.",
        "persistent id": b"\x80\x02X\x01\x00\x00\x00xQ.",
        "persistent id, text": b"Pname\n.",
        "out-of-band buffer": b"\x80\x05\x97.",
        "stack global of numbers": b"\x80\x04K\x01K\x02\x93.",
        "append to an array": b"\x80\x02" + array + b"K\x01a.",
        "nested deep": b"\x80\x02)" + b"\x85" * 200_000 + b".",
        "name nested deep": b"\x80\x04)" + b"\x85" * 100_000 + b"K\x01\x93.",
        "unhashable key": b"\x80\x02}]K\x01s.",
        "tuple key": b"\x80\x02})K\x01s.",
        "empty stack": b"\x80\x02.",
        "no end": b"\x80\x02}",
        "memo out of range": b"\x80\x02j\xff\xff\xff\x7f.",
        "no dictionary": pickle.dumps([1, 2, 3]),
        "text": b"hello",
    }  # fmt: skip
    return written[name]


NAMED = {
    "os.system": "(posix|nt).system", "os.system, protocol 4": "(posix|nt).system", "eval": "eval",
    "exec, protocol 5": "exec", "getattr": "getattr", "dotted name": "os.path.system",
    "runpy in numpy": "numpy.testing", "numpy load": "numpy.load",
}  # fmt: skip
OTHERS = (
    "dotted chumpy", "old-style instance", "object opcode", "build on a name", "build on an array's dictionary",
    "new object with keywords", "call of a string", "extension registry", "extension registry, 4 bytes",
    "persistent id", "persistent id, text", "out-of-band buffer", "stack global of numbers", "append to an array",
    "nested deep", "name nested deep", "unhashable key", "tuple key", "empty stack", "no end", "memo out of range", "no dictionary", "text",
)  # fmt: skip


@pytest.mark.parametrize("name", [*NAMED, *OTHERS])
def test_hostile_pickles_run_nothing(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, sentinel = tmp_path / "head.pkl", tmp_path / "ran"
    path.write_bytes(hostile(name, sentinel))
    ran: list = []
    monkeypatch.setattr(os, "system", lambda *a: ran.append(a))
    monkeypatch.setattr(pickle, "Unpickler", None)
    with pytest.raises(InputError, match=rf"(?s)^head\.pkl: .*{NAMED.get(name, '')}"):
        read_head(path)
    assert not sentinel.exists() and not ran


@pytest.mark.parametrize("name", ["os.system", "eval", "exec, protocol 5"])
def test_the_hostile_pickles_are_hostile(tmp_path: Path, name: str) -> None:
    """Python's own unpickler does run them: the test above would notice."""
    sentinel = tmp_path / "ran"
    pickle.loads(hostile(name, sentinel))
    assert sentinel.exists()


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
def test_mutated_pickles_are_refused_or_read(tmp_path: Path) -> None:
    """Whatever a damaged byte does, it ends in a head model's arrays or in an InputError."""
    rng, path, refused = np.random.default_rng(5), tmp_path / "head.pkl", 0
    whole = write_flame(path, flame_arrays(40, 8, 301)).read_bytes()
    structure = [i for i in range(len(whole)) if i < 400 or i > len(whole) - 600]
    for _ in range(400):
        data = bytearray(whole)
        for position in rng.choice(structure, rng.integers(1, 4)):
            data[position] = rng.integers(256)
        path.write_bytes(data)
        try:
            read_head(path)
        except InputError:
            refused += 1
    assert refused > 200


def with_array(state: tuple, dtype: bytes = b"f8") -> bytes:
    """A pickle of {'v_template': array} whose array claims `state`: shape, order, data."""
    shape, fortran, data = state
    head = b"\x80\x02}X\x0a\x00\x00\x00v_templatecnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    made = b"(K\x01" + pickle.dumps(shape, 2)[2:-1] + b"cnumpy\ndtype\nX" + struct.pack("<I", len(dtype)) + dtype
    made += b"\x89\x88\x87R(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return head + made + (b"\x88" if fortran else b"\x89") + pickle.dumps(data, 3)[2:-1] + b"tbs."


@pytest.mark.parametrize(
    ("state", "dtype", "says"),
    [
        (((10**6, 10**6), False, b"\0" * 16), b"f8", "declared as"),
        (((2**62, 4), False, b""), b"f8", "declared as"),
        (((-1, -2), False, b"\0" * 16), b"f8", "declared as"),
        (((2,), False, b"\0" * 15), b"f8", "declared as"),
        (((2,), False, [1, 2]), b"f8", "Python objects"),
        (((2,), False, [1, 2]), b"O8", "no number"),
        (((2,), False, b"\0" * 16), b"O8", "no number"),
        (((2,), False, b"\0" * 16), b"V8", "no number"),
        (((2,), False, b"\0" * 16), b"f8,f8", "no number"),
        (((), False, b"\0" * 16), b"f8", "declared as"),
        ((((((((2,),),),),),), False, b"\0" * 16), b"f8", "declared as"),
    ],
)
def test_arrays_that_lie(tmp_path: Path, state: tuple, dtype: bytes, says: str) -> None:
    path = tmp_path / "head.pkl"
    path.write_bytes(with_array(state, dtype))
    with pytest.raises(InputError, match=says):
        read_head(path)


def test_the_lying_arrays_are_otherwise_sound(tmp_path: Path) -> None:
    path = tmp_path / "head.pkl"
    path.write_bytes(with_array(((2,), False, struct.pack("<2d", 1.5, -2.0))))
    np.testing.assert_array_equal(to_array(read_pickle(path)["v_template"]), [1.5, -2.0])
    np.testing.assert_array_equal(pickle.loads(path.read_bytes())["v_template"], [1.5, -2.0])


@pytest.mark.parametrize("change", ["index", "pointer", "huge", "negative"])
def test_sparse_matrices_that_lie(tmp_path: Path, small: dict[str, np.ndarray], change: str) -> None:
    matrix = scipy.sparse.csc_matrix(small["J_regressor"])
    if change == "index":
        matrix.indices[0] = 10_000_000
    elif change == "negative":
        matrix.indices[0] = -3
    elif change == "pointer":
        matrix.indptr[7] = 2**31 - 1
    else:
        matrix._shape = (10**9, 10**9)
    path = tmp_path / "head.pkl"
    path.write_bytes(pickle.dumps(small | {"J_regressor": matrix}, 4))
    with pytest.raises(InputError, match="J_regressor.*sparse matrix"):
        read_head(path)


def test_computed_chumpy_array_is_named(tmp_path: Path, small: dict[str, np.ndarray]) -> None:
    with chumpy() as ch:
        value = ch(np.zeros(3))
        del value.x
        data = pickle.dumps(small | {"shapedirs": value}, 2)
    path = tmp_path / "head.pkl"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"shapedirs: chumpy\.ch\.Ch is computed, not stored"):
        read_head(path)


def test_npz_with_objects_or_a_lying_header(tmp_path: Path, small: dict[str, np.ndarray]) -> None:
    path, sentinel = tmp_path / "head.npz", tmp_path / "ran"
    write_npz(path, small | {"f": np.array([Runs(eval, f"open({str(sentinel)!r}, 'w').close()")], dtype=object)})
    with pytest.raises(InputError, match="array of object"):
        read_head(path)
    assert not sentinel.exists()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 3)})
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("v_template.npy", header.getvalue() + b"\0" * 24)
    with pytest.raises(InputError, match="declared as"):
        read_head(path)


# Landmarks kept beside a file, and conversion


def embedded(head: HeadModel) -> HeadModel:
    """Stands for a search that found something: some triangles, known weights."""
    from dataclasses import replace

    def marks(n: int) -> Landmarks:
        return Landmarks(torch.arange(n) % len(head.faces), torch.tensor([0.2, 0.3, 0.5]).expand(n, 3).contiguous())

    return replace(head, landmarks68=marks(68), landmarks_dense=marks(478), landmark_spread=torch.full((478,), 0.002))


def test_landmarks_are_kept_and_used_for_that_head_alone(tmp_path: Path, small: dict[str, np.ndarray]) -> None:
    path = write_flame(tmp_path / "flame.pkl", small)
    head = read_head(path)
    assert head.landmarks_dense is None
    beside, _ = load.landmark_files(path, head)
    load._write_landmarks(embedded(head), beside)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["flame.landmarks.safetensors", "flame.pkl"]
    loaded = load_head(path)
    assert loaded.landmarks_dense is not None and loaded.landmarks68 is not None and loaded.landmark_spread is not None
    torch.testing.assert_close(loaded.landmarks_dense.bary[477], torch.tensor([0.2, 0.3, 0.5]))
    assert loaded.landmarks_dense.face.tolist() == [i % 300 for i in range(478)]
    other = small | {"v_template": small["v_template"] * 1.01}
    changed = load._with_kept_landmarks(read_head(write_flame(path, other)), path)
    assert changed.landmarks_dense is None
    beside.write_bytes(b"rubbish")
    assert load._with_kept_landmarks(head, path).landmarks_dense is None


def test_convert_head(tmp_path: Path, small: dict[str, np.ndarray]) -> None:
    source, target = write_flame(tmp_path / "flame2023_Open.pkl", small), tmp_path / "new" / "head.safetensors"
    head = read_head(source)
    load._write_landmarks(embedded(head), load.landmark_files(source, head)[0])
    convert_head(source, target)
    assert [f.name for f in target.parent.iterdir()] == ["head.safetensors"]
    again = load_head(target)
    assert_same(again, small)
    assert (again.digest, again.licence, again.name) == (head.digest, head.licence, "flame2023_Open")
    assert again.landmarks_dense is not None and len(again.landmarks_dense.face) == 478
    assert torch.equal(again.face_parts, head.face_parts)
    with pytest.raises(InputError, match="is a .safetensors file"):
        convert_head(source, tmp_path / "head.npz")
    with pytest.raises(InputError, match="overwrite its source"):
        convert_head(target, target)
    with pytest.raises(InputError, match="cannot be written"):
        convert_head(source, source / "head.safetensors")


def test_converted_heads_are_checked_too(tmp_path: Path, small: dict[str, np.ndarray]) -> None:
    from dataclasses import replace

    from comfyui_flow3d.flow3d.head.files import save_head

    write_npz(tmp_path / "a.npz", small)
    head, path = embedded(read_head(tmp_path / "a.npz")), tmp_path / "bad.safetensors"
    assert head.landmarks_dense is not None
    for bad, says in (
        (replace(head, template=head.template * torch.nan), "template holds values that are not finite"),
        (replace(head, faces=head.faces + 1), "faces name vertices outside"),
        (replace(head, skin_weights=head.skin_weights[:, :4]), "skin_weights has shape"),
        (replace(head, landmarks68=None, landmarks_dense=head.landmarks68), "landmarks_dense has"),
        (
            replace(head, landmarks_dense=Landmarks(head.landmarks_dense.face + 300, head.landmarks_dense.bary)),
            "outside",
        ),
        (replace(head, expression_names=("a",)), "1 names for 10 expressions"),
    ):
        save_head(bad, path)
        with pytest.raises(InputError, match=f"(?s)^bad.safetensors: .*{says}"):
            read_head(path)


def as_flame(head: HeadModel) -> dict[str, np.ndarray]:
    """The open head in FLAME's layout: 300 identity components, the last of them zero, and no inner mouth."""

    def double(x: torch.Tensor) -> np.ndarray:
        return x.numpy().astype(np.float64)

    basis = np.zeros((len(head.template), 3, 300 + head.n_expression))
    basis[..., : head.n_shape] = double(head.shape_basis.permute(1, 2, 0))
    basis[..., 300:] = double(head.expression_basis.permute(1, 2, 0))
    return {
        "v_template": double(head.template),
        "shapedirs": basis,
        "posedirs": double(head.pose_basis.permute(1, 2, 0)),
        "weights": double(head.skin_weights),
        "J_regressor": double(head.joint_regressor),
        "f": head.faces[head.face_parts != INNER_MOUTH].numpy().astype(np.uint32),
        "kintree_table": PARENTS,
    }


def test_landmarks_of_a_flame_file_are_found_once(
    tmp_path: Path, open_head: HeadModel, face_landmarker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a pickle to landmarks by the real landmarker, on fewer views than usual; then from the kept file."""
    monkeypatch.setattr(embed, "YAWS", (-15.0, 0.0, 15.0))
    monkeypatch.setattr(embed, "PITCHES", (0.0,))
    monkeypatch.setattr(embed, "PEOPLE", 1)
    path, steps = write_flame(tmp_path / "generic_model.pkl", as_flame(open_head)), []
    head = load_head(path, [face_landmarker.parent], lambda done, total: steps.append((done, total)))
    assert steps and steps[-1][0] == steps[-1][1]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["generic_model.landmarks.safetensors", "generic_model.pkl"]
    assert head.landmarks_dense is not None and head.landmarks68 is not None and open_head.landmarks_dense is not None
    both = head.landmarks_dense.found & open_head.landmarks_dense.found
    assert both.sum() > 400
    ours = head.landmarks_dense.on(head.template, head.faces)
    known = open_head.landmarks_dense.on(open_head.template, open_head.faces)
    assert (ours - known)[both].norm(dim=1).median() < 0.003

    def never(*_: object) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr(embed, "embed_landmarks", never)
    again = load_head(path)
    assert again.landmarks_dense is not None
    assert torch.equal(again.landmarks_dense.face, head.landmarks_dense.face)
    assert torch.equal(again.landmarks_dense.bary, head.landmarks_dense.bary)


def test_licences() -> None:
    assert licence_of("flame2023_Open").startswith("CC-BY-4.0")
    assert all("non-commercial" in licence_of(n) for n in ("generic_model", "flame2023", "FLAME_2020", "mine"))
