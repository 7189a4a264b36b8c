"""Landmarks on heads: the geometry of the embedding, where the open head's landmarks lie, and detection on new views."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from comfyui_flow3d.flow3d.errors import Flow3DError
from comfyui_flow3d.flow3d.fit import mediapipe_points as mp
from comfyui_flow3d.flow3d.fit.detect import MediaPipeDetector
from comfyui_flow3d.flow3d.head import embed, surface
from comfyui_flow3d.flow3d.head.files import OPEN_HEAD, load_saved_head
from comfyui_flow3d.flow3d.head.model import EYEBALLS, SKIN, HeadModel

FLIP = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_saved_head(OPEN_HEAD)


@pytest.fixture(scope="module")
def places(head: HeadModel) -> np.ndarray:
    """(478, 3) the landmarks on the template."""
    return head.landmarks_dense.on(head.template, head.faces).numpy().astype(np.float64)


@pytest.fixture(scope="module")
def detector() -> Iterator[MediaPipeDetector]:
    folder = os.environ.get("FLOW3D_MODELS")
    file = Path(folder or ".") / "face_landmarker.task"
    if not folder or not file.is_file():
        pytest.skip("face_landmarker.task is not in $FLOW3D_MODELS")
    with MediaPipeDetector(file) as found:
        yield found


def test_closest_points_equal_a_numerical_search() -> None:
    random = np.random.default_rng(0)
    triangles = random.normal(size=(40, 3, 3))
    points = random.normal(size=(40, 3)) * 2
    bary = surface.closest_barycentrics(triangles, points)
    assert bary.min() >= 0 and np.allclose(bary.sum(1), 1)
    for t, p, b in zip(triangles, points, bary, strict=True):
        bounds, limit = [(0, 1)] * 2, {"type": "ineq", "fun": lambda u: 1 - u.sum()}
        best = min(
            minimize(
                lambda u, t=t, p=p: ((t[0] + u @ (t[1:] - t[0]) - p) ** 2).sum(), u0, bounds=bounds, constraints=[limit],
                options={"ftol": 1e-14},
            ).fun
            for u0 in ([0.3, 0.3], [0.0, 0.9], [0.9, 0.0], [0.0, 0.0])
        )  # fmt: skip
        assert ((b @ t - p) ** 2).sum() <= best + 1e-7


def test_closest_on_surface_finds_points_of_the_surface_again(head: HeadModel) -> None:
    triangles = head.template[head.faces].double().numpy()
    random = np.random.default_rng(1)
    pick = random.integers(0, len(triangles), 300)
    points = np.einsum("nc,ncx->nx", random.dirichlet([1, 1, 1], 300), triangles[pick])
    face, bary = surface.closest_on_surface(triangles, points)
    assert np.abs(np.einsum("nc,ncx->nx", bary, triangles[face]) - points).max() < 1e-9


def test_a_ray_meets_its_triangle_where_the_point_was_projected_from() -> None:
    random = np.random.default_rng(2)
    camera = embed.Camera(900.0, 250.0, 240.0, 512, 512)
    corners = random.normal(size=(50, 3, 3)) * 0.1 + [0, 0, 1]
    bary = random.dirichlet([1, 1, 1], 50)
    point = torch.from_numpy(np.einsum("nc,ncx->nx", bary, corners))
    assert np.abs(embed._ray_barycentrics(corners, camera.project(point).numpy(), camera) - bary).max() < 1e-8


def test_the_mirror_table_is_mediapipes() -> None:
    table = np.array(mp.MIRRORED)
    assert len(table) == mp.N_POINTS and (table[table] == np.arange(mp.N_POINTS)).all()
    assert list(table[list(mp.RIGHT_EYE)]) == list(mp.LEFT_EYE)
    assert list(table[list(mp.OVAL)]) == [mp.OVAL[0], *mp.OVAL[:0:-1]]
    assert set(table[list(mp.OUTER_LIPS)]) == set(mp.OUTER_LIPS)
    assert set(table[list(mp.RIGHT_IRIS)]) == set(mp.LEFT_IRIS)


def test_mirror_vertices_sees_asymmetry(head: HeadModel) -> None:
    template, faces = head.template.double().numpy(), head.faces.numpy()
    mirror = surface.mirror_vertices(template, faces)
    assert mirror is not None and np.abs(template[mirror] * FLIP - template).max() < 1e-5
    bent = template.copy()
    bent[100, 1] += 1e-4
    assert surface.mirror_vertices(bent, faces) is None
    assert surface.mirror_vertices(template, faces[1:]) is None


def test_every_landmark_is_embedded_on_its_part(head: HeadModel, places: np.ndarray) -> None:
    marks = head.landmarks_dense
    assert marks.found.all() and (marks.bary >= 0).all()
    np.testing.assert_allclose(marks.bary.sum(1), 1, atol=1e-5)
    iris = np.isin(np.arange(mp.N_POINTS), mp.IRISES)
    part = head.parts[marks.face].numpy()
    assert (part[iris] == EYEBALLS).all() and (part[~iris] == SKIN).all()
    corners = head.faces[marks.face]
    lips = head.masks["lips"][corners].any(1).numpy()
    assert lips[list(mp.INNER_LIPS)].all()
    lids = head.masks["eyelids"][corners].any(1).numpy()[list(mp.LEFT_EYE + mp.RIGHT_EYE)]
    assert (~lids).sum() <= 2  # the inner corners lie between eye and nose
    assert not head.masks["ears"][corners].all(1).any() and not head.masks["neck"][corners].all(1).any()
    assert np.abs(places[:, 0]).max() < 0.09


def test_landmarks_lie_where_they_are_named(head: HeadModel, places: np.ndarray) -> None:
    joints = (head.joint_regressor @ head.template).numpy()
    for iris, joint in ((mp.LEFT_IRIS, joints[3]), (mp.RIGHT_IRIS, joints[4])):
        gaze = places[iris[0]] - joint
        assert np.degrees(np.arccos(gaze[2] / np.linalg.norm(gaze))) < 8  # the pupil at the eyeball's front
        ring = places[list(iris[1:])]
        assert np.linalg.norm(ring.mean(0)[:2] - joint[:2]) < 0.003
        assert 0.009 < np.linalg.norm(ring[0] - ring[2]) < 0.015  # an iris is 11.7 mm wide
    for ring in (mp.LEFT_EYE, mp.RIGHT_EYE):
        assert 0.024 < np.ptp(places[list(ring)][:, 0]) < 0.036  # metres between an eye's corners
    seam = places[[mp.UPPER_LIP, mp.LOWER_LIP]]
    assert np.linalg.norm(seam[0] - seam[1]) < 0.004 and np.abs(seam[:, 0]).max() < 1e-6
    upper, lower = (places[list(row)][1:-1, 1] for row in (mp.INNER_LIP_UPPER, mp.INNER_LIP_LOWER))
    assert (upper > lower - 0.002).all()
    nose = head.template[head.masks["face"]]
    assert np.linalg.norm(places[4] - nose[nose[:, 2].argmax()].numpy()) < 0.008


def test_the_embedding_is_symmetric(head: HeadModel, places: np.ndarray) -> None:
    assert np.abs(places - places[list(mp.MIRRORED)] * FLIP).max() < 1e-6
    basis = head.expression_basis[head.expression_index("eyeBlinkLeft")], head.expression_basis[head.expression_index("eyeBlinkRight")]
    left, right = (head.landmarks_dense.on(x, head.faces).numpy() for x in basis)
    assert np.abs(left - right[list(mp.MIRRORED)] * FLIP).max() < 1e-6


def test_the_68_points_are_those_of_ibug(head: HeadModel) -> None:
    x = head.landmarks68.on(head.template, head.faces).numpy()
    assert x.shape == (68, 3)
    assert (np.diff(x[:17:4, 0]) > 0).all()  # the jaw, from the subject's right ear to the left one
    assert x[8, 1] == x[:17, 1].min()  # the chin
    assert (np.diff(x[17:27, 0]) > 0).all() and x[17:27, 1].min() > x[36:48, 1].max()  # brows above the eyes
    assert (np.diff(x[27:31, 1]) < 0).all() and (np.diff(x[31:36, 0]) > 0).all()  # the nose's bridge, then its base
    assert x[36:42, 0].max() < 0 < x[42:48, 0].min()
    assert x[36, 0] < x[39, 0] < x[42, 0] < x[45, 0] and x[37, 1] > x[41, 1]
    assert x[48, 0] == x[48:60, 0].min() and x[54, 0] == x[48:60, 0].max() and x[51, 1] > x[57, 1]


def test_views_agreed_on_the_landmarks(head: HeadModel) -> None:
    spread = head.landmark_spread.double().numpy() * 1e3  # mm
    assert len(spread) == mp.N_POINTS and np.isfinite(spread[head.landmarks_dense.found.numpy()]).all()
    assert np.median(spread) < 4.0
    assert np.median(spread[list(mp.LEFT_EYE + mp.RIGHT_EYE)]) < 2.5
    assert np.median(spread[list(mp.OUTER_LIPS)]) < 4.0


def test_new_views_are_detected_where_the_landmarks_are(head: HeadModel, detector: MediaPipeDetector) -> None:
    """Poses and people that the embedding has not seen: the landmarks' projections against the detector's points."""
    random = torch.Generator().manual_seed(77)
    errors = []
    for yaw, pitch, opening in ((0.0, 0.0, 0.0), (-10.0, 5.0, 0.0), (22.0, -8.0, 0.2), (-24.0, 9.0, 0.3), (8.0, -11.0, 0.6)):
        shape = torch.zeros(head.n_shape)
        shape[:40] = 0.5 * torch.randn(40, generator=random)
        image, _, placed, camera = embed.render_view(head, embed.View(shape, opening, yaw, pitch))
        seen = detector.detect(image)
        assert seen
        ours = camera.project(head.landmarks_dense.on(placed, head.faces))[0].numpy()
        scale = np.linalg.norm(ours[mp.LEFT_IRIS[0]] - ours[mp.RIGHT_IRIS[0]]) / np.cos(np.radians(yaw))
        errors.append(np.linalg.norm(ours - seen[0].points, axis=1) / scale * 100)
    by_point = np.stack(errors)
    inner = np.setdiff1d(np.arange(mp.N_POINTS), mp.OVAL)
    assert np.median(by_point[:, inner]) < 4.0  # percent of the distance between the pupils
    assert np.median(by_point[:, list(mp.LEFT_EYE + mp.RIGHT_EYE)]) < 3.0
    assert np.median(by_point[:, list(mp.OUTER_LIPS)]) < 4.5


@pytest.fixture
def few_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve renders of the template instead of ninety of three people."""
    monkeypatch.setattr(embed, "PEOPLE", 1)
    monkeypatch.setattr(embed, "YAWS", (-15.0, 0.0, 15.0))
    monkeypatch.setattr(embed, "PITCHES", (-10.0, 8.0))


def test_a_flame_like_head_gets_its_landmarks(
    head: HeadModel, places: np.ndarray, detector: MediaPipeDetector, few_views: None
) -> None:
    """No masks, no names, no jawOpen, not symmetric: the eyes are told by their joints, the mouth opens by its joint."""
    bent = head.template.clone()
    bent[0, 1] += 5e-5
    plain = replace(
        head, template=bent, masks={}, parts=embed_parts(head), expression_names=(), landmarks_dense=None,
        landmarks68=None, landmark_spread=None, shape_basis=head.shape_basis[:10],
    )  # fmt: skip
    steps: list[tuple[int, int]] = []
    found = embed.embed_landmarks(plain, detector, lambda done, total: steps.append((done, total)))
    assert steps == [(i + 1, 12) for i in range(12)]
    assert found.landmarks_dense.found.float().mean() > 0.97
    ours = found.landmarks_dense.on(head.template, head.faces).numpy()
    inner = np.setdiff1d(np.flatnonzero(found.landmarks_dense.found.numpy()), mp.OVAL)
    gap = np.linalg.norm(ours - places, axis=1)
    assert np.median(gap[inner]) < 0.002 and np.quantile(gap[inner], 0.95) < 0.006
    lips = found.landmarks_dense.found.numpy()[list(mp.INNER_LIPS)]
    assert lips.all()
    assert found.landmark_spread.isfinite().sum() == found.landmarks_dense.found.sum()


def embed_parts(head: HeadModel) -> torch.Tensor:
    """Parts of a head that tells its eyeballs by their joints alone, the rest being skin."""
    eyes = head.skin_weights[:, 3:].sum(1) > 0.5
    return torch.where(eyes[head.faces].all(1), EYEBALLS, SKIN)


def test_a_head_without_a_face_is_refused(head: HeadModel, few_views: None) -> None:
    class Blind:
        def detect(self, image: np.ndarray) -> list:
            assert image.shape == (embed.SIZE, embed.SIZE, 3) and image.dtype == np.uint8
            return []

    with pytest.raises(Flow3DError, match="no face in"):
        embed.embed_landmarks(head, Blind())
