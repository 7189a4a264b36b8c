"""Time: missing frames filled, and the jitter of a detector taken out, with rotations kept on the rotation group."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor


def smooth(values: Tensor, sigma: float) -> Tensor:
    """Gaussian mean over time, (T, ...) with `sigma` in frames; the ends are held."""
    if len(values) < 2 or sigma <= 0:
        return values
    return torch.from_numpy(gaussian_filter1d(values.numpy(), sigma, axis=0, mode="nearest"))


def smooth_rotations(rotation: Tensor, sigma: float) -> Tensor:
    """Gaussian mean over time of axis-angle rotations (T, 3): the mean of unit quaternions, the chordal mean."""
    if len(rotation) < 2 or sigma <= 0:
        return rotation
    quaternion = Rotation.from_rotvec(rotation.numpy()).as_quat()
    flips = np.cumprod(np.where((quaternion[1:] * quaternion[:-1]).sum(1) < 0, -1.0, 1.0))
    quaternion[1:] *= flips[:, None]
    mean = gaussian_filter1d(quaternion, sigma, axis=0, mode="nearest")
    return torch.from_numpy(Rotation.from_quat(mean).as_rotvec())


def interpolate(values: Tensor, known: Tensor, count: int) -> Tensor:
    """Values (n, ...) at the frames `known` (n,) to all `count` frames, linear between and held beyond the ends."""
    at = np.arange(count)
    flat = values.reshape(len(values), -1).numpy()
    out = np.stack([np.interp(at, known.numpy(), column) for column in flat.T], 1) if flat.size else flat[at * 0]
    return torch.from_numpy(out).reshape(count, *values.shape[1:])


def interpolate_rotations(rotation: Tensor, known: Tensor, count: int) -> Tensor:
    """Rotations (n, 3) at the frames `known` to all `count` frames along geodesics, held beyond the ends."""
    if len(known) == 1:
        return rotation.expand(count, 3).clone()
    at = np.clip(np.arange(count), int(known[0]), int(known[-1]))
    return torch.from_numpy(Slerp(known.numpy(), Rotation.from_rotvec(rotation.numpy()))(at).as_rotvec())
