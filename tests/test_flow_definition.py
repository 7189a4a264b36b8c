"""docs/flow.md held against three programs: the float64 reference, the kernels, and a brute-force twin in NumPy."""

from dataclasses import dataclass, replace

import flow_twin
import numpy as np
import pytest
import torch
from torch import Tensor
from toy_heads import sphere, still, toy_head

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.flow import reference, turns
from comfyui_flow3d.flow3d.flow.carry import carriers
from comfyui_flow3d.flow3d.flow.encode import encode_pairs
from comfyui_flow3d.flow3d.flow.sampling import Sampling
from comfyui_flow3d.flow3d.flow.surface_field import SurfaceField
from comfyui_flow3d.flow3d.flow.topology import Topology, build_topology, topology_of
from comfyui_flow3d.flow3d.head.files import OPEN_HEAD, load_saved_head
from comfyui_flow3d.flow3d.head.model import EYEBALLS, SKIN, HeadModel
from comfyui_flow3d.flow3d.render.rasterize import Fragments, rasterize
from comfyui_flow3d.flow3d.rotations import to_matrix

SAME = 1e-5  # metres: backends agree in flow within 0.01 mm
TOY = toy_head()
OPEN = load_saved_head(OPEN_HEAD)


@dataclass(frozen=True, eq=False)
class Pairs:
    """A batch of frame pairs with another person, move and camera in each row."""

    head: HeadModel
    source: Tensor  # (B, V, 3)
    target: Tensor
    cameras: list[Camera]

    @property
    def seen(self) -> Fragments:
        return rasterize(self.target, self.head.faces, self.cameras)


def pairs(head: HeadModel, rows: int, width: int, height: int) -> Pairs:
    g = torch.Generator().manual_seed(rows + width)
    cameras, sources, targets = [], [], []
    for i in range(rows):
        view = Camera.from_field_of_view(width, height, 22.0 + 3 * i)
        cameras.append(replace(view, cx=view.cx + 0.3 * i, cy=view.cy - 0.7 * i))
        shape = torch.randn(head.n_shape, generator=g) * 0.5
        move = {
            "expression": torch.rand(1, head.n_expression, generator=g) * (0.3 if head is OPEN else 0.8),
            "joints": torch.randn(1, head.n_joints - 1, 3, generator=g) * 0.06,
            "rotation": torch.randn(1, 3, generator=g) * 0.3,
            "translation": torch.tensor([[0.01 * i, 0.08, 0.95]]),
        }
        sources.append(still(head, cameras[-1], shape=shape).vertices(head))
        targets.append(still(head, cameras[-1], shape=shape, **move).vertices(head))
    return Pairs(head, torch.cat(sources), torch.cat(targets), cameras)


def twin_meshes(p: Pairs, row: int) -> dict[int, flow_twin.Mesh]:
    """The twin's mesh for each part of the head."""
    target, source = p.target[row].double().numpy(), p.source[row].double().numpy()
    faces, parts = p.head.faces.numpy(), p.head.face_parts.numpy()
    return {int(part): flow_twin.Mesh(target, source, faces, parts == part) for part in np.unique(parts)}


def compare(p: Pairs, sampling: Sampling, most: int) -> tuple[int, int]:
    """The kernels' encoding of `p` against the twin and the reference at `most` samples of each row.

    Returns how many samples were compared, and how many of them were ties that went another way.
    """
    seen = p.seen
    got = encode_pairs(topology_of(p.head), p.source, p.target, p.cameras, sampling, 1.0)
    rows, height, width = seen.triangle.shape
    assert got.shape == (rows, 3 * sampling.samples, height, width) and got.dtype == torch.float32
    assert got.isfinite().all()
    g = torch.Generator().manual_seed(5)
    total = ties = 0
    for row in range(rows):
        own = Fragments(*(x[row : row + 1] for x in seen))
        points = reference.sample_points(p.cameras[row], own, sampling).reshape(-1, 3)
        flow = got[row].reshape(sampling.samples, 3, -1).permute(2, 0, 1).reshape(-1, 3).double()
        triangle = own.triangle.reshape(-1, 1).expand(-1, sampling.samples).reshape(-1).long()
        some = torch.randperm(len(points), generator=g)[:most]
        points, flow, triangle = points[some], flow[some], triangle[some]
        slow = reference.flow_at_pixels(p.target[row], p.source[row], p.head.faces, p.head.face_parts, points, triangle)
        for part, mesh in twin_meshes(p, row).items():
            mine = torch.where(triangle >= 0, p.head.face_parts[triangle.clamp(min=0)], SKIN) == part
            at, fast, brute = (x[mine].numpy() for x in (points, flow, slow))
            twin = flow_twin.surface_field(mesh, at).points - at
            assert np.linalg.norm(brute - twin, axis=1).max(initial=0) < 1e-9  # both float64: the ties as well
            for i in np.flatnonzero(np.linalg.norm(fast - twin, axis=1) > SAME):
                assert flow_twin.is_tie(mesh, at[i], at[i] + fast[i])
                ties += 1
            total += len(at)
    return total, ties


SIZES = [(8, 8), (9, 31), (33, 17), (64, 64), (65, 47), (96, 88)]


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("sampling", [Sampling(1), Sampling(2), Sampling(20), Sampling(20, delta=0.0)], ids=repr)
def test_three_programs_agree(size: tuple[int, int], sampling: Sampling):
    """Batches of 1 to 3 different heads, sizes that are no multiple of anything, few and many samples."""
    rows = 1 + SIZES.index(size) % 3
    total, ties = compare(pairs(TOY, rows, *size), sampling, most=1500)
    assert total > 60 and ties <= 0.002 * total


def test_three_programs_agree_on_the_open_head():
    total, ties = compare(pairs(OPEN, 2, 72, 90), Sampling(), most=500)
    assert total == 1000 and ties <= 1


def at(topology: Topology, p: Pairs, points: Tensor, parts: Tensor | int = SKIN) -> tuple[Tensor, Tensor]:
    return SurfaceField(topology, p.target[:1], p.source[:1]).at(points[None], parts)


def around(p: Pairs, count: int, spread: float) -> Tensor:
    """Points about the target's surface, `spread` metres from it."""
    g = torch.Generator().manual_seed(count)
    corners = p.target[0][p.head.faces[torch.randint(len(p.head.faces), (count,), generator=g)]]
    weights = torch.rand(count, 3, generator=g)
    on = torch.einsum("pc,pcx->px", weights / weights.sum(1, keepdim=True), corners)
    return on + torch.randn(count, 3, generator=g) * spread


@pytest.mark.parametrize("spread", [0.005, 0.15])
def test_the_closest_triangle_is_as_close_as_libigls(spread: float):
    """200,000 points near and far: the distance to the chosen triangle is the distance to the mesh."""
    igl = pytest.importorskip("igl")
    p = pairs(OPEN, 1, 64, 64)
    skin = p.head.faces[p.head.face_parts == SKIN]
    points = around(p, 100_000, spread)
    _, triangle = at(topology_of(OPEN), p, points)
    squared, _, _ = igl.point_mesh_squared_distance(
        points.double().numpy(), p.target[0].double().numpy(), skin.numpy().astype(np.int64)
    )
    away = distance_to_own_triangle(points.double(), p.target[0].double()[p.head.faces[triangle[0].long()]])
    assert np.abs(away.numpy() - np.sqrt(squared)).max() < 1e-6


def distance_to_own_triangle(points: Tensor, corners: Tensor) -> Tensor:
    """From each of the points (P, 3) to its triangle (P, 3, 3), by the plane or the closest of the edges."""
    a, b, c = corners.unbind(1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    height = ((points - a) * normal).sum(-1, keepdim=True)
    flat = points - height * normal
    sides = [(torch.linalg.cross(e - s, flat - s) * normal).sum(-1) for s, e in ((a, b), (b, c), (c, a))]
    edges = []
    for s, e in ((a, b), (b, c), (c, a)):
        along = (((points - s) * (e - s)).sum(-1) / ((e - s) ** 2).sum(-1)).clamp(0, 1)
        edges.append((points - s - along[:, None] * (e - s)).norm(dim=-1))
    return torch.where(torch.stack(sides).amin(0) >= 0, height[:, 0].abs(), torch.stack(edges).amin(0))


def assert_ties(mesh: flow_twin.Mesh, points: Tensor, carried: Tensor) -> None:
    for p, got in zip(points.double().numpy(), carried.double().numpy(), strict=True):
        assert flow_twin.is_tie(mesh, p, got)


def test_a_rigid_motion_of_both_heads_moves_the_field_with_them():
    """SF(g p; g T, g S) = g SF(p; T, S), and the reference keeps it to rounding."""
    p = pairs(TOY, 1, 64, 64)
    target, source = p.target.double(), p.source.double()
    turn, move = to_matrix(torch.tensor([0.2, -0.4, 0.3], dtype=torch.float64)), torch.tensor([0.02, 0.03, -0.05]).double()
    points = around(p, 20_000, 0.02).double()
    moved = Pairs(TOY, source @ turn.T + move, target @ turn.T + move, p.cameras)
    flow, _ = at(topology_of(TOY), replace(p, target=target, source=source), points.float())
    there = points.float().double() @ turn.T + move
    flow_there, _ = at(topology_of(TOY), moved, there)
    expected = (points.float().double() + flow[0].double()) @ turn.T + move
    got = there + flow_there[0].double()
    off = (got - expected).norm(dim=1) > 1e-6
    assert off.float().mean() < 1e-3
    assert_ties(twin_meshes(moved, 0)[SKIN], there[off], got[off])

    some = points[:400]
    here = reference.surface_field(some, target[0], source[0], TOY.faces).points @ turn.T + move
    again = reference.surface_field(some @ turn.T + move, moved.target[0], moved.source[0], TOY.faces).points
    assert (here - again).norm(dim=1).max() < 1e-11


def test_moving_the_target_moves_the_flow_of_its_samples_the_other_way():
    p = pairs(OPEN, 1, 64, 64)
    move = torch.tensor([0.012, -0.004, 0.02])
    points = around(p, 20_000, 0.005)
    flow, _ = at(topology_of(OPEN), p, points)
    there = replace(p, target=p.target + move)
    moved, _ = at(topology_of(OPEN), there, points + move)
    off = (moved - (flow - move))[0].norm(dim=1) > 1e-6
    assert off.float().mean() < 1e-3
    assert_ties(twin_meshes(there, 0)[SKIN], (points + move)[off], (points + move + moved[0])[off])


def outside(faces_of: Tensor, vertices: Tensor, steps: int) -> Tensor:
    """Points (paths, steps, 3) along straight lines outside an egg, past many of its edges and corners."""
    g = torch.Generator().manual_seed(11)
    middle = vertices.mean(0)
    ways = torch.cat([vertices[faces_of].mean(1), vertices])[torch.randint(len(vertices), (40,), generator=g)] - middle
    around = torch.linalg.cross(ways, torch.randn(40, 3, generator=g).double())
    across = torch.nn.functional.normalize(around, dim=-1) * 0.05
    return middle + 1.6 * ways[:, None] + across[:, None] * torch.linspace(-1, 1, steps).double()[:, None]


def test_the_field_is_continuous_past_edges_and_corners():
    """Outside a convex target no two places are equally close, so a step that is a tenth moves the flow a tenth as far."""
    vertices, faces = sphere(12, 18)
    g = torch.Generator().manual_seed(4)
    target = vertices * torch.tensor([0.075, 0.11, 0.09])
    source = target + torch.randn(target.shape, generator=g).double() * 0.003
    topology = build_topology(target, faces, torch.zeros(len(faces), dtype=torch.int64))
    field = SurfaceField(topology, target[None], source[None])

    def largest_step(steps: int) -> tuple[float, int]:
        points = outside(faces, target, steps)
        flow, triangle = field.at(points.reshape(1, -1, 3).float())
        flow, triangle = flow.reshape(points.shape), triangle.reshape(points.shape[:2])
        return float((flow[:, 1:] - flow[:, :-1]).norm(dim=-1).max()), int((triangle[:, 1:] != triangle[:, :-1]).sum())

    (coarse, crossed), (fine, _) = largest_step(1001), largest_step(10_001)
    assert crossed > 300 and 1e-4 < coarse < 2e-3  # steps of 0.1 mm
    assert fine < 0.15 * coarse

    points = outside(faces, target, 1001)[:6]
    slow = reference.surface_field(points.reshape(-1, 3), target, source, faces).points.reshape(points.shape)
    assert (slow[:, 1:] - slow[:, :-1]).norm(dim=-1).max() < coarse + 1.1e-4  # these carry the points' own steps as well
    close = points + 1e-9 * torch.randn(points.shape, generator=g, dtype=torch.float64)
    again = reference.surface_field(close.reshape(-1, 3), target, source, faces).points.reshape(points.shape)
    assert (again - slow).norm(dim=-1).max() < 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_picture_shows_what_single_points_are_told(dtype: torch.dtype):
    """Beside a convex head nothing is a tie: where a cell's list leaves out a triangle by mistake it would show."""
    vertices, faces = sphere(12, 18)
    g = torch.Generator().manual_seed(4)
    target = vertices * torch.tensor([0.075, 0.11, 0.09]) + torch.tensor([0.0, 0.0, 0.95])
    source = target + torch.randn(target.shape, generator=g).double() * 0.003
    topology = build_topology(target, faces, torch.zeros(len(faces), dtype=torch.int64))
    camera = Camera.from_field_of_view(200, 190)
    seen = rasterize(target[None].float(), faces, camera)
    beside = seen.triangle[0] < 0
    field = SurfaceField(topology, target[None].to(dtype), source[None].to(dtype))
    image = field.along_rays([camera], seen, Sampling())[0].reshape(20, 3, 190, 200).permute(2, 3, 0, 1)[beside].reshape(-1, 3)
    points = reference.sample_points(camera, seen, Sampling())[0][beside].reshape(-1, 3)
    alone, _ = field.at(points[None].float())
    off = (image - alone[0]).norm(dim=1)
    assert len(off) > 500_000 and off.max() < 5e-5 and (off > 1e-6).float().mean() < 1e-4
    some = torch.randperm(len(points), generator=g)[:4000]
    slow = reference.surface_field(points[some], target.to(dtype), source.to(dtype), faces).points - points[some]
    assert (image[some] - slow).norm(dim=1).max() < (2e-6 if dtype == torch.float32 else SAME)


def turns_of_three(target: Tensor, source: Tensor, faces: Tensor) -> list[Tensor]:
    """(V, 4) w x y z, w or another one above 0, by the kernel, the reference and the twin."""
    topology = build_topology(sphere(7, 11)[0], faces, torch.zeros(len(faces), dtype=torch.int64))
    finite = ((target + source)[faces].isfinite().all(-1).all(-1)).numpy()
    twin = flow_twin.turns(target.numpy(), source.numpy(), faces.numpy()[finite])
    three = [
        turns.vertex_turns(topology, target[None], source[None])[0],
        reference.vertex_turns(target, source, faces),
        torch.from_numpy(twin).roll(1, -1),
    ]
    return [q * torch.where((q * three[0]).sum(-1, keepdim=True) < 0, -1.0, 1.0) for q in three]


def on_a_line(vertices: Tensor) -> Tensor:
    return vertices * torch.tensor([1.0, 0.0, 0.0]) + torch.tensor([0.0, 0.3, 0.0])


def folded(vertices: Tensor) -> Tensor:
    return torch.where(vertices[:, 2:] > 0, vertices, vertices * torch.tensor([1.0, 1.0, -1.0]))


SHAPES = {
    "flat": lambda v: v * torch.tensor([1.0, 1.0, 0.0]),
    "mirrored": lambda v: v * torch.tensor([-1.0, 1.0, 1.0]),
    "folded": folded,
    "one vertex gone": lambda v: torch.cat([v[:30], v[30:31] * torch.nan, v[31:]]),
    "a patch on a point": lambda v: torch.cat([v[:30], v[30:31].expand(20, 3), v[50:]]),
    "a patch on a line": lambda v: torch.cat([v[:30], on_a_line(v[30:50]), v[50:]]),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_vertex_turns_alike_in_three_programs(shape: str, side: str):
    """Rings of triangles that are flat, mirrored, folded, on a line or on a point: always a rotation, always the same."""
    vertices, faces = sphere(7, 11)
    g = torch.Generator().manual_seed(6)
    rough = (vertices + torch.randn(vertices.shape, generator=g).double() * 0.05) * 0.1
    changed = SHAPES[shape](vertices * 0.1) @ to_matrix(torch.tensor([0.4, -0.2, 0.3], dtype=torch.float64)).T
    target, source = (rough, changed) if side == "source" else (changed, rough)
    kernel, slow, twin = turns_of_three(target, source, faces)
    for q in (kernel, slow, twin):
        assert (q.norm(dim=-1) - 1).abs().max() < 1e-12
    assert (slow - twin).norm(dim=-1).max() < 1e-9
    assert (kernel - twin).norm(dim=-1).max() < 1e-9


def test_neighbours_that_turn_against_each_other_are_survived_alike():
    """A source whose vertices are shuffled: rotations of neighbours have nothing to do with each other."""
    vertices, faces = sphere(7, 11)
    g = torch.Generator().manual_seed(9)
    target, source = vertices * 0.1, (vertices * 0.1)[torch.randperm(len(vertices), generator=g)]
    topology = build_topology(vertices, faces, torch.zeros(len(faces), dtype=torch.int64))
    made = carriers(topology, target[None], source[None])
    weights = torch.distributions.Dirichlet(torch.full((3,), 0.5)).sample((200, len(faces)))
    corner = made.turns[0].double()
    mean = corner[:, 0] + weights[..., 1:2] * corner[:, 1] + weights[..., 2:] * corner[:, 2]
    assert (corner[:, 1:].norm(dim=-1) > 1.4).any()  # some turn against each other by more than 180 degrees
    assert mean.norm(dim=-1).square().min() > 0.2  # and the mean of none of them vanishes
    points = torch.randn(3000, 3, generator=g) * 0.12
    flow, _ = SurfaceField(topology, target[None], source[None]).at(points[None])
    slow = reference.surface_field(points, target, source, faces).points
    mesh = flow_twin.Mesh(target.numpy(), source.numpy(), faces.numpy(), np.ones(len(faces), bool))
    twin = torch.from_numpy(flow_twin.surface_field(mesh, points.double().numpy()).points)
    for got, close in ((slow, 1e-9), (points + flow[0], SAME)):
        off = (got - twin).norm(dim=1) > close
        assert off.float().mean() < 0.2  # on edges, where triangles on either side have chosen other signs
        assert_ties(mesh, points[off], got[off])


def test_gradients_of_the_reference():
    vertices, faces = sphere(4, 6)
    g = torch.Generator().manual_seed(1)
    target = (vertices + torch.randn(vertices.shape, generator=g).double() * 0.03).requires_grad_()
    source = (vertices * 1.2 + torch.randn(vertices.shape, generator=g).double() * 0.03).requires_grad_()
    points = (torch.randn(12, 3, generator=g, dtype=torch.float64) * 1.1).requires_grad_()

    def field(points: Tensor, target: Tensor, source: Tensor) -> Tensor:
        return reference.surface_field(points, target, source, faces).points

    assert torch.autograd.gradcheck(field, (points, target, source))


def test_gradients_of_a_mesh_that_stands_still():
    """Every rotation is 1 then, and around the corners of an octahedron other eigenvalues are equal."""
    vertices = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    faces = torch.tensor([[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]])
    points = torch.randn(8, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 1.1

    def field(target: Tensor, source: Tensor) -> Tensor:
        return reference.surface_field(points, target, source, faces).points

    assert (field(vertices, vertices) - points).abs().max() < 1e-14
    assert torch.autograd.gradcheck(field, (vertices.clone().requires_grad_(), vertices.clone().requires_grad_()))


def test_float16_is_float32_rounded_and_goes_where_it_is_told():
    p = pairs(TOY, 2, 33, 41)
    topology, sampling = topology_of(TOY), Sampling(3)
    full = encode_pairs(topology, p.source, p.target, p.cameras, sampling)
    half = torch.full((2, 9, 41, 33), torch.nan, dtype=torch.float16)
    assert encode_pairs(topology, p.source, p.target, p.cameras, sampling, out=half) is half
    assert torch.equal(half, full.half())
    channels_last = torch.empty(2, 9, 41, 33).to(memory_format=torch.channels_last)
    encode_pairs(topology, p.source, p.target, p.cameras, sampling, out=channels_last)
    assert channels_last.is_contiguous(memory_format=torch.channels_last) and torch.equal(channels_last, full)
    window = torch.full((4, 12, 41, 33), 7.0, dtype=torch.float16)
    encode_pairs(topology, p.source, p.target, p.cameras, sampling, out=window[1:3, 2:11])
    assert torch.equal(window[1:3, 2:11], half) and (window[0] == 7).all() and (window[:, 11] == 7).all()
    for wrong in (torch.empty(2, 9, 41, 32), torch.empty(2, 9, 41, 33, dtype=torch.float64)):
        with pytest.raises(ValueError, match="'out' is"):
            encode_pairs(topology, p.source, p.target, p.cameras, sampling, out=wrong)


def test_one_sample_lies_on_the_surface():
    assert Sampling(1).depths(torch.tensor([0.9, 0.0])).tolist() == [[pytest.approx(0.9)], [pytest.approx(0.95)]]
    assert Sampling(2).depths(torch.tensor([0.9])).tolist() == [pytest.approx([0.89, 0.91])]


def test_blinks_and_pinched_lips_never_give_nan():
    """Collapsed, sliver and infinite triangles on either side, and a point on a corner of a collapsed one."""
    vertices, faces = sphere(7, 11)
    target, source = vertices * 0.1 + torch.tensor([0, 0, 1.0]), vertices * 0.11 + torch.tensor([0, 0, 1.0])
    target[faces[20, 1]] = target[faces[20, 0]]
    target[faces[60, 2]] = (target[faces[60, 0]] + target[faces[60, 1]]) / 2 + 1e-8
    source[faces[80, 1]] = source[faces[80, 0]]
    source[faces[120, 0]] = torch.inf
    topology = build_topology(vertices, faces, torch.zeros(len(faces), dtype=torch.int64))
    camera = Camera.from_field_of_view(50, 50)
    seen = rasterize(target[None], faces, camera)
    got = encode_pairs(topology, source[None], target[None], camera, Sampling(), 1.0)
    assert got.isfinite().all() and (seen.triangle >= 0).float().mean() > 0.1
    mesh = flow_twin.Mesh(target.numpy(), source.numpy(), faces.numpy(), np.ones(len(faces), bool))
    assert 4 < len(faces) - len(mesh.faces) < 30
    points = reference.sample_points(camera, seen, Sampling())[0].reshape(-1, 3)
    flow = got[0].reshape(20, 3, -1).permute(2, 0, 1).reshape(-1, 3).double()
    some = torch.randperm(len(points), generator=torch.Generator().manual_seed(2))[:3000]
    twin = flow_twin.surface_field(mesh, points[some].numpy()).points
    off = np.linalg.norm((points + flow)[some].numpy() - twin, axis=1) > SAME
    assert off.mean() < 0.02  # where corners lie on each other, triangles are at one distance that share no corner
    for i in some[torch.from_numpy(off)].tolist():
        assert flow_twin.is_tie(mesh, points[i].numpy(), (points + flow)[i].numpy())

    corners = target[faces[20]].float()
    flow, triangle = SurfaceField(topology, target[None], source[None]).at(corners[None])
    assert flow.isfinite().all() and np.isin(triangle.numpy(), mesh.searched).all()


def test_only_the_part_that_is_seen_is_searched():
    """The eyeballs stand out of the toy head's skin: where one is seen, no sample is carried by skin, and the reverse."""
    p = pairs(TOY, 1, 96, 96)
    source = p.source.clone()
    eyes = TOY.faces[TOY.face_parts == EYEBALLS].unique()
    source[:, eyes, 0] += 10.0
    seen = p.seen.triangle[0]
    flow = encode_pairs(topology_of(TOY), source, p.target, p.cameras, Sampling(5), 1.0)[0].reshape(5, 3, 96, 96)
    eye = (seen >= 0) & (TOY.face_parts[seen.clamp(min=0).long()] == EYEBALLS)
    assert eye.sum() > 20
    assert (flow[:, 0, eye] > 9).all() and (flow[:, 0, ~eye] < 1).all()
