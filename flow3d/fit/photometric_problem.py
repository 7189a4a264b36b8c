"""The posterior of head, light and albedo, given pictures and the landmark fit, and Gauss-Newton steps to its maximum.

Pixels have a robust loss, so that hair, glasses and cast shadows do not count. Their errors are those of the model rather than
of the camera and come in patches, so that what pixels say is divided by a patch's size (see `pixel_noise.py`) before it
is added to what the landmarks say (see `anchor.py`). Geometry, light and albedo take their steps together, since each explains
some of what another could; the frames' own unknowns are eliminated first.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..rotations import compose
from .anchor import Anchor, at_bounds
from .appearance import Appearance, FaceRender, Pixels
from .levenberg_marquardt import Deviations, Pose
from .photo_view import View
from .pixel_noise import PixelNoise, pixel_noise, robust_loss, robust_weights

_LIGHT_SPREAD = 1.0  # standard deviation of the light's harmonics over the mean light
_FIRST_DAMPING, _TRIES = 1e-4, 3
_MAX_SHAPE_SIGMA = 3.0
_FROZEN = 1e12  # precision of what must not move
_N_LIGHT = 27
_RIDGE = 1e-9


@dataclass(frozen=True, eq=False)
class State:
    """Everything that is solved for."""

    shape: Tensor  # (S,) float64
    x: Pose  # n frames, float64
    look: Appearance


@dataclass(frozen=True, eq=False)
class Sight:
    """One frame's pixels that show the face, and what they are worth."""

    pixels: Pixels
    noise: PixelNoise


@dataclass(frozen=True, eq=False)
class System:
    """Normal equations: P unknowns of each frame; G shared ones, which are shape, light and paint."""

    frames: Tensor  # (n, P, P)
    cross: Tensor  # (n, P, G)
    shared: Tensor  # (G, G)
    own_gradient: Tensor  # (n, P)
    gradient: Tensor  # (G,)


def first_look(render: FaceRender) -> Appearance:
    """White light of radiance 1 from everywhere, and skin of one colour."""
    light = torch.zeros(9, 3, dtype=render.head.dtype, device=render.head.device)
    light[0] = 2 * math.sqrt(math.pi)
    return Appearance(light, light.new_zeros(render.albedo.basis.shape[1], 3))


class Problem:
    """Some frames of one head with a view of each. `busy` is called before each piece of work; it may raise to cancel."""

    def __init__(self, render: FaceRender, anchor: Anchor, views: Sequence[View], busy: Callable[[], None] = lambda: None):
        self.render, self.anchor, self.views, self.busy = render, anchor, views, busy

    def sights(self, state: State) -> list[Sight]:
        """What is seen of the face in each frame, as the state has it."""
        out = []
        for i, v in enumerate(self.views):
            pixels = self.render.pixels(v, state.shape, state.x[i : i + 1])
            noise = pixel_noise(self.residuals(state, i, pixels), pixels.places, (v.usable.shape[0], v.usable.shape[1]))
            out.append(Sight(pixels, noise))
        return out

    def residuals(self, state: State, frame: int, pixels: Pixels) -> Tensor:
        """(N, 3) the picture's colours less the head's."""
        self.busy()
        vertices = self.render.vertices(state.shape, state.x[frame : frame + 1])
        return pixels.colours - self.render.colours(vertices, state.look, pixels, self.views[frame].camera)

    def typical_residual(self, state: State) -> float:
        """Median colour error over all frames' pixels, linear 0..1."""
        away = [self.residuals(state, i, s.pixels).norm(dim=1) for i, s in enumerate(self.sights(state))]
        return float(torch.cat(away).median())

    def look_steps(self, state: State, steps: int) -> State:
        """Steps of light and albedo alone, the geometry as it is."""
        none = torch.zeros(0, len(self.render.near), 3)
        for _ in range(steps):
            weight, gradient = self._look_prior(state.look)
            matrix = torch.diag(weight)
            for i, sight in enumerate(self.sights(state)):
                told, slope = self._told(state, i, sight, none)
                matrix, gradient = matrix + told, gradient + slope
            step = -torch.linalg.solve(matrix + _RIDGE * torch.eye(len(matrix)), gradient)
            state = replace(state, look=_stepped_look(state.look, step))
        return state

    def all_steps(self, state: State, steps: int, report: Callable[[], None]) -> State:
        """At most `steps` damped steps of everything."""
        return self._steps(state, steps, report, solve_all)

    def frame_steps(self, state: State, steps: int) -> State:
        """At most `steps` damped steps of what is each frame's own."""
        return self._steps(state, steps, lambda: None, solve_frames)

    def _steps(self, state: State, steps: int, report: Callable[[], None], solve: "Solve") -> State:
        damping = _FIRST_DAMPING
        for _ in range(steps):
            report()
            sights = self.sights(state)
            system = self.system(state, sights)
            before = self.cost(state, sights)
            for _ in range(_TRIES):
                trial = self._stepped(state, *solve(system, damping))
                if self.cost(trial, sights) <= before:
                    state, damping = trial, max(damping / 10, 1e-9)
                    break
                damping *= 30
        return state

    def cost(self, state: State, sights: list[Sight]) -> float:
        """What is minimised, with the triangles that are seen held."""
        told = float((self._look_prior(state.look)[1] * _flat_look(state.look)).sum())
        for i, sight in enumerate(sights):
            told += float(robust_loss(self.residuals(state, i, sight.pixels), sight.noise.sigma).double().sum())
        return self.anchor.cost(state.shape, state.x) + told / _alike(sights)

    def system(self, state: State, sights: list[Sight]) -> System:
        """Its normal equations, expressions held that are at their bounds and would go on."""
        anchor, alike = self.anchor, _alike(sights)
        weight, look_gradient = (t / alike for t in self._look_prior(state.look))
        own_gradient, shape_gradient = anchor.gradient(state.shape, state.x)
        frames = anchor.frames.clone()
        cross = torch.cat([anchor.cross, anchor.cross.new_zeros(*anchor.cross.shape[:2], len(weight))], 2)
        shared = torch.block_diag(anchor.shared, torch.diag(weight))
        gradient = torch.cat([shape_gradient, look_gradient])
        p = frames.shape[1]
        for i, sight in enumerate(sights):
            told, slope = self._told(state, i, sight, self.render.moves(state.shape, state.x[i : i + 1]))
            frames[i] += told[:p, :p] / alike
            cross[i] += told[:p, p:] / alike
            shared += told[p:, p:] / alike
            own_gradient[i] += slope[:p] / alike
            gradient += slope[p:] / alike
        held = at_bounds(anchor.solver, state.x, own_gradient)
        return System(frames + torch.diag_embed(_FROZEN * held), cross, shared, own_gradient, gradient)

    def _told(self, state: State, frame: int, sight: Sight, moves: Tensor) -> tuple[Tensor, Tensor]:
        """Normal equations (D, D) and (D,) of one frame's pixels along `moves` (M, near, 3), then of light and paint."""
        pixels, camera = sight.pixels, self.views[frame].camera
        vertices = self.render.vertices(state.shape, state.x[frame : frame + 1])
        r = self.residuals(state, frame, pixels)
        weight = robust_weights(r, sight.noise.sigma).sqrt() / sight.noise.sigma
        columns = self.render.geometry_columns(vertices, moves.to(vertices), state.look, pixels, camera)
        light, paint = self.render.appearance_columns(vertices, state.look, pixels, camera)
        m, k = len(moves), paint.shape[2]
        matrix = torch.zeros(m + _N_LIGHT + 3 * k, m + _N_LIGHT + 3 * k, dtype=torch.float64)
        gradient = torch.zeros(len(matrix), dtype=torch.float64)
        for c in range(3):  # a channel knows its own light and paint only
            own = torch.cat([torch.arange(m), m + c + 3 * torch.arange(9 + k)])
            j = torch.cat([columns[:, c], light[:, c], paint[:, c]], 1) * weight[:, None]
            matrix[own[:, None], own] += (j.T @ j).double().cpu()
            gradient[own] -= (j.T @ (r[:, c] * weight)).double().cpu()
        return matrix, gradient

    def _look_prior(self, look: Appearance) -> tuple[Tensor, Tensor]:
        """(27 + 3 K,) precisions and gradients: what is expected of light and paint."""
        precision = torch.full((9, 3), (_LIGHT_SPREAD * float(look.light[0].abs().mean()) + _RIDGE) ** -2, dtype=torch.float64)
        precision[0] = 0
        weight = torch.cat([precision.flatten(), torch.ones(look.paint.numel(), dtype=torch.float64)])
        return weight, weight * _flat_look(look)

    def _stepped(self, state: State, own: Tensor, common: Tensor) -> State:
        """The state after a step, within the bounds."""
        s = len(state.shape)
        values = self.anchor.solver.flat(state.x) + own
        values[:, -6:-3] = compose(own[:, -6:-3], state.x.rotation)
        shape = (state.shape + common[:s]).clamp(-_MAX_SHAPE_SIGMA, _MAX_SHAPE_SIGMA)
        return State(shape, self.anchor.solver.unflat(values, state.x), _stepped_look(state.look, common[s:]))


Solve = Callable[[System, float], tuple[Tensor, Tensor]]
"""(system, damping) to the step of the frames' own unknowns (n, P) and of the shared ones (G,)."""


def solve_all(system: System, damping: float) -> tuple[Tensor, Tensor]:
    """The damped step of everything, by the Schur complement."""
    factor = torch.linalg.cholesky(_damped(system.frames, damping))
    solved = torch.cholesky_solve(torch.cat([system.cross, system.own_gradient[..., None]], -1), factor)
    across, alone = solved[..., :-1], solved[..., -1]
    reduced = _damped(system.shared, damping) - torch.einsum("npg,nph->gh", system.cross, across)
    common = -torch.linalg.solve(reduced, system.gradient - torch.einsum("npg,np->g", system.cross, alone))
    return -(alone + across @ common), common


def solve_frames(system: System, damping: float) -> tuple[Tensor, Tensor]:
    """The damped step of the frames' own unknowns, the shared ones as they are."""
    return -torch.linalg.solve(_damped(system.frames, damping), system.own_gradient), torch.zeros_like(system.gradient)


def deviations(system: System, n_shape: int) -> Deviations:
    """Standard deviations of the posterior that the system is the precision of."""
    own = torch.linalg.inv(_damped(system.frames, 0.0))
    across = own @ system.cross
    shared = torch.linalg.inv(_damped(system.shared, 0.0) - torch.einsum("npg,nph->gh", system.cross, across))
    variance = own.diagonal(dim1=1, dim2=2) + (across @ shared).mul(across).sum(-1)
    return Deviations(variance[:, -6:-3].sum(1).sqrt(), variance[:, -3:].sum(1).sqrt(), shared.diagonal()[:n_shape].sqrt())


def _damped(matrix: Tensor, damping: float) -> Tensor:
    return matrix + torch.diag_embed(damping * matrix.diagonal(dim1=-2, dim2=-1) + _RIDGE)


def _alike(sights: list[Sight]) -> float:
    return float(np.mean([sight.noise.alike for sight in sights]))


def _flat_look(look: Appearance) -> Tensor:
    return torch.cat([look.light.flatten(), look.paint.flatten()]).double().cpu()


def _stepped_look(look: Appearance, step: Tensor) -> Appearance:
    step = step.to(look.light)
    return Appearance(look.light + step[:_N_LIGHT].reshape(9, 3), look.paint + step[_N_LIGHT:].reshape(-1, 3))
