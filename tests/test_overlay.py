"""The fitted head over its picture."""

import numpy as np
import torch

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.head.model import HeadModel, to_camera
from comfyui_flow3d.flow3d.render.overlay import draw_head


def placed(head: HeadModel, x: float = 0.0) -> torch.Tensor:
    posed, root = head.vertices(torch.zeros(1, head.n_shape), torch.zeros(1, head.n_expression))
    return to_camera(posed, root, torch.zeros(1, 3), torch.tensor([[x, 0.05, 0.9]]))[0]


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
    assert open_head.landmarks_dense is not None
    nose = camera.project(open_head.landmarks_dense.on(vertices, open_head.faces))[1]
    red, green, _ = drawn[int(nose[1]), int(nose[0])].astype(int)
    assert red > green + 20


def test_a_head_out_of_the_picture_leaves_it_alone(open_head: HeadModel) -> None:
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    camera = Camera.from_field_of_view(160, 120)
    assert (draw_head(image, open_head, placed(open_head, x=5.0), camera) == image).all()
