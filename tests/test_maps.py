"""Depth, normal and part maps of a sphere, whose truth is known."""

import torch
from toy_heads import sphere

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.render.maps import normal_map, part_map, relative_depth
from comfyui_flow3d.flow3d.render.rasterize import rasterize

CAMERA = Camera.from_field_of_view(96, 96)
CENTRE = torch.tensor([0.0, 0.0, 1.0])
VERTICES, FACES = sphere(48, 64)
BALL = (VERTICES * 0.15).float() + CENTRE
BOTH = torch.stack([BALL, BALL + torch.tensor([0.02, 0.0, 0.3])])
SEEN = rasterize(BOTH, FACES, CAMERA)


def test_normals_point_away_from_the_centre():
    normals = normal_map(BOTH, FACES, SEEN)
    mask = SEEN.triangle >= 0
    points = CAMERA.rays() * SEEN.depth[..., None]
    for i, centre in enumerate((CENTRE, CENTRE + torch.tensor([0.02, 0.0, 0.3]))):
        expected = torch.nn.functional.normalize(points[i] - centre, dim=-1)[mask[i]]
        assert (normals[i][mask[i]] * expected).sum(-1).min() > 0.995
        assert (normals[i][~mask[i]] == 0).all()
        assert normals[i, 48, 48, 2] < -0.99  # the middle faces the camera


def test_relative_depth_runs_from_the_nearest_to_the_farthest():
    depth = relative_depth(SEEN)
    mask = SEEN.triangle >= 0
    for i in range(2):
        inside = SEEN.depth[i][mask[i]]
        assert depth[i].max() == 1 and depth[i].flatten()[SEEN.depth[i].masked_fill(~mask[i], 9).argmin()] == 1
        expected = (inside.max() - inside) / (inside.max() - inside.min())
        assert (depth[i][mask[i]] - expected).abs().max() < 1e-6
        assert (depth[i][~mask[i]] == 0).all()
    assert (relative_depth(rasterize(BOTH[:1] - 5, FACES, CAMERA)) == 0).all()


def test_parts_follow_the_triangles():
    middle = BOTH[0][FACES].mean(1)
    parts = (middle[:, 0] > 0).long()
    seen = part_map(parts, SEEN)
    assert torch.equal(seen >= 0, SEEN.triangle >= 0)
    assert (seen[0, 40:56, 52:60] == 1).all() and (seen[0, 40:56, 36:44] == 0).all()
