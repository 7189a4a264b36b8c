"""Quad meshes: edge loops, flood fills between them, symmetric triangulation."""

from collections.abc import Iterable

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components, dijkstra


def edges_of(faces: np.ndarray) -> np.ndarray:
    """(F, K) polygons to (F K, 2) directed edges."""
    return np.stack([faces, np.roll(faces, -1, axis=1)], -1).reshape(-1, 2)


def adjacency(faces: np.ndarray, n: int) -> csr_matrix:
    """Symmetric 0/1 matrix of the edges of polygons (F, K) over n vertices."""
    a, b = edges_of(faces).T
    link = coo_matrix((np.ones(2 * len(a)), (np.r_[a, b], np.r_[b, a])), shape=(n, n)).tocsr()
    link.data[:] = 1
    return link


def edge_loop(quads: np.ndarray, start: tuple[int, int]) -> list[int] | None:
    """The closed edge loop that runs through an edge, or None where it ends in a vertex without an opposite edge."""
    neighbours: dict[int, set[int]] = {}
    beside: dict[frozenset[int], set[int]] = {}
    for quad in quads.tolist():
        for a, b in zip(quad, quad[1:] + quad[:1], strict=True):
            neighbours.setdefault(a, set()).add(b)
            neighbours.setdefault(b, set()).add(a)
            beside.setdefault(frozenset((a, b)), set()).update(quad)
    loop = list(start)
    while len(loop) <= len(neighbours):
        last, here = loop[-2:]
        ahead = neighbours[here] - beside[frozenset((last, here))]
        if len(neighbours[here]) != 4 or len(ahead) != 1:
            return None
        (onward,) = ahead
        if onward == loop[0]:
            return loop
        loop.append(onward)
    return None


def faces_within(quads: np.ndarray, loop: list[int], seed: int) -> np.ndarray:
    """Which quads (Q,) bool lie on the side of a closed edge loop where vertex `seed` is."""
    cut = {frozenset(e) for e in zip(loop, loop[1:] + loop[:1], strict=True)}
    by_edge: dict[frozenset[int], list[int]] = {}
    for i, quad in enumerate(quads.tolist()):
        for a, b in zip(quad, quad[1:] + quad[:1], strict=True):
            by_edge.setdefault(frozenset((a, b)), []).append(i)
    pairs = np.array([f for e, f in by_edge.items() if len(f) == 2 and e not in cut])
    graph = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(quads), len(quads)))
    label = connected_components(graph, directed=False)[1]
    return label == label[np.flatnonzero((quads == seed).any(1))[0]]


def rings(faces: np.ndarray, n: int, start: Iterable[int]) -> np.ndarray:
    """(n,) the number of edges from each vertex to the nearest of `start`; inf where there is no way."""
    return dijkstra(adjacency(faces, n), indices=list(start), unweighted=True, min_only=True)


def boundary_loop(faces: np.ndarray) -> list[int]:
    """The vertices of the one boundary of an oriented mesh, in order. Raises ValueError where it is not one loop."""
    directed = edges_of(faces)
    there = {tuple(e) for e in directed.tolist()}
    onward = {a: b for a, b in there if (b, a) not in there}
    loop = [min(onward)] if onward else []
    while loop and onward.get(loop[-1]) not in (None, loop[0]):
        loop.append(onward[loop[-1]])
    if not loop or len(loop) != len(onward):
        raise ValueError(f"{len(onward)} boundary edges, not one closed loop")
    return loop


def closed(faces: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """An open strip of quads with its one boundary stitched shut, front row to back row.

    The boundary is folded where that brings its two halves closest together.
    """
    loop = boundary_loop(faces)
    n, half = len(loop), len(loop) // 2
    x = vertices[loop]

    def seam(shift: int) -> float:
        turned = np.roll(x, -shift, axis=0)
        return float(np.linalg.norm(turned[:half] - turned[::-1][:half], axis=1).sum())

    turned = np.roll(loop, -min(range(n), key=seam))
    front, back = turned[:half], turned[::-1][:half]
    stitch = np.stack([front[1:], front[:-1], back[:-1], back[1:]], 1)
    return np.concatenate([faces, stitch])


def triangulate(quads: np.ndarray, vertices: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Quads (Q, 4) to triangles (2 Q, 3) along the shorter diagonal, mirrored quads along mirrored diagonals."""
    right = vertices[quads].mean(1)[:, 0] <= 1e-9
    a, b, c, d = quads[right].T
    short = np.linalg.norm(vertices[a] - vertices[c], axis=1) <= np.linalg.norm(vertices[b] - vertices[d], axis=1)
    first = np.where(short[:, None], np.stack([a, b, c], 1), np.stack([a, b, d], 1))
    second = np.where(short[:, None], np.stack([a, c, d], 1), np.stack([b, c, d], 1))
    triangles = np.stack([first, second], 1).reshape(-1, 3)
    own = (np.sort(mirror[quads[right]], 1) == np.sort(quads[right], 1)).all(1)  # quads across the midline
    twin = triangles[~np.repeat(own, 2)]
    result = np.concatenate([triangles, mirror[twin][:, ::-1]])
    if len(result) != 2 * len(quads):
        raise ValueError("the mesh is not closed under mirroring")
    return result
