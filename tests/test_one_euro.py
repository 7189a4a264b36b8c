"""The One-Euro filter against the paper's algorithm, written down plainly, and against what can be said in closed form."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.fit.one_euro import Filtered, OneEuro, filtered, filtered_rotation


def as_published(times: list[float], signal: list[float], fcmin: float, beta: float, dcutoff: float) -> list[float]:
    """Algorithm 1 and 2 of Casiez, Roussel and Vogel (2012), one number at a time."""

    def alpha(rate: float, cutoff: float) -> float:
        tau = 1.0 / (2 * math.pi * cutoff)
        te = 1.0 / rate
        return 1.0 / (1.0 + tau / te)

    out: list[float] = []
    hatxprev = dhatxprev = 0.0
    for i, x in enumerate(signal):
        if i == 0:
            hatxprev, dhatxprev = x, 0.0
        else:
            rate = 1.0 / (times[i] - times[i - 1])
            dx = (x - hatxprev) * rate
            a = alpha(rate, dcutoff)
            edx = a * dx + (1 - a) * dhatxprev
            cutoff = fcmin + beta * abs(edx)
            a = alpha(rate, cutoff)
            hatxprev, dhatxprev = a * x + (1 - a) * hatxprev, edx
        out.append(hatxprev)
    return out


def run(settings: OneEuro, times: list[float], signal: Tensor, step=filtered) -> Tensor:
    last: Filtered | None = None
    out = []
    for time, value in zip(times, signal, strict=True):
        last = step(settings, last, time, value)
        out.append(last.value)
    return torch.stack(out)


def even(count: int, rate: float = 30.0) -> list[float]:
    return [i / rate for i in range(count)]


@pytest.mark.parametrize(("fcmin", "beta", "dcutoff"), [(1.0, 0.0, 1.0), (0.3, 2.5, 1.0), (5.0, 0.01, 3.0)])
def test_it_is_the_published_filter(fcmin: float, beta: float, dcutoff: float) -> None:
    """Each channel by itself, at uneven times."""
    random = np.random.default_rng(0)
    times = np.cumsum(random.uniform(0.01, 0.1, 200)).tolist()
    signal = np.cumsum(random.normal(size=(200, 3)) * (0.01, 0.3, 4.0), 0)
    got = run(OneEuro(fcmin, beta, dcutoff), times, torch.from_numpy(signal)).numpy()
    wanted = np.array([as_published(times, column.tolist(), fcmin, beta, dcutoff) for column in signal.T]).T
    assert np.abs(got - wanted).max() < 1e-10


def test_what_is_constant_stays_to_the_bit() -> None:
    value = torch.tensor([0.1, -3.0, 1e-9], dtype=torch.float64)
    assert torch.equal(run(OneEuro(1, 5), even(40), value.expand(40, 3)), value.expand(40, 3))
    turn = torch.tensor([0.4, -2.0, 1.1], dtype=torch.float64)
    assert torch.allclose(run(OneEuro(1, 5), even(40), turn.expand(40, 3), filtered_rotation), turn.expand(40, 3), atol=1e-7)


def test_a_step_is_answered_exponentially() -> None:
    """Without beta it is a first-order low-pass: what is missing shrinks by 1 - alpha with each frame."""
    signal = torch.cat([torch.zeros(5, 1), torch.ones(40, 1)]).double()
    out = run(OneEuro(2.0, 0.0), even(45), signal)[5:, 0]
    alpha = 1 / (1 + 30 / (2 * math.pi * 2.0))
    assert torch.allclose(1 - out, (1 - alpha) ** torch.arange(1, 41, dtype=torch.float64), atol=1e-12)


def test_speed_opens_the_filter() -> None:
    """On a ramp of v a second the lag settles at v dt (1 - alpha) / alpha, alpha being that of the speed's cutoff."""
    v, times = 3.0, even(3000)
    signal = v * torch.tensor(times, dtype=torch.float64)[:, None]
    lag = float((signal - run(OneEuro(0.5, 4.0), times, signal))[-1])
    speed = v + lag * 30  # it is measured from the filtered value, which lies back
    alpha = 1 / (1 + 30 / (2 * math.pi * (0.5 + 4.0 * speed)))
    assert lag == pytest.approx(v / 30 * (1 - alpha) / alpha, rel=1e-6)
    slow = float((signal - run(OneEuro(0.5, 0.0), times, signal))[-1])
    assert lag < 0.1 * slow


def test_rotations_about_one_axis_are_angles() -> None:
    """Oracle: the published filter on the angle; beyond half a turn it goes on where axis-angle jumps."""
    random = np.random.default_rng(1)
    angle = np.cumsum(random.normal(0.03, 0.05, 150))
    assert angle.max() > math.pi
    axis = np.array([2.0, -1.0, 2.0]) / 3
    rotations = torch.from_numpy(Rotation.from_rotvec(angle[:, None] * axis).as_rotvec())
    got = Rotation.from_rotvec(run(OneEuro(1.0, 2.0), even(150), rotations, filtered_rotation).numpy())
    wanted = Rotation.from_rotvec(np.array(as_published(even(150), angle.tolist(), 1.0, 2.0, 1.0))[:, None] * axis)
    assert (got.inv() * wanted).magnitude().max() < 1e-6


def test_rotations_do_not_depend_on_the_frame() -> None:
    random = np.random.default_rng(2)
    motion = Rotation.from_rotvec(np.cumsum(random.normal(0, 0.1, (80, 3)), 0))
    left, right = Rotation.from_rotvec([0.3, 2.5, -0.4]), Rotation.from_rotvec([-1.0, 0.2, 0.9])
    plain, moved = (
        Rotation.from_rotvec(run(OneEuro(1, 3), even(80), torch.from_numpy(r.as_rotvec()), filtered_rotation).numpy())
        for r in (motion, left * motion * right)
    )
    assert (moved.inv() * (left * plain * right)).magnitude().max() < 1e-6


def test_joints_are_filtered_one_by_one() -> None:
    random = np.random.default_rng(3)
    joints = torch.from_numpy(np.cumsum(random.normal(0, 0.05, (30, 1, 4, 3)), 0))
    together = run(OneEuro(1, 3), even(30), joints, filtered_rotation)
    alone = torch.stack([run(OneEuro(1, 3), even(30), joints[:, 0, j], filtered_rotation) for j in range(4)], 1)
    assert torch.allclose(together[:, 0], alone, atol=1e-12)


@pytest.mark.parametrize("step", [filtered, filtered_rotation])
@pytest.mark.parametrize("time", [1.0, 0.5, float("nan"), float("inf")])
def test_time_goes_on(step, time: float) -> None:
    last = step(OneEuro(1, 0), None, 1.0, torch.zeros(3))
    with pytest.raises(InputError, match="later time"):
        step(OneEuro(1, 0), last, time, torch.zeros(3))


def test_a_first_time_that_is_none() -> None:
    with pytest.raises(InputError, match="time of a frame is nan"):
        filtered(OneEuro(1, 0), None, float("nan"), torch.zeros(3))


@pytest.mark.parametrize("numbers", [(0, 1, 1), (1, -1, 1), (1, 1, 0), (float("nan"), 1, 1), (1, float("inf"), 1)])
def test_settings_that_cannot_be(numbers: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match="One-Euro filter"):
        OneEuro(*numbers)
