"""The open head as it is shipped: symmetry, topology, skeleton, and what its blink, jaw and lips do, seen by rendering."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.fit.mediapipe_points import BLENDSHAPES, CHIN
from comfyui_flow3d.flow3d.head.files import OPEN_HEAD, load_saved_head
from comfyui_flow3d.flow3d.head.model import EYEBALLS, FLAME_JOINTS, FLAME_PARENTS, INNER_MOUTH, HeadModel, to_camera
from comfyui_flow3d.flow3d.render.rasterize import rasterize

FLIP = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_saved_head(OPEN_HEAD)


@pytest.fixture(scope="module")
def mirror(head: HeadModel) -> np.ndarray:
    """(V,) the vertex at each vertex's mirror place, by comparing every pair."""
    v = head.template.numpy().astype(np.float64)
    found = np.array([np.abs(v - p * FLIP).max(1).argmin() for p in v])
    assert np.abs(v[found] - v * FLIP).max() <= 1e-6
    return found


def boundary_edges(faces: np.ndarray) -> list[tuple[int, int]]:
    directed = Counter((int(a), int(b)) for f in faces for a, b in zip(f, np.roll(f, -1), strict=True))
    assert max(directed.values()) == 1, "two triangles run along an edge in the same direction"
    return [e for e in directed if e[::-1] not in directed]


def posed(head: HeadModel, shape: torch.Tensor | None = None, **expression: float) -> torch.Tensor:
    e = torch.zeros(1, head.n_expression)
    for name, value in expression.items():
        e[0, head.expression_index(name)] = value
    return head.vertices(torch.zeros(1, 0) if shape is None else shape[None], e)[0]


def visible(head: HeadModel, vertices: torch.Tensor, part: int, about: str, yaw: float = 0, pitch: float = 0) -> int:
    """How many of 400 x 400 pixels show triangles of a part, seen close up; one pixel is 0.24 mm wide."""
    turn = torch.tensor(Rotation.from_euler("xy", [pitch, yaw], degrees=True).as_rotvec()).float()[None]
    centre = head.template[head.masks[about]].mean(0)[None]
    placed = to_camera(vertices, centre, turn, torch.tensor([[0.0, 0.0, 0.85]]))
    triangle = rasterize(placed, head.faces, Camera(3500.0, 200, 200, 400, 400)).triangle
    return int(((triangle >= 0) & (head.face_parts[triangle.clamp(min=0).long()] == part)).sum())


def test_size_names_and_shapes(head: HeadModel) -> None:
    assert OPEN_HEAD.stat().st_size <= 6_000_000
    assert 4500 <= len(head.template) <= 6000
    assert head.n_shape >= 100 and head.n_expression == 52
    assert set(head.expression_names) == {*BLENDSHAPES, "tongueOut"}
    assert head.joint_names == FLAME_JOINTS and head.parents == FLAME_PARENTS
    assert head.licence == "CC0-1.0"
    for x in (head.template, head.shape_basis, head.expression_basis, head.joint_regressor, head.skin_weights):
        assert torch.isfinite(x).all()


def test_masks(head: HeadModel) -> None:
    wanted = {"face", "lips", "eyeballs", "ears", "scalp", "neck", "inner_mouth", "left_eyeball", "right_eyeball"}
    assert wanted | {"upper_teeth", "lower_teeth", "tongue", "eyelids"} <= set(head.masks)
    m = {name: mask.numpy() for name, mask in head.masks.items()}
    assert all(mask.any() for mask in m.values())
    regions = ("face", "ears", "scalp", "neck", "inner_mouth", "eyeballs")
    assert (sum(m[name].astype(int) for name in regions) == 1).all()  # they divide the head
    assert (m["left_eyeball"] | m["right_eyeball"] == m["eyeballs"]).all()
    assert m["lips"][~m["face"]].sum() == 0 and m["tongue"][~m["inner_mouth"]].sum() == 0
    assert (head.template[head.masks["left_eyeball"], 0] > 0).all()  # the subject's left is at +x


def test_the_template_and_all_bases_are_symmetric(head: HeadModel, mirror: np.ndarray) -> None:
    assert (mirror[mirror] == np.arange(len(mirror))).all()
    own = {tuple(sorted(f)) for f in head.faces.tolist()}
    assert all(tuple(sorted(f)) in own for f in mirror[head.faces.numpy()].tolist())
    for mask in ("face", "lips", "ears", "neck", "scalp", "inner_mouth"):
        assert (head.masks[mask].numpy()[mirror] == head.masks[mask].numpy()).all()
    basis = head.shape_basis.numpy()
    image = basis[:, mirror] * FLIP
    even, odd = np.abs(image - basis).max((1, 2)), np.abs(image + basis).max((1, 2))
    assert (np.minimum(even, odd) <= 1e-6).all()
    assert (even <= 1e-6).sum() >= 80 and (odd <= 1e-6).sum() >= 5


def test_expressions_mirror_each_other(head: HeadModel, mirror: np.ndarray) -> None:
    swap = {"Left": "Right", "Right": "Left"}
    for i, name in enumerate(head.expression_names):
        other = next((name.removesuffix(a) + b for a, b in swap.items() if name.endswith(a)), name)
        j = head.expression_index(other)
        image = head.expression_basis[j].numpy()[mirror] * FLIP
        assert np.abs(image - head.expression_basis[i].numpy()).max() <= 1e-6, name
        assert head.expression_basis[i].abs().max() > 0.0005, f"{name} moves nothing"


def test_the_only_boundary_is_one_flat_loop_round_the_neck(head: HeadModel) -> None:
    onward = dict(boundary_edges(head.faces.numpy()))
    loop = [min(onward)]
    while onward[loop[-1]] != loop[0]:
        loop.append(onward[loop[-1]])
    assert len(loop) == len(onward) >= 30
    assert head.masks["neck"][loop].all()
    x = head.template[loop].double().numpy()
    off_plane = np.abs((x - x.mean(0)) @ np.linalg.svd(x - x.mean(0))[2][2])
    assert off_plane.max() < 0.010
    turn = np.roll(x, -1, 0) - x
    turn /= np.linalg.norm(turn, axis=1, keepdims=True)
    assert (turn * np.roll(turn, 1, 0)).sum(1).min() > np.cos(np.radians(35))  # no jags


@pytest.mark.parametrize("side", ["left", "right"])
def test_eyeballs_are_closed_spheres_about_their_joints(head: HeadModel, side: str) -> None:
    ball = head.masks[f"{side}_eyeball"]
    faces = head.faces[ball[head.faces].all(1)].numpy()
    assert boundary_edges(faces) == []
    assert len(np.unique(faces)) - len(faces) * 3 // 2 + len(faces) == 2  # Euler's number of a sphere
    x = head.template.double().numpy()
    volume = np.einsum("fi,fi->", x[faces[:, 0]], np.cross(x[faces[:, 1]], x[faces[:, 2]])) / 6
    assert volume > 0  # wound outwards
    centre = (head.joint_regressor @ head.template)[head.joint_names.index(f"{side}_eye")].double().numpy()
    radius = np.linalg.norm(x[ball.numpy()] - centre, axis=1)
    assert 0.011 < radius.mean() < 0.017 and np.ptp(radius) < 2e-4
    assert (head.skin_weights[ball, head.joint_names.index(f"{side}_eye")] == 1).all()
    assert (head.face_parts[ball[head.faces].all(1)] == EYEBALLS).all()


def test_eyeballs_stay_spheres_in_every_identity(head: HeadModel) -> None:
    for side in ("left", "right"):
        ball = head.masks[f"{side}_eyeball"]
        for sigma in (-2.0, 2.0):
            x = (head.template + sigma * head.shape_basis)[:, ball].double()
            radius = (x - x.mean(1, keepdim=True)).norm(dim=-1)
            assert ((radius.amax(1) - radius.amin(1)) / radius.mean(1)).max() < 0.02


def test_teeth_and_tongue_are_closed(head: HeadModel) -> None:
    for name in ("upper_teeth", "lower_teeth", "tongue"):
        faces = head.faces[head.masks[name][head.faces].all(1)]
        assert boundary_edges(faces.numpy()) == [], name
        assert (head.face_parts[head.masks[name][head.faces].all(1)] == INNER_MOUTH).all()


def test_the_head_has_six_pieces(head: HeadModel) -> None:
    f = head.faces.numpy()
    graph = coo_matrix((np.ones(len(f) * 2), (f[:, :2].ravel(), f[:, 1:].ravel())), shape=(len(head.template),) * 2)
    assert connected_components(graph, directed=False)[0] == 6  # skin, two eyeballs, two rows of teeth, tongue


def test_human_measures(head: HeadModel) -> None:
    joints = head.joint_regressor @ head.template
    assert abs(float(joints[3, 0] - joints[4, 0]) - 0.063) < 1e-5
    chin = head.landmarks_dense.on(head.template, head.faces)[CHIN, 1]
    assert 0.20 < float(head.template[:, 1].max() - chin) < 0.25
    ears = head.template[head.masks["scalp"]]
    assert 0.13 < float(ears[:, 0].max() - ears[:, 0].min()) < 0.175


def test_joints_stand_where_they_belong(head: HeadModel) -> None:
    root, neck, jaw, left, right = (head.joint_regressor @ head.template).numpy()
    np.testing.assert_allclose(head.joint_regressor.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose([root[0], neck[0], jaw[0], left[0] + right[0]], 0, atol=1e-6)
    assert root[1] < neck[1] < jaw[1] < left[1] and root[1] < head.template[head.masks["neck"], 1].mean()
    ear = head.template[head.masks["ears"]].numpy()
    assert abs(jaw[2] - ear[:, 2].max()) < 0.02  # the jaw's joint lies just in front of the ears, below the eyes
    assert 0.02 < left[1] - jaw[1] < 0.06


def test_skin_weights(head: HeadModel) -> None:
    w = head.skin_weights
    np.testing.assert_allclose(w.sum(1), 1, atol=1e-5)
    assert w.min() >= 0
    foot = [a for a, _ in boundary_edges(head.faces.numpy())]
    assert (w[foot, 0] == 1).all() and (w[~head.masks["neck"], 0] < 0.05).all()
    assert (w[head.masks["lower_teeth"], 2] == 1).all() and (w[head.masks["upper_teeth"], 1] == 1).all()
    assert (w[head.masks["scalp"], 1] > 0.98).float().mean() > 0.9


def test_the_jaw_joint_opens_the_mouth_like_the_expression(head: HeadModel) -> None:
    angles = torch.linspace(0.25, 0.45, 41)
    joints = torch.zeros(len(angles), 4, 3)
    joints[:, 1, 0] = angles
    turned = head.vertices(torch.zeros(len(angles), 0), torch.zeros(len(angles), 52), joints)[0]
    by_expression = posed(head, jawOpen=1.0)[0]
    for part, share in (("lower_teeth", 0.06), ("lips", 0.25)):
        mask = head.masks[part]
        moved = (by_expression - head.template)[mask].norm(dim=1).mean()
        assert (turned - by_expression)[:, mask].norm(dim=-1).mean(1).min() < share * moved


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (30, 0), (-30, 0), (0, 20), (0, -20)])
def test_a_blink_closes_the_eyes(head: HeadModel, yaw: float, pitch: float) -> None:
    opened = visible(head, posed(head), EYEBALLS, "eyeballs", yaw, pitch)
    closed = visible(head, posed(head, eyeBlinkLeft=1.0, eyeBlinkRight=1.0), EYEBALLS, "eyeballs", yaw, pitch)
    half = visible(head, posed(head, eyeBlinkLeft=0.5, eyeBlinkRight=0.5), EYEBALLS, "eyeballs", yaw, pitch)
    assert opened > 1500 and closed <= 0.002 * opened
    assert 0.15 * opened < half < 0.65 * opened


def test_a_blink_closes_other_peoples_eyes(head: HeadModel) -> None:
    random = torch.Generator().manual_seed(5)
    for _ in range(8):
        person = 0.8 * torch.randn(head.n_shape, generator=random)
        opened = visible(head, posed(head, person), EYEBALLS, "eyeballs")
        closed = visible(head, posed(head, person, eyeBlinkLeft=1.0, eyeBlinkRight=1.0), EYEBALLS, "eyeballs")
        assert closed < 0.1 * opened


def test_lips_are_closed_at_rest_and_when_mouth_close_counters_the_jaw(head: HeadModel) -> None:
    for yaw, pitch in ((0, 0), (40, 0), (0, 20), (0, -20)):
        assert visible(head, posed(head), INNER_MOUTH, "lips", yaw, pitch) <= 40
    opened = visible(head, posed(head, jawOpen=1.0), INNER_MOUTH, "lips")
    closed = visible(head, posed(head, jawOpen=1.0, mouthClose=1.0), INNER_MOUTH, "lips")
    assert opened > 10_000 and closed < 0.02 * opened


def test_an_open_mouth_is_no_hole(head: HeadModel) -> None:
    """Inside the open mouth every ray hits the cavity, teeth or tongue, and all of it lies in front of the neck's back."""
    v = posed(head, jawOpen=1.0)
    placed = to_camera(v, head.template[head.masks["lips"]].mean(0)[None], torch.zeros(1, 3), torch.tensor([[0, 0, 0.85]]))
    seen = rasterize(placed, head.faces, Camera(3500.0, 200, 200, 400, 400))
    inner = (seen.triangle >= 0) & (head.face_parts[seen.triangle.clamp(min=0).long()] == INNER_MOUTH)
    assert float(seen.depth[inner].max() - seen.depth[inner].min()) < 0.12
    rows = inner[0].any(1).nonzero()[:, 0]
    assert (rows[-1] - rows[0]) * 0.85 / 3500 > 0.025  # metres that the mouth opens
    teeth = head.masks["lower_teeth"]
    drop = (v[0] - head.template)[teeth]
    assert drop[:, 1].max() < 0 and (v[0] - head.template)[head.masks["upper_teeth"]].abs().max() == 0


def test_identities_do_not_turn_the_head(head: HeadModel) -> None:
    """Kabsch's rotation from the template's skull to that of each component at two sigma, vertices weighed by area."""
    solid = (head.masks["face"] | head.masks["scalp"]).numpy()
    x, f = head.template.double().numpy(), head.faces.numpy()
    area = np.linalg.norm(np.cross(x[f[:, 1]] - x[f[:, 0]], x[f[:, 2]] - x[f[:, 0]]), axis=1)
    weight = np.bincount(f.ravel(), np.repeat(area, 3), len(x))[solid]
    for component in head.shape_basis.double().numpy():
        for sigma in (-2.0, 2.0):
            a, b = x[solid], (x + sigma * component)[solid]
            a, b = a - np.average(a, 0, weight), b - np.average(b, 0, weight)
            turn, _ = Rotation.align_vectors(b, a, weights=weight)
            assert np.degrees(turn.magnitude()) < 0.5


def test_components_are_one_sigma_of_human_variety(head: HeadModel) -> None:
    face = head.masks["face"]
    move = head.shape_basis[:, face].norm(dim=-1)
    assert (move.amax(1) > 2e-5).all()
    total = move.square().sum(0).sqrt()  # a face point's standard deviation over people
    assert 0.003 < float(total.mean()) < 0.012 and float(total.max()) < 0.03
    spread = move.square().mean(1)
    assert spread[:10].sum() > 0.6 * spread.sum()  # sorted: the first tell most
    flat = head.shape_basis.flatten(1).double()
    gram = torch.nn.functional.normalize(flat, dim=1) @ torch.nn.functional.normalize(flat, dim=1).T
    assert float(torch.linalg.eigvalsh(gram).min()) > 1e-3  # no component is a mixture of others
    eyes = torch.einsum("jv,svx->sjx", head.joint_regressor[3:], head.shape_basis)
    assert 0.0015 < float((eyes[:, 0, 0] - eyes[:, 1, 0]).square().sum().sqrt()) < 0.007  # pupils' distance, metres


def test_the_head_faces_the_viewer(head: HeadModel) -> None:
    nose = head.template[head.masks["face"]][:, 2].max()
    assert nose > head.template[head.masks["eyeballs"]][:, 2].max() > head.template[head.masks["ears"]][:, 2].max()
