"""Light in spherical harmonics: against Legendre functions, and Lambert's law integrated numerically."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad
from scipy.special import lpmv, roots_legendre

from comfyui_flow3d.flow3d.render.light import harmonics, reflected, shading

ORDERS = [(0, 0), (1, -1), (1, 0), (1, 1), (2, -2), (2, -1), (2, 0), (2, 1), (2, 2)]


def sphere(n=64):
    """(M, 3) directions and (M,) weights of a quadrature that is exact for polynomials."""
    z, wz = roots_legendre(n)
    phi = 2 * np.pi * np.arange(2 * n) / (2 * n)
    z, phi = (a.ravel() for a in np.meshgrid(z, phi, indexing="ij"))
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(phi), r * np.sin(phi), z], 1), np.repeat(wz, 2 * n) * np.pi / n


def real_harmonic(order, m, d):
    """By associated Legendre functions; the sign of Condon and Shortley taken out."""
    x, y, z = d.T
    k = abs(m)
    scale = math.sqrt((2 * order + 1) / (4 * math.pi) * math.factorial(order - k) / math.factorial(order + k))
    turn = np.arctan2(y, x)
    wave = 1.0 if m == 0 else math.sqrt(2) * (np.cos(k * turn) if m > 0 else np.sin(k * turn))
    return (-1) ** k * scale * lpmv(k, order, z) * wave


def test_harmonics_are_those_of_legendre():
    d, _ = sphere(12)
    ours = harmonics(torch.from_numpy(d)).numpy()
    theirs = np.stack([real_harmonic(*lm, d) for lm in ORDERS], 1)
    assert np.abs(ours - theirs).max() < 1e-12


def test_harmonics_are_orthonormal():
    d, w = sphere(12)
    y = harmonics(torch.from_numpy(d)).numpy()
    assert np.abs((y * w[:, None]).T @ y - np.eye(9)).max() < 1e-12


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shading_is_lamberts_integral(seed):
    """SciPy integrates light x cosine over the hemisphere of a surface whose light has nothing above second order."""
    random = np.random.default_rng(seed)
    light, n = random.normal(size=9), random.normal(size=3)
    n /= np.linalg.norm(n)
    u = np.linalg.svd(n[None])[2][1]
    v = np.cross(n, u)

    def arriving(phi, cosine):
        d = cosine * n + math.sqrt(1 - cosine**2) * (math.cos(phi) * u + math.sin(phi) * v)
        return cosine * float(sum(c * real_harmonic(*lm, d[None])[0] for c, lm in zip(light, ORDERS, strict=True)))

    total, _ = dblquad(arriving, 0, 1, 0, 2 * math.pi, epsabs=1e-7)
    ours = shading(torch.from_numpy(n), torch.from_numpy(light)[:, None])
    assert float(ours) == pytest.approx(total / math.pi, abs=1e-6)


def test_second_order_holds_nearly_all_of_a_lamps_cosine():
    """Ramamoorthi and Hanrahan: 99.2% of the clamped cosine's energy."""
    d, w = sphere(200)
    towards = np.array([0.48, -0.6, -0.64])
    lamp = np.stack([real_harmonic(*lm, towards[None])[0] for lm in ORDERS])[:, None]
    ours = shading(torch.from_numpy(d), torch.from_numpy(lamp)).numpy()[:, 0]
    cosine = (d @ towards).clip(0) / math.pi
    assert 1 - (w * (ours - cosine) ** 2).sum() / (w * cosine**2).sum() == pytest.approx(0.9922, abs=2e-4)


def test_white_light_leaves_white():
    light = torch.zeros(9, 3, dtype=torch.float64)
    light[0] = 2 * math.sqrt(math.pi)
    normals = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=1)
    assert torch.allclose(shading(normals, light), torch.ones(50, 3, dtype=torch.float64))
    assert torch.allclose(reflected(normals) @ light, shading(normals, light))
