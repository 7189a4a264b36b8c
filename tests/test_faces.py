"""Faces of 478 and of 68 points: what is known of them, and where they look."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.fit.faces import Face, looking_along
from comfyui_flow3d.flow3d.head.load import load_head
from comfyui_flow3d.flow3d.head.model import FLIP, HeadModel

CAMERA = Camera.from_field_of_view(640, 480)


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head("open")


def seen(head: HeadModel, rotation: Rotation, place: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """(478, 2) and (68, 2) pixels of the open head turned in the camera's frame, its root joint at `place` metres."""
    root = (head.joint_regressor @ head.template)[0].numpy()
    assert head.landmarks68 is not None
    pixels = []
    for marks in (head.dense, head.landmarks68):
        points = (marks.on(head.template, head.faces).numpy() - root) * FLIP
        x, y, z = (points @ rotation.as_matrix().T + place).T
        pixels.append(np.stack([CAMERA.focal * x / z + CAMERA.cx, CAMERA.focal * y / z + CAMERA.cy], -1))
    return pixels[0], pixels[1]


@pytest.mark.parametrize("degrees", [-170, -90, -35, 0, 20, 120, 180])
@pytest.mark.parametrize("yaw", [-40, 0, 30])
def test_roll_of_a_rendered_head(head: HeadModel, degrees: float, yaw: float) -> None:
    """A turn in the picture is read off the points, also of a head turned aside; 478 and 68 points agree."""
    turn = Rotation.from_euler("z", degrees, degrees=True) * Rotation.from_euler("y", yaw, degrees=True)
    dense, sparse = seen(head, turn, tuple(turn.apply((0, 0.09, 0)) + (0, 0, 1)))  # the face's middle in the picture's
    for face in (Face.of478(dense), Face.of68(sparse)):
        off = np.degrees(face.roll) - degrees
        assert abs((off + 180) % 360 - 180) < 6
        angle = Rotation.from_matrix(face.turn(CAMERA) @ turn.as_matrix().T).magnitude()
        assert np.degrees(angle) < abs(yaw) + 8  # all but the yaw, which eyes and mouth do not tell


def test_a_turn_without_a_matrix_is_a_rotation_towards_the_camera(head: HeadModel) -> None:
    """Away from the picture's middle, the head that looks into the camera is turned there, as its own geometry says."""
    place = np.array([0.25, -0.15, 1.0])
    look = Rotation.from_matrix(looking_along(place))
    face = Face.of68(seen(head, look, tuple(place + look.apply((0, 0.09, 0))))[1])
    turn = face.turn(CAMERA)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)
    assert np.degrees(Rotation.from_matrix(turn @ look.as_matrix().T).magnitude()) < 6


def test_looking_along() -> None:
    """The axis goes to the ray, by the shortest way: the rotation's own axis is across both."""
    for ray in np.random.default_rng(0).normal(size=(20, 3)) + (0, 0, 3):
        turn = looking_along(ray)
        np.testing.assert_allclose(turn @ (0, 0, 1), ray / np.linalg.norm(ray), atol=1e-7)
        axis = Rotation.from_matrix(turn).as_rotvec()
        assert abs(axis @ ray) < 1e-6 and abs(axis[2]) < 1e-6


def test_what_is_unknown_is_nan() -> None:
    points = np.random.default_rng(1).random((68, 2)) * 100
    face = Face.of68(points, 0.7)
    assert not face.dense and face.confidence == 0.7 and face.matrix is None
    assert face.points.shape == (478, 2) and np.isnan(face.points).all()
    assert np.isnan(face.depth).all() and face.depth.shape == (478,)
    assert np.isnan(face.scores).all() and face.scores.shape == (51,)
    np.testing.assert_array_equal(face.seen, points)
    other = Face.of478(np.ones((478, 2)))
    assert other.dense and np.isnan(other.points68).all()


def test_box_size_and_centre_are_of_the_points_that_are_seen() -> None:
    points = np.full((68, 2), np.nan)
    points[:8] = [(10, 20), (30, 20), (10, 80), (30, 80), (20, 50), (20, 50), (15, 50), (25, 50 + 16)]
    face = Face.of68(points)
    assert face.box == (10, 20, 30, 80) and face.size == 60
    np.testing.assert_allclose(face.centre, (20, 52))
    assert np.isnan(face.features).all() and face.roll == 0
    dense = replace(Face.of478(np.full((478, 2), 5.0)), points68=points)
    assert dense.box == (5, 5, 30, 80)


def test_a_side_view_without_one_eye_still_has_a_roll(head: HeadModel) -> None:
    """The eye and the mouth tell which way is up, roughly."""
    points = seen(head, Rotation.from_euler("z", 60, degrees=True), (0.0, 0.0, 1.0))[1].copy()
    points[42:48] = np.nan
    assert abs(np.degrees(Face.of68(points).roll) - 60) < 35
