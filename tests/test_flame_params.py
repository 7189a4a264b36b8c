"""Trackers' files, written here as they write them. Oracles: smplx's skinning, and the trackers' own projections."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from scipy.io import savemat
from scipy.spatial.transform import Rotation
from test_flame_files import Runs, as_flame

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.fit.arkit_map import ARKIT_NAMES, arkit_map
from comfyui_flow3d.flow3d.head.flame import head_from_flame
from comfyui_flow3d.flow3d.head.model import HeadModel
from comfyui_flow3d.flow3d.io.flame_params import DISTANCE, flame_version, load_flame_params

T, F = 3, np.diag([1.0, -1.0, -1.0])
CAM = np.array([[8.5, 0.01, -0.02], [7, 0, 0], [9, -0.03, 0.01]], np.float32)
Values = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def flame(open_head: HeadModel) -> HeadModel:
    """The open head as a FLAME file: 300 identity components, 52 expressions without names; they leave the joints alone."""
    head = head_from_flame(as_flame(open_head), "generic_model")
    held = head.joint_regressor.any(0)
    basis = head.expression_basis.clone()
    basis[:, held] = 0
    pose = 1e-3 * torch.randn(head.pose_basis.shape, generator=torch.Generator().manual_seed(0))
    return replace(
        head, expression_basis=basis, pose_basis=pose, faces=open_head.faces, parts=open_head.parts,
        landmarks_dense=open_head.landmarks_dense, digest="",
    )  # fmt: skip


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def deca(frames: int = T) -> Values:
    return {
        "shape": random(1, 100).repeat(frames, 0), "tex": random(frames, 50), "exp": random(frames, 50, seed=1, scale=0.3),
        "pose": random(frames, 6, seed=2, scale=0.3), "cam": CAM[:frames], "light": random(frames, 9, 3),
    }  # fmt: skip


def smirk() -> Values:
    return {
        "pose_params": random(T, 3, seed=2, scale=0.3), "cam": CAM, "shape_params": random(1, 300).repeat(T, 0),
        "expression_params": random(T, 50, seed=1, scale=0.3), "eyelid_params": np.array([[0, 0], [1, 0], [0, 0.5]], np.float32),
        "jaw_params": random(T, 3, seed=3, scale=0.2),
    }  # fmt: skip


def vhap(head: HeadModel) -> Values:
    """As `save_result` writes a video's."""
    return {
        "rotation": random(T, 3, seed=2, scale=0.3), "translation": random(T, 3, seed=4, scale=0.05), "shape": random(300),
        "neck_pose": random(T, 3, seed=5, scale=0.2), "jaw_pose": random(T, 3, seed=6, scale=0.2),
        "eyes_pose": random(T, 6, seed=7, scale=0.2),
        "expr": np.pad(random(T, 52, seed=1, scale=0.3), ((0, 0), (0, 48))), "timestep_id": np.array(["00000", "00001", "00002"]),
        "n_processed_frames": np.array(3), "focal_length": np.array([1.7], np.float32), "lights": random(9, 3),
        "static_offset": random(1, len(head.template) + 120, 3, scale=1e-3), "image_size": np.array([802, 550]),
    }  # fmt: skip


def skinned(
    head: HeadModel, shape: np.ndarray, expression: np.ndarray, pose: np.ndarray, offset: float | np.ndarray = 0.0
) -> np.ndarray:
    """(T, V, 3) as the trackers skin: smplx's `lbs` with the turns (T, 15) of root, neck, jaw and eyes."""
    lbs = pytest.importorskip("smplx.lbs").lbs
    h = head.to(dtype=torch.float64)
    basis = torch.cat([h.shape_basis[: shape.shape[-1]], h.expression_basis[: expression.shape[-1]]]).permute(1, 2, 0)
    betas = torch.from_numpy(np.concatenate([np.broadcast_to(shape, (T, shape.shape[-1])), expression], 1)).double()
    posed, _ = lbs(
        betas, torch.from_numpy(pose).double(), h.template[None] + torch.as_tensor(offset).double(), basis,
        h.pose_basis.flatten(1), h.joint_regressor, torch.tensor(h.parents), h.skin_weights,
    )  # fmt: skip
    return posed.numpy()


def full_pose(
    turn: np.ndarray, jaw: np.ndarray, neck: np.ndarray | None = None, eyes: np.ndarray | None = None
) -> np.ndarray:
    none = np.zeros((T, 6))
    return np.concatenate([turn, none[:, :3] if neck is None else neck, jaw, none if eyes is None else eyes], 1)


def seen_by_deca(vertices: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """`batch_orth_proj`, y turned down, to pixels of the 224 square."""
    x = cam[:, None, :1] * (vertices[..., :2] + cam[:, None, 1:])
    return (x * [1, -1] + 1) * 112


# --- what the numbers mean -------------------------------------------------------------------------------------------


def test_deca(tmp_path: Path, flame: HeadModel) -> None:
    values = deca()
    np.savez(tmp_path / "deca.npz", **values)
    track = load_flame_params(tmp_path / "deca.npz", flame, fps=30, field_of_view=0.1)
    truth = skinned(flame, values["shape"], values["exp"], full_pose(values["pose"][:, :3], values["pose"][:, 3:]))
    # The head itself, but for where it stands.
    got = load_flame_params(tmp_path / "deca.npz", flame).vertices(flame).double().numpy()
    np.testing.assert_allclose(got - got.mean(1, keepdims=True), (truth - truth.mean(1, keepdims=True)) @ F, atol=5e-6)
    # In the picture: with a very small field of view the pinhole is DECA's weak perspective.
    got = track.vertices(flame)
    assert (track.camera.width, track.camera.height, track.fps) == (224, 224, 30)
    np.testing.assert_allclose(track.camera.project(got), seen_by_deca(truth, values["cam"]), atol=0.25)


def test_perspective_agrees_at_the_middle_of_the_head(tmp_path: Path, flame: HeadModel) -> None:
    values = deca()
    np.savez(tmp_path / "deca.npz", **values)
    track = load_flame_params(tmp_path / "deca.npz", flame)
    assert track.camera.focal == pytest.approx(Camera.from_field_of_view(224, 224, 25).focal)
    truth = skinned(flame, values["shape"], values["exp"], full_pose(values["pose"][:, :3], values["pose"][:, 3:]))
    apart = np.linalg.norm(track.camera.project(track.vertices(flame)).numpy() - seen_by_deca(truth, values["cam"]), axis=-1)
    assert np.median(apart) < 12 and apart.max() < 60  # of 224 pixels; perspective moves what is near or far


def test_smirk_closes_eyes_by_name(tmp_path: Path, flame: HeadModel) -> None:
    values = smirk()
    np.savez(tmp_path / "a.npz", **values)
    track = load_flame_params(tmp_path / "a.npz", flame, field_of_view=0.1)
    pose = full_pose(values["pose_params"], values["jaw_params"])
    truth = skinned(flame, values["shape_params"], values["expression_params"], pose)
    got = track.vertices(flame).double().numpy()
    np.testing.assert_allclose(track.camera.project(torch.from_numpy(got[:1])), seen_by_deca(truth, values["cam"])[:1], atol=0.25)
    names = arkit_map(flame).expression
    added = track.expression[:, :52] - torch.from_numpy(np.pad(values["expression_params"], ((0, 0), (0, 2))))
    lids = torch.from_numpy(values["eyelid_params"])
    assert torch.allclose(added, lids @ names[[ARKIT_NAMES.index("eyeBlinkLeft"), ARKIT_NAMES.index("eyeBlinkRight")]], atol=1e-5)
    assert added[1].abs().max() > 0.5


def vhap_truth(head: HeadModel, v: Values) -> np.ndarray:
    offset = v["static_offset"][0, : len(head.template)] if "static_offset" in v else 0.0
    pose = full_pose(v["rotation"], v["jaw_pose"], v["neck_pose"], v["eyes_pose"])
    return skinned(head, v["shape"], v["expr"][:, :52], pose, offset) + v["translation"][:, None]


def test_vhap_video(tmp_path: Path, flame: HeadModel) -> None:
    """A camera at (0, 0, 1) that looks along -z, y up; focal length in parts of the longer side."""
    head = replace(flame, name="flame2023")
    values = vhap(head)
    values["static_offset"][:, : len(head.template)][:, head.joint_regressor[1:].any(0).numpy()] = 0  # see the docstring
    np.savez(tmp_path / "tracked_flame_params_30.npz", **values)
    track = load_flame_params(tmp_path / "tracked_flame_params_30.npz", head)
    assert (track.camera.width, track.camera.height, track.camera.focal) == (550, 802, pytest.approx(1.7 * 802))
    truth = (vhap_truth(head, values) - [0, 0, 1]) @ F
    np.testing.assert_allclose(track.vertices(head).numpy(), truth, atol=5e-6)
    assert track.offsets is not None and track.offsets.shape == (len(head.template), 3)


def test_vhap_offsets_move_the_joints_a_little(tmp_path: Path, flame: HeadModel) -> None:
    """What is not exact: VHAP's joints move with the offsets (1 mm here), ours do not. The head as a whole stays in place."""
    values = vhap(flame)
    np.savez(tmp_path / "tracked.npz", **values)
    got = load_flame_params(tmp_path / "tracked.npz", flame).vertices(flame).numpy()
    assert np.linalg.norm(got - (vhap_truth(flame, values) - [0, 0, 1]) @ F, axis=-1).max() < 5e-4


def test_vhap_data_set(tmp_path: Path, flame: HeadModel) -> None:
    """transforms.json with one npz a frame and a camera anywhere; frames out of order, and a second camera's among them."""
    left_out = ("static_offset", "focal_length", "image_size", "timestep_id")
    values = {k: v for k, v in vhap(flame).items() if k not in left_out}
    (tmp_path / "flame_param").mkdir()
    frames, turns, places = [], Rotation.random(T, np.random.default_rng(0)).as_matrix(), random(T, 3, seed=9)
    for t in (2, 0, 1):
        one = {k: values[k] if k == "shape" else values[k][[t]] for k in values if values[k].shape[:1] in ((T,), (300,))}
        np.savez(tmp_path / "flame_param" / f"{t:05d}.npz", **one)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turns[t], places[t]
        camera = {"fl_x": 900.0, "cx": 250.0, "cy": 260.0, "w": 500, "h": 520, "transform_matrix": pose.tolist()}
        for index in (3, 4):
            place = {"camera_index": index, "timestep_index": t, "flame_param_path": f"flame_param/{t:05d}.npz"}
            frames.append(camera | place)
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": frames}), encoding="utf-8")
    track = load_flame_params(tmp_path / "transforms.json", flame)
    truth = (vhap_truth(flame, values) - places[:, None]) @ turns @ F
    np.testing.assert_allclose(track.vertices(flame).numpy(), truth, atol=5e-6)
    assert track.camera == Camera(900.0, 250.0, 260.0, 500, 520)
    folder = load_flame_params(tmp_path / "flame_param", flame)  # without the cameras
    assert len(folder) == T and torch.allclose(folder.expression, track.expression)


def test_emoca_folders(tmp_path: Path, flame: HeadModel) -> None:
    values = deca()
    for t, name in enumerate(("000000_000", "000001_000", "000010_000")):
        (tmp_path / "clip" / name).mkdir(parents=True)
        for key in ("shape", "exp", "tex", "pose"):
            np.save(tmp_path / "clip" / name / f"{key}.npy", values[key][t])
    track = load_flame_params(tmp_path / "clip", flame)
    np.testing.assert_allclose(track.expression[:, :50], values["exp"])
    np.testing.assert_allclose(track.rotation, values["pose"][:, :3] @ F.astype(np.float32))
    np.testing.assert_allclose(track.jaw, values["pose"][:, 3:])
    assert abs(float(track.vertices(flame)[0].mean(0)[2]) - DISTANCE) < 0.05
    still = load_flame_params(tmp_path / "clip" / "000001_000" / "exp.npy", flame)
    assert len(still) == 1 and torch.equal(still.expression, track.expression[1:2])


@pytest.mark.parametrize("suffix", [".npz", ".pkl", ".safetensors", ".mat", ".json"])
def test_every_container_says_the_same(tmp_path: Path, flame: HeadModel, suffix: str) -> None:
    values = deca()
    path = tmp_path / f"a{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, **values)
    elif suffix == ".pkl":
        path.write_bytes(pickle.dumps({"name": "a", "more": {"x": 1}} | values, 4))
    elif suffix == ".safetensors":
        save_file(values, path)
    elif suffix == ".mat":
        savemat(path, values | {"note": "text"})
    else:
        path.write_text(json.dumps({k: v.tolist() for k, v in values.items()}), encoding="utf-8")
    track = load_flame_params(path, flame)
    np.savez(tmp_path / "plain.npz", **values)
    same = load_flame_params(tmp_path / "plain.npz", flame)
    for name in ("shape", "expression", "joints", "rotation", "translation"):
        assert torch.allclose(getattr(track, name), getattr(same, name), atol=1e-6), name


def test_one_frame_and_the_names_of_emoca(tmp_path: Path, flame: HeadModel) -> None:
    values = deca(1)
    named = {"shapecode": values["shape"], "expcode": values["exp"], "posecode": values["pose"], "cam": values["cam"]}
    np.savez(tmp_path / "a.npz", **{k: v[0] for k, v in named.items()})
    np.savez(tmp_path / "b.npz", **values)
    a, b = (load_flame_params(tmp_path / f"{n}.npz", flame) for n in "ab")
    assert len(a) == 1 and torch.equal(a.translation, b.translation) and torch.equal(a.expression, b.expression)


# --- versions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "version"), [
    ("generic_model", "2020"), ("FLAME2020", "2020"), ("flame2023", "2023"), ("flame2023_Open", "2023 Open"),
    ("FLAME 2023-open", "2023 Open"), ("mine", ""),
])  # fmt: skip
def test_versions_by_name(flame: HeadModel, name: str, version: str) -> None:
    assert flame_version(replace(flame, name=name)) == version


@pytest.mark.parametrize(("name", "says"), [
    ("flame2023", "SMIRK's parameters belong to FLAME 2020, but .* FLAME 2023, to which"),
    ("flame2023_Open", "belong to FLAME 2020, but .* FLAME 2023 Open"), ("mine", ""), ("FLAME2020", ""),
])  # fmt: skip
def test_coefficients_of_another_version_are_refused(tmp_path: Path, flame: HeadModel, name: str, says: str) -> None:
    np.savez(tmp_path / "a.npz", **smirk())
    head = replace(flame, name=name)
    if says:
        with pytest.raises(InputError, match=rf"^a\.npz: .*{says}"):
            load_flame_params(tmp_path / "a.npz", head)
    else:
        assert len(load_flame_params(tmp_path / "a.npz", head)) == T


def test_a_head_that_is_no_flame(tmp_path: Path, flame: HeadModel, open_head: HeadModel) -> None:
    np.savez(tmp_path / "a.npz", **vhap(flame))
    with pytest.raises(InputError, match=r"a\.npz: VHAP's parameters belong to FLAME 2023 or 2020, but .*'open'.* no FLAME"):
        load_flame_params(tmp_path / "a.npz", open_head)
    np.savez(tmp_path / "b.npz", **vhap(flame))
    with pytest.raises(InputError, match="2023 Open"):
        load_flame_params(tmp_path / "b.npz", replace(flame, name="flame2023_Open"))


# --- broken and hostile files ----------------------------------------------------------------------------------------


def nan(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flat[-1] = np.nan
    return x


@pytest.mark.parametrize(("change", "says"), [
    ({"exp": nan(deca()["exp"])}, "exp .*NaN"),
    ({"pose": np.full((T, 6), np.inf)}, "pose .*infinity"),
    ({"pose": random(T, 7)}, r"pose has shape \(3, 7\), expected \(frames, 6\)"),
    ({"pose": random(T + 1, 6)}, "pose has 4 frames, exp has 3"),
    ({"cam": -deca()["cam"]}, "cam has the scale .* in frame 0"),
    ({"cam": random(T, 2, 3)}, r"cam has shape \(3, 2, 3\)"),
    ({"exp": random(T, 60)}, "exp has 60 components, .* has 52"),
    ({"exp": np.zeros((0, 50))}, "exp holds no numbers"),
    ({"shape": None}, "lacks shape"),
    ({"exp": None}, "no FLAME parameters"),
    ({"exp": None, "verts": random(1, 8, 3)}, "vertices that DECA made"),
    ({"shape": np.array(3.0)}, "shape has shape"),
])  # fmt: skip
@pytest.mark.parametrize("suffix", [".npz", ".mat"])
def test_wrong_values(tmp_path: Path, flame: HeadModel, change: dict, says: str, suffix: str) -> None:
    values = {k: v for k, v in (deca() | change).items() if v is not None}
    if suffix == ".mat" and says.startswith("shape has"):
        pytest.skip("MATLAB knows no scalars")
    (np.savez if suffix == ".npz" else lambda p, **v: savemat(p, v))(tmp_path / f"a{suffix}", **values)
    with pytest.raises(InputError, match=rf"(?s)^a\{suffix}: .*{says}"):
        load_flame_params(tmp_path / f"a{suffix}", flame)


@pytest.mark.parametrize("change", [
    {"static_offset": random(1, 7, 3)}, {"image_size": np.array([0, 5])}, {"focal_length": np.array([-1.0])},
    {"focal_length": np.array([np.nan])}, {"dynamic_offset": random(2, 5036, 3)}, {"eyes_pose": random(T, 3)},
])  # fmt: skip
def test_wrong_values_of_vhap(tmp_path: Path, flame: HeadModel, change: dict) -> None:
    np.savez(tmp_path / "a.npz", **(vhap(flame) | change))
    with pytest.raises(InputError, match=r"^a\.npz: "):
        load_flame_params(tmp_path / "a.npz", flame)


@pytest.mark.parametrize("suffix", [".npz", ".pkl", ".safetensors", ".mat", ".json", ".npy"])
def test_truncated_and_foreign_files(tmp_path: Path, flame: HeadModel, suffix: str) -> None:
    values, path = deca(), tmp_path / f"exp{suffix}"
    if suffix == ".npy":
        np.save(path, values["exp"])
    elif suffix == ".json":
        path.write_text(json.dumps({k: v.tolist() for k, v in values.items()}), encoding="utf-8")
    elif suffix == ".mat":
        savemat(path, values)
    elif suffix == ".safetensors":
        save_file(values, path)
    else:
        path.write_bytes(pickle.dumps(values, 4)) if suffix == ".pkl" else np.savez(path, **values)
    whole = path.read_bytes()
    others = (b"\0" * 500, bytes(range(256)) * 8, b"\xff\xfe" + "text".encode("utf-16-le"))
    for data in (b"", whole[: len(whole) // 2], whole[:40], *others):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"exp"):
            load_flame_params(path, flame)
    rng = np.random.default_rng(0)
    for _ in range(60):  # damaged anywhere: a sentence or numbers, never another exception
        data = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 1500), 4):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            load_flame_params(path, flame)
        except InputError:
            pass


def test_code_in_files_does_not_run(tmp_path: Path, flame: HeadModel) -> None:
    sentinel = tmp_path / "ran"
    bomb = Runs(eval, f"open({str(sentinel)!r}, 'w').close()")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(deca() | {"exp": bomb}, 4))
    with pytest.raises(InputError, match=r"^a\.pkl: .*eval"):
        load_flame_params(tmp_path / "a.pkl", flame)
    np.savez(tmp_path / "b.npz", **(deca() | {"exp": np.array([bomb], dtype=object)}))
    with pytest.raises(InputError, match=r"^b\.npz: exp is an array of object"):
        load_flame_params(tmp_path / "b.npz", flame)
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"exp": torch.zeros(3, 50), "pose": torch.zeros(3, 6)}, 4))
    with pytest.raises(InputError, match=r"^c\.pkl: .*torch.*numpy\.savez"):
        load_flame_params(tmp_path / "c.pkl", flame)
    assert not sentinel.exists()


def test_sizes_that_lie(tmp_path: Path, flame: HeadModel) -> None:
    import io
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 3)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as bundle:
        bundle.writestr("exp.npy", header.getvalue() + b"\0" * 24)
    with pytest.raises(InputError, match=r"a\.npz: exp is declared as"):
        load_flame_params(tmp_path / "a.npz", flame)
    (tmp_path / "b.json").write_text("[" * 200_000, encoding="utf-8")
    (tmp_path / "c.json").write_text('{"exp": [[1, 2], [3]], "pose": [1]}', encoding="utf-8")
    (tmp_path / "d.json").write_text('{"exp": [[NaN]], "pose": [1,2,3,4,5,6], "shape": [1]}', encoding="utf-8")
    (tmp_path / "e.json").write_text('{"frames": [{"flame_param_path": "../../../../etc/passwd"}]}', encoding="utf-8")
    (tmp_path / "f.json").write_text('{"frames": [1, 2]}', encoding="utf-8")
    said = {"b": "JSON|nested", "c": "exp is no even list", "d": "exp .*NaN", "e": "outside", "f": "flame_param_path"}
    for name, says in said.items():
        with pytest.raises(InputError, match=rf"(?s)^{name}\.json: .*{says}"):
            load_flame_params(tmp_path / f"{name}.json", flame)


def test_files_that_are_none(tmp_path: Path, flame: HeadModel) -> None:
    (tmp_path / "empty").mkdir()
    for name, says in (("empty", "no .npz files"), ("a.npz", "no such file"), ("a.obj", "cannot read '.obj'")):
        with pytest.raises(InputError, match=says):
            load_flame_params(tmp_path / name, flame)
    np.savez(tmp_path / "a.npz", **deca())
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="frame rate"):
            load_flame_params(tmp_path / "a.npz", flame, fps=fps)
