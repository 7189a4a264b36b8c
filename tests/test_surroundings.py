"""What an expression must leave alone in the picture: the background, the contour of the head; and where hidden skin comes from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt
from test_warp import SIZE, image, patterned, source, warp  # noqa: F401  (fixtures)

from comfyui_flow3d.flow3d.fit.edit import edit_track
from comfyui_flow3d.flow3d.head.model import HeadModel
from comfyui_flow3d.flow3d.render.rasterize import rasterize
from comfyui_flow3d.flow3d.track import HeadTrack
from comfyui_flow3d.flow3d.warp.renderer import FlowWarp


def silhouette(head: HeadModel, track: HeadTrack) -> np.ndarray:
    return rasterize(track.vertices(head), head.faces, track.camera).triangle[0].numpy() >= 0


def change(warp: FlowWarp, image: np.ndarray, target: HeadTrack) -> np.ndarray:  # noqa: F811
    """(H, W) the largest difference of a frame from the photo."""
    return np.abs(warp.frame(target)[0].astype(int) - image).max(-1)


@pytest.mark.parametrize("edit", [{"jawOpen": 0.8}, {"smile": 1.0}, {"pucker": 1.0}, {"brows": 1.0}, {"jawSide": 1.0}])
def test_an_expression_does_not_move_the_background(
    open_head: HeadModel, warp: FlowWarp, image: np.ndarray, source: HeadTrack, edit: dict[str, float]  # noqa: F811
) -> None:
    target = edit_track(open_head, source, edit)
    away = distance_transform_edt(~(silhouette(open_head, source) | silhouette(open_head, target)))
    far = away > 0.2 * warp.head_width
    changed = change(warp, image, target)
    assert far.mean() > 0.15 and changed[far].max() <= 1
    assert changed[~far].max() > 40
    turned = change(warp, image, edit_track(open_head, source, {"yaw": 15}))
    assert turned[far].max() > 40  # a turned head does take along what is behind it


@pytest.mark.parametrize("edit", [{"blink": 1.0}, {"gazeYaw": 25.0}, {"gazePitch": -20.0}])
def test_the_eyes_leave_the_contour_alone(
    open_head: HeadModel, warp: FlowWarp, image: np.ndarray, source: HeadTrack, edit: dict[str, float]  # noqa: F811
) -> None:
    head = silhouette(open_head, source)
    rim = binary_dilation(head, iterations=2) & ~binary_erosion(head, iterations=3)
    changed = change(warp, image, edit_track(open_head, source, edit))
    assert np.quantile(changed[rim], 0.98) <= 6 and changed.max() > 40


@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (0.2, 0.6, 0.0), (-0.3, -0.5, 0.4)])
def test_what_the_photo_shows_comes_from_its_own_place(
    open_head: HeadModel, source: HeadTrack, turn: tuple[float, float, float]  # noqa: F811
) -> None:
    """Also where a triangle ends behind the contour or behind the nose."""
    turned = replace(source, rotation=torch.tensor([turn]))
    warp = FlowWarp(open_head, patterned(open_head, turned), turned)  # noqa: F811
    drawn, _ = warp.drawing.draw(torch.from_numpy(warp.surface.vertices), warp.camera)
    here = np.stack([drawn.at % SIZE + 0.5, drawn.at // SIZE + 0.5], -1)
    assert np.abs(drawn.blend(warp.surface.pixels) - here).max() < 0.1
