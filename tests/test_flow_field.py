"""FlowField: what it computes against the reference, analytic moves and ray casting; how it is sliced and checked."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from toy_heads import still, toy_head

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.flow.encode import encode_pairs
from comfyui_flow3d.flow3d.flow.field import FlowField
from comfyui_flow3d.flow3d.flow.reference import surface_field
from comfyui_flow3d.flow3d.flow.sampling import Sampling
from comfyui_flow3d.flow3d.flow.topology import topology_of
from comfyui_flow3d.flow3d.flow.visualize import flow_picture
from comfyui_flow3d.flow3d.render.rasterize import rasterize
from comfyui_flow3d.flow3d.track import HeadTrack

CAMERA = Camera.from_field_of_view(80, 96)
HEAD = toy_head()
FEW = Sampling(samples=5)


def moving(count: int = 3) -> HeadTrack:
    """A head that turns, opens its mouth and comes nearer."""
    t = torch.linspace(0, 1, count)[:, None]
    zero = torch.zeros(count, 1)
    return HeadTrack(
        shape=torch.tensor([0.5, -1.0, 1.0]),
        expression=torch.cat([t, zero, t], 1),
        joints=torch.zeros(count, 4, 3),
        rotation=torch.cat([zero, 0.5 * t, zero], 1),
        translation=torch.cat([0.02 * t, 0.08 + zero, 1.0 - 0.1 * t], 1),
        camera=CAMERA,
    )


def a_field(**changes: object) -> FlowField:
    target = moving()
    return replace(FlowField(target[:1], target, HEAD, CAMERA, FEW), **changes)


def test_the_encoding_is_the_reference_at_each_sample():
    """Channel 3 n + c of a pixel is component c at the n-th depth, times the scale."""
    field = a_field(flow_scale=7.0)
    got = field.encode([2])[0]
    assert got.shape == (15, 96, 80) and got.dtype == torch.float32
    source, target = field.source.vertices(HEAD)[0], field.target[[2]].vertices(HEAD)
    seen = rasterize(target, HEAD.faces, CAMERA)
    g = torch.Generator().manual_seed(0)
    y, x = torch.randint(96, (60,), generator=g), torch.randint(80, (60,), generator=g)
    assert 5 < (seen.triangle[0, y, x] >= 0).sum() < 50
    for row, column in zip(y.tolist(), x.tolist(), strict=True):
        depth, triangle = float(seen.depth[0, row, column]), int(seen.triangle[0, row, column])
        first, last = (depth - 0.01, depth + 0.01) if triangle >= 0 else (0.65, 1.25)
        part = int(HEAD.face_parts[triangle]) if triangle >= 0 else 0
        ray = torch.tensor([(column + 0.5 - CAMERA.cx) / CAMERA.focal, (row + 0.5 - CAMERA.cy) / CAMERA.focal, 1.0])
        points = ray * torch.linspace(first, last, 5, dtype=torch.float64)[:, None]
        match = surface_field(points, target[0], source, HEAD.faces, HEAD.face_parts == part)
        assert (got[:, row, column] / 7 - (match.points - points).flatten()).abs().max() < 1e-5


def test_moving_the_target_moves_the_flow_the_other_way():
    move = torch.tensor([0.012, -0.004, 0.02])
    source = still(HEAD, CAMERA)
    target = replace(source, translation=source.translation + move)
    flow = FlowField(source, target, HEAD, CAMERA, FEW).encode()
    assert (flow.reshape(5, 3, 96, 80) + 10 * move[:, None, None]).abs().max() < 1e-4


def test_nothing_moves_nothing():
    source = still(HEAD, CAMERA)
    field = FlowField(source, source, HEAD, CAMERA)
    assert field.encode().shape == (1, 60, 96, 80)
    assert field.encode().abs().max() < 1e-5
    y, x = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(80) + 0.5, indexing="ij")
    assert (field.pixels()[0] - torch.stack([x, y], -1)).abs().max() < 1e-3
    mask = field.head_mask()
    assert 0.1 < mask.float().mean() < 0.6
    assert not field.visibility()[~mask].any()
    assert field.visibility()[mask].float().mean() > 0.99


def test_pixels_are_where_the_surface_point_projects():
    field = a_field()
    pixels, mask = field.pixels(), field.head_mask()
    seen = rasterize(field.target.vertices(HEAD), HEAD.faces, CAMERA)
    assert torch.equal(mask, seen.triangle >= 0)
    corners = field.source.vertices(HEAD)[0].double()[HEAD.faces[seen.triangle[mask].long()]]
    points = torch.einsum("pc,pcx->px", seen.bary[mask].double(), corners)
    assert (pixels[mask] - CAMERA.project(points)).abs().max() < 1e-3
    # Which the encoding says too: the middle sample of an odd number lies on the surface.
    flow = field.encode()[:, 6:9].movedim(1, -1)[mask] / 10
    here = (CAMERA.rays() * seen.depth[..., None])[mask]
    assert (CAMERA.project(here + flow) - pixels[mask]).norm(dim=-1).quantile(0.999) < 0.01


def hidden(points: Tensor, vertices: Tensor) -> Tensor:
    """Whether a triangle stands between the camera at 0 and each point by more than a millimetre (Moeller, Trumbore)."""
    a, b, c = vertices[HEAD.faces].double().unbind(1)
    out = []
    for p in points:
        h = torch.linalg.cross(p.expand_as(a), c - a)
        det = ((b - a) * h).sum(-1)
        u = (-a * h).sum(-1) / det
        q = torch.linalg.cross(-a, b - a)
        v = (q @ p) / det
        t = ((c - a) * q).sum(-1) / det
        out.append(((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0) & (t < 1 - 0.001 / p.norm())).any())
    return torch.stack(out)


def test_visibility_agrees_with_ray_casting():
    turned = still(HEAD, CAMERA, rotation=torch.tensor([[0.0, 0.8, 0.0]]))
    field = FlowField(still(HEAD, CAMERA), turned, HEAD, CAMERA)
    seen = rasterize(field.target.vertices(HEAD), HEAD.faces, CAMERA)
    source = field.source.vertices(HEAD)[0]
    mask = field.head_mask()
    points = torch.einsum(
        "pc,pcx->px", seen.bary[mask].double(), source.double()[HEAD.faces[seen.triangle[mask].long()]]
    )
    some = torch.randperm(len(points), generator=torch.Generator().manual_seed(1))[:500]
    visible = field.visibility()[mask][some]
    expected = ~hidden(points[some], source)
    assert 0.2 < expected.float().mean() < 0.95
    assert (visible == expected).float().mean() > 0.97  # the rest are at the silhouette, within a pixel


def test_a_point_outside_the_source_image_is_not_visible():
    source = still(HEAD, CAMERA, translation=torch.tensor([[0.25, 0.08, 1.0]]))
    field = FlowField(source, still(HEAD, CAMERA), HEAD, CAMERA)
    pixels, mask, visible = field.pixels(), field.head_mask(), field.visibility()
    assert (pixels[visible][:, 0] < 80).all()
    assert not visible[mask & (pixels[..., 0] >= 80)].any() and (mask & (pixels[..., 0] >= 80)).any()


def test_slices_are_what_the_whole_holds():
    field = a_field()
    whole = field.encode()
    assert len(field) == 3 and len(field[1:]) == 2 and len(field[2]) == 1
    for frames in ([2, 0], slice(1, 3), 1, -1):
        rows = [frames] if isinstance(frames, int) else frames
        assert torch.equal(field.encode(frames), whole[rows])
        assert torch.equal(field[frames].encode(), whole[rows])
        assert torch.equal(field.pixels(frames), field.pixels()[rows])
        assert torch.equal(field.visibility(frames), field.visibility()[rows])
        assert torch.equal(field.head_mask(frames), field.head_mask()[rows])
    assert torch.equal(field[1:][1].encode(), whole[2:])


def test_a_batch_takes_another_head_and_camera_in_each_row():
    source, target = a_field().source, a_field().target
    other = replace(target, shape=torch.tensor([-1.0, 1.0, 0.0]))
    near = Camera(CAMERA.focal * 1.2, 35.0, 50.0, 80, 96)
    sources = torch.cat([source.vertices(HEAD), other.vertices(HEAD, slice(0, 1))])
    targets = torch.cat([target.vertices(HEAD, slice(1, 2)), other.vertices(HEAD, slice(2, 3))])
    both = encode_pairs(topology_of(HEAD), sources, targets, [CAMERA, near], FEW)
    for i, camera in enumerate((CAMERA, near)):
        alone = encode_pairs(topology_of(HEAD), sources[i : i + 1], targets[i : i + 1], camera, FEW)
        assert torch.equal(both[i], alone[0])
    assert torch.equal(both[0], a_field().encode(1)[0])


def test_a_head_beyond_near_and_far_is_reported():
    assert a_field().depth_warning() is None
    field = a_field(sampling=Sampling(near=0.82, far=1.25))
    ranges = field.depth_range()
    z = field.target.vertices(HEAD)[..., 2]
    assert torch.equal(ranges, torch.stack([z.amin(1), z.amax(1)], 1))
    message = field.depth_warning()
    assert message is not None and "in 1 of 3 frames (the first is 2)" in message and "0.82 to 1.25 m" in message
    far = replace(a_field(), target=replace(moving(), translation=moving().translation + torch.tensor([0, 0, 0.5])))
    assert "3 of 3" in str(far.depth_warning())


def test_tracks_of_another_head_are_refused():
    head = replace(HEAD, digest="a")
    track = replace(still(HEAD, CAMERA), head_name="other", head_digest="b")
    with pytest.raises(InputError, match="target track was made with the head model 'other'"):
        FlowField(still(HEAD, CAMERA), track, head, CAMERA)
    with pytest.raises(InputError, match="source track has no frame"):
        FlowField(track[:0], track, head, CAMERA)


@pytest.mark.parametrize(
    "bad", [{"samples": 0}, {"delta": -0.1}, {"delta": math.nan}, {"near": 2.0}, {"far": math.inf}]
)
def test_senseless_sampling_is_refused(bad: dict):
    with pytest.raises(InputError, match="3D flow"):
        Sampling(**bad)


def test_the_picture_tells_directions_apart():
    y, x = torch.meshgrid(torch.arange(8) + 0.5, torch.arange(8) + 0.5, indexing="ij")
    own = torch.stack([x, y], -1)[None]
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    mask[:, 0] = False

    def colour(move: tuple[float, float]) -> list[int]:
        picture = flow_picture(own - torch.tensor(move), mask, full=4.0)
        assert picture.dtype == torch.uint8 and picture.shape == (1, 8, 8, 3)
        assert (picture[:, 0] == picture[0, 0, 0, 0]).all() and (picture[0, 1:] == picture[0, 1, 0]).all()
        return picture[0, 1, 0].tolist()

    assert colour((0, 0)) == [255, 255, 255]
    assert colour((4, 0)) == [255, 0, 0] and colour((9, 0)) == [255, 0, 0] and colour((2, 0)) == [255, 128, 128]
    assert colour((-4, 0)) == [0, 255, 255]
    down, up = colour((0, 4)), colour((0, -4))
    assert down[1] == 255 and down[2] == 0 and up[2] == 255 and up[1] == 0
