"""glTF out. Oracle: pygltflib reads the file, and a twin of the specification in NumPy and SciPy evaluates it."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small_head import random_track, small_head
from test_flame_files import as_flame

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.head.flame import head_from_flame
from comfyui_flow3d.flow3d.head.model import HeadModel
from comfyui_flow3d.flow3d.io.gltf import save_gltf
from comfyui_flow3d.flow3d.io.motions import load_motion
from comfyui_flow3d.flow3d.track import HeadTrack

pygltflib = pytest.importorskip("pygltflib", reason="pygltflib is not installed: use `python run.py test`")

TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Reader:
    """A .glb file evaluated as sections 3.7.2 (morph targets), 3.7.3 (skins) and 3.11 (animations) say."""

    def __init__(self, path: Path):
        self.doc = pygltflib.GLTF2().load(str(path))
        self.blob = self.doc.binary_blob()
        self.primitive = self.doc.meshes[0].primitives[0]

    def array(self, index: int) -> np.ndarray:
        accessor = self.doc.accessors[index]
        view = self.doc.bufferViews[accessor.bufferView]
        start, width = (view.byteOffset or 0) + (accessor.byteOffset or 0), WIDTHS[accessor.type]
        values = np.frombuffer(self.blob, TYPES[accessor.componentType], accessor.count * width, start)
        return values.reshape(accessor.count, width).astype(np.float64)

    def sampled(self, node: int, path: str, seconds: float) -> np.ndarray | None:
        for animation in self.doc.animations:
            for channel in animation.channels:
                if (channel.target.node, channel.target.path) == (node, path):
                    sampler = animation.samplers[channel.sampler]
                    times, values = self.array(sampler.input)[:, 0], self.array(sampler.output)
                    values = values.reshape(len(times), -1)
                    i = int(np.clip(np.searchsorted(times, seconds, "right") - 1, 0, len(times) - 1))
                    j = min(i + 1, len(times) - 1)
                    share = 0.0 if i == j else (seconds - times[i]) / (times[j] - times[i])
                    mixed = values[i] * (1 - share) + values[j] * share
                    return mixed / np.linalg.norm(mixed) if path == "rotation" else mixed
        return None

    def vertices(self, seconds: float) -> np.ndarray:
        """(V, 3) in glTF's world."""
        mesh, primitive = self.doc.meshes[0], self.primitive
        v = self.array(primitive.attributes.POSITION)
        weights = self.sampled(0, "weights", seconds)
        for target, w in zip(primitive.targets or [], mesh.weights if weights is None else weights, strict=True):
            v = v + w * self.array(target["POSITION"] if isinstance(target, dict) else target.POSITION)
        skin, world = self.doc.skins[0], self.worlds(seconds)
        inverse = self.array(skin.inverseBindMatrices).reshape(-1, 4, 4).transpose(0, 2, 1)
        joints = np.stack([world[n] for n in skin.joints]) @ inverse
        four = np.concatenate([v, np.ones((len(v), 1))], 1)
        out, total = np.zeros((len(v), 4)), np.zeros(len(v))
        for i in range(9):
            which = getattr(primitive.attributes, f"JOINTS_{i}", None)
            if which is None:
                break
            shares = self.array(getattr(primitive.attributes, f"WEIGHTS_{i}"))
            for index, share in zip(self.array(which).astype(int).T, shares.T, strict=True):
                out += share[:, None] * np.einsum("vij,vj->vi", joints[index], four)
            total += shares.sum(1)
        np.testing.assert_allclose(total, 1, atol=1e-6)
        return out[:, :3]

    def worlds(self, seconds: float) -> dict[int, np.ndarray]:
        world: dict[int, np.ndarray] = {}

        def visit(node: int, parent: np.ndarray) -> None:
            n, local = self.doc.nodes[node], np.eye(4)
            rotation, place = self.sampled(node, "rotation", seconds), self.sampled(node, "translation", seconds)
            local[:3, :3] = Rotation.from_quat(n.rotation or [0, 0, 0, 1] if rotation is None else rotation).as_matrix()
            local[:3, 3] = (n.translation or [0, 0, 0]) if place is None else place
            world[node] = parent @ local
            for child in n.children or []:
                visit(child, world[node])

        for root in self.doc.scenes[0].nodes:
            visit(root, np.eye(4))
        return world


def ours(head: HeadModel, track: HeadTrack, frame: int) -> np.ndarray:
    head = head.to(dtype=torch.float64)
    fields = {n: x.double() if torch.is_tensor(x) and x.is_floating_point() else x for n, x in vars(track).items()}
    part = HeadTrack(**{n: fields[n] for n in track.__dataclass_fields__})
    return part.vertices(head, slice(frame, frame + 1))[0].numpy() * [1, -1, -1]


def assert_same(path: Path, head: HeadModel, track: HeadTrack, within: float = 1e-5) -> Reader:
    reader = Reader(path)
    for frame in {0, 1, len(track) // 2, len(track) - 1} & set(range(len(track))):
        apart = np.linalg.norm(reader.vertices(frame / track.fps) - ours(head, track, frame), axis=1)
        assert apart.max() < within, frame
    return reader


def test_a_bundled_motion_on_the_open_head(tmp_path: Path, open_head: HeadModel) -> None:
    motion = load_motion("medley")
    save_gltf(motion, tmp_path / "a.glb", open_head)
    reader = assert_same(tmp_path / "a.glb", open_head, load_motion("medley", open_head), 2e-6)
    mesh = reader.doc.meshes[0]
    assert mesh.extras["targetNames"][:52] == list(open_head.expression_names)
    assert [reader.doc.nodes[n].name for n in reader.doc.skins[0].joints] == list(open_head.joint_names)
    weights = reader.array(reader.doc.animations[0].samplers[-1].output)
    assert weights.min() >= 0 and weights.max() <= 1  # Blender's sliders
    faces = sum(reader.doc.accessors[p.indices].count // 3 for p in mesh.primitives)
    assert faces == len(open_head.faces) and len(mesh.primitives) == 6


def test_shape_offsets_and_landmark_offsets(tmp_path: Path, open_head: HeadModel) -> None:
    g = torch.Generator().manual_seed(0)
    track = load_motion("smile", open_head)[:12]
    track = replace(
        track,
        shape=torch.randn(open_head.n_shape, generator=g),
        offsets=1e-3 * torch.randn(len(open_head.template), 3, generator=g),
        frame_offsets=1e-3 * torch.randn(12, len(open_head.template), 3, generator=g),
        landmark_offsets=2e-3 * torch.randn(12, 478, 3, generator=g),
        rotation=track.rotation + torch.tensor([0.3, -0.5, 3.0]),
    )
    save_gltf(track, tmp_path / "a.glb", open_head)
    assert_same(tmp_path / "a.glb", open_head, track)
    still = track[3:4]  # a photo: no animation, the mesh stands as it is
    save_gltf(still, tmp_path / "b.glb", open_head)
    reader = assert_same(tmp_path / "b.glb", open_head, still)
    assert not reader.doc.animations


def test_offsets_of_low_rank_stay_small(tmp_path: Path, open_head: HeadModel) -> None:
    g = torch.Generator().manual_seed(0)
    track = load_motion("medley", open_head)[:100]
    low = (1e-3 * torch.randn(100, 3, generator=g) @ torch.randn(3, 478 * 3, generator=g)).unflatten(1, (478, 3))
    save_gltf(replace(track, landmark_offsets=low), tmp_path / "a.glb", open_head)
    reader = assert_same(tmp_path / "a.glb", open_head, replace(track, landmark_offsets=low))
    assert len(reader.primitive.targets) == 52 + 3


@pytest.fixture(scope="module")
def flame(open_head: HeadModel) -> HeadModel:
    """FLAME's form: nameless expressions, pose correctives, every joint on some vertices."""
    head = head_from_flame(as_flame(open_head), "generic_model")
    g = torch.Generator().manual_seed(2)
    weights = head.skin_weights + 0.05 * torch.rand(head.skin_weights.shape, generator=g)
    pose = 3e-3 * torch.randn(head.pose_basis.shape, generator=g)
    return replace(head, skin_weights=weights / weights.sum(1, keepdim=True), pose_basis=pose)


def test_flame(tmp_path: Path, flame: HeadModel) -> None:
    """Coefficients below 0 and far beyond 1, correctives, five joints on a vertex, a head that turns round."""
    g, frames = torch.Generator().manual_seed(3), 9
    track = HeadTrack(
        shape=torch.randn(300, generator=g),
        expression=2 * torch.randn(frames, flame.n_expression, generator=g),
        joints=0.4 * torch.randn(frames, 4, 3, generator=g),
        rotation=torch.stack([torch.zeros(frames), torch.linspace(-3, 9, frames), torch.zeros(frames)], 1),
        translation=torch.randn(frames, 3, generator=g) + torch.tensor([0, 0, 3.0]),
        camera=load_motion("nod").camera,
        fps=24.0,
        head_name="generic_model",
        head_digest=flame.digest,
    )
    save_gltf(track, tmp_path / "a.glb", flame)
    reader = assert_same(tmp_path / "a.glb", flame, track)
    assert reader.primitive.attributes.JOINTS_1 is not None
    weights = reader.array(reader.doc.animations[0].samplers[-1].output)
    assert weights.min() >= 0 and weights.max() <= 1
    # Between the frames the head turns the shorter way.
    for channel in reader.doc.animations[0].channels:
        if channel.target.path == "rotation":
            q = reader.array(reader.doc.animations[0].samplers[channel.sampler].output)
            assert (np.abs(np.linalg.norm(q, axis=1) - 1) < 1e-6).all() and ((q[1:] * q[:-1]).sum(1) >= 0).all()


def test_the_file_keeps_the_rules(tmp_path: Path, open_head: HeadModel) -> None:
    """What section 3.6.2 and 3.11 demand and readers rely on: alignment, bounds, rising times; and the camera's view."""
    track = load_motion("talk", open_head)
    save_gltf(track, tmp_path / "a.glb", open_head)
    data, reader = (tmp_path / "a.glb").read_bytes(), Reader(tmp_path / "a.glb")
    assert data[:4] == b"glTF" and int.from_bytes(data[8:12], "little") == len(data) and len(data) % 4 == 0
    for view in reader.doc.bufferViews:
        assert view.byteOffset % 4 == 0 and view.byteOffset + view.byteLength <= reader.doc.buffers[0].byteLength
    positions = [reader.primitive.attributes.POSITION, *[t["POSITION"] for t in reader.primitive.targets]]
    for index in positions:
        values, bounds = reader.array(index), reader.doc.accessors[index]
        assert np.array_equal(bounds.min, values.min(0)) and np.array_equal(bounds.max, values.max(0))
    sampler = reader.doc.animations[0].samplers[0]
    times = reader.array(sampler.input)[:, 0]
    assert times[0] == 0 and (np.diff(times) > 0).all() and times[-1] == pytest.approx((len(track) - 1) / track.fps)
    assert reader.doc.accessors[sampler.input].max == [pytest.approx(times[-1])]
    lens = reader.doc.cameras[0].perspective
    seen = reader.vertices(0.0)
    y = seen[:, 1] / -seen[:, 2] / math.tan(lens.yfov / 2)  # -1 at the picture's lower edge, 1 at the upper
    pixels = track.camera.project(track.vertices(open_head, slice(0, 1)))[0]
    np.testing.assert_allclose((1 - y) / 2 * track.camera.height, pixels[:, 1], atol=1e-2)


def test_a_head_of_one_kind_of_surface(tmp_path: Path) -> None:
    head = small_head()
    track = random_track(head, 3, 1)
    save_gltf(track, tmp_path / "a.glb", head)
    reader = assert_same(tmp_path / "a.glb", head, track)
    assert len(reader.doc.meshes[0].primitives) == 1


def test_a_track_of_another_head_is_refused(tmp_path: Path, open_head: HeadModel) -> None:
    track = load_motion("nod", open_head)
    for head in (small_head(), replace(open_head, digest="7" * 64)):
        with pytest.raises(InputError, match="belongs to head model 'open'"):
            save_gltf(track, tmp_path / "a.glb", head)
    assert not list(tmp_path.iterdir())


def test_nan_is_never_written(tmp_path: Path, open_head: HeadModel) -> None:
    track = load_motion("nod", open_head)
    bad = track.rotation.clone()
    bad[3] = math.nan
    with pytest.raises(InputError, match="rotation .*NaN"):
        save_gltf(replace(track, rotation=bad), tmp_path / "a.glb", open_head)
    assert not list(tmp_path.iterdir())
