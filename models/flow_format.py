"""What a flow ControlNet was trained on: the numbers of the encoding, kept in the metadata of its file."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..flow3d.camera import DEFAULT_FIELD_OF_VIEW, Camera
from ..flow3d.errors import InputError
from ..flow3d.flow.encode import FLOW_SCALE, VERSION
from ..flow3d.flow.field import FlowField
from ..flow3d.flow.sampling import Sampling

KEY = "flow3d"
KIND = "flow ControlNet"
_DEFAULT = Sampling()
_CLOSE = {"field_of_view": 0.05}  # degrees, where 1e-6 of the value is too strict: a crop is cut at whole pixels
_UNITS = {"delta": " m", "near": " m", "far": " m", "field_of_view": " degrees"}
_WORDS = {"flow_scale": "flow scale", "field_of_view": "field of view", "version": "encoding version"}


@dataclass(frozen=True)
class FlowFormat:
    """Version 2 of the encoding by default. Lengths in metres of camera z. Raises InputError where a number makes no sense."""

    samples: int = _DEFAULT.samples
    delta: float = _DEFAULT.delta
    near: float = _DEFAULT.near
    far: float = _DEFAULT.far
    flow_scale: float = FLOW_SCALE
    field_of_view: float = DEFAULT_FIELD_OF_VIEW  # degrees across the short side
    version: int = VERSION  # of the encoding and its surface field

    def __post_init__(self) -> None:
        Sampling(self.samples, self.delta, self.near, self.far)
        if not (math.isfinite(self.flow_scale) and self.flow_scale > 0):
            raise InputError(f"3D flow: the flow scale is {self.flow_scale}; it must be a number above 0.")
        if not 0 < self.field_of_view < 180:
            raise InputError(f"3D flow: the field of view is {self.field_of_view} degrees; it must lie between 0 and 180.")

    @classmethod
    def of(cls, field: FlowField) -> "FlowFormat":
        """The encoding that a field computes."""
        s = field.sampling
        return cls(s.samples, s.delta, s.near, s.far, field.flow_scale, _field_of_view(field.camera))

    @classmethod
    def read(cls, metadata: Mapping[str, str], file: str) -> "FlowFormat | None":
        """What the metadata of `file` tells; None where it tells nothing of a flow ControlNet.

        Raises InputError where it tells of one and cannot be read.
        """
        try:
            told = json.loads(metadata.get(KEY, "null"))
            if not isinstance(told, dict) or told.get("kind") != KIND:
                return None
            return cls(**{f.name: _number(told[f.name], f.type) for f in fields(cls)})
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{file}: its metadata '{KEY}' cannot be read ({error}). Make or download the file again.") from error

    @property
    def channels(self) -> int:
        """How many the encoded flow has: x, y and z for each sample."""
        return 3 * self.samples

    def metadata(self) -> dict[str, str]:
        """For a safetensors file."""
        return {"format": "pt", KEY: json.dumps({"kind": KIND, **asdict(self)})}

    def check(self, field: FlowField, file: str) -> None:
        """Raises InputError, which names both values, where the field is encoded in another way than this."""
        has = FlowFormat.of(field)
        for name in (f.name for f in fields(self)):
            wanted, found = getattr(self, name), getattr(has, name)
            if abs(wanted - found) > _CLOSE.get(name, 1e-6 * abs(wanted)):
                word, unit = _WORDS.get(name, name), _UNITS.get(name, "")
                raise InputError(
                    f"Flow ControlNet Apply: {file} takes 3D flow with {word} {wanted:.6g}{unit}, but the field has {found:.6g}{unit}. "
                    f"{_remedy(name)}"
                )


def _remedy(name: str) -> str:
    if name == "field_of_view":
        return "Fit the portrait on Portrait Crop's picture, with that field of view in FLAME Fit."
    if name in ("version", "flow_scale"):
        return "Use the version of Flow3D that the network was made for."
    return f"Set '{name}' in 3D Flow Encode to the first value."


def _field_of_view(camera: Camera) -> float:
    """Degrees across the short side."""
    return math.degrees(2 * math.atan(0.5 * min(camera.width, camera.height) / camera.focal))


def _number(value: object, kind: object) -> Any:
    if isinstance(value, bool) or not isinstance(value, int if kind in (int, "int") else (int, float)):
        raise ValueError(f"{value!r} is not a number")
    return value
