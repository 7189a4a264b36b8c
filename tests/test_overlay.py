"""The fitted head over its picture."""

import numpy as np
import pytest
import torch

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.fit.angles import pose_rotation
from comfyui_flow3d.flow3d.head.model import HeadModel, to_camera
from comfyui_flow3d.flow3d.render.overlay import draw_head, landmark_error

NOSE, LEFT_EYE, RIGHT_EYE = 1, 263, 33


def placed(head: HeadModel, x: float = 0.0, yaw: float = 0.0, roll: float = 0.0) -> torch.Tensor:
    posed, root = head.vertices(torch.zeros(1, head.n_shape), torch.zeros(1, head.n_expression))
    rotation = pose_rotation(*torch.tensor([yaw, 0.0, roll]))[None]
    angle = np.radians(roll)  # the neck's foot goes round, so that the face stays in the middle
    return to_camera(posed, root, rotation, torch.tensor([[x - 0.16 * np.sin(angle), 0.16 * np.cos(angle), 1.1]]).float())[0]


def marks(head: HeadModel, vertices: torch.Tensor, camera: Camera) -> np.ndarray:
    return camera.project(head.dense.on(vertices, head.faces)).double().numpy()


def coloured(drawn: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """(n, 2) pixels x, y of a colour."""
    return np.argwhere(np.abs(drawn.astype(int) - colour).max(-1) < 10)[:, ::-1]


RED, GREEN = (255, 60, 50), (60, 220, 60)


def test_lines_and_dots_lie_on_the_head_and_nowhere_else(open_head: HeadModel) -> None:
    image = np.full((240, 320, 3), 90, np.uint8)
    camera = Camera.from_field_of_view(320, 240)
    vertices = placed(open_head)
    drawn = draw_head(image, open_head, vertices, camera)
    assert (image == 90).all() and drawn.shape == image.shape and drawn.dtype == np.uint8
    changed = np.argwhere((drawn != image).any(-1))
    pixels = camera.project(vertices).numpy()
    low, high = pixels.min(0) - 2, pixels.max(0) + 2
    assert ((changed[:, ::-1] >= low) & (changed[:, ::-1] <= high)).all()
    assert len(changed) > 0.2 * np.prod(np.minimum(high, (320, 240)) - np.maximum(low, 0))


def test_a_head_out_of_the_picture_leaves_it_alone(open_head: HeadModel) -> None:
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    camera = Camera.from_field_of_view(160, 120)
    assert (draw_head(image, open_head, placed(open_head, x=5.0), camera) == image).all()


@pytest.mark.parametrize("size", [256, 900])
def test_fitted_landmarks_are_dots_where_they_project(open_head: HeadModel, size: int) -> None:
    image = np.zeros((size, size, 3), np.uint8)
    camera = Camera.from_field_of_view(size, size)
    vertices = placed(open_head)
    drawn = draw_head(image, open_head, vertices, camera).astype(int)
    at = marks(open_head, vertices, camera)
    forehead = at[[151, 9, 108, 337, 67, 297]]  # far from the axes
    for x, y in forehead:
        red, green, _ = drawn[int(y), int(x)]
        assert red > green


@pytest.mark.parametrize(("yaw", "roll"), [(0.0, 0.0), (30.0, 0.0), (0.0, 50.0), (-20.0, 160.0)])
def test_axes_point_where_the_head_does(open_head: HeadModel, yaw: float, roll: float) -> None:
    image = np.zeros((600, 600, 3), np.uint8)
    camera = Camera.from_field_of_view(600, 600)
    vertices = placed(open_head, yaw=yaw, roll=roll)
    drawn = draw_head(image, open_head, vertices, camera)
    points = marks(open_head, vertices, camera)
    nose = points[NOSE]
    across = points[LEFT_EYE] - points[RIGHT_EYE]  # the head's x: towards its own left
    red = coloured(drawn, RED) + 0.5 - nose
    far = red[np.linalg.norm(red, axis=1).argmax()]
    assert np.dot(far, across) / np.linalg.norm(far) / np.linalg.norm(across) > 0.97
    green = coloured(drawn, GREEN) + 0.5 - nose
    up = green[np.linalg.norm(green, axis=1).argmax()]
    expected = np.array([np.sin(np.radians(roll)), -np.cos(np.radians(roll))])
    assert np.dot(up, expected) / np.linalg.norm(up) > 0.97


def test_the_error_is_that_of_shifted_landmarks(open_head: HeadModel) -> None:
    camera = Camera.from_field_of_view(400, 400)
    vertices = placed(open_head)
    fitted = marks(open_head, vertices, camera)
    detected = fitted + (3.0, -4.0)
    eyes = np.linalg.norm(detected[RIGHT_EYE] - detected[LEFT_EYE])
    assert landmark_error(fitted, detected, detected) == pytest.approx(500 / eyes)
    detected[5:50] = np.nan  # not detected: no say
    detected[RIGHT_EYE] = fitted[RIGHT_EYE] + (3.0, -4.0)
    assert landmark_error(fitted, detected, detected) == pytest.approx(500 / eyes)


def test_detected_landmarks_are_green_and_the_error_stands_in_the_corner(open_head: HeadModel) -> None:
    image = np.zeros((512, 512, 3), np.uint8)
    camera = Camera.from_field_of_view(512, 512)
    vertices = placed(open_head)
    detected = marks(open_head, vertices, camera) + (12.0, 0.0)
    plain, drawn = draw_head(image, open_head, vertices, camera), draw_head(image, open_head, vertices, camera, detected)
    x, y = detected[10].astype(int)
    red, green, _ = drawn[y, x].astype(int)
    assert green > red + 60 and not (plain[y, x].astype(int)[1] > plain[y, x].astype(int)[0] + 60)
    corner = drawn[-40:, :250]
    assert corner.max() > 200 and (drawn[:100, 400:] == 0).all()


def test_a_face_without_dense_landmarks_has_no_error_to_show(open_head: HeadModel) -> None:
    image = np.zeros((300, 300, 3), np.uint8)
    camera = Camera.from_field_of_view(300, 300)
    vertices = placed(open_head)
    unknown = np.full((478, 2), np.nan)
    assert (draw_head(image, open_head, vertices, camera, unknown) == draw_head(image, open_head, vertices, camera)).all()
