"""Keyframes: values against SciPy and the smoothstep, the syntax, and the sentences for what is wrong."""

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicHermiteSpline, make_interp_spline

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.fit.keyframes import MAX_FRAMES, Keyframes, parse_settings

FRAMES, VALUES = (3, 10, 14, 30, 31), (2.0, -1.0, 4.0, 4.0, 9.0)


def parsed(*lines, curve=None):
    return dict(parse_settings(lines, curve))


def test_linear():
    got = Keyframes(FRAMES, VALUES).at(40)
    assert np.allclose(got[3:32], make_interp_spline(FRAMES, VALUES, k=1)(np.arange(3, 32)))
    assert (got[:3] == 2).all() and (got[32:] == 9).all()


def test_smooth_between_two_keyframes_is_the_smoothstep():
    t = np.arange(25) / 24
    assert np.allclose(Keyframes((0, 24), (1.0, 5.0), "smooth").at(25), 1 + 4 * t * t * (3 - 2 * t))


def test_smooth_has_the_slopes_of_fritsch_and_carlson():
    """Weighted harmonic means of the neighbouring slopes, 0 at ends and peaks; a cubic Hermite spline through them."""
    x, y = np.array(FRAMES, dtype=float), np.array(VALUES)
    h, d = np.diff(x), np.diff(y) / np.diff(x)
    slopes = np.zeros(len(x))
    for i in range(1, len(x) - 1):
        if d[i - 1] * d[i] > 0:
            a, b = 2 * h[i] + h[i - 1], h[i] + 2 * h[i - 1]
            slopes[i] = (a + b) / (a / d[i - 1] + b / d[i])
    got = Keyframes(FRAMES, VALUES, "smooth").at(40)
    assert np.allclose(got[3:32], CubicHermiteSpline(x, y, slopes)(np.arange(3, 32)))
    assert (got[:3] == 2).all() and (got[32:] == 9).all()
    rising = Keyframes((0, 10, 20), (0.0, 2.0, 9.0), "smooth").at(21)
    assert (np.diff(rising) > 0).all()


@pytest.mark.parametrize("easing", ["linear", "smooth"])
def test_keyframes_are_met_exactly(easing):
    keys = Keyframes(FRAMES, VALUES, easing)
    assert keys.at(len(keys))[list(FRAMES)].tolist() == list(VALUES)
    assert Keyframes((7,), (3.0,), easing).at(20).tolist() == [3.0] * 20
    assert len(keys) == 32 and len(keys.at(5)) == 5


def test_scaling_and_shifting():
    for easing in ("linear", "smooth"):
        keys = Keyframes(FRAMES, VALUES, easing)
        assert np.allclose(keys.times(-3).at(40), -3 * keys.at(40))
        assert np.allclose(keys.plus(7).at(40), 7 + keys.at(40))


@pytest.mark.parametrize("values", [[0.0, 0.5, 2.0], (0, 0.5, 2), np.array([[0, 0.5, 2]]), torch.tensor([0, 0.5, 2.0]), [[0.0, 0.5, 2.0]]])
def test_a_curve_of_any_kind(values):
    assert Keyframes.every_frame(values) == Keyframes((0, 1, 2), (0.0, 0.5, 2.0))


@pytest.mark.parametrize("line", [
    "yaw: 0: 0, 24: 1, 48: 0", "yaw=0:0,24:1,48:0", "  yaw :0:0,24 :1 , 48: 0,", "yaw = 24: 1; 0: 0; 48: 0.0", "yaw: 0: 0, 24: 1, 48: 0 linear",
    "yaw: 0: -0, 24: +1, 48: 0e0  # up and down, twice: 3",
])  # fmt: skip
def test_ways_to_write_the_same(line):
    assert parsed(line) == {"yaw": Keyframes((0, 24, 48), (0.0, 1.0, 0.0))}


def test_easings():
    for line in ("yaw: 0: 1, 5: 2 smooth", "yaw: 0: 1, 5: 2, smooth", "yaw=0:1,5:2smooth"):
        assert parsed(line)["yaw"] == Keyframes((0, 5), (1.0, 2.0), "smooth")


def test_several_on_a_line():
    assert parsed("smile=1, yaw: 0: 0, 24: 5 smooth, roll: -2", "", "# a note", "x: .5") == {
        "smile": 1.0, "yaw": Keyframes((0, 24), (0.0, 5.0), "smooth"), "roll": -2.0, "x": 0.5,
    }  # fmt: skip


def test_a_connected_curve():
    curve = Keyframes.every_frame([0.0, 1.0])
    assert parsed("yaw: curve", "roll=curve * -20", curve=curve) == {"yaw": curve, "roll": curve.times(-20)}
    with pytest.raises(InputError, match="'yaw: curve' is not an edit.*no curve"):
        parsed("yaw: curve")


@pytest.mark.parametrize(("line", "says"), [
    ("yaw", "NAME=NUMBER"), ("yaw=", "FRAME: VALUE"), ("=3", "NAME=NUMBER"), ("yaw=much", "FRAME: VALUE"),
    ("yaw: 0: 0, 24", "'24' is not FRAME"), ("yaw: 0: 0, 24:", "'24:' is not"), ("yaw: 1.5: 3", "'1.5: 3'.*whole"),
    ("yaw: -3: 1", "'-3: 1'"), ("yaw: 0: 1, 0: 2", "Frame 0 has two values"), ("yaw: 0: nan", "frame 0 is nan"),
    ("yaw: 0: 1, 3: inf", "frame 3 is inf"), ("yaw: 0: 1, 5: 2 bouncy", "easing 'bouncy'.*linear, smooth"),
    ("yaw=10,5", "'10' is not FRAME"), ("yaw: curve * big", "'big' is not a number"),
    (f"yaw: {MAX_FRAMES}: 1", f"frames 0 to {MAX_FRAMES - 1}"), ("yaw: 0: 1 2", "'0: 1 2'"), ("12: 3", "NAME=NUMBER"),
    ("yaw: ²: 1", "'²: 1'"),
])  # fmt: skip
def test_what_cannot_be_read_is_named(line, says):
    with pytest.raises(InputError, match=says):
        parsed(line, curve=Keyframes((0,), (1.0,)))
    with pytest.raises(InputError, match=r"\(line 3\)"):
        parsed("roll=1", "", line, "x=2", curve=Keyframes((0,), (1.0,)))


@pytest.mark.parametrize(("arguments", "says"), [
    (((), ()), "0 keyframes"), (((0, 1), (1.0,)), "2 keyframes with 1"), (((3, 1), (1.0, 2.0)), "after frame 3"),
    (((1, 1), (1.0, 2.0)), "two values"), (((-1,), (1.0,)), "outside"), (((0,), (float("nan"),)), "finite"),
    (((0,), (1.0,), "bouncy"), "bouncy"),
])  # fmt: skip
def test_what_is_no_curve(arguments, says):
    with pytest.raises(InputError, match=says):
        Keyframes(*arguments)
    for wrong in ([], [1.0, float("inf")], "abc", [[1, 2], [3]], object()):
        with pytest.raises(InputError):
            Keyframes.every_frame(wrong)
