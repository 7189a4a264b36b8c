"""The rasterizer against analytic scenes and an independent float64 twin."""

import numpy as np
import pytest
import torch

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.render.rasterize import rasterize

CAMERA = Camera(focal=70.0, cx=31.3, cy=22.9, width=64, height=48)


def random_triangles(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Separate triangles of random size, winding and tilt, some partly outside the image."""
    g = torch.Generator().manual_seed(seed)
    centre = (torch.rand(count, 1, 3, generator=g) - 0.5) * torch.tensor([1.1, 0.9, 0.6]) + torch.tensor([0, 0, 1.0])
    corners = centre + torch.randn(count, 3, 3, generator=g) * 0.08
    return corners.reshape(-1, 3), torch.arange(3 * count).reshape(-1, 3)


def twin(vertices: np.ndarray, faces: np.ndarray, camera: Camera) -> tuple[np.ndarray, ...]:
    """Every triangle's plane met by every pixel's ray, in float64.

    Returns depth, triangle, barycentrics and whether the pixel is safe: no triangle's edge or rival depth is so near
    that snapping to 1/4096 pixel may decide otherwise.
    """
    y, x = np.mgrid[: camera.height, : camera.width] + 0.5
    rays = np.stack([(x - camera.cx) / camera.focal, (y - camera.cy) / camera.focal, np.ones_like(x)], -1)
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    normal = np.cross(b - a, c - a)
    depth = (normal * a).sum(1) / (rays @ normal.T)  # (H, W, F)
    p = rays[:, :, None] * depth[..., None]
    area = (normal**2).sum(1)
    bary = np.stack(
        [(np.cross(q - p, r - p) * normal).sum(-1) / area for q, r in ((b, c), (c, a), (a, b))], -1
    )  # (H, W, F, 3)
    # Pixels to the nearest edge line: the twice-area of the projected corner pair and the pixel over the edge's length.
    screen = [v[:, :2] / v[:, 2:] * camera.focal + (camera.cx, camera.cy) for v in (a, b, c)]
    gap = np.full(depth.shape, np.inf)
    for q, r in ((0, 1), (1, 2), (2, 0)):
        e = screen[r] - screen[q]
        d = np.stack([x, y], -1)[:, :, None] - screen[q]
        gap = np.minimum(gap, np.abs(e[:, 0] * d[..., 1] - e[:, 1] * d[..., 0]) / np.linalg.norm(e, axis=1))
    covered = (bary >= 0).all(-1)
    depth = np.where(covered, depth, np.inf)
    two = np.minimum(np.sort(depth, -1)[..., :2], 1e9)
    close = (two[..., 1] - two[..., 0] < 1e-5) & (two[..., 1] < 1e9)
    t = depth.argmin(-1)
    best = np.take_along_axis(depth, t[..., None], -1)[..., 0]
    weights = np.take_along_axis(bary, t[..., None, None], 2)[:, :, 0]
    empty = ~np.isfinite(best)
    weights[empty] = 0
    return np.where(empty, 0, best), np.where(empty, -1, t), weights, (gap.min(-1) > 1e-3) & ~close


def test_equals_the_float64_twin():
    vertices, faces = random_triangles(120)
    got = rasterize(vertices[None], faces, CAMERA)
    depth, triangle, bary, safe = twin(vertices.numpy(), faces.numpy(), CAMERA)
    assert safe.mean() > 0.9 and (triangle >= 0).mean() > 0.3
    assert got.triangle.dtype == torch.int32
    np.testing.assert_array_equal(got.triangle[0].numpy()[safe], triangle[safe])
    np.testing.assert_allclose(got.depth[0].numpy()[safe], depth[safe], atol=2e-4)
    front = safe & (triangle >= 0)
    assert np.quantile(np.abs(got.bary[0].numpy() - bary)[front], 0.99) < 1e-3


def test_a_tilted_plane_has_its_analytic_depth():
    camera = Camera.from_field_of_view(96, 80)
    normal, offset = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64), 0.9
    xy = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64) * 0.5
    corners = torch.cat([xy, (offset - xy @ normal[:2, None]) / normal[2]], 1)
    got = rasterize(corners[None], torch.tensor([[0, 1, 2], [0, 2, 3]]), camera)
    expected = offset / (camera.rays(torch.float64) @ normal)
    assert (got.triangle >= 0).all()
    assert (got.depth[0] - expected).abs().max() < 1e-6


def test_barycentrics_lead_back_to_the_pixel_centre():
    vertices, faces = random_triangles(300, seed=1)
    got = rasterize(vertices[None], faces, CAMERA)
    seen = got.triangle[0] >= 0
    corners = vertices[faces[got.triangle[0][seen].long()]]
    point = torch.einsum("nc,ncx->nx", got.bary[0][seen].double(), corners.double())
    y, x = torch.where(seen)
    assert (CAMERA.project(point) - torch.stack([x, y], 1) - 0.5).abs().max() < 1e-3
    assert (point[:, 2] - got.depth[0][seen]).abs().max() < 1e-6
    assert (got.bary[0][seen] >= 0).all() and (got.bary[0][seen].sum(-1) - 1).abs().max() < 1e-6
    assert (got.bary[0][~seen] == 0).all() and (got.depth[0][~seen] == 0).all() and (~seen).any()


@pytest.mark.parametrize("jitter", [0.0, 0.37])
def test_shared_edges_are_covered_exactly_once(jitter: float):
    """A closed grid of quads, its corners exactly on pixel centres (jitter 0) or anywhere."""
    n, g = 9, torch.Generator().manual_seed(2)
    camera = Camera(focal=64.0, cx=32.0, cy=32.0, width=64, height=64)
    y, x = torch.meshgrid(torch.arange(n) * 7 + 4.5, torch.arange(n) * 7 + 4.5, indexing="ij")
    pixels = torch.stack([x, y], -1)
    pixels[1:-1, 1:-1] += (torch.rand(n - 2, n - 2, 2, generator=g) - 0.5) * 10 * jitter
    vertices = torch.cat([(pixels - 32) / 64, torch.ones(n, n, 1)], -1).reshape(-1, 3)
    i = torch.arange(n * n).reshape(n, n)
    a, b, c, d = i[:-1, :-1].flatten(), i[:-1, 1:].flatten(), i[1:, 1:].flatten(), i[1:, :-1].flatten()
    turn = torch.arange(len(a)) % 2 == 0  # diagonals both ways
    first = torch.where(turn[:, None], torch.stack([a, b, c], 1), torch.stack([b, d, a], 1))
    second = torch.where(turn[:, None], torch.stack([c, a, d], 1), torch.stack([b, c, d], 1))  # one winding reversed
    count = torch.zeros(64, 64, dtype=torch.int64)
    for face in torch.cat([first, second]):
        count += rasterize(vertices[None], face[None], camera).triangle[0] >= 0
    assert (count[5:60, 5:60] == 1).all()
    assert count.max() == 1 and (count[:4] == 0).all() and (count[61:] == 0).all()


def test_equal_depths_go_to_the_lowest_index_in_any_order():
    vertices, faces = random_triangles(60, seed=3)
    doubled = rasterize(vertices[None], torch.cat([faces, faces.flip(1), faces]), CAMERA)
    assert doubled.triangle.max() < 60
    order = torch.randperm(60, generator=torch.Generator().manual_seed(4))
    shuffled = rasterize(vertices[None], faces[order], CAMERA)
    once = rasterize(vertices[None], faces, CAMERA)
    assert torch.equal(shuffled.depth, once.depth) and torch.equal(shuffled.bary, once.bary)
    seen = once.triangle >= 0
    assert torch.equal(order[shuffled.triangle[seen].long()], once.triangle[seen].long())


def test_a_batch_equals_its_rows():
    vertices, faces = random_triangles(50, seed=5)
    batch = torch.stack([vertices, vertices * 1.2, vertices + torch.tensor([0.05, 0, 0.1])])
    cameras = [CAMERA, Camera(55.0, 30.0, 25.0, 64, 48), Camera(90.0, 36.0, 20.0, 64, 48)]
    together = rasterize(batch, faces, cameras)
    for row, camera in enumerate(cameras):
        for whole, alone in zip(together, rasterize(batch[row : row + 1], faces, camera), strict=True):
            assert torch.equal(whole[row], alone[0])


def test_impossible_triangles_are_left_out_and_harm_nobody():
    vertices, faces = random_triangles(20, seed=6)
    good = rasterize(vertices[None], faces, CAMERA)
    bad = torch.tensor(
        [[float("nan"), 0, 0.5], [0, float("inf"), 0.5], [0.0, 0.0, 0.5], [0.1, 0.0, -0.2], [0.0, 0.1, 0.0],
         [0.1, 0.0, 0.5], [0.2, 0.0, 0.5], [1e30, 0, 0.5], [90, 90, 0.5], [95, 90, 0.5], [90, 99, 0.5], [0.0, 0.1, 0.5]]
    )  # fmt: skip
    n = len(vertices)
    triangles = [(0, 2, 5), (1, 2, 5), (3, 2, 5), (4, 2, 5), (2, 5, 6), (2, 2, 5), (7, 2, 5), (8, 9, 10), (2, 2, 2)]
    every = torch.cat([faces, torch.tensor(triangles) + n])
    got = rasterize(torch.cat([vertices, bad])[None], every, CAMERA)
    for a, b in zip(got, good, strict=True):
        assert torch.equal(a, b)
    visible = rasterize(torch.cat([vertices, bad])[None], torch.cat([every, torch.tensor([[2, 5, 11]]) + n]), CAMERA)
    assert (visible.triangle == len(every)).any()  # their sound corners can still be drawn


def test_wrong_shapes_are_refused():
    vertices, faces = random_triangles(2)
    with pytest.raises(ValueError, match=r"not \(B, V, 3\)"):
        rasterize(vertices, faces, CAMERA)
    with pytest.raises(ValueError, match="one camera, or 1 of one image size"):
        rasterize(vertices[None], faces, [CAMERA, CAMERA])


def test_no_mesh_and_no_triangles():
    vertices, faces = random_triangles(2)
    assert rasterize(vertices[None][:0], faces, CAMERA).depth.shape[0] == 0
    assert (rasterize(vertices[None], faces[:0], CAMERA).triangle == -1).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_cuda_equals_the_cpu():
    vertices, faces = random_triangles(300, seed=7)
    batch = torch.stack([vertices, vertices * 1.1])
    for there, here in zip(rasterize(batch.cuda(), faces.cuda(), CAMERA), rasterize(batch, faces, CAMERA), strict=True):
        assert (there.cpu() != here).float().mean() < 1e-3 or (there.cpu() - here).abs().max() < 1e-5
