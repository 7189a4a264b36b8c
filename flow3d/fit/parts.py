"""The parts of a head's motion, by the names of its joints and expressions."""

import torch
from torch import Tensor

from ..head.model import HeadModel

FACE_PARTS = ("brows", "eyelids", "mouth", "expression")
"""What moves the skin without turning anything; `expression` is what the others leave: cheeks, nose, nameless components."""

_HARDLY = 1e-4  # metres


def joint_part(name: str) -> str:
    """`jaw`, `eyes` or `pose`, which is the neck."""
    return "jaw" if name == "jaw" else "eyes" if "eye" in name else "pose"


def expression_part(name: str) -> str:
    """`jaw` (with mouthClose, which counters jawOpen), `eyes` (where they look) or one of `FACE_PARTS`."""
    if name.startswith("jaw") or name == "mouthClose":
        return "jaw"
    if name.startswith("eyeLook"):
        return "eyes"
    starts = {"brow": "brows", "eye": "eyelids", "mouth": "mouth", "tongue": "mouth"}
    return next((part for start, part in starts.items() if name.startswith(start)), "expression")


def expression_parts(head: HeadModel) -> tuple[str, ...]:
    """The part of each of the E components; all are `expression` on a head whose components have no names."""
    return tuple(expression_part(n) for n in head.expression_names) or ("expression",) * head.n_expression


def surface_share(head: HeadModel, parts: frozenset[str]) -> Tensor:
    """(V,) 0..1: how much of what moves each vertex belongs to those of `FACE_PARTS` that are in `parts`.

    A part's claim is the square of how far one of its components moves the vertex at most; what hardly moves at all
    belongs to `expression`.
    """
    if parts.issuperset(FACE_PARTS):
        return torch.ones_like(head.template[:, 0])
    reach = head.expression_basis.square().sum(-1)  # (E, V)
    of = expression_parts(head)
    claims = torch.stack([reach.new_tensor([[p == part] for p in of]).mul(reach).amax(0) for part in FACE_PARTS])
    claims[-1] += _HARDLY**2
    return claims[[part in parts for part in FACE_PARTS]].sum(0) / claims.sum(0)
