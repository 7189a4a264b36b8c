"""The head cut out of the body: which vertices and faces stay, and what they belong to."""

from dataclasses import dataclass

import numpy as np

from . import topology
from .makehuman import BaseMesh

EYEBALLS = {"left_eyeball": "helper-l-eye", "right_eyeball": "helper-r-eye"}
INSIDE = {"upper_teeth": "helper-upper-teeth", "lower_teeth": "helper-lower-teeth", "tongue": "helper-tongue"}
# Vertices of the hm08 mesh that name a place on it. Its numbering is part of MakeHuman's format and does not change.
NOSE_TIP, THROAT = 297, 707
NECK_FOOT, NECK_TOP = 1524, 791  # on the midline in front: the edge loops through them are the neck's foot and top
MOUTH_RIM = 554  # behind the upper lip: the mouth's cavity starts with the ring of vertices through it
RING = 17  # vertices of such a ring on the right side and the midline: they are numbered in sequence


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The head's mesh. Indices count its own V vertices; the skin comes first, then eyeballs, teeth and tongue."""

    kept: np.ndarray  # (V,) indices into the base mesh
    mirror: np.ndarray  # (V,)
    quads: np.ndarray  # (Q, 4)
    foot: np.ndarray  # (L,) the boundary: the edge loop at the neck's foot
    top: np.ndarray  # (L,) the edge loop where the neck meets head and jaw
    pieces: dict[str, np.ndarray]  # name -> (V,) bool: skin, cavity, left_eyeball, ..., tongue
    index: np.ndarray  # (N,) from the base mesh; -1: not in the head


def loop_through(quads: np.ndarray, mirror: np.ndarray, vertex: int) -> list[int]:
    """The edge loop that crosses the midline sideways at a vertex. Raises ValueError where it is not closed."""
    touching = topology.edges_of(quads)
    aside = next(b for a, b in touching.tolist() if a == vertex and mirror[b] != b)
    loop = topology.edge_loop(quads, (vertex, aside))
    if loop is None:
        raise ValueError(f"no closed edge loop through vertex {vertex}")
    return loop


def cut_head(base: BaseMesh) -> Anatomy:
    """The body above the edge loop at the neck's foot, with eyeballs, closed rows of teeth and the tongue."""
    body = base.groups["body"]
    foot = loop_through(body, base.mirror, NECK_FOOT)
    top = loop_through(body, base.mirror, NECK_TOP)
    skin = body[topology.faces_within(body, foot, NOSE_TIP)]
    rim = np.arange(MOUTH_RIM, MOUTH_RIM + RING)
    cavity = _enclosed(skin, np.union1d(rim, base.mirror[rim]), THROAT)
    quads, owner = [skin], {"skin": np.unique(skin), "cavity": cavity}
    for name, group in (EYEBALLS | INSIDE).items():
        part = base.groups[group]
        quads.append(topology.closed(part, base.vertices) if name.endswith("teeth") else part)
        owner[name] = np.unique(part)
    kept = np.concatenate([owner[name] for name in owner if name != "cavity"])
    index = np.full(len(base.vertices), -1)
    index[kept] = np.arange(len(kept))
    pieces = {name: np.isin(kept, members) for name, members in owner.items()}
    return Anatomy(kept, index[base.mirror[kept]], index[np.concatenate(quads)], index[foot], index[top], pieces, index)


def _enclosed(quads: np.ndarray, ring: np.ndarray, seed: int) -> np.ndarray:
    """The vertices on the side of a closed ring of vertices where `seed` is, the ring included."""
    inner = quads[~np.isin(quads, ring).any(1)]
    reach = topology.rings(inner, quads.max() + 1, [seed])
    return np.union1d(np.flatnonzero(np.isfinite(reach)), ring)
