"""Gradients through the rasterizer: barycentrics by linear solves, derivatives by finite differences of rendered colours."""

import numpy as np
import pytest
import torch

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.render.differentiable import (
    barycentrics,
    clip_space,
    interpolate,
    pixel_centres,
    visible_triangles,
)
from comfyui_flow3d.flow3d.render.light import shading
from comfyui_flow3d.flow3d.render.rasterize import rasterize
from comfyui_flow3d.flow3d.render.shade import vertex_normals

CAMERA = Camera(focal=110.0, cx=31.0, cy=33.0, width=64, height=64)


def bumpy_sphere(dtype=torch.float64):
    """An icosahedron twice divided, with bumps: (V, 3) in the camera frame, (F, 3) counter-clockwise from outside."""
    g = (1 + 5**0.5) / 2
    v = [(-1, g, 0), (1, g, 0), (-1, -g, 0), (1, -g, 0), (0, -1, g), (0, 1, g), (0, -1, -g), (0, 1, -g), (g, 0, -1), (g, 0, 1),
         (-g, 0, -1), (-g, 0, 1)]  # fmt: skip
    f = [(0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11), (1, 5, 9), (5, 11, 4), (11, 10, 2), (10, 7, 6), (7, 1, 8),
         (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8), (3, 8, 9), (4, 9, 5), (2, 4, 11), (6, 2, 10), (8, 6, 7),
         (9, 8, 1)]  # fmt: skip
    v = [np.array(p) / np.linalg.norm(p) for p in v]
    for _ in range(2):
        middle, faces = {}, []
        for t in f:
            m = []
            for i, j in zip(t, (*t[1:], t[0]), strict=True):
                key = (min(i, j), max(i, j))
                if key not in middle:
                    middle[key] = len(v)
                    v.append((v[i] + v[j]) / np.linalg.norm(v[i] + v[j]))
                m.append(middle[key])
            faces += [(t[0], m[0], m[2]), (t[1], m[1], m[0]), (t[2], m[2], m[1]), tuple(m)]
        f = faces
    v = torch.tensor(np.stack(v), dtype=dtype)
    g = torch.Generator().manual_seed(0)
    v = v * (0.2 + 0.02 * torch.rand(len(v), 1, generator=g, dtype=dtype)) + torch.tensor([0.01, -0.02, 0.9], dtype=dtype)
    return v, torch.tensor(f)


def seen(vertices, faces):
    triangle = visible_triangles(vertices, faces, CAMERA)
    rows, columns = (triangle >= 0).nonzero(as_tuple=True)
    return triangle[rows, columns], pixel_centres(rows, columns, vertices)


def test_barycentrics_meet_the_ray():
    vertices, faces = bumpy_sphere()
    triangle, centres = seen(vertices, faces)
    ours = barycentrics(vertices[faces[triangle]], centres, CAMERA)
    rays = CAMERA.rays(torch.float64)[centres[:, 1].long(), centres[:, 0].long()]
    solved = np.linalg.solve(vertices[faces[triangle]].numpy().transpose(0, 2, 1), rays.numpy()[..., None])[..., 0]
    assert np.abs(ours.numpy() - solved / solved.sum(1, keepdims=True)).max() < 1e-9
    assert len(triangle) > 500


def test_float32_is_enough():
    vertices, faces = bumpy_sphere()
    triangle, centres = seen(vertices, faces)
    corners = vertices[faces[triangle]]
    assert (barycentrics(corners.float(), centres.float(), CAMERA) - barycentrics(corners, centres, CAMERA)).abs().max() < 2e-5


def test_gradcheck_of_shaded_colours():
    vertices, faces = bumpy_sphere()
    triangle, centres = seen(vertices, faces)
    some = slice(None, None, 97)
    g = torch.Generator().manual_seed(1)
    albedo = torch.rand(len(vertices), 3, generator=g, dtype=torch.float64)
    light = torch.randn(9, 3, generator=g, dtype=torch.float64)

    def colours(v, albedo, light):
        values = albedo * shading(vertex_normals(v[None], faces)[0], light)
        corners = faces[triangle[some]]
        return interpolate(values[corners], barycentrics(v[corners], centres[some], CAMERA))

    inputs = [t.requires_grad_() for t in (vertices, albedo, light)]
    assert torch.autograd.gradcheck(colours, inputs, eps=1e-6, atol=1e-5, rtol=1e-4)


def test_derivatives_are_those_of_the_picture():
    """Two pictures, drawn anew with the rasterizer's own barycentrics, wherever they show the same triangle."""
    vertices, faces = bumpy_sphere()
    g = torch.Generator().manual_seed(2)
    way = torch.randn(len(vertices), 3, generator=g, dtype=torch.float64) * 0.01
    values = torch.rand(len(vertices), 3, generator=g, dtype=torch.float64)
    step = 0.02

    def picture(v):
        drawn = rasterize(v[None], faces, CAMERA)
        return drawn.triangle[0], torch.einsum("hwc,hwcx->hwx", drawn.bary[0].double(), values[faces[drawn.triangle[0].long()]])

    (t0, a), (t1, b) = picture(vertices - step * way), picture(vertices + step * way)
    middle = visible_triangles(vertices, faces, CAMERA)
    rows, columns = ((t0 == t1) & (t0 == middle) & (t0 >= 0)).nonzero(as_tuple=True)
    corners, centres = faces[middle[rows, columns]], pixel_centres(rows, columns, vertices)

    def colours(v):
        return interpolate(values[corners], barycentrics(v[corners], centres, CAMERA))

    ours = torch.func.jvp(colours, (vertices,), (way,))[1]
    drawn = ((b - a) / (2 * step))[rows, columns]
    assert len(rows) > 400
    assert (ours - drawn).norm() < 0.02 * drawn.norm()


def test_visible_triangles_are_the_rasterizers():
    vertices, faces = bumpy_sphere(torch.float32)
    assert torch.equal(visible_triangles(vertices, faces, CAMERA), rasterize(vertices[None], faces, CAMERA).triangle[0].long())


def test_clip_space_is_the_cameras_view():
    vertices, _ = bumpy_sphere()
    camera = Camera(focal=80.0, cx=20.0, cy=37.0, width=48, height=64)
    x, y, z, w = clip_space(vertices, camera).unbind(-1)
    pixels = torch.stack([(x / w + 1) / 2 * camera.width, (y / w + 1) / 2 * camera.height], -1)
    assert torch.allclose(pixels, camera.project(vertices), atol=1e-9)
    assert (z / w).abs().max() < 1
    order = vertices[:, 2].argsort()
    assert ((z / w)[order].diff() >= 0).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_nvdiffrast_sees_the_same_triangles():
    pytest.importorskip("nvdiffrast")
    vertices, faces = bumpy_sphere(torch.float32)
    ours = rasterize(vertices[None], faces, CAMERA).triangle[0].long()
    theirs = visible_triangles(vertices.cuda(), faces.cuda(), CAMERA).cpu()
    assert (ours != theirs).float().mean() < 0.01
