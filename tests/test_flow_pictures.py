"""Pictures and figures of a flow: their colours, places and numbers against moves that are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_flow_field import CAMERA, FEW, HEAD, a_field, moving
from toy_heads import still

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.flow.field import FlowField
from comfyui_flow3d.flow3d.flow.legend import titled, with_arrows, with_bar, with_wheel
from comfyui_flow3d.flow3d.flow.pictures import VIEWS, FlowPictures, around_the_head, nice_above, spread
from comfyui_flow3d.flow3d.flow.report import flow_report
from comfyui_flow3d.flow3d.flow.visualize import depth_colours, direction_colours

PHOTO = np.random.default_rng(0).integers(0, 255, (96, 80, 3), dtype=np.uint8)


def shifted(*move: float) -> FlowField:
    """A head that has moved by so many metres."""
    source = still(HEAD, CAMERA)
    return FlowField(source, replace(source, translation=source.translation + torch.tensor(move)), HEAD, CAMERA, FEW)


def test_moves_are_the_head_s_own():
    move = torch.tensor([0.012, -0.004, 0.02])
    field = shifted(*move.tolist())
    moves, mask = field.moves()[0], field.head_mask()[0]
    assert (moves[mask] - move).abs().max() < 1e-6 and (moves[~mask] == 0).all()
    turned = a_field()
    on = turned.head_mask()
    middle = turned.encode()[:, 6:9].movedim(1, -1) / -10  # the middle sample of five lies on the surface
    assert (turned.moves() - middle)[on].norm(dim=-1).quantile(0.999) < 1e-5
    assert torch.equal(turned.moves([2, 0]), turned.moves()[[2, 0]])


def test_hues_are_directions_and_strength_is_length():
    move = torch.tensor([[0.0, 0], [1, 0], [5, 0], [0.5, 0], [-1, 0], [0, 1], [torch.nan, 0]])
    colour = direction_colours(move)
    expected = torch.tensor([[1.0, 1, 1], [1, 0, 0], [1, 0, 0], [1, 0.5, 0.5], [0, 1, 1], [0.5, 1, 0]])
    assert (colour[:6] - expected).abs().max() < 1e-6 and colour.isfinite().all()
    near, none, far = depth_colours(torch.tensor([-2.0, 0, 1]))
    assert near[0] == 1 and near[2] < 0.2 and (none == 1).all() and far[2] == 1 and far[0] < 0.2


def test_frames_are_spread_evenly():
    assert spread(10, 4) == [0, 3, 6, 9] and spread(3, 16) == [0, 1, 2] and spread(5, 1) == [0] and spread(0, 8) == []


def test_scales_are_round_numbers_above():
    assert [nice_above(v) for v in (0, 0.7, 1, 1.2, 4.9, 17, 51, float("nan"))] == [1, 1, 1, 2, 5, 20, 100, 1]
    pictures = FlowPictures(shifted(0.012, 0.0, -0.003))
    assert pictures.scale == 20 and pictures.depth_scale == 5
    assert FlowPictures(shifted(0.012, 0, 0), full=7.5).scale == 7.5


def test_the_direction_is_painted_on_the_head():
    field = shifted(0.015, 0.0, 0.0).resize(160, 192)
    picture = FlowPictures(field, full=30.0).direction(0)
    mask = field.head_mask()[0].numpy()
    mask[:40] = mask[-100:] = False  # title and wheel
    red, green, blue = picture[mask].astype(float).T
    assert (green / red).mean() == pytest.approx(0.5, abs=0.02) and np.abs(green - blue).max() <= 1


def test_a_window_holds_the_head_and_moves_with_its_portrait():
    field = a_field()
    zoomed, portrait = around_the_head(field, PHOTO, 64)
    assert portrait is not None and portrait.shape == (64, 64, 3) and (zoomed.camera.width, zoomed.camera.height) == (64, 64)
    for t in range(len(field)):
        mask = zoomed.head_mask(t)[0]
        assert mask.any() and not mask[[0, -1]].any() and not mask[:, [0, -1]].any()
    edge = zoomed.camera.focal / CAMERA.focal
    corner = (CAMERA.cx - zoomed.camera.cx / edge, CAMERA.cy - zoomed.camera.cy / edge)  # of the window, in the field's pixels
    grey = np.arange(80, dtype=np.uint8)[None, :, None].repeat(96, 0).repeat(3, 2) * 3  # a ramp: 3 levels a pixel
    _, ramp = around_the_head(field, grey, 64)
    x = corner[0] + (np.arange(64) + 0.5) / edge
    inside = (x > 2) & (x < 78)
    assert np.abs(ramp[32, inside, 0] - 3 * (x[inside] - 0.5)).max() < 1.5
    assert around_the_head(field, None, 64)[1] is None


def test_squares_lie_straight_where_nothing_moves():
    source = still(HEAD, CAMERA)
    here = FlowPictures(FlowField(source, source, HEAD, CAMERA, FEW), PHOTO).checkerboard(0)
    there = FlowPictures(shifted(0.02, 0.0, 0.0), PHOTO).checkerboard(0)
    pixels = 0.02 * CAMERA.focal / float(source.vertices(HEAD)[..., 2].mean())
    assert here[40:].std() > 20
    mask = shifted(0.02, 0.0, 0.0).head_mask()[0].numpy()
    moved = np.roll(here, round(pixels), 1)
    inner = mask & np.roll(mask, 4, 1) & np.roll(mask, -4, 1)
    inner[:30] = False
    assert np.abs(there[inner].astype(int) - here[inner]).mean() > 1.3 * np.abs(there[inner].astype(int) - moved[inner]).mean()


def test_layers_show_each_sample():
    field = shifted(0.01, 0.0, 0.0)
    picture = FlowPictures(field.resize(300, 300), full=20.0).layers(0)
    half = (np.abs(picture.astype(int) - (255, 128, 128)) <= 1).all(-1)  # 10 of 20 mm to the right, in every sample
    assert half[80:].mean() > 0.5


def test_arrows_lead_from_place_to_place():
    canvas = np.zeros((60, 60, 3), np.uint8)
    drawn = with_arrows(canvas, np.array([[10.5, 30.5]]), np.array([[50.5, 30.5]]), np.array([[200, 100, 50]], np.uint8))
    assert np.abs(drawn[30, 12:48].astype(int) - (200, 100, 50)).max() < 30 and (canvas == 0).all()
    assert (drawn[30, 54:] == 0).all() and (drawn[30, :7] == 0).all() and (drawn[10] == 0).all()
    bright = drawn.sum(-1) > 150
    assert bright[:, 40:50].sum() > 1.3 * bright[:, 12:22].sum()  # the head is at its end


def test_what_the_portrait_hides_is_red():
    turned = still(HEAD, CAMERA, rotation=torch.tensor([[0.0, 1.1, 0.0]]))
    field = FlowField(still(HEAD, CAMERA), turned, HEAD, CAMERA, FEW).resize(160, 192)
    picture = FlowPictures(field).visibility(0).astype(int)
    visible, mask = field.visibility()[0].numpy(), field.head_mask()[0].numpy()
    mask[:40] = False
    assert 0.2 < visible[mask].mean() < 0.95
    assert ((picture[..., 0] < picture[..., 1]) == visible)[mask].all()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("portrait", [PHOTO, None], ids=["portrait", "shaded"])
def test_every_view_has_the_field_s_size(view: str, portrait: np.ndarray | None):
    pictures = FlowPictures(a_field(sampling=FEW), portrait)
    picture = pictures.picture(view, -1)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    h, w = (96, 80) if view != "sheet" else (2 * 96 + 3 * 3, 3 * 80 + 4 * 3)
    assert picture.shape[:2] == (h, w)
    gone = FlowPictures(shifted(3.0, 0, 0), portrait).picture(view, 0)  # out of the picture
    assert gone.shape == picture.shape


def test_scales_are_drawn_in_the_corner():
    blank = np.full((256, 256, 3), 128, np.uint8)
    for drawn in (with_wheel(blank, 20.0), with_bar(blank, 5.0)):
        assert (drawn[:128] == 128).all() and (drawn[:, :100] == 128).all() and (drawn[-40:, -60:] != 128).any()
    wheel = with_wheel(blank, 20.0)
    assert (np.abs(wheel.astype(int) - (255, 255, 255)) < 12).all(-1).any()  # its middle is no move
    plate = titled(blank, "name", "words")
    assert (plate[:40, :100] != 128).any() and (plate[60:] == 128).all()


def test_unknown_views_and_portraits_are_refused():
    with pytest.raises(InputError, match="view is 'moon'"):
        FlowPictures(a_field()).picture("moon", 0)
    with pytest.raises(InputError, match="not one picture"):
        FlowPictures(a_field(), np.zeros((3, 8, 8, 3), np.uint8))


def test_the_report_gives_millimetres():
    text = flow_report(shifted(0.012, 0.0, -0.005))
    assert "moves by 13.0 mm (median), 95% of it by less than 13.0 mm" in text
    assert "camera's axis 95% by less than 5.0 mm" in text and "Millimetres: 10 to 20 100%." in text
    assert "1 frames, 80 x 96 pixels, 5 samples a ray, delta 0.01 m, near 0.65 m, far 1.25 m (version 2)" in text
    share = float(a_field().head_mask().float().mean((1, 2)).max())
    seen: list[tuple[int, int]] = []
    text = flow_report(a_field(), lambda done, total: seen.append((done, total)))
    assert f"to {share:.0%} of the picture" in text and list(dict.fromkeys(seen)) == [(1, 3), (2, 3), (3, 3)]
    assert "in frame 2; along" in text  # the last frame moves most


def test_the_report_warns():
    text = flow_report(shifted(3.0, 0.0, 0.6))
    assert "Out of the picture in 1 frames, the first is 0" in text and "leaves the depths" in text
    assert "0 frames" in flow_report(replace(a_field(), target=moving()[:0]))
