"""ARKit's names on heads that do not know them. Oracle: the open head in disguise, whose answer is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small_head import NAMES, small_head
from torch import Tensor

from comfyui_flow3d.flow3d.fit import arkit_map as module
from comfyui_flow3d.flow3d.fit.angles import FULL_JAW
from comfyui_flow3d.flow3d.fit.arkit_map import ARKIT_NAMES, ArkitMap, arkit_map, arkit_weights
from comfyui_flow3d.flow3d.fit.mediapipe_points import IRISES
from comfyui_flow3d.flow3d.head.model import HeadModel

TURN, SCALE, SHIFT = torch.tensor(Rotation.from_euler("xyz", [4, -3, 2], degrees=True).as_matrix()).float(), 1.15, 0.03


def disguised(head: HeadModel, without: tuple[str, ...] = ()) -> HeadModel:
    """The head turned, larger and elsewhere, its expressions (but those that start with `without`) mixed at random."""
    kept = [i for i, n in enumerate(head.expression_names) if not n.startswith(without or ("-",))]
    mix = torch.randn(len(kept), len(kept), generator=torch.Generator().manual_seed(1))
    return replace(
        head,
        name="in disguise",
        template=SCALE * head.template @ TURN.T + SHIFT,
        shape_basis=SCALE * head.shape_basis[:5] @ TURN.T,
        expression_basis=torch.einsum("ij,jvx->ivx", mix, SCALE * head.expression_basis[kept] @ TURN.T),
        expression_names=(),
        digest="",
    )


def only(name: str, weight: float = 1.0) -> Tensor:
    weights = torch.zeros(1, len(ARKIT_NAMES))
    weights[0, ARKIT_NAMES.index(name)] = weight
    return weights


def posed(head: HeadModel, mapping: ArkitMap, weights: Tensor) -> Tensor:
    return head.vertices(torch.zeros(len(weights), 0), *mapping.apply(weights))[0]


@pytest.fixture(scope="module")
def mixed(open_head: HeadModel) -> tuple[HeadModel, ArkitMap]:
    head = disguised(open_head)
    return head, arkit_map(head)


@pytest.mark.parametrize("name", [n for n in ARKIT_NAMES if n != "tongueOut"])
def test_mixed_expressions_are_found_again(open_head: HeadModel, mixed: tuple[HeadModel, ArkitMap], name: str) -> None:
    """The face moves as the open head's does, though the basis is another and the head is turned and larger."""
    head, mapping = mixed
    face = open_head.masks["face"]
    truth = (SCALE * open_head.expression_basis[open_head.expression_index(name)] @ TURN.T)[face]
    moved = (posed(head, mapping, only(name))[0] - head.template)[face]
    share = 0.08 if name.startswith("jaw") else 0.03  # the jaw's joint takes a part, and turns on an arc
    assert (moved - truth).square().mean().sqrt() < share * truth.square().mean().sqrt()
    assert mapping.explained[ARKIT_NAMES.index(name)] > 0.995 and mapping.knows(name)


def test_the_tongue_has_no_landmarks(mixed: tuple[HeadModel, ArkitMap]) -> None:
    assert not mixed[1].knows("tongueOut") and mixed[1].explained[ARKIT_NAMES.index("tongueOut")] == 0


def test_there_and_back(mixed: tuple[HeadModel, ArkitMap]) -> None:
    """Random faces, without opposites at the same time, which no least squares can tell apart."""
    head, mapping = mixed
    g = torch.Generator().manual_seed(3)
    weights = torch.rand(60, 52, generator=g) * (torch.rand(60, 52, generator=g) < 0.25)
    for a, b in (("In", "Out"), ("Up", "Down")):
        for side in ("Left", "Right"):
            weights[:, ARKIT_NAMES.index(f"eyeLook{a}{side}")] *= weights[:, ARKIT_NAMES.index(f"eyeLook{b}{side}")] == 0
    weights[:, ARKIT_NAMES.index("tongueOut")] = 0
    back = arkit_weights(head, *mapping.apply(weights))
    assert back.min() >= 0 and back.max() <= 1
    error = (back - weights).abs()
    assert error.mean() < 0.006 and error.max() < 0.15


def test_weights_beyond_the_range_are_bounded(mixed: tuple[HeadModel, ArkitMap]) -> None:
    head, mapping = mixed
    back = arkit_weights(head, *mapping.apply(only("mouthSmileLeft", 1.6)))
    assert back[0, ARKIT_NAMES.index("mouthSmileLeft")] == pytest.approx(1, abs=1e-4) and back.max() <= 1
    assert not arkit_weights(head, *mapping.apply(torch.zeros(3, 52))).any()


def test_a_basis_without_a_jaw_opens_by_the_joint(open_head: HeadModel) -> None:
    """The open head's own jawOpen was sculpted along a turn of 20.7 degrees (docs/open_head.md)."""
    kept = [i for i, n in enumerate(open_head.expression_names) if not n.startswith(("jaw", "mouthClose"))]
    mapping = arkit_map(replace(open_head, expression_basis=open_head.expression_basis[kept], expression_names=(), digest=""))
    k = ARKIT_NAMES.index("jawOpen")
    assert np.degrees(float(mapping.joints[k, 1, 0])) == pytest.approx(20.7, abs=3)
    assert mapping.explained[k] > 0.98
    left, right = (np.degrees(mapping.joints[ARKIT_NAMES.index(n), 1, 1].item()) for n in ("jawLeft", "jawRight"))
    assert left > 1.5 and right < -1.5  # +y turns the chin to the subject's left


@pytest.mark.parametrize("way", ["In", "Out", "Up", "Down"])
@pytest.mark.parametrize("side", ["Left", "Right"])
def test_eyes_turn_about_their_joints(open_head: HeadModel, way: str, side: str) -> None:
    """Without eye expressions the joints carry the irises to where the open head's are, within a millimetre."""
    kept = [i for i, n in enumerate(open_head.expression_names) if not n.startswith("eyeLook")]
    head = replace(open_head, expression_basis=open_head.expression_basis[kept], expression_names=(), digest="")
    mapping, name = arkit_map(head), f"eyeLook{way}{side}"
    truth = open_head.template + open_head.expression_basis[open_head.expression_index(name)]
    points = (posed(head, mapping, only(name))[0], truth, head.template)
    got, want, rest = (head.dense.on(v, head.faces)[list(IRISES)] for v in points)
    assert (got - want).norm(dim=1).mean() < 1e-3 < (want - rest).norm(dim=1).max()
    by_name = module._eye_turns(head)[ARKIT_NAMES.index(name)]
    assert torch.allclose(mapping.joints[ARKIT_NAMES.index(name)], by_name, atol=np.radians(1))


def test_what_a_basis_cannot_do_is_told(open_head: HeadModel) -> None:
    mapping = arkit_map(disguised(open_head, ("eyeBlink", "eyeSquint", "eyeWide", "eyeLook")))
    blink, smile = (float(mapping.explained[ARKIT_NAMES.index(n)]) for n in ("eyeBlinkLeft", "mouthSmileLeft"))
    assert blink < 0.5 and smile > 0.995


# --- heads that know the names, and heads that know nothing ----------------------------------------------------------


def test_names_are_an_identity(open_head: HeadModel) -> None:
    mapping = arkit_map(open_head)
    weights = torch.rand(4, 52)
    expression, joints = mapping.apply(weights)
    assert open_head.expression_names == ARKIT_NAMES and torch.equal(expression, weights) and not joints.any()
    assert torch.equal(arkit_weights(open_head, weights, torch.zeros(4, 4, 3)), weights)


def test_joints_of_a_named_head_come_back_as_names(open_head: HeadModel) -> None:
    joints = torch.zeros(1, 4, 3)
    joints[0, 0, 0] = 0.5  # the neck belongs to the pose
    joints[0, 2:, 1] = np.radians(20.8)  # both eyes to the subject's left
    joints[0, 1, 0] = np.radians(10)
    back = dict(zip(ARKIT_NAMES, arkit_weights(open_head, only("mouthSmileLeft", 0.5), joints)[0].tolist(), strict=True))
    assert back["eyeLookOutLeft"] == pytest.approx(1, abs=0.15) and back["eyeLookInRight"] == pytest.approx(1, abs=0.15)
    assert back["mouthSmileLeft"] == pytest.approx(0.5, abs=0.1) and back["jawOpen"] == pytest.approx(0.5, abs=0.15)


def test_some_names() -> None:
    head = small_head()
    expression, joints = arkit_map(head).apply(torch.full((1, 52), 0.5))
    assert torch.allclose(expression, torch.full((1, len(NAMES)), 0.5)) and not joints[0, :2].any()
    assert not arkit_map(head).knows("cheekPuff")


def test_no_names_and_no_landmarks() -> None:
    """Jaw and gaze go by the joints, on any head that has them."""
    head = small_head((), 7)
    mapping = arkit_map(head)
    expression, joints = mapping.apply(only("jawOpen", 0.5) + only("eyeLookOutLeft") + only("mouthSmileLeft"))
    assert not expression.any() and np.degrees(joints[0, 1, 0].item()) == pytest.approx(FULL_JAW / 2)
    assert joints[0, 2, 1] > 0.3 and not joints[0, 3].any()
    back = arkit_weights(head, expression, joints)
    assert back[0, ARKIT_NAMES.index("jawOpen")] == pytest.approx(0.5, abs=1e-3)
    assert back[0, ARKIT_NAMES.index("mouthSmileLeft")] == 0


# --- the kept map ----------------------------------------------------------------------------------------------------


def test_a_map_is_solved_once(open_head: HeadModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path)
    solve, count = module._solved, []
    monkeypatch.setattr(module, "_solved", lambda *a: count.append(1) or solve(*a))
    head = replace(disguised(open_head), digest="d" * 64)
    first, second = arkit_map(head), arkit_map(head)
    assert len(count) == 1 and all(torch.equal(getattr(first, n), getattr(second, n)) for n in ArkitMap.__dataclass_fields__)
    (file,) = (tmp_path / "arkit").iterdir()
    assert head.landmarks_dense is not None
    moved = replace(head, landmarks_dense=head.landmarks_dense._replace(bary=head.landmarks_dense.bary.roll(1, 1)))
    arkit_map(moved)
    assert len(count) == 2  # other landmarks, another map
    file.write_bytes(b"rubbish")
    assert torch.equal(arkit_map(head).expression, first.expression) and len(count) == 3
    arkit_map(head)
    assert len(count) == 3  # mended


def test_a_cache_that_cannot_be_written(open_head: HeadModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "arkit").write_text("a file where the folder should be", encoding="utf-8")
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path)
    assert arkit_map(replace(disguised(open_head), digest="e" * 64)).knows("jawOpen")
