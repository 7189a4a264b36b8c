"""Whether a clip shows where its windows meet: changes between neighbouring frames, across borders and inside."""

from dataclasses import dataclass

from torch import Tensor

from .windows import Windows, borders


@dataclass(frozen=True)
class Seams:
    """Mean absolute differences of neighbouring frames' latents.

    Args:
        across, inside: over the pairs of frames that a window's border parts, and over the others; None: no such pair.
        pairs: how many pairs a border parts.
        windows: how many windows the last step had.
    """

    across: float | None
    inside: float | None
    pairs: int
    windows: int

    @property
    def ratio(self) -> float | None:
        return self.across / self.inside if self.across is not None and self.inside else None


def measure_seams(latents: Tensor, windows: list[list[int]]) -> Seams:
    """Of a clip (F, C, H, W) and the windows of its last step."""
    changes = (latents[1:].float() - latents[:-1].float()).abs().flatten(1).mean(1).tolist()
    parted = borders(windows, len(latents))
    across = [change for change, border in zip(changes, parted, strict=True) if border]
    inside = [change for change, border in zip(changes, parted, strict=True) if not border]
    return Seams(_mean(across), _mean(inside), len(across), len(windows))


def seams_report(seams: Seams, windows: Windows, frames: int) -> str:
    """The measure in words."""
    if seams.windows == 1:
        return f"Seams: {frames} frames in one window, no borders."
    moving = "" if windows.offset == "none" else " The borders move at each step; these are the last step's."
    text = (
        f"Seams: {frames} frames in {seams.windows} windows of {windows.length}, overlap {windows.overlap}, "
        f"{windows.fusing} fusing."
        f"{moving} Mean change between neighbouring frames, in latent units: "
    )
    if seams.across is None or seams.inside is None:
        every = "none" if seams.across is None else "all"
        change = seams.inside if seams.across is None else seams.across
        return f"{text}{change:.4g}; {every} of the {frames - 1} pairs of frames are parted by a border."
    ratio = "" if seams.ratio is None else f", {seams.ratio:.2f} times as much"
    return f"{text}{seams.across:.4g} across {seams.pairs} borders, {seams.inside:.4g} inside{ratio}."


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
