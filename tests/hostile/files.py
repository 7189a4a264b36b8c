"""Broken, lying and dangerous files of every kind that a node reads, made at run time.

`Trap` is what code in a file would do if it ran: make a file in the trap's folder, where nobody else makes one.
"""

import io
import json
import pickle
import struct
import wave
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from comfyui_flow3d.flow3d.io.motions import load_motion
from comfyui_flow3d.flow3d.io.tracks import save_track
from comfyui_flow3d.flow3d.track import HeadTrack

INPUT, LIVE = "input", "temp/flow3d_live"
FLAME, CONTROLNET, APPEARANCE, MOTION = (
    f"models/{name}" for name in ("flame", "controlnet", "flow3d_appearance", "animatediff_models")
)
Change = Callable[[dict[str, torch.Tensor], dict[str, Any]], None]


@dataclass(frozen=True)
class HostileFile:
    folder: str  # within the server's base directory
    name: str
    data: bytes


class Trap:
    """Files that pickled code would make."""

    def __init__(self, folder: Path):
        self.folder = folder

    def code(self, name: str) -> Any:
        """An object whose pickle, loaded by Python's own unpickler, makes a file."""
        path = str(self.folder / name)

        class Armed:
            def __reduce__(self) -> tuple[Any, ...]:
                return open, (path, "w")

        return Armed()

    def sprung(self) -> list[str]:
        return sorted(p.name for p in self.folder.iterdir())


def hostile_files(trap: Trap, scratch: Path, secret: Path) -> Iterator[HostileFile]:
    """All files. `scratch`: a folder to work in. `secret`: a folder beside the server's that no file may lead to."""
    for folder, made in (
        (INPUT, _tracks(trap, scratch)), (INPUT, _livelink()), (INPUT, _arrays(trap)), (INPUT, _pickles(trap)),
        (INPUT, _matlab()), (INPUT, _landmarks(trap)), (INPUT, _videos(scratch, secret)), (INPUT, _pictures()),
        (FLAME, _heads(trap, scratch)), (LIVE, _left(trap, scratch)),
        (CONTROLNET, _weights(trap)), (APPEARANCE, _weights(trap)), (MOTION, _weights(trap)),
    ):  # fmt: skip
        yield from (HostileFile(folder, name, data) for name, data in made)
    yield HostileFile(f"{INPUT}/outside", "transforms.json", _transforms("../../../secret/flame.npz"))
    yield HostileFile(f"{INPUT}/absolute", "transforms.json", _transforms(str(secret / "flame.npz")))
    yield HostileFile(f"{INPUT}/itself", "transforms.json", _transforms("transforms.json"))
    yield HostileFile(f"{INPUT}/nothing", "transforms.json", _transforms("frames/0.npz"))
    yield HostileFile(f"{INPUT}/names", "transforms.json", _transforms("a\0b" * 5, "x" * 5000, ""))


# --- safetensors -----------------------------------------------------------------------------------------------------


def still() -> HeadTrack:
    """One frame of a bundled motion."""
    return load_motion("nod")[:1]


def track_bytes(scratch: Path, track: HeadTrack | None = None) -> bytes:
    path = scratch / "track.safetensors"
    save_track(track or still(), path)
    return path.read_bytes()


def taken_apart(data: bytes) -> tuple[dict[str, Any], bytes]:
    """A safetensors file's header and what follows it."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def put_together(header: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def _tracks(trap: Trap, scratch: Path) -> Iterator[tuple[str, bytes]]:
    good = track_bytes(scratch)
    yield "good.safetensors", good
    yield "t-empty.safetensors", b""
    yield "t-text.safetensors", b"this is a text, and not a short one at all\n" * 20
    yield "t-longer-header.safetensors", (len(good) * 9).to_bytes(8, "little") + good[8:]
    yield "t-endless-header.safetensors", (2**63 - 1).to_bytes(8, "little") + good[8:]
    yield "t-cut.safetensors", good[: len(good) // 2]
    yield "t-cut-in-header.safetensors", good[:40]
    yield "t-pickle.safetensors", pickle.dumps(trap.code("track"))
    yield "t-archive.safetensors", _npz({"expression": np.zeros((1, 52), np.float32)})
    yield "t-foreign.safetensors", save({"weight": torch.zeros(3)})
    yield from ((f"t-{name}.safetensors", data) for name, data in _lying_headers(good))
    for name, change in (_TRACK_CHANGES | _META_CHANGES).items():
        yield f"t-{name}.safetensors", _changed(good, change)
    for name, text in (
        ("deep", "[" * 100_000),
        ("no-json", "{"),
        ("list", "[1, 2]"),
        ("number", "17"),
        ("endless", "1" * 5000),
    ):
        header, body = taken_apart(good)
        header["__metadata__"]["flow3d"] = text
        yield f"t-meta-{name}.safetensors", put_together(header, body)


def _lying_headers(good: bytes) -> Iterator[tuple[str, bytes]]:
    for name, entry in (
        ("offsets-backwards", {"data_offsets": [64, 0]}), ("offsets-far", {"data_offsets": [0, 2**62]}),
        ("shape-endless", {"shape": [2**62, 2**62]}), ("shape-negative", {"shape": [-1, 3]}), ("type-unknown", {"dtype": "F7"}),
        ("type-text", {"dtype": 7}),
    ):  # fmt: skip
        header, body = taken_apart(good)
        header["rotation"] |= entry
        yield name, put_together(header, body)
    header, body = taken_apart(good)
    yield (
        "many-names",
        put_together(
            header | {f"x{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(20_000)}, body
        ),
    )


def _changed(data: bytes, change: Change) -> bytes:
    """The file with its tensors and its metadata changed, whole again."""
    header, body = taken_apart(data)
    meta = json.loads(header.pop("__metadata__")["flow3d"])
    types = {"F32": np.float32, "I64": np.int64}
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        array = np.frombuffer(body[start:end], types[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = torch.from_numpy(array.copy())
    change(tensors, meta)
    return save(tensors, {"flow3d": json.dumps(meta)})


def _tensor(name: str, made: Callable[[], torch.Tensor]) -> Change:
    def change(tensors: dict[str, torch.Tensor], _: dict[str, Any]) -> None:
        tensors[name] = made()

    return change


def _without(name: str) -> Change:
    def change(tensors: dict[str, torch.Tensor], _: dict[str, Any]) -> None:
        del tensors[name]

    return change


def _meta(name: str, value: Any) -> Change:
    def change(_: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
        meta[name] = value

    return change


def _lens(name: str, value: Any) -> Change:
    def change(_: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
        meta["camera"][name] = value

    return change


def _largest(_: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
    """The largest picture that a track may tell of: allowed, and too large for most of what can be done with it."""
    meta["camera"] |= {"width": 65536, "height": 65536, "focal": 150_000.0, "cx": 32768.0, "cy": 32768.0}


_TRACK_CHANGES: dict[str, Change] = {
    "nan": _tensor("rotation", lambda: torch.full((1, 3), torch.nan)),
    "infinite": _tensor("translation", lambda: torch.full((1, 3), torch.inf)),
    "no-frames": _tensor("expression", lambda: torch.zeros(0, 52)),
    "lacks-rotation": _without("rotation"),
    "rotation-wide": _tensor("rotation", lambda: torch.zeros(1, 4)),
    "rotation-long": _tensor("rotation", lambda: torch.zeros(7, 3)),
    "rotation-scalar": _tensor("rotation", lambda: torch.tensor(1.0)),
    "rotation-whole": _tensor("rotation", lambda: torch.zeros(1, 3, dtype=torch.int32)),
    "rotation-truth": _tensor("rotation", lambda: torch.zeros(1, 3, dtype=torch.bool)),
    "rotation-f8": _tensor("rotation", lambda: torch.zeros(1, 3).to(torch.float8_e4m3fn)),
    "rotation-complex": _tensor("rotation", lambda: torch.zeros(1, 3, dtype=torch.complex64)),
    "joints-many": _tensor("joints", lambda: torch.zeros(1, 400, 3)),
    "expression-wide": _tensor("expression", lambda: torch.zeros(1, 100_000)),
    "shape-square": _tensor("shape", lambda: torch.zeros(3, 3)),
    "state-beyond": _tensor("state", lambda: torch.tensor([9])),
    "state-floats": _tensor("state", lambda: torch.tensor([0.5])),
    "confidence-square": _tensor("confidence", lambda: torch.zeros(1, 2)),
    "offsets-flat": _tensor("offsets", lambda: torch.zeros(9)),
    "offsets-few": _tensor("offsets", lambda: torch.zeros(7, 3)),
    "frame-offsets-few": _tensor("frame_offsets", lambda: torch.zeros(1, 7, 3)),
    "landmark-offsets-few": _tensor("landmark_offsets", lambda: torch.zeros(1, 7, 3)),
    "texture-beyond": _tensor("texture", lambda: torch.full((9, 3), 7.0)),
    "light-few": _tensor("light", lambda: torch.zeros(4, 3)),
    "far-away": _tensor("translation", lambda: torch.full((1, 3), 3e38)),
    "spinning": _tensor("rotation", lambda: torch.full((1, 3), 3e38)),
}  # fmt: skip
_META_CHANGES: dict[str, Change] = {
    "version": _meta("format_version", 99),
    "version-text": _meta("format_version", "1'; DROP TABLE tracks"),
    "fps-none": _meta("fps", None),
    "fps-text": _meta("fps", "25"),
    "fps-nan": _meta("fps", float("nan")),
    "fps-endless": _meta("fps", 10**400),
    "fps-huge": _meta("fps", 1e308),
    "fps-tiny": _meta("fps", 1e-308),
    "camera-none": _meta("camera", None),
    "camera-list": _meta("camera", [1, 2, 3, 4, 5]),
    "camera-more": _lens("zoom", 3),
    "camera-text": _lens("width", "512"),
    "camera-wide": _lens("width", 10**9),
    "camera-largest": _largest,
    "camera-endless": _lens("height", 10**400),
    "camera-parts": _lens("width", 512.5),
    "camera-nan": _lens("focal", float("nan")),
    "camera-flat": _lens("focal", 1e-300),
    "joint-names-few": _meta("joint_names", ["root"]),
    "joint-names-numbers": _meta("joint_names", [1, 2, 3, 4, 5]),
    "joint-names-text": _meta("joint_names", "abcde"),
    "joint-names-others": _meta("joint_names", ["a", "b", "c", "d", "e"]),
    "head-name-number": _meta("head_name", 5),
    "head-name-endless": _meta("head_name", "x" * 1_000_000),
    "head-digest-number": _meta("head_digest", 5),
    "head-other": _meta("head_digest", "ab" * 32),
}


# --- tables, arrays, pickles -----------------------------------------------------------------------------------------


def _livelink() -> Iterator[tuple[str, bytes]]:
    from comfyui_flow3d.flow3d.io.livelink import COLUMNS

    header = ",".join(COLUMNS)
    row = "00:00:00:00.0,61," + ",".join(["0"] * 61)
    yield "c-empty.csv", b""
    yield "c-text.csv", b"dear sir or madam\n"
    yield "c-binary.csv", bytes(range(256)) * 50
    yield "c-zeros.csv", bytes(10_000)
    yield "c-header-only.csv", header.encode()
    yield "c-twice-header.csv", f"{header}\n{header}\n".encode()
    yield "c-nan.csv", f"{header}\n{row[:-1]}nan\n".encode()
    yield "c-huge-number.csv", f"{header}\n{row[:-1]}1e999\n".encode()
    yield "c-timecode.csv", f"{header}\n{row.replace('00:00:00:00.0', '9e300:0:0:0')}\n".encode()
    yield "c-years.csv", f"{header}\n{row}\n{row.replace('00:00:00', '999:00:00')}\n".encode()
    yield "c-cut.csv", f"{header}\n{row[:30]}\n".encode()
    yield "c-open-quote.csv", f'{header}\n"{row}\n'.encode()
    yield "c-wide-cell.csv", f"{header}\n{'7' * 300_000}\n".encode()
    yield "c-wide-row.csv", (header + "\n" + "," * 300_000).encode()
    yield "c-digits.csv", f"{header}\n{row.replace('00:00:00:00.0', '٣:٣:٣:' + '9' * 5000)}\n".encode()


def _npz(arrays: dict[str, Any], pickled: bool = False) -> bytes:
    file = io.BytesIO()
    np.savez(file, **(arrays if pickled else {k: np.asarray(v) for k, v in arrays.items()}))
    return file.getvalue()


def _archive(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return file.getvalue()


def zip_bomb(names: list[str], size: int) -> bytes:
    """An archive of a few kilobytes whose members unpack to `size` zeros each."""
    unit = 1 << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(unit)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = block * (size // unit) + zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    file, directory, start = io.BytesIO(), io.BytesIO(), 0
    for name in names:
        fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 0, 0, len(packed), size, len(name), 0)
        start = file.tell()
        file.write(b"PK\3\4" + fields + name.encode() + packed)
        directory.write(
            b"PK\1\2" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, start) + name.encode()
        )
    at, table = file.tell(), directory.getvalue()
    return (
        file.getvalue() + table + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, len(names), len(names), len(table), at, 0)
    )


def _npy_header(shape: str, body: bytes = b"", dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + body


def _lying_arrays(trap: Trap, keys: tuple[str, str]) -> Iterator[tuple[str, bytes]]:
    """Archives of NumPy with the names that their reader looks for."""
    first, second = keys
    objects = np.empty(2, object)
    objects[:] = [trap.code(f"npz-{first}"), 1]
    yield "code.npz", _npz({first: objects, second: np.zeros((1, 3))}, pickled=True)
    yield "bomb.npz", zip_bomb([f"{first}.npy"], 3 << 30)
    yield "bombs.npz", zip_bomb([f"{name}.npy" for name in (first, second, "a", "b", "c", "d")], 800 << 20)
    yield (
        "lying.npz",
        _archive({f"{first}.npy": _npy_header("(2**40,)"), f"{second}.npy": _npy_header("(4611686018427387904, 2)")}),
    )
    yield (
        "negative.npz",
        _archive({f"{first}.npy": _npy_header("(-1, 3)", bytes(12)), f"{second}.npy": _npy_header("(3,)", bytes(12))}),
    )
    yield "call.npz", _archive({f"{first}.npy": _npy_header("(__import__('os').system('exit'),)", bytes(12))})
    yield "text-inside.npz", _archive({f"{first}.npy": b"no array", f"{second}.npy": b""})
    yield "cut.npz", _npz({first: np.zeros((40, 40)), second: np.zeros((40, 3))})[:900]
    yield "text.npz", b"not an archive"
    yield "traversal.npz", _archive({"../../../escaped.npy": _npy_header("(3,)", bytes(12)), f"../{first}.npy": b""})
    yield "strings.npz", _npz({first: np.array(["a", "b"]), second: np.array([b"c"])})
    yield "nan.npz", _npz({first: np.full((1, 50), np.nan), second: np.full((1, 6), np.nan)})
    yield "zero-sides.npz", _npz({first: np.zeros((0, 50)), second: np.zeros((0, 0, 6))})
    yield "deep-sides.npz", _npz({first: np.zeros((1,) * 30), second: np.zeros((1,) * 30)})
    yield "encrypted.npz", _encrypted(_archive({f"{first}.npy": _npy_header("(3,)", bytes(12))}))


def _encrypted(data: bytes) -> bytes:
    """The archive with the flag of encryption set on its members."""
    for mark, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = data.index(mark)
        data = data[: place + at] + b"\1" + data[place + at + 1 :]
    return data


def _arrays(trap: Trap) -> Iterator[tuple[str, bytes]]:
    yield from ((f"a-{name}", data) for name, data in _lying_arrays(trap, ("exp", "pose")))
    yield "a-numbers.json", b'{"exp": [[1e400, 2]], "pose": [[1,2,3],[4]], "shape": "x"}'
    yield "a-deep.json", b'{"exp": ' + b"[" * 100_000 + b"}"
    yield "a-closed-deep.json", b'{"exp": ' + b"[" * 900 + b"1" + b"]" * 900 + b', "pose": 1, "shape": 2}'
    yield "a-empty.json", b"{}"
    yield "a-nothing.json", b""
    yield "a-bytes.json", b"\xff\xfe\x00"
    yield "a-null.json", b'{"exp": null, "pose": null, "shape": null}'
    yield "a-frames.json", b'{"frames": [1, null, {"flame_param_path": 7}]}'
    yield "a-endless.json", b'{"exp": [' + b"9" * 10_000 + b'], "pose": [1], "shape": [1]}'


def _pickled_arrays(trap: Trap) -> Iterator[tuple[str, bytes]]:
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    laughs: Any = [0] * 10
    for _ in range(30):
        laughs = [laughs] * 10
    loop: list = []
    loop.append(loop)
    yield "code.pkl", pickle.dumps({"exp": trap.code("pickle"), "pose": 1})
    yield "system.pkl", b"cposix\nsystem\n(S'exit 3'\ntR."
    yield "eval.pkl", b"c__builtin__\neval\n(S'1/0'\ntR."
    yield "instance.pkl", b"(i__builtin__\nexec\n."
    yield "text.pkl", b"hello"
    yield "cut.pkl", pickle.dumps({"exp": np.zeros((4, 4)), "pose": np.zeros((4, 6))})[:80]
    yield "list.pkl", pickle.dumps([1, 2, 3])
    yield "deep.pkl", pickle.dumps({"exp": deep, "pose": deep, "shape": deep})
    yield "laughs.pkl", pickle.dumps({"exp": laughs, "pose": laughs, "shape": laughs})
    yield "loop.pkl", pickle.dumps({"exp": loop, "pose": loop, "shape": loop})
    yield "long-bytes.pkl", b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"abc."
    yield "no-stack.pkl", b"000000."
    yield "objects.pkl", pickle.dumps({"exp": np.array([trap.code("object array")], object), "pose": 1, "shape": 1})
    yield "persistent.pkl", b"Pfile\n."
    yield "extension.pkl", b"\x80\x02\x82\x01."
    yield "old.pkl", pickle.dumps({"exp": trap.code("protocol 0")}, 0)


def _pickles(trap: Trap) -> Iterator[tuple[str, bytes]]:
    yield from ((f"p-{name}", data) for name, data in _pickled_arrays(trap))


def _matlab() -> Iterator[tuple[str, bytes]]:
    from scipy.io import savemat

    file = io.BytesIO()
    savemat(file, {"exp": np.zeros((1, 50)), "pose": np.zeros((1, 6)), "shape": np.zeros((1, 100))})
    good = file.getvalue()
    yield "m-text.mat", b"hello there, this is no MATLAB file" * 9
    yield "m-empty.mat", b""
    yield "m-cut.mat", good[:300]
    yield "m-lying.mat", good[:176] + b"\xff\xff\xff\x7f" + good[180:]
    yield "m-zeros.mat", good[:128] + bytes(600)
    yield "m-noise.mat", good[:140] + np.random.default_rng(1).bytes(500)
    file = io.BytesIO()
    savemat(file, {"exp": {"a": np.zeros(3)}, "pose": np.array([[1], "x"], object), "shape": "text"})
    yield "m-structs.mat", file.getvalue()


def _transforms(*names: str) -> bytes:
    frames = [{"timestep_index": i, "camera_index": 0, "flame_param_path": name} for i, name in enumerate(names)]
    return json.dumps({"frames": frames}).encode()


# --- landmarks -------------------------------------------------------------------------------------------------------


def points(count: int = 478, columns: int = 2) -> list[list[float]]:
    """Points that could be a face for all that a file's reader knows."""
    return (np.random.default_rng(count).random((count, columns)) * 400 + 50).round(2).tolist()


def _landmarks(trap: Trap) -> Iterator[tuple[str, bytes]]:
    good = points()
    contents: dict[str, Any] = {
        "empty-object": {}, "list": [1, 2], "number": 7, "null": None, "text": "face", "no-points": {"points": []},
        "few": {"points": good[:5]}, "count": {"points": good[:477]}, "count-68": {"points": points(67)},
        "names": {"points": good, "evil": 1}, "both": {"points": good, "frames": []}, "no-frames": {"frames": []},
        "frames-numbers": {"frames": [1, 2]}, "frames-text": {"frames": "many"}, "no-faces": {"faces": []},
        "nobody": {"frames": [None] * 9}, "nulls": {"points": [None] * 478}, "flat": {"points": [1.0] * 956},
        "texts": {"points": [["a", "b"]] * 478}, "objects": {"points": [{}] * 478}, "truths": {"points": [[True, False]] * 478},
        "mixed": {"points": [*good[:-1], [1.0, 2.0, 3.0]]}, "endless": {"points": [[10**400, 1], *good[1:]]},
        "units": {"points": good, "units": "furlongs"}, "far-units": {"points": good, "units": "normalised"},
        "side": {"points": good, "width": -5, "height": 10}, "one-side": {"points": good, "width": 64},
        "side-text": {"points": good, "width": "wide", "height": "high"}, "scores": {"points": good, "scores": [2.0] * 51},
        "scores-few": {"points": good, "scores": [0.1]}, "scores-name": {"points": good, "scores": {"evil": 1}},
        "matrix": {"points": good, "matrix": [[0] * 4] * 4}, "matrix-few": {"points": good, "matrix": [[1]]},
        "confidence": {"points": good, "confidence": 9}, "depth-few": {"points": good, "depth": [1.0]},
        "depth-68": {"points": points(68), "depth": [1.0] * 68}, "deep-68": {"points": points(68, 3)},
        "many-frames": {"frames": [None] * 100_000},
    }  # fmt: skip
    for name, content in contents.items():
        yield f"l-{name}.json", json.dumps(content).encode()
    yield "l-nothing.json", b""
    yield "l-nan.json", json.dumps({"points": [[float("nan"), 1.0], *good[1:]]}).encode()
    yield "l-deep.json", b'{"points": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    yield "l-cut.json", json.dumps({"points": good}).encode()[:500]
    yield "l-bytes.json", b"\x89PNG\r\n\x1a\n" + bytes(50)
    yield "l-digits.json", b'{"points": [[' + b"9" * 6000 + b", 1]]}"
    yield "l-same-place.json", json.dumps({"points": [[30.0, 30.0]] * 478}).encode()
    yield "l-far.json", json.dumps({"points": [[x * 1e30, y * 1e30] for x, y in good]}).encode()
    yield "l-line.json", json.dumps({"points": [[float(i), 5.0] for i in range(478)]}).encode()
    yield from ((f"l-{name}", data) for name, data in _lying_arrays(trap, ("points", "scores")))
    yield "l-huge-shape.npz", _npz({"points": np.zeros((2, 3, 4, 5, 6))})
    yield "l-whole.npz", _npz({"points": np.zeros((478, 2), np.int8)})
    yield "l-infinite.npz", _npz({"points": np.full((478, 2), np.inf)})
    yield "l-unknown.npz", _npz({"points": np.array(good), "evil": np.zeros(3)})


# --- pictures and videos ---------------------------------------------------------------------------------------------


def _png(width: int, height: int, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "png")
    return file.getvalue()


def _pictures() -> Iterator[tuple[str, bytes]]:
    yield "i-dot.png", _png(1, 1)
    yield "i-line.png", _png(3000, 1)
    yield "i-alpha.png", _png(2, 2, "RGBA")
    yield "i-wide.png", _png(7, 5)


def video(path: Path, frames: int = 3, side: int = 64) -> bytes:
    with av.open(str(path), "w") as made:
        stream = made.add_stream("libx264", rate=25)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for i in range(frames):
            picture = np.full((side, side, 3), 40 * i % 256, np.uint8)
            made.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        made.mux(stream.encode())
    return path.read_bytes()


def _wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as made:
        made.setnchannels(1)
        made.setsampwidth(2)
        made.setframerate(8000)
        made.writeframes(bytes(8000))
    return file.getvalue()


def _videos(scratch: Path, secret: Path) -> Iterator[tuple[str, bytes]]:
    good = video(scratch / "good.mp4")
    playlist = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
    yield "v-good.mp4", good
    yield "v-text.mp4", b"a text and no video\n" * 100
    yield "v-empty.mp4", b""
    yield "v-cut.mp4", good[:200]
    yield "v-no-frames.mp4", _frameless(good)
    yield "v-sound.mp4", _wav()
    yield "v-noise.mp4", good[:48] + np.random.default_rng(2).bytes(len(good))
    yield "v-dot.gif", _gif(1)
    yield "v-picture.mp4", _png(1, 1)
    yield "v-list.mp4", playlist.format(secret / "clip.ts").encode()
    yield "v-list-near.m3u8", playlist.format("../../secret/clip.ts").encode()
    yield "v-concat.mp4", f"ffconcat version 1.0\nfile '{secret / 'clip.ts'}'\n".encode()
    yield (
        "v-session.mp4",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    )
    yield "v-huge.avi", _huge_sides(scratch)


def _gif(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(
        file, "gif", save_all=True, append_images=[Image.new("RGB", (side, side), "red")]
    )
    return file.getvalue()


def _frameless(good: bytes) -> bytes:
    """An mp4 whose table of samples is empty: stsz and stco say 0."""
    for box, at in ((b"stsz", 12), (b"stco", 8), (b"stts", 8), (b"stsc", 8)):
        place = good.index(box) + at - 4 + 4
        good = good[:place] + bytes(4) + good[place + 4 :]
    return good


def _huge_sides(scratch: Path) -> bytes:
    """An AVI of a few kilobytes that declares raw pictures of 30,000 x 30,000 pixels."""
    path = scratch / "small.avi"
    with av.open(str(path), "w") as made:
        stream = made.add_stream("rawvideo", rate=25)
        stream.width = stream.height = 16
        stream.pix_fmt = "bgr24"
        made.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8)).reformat(format="bgr24")))
        made.mux(stream.encode())
    data = path.read_bytes()
    for down in (1, -1):  # AVI tells of rows from top to bottom by a negative height
        data = data.replace(struct.pack("<ii", 16, 16 * down), struct.pack("<ii", 30_000, 30_000 * down))
    return data


# --- heads -----------------------------------------------------------------------------------------------------------


def head_bytes(scratch: Path) -> bytes:
    """The open head, whole: a good file to spoil."""
    from comfyui_flow3d.flow3d.head.files import OPEN_HEAD

    return OPEN_HEAD.read_bytes()


def _heads(trap: Trap, scratch: Path) -> Iterator[tuple[str, bytes]]:
    good = head_bytes(scratch)
    header, body = taken_apart(good)
    yield "h-cut.safetensors", good[:100_000]
    yield "h-empty.safetensors", b""
    yield "h-header.safetensors", (2**60).to_bytes(8, "little") + good[8:20_000]
    yield "h-pickle.safetensors", pickle.dumps(trap.code("head"))
    yield "h-track.safetensors", track_bytes(scratch)
    yield "h-foreign.safetensors", save({"weight": torch.zeros(3)})
    for name in ("faces", "template", "skin_weights"):
        yield f"h-lacks-{name}.safetensors", put_together({k: v for k, v in header.items() if k != name}, body)
    for name, meta in (
        ("deep", "[" * 100_000), ("bare", '{"format": "flow3d-head-1"}'), ("list", "[]"), ("number", "5"),
        ("parents", _head_meta(header, parents=[5, 4, 3, 2, 1])), ("parents-texts", _head_meta(header, parents=["a"] * 5)),
        ("names", _head_meta(header, expression_names=["x"])), ("joints", _head_meta(header, joint_names=7)),
        ("name-number", _head_meta(header, name=5)),
    ):  # fmt: skip
        yield f"h-meta-{name}.safetensors", put_together(header | {"__metadata__": {"flow3d": meta}}, body)
    small = {
        "format": "flow3d-head-1",
        "name": "x",
        "licence": "",
        "parents": [-1],
        "joint_names": ["root"],
        "expression_names": [],
    }
    tiny = {
        "template": torch.zeros(3, 3), "shape_basis": torch.zeros(1, 3, 3), "expression_basis": torch.zeros(1, 3, 3),
        "joint_regressor": torch.ones(1, 3) / 3, "skin_weights": torch.ones(3, 1), "faces": torch.tensor([[0, 1, 2]]),
    }  # fmt: skip
    for name, change in {
        "nan": {"template": torch.full((3, 3), torch.nan)}, "beyond": {"faces": torch.tensor([[0, 1, 99]])},
        "negative": {"faces": torch.tensor([[0, 1, -9]])}, "no-faces": {"faces": torch.zeros(0, 3, dtype=torch.int64)},
        "flat": {"template": torch.zeros(9)}, "scalar": {"template": torch.tensor(1.0)},
        "whole": {"template": torch.zeros(3, 3, dtype=torch.int64)}, "wrong-basis": {"shape_basis": torch.zeros(1, 4, 3)},
    }.items():  # fmt: skip
        yield f"h-tiny-{name}.safetensors", save(tiny | change, {"flow3d": json.dumps(small)})
    yield from ((f"h-{name}", data) for name, data in _lying_arrays(trap, ("v_template", "f")))
    yield from ((f"h-{name}", data) for name, data in _pickled_arrays(trap))
    yield "h-v_template-only.npz", _npz({"v_template": np.zeros((5023, 3))})


def _head_meta(header: dict[str, Any], **changes: Any) -> str:
    return json.dumps(json.loads(header["__metadata__"]["flow3d"]) | changes)


def _left(trap: Trap, scratch: Path) -> Iterator[tuple[str, bytes]]:
    """What another page may put where FLAME Edit leaves its tracks and heads for its own."""
    header, body = taken_apart(head_bytes(scratch))
    yield f"{'a' * 64}.track.safetensors", track_bytes(scratch)[:300]
    yield f"{'b' * 64}.track.safetensors", pickle.dumps(trap.code("live track"))
    yield f"{'c' * 64}.head.safetensors", put_together({k: v for k, v in header.items() if k != "faces"}, body)
    yield f"{'d' * 64}.head.safetensors", pickle.dumps(trap.code("live head"))
    yield f"{'e' * 64}.track.safetensors", track_bytes(scratch, replace(still(), head_name="x", head_digest="c" * 64))
    yield (
        f"{'f' * 64}.head.safetensors",
        put_together(header | {"__metadata__": {"flow3d": '{"format": "flow3d-head-1"}'}}, body),
    )


# --- networks --------------------------------------------------------------------------------------------------------


def _weights(trap: Trap) -> Iterator[tuple[str, bytes]]:
    file = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, file)
    saved = file.getvalue()
    good = save({"a": torch.zeros(3)})
    control = {
        "controlnet_cond_embedding.conv_in.weight": torch.zeros(16, 60, 3, 3), "controlnet_down_blocks.0.weight": torch.zeros(4),
        "time_embedding.linear_1.weight": torch.zeros(4, 4),
    }  # fmt: skip
    motion = {"down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": torch.zeros(32)}
    yield "w-code.pth", pickle.dumps(trap.code("weights"))
    yield "w-code-zip.pth", _torch_zip(trap)
    yield "w-code.ckpt", pickle.dumps({"state_dict": trap.code("checkpoint")})
    yield "w-code.safetensors", pickle.dumps(trap.code("weights as safetensors"))
    yield "w-cut.safetensors", good[:30]
    yield "w-header.safetensors", (2**50).to_bytes(8, "little") + good[8:]
    yield "w-empty.safetensors", b""
    yield "w-nothing.safetensors", save({})
    yield "w-other.safetensors", good
    yield "w-cut.pth", saved[: len(saved) // 2]
    yield "w-text.pth", b"hello"
    yield "w-empty.bin", b""
    yield "w-list.pt", _torch_bytes([1, 2, 3])
    yield "w-other.pt", saved
    yield "w-control.safetensors", save(control)
    yield "w-control-meta.safetensors", save(control, {"flow3d": "[" * 50_000, "format": "7"})
    yield "w-motion.safetensors", save(motion)
    yield (
        "w-unet.safetensors",
        save({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1), "first_stage_model.x": torch.zeros(1)}),
    )
    yield "w-portrait.safetensors", save({"appearance_control_model.input_blocks.0.0.weight": torch.zeros(1)})
    yield "w-sdxl.safetensors", save({"conditioner.embedders.0.x": torch.zeros(1)})
    yield "w-lora.safetensors", save({"lora_unet_x.lora_up.weight": torch.zeros(1)})


def _torch_bytes(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def _torch_zip(trap: Trap) -> bytes:
    return _torch_bytes({"a": torch.zeros(2), "b": trap.code("zipped weights")})
