"""What a flow field does over its clip, in words and figures."""

from collections.abc import Callable

import torch

from .encode import VERSION
from .field import FlowField
from .pictures import spread

_MOST = 240  # frames that are looked at
_SIDE = 160  # pixels: enough for shares and distances
_BINS = (1, 2, 5, 10, 20, 50, 100)  # millimetres


def flow_report(flow: FlowField, progress: Callable[[int, int], None] | None = None) -> str:
    """A fact on a line: how large the head is, how far its surface moves and how that is spread, what the portrait shows.

    Args:
        progress: is told (done, total) after each frame that is looked at, and of the last again while all are looked through
            for their depth; it may raise to stop.
    """
    camera, sampling = flow.camera, flow.sampling
    title = f"{len(flow)} frames, {camera.width} x {camera.height} pixels, {sampling.samples} samples a ray"
    lines = [f"{title}, delta {sampling.delta:g} m, near {sampling.near:g} m, far {sampling.far:g} m (version {VERSION})"]
    factor = min(1.0, _SIDE / max(camera.width, camera.height))
    small = flow.resize(*(max(1, round(n * factor)) for n in (camera.width, camera.height)))
    frames = spread(len(flow), _MOST)
    shares, distances, axial, shown = [], [], [], []
    for done, t in enumerate(frames, 1):
        mask = small.head_mask(t)
        move = small.moves(t)[mask] * 1e3
        shares.append(float(mask.float().mean()))
        distances.append(move.norm(dim=1).cpu())
        axial.append(move[:, 2].abs().cpu())
        shown.append(float(small.visibility(t)[mask].float().mean()) if len(move) else 0.0)
        if progress:
            progress(done, len(frames))
    if len(frames) < len(flow):
        lines.append(f"Figures from {len(frames)} of the frames, evenly spread.")
    lost = [t for t, share in zip(frames, shares, strict=True) if share == 0]
    if shares:
        lines.append(f"Head: {min(shares):.0%} to {max(shares):.0%} of the picture.")
    if lost:
        lines.append(f"Out of the picture in {len(lost)} frames, the first is {lost[0]}: bring the head back into view.")
    every = torch.cat(distances) if distances else torch.zeros(0)
    if len(every):
        lines += _spread_of(every, torch.cat(axial), [float(d.max()) if len(d) else 0.0 for d in distances], frames)
        least = min((s, t) for s, t, share in zip(shown, frames, shares, strict=True) if share > 0)
        mean = sum(shown) / max(1, len(frames) - len(lost))
        lines.append(f"The portrait shows {mean:.0%} of it on average, least in frame {least[1]}: {least[0]:.0%}.")
    warning = flow.depth_warning((lambda: progress(len(frames), len(frames))) if progress else lambda: None)
    return "\n".join([*lines, warning] if warning else lines)


def _spread_of(every: torch.Tensor, axial: torch.Tensor, largest: list[float], frames: list[int]) -> list[str]:
    """The distribution of moves in millimetres."""
    middle, high = (float(every.quantile(q)) for q in (0.5, 0.95))
    most = max(range(len(frames)), key=largest.__getitem__)
    edges = torch.tensor([0.0, *_BINS, torch.inf])
    counts = [float(((every >= a) & (every < b)).float().mean()) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    names = [f"under {_BINS[0]}", *(f"{a} to {b}" for a, b in zip(_BINS[:-1], _BINS[1:], strict=True)), f"over {_BINS[-1]}"]
    parts = ", ".join(f"{name} {count:.0%}" for name, count in zip(names, counts, strict=True) if count >= 0.005)
    return [
        f"The surface seen moves by {middle:.1f} mm (median), 95% of it by less than {high:.1f} mm, "
        f"at most {largest[most]:.1f} mm in frame {frames[most]}; along the camera's axis 95% by less than "
        f"{float(axial.quantile(0.95)):.1f} mm.",
        f"Millimetres: {parts}.",
    ]
