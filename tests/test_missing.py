"""Frames without a face, held."""

import torch

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.fit.missing import held
from comfyui_flow3d.flow3d.track import DETECTED, HELD, INTERPOLATED, HeadTrack


def track(states: list[int]) -> HeadTrack:
    """A track whose every number is its frame's."""
    n = len(states)
    frame = torch.arange(n, dtype=torch.float32)
    return HeadTrack(
        shape=torch.zeros(3),
        expression=frame[:, None].repeat(1, 2),
        joints=frame[:, None, None].repeat(1, 4, 3),
        rotation=frame[:, None].repeat(1, 3),
        translation=frame[:, None].repeat(1, 3),
        camera=Camera(100.0, 5, 5, 10, 10),
        confidence=torch.tensor([0.5 if s == DETECTED else 0.0 for s in states]),
        state=torch.tensor(states),
        landmark_offsets=frame[:, None, None].repeat(1, 478, 3),
    )


def test_the_last_detected_frame_is_held() -> None:
    d, m = DETECTED, INTERPOLATED
    result = held(track([m, m, d, d, m, m, d, m]))
    shown = [2, 2, 2, 3, 3, 3, 6, 6]
    for name in ("expression", "joints", "rotation", "translation", "landmark_offsets"):
        assert getattr(result, name).flatten(1)[:, 0].tolist() == shown, name
    assert result.state.tolist() == [HELD, HELD, d, d, HELD, HELD, d, HELD]
    assert result.confidence.tolist() == [0, 0, 0.5, 0.5, 0, 0, 0.5, 0]


def test_nothing_to_hold_changes_nothing() -> None:
    for states in ([DETECTED] * 3, [INTERPOLATED] * 3):
        whole = track(states)
        assert held(whole) is whole
