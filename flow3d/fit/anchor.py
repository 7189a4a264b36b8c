"""What the landmarks say, as a quadratic around the fit to them: a prior for whatever looks at the picture next."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..rotations import compose, inverse
from .levenberg_marquardt import Pose, Shared, Solver
from .observations import Observations


@dataclass(frozen=True, eq=False)
class Anchor:
    """Laplace's approximation of the landmark fit's posterior: n frames with P unknowns each, and S of shape.

    At an optimum the slope is 0, except for expressions at 0 or 1 that would go on. What the solver puts into its cost
    beyond landmarks and priors is thereby in it too.
    """

    solver: Solver
    shape: Tensor  # (S,)
    x: Pose
    frames: Tensor  # (n, P, P) precision
    cross: Tensor  # (n, P, S)
    shared: Tensor  # (S, S)
    slope: Tensor  # (n, P)

    @classmethod
    def at(cls, solver: Solver, shared: Shared, x: Pose, seen: Observations) -> "Anchor":
        """Around the solver's optimum."""
        system = solver.normal(shared, x, seen.at(solver.landmarks), len(shared.shape))
        slope = torch.where(at_bounds(solver, x, system.gradient), system.gradient, 0.0)
        return cls(solver, shared.shape, x, system.frames, system.cross, system.shared, slope)

    def marginal(self, kept: Tensor) -> "Anchor":
        """The frames `kept` (k,) with what all of them tell of the shape."""
        others = torch.ones(len(self.frames), dtype=torch.bool)
        others[kept] = False
        cross = self.cross[others]
        free = cross.transpose(1, 2) @ torch.linalg.solve(self.frames[others], cross)
        return replace(
            self,
            x=self.x[kept],
            frames=self.frames[kept],
            cross=self.cross[kept],
            slope=self.slope[kept],
            shared=self.shared - free.sum(0),
        )

    def away(self, shape: Tensor, x: Pose) -> tuple[Tensor, Tensor]:
        """How far (n, P) frames and (S,) shape are from the fit."""
        off = self.solver.flat(x) - self.solver.flat(self.x)
        off[:, -6:-3] = compose(x.rotation, inverse(self.x.rotation))
        return off, shape - self.shape

    def gradient(self, shape: Tensor, x: Pose) -> tuple[Tensor, Tensor]:
        """(n, P) and (S,): half the cost's derivatives, as in normal equations."""
        off, shape_off = self.away(shape, x)
        frames = (self.frames @ off[..., None])[..., 0] + self.cross @ shape_off + self.slope
        return frames, torch.einsum("nps,np->s", self.cross, off) + self.shared @ shape_off

    def cost(self, shape: Tensor, x: Pose) -> float:
        """The landmark fit's cost above its optimum."""
        off, shape_off = self.away(shape, x)
        frames, shared = self.gradient(shape, x)
        return float(((frames + self.slope) * off).sum() + shared @ shape_off)


def at_bounds(solver: Solver, x: Pose, gradient: Tensor) -> Tensor:
    """(n, P) bool: expressions at 0 or 1 that would go on against `gradient` (n, P)."""
    held = torch.zeros_like(gradient, dtype=torch.bool)
    if solver.bounded:
        e = x.expression.shape[1]
        outward = gradient[:, :e]
        held[:, :e] = ((x.expression <= 0) & (outward > 0)) | ((x.expression >= 1) & (outward < 0))
    return held
