"""The hostile requests: workflows with one bad thing each, and what has to come back.

Most are made from what the server says of its nodes (`/object_info`), so that an input has its cases from the day it is
added; `GOOD` holds values for every node with which it works, or would.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .files import APPEARANCE, CONTROLNET, FLAME, INPUT, MOTION, HostileFile

DOOR, ERROR, FINE, ANY = "refused at the door", "error at execution", "harmless", "harmless, or an error at execution"
WIRE, WIRES = "HostileWire", "HostileList"  # of `wires.py`
Prompt = dict[str, Any]
X = "x"
"""The id of the node that is tried."""

LINKS: Prompt = {
    "head": {"class_type": "Flow3DLoadHeadModel", "inputs": {"name": "open head"}},
    "motion": {"class_type": "Flow3DLoadHeadTrack", "inputs": {"track": "motion: nod"}},
    "still": {"class_type": "Flow3DFLAMETime", "inputs": {
        "track": ["motion", 0], "start": 0, "frames": 1, "speed": 1.0, "fps": 0.0, "direction": "forward", "loop_frames": 0,
    }},
    "clip": {"class_type": "Flow3DFLAMETime", "inputs": {
        "track": ["motion", 0], "start": 20, "frames": 2, "speed": 1.0, "fps": 0.0, "direction": "forward", "loop_frames": 0,
    }},
    "source": {"class_type": "Flow3DFLAMERetarget", "inputs": {
        "source": ["still", 0], "driver": ["still", 0], "mode": "absolute", "expression": True, "jaw": True, "pose": True,
        "eyes": True, "translation": True,
    }},
    "target": {"class_type": "Flow3DFLAMERetarget", "inputs": {
        "source": ["source", 0], "driver": ["clip", 0], "mode": "relative", "expression": True, "jaw": True, "pose": True,
        "eyes": True, "translation": True,
    }},
    "field": {"class_type": "Flow3DFlowEncode", "inputs": {
        "head": ["head", 0], "source": ["source", 0], "target": ["target", 0], "size": 64, "samples": 20, "delta": 0.01,
        "near": 0.65, "far": 1.25, "preview_frames": 1,
    }},
    "image": {"class_type": "EmptyImage", "inputs": {"width": 512, "height": 512, "batch_size": 1, "color": 8421504}},
    "crop": {"class_type": "Flow3DPortraitCrop", "inputs": {
        "image": ["image", 0], "size": 64, "box": "one box", "room": 1.0, "smoothing": 12.0, "min_confidence": 0.3,
        "track": ["source", 0],
    }},
    "mask": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 64, "height": 64}},
    "latents": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 2}},
    "model": {"class_type": WIRE, "inputs": {"kind": "model", "json": ""}},
    "prompt": {"class_type": WIRE, "inputs": {"kind": "conditioning", "json": ""}},
}  # fmt: skip
"""What the nodes that are tried are linked to; none of it takes long."""

GOOD: dict[str, dict[str, Any]] = {
    "Flow3DLoadHeadModel": {"name": "open head"},
    "Flow3DFLAMEFit": {
        "head": ["head", 0], "image": ["image", 0], "fps": 25.0, "field_of_view": 25.0, "min_confidence": 0.3,
        "missing_frames": "interpolate", "overlay_frames": 1, "landmarks_file": "none",
    },
    "Flow3DFLAMEEdit": {
        "track": ["source", 0], "yaw": 0.0, "pitch": 0.0, "roll": 0.0, "x": 0.0, "y": 0.0, "z": 0.0, "gazeYaw": 0.0,
        "gazePitch": 0.0, "jawOpen": 0.0, "smile": 0.0, "blink": 0.0, "browUp": 0.0, "more": "", "keyframes": "",
    },
    "Flow3DFLAMERetarget": LINKS["target"]["inputs"],
    "Flow3DFLAMEMix": {
        "first": ["source", 0], "second": ["target", 0], "mode": "blend", "weight": 0.5, "pose": True, "translation": True,
        "jaw": True, "mouth": True, "eyes": True, "eyelids": True, "brows": True, "expression": True, "shorter": "hold",
    },
    "Flow3DFLAMETime": LINKS["clip"]["inputs"],
    "Flow3DTrackReport": {"track": ["target", 0], "width": 768},
    "Flow3DPortraitCrop": LINKS["crop"]["inputs"],
    "Flow3DPasteBack": {
        "result": ["crop", 0], "transform": ["crop", 1], "full_frame": ["image", 0], "shape": "rounded square", "feather": 8,
        "colour_match": 1.0,
    },
    "Flow3DSaveHeadTrack": {"track": ["source", 0], "filename_prefix": "flow3d/hostile", "format": "safetensors"},
    "Flow3DLoadHeadTrack": {"track": "motion: nod"},
    "Flow3DFlowEncode": LINKS["field"]["inputs"],
    "Flow3DFlowVisualize": {"field": ["field", 0], "view": "direction", "window": "head", "size": 64, "scale": 0.0, "frames": 1},
    "Flow3DFlowToTracks": {
        "field": ["field", 0], "points": "68 landmarks", "spacing": 64, "background_spacing": 0, "width": 64, "height": 64,
        "length": 1, "start": "portrait",
    },
    "Flow3DRenderHead": {
        "track": ["source", 0], "size": 64, "depth": "inverse", "depth_range": "clip", "normals": "controlnet",
    },
    "Flow3DFlowWarpPreview": {"image": ["image", 0], "field": ["field", 0]},
    "Flow3DFlowWarpVideo": {"image": ["image", 0], "field": ["field", 0]},
    "Flow3DLoadFlowControlNet": {"name": "w-control.safetensors"},
    "Flow3DFlowControlNetApply": {
        "positive": ["prompt", 0], "negative": ["prompt", 0], "control_net": ["model", 0], "field": ["field", 0],
        "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0,
    },
    "Flow3DLoadAppearanceNetwork": {"name": "w-portrait.safetensors"},
    "Flow3DAppearanceReference": {
        "model": ["model", 0], "reference": ["latents", 0], "prompt": ["prompt", 0], "strength": 1.0, "start_percent": 0.0,
        "end_percent": 1.0, "timestep": "current", "halves": "both",
    },
    "Flow3DLoadMotionModule": {"name": "w-motion.safetensors", "positions": "as trained"},
    "Flow3DTemporalSampler": {
        "model": ["model", 0], "positive": ["prompt", 0], "negative": ["prompt", 0], "latents": ["latents", 0], "seed": 1,
        "steps": 1, "cfg": 1.0, "sampler_name": "ddim", "scheduler": "simple", "denoise": 1.0, "window_length": 2,
        "overlap": 0, "stride": 1, "closed_loop": False, "fusing": "pyramid", "offset": "none",
        "initial_noise": "independent", "prediction": "eps", "betas": "scaled linear", "zero_snr": False,
    },
}  # fmt: skip

SOCKETS = {
    "FLOW3D_TRACK": ["source", 0], "FLOW3D_HEAD": ["head", 0], "FLOW3D_FIELD": ["field", 0], "FLOW3D_CROP": ["crop", 1],
    "IMAGE": ["image", 0], "MASK": ["mask", 0], "LATENT": ["latents", 0],
}  # fmt: skip
"""A link of each type, to be put where another is wanted."""

PATHS = {
    "up": "../secret/{}", "far-up": "../" * 12 + "etc/passwd", "inner-up": "sub/../../../secret/{}", "dots": "..",
    "dot": ".", "slash": "/", "absolute": "{secret}/{}", "home": "~/{}", "file-url": "file://{secret}/{}", "link": "link/{}",
    "link-file": "link-{}", "backslashes": "..\\..\\secret\\{}", "drive": "C:\\Windows\\win.ini", "drive-relative": "C:{}",
    "unc": "\\\\server\\share\\{}", "unc-slashes": "//server/share/{}", "device-path": "\\\\.\\PhysicalDrive0",
    "long-path": "\\\\?\\C:\\{}", "device": "CON", "device-with-ending": "nul.safetensors", "device-folder": "sub/AUX/{}",
    "stream": "{}::$DATA", "null": "{}\0.png", "line": "a\nb\r\nc{}", "escape": "\x1b[2J\x1b]0;owned\x07{}", "surrogate": "\ud800{}",
    "right-to-left": "\u202e{}", "endless": "x" * 100_000, "long-name": "y" * 300, "deep": "d/" * 3000 + "{}", "empty": "",
    "blank": "   ", "trailing": "{}. . ", "annotated-up": "../secret/{} [output]", "annotated-temp": "../secret/{} [temp]",
    "annotation-alone": "[output]", "percent": "%2e%2e%2fsecret%2f{}", "variables": "%year%/../../%HOME%/$HOME/{}",
    "zero-width": "\u200b", "brackets": "{{0.__class__}}", "markup": "<img src=x onerror=alert(1)>",
}  # fmt: skip
"""Names that no file has within its folder. `{}` is a file that does lie in the secret folder, `{secret}` that folder."""


@dataclass(frozen=True)
class Case:
    """One request. `body` is a workflow, or, with a path, what is sent there (None: GET)."""

    family: str
    name: str
    expect: str
    body: Any
    path: str | None = None  # instead of /prompt
    node: str = X  # who has to answer
    says: tuple[str, ...] = ()  # what the message has to contain
    core: bool = False  # the message is ComfyUI's own
    wires: bool = field(init=False)  # needs the node of `wires.py`
    folders: bool = False  # needs files in the server's models folders, or links

    def __post_init__(self) -> None:
        kinds = (
            {n.get("class_type") for n in self.body.values() if isinstance(n, dict)}
            if isinstance(self.body, dict)
            else set()
        )
        object.__setattr__(self, "wires", bool(kinds & {WIRE, WIRES}))


def corpus(info: dict[str, Any], files: list[HostileFile], secret: str) -> list[Case]:
    """All cases for a server that describes its nodes by `info`. Raises ValueError where two have the same name."""
    cases = [
        *_inputs(info), *_paths(info, secret), *_files(files), *_curves(), *_texts(), *_wires(info), *_sizes(), *_media(),
        *_links(), *_bodies(), *_routes(), *_harmless(),
    ]  # fmt: skip
    seen: set[tuple[str, str]] = set()
    for case in cases:
        if (case.family, case.name) in seen:
            raise ValueError(f"two cases are called {case.family}: {case.name}")
        seen.add((case.family, case.name))
    return cases


def workflow(kind: str, changes: dict[str, Any], more: Prompt | None = None, slot: int = 0) -> Prompt:
    """A workflow around the node that is tried.

    It holds all of `LINKS` that any server knows, so that the server keeps what it made of them from case to case.
    """
    inputs = {**GOOD.get(kind, {}), **changes}
    linked = {v[0] for v in inputs.values() if isinstance(v, list) and v and isinstance(v[0], str)}
    links = {name: node for name, node in LINKS.items() if node["class_type"] != WIRE or name in linked}
    nodes: Prompt = {**links, **(more or {}), X: {"class_type": kind, "inputs": inputs}}
    return nodes | {"out": {"class_type": "PreviewAny", "inputs": {"source": [X, slot]}}}


def _described(info: dict[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any], bool]]:
    """(node, input, type, options, whether it is required) of all inputs of our nodes."""
    for kind in sorted(k for k in info if k.startswith("Flow3D")):
        if kind not in GOOD:
            raise ValueError(f"{kind} has no values in GOOD")
        for need in ("required", "optional"):
            for name, (of, *options) in info[kind]["input"].get(need, {}).items():
                yield kind, name, of, options[0] if options else {}, need == "required"


def short(kind: str) -> str:
    return kind.removeprefix("Flow3D")


# --- every input ------------------------------------------------------------------------------------------------------

_NO_NUMBERS: list[tuple[str, Any]] = [
    ("text", "seven"), ("null", None), ("object", {"a": 1}), ("list", [1, 2, 3]), ("empty-list", []), ("markup", "<b>1</b>"),
    ("list-within", {"__value__": [1, 2]}), ("long-text", "9" * 100_000), ("object-within", {"__value__": {}}),
]  # fmt: skip
_NO_CHOICES: list[tuple[str, Any]] = [
    ("other", "no such thing"), ("null", None), ("number", 7), ("nan", float("nan")), ("true", True), ("object", {"a": 1}),
    ("list-within", {"__value__": ["a"]}), ("endless", "x" * 200_000), ("control", "\0\x1b[31m\n"), ("empty", ""), ("upper", "OPEN HEAD"),
    ("path", "../../../etc/passwd"), ("object-within", {"__value__": {}}),
]  # fmt: skip
_NO_SOCKETS: list[tuple[str, Any]] = [
    ("text", "a track"), ("number", 5), ("object", {"shape": [1]}), ("true", True), ("nan", float("nan")), ("list-within", {"__value__": [1, 2]}),
]  # fmt: skip


def _inputs(info: dict[str, Any]) -> Iterator[Case]:
    """Every input of every node with what it is not meant to hold; the wrong values take turns."""
    turn = 0
    for kind, name, of, options, required in _described(info):
        turn += 1
        where = f"{short(kind)}.{name}"

        def case(
            what: str, value: Any, expect: str, kind: str = kind, name: str = name, where: str = where, **more: Any
        ) -> Case:
            return Case("inputs", f"{where} {what}", expect, workflow(kind, {name: value}), **more)

        if of in ("INT", "FLOAT"):
            yield case("too-large", max(10**9, options["max"] * 10) if of == "INT" else 1e300, DOOR, core=True)
            yield case("too-small", options["min"] - 10**9, DOOR, core=True)
            what, value = _NO_NUMBERS[turn % len(_NO_NUMBERS)]
            yield case(what, value, DOOR, core=True)
            if of == "FLOAT":
                says = () if kind == "Flow3DFlowControlNetApply" else ("nan",)  # its control net is none either
                yield case("nan", float("nan"), ERROR, says=says)
                yield case("infinite", float("inf") * (1 - 2 * (turn % 2)), DOOR, core=True)
            else:
                yield case("nan", float("nan"), DOOR, core=True)
        elif of == "COMBO":
            for shift in (0, 5):
                what, value = _NO_CHOICES[(turn + shift) % len(_NO_CHOICES)]
                yield case(what, value, ERROR if value is None else DOOR)  # at the door a null looks like a link
        elif of not in ("STRING", "BOOLEAN"):
            what, value = _NO_SOCKETS[turn % len(_NO_SOCKETS)]
            yield case(what, value, ERROR)
            link = next(link for t, link in SOCKETS.items() if t not in of.split(",") and t == _other(turn, of))
            yield case("other-link", link, DOOR, core=True)
            yield case("no-such-node", ["nobody", 0], DOOR, core=True)
            yield case("no-such-output", ["head", 99], DOOR, core=True)
        if required and turn % 3 == 0:
            prompt = workflow(kind, {})
            del prompt[X]["inputs"][name]
            yield Case("inputs", f"{where} missing", DOOR, prompt, core=True)


def _other(turn: int, of: str) -> str:
    kinds = [t for t in SOCKETS if t not in of.split(",")]
    return kinds[turn % len(kinds)]


# --- names ------------------------------------------------------------------------------------------------------------


def _paths(info: dict[str, Any], secret: str) -> Iterator[Case]:
    """Every input that becomes a path."""
    for kind, name, good in (
        ("Flow3DLoadHeadModel", "name", "flame.npz"), ("Flow3DLoadHeadTrack", "track", "good.safetensors"),
        ("Flow3DLoadFlowControlNet", "name", "w.safetensors"), ("Flow3DLoadAppearanceNetwork", "name", "w.safetensors"),
        ("Flow3DLoadMotionModule", "name", "w.safetensors"), ("Flow3DFLAMEFit", "landmarks_file", "face.json"),
    ):  # fmt: skip
        for what, pattern in PATHS.items():
            if what == "brackets":
                pattern = pattern.replace("{{", "{").replace("}}", "}")
            else:
                pattern = pattern.replace("{secret}", secret).replace("{}", good)
            link = what.startswith("link")
            if link and kind not in ("Flow3DLoadHeadTrack", "Flow3DFLAMEFit"):
                continue  # whoever may put links into the models folder means them: ComfyUI follows them
            yield Case("paths", f"{short(kind)} {what}", DOOR, workflow(kind, {name: pattern}), folders=link)
    yield Case(
        "paths",
        "LoadHeadTrack motion-up",
        DOOR,
        workflow("Flow3DLoadHeadTrack", {"track": "motion: ../../../secret/good"}),
    )
    yield Case(
        "paths",
        "LoadHeadTrack motion-absolute",
        DOOR,
        workflow("Flow3DLoadHeadTrack", {"track": f"motion: {secret}/good"}),
    )
    yield Case("paths", "LoadHeadTrack motion-none", DOOR, workflow("Flow3DLoadHeadTrack", {"track": "motion: "}))
    yield Case("paths", "LoadHeadTrack motion-null", DOOR, workflow("Flow3DLoadHeadTrack", {"track": "motion: \0"}))
    refused = {
        "up", "far-up", "inner-up", "absolute", "home-up", "link", "backslashes", "drive", "drive-relative", "unc", "unc-slashes",
        "device-path", "long-path", "device", "device-folder", "null", "line", "escape", "surrogate", "endless", "long-name",
        "deep", "empty", "blank", "dots", "dot", "slash", "file-url", "stream", "annotated-up", "annotated-temp", "variables",
        "device-with-ending", "trailing", "right-to-left", "zero-width",
    }  # fmt: skip
    for what, pattern in PATHS.items():
        pattern = pattern.replace("{secret}", secret).replace("{}", "track")
        prompt = workflow("Flow3DSaveHeadTrack", {"filename_prefix": pattern})
        yield Case("paths", f"SaveHeadTrack {what}", ERROR if what in refused else FINE, prompt, folders=what == "link")


# --- files ------------------------------------------------------------------------------------------------------------


def _files(files: list[HostileFile]) -> Iterator[Case]:
    """Every file to the node that reads its like."""
    for file in files:
        folder, models = file.folder, file.folder.startswith("models/")
        if folder == FLAME:
            yield _file(file, "Flow3DLoadHeadModel", {"name": file.name})
        elif folder == CONTROLNET:
            yield _file(file, "Flow3DLoadFlowControlNet", {"name": file.name})
        elif folder == APPEARANCE:
            yield _file(file, "Flow3DLoadAppearanceNetwork", {"name": file.name})
        elif folder == MOTION:
            yield _file(file, "Flow3DLoadMotionModule", {"name": file.name, "positions": "stretch"})
        elif folder.startswith(INPUT) and file.name[:2] in ("t-", "c-", "a-", "p-", "m-"):
            yield _file(
                file, "Flow3DLoadHeadTrack", {"track": file.name, "head": ["head", 0]}, _TRACKS.get(file.name, ERROR)
            )
        elif folder.startswith(f"{INPUT}/"):
            name = f"{folder.removeprefix(f'{INPUT}/')}/{file.name}"
            yield Case(
                "files",
                f"LoadHeadTrack {name}",
                ERROR,
                workflow("Flow3DLoadHeadTrack", {"track": name, "head": ["head", 0]}),
            )
        elif folder == INPUT and file.name.startswith("l-"):
            yield _file(file, "Flow3DFLAMEFit", {"landmarks_file": file.name}, _LANDMARKS.get(file.name, ERROR))
        assert models == (folder in (FLAME, CONTROLNET, APPEARANCE, MOTION))
    # The same bytes under the name of another kind.
    for name in ("i-dot.png", "v-good.mp4", "nobody.safetensors", "nobody.csv", "l-few.json", "l-code.npz"):
        expect = DOOR if name.startswith(("i-", "v-", "nobody")) else ERROR
        yield Case(
            "files",
            f"LoadHeadTrack {name}",
            expect,
            workflow("Flow3DLoadHeadTrack", {"track": name, "head": ["head", 0]}),
        )
    for name in ("a-empty.json", "a-code.npz", "nobody.json", "i-dot.png", "good.safetensors"):
        expect = ERROR if name.startswith("a-") else DOOR
        yield Case("files", f"FLAMEFit {name}", expect, workflow("Flow3DFLAMEFit", {"landmarks_file": name}))
    yield Case(
        "files", "LoadHeadTrack parameters without head", ERROR, workflow("Flow3DLoadHeadTrack", {"track": "a-nan.npz"})
    )


def _file(file: HostileFile, kind: str, changes: dict[str, Any], expect: str = ERROR) -> Case:
    says = (file.name,) if expect == ERROR else ()
    name = f"{short(kind)} {file.name}"
    return Case("files", name, expect, workflow(kind, changes), says=says, folders=file.folder.startswith("models/"))


# Tracks that are odd, yet whole: what they do further on has cases of its own (`_media`).
_TRACKS = {f"t-{name}.safetensors": ANY for name in (
    "many-names", "expression-wide", "offsets-few", "frame-offsets-few", "head-other", "joints-many", "joint-names-others",
    "camera-largest",
)} | {"c-years.csv": ERROR}  # fmt: skip
_LANDMARKS = {f"l-{name}.json": ANY for name in ("far", "same-place", "line")}


# --- curves, keyframes, texts ----------------------------------------------------------------------------------------

_KEYFRAMES = {
    "garbage": "asdf qwer zxcv", "bytes": "\0\x01\x02", "lines": "\n" * 50_000, "commas": "," * 50_000, "colons": ":" * 50_000,
    "equals": "yaw=" * 50_000, "unknown": "evil=1", "near-name": "yawn=1", "nan": "yaw=nan", "infinite": "yaw=inf", "overflow": "yaw=1e999",
    "no-value": "yaw=", "no-name": "=5", "two-values": "yaw: 0: 1, 0: 2", "negative-frame": "yaw: -1: 2", "far-frame": "yaw: 1000000000: 2",
    "endless-frame": "yaw: " + "9" * 5000 + ": 2", "foreign-digits": "yaw: ٣: 5, ²: 4", "endless-number": "yaw=" + "9" * 5000,
    "easing": "yaw: 0: 0, 5: 1 bouncy", "part-frame": "yaw: 0.5: 1", "curve": "yaw: curve * 3", "curve-factor": "yaw: curve * x",
    "code": "import os; os.system('exit')", "attribute": "yaw.__class__=1", "json": '{"yaw": [1, 2]}', "markup": "<script>alert(1)</script>",
    "long-name": "y" * 300_000 + "=1", "many": "\n".join(f"name{i}=1" for i in range(5_000)), "surrogate": "yaw=\ud800", "format": "{0.__class__}%s%n",
    "nested": "(" * 100_000, "twice": "yaw: 0: 1\nyaw: 0: 2", "spaces": "yaw" + " " * 300_000 + "x",
}  # fmt: skip
_LARGE_KEYFRAMES = {
    "enormous": "yaw: " + ", ".join(f"{i}: {i % 7}" for i in range(50_000)) + "x",
    "pieces": "yaw: " + ", 0" * 200_000,
    "digits": "yaw: " + "1" * 500_000,
    "dots": "yaw: 0: 0" + " " * 300_000 + "." * 300_000 + "!",
}


def _curves() -> Iterator[Case]:
    kind = "Flow3DFLAMEEdit"
    for name, text in _KEYFRAMES.items():
        harmless = FINE if name in ("lines", "commas") else ERROR
        yield Case("keyframes", f"keyframes {name}", harmless, workflow(kind, {"keyframes": text}))
        yield Case("keyframes", f"more {name}", harmless, workflow(kind, {"more": text}))
    for name, text in _LARGE_KEYFRAMES.items():
        yield Case("keyframes", f"keyframes {name}", ERROR, workflow(kind, {"keyframes": text}))
    for name, value in (("number", 7), ("object", {"a": 1}), ("null", None), ("list", {"__value__": [1, 2]})):
        yield Case("keyframes", f"keyframes {name} instead of text", ERROR, workflow(kind, {"keyframes": value}))
    yield Case("keyframes", "frames of a clip", ERROR, workflow(kind, {"track": ["target", 0], "frames": 99}))
    yield Case("keyframes", "neutralise beyond", ERROR, workflow(kind, {"more": "neutralise=7"}))
    yield Case("keyframes", "unused curve", ERROR, workflow(kind, {"curve": ["wire", 0]}, _wire("numbers")))
    for of in (
        "numbers with nan", "numbers with infinity", "numbers without end", "uneven numbers", "texts", "empty list", "dictionary",
        "hollow", "loop", "bytes", "big number", "complex number", "numpy number", "tensor number", "function", "class",
    ):  # fmt: skip
        changes = {"curve": ["wire", 0], "keyframes": "yaw: curve"}
        yield Case("curves", f"curve {of}", ERROR, workflow(kind, changes, _wire(of)))
        yield Case("curves", f"slider {of}", ERROR, workflow(kind, {"yaw": ["wire", 0]}, _wire(of)))
        yield Case("curves", f"weight {of}", ERROR, workflow("Flow3DFLAMEMix", {"weight": ["wire", 0]}, _wire(of)))


def _texts() -> Iterator[Case]:
    """JSON and worse in every text."""
    texts = {
        "json": '{"a": [1, 2, {"b": null}]}', "deep-json": "[" * 100_000, "quotes": "'\"`\\", "sql": "'; DROP TABLE tracks; --",
        "shell": "$(touch owned); `id` | cat /etc/passwd", "template": "{{7*7}} ${7*7} %(x)s", "xml": "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>",
        "emoji": "\U0001f480" * 5000, "marks": "a" + "\u0301" * 5000,
    }  # fmt: skip
    for name, text in texts.items():
        yield Case("texts", f"keyframes {name}", ERROR, workflow("Flow3DFLAMEEdit", {"keyframes": text}))
        yield Case("texts", f"more {name}", ERROR, workflow("Flow3DFLAMEEdit", {"more": text}))
        yield Case("texts", f"prefix {name}", ANY, workflow("Flow3DSaveHeadTrack", {"filename_prefix": text}))
        yield Case("texts", f"track {name}", DOOR, workflow("Flow3DLoadHeadTrack", {"track": text}))
        yield Case("texts", f"head {name}", DOOR, workflow("Flow3DLoadHeadModel", {"name": text}))


# --- wires ------------------------------------------------------------------------------------------------------------


def _wire(kind: str, text: str = "", many: bool = False) -> Prompt:
    return {"wire": {"class_type": WIRES if many else WIRE, "inputs": {"kind": kind, "json": text}}}


def _wired(node: str, name: str, of: str, expect: str = ERROR, family: str = "wires") -> Case:
    return Case(family, f"{short(node)}.{name} {of}", expect, workflow(node, {name: ["wire", 0]}, _wire(of)))


_BY_TYPE = {
    "IMAGE": (
        "pictures without frames", "pictures without height", "pictures without channels", "pictures without batch", "numpy pictures",
        "pictures in five axes", "number tensor", "complex pictures", "sparse tensor", "latent", "hollow",
    ),
    "MASK": ("number tensor", "pictures without frames", "hollow", "texts"),
    "LATENT": (
        "latent without samples", "latent of text", "latent in three axes", "latent without frames", "latent of nan",
        "latent of 16 channels", "pictures", "empty dictionary",
    ),
    "CONDITIONING": (
        "conditioning of text", "conditioning without options", "conditioning of numbers", "empty list", "conditioning of 768",
        "conditioning in two axes", "latent",
    ),
    "MODEL": ("latent", "function", "hollow"),
    "CONTROL_NET": ("model", "function", "hollow"),
    "VIDEO": ("bytes", "texts", "pictures"),
    "FACE_LANDMARKS": ("landmarks without frames", "landmarks of text", "landmarks of nan", "texts", "loop", "empty dictionary"),
    "FLOW3D_TRACK": ("dictionary", "hollow", "pictures", "numbers"), "FLOW3D_HEAD": ("class", "hollow", "latent"),
    "FLOW3D_FIELD": ("empty dictionary", "hollow", "function"), "FLOW3D_CROP": ("dictionary", "hollow"),
    "FLOW3D_APPEARANCE": ("model", "dictionary"), "FLOW3D_MOTION": ("model", "dictionary"),
}  # fmt: skip
_NUMBERS = ("numbers", "texts", "complex number", "numpy number", "big number", "hollow", "dictionary")


_LONG = {("Flow3DTemporalSampler", "source", "latent of 16 channels")}
"""Nothing is wrong with it, and it takes seconds."""
_MENDED = {("Flow3DTemporalSampler", "latent of 16 channels")}
"""What ComfyUI itself makes fit."""


def _wires(info: dict[str, Any]) -> Iterator[Case]:
    """Every input with things of the wrong kind from a link, which the server checks by its name alone."""
    turn = 0
    for kind, name, of, options, _ in _described(info):
        turn += 1
        if of in ("INT", "FLOAT"):
            beyond = [options["max"] * 10 + 10**9, options["min"] - 10**9][turn % 2]
            prompt = workflow(kind, {name: ["wire", 0]}, _wire("json", json.dumps(beyond)))
            says = () if kind == "Flow3DFlowControlNetApply" else (name,)
            yield Case("wires", f"{short(kind)}.{name} beyond its range", ERROR, prompt, says=says)
            if kind != "Flow3DFLAMEEdit" and (kind, name) != ("Flow3DFLAMEMix", "weight"):
                yield _wired(kind, name, _NUMBERS[turn % len(_NUMBERS)])
        elif of == "COMBO":
            wrong = ("texts", "big number", "hollow", "dictionary", "bytes", "loop")[turn % 6]
            yield _wired(kind, name, wrong)
        elif of == "STRING":
            yield _wired(kind, name, "bytes")
            yield _wired(kind, name, "dictionary")
        elif of == "BOOLEAN" and turn % 4 == 0:
            yield _wired(kind, name, "pictures")
        else:
            for wrong in _BY_TYPE.get(of.split(",")[0], ()):
                if (kind, name, wrong) not in _LONG:
                    yield _wired(kind, name, wrong, ANY if (kind, wrong) in _MENDED else ERROR)
    for kind in ("Flow3DFLAMEEdit", "Flow3DRenderHead", "Flow3DTrackReport", "Flow3DSaveHeadTrack"):
        prompt = workflow(kind, {"track": ["wire", 0]}, _wire("empty list", many=True))
        yield Case("wires", f"{short(kind)}.track none of a list", ERROR, prompt, core=True)


# --- sizes and counts -------------------------------------------------------------------------------------------------


def _sizes() -> Iterator[Case]:
    """What asks for more memory than there is, by values that are allowed one by one or come from a link."""

    def linked(node: str, name: str, value: float) -> Case:
        prompt = workflow(node, {name: ["wire", 0]}, _wire("json", json.dumps(value)))
        return Case("sizes", f"{short(node)}.{name} = {value:g}", ERROR, prompt, says=(name,))

    for node, name in (
        ("Flow3DFlowEncode", "size"), ("Flow3DFlowEncode", "samples"), ("Flow3DFlowEncode", "preview_frames"),
        ("Flow3DRenderHead", "size"), ("Flow3DFlowVisualize", "size"), ("Flow3DFlowVisualize", "frames"), ("Flow3DPortraitCrop", "size"),
        ("Flow3DFlowToTracks", "width"), ("Flow3DFlowToTracks", "height"), ("Flow3DFlowToTracks", "length"), ("Flow3DTrackReport", "width"),
        ("Flow3DPasteBack", "feather"), ("Flow3DTemporalSampler", "window_length"), ("Flow3DTemporalSampler", "steps"),
        ("Flow3DFLAMETime", "start"), ("Flow3DFLAMEEdit", "frames"), ("Flow3DFLAMERetarget", "reference"), ("Flow3DFLAMEFit", "face_index"),
    ):  # fmt: skip
        yield linked(node, name, 10**9)
        yield linked(node, name, -(10**6))
    yield linked("Flow3DFlowEncode", "samples", 10**6)
    yield linked("Flow3DFLAMETime", "speed", 1e-9)
    yield linked("Flow3DFLAMETime", "fps", 1e9)
    slow = {"track": ["motion", 0], "start": 0, "frames": 0, "speed": 0.01, "fps": 1000.0}
    yield Case("sizes", "FLAMETime too many frames", ERROR, workflow("Flow3DFLAMETime", slow), says=("frames",))
    far = {"track": ["source", 0], "keyframes": "yaw: 0: 0, 1999: 3"}
    minutes = {"minutes": {"class_type": "Flow3DFLAMEEdit", "inputs": {**GOOD["Flow3DFLAMEEdit"], **far}}}
    yield Case(
        "sizes",
        "RenderHead of minutes",
        ERROR,
        workflow("Flow3DRenderHead", {"track": ["minutes", 0], "size": 4096}, minutes),
        says=("GB",),
    )
    for node, name in (
        ("Flow3DPortraitCrop", "image"),
        ("Flow3DPasteBack", "result"),
        ("Flow3DPasteBack", "full_frame"),
    ):
        prompt = workflow(node, {name: ["wire", 0]}, _wire("endless pictures"))
        yield Case("sizes", f"{short(node)}.{name} endless", ERROR, prompt)
    wide = {
        "load": {"class_type": "Flow3DLoadHeadTrack", "inputs": {"track": "t-camera-largest.safetensors"}},
        "wide": {"class_type": "Flow3DFLAMERetarget", "inputs": {**GOOD["Flow3DFLAMERetarget"], "source": ["load", 0], "driver": ["twenty", 0]}},
        "twenty": {"class_type": "Flow3DFLAMETime", "inputs": {**GOOD["Flow3DFLAMETime"], "frames": 20}},
    }  # fmt: skip
    encode = {"source": ["load", 0], "target": ["wide", 0], "size": 0, "preview_frames": 0}
    yield Case(
        "sizes", "FlowEncode of the largest pictures", ERROR, workflow("Flow3DFlowEncode", encode, wide), says=("GB",)
    )


# --- pictures, videos, odd tracks ------------------------------------------------------------------------------------


def _media() -> Iterator[Case]:
    """What Load Image and Load Video hand over, and tracks that are whole but senseless."""
    for name in ("i-dot.png", "i-line.png", "i-alpha.png", "i-wide.png"):
        more = {"load": {"class_type": "LoadImage", "inputs": {"image": name}}}
        for kind in ("Flow3DFLAMEFit", "Flow3DFlowWarpPreview", "Flow3DFlowWarpVideo", "Flow3DPortraitCrop"):
            yield Case("media", f"{short(kind)} {name}", ERROR, workflow(kind, {"image": ["load", 0]}, more))
        yield Case("media", f"PortraitCrop {name} without a track", ERROR, _without_track(more))
        yield Case(
            "media", f"PasteBack {name} as the result", ANY, workflow("Flow3DPasteBack", {"result": ["load", 0]}, more)
        )
        yield Case(
            "media",
            f"PasteBack {name} as the full frame",
            ERROR,
            workflow("Flow3DPasteBack", {"full_frame": ["load", 0]}, more),
        )
    dot = {"load": {"class_type": "LoadImage", "inputs": {"image": "i-dot.png"}}}
    drawn = {"portrait": ["load", 0], "view": "checkerboard"}
    yield Case("media", "FlowVisualize i-dot.png", ANY, workflow("Flow3DFlowVisualize", drawn, dot))
    yield _wired("Flow3DFlowVisualize", "portrait", "pictures of nan", ANY, "media")
    yield _wired("Flow3DFlowWarpPreview", "image", "pictures of infinity", ANY, "media")
    videos = (
        "v-text.mp4", "v-empty.mp4", "v-cut.mp4", "v-no-frames.mp4", "v-sound.mp4", "v-noise.mp4", "v-dot.gif", "v-picture.mp4",
        "v-list.mp4", "v-list-near.m3u8", "v-concat.mp4", "v-session.mp4", "v-huge.avi", "v-good.mp4",
    )  # fmt: skip
    for name in videos:
        more = {"load": {"class_type": "LoadVideo", "inputs": {"file": name}}}
        says = () if name in ("v-dot.gif", "v-picture.mp4", "v-good.mp4", "v-noise.mp4") else (name,)
        yield Case(
            "media", f"FLAMEFit {name}", ERROR, workflow("Flow3DFLAMEFit", {"image": ["load", 0]}, more), says=says
        )
        sound = (
            ANY
            if name
            in (
                "v-good.mp4",
                "v-sound.mp4",
                "v-no-frames.mp4",
                "v-dot.gif",
                "v-picture.mp4",
                "v-noise.mp4",
                "v-huge.avi",
            )
            else ERROR
        )
        yield Case(
            "media", f"FlowWarpVideo sound {name}", sound, workflow("Flow3DFlowWarpVideo", {"sound": ["load", 0]}, more)
        )
    for name in (
        "expression-wide", "offsets-few", "frame-offsets-few", "head-other", "joints-many", "joint-names-others",
    ):  # fmt: skip
        more = {"load": {"class_type": "Flow3DLoadHeadTrack", "inputs": {"track": f"t-{name}.safetensors"}}}
        for kind, slot, changes in (
            ("Flow3DFLAMEEdit", "track", {"yaw": 5.0}), ("Flow3DRenderHead", "track", {}), ("Flow3DFLAMERetarget", "source", {}),
            ("Flow3DFLAMERetarget", "driver", {}), ("Flow3DFLAMEMix", "second", {}), ("Flow3DFlowEncode", "source", {}), ("Flow3DTrackReport", "track", {}),
            ("Flow3DSaveHeadTrack", "track", {"format": "csv"}), ("Flow3DSaveHeadTrack", "track", {"format": "glb"}), ("Flow3DPortraitCrop", "track", {}),
        ):  # fmt: skip
            what = changes.get("format", slot)
            yield Case(
                "odd tracks",
                f"{short(kind)}.{what} {name}",
                ANY,
                workflow(kind, {**changes, slot: ["load", 0]}, more),
                node="*",
            )
    more = {"load": {"class_type": "Flow3DLoadHeadTrack", "inputs": {"track": "t-camera-largest.safetensors"}}}
    field = {
        "class_type": "Flow3DFlowEncode",
        "inputs": {**GOOD["Flow3DFlowEncode"], "source": ["load", 0], "target": ["load", 0]},
    }
    for kind, changes in (
        ("Flow3DRenderHead", {"track": ["load", 0], "size": 0}), ("Flow3DFlowWarpPreview", {"field": ["wide field", 0]}), ("Flow3DFlowWarpVideo", {"field": ["wide field", 0]}),
    ):  # fmt: skip
        yield Case(
            "odd tracks", f"{short(kind)} camera-largest", ERROR, workflow(kind, changes, more | {"wide field": field})
        )
    for name in (
        "pictures of nan",
        "pictures of infinity",
        "pictures of bytes",
        "pictures of truths",
        "pictures of two channels",
        "pictures of five channels",
    ):
        for kind, slot in (("Flow3DPortraitCrop", "image"), ("Flow3DPasteBack", "full_frame")):
            yield _wired(kind, slot, name, ANY, "odd pictures")


def _without_track(more: Prompt) -> Prompt:
    prompt = workflow("Flow3DPortraitCrop", {"image": ["load", 0]}, more)
    del prompt[X]["inputs"]["track"]
    return prompt


# --- the form of requests ---------------------------------------------------------------------------------------------


def _links() -> Iterator[Case]:
    """Links that lead nowhere, back, or to what is none."""
    edit, report = "Flow3DFLAMEEdit", "Flow3DTrackReport"
    for name, link in {
        "itself": [X, 0], "negative": ["source", -9], "text-slot": ["source", "zero"], "part-slot": ["source", 0.5], "null-slot": ["source", None],
        "number-node": [7, 0], "null-node": [None, 0], "list-node": [["source"], 0], "object-node": [{}, 0], "three": ["source", 0, 0], "one": ["source"],
        "empty": [], "nested": [[["source", 0], 0], 0], "endless-name": ["n" * 100_000, 0],
    }.items():  # fmt: skip
        prompt = workflow(edit, {}) | {X: {"class_type": edit, "inputs": {**GOOD[edit], "track": link}}}
        yield Case("links", f"link {name}", DOOR, prompt, core=True, node="*")
    two = {
        "a": {"class_type": edit, "inputs": {**GOOD[edit], "track": ["b", 0]}}, "b": {"class_type": edit, "inputs": {**GOOD[edit], "track": ["a", 0]}},
    }  # fmt: skip
    yield Case(
        "links",
        "a circle",
        DOOR,
        {**two, X: {"class_type": report, "inputs": {"track": ["a", 0], "width": 768}}},
        core=True,
        node="*",
    )


def _bodies() -> Iterator[Case]:
    """Bodies that are no workflow. What becomes of them is ComfyUI's affair, but the server has to go on."""
    good = workflow("Flow3DLoadHeadTrack", {})
    for name, body in {
        "no-class": {X: {"inputs": {}}},
        "other-class": {X: {"class_type": "Flow3DNothing", "inputs": {}}},
        "empty": {},
        "no-output": {X: {"class_type": "Flow3DLoadHeadModel", "inputs": {"name": "open head"}}},
    }.items():
        yield Case("bodies", name, DOOR, body, core=True, node="*")
    for name, raw in {
        "no-json": b"hello", "deep": b"[" * 100_000, "list": b"[1, 2]", "number": b"5", "nothing": b"", "bytes": bytes(range(256)),
        "prompt-list": b'{"prompt": [1]}', "prompt-text": b'{"prompt": "x"}', "prompt-null": b'{"prompt": null}',
        "no-inputs": json.dumps({"prompt": {**good, X: {"class_type": "Flow3DLoadHeadTrack"}}}).encode(),
        "inputs-list": json.dumps({"prompt": {**good, X: {"class_type": "Flow3DLoadHeadTrack", "inputs": [1]}}}).encode(),
        "inputs-text": json.dumps({"prompt": {**good, X: {"class_type": "Flow3DLoadHeadTrack", "inputs": "x"}}}).encode(),
        "class-list": json.dumps({"prompt": {**good, X: {"class_type": ["Flow3DLoadHeadTrack"], "inputs": {}}}}).encode(),
    }.items():  # fmt: skip
        yield Case("bodies", name, DOOR, raw, path="/prompt", core=True, node="*")


def _routes() -> Iterator[Case]:
    """The pack's own addresses. A path is sent as it stands here."""
    head, track = "/flow3d/live/head/", "/flow3d/live/track/"
    for name, path in {
        "head up": head + "..%2f..%2fsecret", "head up-plain": head + "../../../etc/passwd", "head absolute": head + "%2Fetc%2Fpasswd",
        "head none": head, "head text": head + "hello", "head short": head + "abc", "head null": head + "%00", "head upper": head + "A" * 64,
        "head unknown": head + "0" * 64, "head long": head + "0" * 5000, "head not-utf8": head + "%ff%fe", "head foreign": head + "%D9%A3" * 64,
        "head device": head + "CON", "head backslashes": head + "..%5c..%5csecret", "head dots": head + "%2e%2e", "head line": head + "a" * 64 + "%0a",
        "head left-damaged": head + "c" * 64, "head left-code": head + "d" * 64, "head left-bare": head + "f" * 64,
        "track unknown": track + "0" * 64 + "/0", "track cut": track + "a" * 64 + "/0", "track code": track + "b" * 64 + "/0",
        "track of-damaged-head": track + "e" * 64 + "/0", "track up": track + "..%2f..%2fsecret/0", "track negative": track + "e" * 64 + "/-1",
        "track frame-text": track + "e" * 64 + "/first", "track frame-beyond": track + "e" * 64 + "/1", "track frame-part": track + "e" * 64 + "/0.5",
        "track frame-endless": track + "e" * 64 + "/" + "9" * 5000, "track frame-null": track + "e" * 64 + "/%00", "track frame-foreign": track + "e" * 64 + "/%C2%B2",
        "track frame-up": track + "e" * 64 + "/..%2f..", "other address": "/flow3d/live/", "other kind": "/flow3d/live/secret/" + "0" * 64,
    }.items():  # fmt: skip
        yield Case("routes", name, DOOR, None, path=path)
    yield Case("routes", "head posted", DOOR, b"{}", path=head + "open")


def _harmless() -> Iterator[Case]:
    """Odd, yet nothing is wrong with it."""
    edit = "Flow3DFLAMEEdit"
    yield Case("harmless", "unknown input", FINE, workflow(edit, {"evil": "x" * 100_000, "__class__": {"a": 1}}))
    yield Case("harmless", "unconnected by null", FINE, workflow(edit, {"head": None}))
    yield Case("harmless", "numbers as text", FINE, workflow(edit, {"yaw": "5", "frames": "3"}))
    yield Case("harmless", "number as truth", FINE, workflow(edit, {"yaw": True}))
    yield Case("harmless", "tiny number", FINE, workflow(edit, {"yaw": 5e-324}))
    yield Case(
        "harmless",
        "truth as text",
        FINE,
        workflow("Flow3DFLAMERetarget", {"jaw": "false", "eyes": [], "pose": {}} | {"eyes": ""}),
    )
    yield Case("harmless", "notes alone", FINE, workflow(edit, {"keyframes": "# " + "x" * 200_000}))
    yield Case(
        "harmless", "curve", FINE, workflow(edit, {"curve": ["wire", 0], "keyframes": "yaw: curve"}, _wire("numbers"))
    )
    yield Case("harmless", "slider curve", FINE, workflow(edit, {"yaw": ["wire", 0]}, _wire("numbers")))
    yield Case("harmless", "motion again", FINE, workflow("Flow3DLoadHeadTrack", {}))
    yield Case("harmless", "the good track", FINE, workflow("Flow3DLoadHeadTrack", {"track": "good.safetensors"}))
    yield Case("harmless", "good live head", FINE, None, path="/flow3d/live/head/open")
