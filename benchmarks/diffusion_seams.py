"""Whether the windows of a long clip show: mean change of neighbouring frames' latents across the windows' borders and inside.

96 frames in windows of 16, sampled through ComfyUI by a small network with temporal layers at 64 x 64, Euler, guidance 3.5,
with a prompt that drifts along the clip. With noise of its own for each frame the noise outweighs the windows; with shared noise
frames differ by prompt and windows alone. The rows `no overlap` and `one window` are the trivial ones: the worst, and, judged at
the borders of overlap 4, the best.
"""

from dataclasses import dataclass

import torch

from .diffusion_networks import Size, a_model, a_motion_module

CLIP, WINDOW, TARGET = 96, 16, 1.10
SMALL = Size(32, 16, 8, torch.float32)
JUDGED = "overlap 4, pyramid"


@dataclass(frozen=True)
class Seam:
    """Mean changes in latent units."""

    across: float
    inside: float

    @property
    def ratio(self) -> float:
        return self.across / self.inside


def measure(device: torch.device, steps: int, noise: str) -> dict[str, Seam]:
    """Of each way of cutting the clip."""
    from ..models.clip_sampling import Clip, Steps, sample_clip
    from ..models.seams import measure_seams
    from ..models.windows import Windows

    torch.manual_seed(0)
    model, motion = a_model(SMALL, device), a_motion_module(SMALL, device, "stretch")
    positive, negative = _drifting_prompt(CLIP), _drifting_prompt(1)
    rows = {
        "no overlap": Windows(WINDOW, 0, fusing="uniform"),
        "overlap 4, uniform": Windows(WINDOW, 4, fusing="uniform"),
        "overlap 4, overlap-linear": Windows(WINDOW, 4, fusing="overlap-linear"),
        JUDGED: Windows(WINDOW, 4),
        "overlap 4, pyramid, inside offsets": Windows(WINDOW, 4, offset="inside"),
        "overlap 4, pyramid, circular offsets": Windows(WINDOW, 4, offset="circular"),
        "overlap 8, pyramid": Windows(WINDOW, 8),
        "one window": Windows(CLIP, 0),
    }
    clip = Clip({"samples": torch.zeros(CLIP, 4, SMALL.latent, SMALL.latent)}, noise)  # type: ignore[arg-type]
    settings = Steps(0, steps, 3.5, "euler", "normal")
    found = {}
    for name, windows in rows.items():
        with torch.inference_mode():
            latents, _ = sample_clip(model, positive, negative, clip, settings, windows, motion)
        judged = Windows(WINDOW, 4) if windows.length == CLIP else windows
        measured = measure_seams(latents, judged.at_step(CLIP, steps - 1, 0))
        assert measured.across is not None and measured.inside is not None
        found[name] = Seam(measured.across, measured.inside)
    return found


def _drifting_prompt(frames: int) -> list:
    """A prompt for each frame, from one to another."""
    first, last = torch.randn(2, 1, 8, SMALL.context)
    along = torch.linspace(0, 1, frames).view(-1, 1, 1)
    return [[first * (1 - along) + last * along, {}]]
