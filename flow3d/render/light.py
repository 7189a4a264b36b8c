"""Distant light on a matt surface, in spherical harmonics of second order.

Ramamoorthi and Hanrahan, "An Efficient Representation for Irradiance Environment Maps", 2001: the cosine of Lambert's
law passes hardly more than the nine lowest harmonics of the light, so that nine numbers a colour say what a matt
surface sees of it (within 1% on average, equations 3 and 11). Cast shadows and highlights are not in it.
"""

import math

import torch
from torch import Tensor

N_HARMONICS = 9
_COSINE = (math.pi, *[2 * math.pi / 3] * 3, *[math.pi / 4] * 5)
"""Lambert's clamped cosine in zonal harmonics, order by order (equation 8)."""


def harmonics(directions: Tensor) -> Tensor:
    """The real spherical harmonics Y00, Y1-1, Y10, Y11, Y2-2, Y2-1, Y20, Y21, Y22 (equation 3).

    Args:
        directions: (..., 3) unit vectors.

    Returns:
        (..., 9), orthonormal over the sphere.
    """
    x, y, z = directions.unbind(-1)
    terms = [
        torch.full_like(x, 0.5 * math.sqrt(1 / math.pi)),
        *(math.sqrt(3 / (4 * math.pi)) * t for t in (y, z, x)),
        *(0.5 * math.sqrt(15 / math.pi) * t for t in (x * y, y * z)),
        0.25 * math.sqrt(5 / math.pi) * (3 * z * z - 1),
        0.5 * math.sqrt(15 / math.pi) * (x * z),
        0.25 * math.sqrt(15 / math.pi) * (x * x - y * y),
    ]
    return torch.stack(terms, -1)


def reflected(normals: Tensor) -> Tensor:
    """(..., 9) what each harmonic of the light adds to the light that a white matt surface sends back; linear in the light.

    Args:
        normals: (..., 3) unit vectors in the frame of the light.
    """
    return harmonics(normals) * (normals.new_tensor(_COSINE) / math.pi)


def shading(normals: Tensor, light: Tensor) -> Tensor:
    """(..., C) radiance of a white matt surface: times an albedo it is a colour (irradiance over pi).

    Args:
        normals: (..., 3) unit vectors, camera frame. light: (9, C) radiance in spherical harmonics, camera frame.
    """
    return reflected(normals) @ light
