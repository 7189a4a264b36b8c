"""Whether a node's inputs are what its schema says, asked before the node runs.

ComfyUI's server holds numbers that stand in a request against their minimum and maximum. It does not look at combos, NaN,
anything that comes over a link, or a constant where a link belongs: `checked` does, and `at_the_door` refuses combos and
names of files before a queue starts.
"""

import functools
import inspect
import math
import numbers
import re
from collections.abc import Callable, Mapping
from typing import Any

import comfy.controlnet
import comfy.model_patcher
from comfy_api.latest import Input, io
from torch import Tensor

from ..flow3d.crop import PortraitCrop
from ..flow3d.errors import Flow3DError, InputError
from ..flow3d.flow.field import FlowField
from ..flow3d.head.model import HeadModel
from ..flow3d.track import HeadTrack
from ..models.appearance_network import Appearance
from ..models.motion import MotionModule

Execute = Callable[..., io.NodeOutput]
_WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def checked(named: tuple[str, ...] = (), curves: bool = False) -> Callable[[Execute], Execute]:
    """Decorator of a node's `execute`: refuses inputs that are not what the schema says, and begins errors with the node's name.

    Args:
        named: combos of files, which `execute` looks up itself: a file may be there that the list does not hold.
        curves: whether FLOAT inputs take a list of numbers too, which `execute` checks.
    """

    def decorate(execute: Execute) -> Execute:
        parameters = inspect.signature(execute).parameters.values()
        needed = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD][1:]

        @functools.wraps(execute)
        def run(cls: type[io.ComfyNode], *args: Any, **given: Any) -> io.NodeOutput:
            values = dict(zip([p.name for p in parameters][1:], args, strict=False)) | given
            schema = cls.define_schema()
            if missing := [name for name in needed if name not in values]:
                raise InputError(
                    f"{schema.display_name}: '{missing[0]}' got nothing, as from an empty list. Connect a value."
                )
            for part in schema.inputs:
                looked_up = part.id in named and isinstance(values.get(part.id), str)
                if part.id in values and not looked_up and (fault := _fault(part, values[part.id], curves)):
                    raise InputError(f"{schema.display_name}: '{part.id}' {fault}")
            try:
                return execute(cls, **values)
            except Flow3DError as error:
                raise with_name(schema.display_name, error) from error

        return run

    return decorate


def at_the_door(
    node: type[io.ComfyNode], look_up: Mapping[str, Callable[[str], object]] | None = None, **choices: Any
) -> bool | str:
    """What `validate_inputs` returns for combos: True, or what is wrong with one. None stands for a linked value.

    Args:
        look_up: for combos of files, what raises Flow3DError where a name is none for this node.
    """
    schema = node.define_schema()
    parts = {part.id: part for part in schema.inputs}
    try:
        for name, value in choices.items():
            if look_up and name in look_up and isinstance(value, str):
                look_up[name](value)
            elif value is not None and (fault := _fault(parts[name], value)):
                raise InputError(f"'{name}' {fault}")
    except Flow3DError as error:
        return str(with_name(schema.display_name, error))
    return True


def with_name(node: str, error: Flow3DError) -> Flow3DError:
    """The error with the node's name before its message, in place of what the library calls itself there."""
    text = str(error)
    return error if text.startswith(node) else type(error)(f"{node}: {re.sub('^(3D flow|Retarget): ', '', text)}")


def told(value: Any) -> str:
    """A value as a message shows it: short, and nothing of an object but its type."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:60] + "...")
    if value is None:
        return "nothing"
    if isinstance(value, float | bool) or (isinstance(value, int) and abs(value) < 1e30):
        return str(value)
    if isinstance(value, int):
        return "a number of more than 30 digits"
    return f"of the type '{type(value).__name__}'"


# --- by type ---------------------------------------------------------------------------------------------------------


def _fault(part: io.Input, value: Any, curves: bool = False) -> str:
    """What is wrong with the value of an input, as the end of a sentence; empty where nothing is."""
    kinds = part.get_io_type().split(",")
    free = value is None and part.optional and kinds[-1] not in _WIDGETS  # not connected
    if free or (curves and "FLOAT" in kinds and not isinstance(value, numbers.Real)):
        return ""
    faults = [_FAULTS[kind](value, part.as_dict()) for kind in kinds if kind in _FAULTS]
    return "" if "" in faults or not faults else faults[0]


def _wrong_number(value: Any, options: dict[str, Any]) -> str:
    low, high = options.get("min", -math.inf), options.get("max", math.inf)
    if not isinstance(value, numbers.Real):
        return f"is {told(value)}, not a number. Enter one from {low} to {high}."
    try:
        finite = math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        finite = True
    if not finite:
        return f"is {value}, not a finite number. Enter one from {low} to {high}."
    return "" if low <= value <= high else f"is {told(value)}; it must be between {low} and {high}."


def _wrong_whole_number(value: Any, options: dict[str, Any]) -> str:
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral) and math.isfinite(value):
        return f"is {told(value)}, not a whole number. Enter one from {options.get('min')} to {options.get('max')}."
    return _wrong_number(value, options)


def _wrong_choice(value: Any, options: dict[str, Any]) -> str:
    choices = options.get("options") or []
    if isinstance(value, str) and value in choices:
        return ""
    return f"is {told(value)}, which is not one of {', '.join(map(str, choices[:24]))}. Choose one of them."


def _wrong_picture(value: Any, _: dict[str, Any]) -> str:
    if not isinstance(value, Tensor):
        return f"is {told(value)}, not pictures. Connect an image output, such as Load Image's."
    if value.ndim != 4 or 0 in value.shape:
        return f"is {tuple(value.shape)}, not (frames, height, width, channels). Connect an image output with pictures in it."
    return _wrong_values(value)


def _wrong_mask(value: Any, _: dict[str, Any]) -> str:
    if not isinstance(value, Tensor):
        return f"is {told(value)}, not a mask. Connect a mask output."
    if value.ndim < 2 or 0 in value.shape:
        return f"is {tuple(value.shape)}, not (frames, height, width). Connect a mask output with masks in it."
    return _wrong_values(value)


def _wrong_values(value: Tensor) -> str:
    if value.is_sparse or not value.is_floating_point():
        kind = "sparse numbers" if value.is_sparse else str(value.dtype).removeprefix("torch.")
        return f"holds {kind}, not floats between 0 and 1. Convert it to an IMAGE or MASK as ComfyUI has them."
    return ""


def _wrong_latent(value: Any, _: dict[str, Any]) -> str:
    samples = value.get("samples") if isinstance(value, dict) else None
    if not isinstance(samples, Tensor):
        return f"is {told(value)}, not latents. Connect VAE Encode or Empty Latent Image."
    if samples.ndim < 4 or 0 in samples.shape:
        return (
            f"holds {tuple(samples.shape)}, not (frames, channels, height, width). Connect latents with frames in them."
        )
    if not samples.isfinite().all():
        return "holds NaN or infinity. Encode the picture again, or sample with another type of numbers."
    return ""


def _wrong_conditioning(value: Any, _: dict[str, Any]) -> str:
    pairs = value if isinstance(value, list) else []
    if pairs and all(isinstance(p, list | tuple) and len(p) == 2 and _is_prompt(*p) for p in pairs):
        return ""
    return f"is {told(value)}, not a conditioning of SD1.5. Connect CLIP Text Encode."


def _is_prompt(prompt: Any, options: Any) -> bool:
    return isinstance(prompt, Tensor) and prompt.ndim == 3 and 0 not in prompt.shape and isinstance(options, dict)


def _instance(of: type, is_no: str, remedy: str) -> Callable[[Any, dict[str, Any]], str]:
    return lambda value, _: "" if isinstance(value, of) else f"is {told(value)}, not {is_no}. {remedy}"


_FAULTS: dict[str, Callable[[Any, dict[str, Any]], str]] = {
    "FLOAT": _wrong_number,
    "INT": _wrong_whole_number,
    "COMBO": _wrong_choice,
    "STRING": _instance(str, "text", "Write it in the node, or connect a string output."),
    "BOOLEAN": _instance(numbers.Integral, "true or false", "Set it in the node, or connect a boolean output."),
    "IMAGE": _wrong_picture,
    "MASK": _wrong_mask,
    "LATENT": _wrong_latent,
    "CONDITIONING": _wrong_conditioning,
    "VIDEO": _instance(Input.Video, "a video", "Connect Load Video or Create Video."),
    "MODEL": _instance(comfy.model_patcher.ModelPatcher, "a model", "Connect Load Checkpoint."),
    "CONTROL_NET": _instance(comfy.controlnet.ControlBase, "a control net", "Connect Load Flow ControlNet."),
    "FACE_LANDMARKS": _instance(dict, "face landmarks", "Connect Detect Face Landmarks."),
    "FLOW3D_HEAD": _instance(HeadModel, "a head model", "Connect Load Head Model."),
    "FLOW3D_TRACK": _instance(HeadTrack, "a head track", "Connect FLAME Fit, Load Head Track or what follows them."),
    "FLOW3D_FIELD": _instance(FlowField, "a 3D flow", "Connect 3D Flow Encode."),
    "FLOW3D_CROP": _instance(PortraitCrop, "a crop's transform", "Connect Portrait Crop."),
    "FLOW3D_APPEARANCE": _instance(Appearance, "an appearance network", "Connect Load Appearance Network."),
    "FLOW3D_MOTION": _instance(MotionModule, "a motion module", "Connect Load Motion Module."),
}
