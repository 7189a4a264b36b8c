"""The surface field: the reference against a twin built another way, the fast path against the reference."""

from collections.abc import Iterator

import flow_twin
import numpy as np
import pytest
import torch
from torch import Tensor
from toy_heads import sphere, still, torus, toy_head

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.flow.carry import carriers
from comfyui_flow3d.flow3d.flow.reference import surface_field
from comfyui_flow3d.flow3d.flow.sampling import Sampling
from comfyui_flow3d.flow3d.flow.surface_field import SurfaceField
from comfyui_flow3d.flow3d.flow.topology import build_topology, topology_of
from comfyui_flow3d.flow3d.head.files import OPEN_HEAD, load_saved_head
from comfyui_flow3d.flow3d.head.model import EYEBALLS, SKIN, HeadModel
from comfyui_flow3d.flow3d.render.rasterize import Fragments, rasterize
from comfyui_flow3d.flow3d.rotations import to_matrix

CAMERA = Camera.from_field_of_view(192, 192)
NEAR_HEAD = torch.tensor([0.0, 0.0, 1.0])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """OpenMP's threads wait for each other at every step: where other work shares the cores, one is much faster."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def bumped(vertices: Tensor, seed: int) -> Tensor:
    return vertices + torch.randn(vertices.shape, generator=torch.Generator().manual_seed(seed)).double() * 0.004


def twin_mesh(target: Tensor, source: Tensor, faces: Tensor, candidates: Tensor | None = None) -> flow_twin.Mesh:
    every = torch.ones(len(faces), dtype=torch.bool) if candidates is None else candidates
    return flow_twin.Mesh(target.double().numpy(), source.double().numpy(), faces.numpy(), every.numpy())


def assert_ties(points: Tensor, carried: Tensor, mesh: flow_twin.Mesh) -> None:
    for p, got in zip(points.double().numpy(), carried.double().numpy(), strict=True):
        assert flow_twin.is_tie(mesh, p, got)


MESHES = {
    "sphere": (sphere(7, 11)[0] * 0.1, sphere(7, 11)[1]),
    "torus": torus(0.1, 0.03, 14, 8),
    "open": (sphere(7, 11)[0] * 0.1, sphere(7, 11)[1][30:]),  # with a border
}


@pytest.mark.parametrize("name", MESHES)
def test_the_reference_equals_the_feature_twin(name: str):
    vertices, faces = MESHES[name]
    target, source = bumped(vertices, 1), bumped(vertices, 2) * 1.1
    g = torch.Generator().manual_seed(3)
    points = torch.randn(300, 3, generator=g, dtype=torch.float64) * 0.12
    got = surface_field(points, target, source, faces)
    twin = flow_twin.surface_field(twin_mesh(target, source, faces), points.numpy())
    np.testing.assert_allclose(got.points.numpy(), twin.points, rtol=0, atol=1e-11)
    np.testing.assert_allclose(got.distance.numpy(), twin.distance, rtol=0, atol=1e-11)


HEADS = {"toy": toy_head, "open": lambda: load_saved_head(OPEN_HEAD)}


@pytest.fixture(scope="module", params=HEADS)
def head(request: pytest.FixtureRequest) -> HeadModel:
    return HEADS[request.param]()


def named(head: HeadModel, **amounts: float) -> Tensor:
    expression = torch.zeros(1, head.n_expression)
    for i, name in enumerate(head.expression_names):
        for wanted, amount in amounts.items():
            if name.startswith(wanted):
                expression[0, i] = amount
    return expression


CHANGES = {
    "jaw": lambda head: {"joints": torch.tensor([[[0.0, 0, 0], [0.25, 0, 0], [0, 0, 0], [0, 0, 0]]])},
    "blink": lambda head: {"expression": named(head, eyeBlink=0.9)},
    "yaw": lambda head: {"rotation": torch.tensor([[0.0, 0.35, 0.0]])},
    "all": lambda head: {
        "expression": named(head, jawOpen=0.5, mouthSmile=0.6, eyeBlink=0.3),
        "rotation": torch.tensor([[0.1, -0.3, 0.05]]),
        "translation": torch.tensor([[0.02, 0.07, 0.95]]),
    },
}


def pair(head: HeadModel, change: str) -> tuple[Tensor, Tensor]:
    """Source and target vertices (1, V, 3): another identity on both, one change on the target."""
    who = torch.linspace(1.5, -1.5, head.n_shape) * 0.6
    source = still(head, CAMERA, shape=who).vertices(head)
    return source, still(head, CAMERA, shape=who, **CHANGES[change](head)).vertices(head)


@pytest.mark.parametrize("change", CHANGES)
def test_a_visible_point_keeps_its_barycentrics(head: HeadModel, change: str):
    source, target = pair(head, change)
    seen = rasterize(target, head.faces, CAMERA)
    on = seen.triangle[0] >= 0
    triangle, bary = seen.triangle[0][on].long(), seen.bary[0][on].double()
    points = torch.einsum("pc,pcx->px", bary, target[0].double()[head.faces[triangle]])
    expected = torch.einsum("pc,pcx->px", bary, source[0].double()[head.faces[triangle]])
    parts = head.face_parts[triangle]
    flow, _ = SurfaceField(topology_of(head), target, source).at(points[None], parts[None])
    error = (points.float().double() + flow[0].double() - expected).norm(dim=1)
    assert on.sum() > 3000
    assert error.quantile(0.999) < 1e-6
    # What is left are places where two parts of the skin meet, both of them at the point.
    worst = (error > 1e-6).nonzero()[:, 0][:40]
    for part in parts[worst].unique().tolist():
        mine = worst[parts[worst] == part]
        match = surface_field(points[mine], target[0], source[0], head.faces, head.face_parts == part)
        assert match.distance.max() < 1e-7

    some = torch.arange(0, len(points), len(points) // 40)
    for part in parts[some].unique().tolist():
        mine = some[(parts[some] == part) & (error[some] < 1e-6)]
        match = surface_field(points[mine], target[0], source[0], head.faces, head.face_parts == part)
        assert (match.points - expected[mine]).norm(dim=1).max() < 1e-6


def test_a_mesh_is_carried_to_itself_exactly(head: HeadModel):
    """SF(p; M, M) = p at a million points on and off the head, each part in turn."""
    _, target = pair(head, "all")
    g = torch.Generator().manual_seed(5)
    n = 500_000
    corners = target[0][head.faces[torch.randint(len(head.faces), (n,), generator=g)]]
    weights = torch.rand(n, 3, generator=g)
    on = ((weights / weights.sum(1, keepdim=True))[..., None] * corners).sum(1) + torch.randn(n, 3, generator=g) * 0.005
    off = NEAR_HEAD + torch.randn(n, 3, generator=g) * 0.1
    points = torch.cat([on, off])
    parts = torch.randint(int(head.face_parts.max()) + 1, (1, 2 * n), generator=g)
    flow, triangle = SurfaceField(topology_of(head), target, target).at(points[None], parts)
    assert flow.norm(dim=-1).max() < 1e-6
    assert torch.equal(head.face_parts[triangle[0].long()], parts[0])

    few = points[torch.randint(2 * n, (200,), generator=g)]
    assert (surface_field(few, target[0], target[0], head.faces).points - few).norm(dim=1).max() < 1e-6


@pytest.mark.parametrize("change", ["jaw", "all"])
def test_the_fast_path_equals_the_reference(head: HeadModel, change: str):
    """At the samples of the encoding; where the two differ the point is a tie."""
    source, target = pair(head, change)
    seen = rasterize(target, head.faces, CAMERA)
    sampling = Sampling()
    depths = sampling.depths(seen.depth)[0]
    triangle = seen.triangle[0].flatten().long()
    parts = torch.where(triangle >= 0, head.face_parts[triangle.clamp(min=0)], SKIN)
    field = SurfaceField(topology_of(head), target, source)
    image = field.along_rays([CAMERA], seen, sampling)
    image = image.reshape(sampling.samples, 3, -1)
    g = torch.Generator().manual_seed(7)
    different = total = 0
    for where in (triangle >= 0, triangle < 0):
        some = torch.where(where)[0]
        some = some[torch.randint(len(some), (1500,), generator=g)]
        n = torch.randint(sampling.samples, (1500,), generator=g)
        points = CAMERA.rays().reshape(-1, 3)[some] * depths.reshape(-1, sampling.samples)[some, n][:, None]
        flow = image[n, :, some]
        for part in parts[some].unique().tolist():
            mine = parts[some] == part
            p = points[mine].double()
            match = surface_field(p, target[0], source[0], head.faces, head.face_parts == part)
            carried = p + flow[mine]
            off = (carried - match.points).norm(dim=1) > 1e-5
            different, total = different + int(off.sum()), total + len(off)
            if off.any():
                assert_ties(p[off], carried[off], twin_mesh(target[0], source[0], head.faces, head.face_parts == part))
    assert total == 3000 and different <= 3


def test_a_rigid_source_is_a_rigid_field():
    """Where the source is the target turned and moved, so is every point, on the surface and far from it."""
    head = toy_head()
    target = pair(head, "all")[1].double()
    turn, move = to_matrix(torch.tensor([0.3, -0.5, 0.2], dtype=torch.float64)), torch.tensor([0.1, 0.0, -0.2])
    points = NEAR_HEAD + torch.randn(5000, 3, generator=torch.Generator().manual_seed(8)) * 0.2
    flow, _ = SurfaceField(topology_of(head), target, target @ turn.T + move).at(points[None])
    assert (points + flow[0] - (points.double() @ turn.T + move)).norm(dim=1).max() < 2e-6


def test_a_batch_equals_its_rows():
    head = toy_head()
    pairs = [pair(head, c) for c in CHANGES]
    source, target = (torch.cat(x) for x in zip(*pairs, strict=True))
    points = NEAR_HEAD + torch.randn(4, 500, 3, generator=torch.Generator().manual_seed(9)) * 0.15
    flow, triangle = SurfaceField(topology_of(head), target, source).at(points)
    for i, (s, t) in enumerate(pairs):
        alone, chosen = SurfaceField(topology_of(head), t, s).at(points[i : i + 1])
        assert torch.equal(flow[i], alone[0]) and torch.equal(triangle[i], chosen[0])


def test_skin_does_not_snap_to_eyeballs():
    head = toy_head()
    source, target = pair(head, "yaw")
    eye = target[0][head.faces[head.face_parts == EYEBALLS].unique()]
    field = SurfaceField(topology_of(head), target, source)
    for part in (SKIN, EYEBALLS):
        _, triangle = field.at(eye[None], part)
        assert (head.face_parts[triangle[0].long()] == part).all()


def degenerate_pair() -> tuple[Tensor, Tensor, Tensor]:
    """A sphere whose target has a collapsed, a sliver and a NaN triangle, and whose source has a collapsed one."""
    vertices, faces = sphere(7, 11)
    target, source = vertices * 0.1, vertices * 0.11
    target[faces[20, 1]] = target[faces[20, 0]]
    target[faces[60, 2]] = (target[faces[60, 0]] + target[faces[60, 1]]) / 2 + 1e-8
    target[faces[100, 0]] = float("nan")
    source[faces[80, 1]] = source[faces[80, 0]]
    return target, source, faces


def test_degenerate_triangles_are_survived_alike():
    target, source, faces = degenerate_pair()
    topology = build_topology(sphere(7, 11)[0], faces, torch.zeros(len(faces), dtype=torch.int64))
    usable = carriers(topology, target[None], source[None]).usable[0]
    assert 3 < (~usable).sum() < 20
    points = torch.randn(3000, 3, generator=torch.Generator().manual_seed(10)).double() * 0.12
    flow, triangle = SurfaceField(topology, target[None], source[None]).at(points[None])
    match = surface_field(points, target, source, faces)
    assert flow.isfinite().all() and match.points.isfinite().all()
    carried = points + flow[0]
    off = (carried - match.points).norm(dim=1) > 1e-5
    assert off.float().mean() < 0.02  # corners that lie on each other belong to triangles that are not neighbours
    assert_ties(points[off], carried[off], twin_mesh(target, source, faces))
    assert (triangle[0] == 80).any()  # a collapsed source triangle is as good as any


def test_no_usable_triangle_gives_no_flow():
    vertices, faces = sphere(3, 4)
    topology = build_topology(vertices, faces, torch.zeros(len(faces), dtype=torch.int64))
    nothing = torch.full((1, len(vertices), 3), float("nan"))
    flow, triangle = SurfaceField(topology, nothing, vertices[None]).at(torch.ones(1, 5, 3))
    assert (flow == 0).all() and (triangle == -1).all()
    seen = Fragments(torch.ones(1, 2, 3), torch.zeros(1, 2, 3, dtype=torch.int32), torch.zeros(1, 2, 3, 3))
    image = SurfaceField(topology, nothing, vertices[None]).along_rays([CAMERA], seen, Sampling(samples=4))
    assert image.shape == (1, 12, 2, 3) and (image == 0).all()
    assert (surface_field(torch.ones(5, 3), nothing[0], vertices, faces).points == 1).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_cuda_equals_the_cpu():
    head = toy_head()
    source, target = pair(head, "all")
    seen = rasterize(target, head.faces, CAMERA)
    here = SurfaceField(topology_of(head), target, source).along_rays([CAMERA], seen, Sampling())
    seen = Fragments(*(x.cuda() for x in seen))
    field = SurfaceField(topology_of(head).to(torch.device("cuda")), target.cuda(), source.cuda())
    apart = (field.along_rays([CAMERA], seen, Sampling()).cpu() - here).abs()
    assert (apart > 1e-5).float().mean() < 1e-3  # ties
