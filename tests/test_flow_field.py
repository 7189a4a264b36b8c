"""FlowField: what it computes against the reference, analytic moves and ray casting; how it is sliced and checked."""

import math
import pickle
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
from comfyui_flow3d.flow3d.flow.windows import EncodedWindows
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


def bad(name: str, value: float, frame: int = 1) -> HeadTrack:
    values = getattr(moving(), name).clone()
    values[frame if name != "shape" else 1] = value
    return replace(moving(), **{name: values})


BAD_TARGETS = {
    "target track's rotation is not finite in frame 1 of 3": lambda: bad("rotation", math.nan),
    "target track's expression is not finite in frame 2 of 3": lambda: bad("expression", math.inf, 2),
    "target track's joints is not finite in frame 0 of 3": lambda: bad("joints", math.nan, 0),
    "target track's shape is not finite. Fit": lambda: bad("shape", math.nan),
    "in frame 1 of 3 of the target track the head stands behind the camera": lambda: bad("translation", -1.0),
    "5 shape components, the head model 'toy' 3": lambda: replace(moving(), shape=torch.zeros(5)),
    "4 expression components, the head model 'toy' 3": lambda: replace(moving(), expression=torch.zeros(3, 4)),
    "7 vertices in its offsets": lambda: replace(moving(), offsets=torch.zeros(7, 3)),
    "7 vertices in its frame offsets": lambda: replace(moving(), frame_offsets=torch.zeros(3, 7, 3)),
    "3 joints": lambda: replace(moving(), joints=torch.zeros(3, 2, 3), joint_names=("root", "neck", "jaw")),
}


@pytest.mark.parametrize("message", BAD_TARGETS)
def test_tracks_that_make_no_flow_are_refused(message: str):
    track = BAD_TARGETS[message]()
    with pytest.raises(InputError, match=message):
        a_field(target=track)
    with pytest.raises(InputError, match="3D flow: .*source track"):
        a_field(source=track[1:2] if "frame 1" in message else track[-1:] if "frame 2" in message else track)


def test_a_head_without_triangles_and_an_impossible_camera_are_refused():
    with pytest.raises(InputError, match="'toy' has no triangles"):
        a_field(head=replace(HEAD, faces=HEAD.faces[:0], parts=HEAD.parts[:0]))
    for camera, message in ((replace(CAMERA, focal=math.nan), "focal"), (replace(CAMERA, width=0), "0 x 96")):
        with pytest.raises(InputError, match=message):
            a_field(camera=camera)
    with pytest.raises(InputError, match="flow scale is nan"):
        a_field(flow_scale=math.nan)
    with pytest.raises(InputError, match="-4 x 8"):
        a_field().resize(-4, 8)


def test_a_head_out_of_the_picture_still_has_a_flow():
    """Nothing is seen, so every sample lies between near and far, and the flow there is that of the nearest skin."""
    move = torch.tensor([3.0, 0.0, 0.0])
    source = still(HEAD, CAMERA)
    flow = FlowField(source, replace(source, translation=source.translation + move), HEAD, CAMERA, FEW)
    assert not flow.head_mask().any() and not flow.visibility().any()
    assert (flow.encode().reshape(5, 3, 96, 80) + 10 * move[:, None, None]).abs().max() < 1e-3


def test_a_head_at_the_camera_is_no_crash():
    """Part of the head is behind the camera: it is not drawn, and what is sampled stays finite."""
    source = still(HEAD, CAMERA)
    near = replace(source, translation=torch.tensor([[0.0, 0.08, 0.05]]))
    field = FlowField(source, near, HEAD, CAMERA, FEW)
    assert field.encode().isfinite().all() and field.pixels().isfinite().all()
    assert "the head leaves the depths" in str(field.depth_warning())


@pytest.mark.parametrize("samples, delta", [(1, 0.01), (1, 0.0), (2, 0.0), (20, 0.0)])
def test_few_samples_and_no_delta(samples: int, delta: float):
    """Without delta all samples of a head's pixel are its surface point."""
    field = a_field(sampling=Sampling(samples, delta))
    flow = field.encode([1]).reshape(samples, 3, 96, 80)
    mask = field.head_mask([1])[0]
    on = flow[:, :, mask]
    assert flow.isfinite().all() and mask.any()
    if delta == 0:
        assert (on - on[:1]).abs().max() < 1e-5
    if samples == 1:
        middle = a_field().encode([1]).reshape(5, 3, 96, 80)[2]
        assert torch.equal(flow[0], middle) or (flow[0] - middle).abs().max() < 1e-5


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (63, 65), (250, 11), (1, 1)])
def test_any_size_shows_the_same_field(size: tuple[int, int]):
    field = a_field().resize(*size)
    flow = field.encode(2)
    assert flow.shape == (1, 15, size[1], size[0]) and flow.isfinite().all()
    assert field.pixels(2).shape == (1, size[1], size[0], 2)
    assert field.camera.focal / size[0] == pytest.approx(CAMERA.focal / 80)


def test_the_largest_size():
    field = a_field(sampling=Sampling(1)).resize(4096, 4096)
    flow = field.encode(1, torch.float16)
    assert flow.shape == (1, 3, 4096, 4096) and flow.isfinite().all() and flow.abs().max() > 0.1


def test_a_pixel_keeps_its_flow_when_the_picture_is_three_times_as_large():
    """The centre of a pixel is the centre of the middle one of the nine that take its place."""
    camera = Camera.from_field_of_view(40, 40)
    small = FlowField(moving()[:1], moving(), HEAD, camera, FEW)
    coarse, fine = small.encode(2)[0], small.resize(120, 120).encode(2)[0, :, 1::3, 1::3]
    assert (coarse - fine).abs().quantile(0.99) < 1e-4
    assert torch.equal(small.head_mask(2), small.resize(120, 120).head_mask(2)[:, 1::3, 1::3])


@pytest.mark.parametrize("left, top, width, height", [(0, 0, 80, 41), (0, 37, 80, 59), (13, 21, 50, 40)])
def test_a_part_of_the_picture_has_the_flow_of_the_whole(left: int, top: int, width: int, height: int):
    """Also where the part's first cell of pixels is none of the whole's."""
    field = a_field()
    part = replace(field, camera=CAMERA.cropped(left, top, width, height))
    whole = field.encode(2)[:, :, top : top + height, left : left + width]
    assert torch.equal(part.head_mask(2), field.head_mask(2)[:, top : top + height, left : left + width])
    torch.testing.assert_close(part.encode(2), whole, rtol=0, atol=2e-5)
    assert whole.abs().max() > 0.1


def test_a_driver_of_one_frame():
    field = FlowField(moving(), moving()[2:], HEAD, CAMERA, FEW)
    assert len(field) == 1 and torch.equal(field.encode(), a_field().encode(2))


def test_fields_are_equal_where_their_flow_is():
    field = a_field()
    again = FlowField(moving(), moving(), HEAD, CAMERA, FEW)  # another object, and frames of the source that nobody uses
    assert field == again and hash(field) == hash(again) and len({field, again}) == 1
    changes = {
        "sampling": Sampling(samples=5, delta=0.02), "flow_scale": 9.0, "camera": replace(CAMERA, cx=41.0),
        "target": moving()[:2], "source": still(HEAD, CAMERA), "head": toy_head(17),
    }  # fmt: skip
    assert len({field, *(replace(field, **{k: v}) for k, v in changes.items())}) == 7
    nudged = replace(moving(), rotation=moving().rotation + torch.tensor([0, 0, 1e-6]))
    assert replace(field, target=nudged) != field
    assert replace(field, target=replace(moving(), fps=50.0)) == field
    assert field != "field"


def test_a_pickled_field_holds_tracks_and_numbers_alone():
    long = moving(400)
    field = FlowField(long, long, HEAD, CAMERA, FEW)
    before = len(pickle.dumps(field))
    flow = field.encode([7])
    assert len(pickle.dumps(field)) == before
    copy = pickle.loads(pickle.dumps(field))
    assert copy == field and copy.digest == field.digest and torch.equal(copy.encode([7]), flow)
    slim = len(pickle.dumps(field[7])) - len(pickle.dumps(replace(field[7], target=long[:0])))
    assert slim < 4000  # one frame of the clip, not the clip that it was cut from
    assert before < len(pickle.dumps(HEAD)) + 400 * 200 + 10_000


def test_a_field_moves_between_devices_and_stays_itself():
    field = a_field()
    assert field.to("cpu") == field and torch.equal(field.to("cpu").encode(1), field.encode(1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_field_on_cuda_is_the_same_field():
    field = a_field()
    moved = field.to("cuda")
    assert moved == field and moved.encode(1).is_cuda
    assert ((moved.encode(1).cpu() - field.encode(1)).abs() > 1e-4).float().mean() < 1e-3


def test_half_precision_is_the_rounded_flow():
    field = a_field()
    full = field.encode()
    half = field.encode(dtype=torch.float16)
    assert half.dtype == torch.float16 and torch.equal(half, full.half())
    window = torch.zeros(5, 15, 96, 80, dtype=torch.float16)
    assert field.encode([2, 0], out=window[1:3]).data_ptr() == window[1:3].data_ptr()
    assert torch.equal(window[1:3], half[[2, 0]]) and (window[[0, 3, 4]] == 0).all()


def test_windows_are_kept_within_bounds():
    field = a_field()
    one = field.encode([0], torch.float16).nbytes
    windows = EncodedWindows(field, most_bytes=2 * one)
    first = windows.encode([0])
    assert torch.equal(first, field.encode([0], torch.float16)) and windows.encode([0]) is first
    windows.encode([1])
    assert windows.bytes_kept == 2 * one and windows.encode([0]) is first
    windows.encode([2])  # [1] was asked for longest ago
    assert windows.encode([0]) is first and windows.bytes_kept == 2 * one
    assert windows.encode([2, 1, 0]).shape[0] == 3  # larger than all of it: computed, not kept
    assert windows.bytes_kept <= 2 * one and torch.equal(windows.encode([2, 1])[1], field.encode(1, torch.float16)[0])


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
