"""Small made meshes: spheres, a torus, and a head of FLAME's shape with skin, eyeballs, jaw and blink."""

import torch
from torch import Tensor

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.head.model import EYEBALLS, SKIN, HeadModel
from comfyui_flow3d.flow3d.track import HeadTrack


def sphere(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """A unit sphere of latitudes and longitudes with single vertices at the poles, triangles outwards; float64."""
    down = torch.linspace(0, torch.pi, rows + 2, dtype=torch.float64)[1:-1]
    around = torch.arange(columns, dtype=torch.float64) * (2 * torch.pi / columns)
    d, a = torch.meshgrid(down, around, indexing="ij")
    ring = torch.stack([d.sin() * a.sin(), d.cos(), d.sin() * a.cos()], -1).reshape(-1, 3)
    poles = torch.tensor([[0.0, 1, 0], [0, -1, 0]], dtype=torch.float64)
    i = torch.arange(rows * columns).reshape(rows, columns)
    east = i.roll(-1, 1)
    top, bottom = torch.full((columns,), len(ring)), torch.full((columns,), len(ring) + 1)
    faces = [torch.stack([top, i[0], east[0]], 1), torch.stack([i[-1], bottom, east[-1]], 1)]
    for r in range(rows - 1):
        faces.append(torch.stack([i[r], i[r + 1], east[r]], 1))
        faces.append(torch.stack([east[r], i[r + 1], east[r + 1]], 1))
    return torch.cat([ring, poles]), torch.cat(faces)


def torus(major: float, minor: float, n: int, m: int) -> tuple[Tensor, Tensor]:
    """A torus about the y axis, float64."""
    u = torch.arange(n, dtype=torch.float64) * (2 * torch.pi / n)
    v = torch.arange(m, dtype=torch.float64) * (2 * torch.pi / m)
    u, v = torch.meshgrid(u, v, indexing="ij")
    r = major + minor * v.cos()
    i = torch.arange(n * m).reshape(n, m)
    a, b, c, d = i, i.roll(-1, 0), i.roll((-1, -1), (0, 1)), i.roll(-1, 1)
    faces = torch.cat([torch.stack([a, b, c], -1).reshape(-1, 3), torch.stack([a, c, d], -1).reshape(-1, 3)])
    return torch.stack([r * u.cos(), minor * v.sin(), r * u.sin()], -1).reshape(-1, 3), faces


def toy_head(rows: int = 16, columns: int = 24, dtype: torch.dtype = torch.float32) -> HeadModel:
    """An egg with two eyeballs that stand out a little; its expressions are a jaw drop, a blink and a smile."""
    egg, egg_faces = sphere(rows, columns)
    ball, ball_faces = sphere(6, 8)
    eyes = torch.tensor([[0.032, 0.03, 0.075], [-0.032, 0.03, 0.075]], dtype=torch.float64)
    v = torch.cat([egg * torch.tensor([0.075, 0.11, 0.09]), ball * 0.014 + eyes[0], ball * 0.014 + eyes[1]])
    n, m = len(egg), len(ball)
    faces = torch.cat([egg_faces, ball_faces + n, ball_faces + n + m])
    parts = torch.cat([torch.full((len(egg_faces),), SKIN), torch.full((2 * len(ball_faces),), EYEBALLS)])
    weights = torch.zeros(len(v), 5, dtype=torch.float64)
    front = torch.sigmoid((v[:, 2] - 0.02) / 0.01) * torch.sigmoid((-0.02 - v[:, 1]) / 0.01)
    weights[:, 2], weights[:, 1] = front, 0.9 * (1 - front)
    weights[:, 0] = 1 - weights.sum(1)
    weights[n:] = 0
    weights[n : n + m, 3], weights[n + m :, 4] = 1, 1
    x, y, z = v.T
    skin = (torch.arange(len(v)) < n).double()[:, None]
    shapes = torch.stack([
        torch.stack([x * 0.1, y * 0.02, z * 0], 1),
        torch.stack([x * 0, y * 0.1, z * 0.05], 1),
        torch.stack([x * y * y * 8, y * 0, z * y * 0.8], 1) * skin,
    ])  # fmt: skip
    lid = (-((y - 0.03) ** 2 + (x.abs() - 0.032) ** 2) / 0.012**2).exp() * (z > 0)
    mouth = (-((y + 0.05) ** 2 + (x.abs() - 0.03) ** 2) / 0.02**2).exp() * (z > 0)
    zero = torch.zeros_like(x)
    expressions = torch.stack([
        torch.stack([zero, -0.02 * front, zero], 1) * skin,
        torch.stack([zero, -0.01 * lid, 0.006 * lid], 1) * skin,
        torch.stack([0.01 * mouth * x.sign(), 0.012 * mouth, -0.004 * mouth], 1) * skin,
    ])  # fmt: skip
    regressor = torch.zeros(5, len(v), dtype=torch.float64)
    for j, place in enumerate([[0, -0.1, -0.02], [0, -0.08, -0.02], [0, -0.01, 0.0]]):
        near = (v[:n] - torch.tensor(place)).norm(dim=1).topk(12, largest=False).indices
        regressor[j, near] = 1 / 12
    regressor[3, n : n + m], regressor[4, n + m :] = 1 / m, 1 / m
    return HeadModel(
        "toy", v.to(dtype), shapes.to(dtype), expressions.to(dtype), torch.zeros(36, len(v), 3, dtype=dtype),
        regressor.to(dtype), weights.to(dtype), faces, expression_names=("jawOpen", "eyeBlink", "mouthSmile"), parts=parts,
    )  # fmt: skip


def still(head: HeadModel, camera: Camera, **changes: Tensor) -> HeadTrack:
    """A neutral head one metre away, one frame, with some of the track's fields replaced."""
    fields = {
        "shape": torch.zeros(head.n_shape),
        "expression": torch.zeros(1, head.n_expression),
        "joints": torch.zeros(1, head.n_joints - 1, 3),
        "rotation": torch.zeros(1, 3),
        "translation": torch.tensor([[0.0, 0.08, 1.0]]),
    } | changes
    return HeadTrack(camera=camera, **{k: v.to(head.dtype) for k, v in fields.items()})
