"""What the search for the closest triangle can know from a head's triangles alone, once for all its frames.

For each part of the head (skin, eyeballs, inner mouth) a complete binary tree over the part's triangles, and for each
vertex the fan of triangles around it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..head.model import HeadModel

_LEAF = 4  # triangles in a leaf, at most


@dataclass(frozen=True, eq=False)
class Topology:
    """Triangles in tree order: part by part, leaf by leaf. "Position" is an index into that order.

    A part's tree is a heap of 2 L boxes, L a power of two: box 1 is the root, boxes 2 i and 2 i + 1 are inside box i,
    boxes L to 2 L - 1 are the leaves.
    """

    order: Tensor  # (F,) int64: position -> triangle
    rank: Tensor  # (F,) int32: triangle -> position
    faces: Tensor  # (F, 3) int64: the triangle's corners, by position
    parts: Tensor  # (F,) int32: its part, by position
    fan_start: Tensor  # (V + 1,) int32
    fan: Tensor  # (3 F,) int32: the positions around vertex v are fan[fan_start[v] : fan_start[v + 1]]
    leaves: Tensor  # (P,) int32: leaves of each part's tree, 0 for a part without triangles
    first_leaf: Tensor  # (P,) int32: where the part's leaves begin in leaf_start
    first_box: Tensor  # (P,) int32: where the part's heap begins among all boxes
    leaf_start: Tensor  # (all leaves + 1,) int32: leaf i holds the positions leaf_start[i] : leaf_start[i + 1]
    slots: Tensor  # (all leaves, _LEAF) int64: the positions in each leaf, the last one repeated
    counts: tuple[int, ...]  # `leaves` again, known to the host

    def to(self, device: torch.device) -> "Topology":
        """The same on `device`."""
        tensors: dict[str, Any] = {n: x.to(device) for n, x in vars(self).items() if isinstance(x, Tensor)}
        return replace(self, **tensors)

    @property
    def triangles(self) -> Tensor:
        """(F, 3) int64: the triangles' corners in their own order."""
        return self.faces[self.rank.long()]

    def boxes(self, vertices: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper corners (B, boxes, 3) of all trees' boxes around the usable (B, F) triangles, float32.

        A box around nothing is inside out: lower corner +inf, upper -inf, infinitely far from everything.
        """
        corners = vertices.float()[:, self.faces]  # (B, F, 3, 3)
        out = ~usable[..., None]
        low = corners.amin(2).masked_fill(out, torch.inf)[:, self.slots].amin(2)
        high = corners.amax(2).masked_fill(out, -torch.inf)[:, self.slots].amax(2)
        lows, highs = [], []
        for count in self.counts:
            lows.append(_heap(low[:, :count], torch.amin, torch.inf))
            highs.append(_heap(high[:, :count], torch.amax, -torch.inf))
            low, high = low[:, count:], high[:, count:]
        return torch.cat(lows, 1), torch.cat(highs, 1)


def _heap(level: Tensor, reduce: Callable[[Tensor, int], Tensor], unused: float) -> Tensor:
    """Leaf corners (B, L, 3) to the whole heap's (B, 2 L, 3); row 0 is unused."""
    b, n, _ = level.shape
    levels = [level]
    while n > 1:
        n //= 2
        level = reduce(level.reshape(b, n, 2, 3), 2)
        levels.append(level)
    return torch.cat([level.new_full((b, min(n, 1), 3), unused), *reversed(levels)], 1)


@lru_cache(maxsize=4)
def topology_of(head: HeadModel) -> Topology:
    """The head's topology on the head's device, its trees split along the template."""
    return build_topology(head.template, head.faces, head.face_parts)


def build_topology(vertices: Tensor, faces: Tensor, parts: Tensor) -> Topology:
    """A topology from typical vertices (V, 3), triangles (F, 3) and each one's part (F,). The trees suit meshes like this one."""
    corner = faces.cpu().numpy()
    part = parts.cpu().numpy()
    centre = vertices.detach().cpu().double().numpy()[corner].mean(1)
    order: list[np.ndarray] = []
    sizes: list[int] = []
    leaves, first_leaf, first_box = [], [], []
    boxes = 0
    for p in range(int(part.max(initial=0)) + 1):
        mine = np.flatnonzero(part == p)
        split = _split(mine, centre) if len(mine) else []
        leaves.append(len(split))
        first_leaf.append(len(sizes))
        first_box.append(boxes)
        boxes += 2 * len(split)
        order += split
        sizes += [len(s) for s in split]
    position = np.concatenate([np.empty(0, np.int64), *order]).astype(np.int64)
    start = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    slots = np.minimum(start[:-1, None] + np.arange(max(sizes, default=1)), start[1:, None] - 1)
    rank = np.empty_like(position)
    rank[position] = np.arange(len(position))
    around = corner[position].ravel()
    fan = np.argsort(around, kind="stable") // 3
    fan_start = np.searchsorted(np.sort(around), np.arange(len(vertices) + 1))

    def small(x: np.ndarray | list[int]) -> Tensor:
        return torch.tensor(np.asarray(x), dtype=torch.int32)

    return Topology(
        torch.from_numpy(position), small(rank), torch.from_numpy(corner[position]), small(part[position]),
        small(fan_start), small(fan), small(leaves), small(first_leaf), small(first_box), small(start),
        torch.from_numpy(slots), tuple(leaves),
    ).to(faces.device)  # fmt: skip


def _split(triangles: np.ndarray, centre: np.ndarray) -> list[np.ndarray]:
    """Halve a set of triangles along its longest side until the parts have at most _LEAF: a power of two of them."""
    parts = [triangles]
    while len(parts) * _LEAF < len(triangles):
        halves = []
        for part in parts:
            c = centre[part]
            axis = int(np.argmax(c.max(0) - c.min(0)))
            part = part[np.argsort(c[:, axis], kind="stable")]
            halves += [part[: len(part) // 2], part[len(part) // 2 :]]
        parts = halves
    return parts
