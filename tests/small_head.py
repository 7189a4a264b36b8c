"""A head of a few points with known places, for tests that need no face: nose, crown, ears and eyes of a made-up person."""

import torch

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.head.model import HeadModel
from comfyui_flow3d.flow3d.track import HeadTrack

NOSE, CROWN, LEFT_EAR, RIGHT_EAR, LEFT_PUPIL, RIGHT_PUPIL, CHIN, FOOT = range(8)
POINTS = torch.tensor([
    [0.0, 0.15, 0.12], [0.0, 0.27, 0.0], [0.08, 0.15, 0.0], [-0.08, 0.15, 0.0],
    [0.03, 0.17, 0.10], [-0.03, 0.17, 0.10], [0.0, 0.07, 0.09], [0.0, 0.0, 0.0],
])  # fmt: skip
"""Metres, head frame (y up, z out of the face); the subject's left is +x. The root joint is at 0."""
NAMES = (
    "browInnerUp", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "jawOpen", "mouthClose",
    "mouthSmileLeft", "mouthSmileRight",
)  # fmt: skip


def small_head(names: tuple[str, ...] = NAMES, n_expression: int | None = None) -> HeadModel:
    """Eyes follow their joints and the chin the jaw joint; the first identity component makes everything larger."""
    joints = torch.zeros(5, 8)
    joints[0, FOOT] = joints[3, LEFT_PUPIL] = joints[4, RIGHT_PUPIL] = 1
    joints[1, FOOT], joints[1, CROWN] = 0.6, 0.4
    joints[2, [LEFT_EAR, RIGHT_EAR]] = 0.5
    weights = torch.zeros(8, 5)
    weights[:, 1] = 1
    for vertex, joint in ((FOOT, 0), (CHIN, 2)):
        weights[vertex] = 0
        weights[vertex, joint] = 1
    basis = torch.randn(n_expression or len(names), 8, 3, generator=torch.Generator().manual_seed(1)) * 0.01
    basis[:, FOOT] = 0
    return HeadModel(
        name="small", template=POINTS.clone(), shape_basis=torch.stack([POINTS * 0.1, torch.zeros(8, 3)]),
        expression_basis=basis, pose_basis=torch.zeros(36, 8, 3), joint_regressor=joints, skin_weights=weights,
        faces=torch.tensor([[0, 2, 1], [0, 1, 3], [0, 6, 2], [0, 3, 6]]), expression_names=names, digest="5" * 64,
    )  # fmt: skip


def random_track(head: HeadModel, frames: int, seed: int, size: int = 512, growth: float = 0.0) -> HeadTrack:
    """Some plausible motion of `head` in float64; `growth` is its first identity component."""
    g = torch.Generator().manual_seed(seed)

    def r(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    return HeadTrack(
        shape=torch.tensor([growth, 0.3], dtype=torch.float64),
        expression=r(frames, head.n_expression).sigmoid(),
        joints=0.3 * r(frames, 4, 3),
        rotation=0.5 * r(frames, 3),
        translation=torch.tensor([0.02, 0.05, 0.9], dtype=torch.float64) + 0.03 * r(frames, 3),
        camera=Camera.from_field_of_view(size, size),
        fps=30.0,
        confidence=r(frames).sigmoid(),
        head_name=head.name,
        head_digest=head.digest,
    )
