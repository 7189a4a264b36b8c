"""How fast the 3D flow is on this machine: ours, what other libraries offer for its search, and the memory's limit.

The scene is a head that is turned by 17 degrees with its mouth open and fills a third of the image; 20 samples a ray. The
peers get the same sample points and the same mesh. Open3D and libigl find each point's closest point on the triangles,
SciPy the nearest vertex; none of them gets from there to the flow, which ours has written when it is done.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from .camera import Camera
from .flow.encode import encode_pairs
from .flow.reference import sample_points
from .flow.sampling import Sampling
from .flow.topology import Topology, build_topology, topology_of
from .head.model import HeadModel, to_camera
from .render.rasterize import Fragments, rasterize

SIZES = (256, 512)
_REPEATS = 3
_PEER_POINTS = {"open3d": 400_000, "libigl": 100_000, "scipy_vertex": 400_000}  # timed at most, then scaled to a frame
Search = Callable[[np.ndarray], object]


@dataclass(frozen=True, eq=False)
class Scene:
    """A frame pair and what the camera sees of its target."""

    head: HeadModel
    source: Tensor  # (1, V, 3)
    target: Tensor
    camera: Camera
    seen: Fragments

    @classmethod
    def of(cls, head: HeadModel, size: int, distance: float = 0.8) -> "Scene":
        """The scene at `size` x `size` pixels, its head `distance` metres away."""
        shape = torch.zeros(2, head.n_shape, device=head.device)
        expression = torch.zeros(2, head.n_expression, device=head.device)
        for name, amount in (("jawOpen", 0.6), ("eyeBlinkLeft", 0.8)):
            if name in head.expression_names:
                expression[1, head.expression_index(name)] = amount
        rest, root = head.vertices(shape, expression)
        turn = torch.tensor([[0.0, 0, 0], [0.05, 0.3, 0]], device=head.device)
        middle = to_camera(rest, root, turn * 0, turn * 0).mean(1)
        both = to_camera(rest, root, turn, torch.tensor([0.0, 0.02, distance], device=head.device) - middle)
        camera = Camera.from_field_of_view(size, size)
        return cls(head, both[:1], both[1:], camera, rasterize(both[1:], head.faces, camera))

    def encode(self, sampling: Sampling, out: Tensor) -> Tensor:
        """All of it: rasterizing, the search, and writing into `out`."""
        return self._encode(topology_of(self.head), sampling, out)

    def encode_head(self, sampling: Sampling, out: Tensor) -> Tensor:
        """The same with the skin renamed: beside the head there is nothing to search, so all that takes time is on it."""
        return self._encode(_without_skin(self.head), sampling, out)

    def _encode(self, topology: Topology, sampling: Sampling, out: Tensor) -> Tensor:
        return encode_pairs(topology, self.source, self.target, self.camera, sampling, out=out)


@lru_cache(maxsize=1)
def _without_skin(head: HeadModel) -> Topology:
    return build_topology(head.template, head.faces, head.face_parts + 1)


def measure_flow(head: HeadModel, progress: Callable[[str, int, int], None]) -> dict[str, float]:
    """Seconds a frame by name, `{who}_{size}_s`, with `_head_s` and `_background_s` for the two kinds of samples."""
    numbers: dict[str, float] = {}
    for i, size in enumerate(SIZES):
        numbers |= measure_size(head, size)
        progress("flow", i + 1, len(SIZES))
    return numbers


def measure_size(head: HeadModel, size: int, sampling: Sampling | None = None) -> dict[str, float]:
    """The figures of one size."""
    sampling = sampling or Sampling()
    scene = Scene.of(head, size)
    on = scene.seen.triangle[0] >= 0
    share = float(on.float().mean())
    out = torch.empty(1, 3 * sampling.samples, size, size, device=head.device)
    ours = seconds(lambda: scene.encode(sampling, out), head.device)
    ours_head = seconds(lambda: scene.encode_head(sampling, out), head.device)
    numbers = {"head_share": share, "ours_s": ours, "ours_head_s": ours_head, "ours_background_s": ours - ours_head}
    other = torch.zeros_like(out)
    numbers["memory_limit_s"] = seconds(lambda: other.fill_(0.5), head.device)
    points = sample_points(scene.camera, scene.seen, sampling)[0].float().cpu().numpy()
    for name, search in searches(scene.target[0], head.faces).items():
        head_points, background = (points[kind.cpu().numpy()].reshape(-1, 3) for kind in (on, ~on))
        split = [_per_frame(search, p, _PEER_POINTS[name]) for p in (head_points, background)]
        numbers |= {f"{name}_head_s": split[0], f"{name}_background_s": split[1], f"{name}_s": sum(split)}
        numbers[f"ratio_{name}"] = sum(split) / ours
    return {(f"{k[:-2]}_{size}_s" if k.endswith("_s") else f"{k}_{size}"): v for k, v in numbers.items()}


def searches(vertices: Tensor, faces: Tensor) -> dict[str, Search]:
    """The searches of those libraries that are installed, each of points (P, 3) float32."""
    v, f = vertices.cpu().numpy(), faces.cpu().numpy()
    tree = cKDTree(v)
    found: dict[str, Search] = {"scipy_vertex": lambda p: tree.query(p, workers=-1)}
    if find_spec("open3d"):
        o3d = import_module("open3d")
        scene = o3d.t.geometry.RaycastingScene()
        scene.add_triangles(o3d.core.Tensor(v), o3d.core.Tensor(f.astype("uint32")))
        found["open3d"] = lambda p: scene.compute_closest_points(o3d.core.Tensor(p))
    if find_spec("igl"):
        igl, exact = import_module("igl"), v.astype(np.float64)
        found["libigl"] = lambda p: igl.point_mesh_squared_distance(p.astype(np.float64), exact, f)
    return found


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """The best of a few runs, after one that compiles. On CUDA by events on the current stream."""
    work()
    times = []
    for _ in range(_REPEATS):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        else:
            began = perf_counter()
            work()
            times.append(perf_counter() - began)
    return min(times)


def _per_frame(search: Search, points: np.ndarray, most: int) -> float:
    """Seconds for all points, from a run of `most` of them in the frame's order, about its middle."""
    count = min(len(points), most)
    first = (len(points) - count) // 2
    some = np.ascontiguousarray(points[first : first + count])
    began = perf_counter()
    search(some)
    return (perf_counter() - began) * len(points) / max(1, count)


def flow_table(numbers: dict[str, float]) -> str:
    """The numbers of `measure_flow` as a table of seconds a frame."""
    lines = []
    for size in SIZES:
        share = numbers[f"head_share_{size}"]
        lines.append(f"{size} x {size}, 20 samples a ray, head on {share:.0%} of the image; seconds a frame")
        lines.append(f"  {'':24}{'all':>9}{'head':>9}{'background':>12}{'times ours':>12}")
        names = {
            "ours": "ours, the whole flow", "open3d": "Open3D, closest point", "libigl": "libigl, closest point",
            "scipy_vertex": "SciPy, nearest vertex", "memory_limit": "memory: writing it",
        }  # fmt: skip
        for key, name in names.items():
            if f"{key}_{size}_s" not in numbers:
                lines.append(f"  {name:24}  not installed: pip install open3d libigl")
                continue
            cells = [numbers.get(f"{key}{kind}_{size}_s") for kind in ("", "_head", "_background")]
            text = "".join(f"{'' if c is None else f'{c:.3f}':>{w}}" for c, w in zip(cells, (9, 9, 12), strict=True))
            ratio = numbers.get(f"ratio_{key}_{size}")
            lines.append(f"  {name:24}{text}{'' if ratio is None else f'{ratio:.1f}':>12}")
    return "\n".join(lines)
