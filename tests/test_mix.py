"""Mixing: rotations by SciPy's Slerp, parts by their names, offsets by where they lie."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation, Slerp
from small_head import NAMES, random_track, small_head

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.fit import mediapipe_points as mp
from comfyui_flow3d.flow3d.fit.keyframes import Keyframes
from comfyui_flow3d.flow3d.fit.mix import PARTS, mix
from comfyui_flow3d.flow3d.fit.parts import surface_share
from comfyui_flow3d.flow3d.fit.timing import resample
from comfyui_flow3d.flow3d.io.motions import load_motion
from comfyui_flow3d.flow3d.track import DETECTED, HELD, INTERPOLATED

HEAD = small_head()
FIRST, SECOND = random_track(HEAD, 6, 20), random_track(HEAD, 6, 21)
FIELDS = ("expression", "joints", "rotation", "translation")
SPEECH = {
    "browInnerUp": "brows", "eyeBlinkLeft": "eyelids", "eyeBlinkRight": "eyelids", "eyeLookDownLeft": "eyes",
    "eyeLookDownRight": "eyes", "jawOpen": "jaw", "mouthClose": "jaw", "mouthSmileLeft": "mouth", "mouthSmileRight": "mouth",
}  # fmt: skip
JOINTS = {"neck": "pose", "jaw": "jaw", "left_eye": "eyes", "right_eye": "eyes"}


def turns(track):
    """Every rotation of a track as (name, SciPy rotations of T frames)."""
    yield "rotation", Rotation.from_rotvec(track.rotation.numpy())
    for name in JOINTS:
        yield name, Rotation.from_rotvec(track.joint(name).numpy())


def same(a, b, *names):
    for name in names or FIELDS:
        assert torch.equal(getattr(a, name), getattr(b, name)), name


@pytest.mark.parametrize("weight", [0.25, 0.5, 0.9])
def test_blend(weight):
    made = mix(HEAD, FIRST, SECOND, "blend", weight)
    for name in ("expression", "translation"):
        assert torch.allclose(getattr(made, name), (1 - weight) * getattr(FIRST, name) + weight * getattr(SECOND, name))
    for (name, got), (_, a), (_, b) in zip(turns(made), turns(FIRST), turns(SECOND), strict=True):
        for t in range(6):
            expected = Slerp([0, 1], Rotation.concatenate([a[t], b[t]]))(weight)
            assert (expected.inv() * got[t]).magnitude() < 1e-6, (name, t)
    assert made.camera == FIRST.camera and made.fps == FIRST.fps and torch.equal(made.shape, FIRST.shape)


def test_the_ends_keep_their_bits():
    assert mix(HEAD, FIRST, SECOND, "blend", 0.0) is FIRST
    assert mix(HEAD, FIRST, SECOND, "take", parts=()) is FIRST
    same(mix(HEAD, FIRST, SECOND, "blend", 1.0), SECOND)
    same(mix(HEAD, FIRST, SECOND, "take"), SECOND)
    still = SECOND[[2] * 6]
    same(mix(HEAD, FIRST, still, "add", 0.7), FIRST)


@pytest.mark.parametrize("weight", [1.0, 0.3, -1.0, 2.0])
def test_add(weight):
    """Oracle: `exp(w log(R2(t) R2(0)^-1)) R1(t)` in SciPy; the rest adds, named expressions stay within 0..1."""
    made = mix(HEAD, FIRST, SECOND, "add", weight)
    for (name, got), (_, a), (_, b) in zip(turns(made), turns(FIRST), turns(SECOND), strict=True):
        expected = Rotation.from_rotvec(weight * (b * b[0].inv()).as_rotvec()) * a
        assert (expected.inv() * got).magnitude().max() < 1e-6, name
    change = weight * (SECOND.translation - SECOND.translation[0])
    assert torch.allclose(made.translation, FIRST.translation + change)
    wanted = FIRST.expression + weight * (SECOND.expression - SECOND.expression[0])
    assert torch.allclose(made.expression, wanted.clamp(0, 1))
    assert abs(weight) < 1 or ((wanted < 0) | (wanted > 1)).any()
    same(made[:1], FIRST[:1])
    unnamed = small_head((), 9)
    assert torch.allclose(mix(unnamed, FIRST, SECOND, "add", weight).expression, wanted)


@pytest.mark.parametrize("part", sorted(PARTS))
@pytest.mark.parametrize("mode", ["take", "blend", "add"])
def test_each_part_alone(mode, part):
    whole, made = (mix(HEAD, FIRST, SECOND, mode, 0.6, parts) for parts in (PARTS, {part}))
    for i, name in enumerate(NAMES):
        expected = whole if SPEECH[name] == part else FIRST
        assert torch.equal(made.expression[:, i], expected.expression[:, i]), name
    for name, owner in JOINTS.items():
        assert torch.equal(made.joint(name), (whole if owner == part else FIRST).joint(name)), name
    same(made, whole if part == "pose" else FIRST, "rotation")
    same(made, whole if part == "translation" else FIRST, "translation")


def test_the_longer_track_counts():
    short = SECOND[:4]
    held, looped = (mix(HEAD, FIRST, short, "take", shorter=how) for how in ("hold", "loop"))
    same(held, SECOND[[0, 1, 2, 3, 3, 3]])
    same(looped, SECOND[[0, 1, 2, 3, 0, 1]])
    same(mix(HEAD, short, FIRST, "take", parts={"pose"}, shorter="loop"), FIRST, "rotation")
    portrait = mix(HEAD, FIRST[:1], replace(SECOND, fps=12.0), "add", 1.0)
    assert len(portrait) == 6 and portrait.fps == 12


def test_another_frame_rate_is_brought_to_the_firsts():
    made = mix(HEAD, FIRST, replace(SECOND, fps=60.0), "take")
    assert made.fps == 30 and len(made) == 6
    same(made, resample(replace(SECOND, fps=60.0), 30.0)[[0, 1, 2, 2, 2, 2]])


def test_a_fade_over_time():
    fade = Keyframes((1, 3), (0.0, 1.0))
    made = mix(HEAD, FIRST, SECOND, "blend", fade)
    same(made[:2], FIRST[:2])
    same(made[3:], SECOND[3:])
    same(made[2:3], mix(HEAD, FIRST, SECOND, "blend", 0.5)[2:3])


def test_as_certain_as_the_less_certain():
    first = replace(FIRST, state=torch.tensor([DETECTED, DETECTED, HELD, INTERPOLATED, DETECTED, HELD]))
    second = replace(SECOND, state=torch.tensor([DETECTED, HELD, DETECTED, DETECTED, INTERPOLATED, INTERPOLATED]))
    made = mix(HEAD, first, second, "blend", Keyframes((0, 1), (0.0, 0.5)))
    assert made.state.tolist() == [DETECTED, HELD, HELD, INTERPOLATED, INTERPOLATED, HELD]
    least = torch.minimum(first.confidence, second.confidence)
    assert torch.equal(made.confidence, torch.cat([first.confidence[:1], least[1:]]))


# --- offsets ---------------------------------------------------------------------------------------------------------


def test_shares_of_the_surface(open_head):
    """The four parts of the face share each vertex among them; lips are the mouth's, lids the eyelids'."""
    parts = ("brows", "eyelids", "mouth", "expression")
    shares = {p: surface_share(open_head, frozenset({p})) for p in parts}
    assert torch.allclose(sum(shares.values()), torch.ones(len(open_head.template)), atol=1e-5)
    assert all((s >= 0).all() for s in shares.values())
    assert torch.equal(surface_share(open_head, PARTS), torch.ones(len(open_head.template)))
    at = {p: open_head.dense.on(s[:, None], open_head.faces)[:, 0] for p, s in shares.items()}
    assert at["mouth"][list(mp.OUTER_LIPS)].min() > 0.7
    assert at["eyelids"][[159, 386, 145, 374]].min() > 0.5
    assert at["brows"][[105, 334]].min() > 0.5
    assert at["mouth"][[159, 386, 105, 334]].max() < 0.05
    still = open_head.expression_basis.norm(dim=-1).amax(0) < 1e-6
    assert still.sum() > 100 and shares["expression"][still].min() > 0.99
    nameless = small_head((), 9)
    assert torch.equal(surface_share(nameless, frozenset({"expression"})), torch.ones(8))
    assert not surface_share(nameless, frozenset({"mouth"})).any()


def with_offsets(track, head, seed):
    g = torch.Generator().manual_seed(seed)
    return replace(
        track, landmark_offsets=0.01 * torch.randn(len(track), 478, 3, generator=g),
        frame_offsets=0.01 * torch.randn(len(track), len(head.template), 3, generator=g),
    )  # fmt: skip


def test_offsets_go_with_their_part(open_head):
    talk = load_motion("talk", open_head)[:6]
    first, second = with_offsets(talk, open_head, 1), with_offsets(talk, open_head, 2)
    made = mix(open_head, first, second, "take", parts={"mouth", "jaw"})
    share = surface_share(open_head, frozenset({"mouth"}))[None, :, None]
    assert torch.allclose(made.frame_offsets, first.frame_offsets + share * (second.frame_offsets - first.frame_offsets))
    lips = list(mp.OUTER_LIPS)
    nearer = (made.landmark_offsets - second.landmark_offsets).norm(dim=-1) < (made.landmark_offsets - first.landmark_offsets).norm(dim=-1)
    assert nearer[:, lips].all() and not nearer[:, [159, 386, 105, 334]].any()
    same(mix(open_head, first, second, "take", parts={"pose"}), first, "frame_offsets", "landmark_offsets")
    for name in ("frame_offsets", "landmark_offsets"):
        assert torch.allclose(getattr(mix(open_head, first, second, "take"), name), getattr(second, name), atol=1e-8)
    added = mix(open_head, first, second, "add", 0.5).landmark_offsets
    expected = first.landmark_offsets + 0.5 * (second.landmark_offsets - second.landmark_offsets[0])
    assert torch.allclose(added, expected, atol=1e-7)


def test_another_persons_offsets_give_their_change_alone(open_head):
    talk = load_motion("talk", open_head)[:6]
    first, second = with_offsets(talk, open_head, 1), with_offsets(talk, open_head, 2)
    other = replace(second, shape=torch.ones_like(second.shape))
    made = mix(open_head, first, other, "take").landmark_offsets
    assert torch.allclose(made.mean(0), first.landmark_offsets.mean(0), atol=1e-7)
    assert torch.allclose(made - made.mean(0), second.landmark_offsets - second.landmark_offsets.mean(0), atol=1e-7)
    bare = replace(other, landmark_offsets=None, frame_offsets=None)
    kept = mix(open_head, first, bare, "take").landmark_offsets
    assert torch.allclose(kept, first.landmark_offsets.mean(0).expand(6, -1, -1), atol=1e-7)


def test_bundled_motions_mix(open_head):
    made = mix(open_head, load_motion("turn"), load_motion("talk"), "take", parts={"jaw", "mouth"}, shorter="loop")
    turn, talk = load_motion("turn", open_head), load_motion("talk", open_head)
    n = len(made)
    assert n == max(len(turn), len(resample(talk, turn.fps)))
    assert np.allclose(made.rotation[: len(turn)], turn.rotation) and made.head_digest == open_head.digest
    jaw = open_head.expression_index("jawOpen")
    assert torch.equal(made.expression[: len(talk), jaw][:n], resample(talk, turn.fps).expression[:n, jaw][: len(talk)])


@pytest.mark.parametrize(("change", "says"), [
    ({"mode": "melt"}, "no mode 'melt'"), ({"shorter": "cut"}, "cannot 'cut'"), ({"parts": {"ears"}}, "unknown part ears"),
    ({"weight": 1.2}, "weight is 1.2; for 'blend'"), ({"weight": float("nan")}, "weight is nan"),
    ({"weight": Keyframes((0, 9), (0.5, -1.0))}, "weight is -1"), ({"mode": "add", "weight": 11.0}, "between -10 and 10"),
    ({"second": random_track(small_head((), 4), 3, 1)}, "made with head model"),
    ({"first": replace(FIRST, head_digest="7" * 64)}, "77777777"),
    ({"head": small_head((), 9), "parts": {"mouth", "pose"}}, "no named expressions"),
])  # fmt: skip
def test_what_cannot_be(change, says):
    arguments = {"head": HEAD, "first": FIRST, "second": SECOND} | change
    with pytest.raises(InputError, match=says):
        mix(**arguments)
