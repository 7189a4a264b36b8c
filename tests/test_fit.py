"""The fit against heads whose truth is known: their own landmarks, projected."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.fit import mediapipe_points as mp
from comfyui_flow3d.flow3d.fit.detect import Face
from comfyui_flow3d.flow3d.fit.gauss_newton import GaussNewton, Pose
from comfyui_flow3d.flow3d.fit.landmark_model import LandmarkModel, projection_jacobian
from comfyui_flow3d.flow3d.fit.smoothing import interpolate_rotations, smooth_rotations
from comfyui_flow3d.flow3d.fit.solve import fit_track, observe
from comfyui_flow3d.flow3d.head.model import FLIP, HeadModel
from comfyui_flow3d.flow3d.rotations import to_matrix
from comfyui_flow3d.flow3d.track import DETECTED, INTERPOLATED, HeadTrack

CAMERA = Camera.from_field_of_view(640, 512)
SCORED = {"jawOpen": 0.4, "eyeBlinkLeft": 0.3, "mouthSmileRight": 0.5}


def moving(head: HeadModel, frames: int, seed: int = 0) -> HeadTrack:
    """A head that turns, nods and opens its mouth, with a shape of its own."""
    random = torch.Generator().manual_seed(seed)
    t = torch.linspace(0, 2 * torch.pi, frames + 1)[:frames]
    rotation = torch.stack([0.1 + 0.1 * t.sin(), 0.3 * t.cos(), 0.05 * t.sin()], 1)
    expression = torch.zeros(frames, head.n_expression)
    for name, most in SCORED.items():
        expression[:, head.expression_index(name)] = most * (0.5 - 0.5 * t.cos())
    joints = torch.zeros(frames, head.n_joints - 1, 3)
    joints[:, 2:, 1] = 0.1 * t.sin()[:, None]
    shape = torch.zeros(head.n_shape)
    shape[:20] = 0.5 * torch.randn(20, generator=random)
    translation = torch.stack([0.02 * t.sin(), 0.15 + 0.01 * t.cos(), 1.2 + 0.05 * t.sin()], 1)
    return HeadTrack(shape, expression, joints, rotation, translation, CAMERA)


def detections(head: HeadModel, track: HeadTrack) -> list[Face]:
    """What a perfect detector would say of a track."""
    points = head.dense.on(track.vertices(head), head.faces).double()
    pixels = track.camera.project(points).numpy()
    relief = (points[..., 2] * track.camera.focal / points[..., 2].mean(1, keepdim=True)).numpy()
    flip = np.diag(FLIP)
    order = [head.expression_index(name) for name in mp.BLENDSHAPES]
    faces = []
    for i in range(len(track)):
        matrix = np.eye(4)
        matrix[:3, :3] = flip @ Rotation.from_rotvec(track.rotation[i].double().numpy()).as_matrix() @ flip
        scores = track.expression[i, order].double().numpy()
        faces.append(Face(pixels[i], relief[i] - relief[i].mean(), scores, matrix, 0.9))
    return faces


def turn_between(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Degrees between rotations (T, 3), by SciPy."""
    between = Rotation.from_rotvec(a.double().numpy()) * Rotation.from_rotvec(b.double().numpy()).inv()
    return np.degrees(between.magnitude())


def test_a_clip_comes_back(open_head: HeadModel):
    truth = moving(open_head, 24)
    track, report = fit_track(open_head, detections(open_head, truth), CAMERA)
    assert report.mean_error < 0.6 and report.worst_error < 1.2
    still = replace(track, landmark_offsets=None)
    relative = [torch.stack([t.rotation[i] for i in range(24)]) for t in (still, truth)]
    changes = [
        torch.from_numpy((Rotation.from_rotvec(r.double().numpy()) * Rotation.from_rotvec(r[0].double().numpy()).inv()).as_rotvec())
        for r in relative
    ]
    assert turn_between(*changes).max() < 1.5
    jaw = open_head.expression_index("jawOpen")
    assert np.corrcoef(track.expression[:, jaw], truth.expression[:, jaw])[0, 1] > 0.98
    assert (track.state == DETECTED).all()


def test_a_still_meets_its_landmarks(open_head: HeadModel):
    face = detections(open_head, moving(open_head, 8, seed=3)[2:3])[0]
    noise = np.random.default_rng(0).normal(0, 0.8, face.points.shape)
    face = replace(face, points=face.points + noise, matrix=None)
    track, _ = fit_track(open_head, [face], CAMERA)
    assert track.offsets is not None and len(track) == 1
    bare = replace(track, offsets=None)
    eyes = np.linalg.norm(face.points[mp.RIGHT_EYE_CORNER] - face.points[mp.LEFT_EYE_CORNER])
    error = {}
    for name, t in (("offsets", track), ("bare", bare)):
        pixels = CAMERA.project(open_head.dense.on(t.vertices(open_head)[0], open_head.faces)).numpy()
        inner = np.setdiff1d(np.arange(468), mp.OVAL)
        error[name] = np.linalg.norm(pixels - face.points, axis=1)[inner].mean() / eyes
    assert error["offsets"] < 0.7 * error["bare"]


def test_missing_frames_are_interpolated_and_marked(open_head: HeadModel):
    truth = moving(open_head, 24)
    faces: list[Face | None] = list(detections(open_head, truth))
    faces[10:13] = [None] * 3
    track, report = fit_track(open_head, faces, CAMERA)
    assert len(track) == 24 and report.missing == (10, 11, 12) and "10, 11, 12" in str(report)
    assert (track.state[10:13] == INTERPOLATED).all() and (track.state == INTERPOLATED).sum() == 3
    assert (track.confidence[10:13] == 0).all() and track.confidence[9] > 0.8
    assert turn_between(track.rotation[10:13], truth.rotation[10:13]).max() < 3


def test_no_face_at_all(open_head: HeadModel):
    with pytest.raises(InputError, match="no face in any of 3 frames"):
        fit_track(open_head, [None] * 3, CAMERA)


def test_degenerate_points_give_no_nan(open_head: HeadModel):
    face = detections(open_head, moving(open_head, 1))[0]
    flat = replace(face, points=np.full((478, 2), 100.0), depth=np.zeros(478))
    track, _ = fit_track(open_head, [flat], CAMERA)
    for x in (track.shape, track.expression, track.rotation, track.translation, track.offsets):
        assert torch.isfinite(x).all()


def test_upside_down(open_head: HeadModel):
    truth = moving(open_head, 1)
    truth = replace(truth, rotation=torch.tensor([[0.0, 0.0, 3.1]]))
    track, report = fit_track(open_head, detections(open_head, truth), CAMERA)
    assert report.mean_error < 0.8 and turn_between(track.rotation, truth.rotation).max() < 3


def test_jacobians_are_the_derivatives(open_head: HeadModel):
    """Each step's columns against autograd of the residuals."""
    head = open_head
    truth = moving(head, 2, seed=1)
    seen = observe(head, detections(head, truth))
    solver = GaussNewton(head, CAMERA, 100.0)
    shape = torch.full((solver.n_shape,), 0.1, dtype=torch.float64)
    x = Pose(*(getattr(truth, n).double() for n in ("expression", "joints", "rotation", "translation")))
    points, linear = solver.model.posed(shape, x.expression, x.joints)
    to_residual, pose = solver._pose_blocks(points, x)
    expression = solver._centred((to_residual @ linear) @ solver.model.expression_basis.permute(1, 2, 0))
    auto = torch.func.jacfwd(lambda e: solver.residuals(shape, replace(x, expression=e), seen)[0])(x.expression)[:, :, 0]
    # the relief's scale follows its mean depth, which the closed form holds fixed: a thousandth of it
    assert (auto - expression[0]).abs().max() < 2e-2 * auto.abs().max()
    assert (auto[:, :2] - expression[0, :, :2]).abs().max() < 1e-9 * auto.abs().max()
    auto = torch.func.jacfwd(lambda t: solver.residuals(shape, replace(x, translation=t), seen)[0])(x.translation)
    assert (auto[:, :2, 0] - pose[0, :, :2, 3:]).abs().max() < 1e-9 * auto.abs().max()


def test_projection_jacobian():
    points = torch.tensor([[0.1, -0.2, 1.3], [0.0, 0.05, 0.7]], dtype=torch.float64)
    auto = torch.stack([torch.func.jacfwd(CAMERA.project)(p) for p in points])
    assert torch.allclose(projection_jacobian(points, CAMERA), auto)


def test_landmark_model_equals_the_mesh(open_head: HeadModel):
    truth = moving(open_head, 4)
    model = LandmarkModel.of(open_head, open_head.n_shape)
    points, _ = model.posed(truth.shape.double(), truth.expression.double(), truth.joints.double())
    placed = points @ to_matrix(truth.rotation.double()).transpose(-1, -2) + truth.translation.double()[:, None]
    mesh = open_head.dense.on(truth.vertices(open_head), open_head.faces)
    assert (placed - mesh).abs().max() < 1e-4


def test_rotations_near_pi_are_smoothed_on_the_group():
    angles = np.pi + 0.05 * np.sin(np.linspace(0, 6, 40))
    rotation = torch.from_numpy(Rotation.from_euler("z", angles[:, None]).as_rotvec())
    smooth = smooth_rotations(rotation, 1.0)
    assert turn_between(smooth, rotation).max() < 1.0
    known = torch.tensor([0, 39])
    between = interpolate_rotations(rotation[known], known, 40)
    assert turn_between(between, rotation).max() < 6.0
