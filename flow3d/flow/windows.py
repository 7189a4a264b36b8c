"""The windows of a flow that a sampler asks for again at every step, kept within a bound of memory."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from .field import FlowField


class EncodedWindows:
    """A field's encoded windows: those asked for last, `most_bytes` of them at most. Do not write into them."""

    def __init__(self, field: FlowField, dtype: torch.dtype = torch.float16, most_bytes: int = 2**30) -> None:
        """`dtype`: float16 or float32. A window that is larger than `most_bytes` is computed each time."""
        self.field, self.dtype, self.most_bytes = field, dtype, most_bytes
        self._kept: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()

    @property
    def bytes_kept(self) -> int:
        return sum(w.nbytes for w in self._kept.values())

    def encode(self, frames: Sequence[int]) -> Tensor:
        """(n, 3 N, H, W): see `FlowField.encode`."""
        key = tuple(frames)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        window = self.field.encode(list(key), self.dtype)
        if window.nbytes <= self.most_bytes:
            self._kept[key] = window
        while self.bytes_kept > self.most_bytes:
            self._kept.popitem(last=False)
        return window
