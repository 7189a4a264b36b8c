"""The fit against heads whose truth is known: their own landmarks, projected."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from comfyui_flow3d.benchmarks.synthetic_heads import camera, detections, person, sample
from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.fit import levenberg_marquardt, priors, solve
from comfyui_flow3d.flow3d.fit import mediapipe_points as mp
from comfyui_flow3d.flow3d.fit.angles import pose_angles, pose_rotation
from comfyui_flow3d.flow3d.fit.faces import Face
from comfyui_flow3d.flow3d.fit.landmark_model import LandmarkModel
from comfyui_flow3d.flow3d.fit.levenberg_marquardt import Pose, Shared, Solver
from comfyui_flow3d.flow3d.fit.observations import observe
from comfyui_flow3d.flow3d.fit.solve import fit_track
from comfyui_flow3d.flow3d.head.model import FLIP, HeadModel
from comfyui_flow3d.flow3d.rotations import to_matrix
from comfyui_flow3d.flow3d.track import DETECTED, INTERPOLATED, HeadTrack

CAMERA = camera()


def told(head: HeadModel, track: HeadTrack, noise: float = 0.0) -> list[Face]:
    """What a detector that knows everything would say of a track, with `noise` pixels on the points."""
    points = torch.cat([head.dense.on(track[t : t + 1].vertices(head), head.faces) for t in range(len(track))]).double()
    relief = (points[..., 2] * track.camera.focal / points[..., 2].mean(1, keepdim=True)).numpy()
    order = [head.expression_index(name) for name in mp.BLENDSHAPES]
    faces = []
    for i, face in enumerate(detections(head, track, np.random.default_rng(0), noise)):
        view = face.turn(track.camera)  # without a matrix, that of a face which looks into the camera
        seen = view.T @ Rotation.from_rotvec(track.rotation[i].double().numpy()).as_matrix()
        matrix = np.eye(4)
        matrix[:3, :3] = np.diag(FLIP) @ (Rotation.from_rotvec([0, 0, face.roll]).as_matrix() @ seen) @ np.diag(FLIP)
        scores = track.expression[i, order].double().numpy()
        faces.append(replace(face, depth=relief[i] - relief[i].mean(), scores=scores, matrix=matrix))
    return faces


def turn_between(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Degrees between rotations (T, 3), by SciPy."""
    between = Rotation.from_rotvec(a.double().numpy()) * Rotation.from_rotvec(b.double().numpy()).inv()
    return np.degrees(between.magnitude())


def problem(
    head: HeadModel, seed: int, frames: int, dtype: torch.dtype = torch.float32
) -> tuple[Solver, Shared, Pose, HeadTrack, object]:
    """A solver, the truth as its unknowns, and the observations at its landmarks."""
    s = sample(head, seed, frames)
    seen = observe(head, s.faces, CAMERA)
    solver = Solver(head, CAMERA, seen, 100.0, dtype=dtype)
    shared = Shared(s.truth.shape[: solver.n_shape].double(), CAMERA.focal)
    x = Pose(*(getattr(s.truth, n).double() for n in ("expression", "joints", "rotation", "translation")))
    return solver, shared, x, s.truth, seen


def test_a_clip_comes_back(open_head: HeadModel) -> None:
    """With everything told: pose, mouth and blinks; with landmarks alone: the pose still."""
    truth = person(open_head, np.random.default_rng(1), 32)
    track, report = fit_track(open_head, told(open_head, truth, 0.5), CAMERA)
    assert report.mean_error < 1.0 and (track.state == DETECTED).all()
    assert np.median(turn_between(track.rotation, truth.rotation)) < 0.8
    away = (track.expression - truth.expression).abs()
    assert away.mean() < 0.4 * truth.expression.abs().mean()
    bare, _ = fit_track(open_head, detections(open_head, truth, np.random.default_rng(0)), CAMERA)
    assert np.median(turn_between(bare.rotation, truth.rotation)) < 1.5
    assert ((bare.translation - truth.translation).norm(dim=1) / truth.translation.norm(dim=1)).median() < 0.03


def test_stills_meet_the_targets_and_know_how_sure_they_are(open_head: HeadModel) -> None:
    errors, deviations, distances = [], [], []
    for seed in range(16):
        s = sample(open_head, seed, 1)
        track, _ = fit_track(open_head, s.faces, CAMERA)
        errors.append(turn_between(track.rotation, s.truth.rotation)[0])
        deviations.append(np.degrees(float(track.rotation_deviation)))
        distances.append(float((track.translation[0, 2] / s.truth.translation[0, 2]).log()))
    assert np.median(errors) < 2.0
    assert 0.3 < np.median(np.divide(errors, deviations)) < 1.3
    assert abs(np.mean(distances)) < 0.03  # no bias towards near and small heads: see Solver._joint_cost


def test_a_still_meets_its_landmarks(open_head: HeadModel) -> None:
    face = detections(open_head, person(open_head, np.random.default_rng(3), 1), np.random.default_rng(0), 2.0)[0]
    track, _ = fit_track(open_head, [face], CAMERA)
    assert track.offsets is not None and len(track) == 1
    eyes = np.linalg.norm(face.points[mp.RIGHT_EYE_CORNER] - face.points[mp.LEFT_EYE_CORNER])
    error = {}
    for name, t in (("offsets", track), ("bare", replace(track, offsets=None))):
        pixels = CAMERA.project(open_head.dense.on(t.vertices(open_head)[0], open_head.faces)).numpy()
        inner = np.setdiff1d(np.arange(468), mp.OVAL)
        error[name] = np.linalg.norm(pixels - face.points, axis=1)[inner].mean() / eyes
    assert error["offsets"] < 0.8 * error["bare"]


def test_missing_frames_are_interpolated_and_marked(open_head: HeadModel) -> None:
    truth = person(open_head, np.random.default_rng(2), 24)
    faces: list[Face | None] = list(told(open_head, truth))
    faces[10:13] = [None] * 3
    track, report = fit_track(open_head, faces, CAMERA)
    assert len(track) == 24 and report.missing == (10, 11, 12) and "10, 11, 12" in str(report)
    assert (track.state[10:13] == INTERPOLATED).all() and (track.state == INTERPOLATED).sum() == 3
    assert (track.confidence[10:13] == 0).all() and track.confidence[9] > 0.8
    assert turn_between(track.rotation[10:13], truth.rotation[10:13]).max() < 3


def test_no_face_at_all(open_head: HeadModel) -> None:
    with pytest.raises(InputError, match="no face in any of 3 frames"):
        fit_track(open_head, [None] * 3, CAMERA)


def test_degenerate_points_give_no_nan(open_head: HeadModel) -> None:
    for points in (np.full((478, 2), 100.0), np.tile([1e4, -1e4], (478, 1)), np.linspace(0, 1e-9, 956).reshape(478, 2)):
        track, _ = fit_track(open_head, [Face.of478(points)], CAMERA)
        for x in (track.shape, track.expression, track.rotation, track.translation, track.offsets, track.error):
            assert torch.isfinite(x).all()


@pytest.mark.parametrize("roll", [1.5, 3.1, -3.1])
def test_turned_and_upside_down(open_head: HeadModel, roll: float) -> None:
    truth = replace(person(open_head, np.random.default_rng(5), 1), rotation=torch.tensor([[0.0, 0.0, roll]]))
    track, _ = fit_track(open_head, detections(open_head, truth, np.random.default_rng(0)), CAMERA)
    assert turn_between(track.rotation, truth.rotation).max() < 4


def test_68_points_are_less_certain(open_head: HeadModel) -> None:
    marks = open_head.landmarks68
    sure = {68: [], 478: []}
    for seed in range(4):
        s = sample(open_head, seed, 1)
        points = CAMERA.project(marks.on(s.truth.vertices(open_head), open_head.faces).double())[0].numpy()
        noise = np.random.default_rng(seed).normal(size=points.shape)
        for n, face in ((68, Face.of68(points + noise)), (478, s.faces[0])):
            track, _ = fit_track(open_head, [face], CAMERA)
            sure[n].append(float(track.rotation_deviation))
            assert turn_between(track.rotation, s.truth.rotation)[0] < 25
    assert np.median(sure[68]) > 1.4 * np.median(sure[478])


def test_the_focal_length_is_found_where_asked(open_head: HeadModel) -> None:
    """A near face through a wide lens: its perspective tells."""
    wide = camera().from_field_of_view(512, 512, 60)
    truth = person(open_head, np.random.default_rng(4), 24)
    truth = replace(truth, camera=wide, translation=truth.translation * torch.tensor([0.5, 0.5, 0.4]))
    faces = detections(open_head, truth, np.random.default_rng(0), 0.5)
    guess = replace(wide, focal=wide.focal * 1.25)
    track, _ = fit_track(open_head, faces, guess, solve_focal=True)
    assert abs(track.camera.focal / wide.focal - 1) < 0.08
    assert fit_track(open_head, faces, guess)[0].camera.focal == guess.focal


def test_normal_equations_are_the_derivatives(open_head: HeadModel) -> None:
    """The gradient of every unknown against central differences of the cost, away from the solution."""
    solver, shared, x, _, seen = problem(open_head, 1, 2, torch.float64)
    at = seen.at(solver.landmarks)
    system = solver.normal(shared, x, at, solver.n_shape + 1)
    start = solver.flat(x)
    solver.bounded = False

    def cost(values: torch.Tensor, now: Shared) -> torch.Tensor:
        return solver.cost(now, solver.unflat(values, x), at)

    h = 1e-5
    for k in (0, 20, 51, *range(start.shape[1] - 10, start.shape[1])):
        step = torch.zeros_like(start)
        step[:, k] = h
        forward, backward = solver._stepped(x, step), solver._stepped(x, -step)
        numeric = (solver.cost(shared, forward, at) - solver.cost(shared, backward, at)) / (4 * h)
        assert torch.allclose(numeric, system.gradient[:, k], rtol=2e-3, atol=0.02), k
    for k in (0, 7, 60):
        change = torch.zeros_like(shared.shape)
        change[k] = 1e-4
        sides = [cost(start, Shared(shared.shape + s * change, shared.focal)).sum() for s in (1, -1)]
        prior = shared.shape[k] / priors.SHAPE**2
        assert torch.allclose((sides[0] - sides[1]) / 4e-4 + prior, system.shared_gradient[k], rtol=2e-3, atol=0.02), k
    sides = [cost(start, Shared(shared.shape, shared.focal * float(np.exp(s * 1e-5)))).sum() for s in (1, -1)]
    assert torch.allclose((sides[0] - sides[1]) / 4e-5, system.shared_gradient[-1], rtol=2e-3, atol=0.05)


@pytest.mark.parametrize("relief", [False, True])
def test_normal_equations_are_the_jacobians(open_head: HeadModel, relief: bool) -> None:
    """J^T J of every pair of unknowns, with J the central differences of the residuals and the weights held."""
    solver, shared, x, truth, seen = problem(open_head, 5, 2, torch.float64)
    if relief:
        seen = observe(open_head, told(open_head, truth, 1.0), CAMERA)
    at = seen.at(solver.landmarks)
    solver.bounded = False
    weight = solver._whitening(solver.residuals(shared, x, at).transpose(1, 2)).transpose(1, 2)
    p, g = len(solver.flat(x)[0]), solver.n_shape + 1

    def moved(k: int, h: float) -> torch.Tensor:
        step, common = torch.zeros(len(at), p, dtype=torch.float64), torch.zeros(g, dtype=torch.float64)
        (step[:, k] if k < p else common[k - p : k - p + 1]).fill_(h)
        r = solver.residuals(solver._shared_stepped(shared, common), solver._stepped(x, step), at)
        return (r * weight).flatten(1)

    h = 1e-5
    j = torch.stack([(moved(k, h) - moved(k, -h)) / (2 * h) for k in range(p + g)], -1)
    whole = j.transpose(1, 2) @ j
    system = solver.normal(shared, x, at, g)
    prior, _ = solver._prior(x, at)
    shared_prior = torch.tensor([priors.SHAPE**-2.0] * solver.n_shape + [levenberg_marquardt._FOCAL**-2], dtype=torch.float64)
    pairs = (
        (system.frames - torch.diag_embed(prior**2), whole[:, :p, :p]),
        (system.cross, whole[:, :p, p:]),
        (system.shared - torch.diag(shared_prior), whole[:, p:, p:].sum(0)),
    )
    tolerance = 5e-3 if relief else 1e-6  # the relief's scale by the mean depth is taken as constant
    for got, wanted in pairs:
        assert (got - wanted).abs().max() < tolerance * wanted.abs().max()


def test_the_minimum_is_scipys(open_head: HeadModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """One frame with the shape fixed, against scipy's trust region with the same residuals, loss, priors and bounds."""
    solver, shared, _, _, seen = problem(open_head, 3, 1)
    at = seen.at(solver.landmarks)
    x = solver.frame_steps(shared, solver.pose_steps(shared, solver.start(seen), seen, 5), seen, 25)
    weights = torch.stack([solver.weights] * 2, -1) / solver.noise

    def residuals(v: np.ndarray) -> np.ndarray:
        now = solver.unflat(torch.from_numpy(v)[None], x)
        r = (solver.residuals(shared, now, at)[0, :, :2] * weights).norm(dim=-1)
        c2 = priors.ROBUST_SCALE**2
        robust = (2 * c2 * ((1 + r**2 / c2).sqrt() - 1)).clamp(min=1e-12).sqrt()
        weight, away = solver._prior(now, at)
        return torch.cat([robust, (weight * away)[0]]).numpy()

    start = solver.flat(x)[0].numpy()
    low, high = np.full(len(start), -np.inf), np.full(len(start), np.inf)
    low[: open_head.n_expression], high[: open_head.n_expression] = -1e-9, 1 + 1e-9
    best = least_squares(residuals, start, bounds=(low, high), max_nfev=30)
    assert 2 * best.cost > float(solver.cost(shared, x, at)) * (1 - 1e-3)


def test_the_landmark_model_is_the_mesh(open_head: HeadModel) -> None:
    """Landmarks of the reduced model against those of the full mesh, joints turned."""
    truth = person(open_head, np.random.default_rng(7), 3)
    model = LandmarkModel.of(open_head, open_head.n_shape)
    points, _ = model.posed(truth.shape.double(), truth.expression.double(), truth.joints.double())
    placed = points @ to_matrix(truth.rotation.double()).transpose(-1, -2) + truth.translation.double()[:, None]
    mesh = open_head.dense.on(truth.vertices(open_head), open_head.faces).double()
    assert (placed - mesh).abs().max() < 2e-5


def test_spins_are_the_derivatives_of_the_joints(open_head: HeadModel) -> None:
    truth = person(open_head, np.random.default_rng(8), 2)
    model = LandmarkModel.of(open_head, 10)
    shape, expression, joints = truth.shape[:10].double(), truth.expression.double(), truth.joints.double()
    chosen = [(j, axis) for _, j, axis in levenberg_marquardt.free_joints(open_head)]
    columns, linear = model.spins(shape, expression, joints, chosen)
    assert torch.equal(linear, model.posed(shape, expression, joints)[1])
    for k, (j, axis) in enumerate(chosen):
        moved = []
        for sign in (1, -1):
            turned = joints.clone()
            step = Rotation.from_rotvec(sign * 1e-5 * np.eye(3)[axis])
            turned[:, j] = torch.from_numpy((step * Rotation.from_rotvec(joints[:, j].numpy())).as_rotvec())
            moved.append(model.posed(shape, expression, turned)[0])
        assert torch.allclose((moved[0] - moved[1]) / 2e-5, columns[..., k], atol=1e-7)


def silhouette_points(head: HeadModel, track: HeadTrack) -> np.ndarray:
    """(68, 2) pixels as a 2D detector marks them: the far half of the jaw line on the outline of the face as rendered."""
    vertices = track.vertices(head)[0]
    points = CAMERA.project(head.landmarks68.on(vertices, head.faces).double()).numpy()
    face = CAMERA.project(vertices[head.masks["face"]].double()).numpy()
    middle = points.mean(0)
    far = range(9, 17) if float(pose_angles(track.rotation)[0, 0]) > 0 else range(8)
    for i in far:
        along = (points[i] - middle) / np.linalg.norm(points[i] - middle)
        away = face - middle
        beside = np.abs(away[:, 0] * along[1] - away[:, 1] * along[0]) < 6
        points[i] = middle + along * (away[beside] @ along).max()
    return points


@pytest.mark.parametrize("yaw", [-40.0, 35.0])
def test_the_contour_is_found_on_the_silhouette(
    open_head: HeadModel, yaw: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """68 points as detectors mark them on turned heads: read better than with the jaw line where it is embedded."""
    errors = {"silhouette": [], "embedded": []}
    for seed in range(4):
        truth = person(open_head, np.random.default_rng(seed), 1)
        turned = pose_rotation(*(torch.tensor([a]) for a in (yaw, 0.0, 0.0)))
        truth = replace(truth, rotation=turned, expression=0 * truth.expression)
        face = Face.of68(silhouette_points(open_head, truth) + np.random.default_rng(seed).normal(size=(68, 2)))
        for name in errors:
            with monkeypatch.context() as patch:
                if name == "embedded":
                    patch.setattr(solve, "with_contour", lambda seen, rotation: seen)
                track, _ = fit_track(open_head, [face], CAMERA)
            errors[name].append(turn_between(track.rotation, truth.rotation)[0])
    assert np.median(errors["silhouette"]) < 8
    assert np.mean(errors["silhouette"]) < np.mean(errors["embedded"])
