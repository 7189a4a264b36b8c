"""Retargeting, against SciPy's rotations and what a camera sees."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small_head import NAMES, random_track, small_head

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.fit.retarget import PARTS, retarget
from comfyui_flow3d.flow3d.io.motions import load_motion

HEAD = small_head()
SOURCE = random_track(HEAD, 1, 10)
DRIVER = random_track(HEAD, 6, 11, 1024, growth=3.0)


def with_offsets(track, seed, scale=0.01):
    g = torch.Generator().manual_seed(seed)
    return replace(track, landmark_offsets=scale * torch.randn(len(track), 478, 3, generator=g, dtype=torch.float64))


def identical(a, b, *names):
    for name in names or [n for n in a.__dataclass_fields__ if isinstance(getattr(a, n), torch.Tensor)]:
        assert torch.equal(getattr(a, name), getattr(b, name)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offsets", [False, True])
def test_relative_starts_with_the_source_bit_for_bit(dtype, offsets):
    source, driver = SOURCE, DRIVER
    if offsets:
        source, driver = with_offsets(source, 1), with_offsets(driver, 2)
    fields = {n: getattr(source, n).to(dtype) for n in ("shape", "expression", "joints", "rotation", "translation")}
    fields["expression"] = fields["expression"] * 1.3 - 0.1  # a fit may leave 0..1
    source = replace(source, **fields)
    target = retarget(HEAD, source, driver)
    first = ["shape", "expression", "joints", "rotation", "translation"] + ["landmark_offsets"] * offsets
    identical(target[:1], source, *first)
    assert target.camera == source.camera and target.rotation.dtype == dtype
    assert target.fps == driver.fps and torch.equal(target.confidence, driver.confidence.to(dtype))
    still = retarget(HEAD, source, driver[[0, 3, 0]])
    identical(still[2:], source, *first)


def test_relative_rotations_compose():
    target = retarget(HEAD, SOURCE, DRIVER)
    for name in ("rotation", "neck", "jaw"):
        start, drive, got = (Rotation.from_rotvec(getattr(t, name).numpy()) for t in (SOURCE, DRIVER, target))
        expected = drive * drive[0].inv() * start[0]
        assert (expected.inv() * got).magnitude().max() < 1e-6, name
    for eye in range(2):
        start, drive, got = (Rotation.from_rotvec(t.eyes[:, eye].numpy()) for t in (SOURCE, DRIVER, target))
        assert ((drive * drive[0].inv() * start[0]).inv() * got).magnitude().max() < 1e-6


def test_relative_expression_adds_in_head_sizes_and_stays_in_range():
    """The driver's head is 1.3 times as large as the source's: its components move a face by as much more."""
    target = retarget(HEAD, SOURCE, DRIVER)
    wanted = SOURCE.expression + (DRIVER.expression - DRIVER.expression[0]) / 1.3
    lower = torch.tensor([n.startswith(("mouth", "jaw")) for n in NAMES])
    assert torch.allclose(target.expression[:, ~lower], wanted[:, ~lower].clamp(0, 1), atol=1e-6)
    assert torch.allclose(target.expression[:, lower], wanted[:, lower].clamp(-0.5, 1), atol=1e-6)
    assert (wanted[:, ~lower] < 0).any() and (wanted[:, lower] < -0.1).any()
    unnamed = small_head((), 9)
    assert torch.allclose(retarget(unnamed, SOURCE, DRIVER).expression, wanted, atol=1e-6)


def test_lips_let_go_of_what_the_driver_begins_with(open_head):
    """A driver whose first frame presses its lips widens its mouth, in head sizes, as much as a calm source does by it."""
    idle = load_motion("idle", open_head)[[0, 0]]
    press = [open_head.expression_index(f"mouthPress{side}") for side in ("Left", "Right")]
    expression = torch.zeros_like(idle.expression)
    expression[0, press] = 0.4
    driver = replace(idle, expression=expression, landmark_offsets=None)
    source = replace(idle[[0]], expression=expression[[1]], shape=0.5 * torch.ones(open_head.n_shape))
    target = retarget(open_head, source, driver)

    def change(track):
        corners = open_head.dense.on(track.vertices(open_head), open_head.faces)[:, [61, 291]]
        return (corners[1] - corners[0])[:, 0]

    theirs, ours = change(driver), change(target)
    assert theirs.abs().min() > 2e-4
    assert torch.allclose(ours / theirs, (ours / theirs).mean().expand(2), rtol=0.2) and 0.5 < (ours / theirs).mean() < 2


def head_sizes(track):
    """(T,) pixels: the size of the neutral head in the picture, f s / z; and (T, 2) the root in head sizes."""
    points = HEAD.shaped(track.shape[None].float())[0].double()
    size = (points - points.mean(0)).square().sum(-1).mean().sqrt()
    pixels = track.camera.focal * size / track.translation[:, 2]
    return pixels, track.camera.project(track.translation) / pixels[:1, None]


def test_relative_moves_the_same_in_the_picture():
    """In units of the head's size at the first frame, the root moves in both pictures alike; sizes change alike."""
    target = retarget(HEAD, SOURCE, DRIVER)
    (size_d, root_d), (size_t, root_t) = head_sizes(DRIVER), head_sizes(target)
    assert torch.allclose(size_d / size_d[0], size_t / size_t[0], rtol=1e-6)
    assert torch.allclose(root_d - root_d[0], root_t - root_t[0], atol=1e-6)


def test_absolute_takes_the_drivers_values():
    target = retarget(HEAD, SOURCE, DRIVER, "absolute")
    identical(target, DRIVER, "expression", "joints", "rotation")
    assert torch.equal(target.shape, SOURCE.shape) and target.camera == SOURCE.camera


def test_absolute_stands_where_the_driver_stands():
    """Both against the picture's short side: the same place and size."""
    other = replace(DRIVER, camera=replace(DRIVER.camera, focal=DRIVER.camera.focal * 1.7))
    target = retarget(HEAD, SOURCE, other, "absolute")
    (size_d, _), (size_t, _) = head_sizes(other), head_sizes(target)
    assert torch.allclose(size_d / 1024, size_t / 512, rtol=1e-6)
    place_d, place_t = other.camera.project(other.translation) / 1024, target.camera.project(target.translation) / 512
    assert torch.allclose(place_d, place_t, atol=1e-6)


TAKEN = {
    "expression": (("browInnerUp", "eyeBlinkLeft", "eyeBlinkRight", "mouthSmileLeft", "mouthSmileRight"), ()),
    "jaw": (("jawOpen", "mouthClose"), ("jaw",)),
    "eyes": (("eyeLookDownLeft", "eyeLookDownRight"), ("left_eye", "right_eye")),
    "pose": ((), ("neck",)),
    "translation": ((), ()),
}


@pytest.mark.parametrize("mode", ["relative", "absolute"])
@pytest.mark.parametrize("part", sorted(PARTS))
def test_each_part_alone(mode, part):
    whole = retarget(HEAD, with_offsets(SOURCE, 1), with_offsets(DRIVER, 2), mode)
    target = retarget(HEAD, with_offsets(SOURCE, 1), with_offsets(DRIVER, 2), mode, {part})
    expressions, joints = TAKEN[part]
    for i, name in enumerate(NAMES):
        expected = whole.expression[:, i] if name in expressions else SOURCE.expression[:, i].expand(6)
        assert torch.equal(target.expression[:, i], expected), name
    for name in ("neck", "jaw", "left_eye", "right_eye"):
        expected = whole.joint(name) if name in joints else SOURCE.joint(name).expand(6, 3)
        assert torch.equal(target.joint(name), expected), name
    for name, owner in (("rotation", "pose"), ("translation", "translation"), ("landmark_offsets", "expression")):
        start = getattr(with_offsets(SOURCE, 1), name)
        expected = getattr(whole, name) if part == owner else start.expand(6, *start.shape[1:])
        assert torch.equal(getattr(target, name), expected), name


def test_no_parts_is_the_source_standing_still():
    target = retarget(HEAD, SOURCE, DRIVER, parts=())
    for t in range(6):
        identical(target[t : t + 1], SOURCE, "expression", "joints", "rotation", "translation")


def test_landmark_offsets_follow_in_head_sizes():
    """The driver's first identity component of 3 makes it 1.3 times as large as the template."""
    driver = with_offsets(DRIVER, 2)
    change = (driver.landmark_offsets - driver.landmark_offsets[0]) / 1.3
    assert torch.allclose(retarget(HEAD, SOURCE, driver).landmark_offsets, change, atol=1e-8)
    source = with_offsets(SOURCE, 1)
    assert torch.allclose(retarget(HEAD, source, driver).landmark_offsets, source.landmark_offsets + change, atol=1e-8)
    kept = retarget(HEAD, source, DRIVER).landmark_offsets
    assert torch.equal(kept, source.landmark_offsets.expand(6, -1, -1))
    absolute = retarget(HEAD, SOURCE, driver, "absolute").landmark_offsets
    assert torch.allclose(absolute, (driver.landmark_offsets - driver.landmark_offsets.mean(0)) / 1.3, atol=1e-8)


def test_bundled_motions_fit_any_head():
    turn = load_motion("turn")
    target = retarget(HEAD, SOURCE, turn)
    turned = Rotation.from_rotvec(target.rotation.numpy()) * Rotation.from_rotvec(SOURCE.rotation.numpy())[0].inv()
    assert abs(np.degrees(turned.magnitude()).max() - 20) < 0.2
    plain = small_head((), 4)
    source = random_track(plain, 1, 3)
    assert len(retarget(plain, source, load_motion("talk"))) == len(load_motion("talk"))
    assert retarget(plain, source, load_motion("talk")).jaw[:, 0].std() > 0.02


def test_the_open_head_starts_with_the_source_bit_for_bit(open_head):
    """With landmarks and ARKit's names, where eyelids are matched too; frames of the driver that repeat the first as well."""
    idle = load_motion("idle", open_head)[[40]]
    g = torch.Generator().manual_seed(3)
    source = replace(
        idle,
        shape=0.7 * torch.randn(open_head.n_shape, generator=g),
        landmark_offsets=0.001 * torch.randn(1, 478, 3, generator=g),
        expression=(idle.expression + 0.2 * torch.rand(1, 52, generator=g)).clamp(0, 1),
    )
    target = retarget(open_head, source, load_motion("medley"))
    for frame in (0, len(target) - 1):
        identical(target[[frame]], source, "expression", "joints", "rotation", "translation", "landmark_offsets", "shape")
    shut = load_motion("medley").expression[:, open_head.expression_index("eyeBlinkRight")].argmax()
    assert target.expression[shut, open_head.expression_index("eyeBlinkRight")] > 0.5


@pytest.mark.parametrize("reference", [0, 3, 5])
def test_relative_to_a_chosen_frame(reference):
    """The reference is the source bit for bit; every frame is as if the driver had begun there."""
    source, driver = with_offsets(SOURCE, 1), with_offsets(DRIVER, 2)
    target = retarget(HEAD, source, driver, reference=reference)
    fields = ("expression", "joints", "rotation", "translation", "landmark_offsets")
    identical(target[[reference]], source, *fields)
    for t in range(len(driver)):
        pair = retarget(HEAD, source, driver[[reference, t]])[1:]
        identical(target[[t]], pair, *fields)


def test_openings_follow_the_reference(open_head):
    """The lids' share and the lips' change are measured against the chosen frame, here one with the mouth open."""
    driver = load_motion("talk", open_head)
    source = replace(load_motion("idle", open_head)[[0]], shape=0.5 * torch.ones(open_head.n_shape))
    jaw = open_head.expression_index("jawOpen")
    reference = int(driver.expression[:, jaw].argmax())
    assert reference > 0
    target = retarget(open_head, source, driver, reference=reference)
    identical(target[[reference]], source, "expression", "joints", "rotation", "translation")
    again = retarget(open_head, source, driver[[reference, *range(0, len(driver), 9)]])
    assert torch.equal(target.expression[::9], again.expression[1:])


@pytest.mark.parametrize(("change", "says"), [
    ({"reference": 6}, "reference frame is 6, but the driver has 6 frames"),
    ({"reference": -1}, "reference frame is -1"),
    ({"mode": "sideways"}, "sideways"),
    ({"parts": {"ears"}}, "ears"),
    ({"source": DRIVER}, "6 frames"),
    ({"driver": replace(DRIVER, head_name="other", head_digest="6" * 64)}, r"small.*55555555.*other.*66666666"),
    ({"driver": random_track(small_head((), 4), 3, 1)}, "expressions"),
    ({"head": small_head((), 4)}, "loaded"),
    ({"head": replace(HEAD, digest="7" * 64)}, "77777777"),
])  # fmt: skip
def test_what_does_not_fit_is_named(change, says):
    arguments = {"head": HEAD, "source": SOURCE, "driver": DRIVER} | change
    with pytest.raises(InputError, match=says):
        retarget(**arguments)
