"""Levenberg-Marquardt on landmarks: a batch of frames with the shape fixed, or some frames with what they share.

The maximum a posteriori fit: residuals are in standard deviations, and so are the priors. In the joint problem the
frames' own unknowns are eliminated (the Schur complement of bundle adjustment, Triggs et al. 2000, section 6), so that a
step costs one small system a frame and one for shape and focal length. Geometry and systems are float64; the products
of Jacobians, which cost the most, are float32.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..camera import Camera
from ..head.model import FLIP, HeadModel, Landmarks
from ..rotations import compose, inverse, to_matrix
from . import priors
from .landmark_model import LandmarkModel, place, projection_jacobian
from .observations import CONTOUR, SPARSE, Observations, all_landmarks

MAX_SHAPE = 120
_FIRST_DAMPING = 1e-3
_ENOUGH = 3.0  # of the cost, in squared standard deviations: a step that gains less is the last
_BOUND_PASSES = 3  # an unknown at its bound moves the others, which may meet theirs
_MAX_SHAPE_SIGMA = 3.0
_FOCAL = 0.25  # standard deviation of the logarithm of the focal length, where it is solved for


@dataclass(frozen=True, eq=False)
class Pose:
    """The unknowns of n frames."""

    expression: Tensor  # (n, E)
    joints: Tensor  # (n, J - 1, 3)
    rotation: Tensor  # (n, 3)
    translation: Tensor  # (n, 3)

    def __getitem__(self, frames: slice | Tensor) -> "Pose":
        return Pose(*(getattr(self, name)[frames] for name in self.__dataclass_fields__))

    def where(self, condition: Tensor, other: "Pose") -> "Pose":
        """This pose in the frames where `condition` (n,), the other's elsewhere."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__)
        return Pose(*(torch.where(condition.reshape(-1, *[1] * (a.dim() - 1)), a, b) for a, b in pairs))


@dataclass(frozen=True, eq=False)
class Shared:
    """The unknowns that all frames share."""

    shape: Tensor  # (S,)
    focal: float  # pixels


@dataclass(frozen=True, eq=False)
class Deviations:
    """Standard deviations of the posterior: how far a fit may be off, were the model and its noise right."""

    rotation: Tensor  # (n,) radians, of the whole rotation: the root of the covariance's trace
    translation: Tensor  # (n,) metres, likewise
    shape: Tensor  # (S,)


@dataclass(frozen=True, eq=False)
class Normal:
    """Normal equations of n frames, priors included: P unknowns a frame, G shared ones."""

    frames: Tensor  # (n, P, P)
    gradient: Tensor  # (n, P)
    cross: Tensor  # (n, P, G)
    shared: Tensor  # (G, G)
    shared_gradient: Tensor  # (G,)


def free_joints(head: HeadModel) -> list[tuple[str, int, int]]:
    """(name, index into `joints`, axis) of the joint angles that are fitted: gaze, and the jaw of a head without jawOpen."""
    axes: dict[str, tuple[int, ...]] = {"left_eye": (0, 1), "right_eye": (0, 1)}
    if "jawOpen" not in head.expression_names:
        axes["jaw"] = (0, 1, 2)
    return [(n, j, a) for j, n in enumerate(head.joint_names[1:]) if n in axes for a in axes[n]]


class Solver:
    """The fit of one head model to the landmarks that `seen` knows, in one camera's view.

    Args:
        seen: all frames that will be solved. eye_distance: in pixels; errors are in hundredths of it.
        noise: standard deviation of a landmark of weight 1, hundredths of the distance between the eyes.
    """

    def __init__(self, head: HeadModel, camera: Camera, seen: Observations, eye_distance: float, noise: float = priors.NOISE):
        weights = priors.landmark_weights(head)
        known = seen.known.any(0)
        known[CONTOUR] = bool(known[SPARSE].any())
        self.landmarks = (known & (weights > 0)).nonzero()[:, 0]
        marks = all_landmarks(head)
        self.model = LandmarkModel.at(head, MAX_SHAPE, Landmarks(*(x[self.landmarks] for x in marks)))
        self.head, self.camera = head, camera
        self.to_percent, self.noise = 100 / eye_distance, noise
        self.weights, self.depth_weights = weights[self.landmarks], priors.depth_weights(weights)[self.landmarks]
        self.bounded = bool(head.expression_names)
        self.free_joints = free_joints(head)
        sigma = [priors.JAW if name == "jaw" else priors.EYE for name, _, _ in self.free_joints]
        self.joint_weights = 1 / torch.tensor(sigma, dtype=torch.float64)
        self._expression = self.model.expression_basis.float().permute(1, 2, 0).contiguous()  # (L, 3, E)
        self._shape = self.model.shape_basis.float().permute(1, 2, 0).contiguous()  # (L, 3, S)

    @property
    def n_shape(self) -> int:
        return len(self.model.shape_basis)

    def with_noise(self, noise: float) -> "Solver":
        """The same problem with another level of noise."""
        other = object.__new__(Solver)
        other.__dict__.update(self.__dict__, noise=noise)
        return other

    def start(self, seen: Observations) -> Pose:
        """A first guess: the detector's rotation and expression; the place from the landmarks' middle and spread."""
        seen = seen.at(self.landmarks)
        turn = to_matrix(seen.rotation)
        flip = torch.tensor(FLIP, dtype=torch.float64)
        own = ((self.model.template - self.model.skeleton[0]) * flip) @ turn.transpose(1, 2)
        weight = (seen.known * self.weights)[..., None]
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-9)
        middle, own_middle = (seen.points * weight).sum(1), (own * weight).sum(1)
        spread = ((seen.points - middle[:, None]).square() * weight).sum((1, 2)).sqrt().clamp(min=1.0)
        own_spread = ((own - own_middle[:, None])[..., :2].square() * weight).sum((1, 2)).sqrt()
        depth = (self.camera.focal * own_spread / spread)[:, None]
        side = (middle - middle.new_tensor([self.camera.cx, self.camera.cy])) * depth / self.camera.focal
        joints = torch.zeros(len(seen), len(self.model.parents) - 1, 3, dtype=torch.float64)
        return Pose(seen.scores.clone(), joints, seen.rotation.clone(), torch.cat([side, depth], 1) - own_middle)

    def shared_start(self) -> Shared:
        return Shared(torch.zeros(self.n_shape, dtype=torch.float64), self.camera.focal)

    def _camera(self, shared: Shared) -> Camera:
        return replace(self.camera, focal=shared.focal)

    def residuals(self, shared: Shared, x: Pose, seen: Observations) -> Tensor:
        """(n, L, 3) of the solver's landmarks, in hundredths of the distance between the eyes: in the image, and of the
        relief less its mean; 0 where unknown. `seen` has the solver's landmarks."""
        points = place(self.model.posed(shared.shape, x.expression, x.joints)[0], x.rotation, x.translation)
        return self._residuals(points, shared, seen)

    def _residuals(self, points: Tensor, shared: Shared, seen: Observations) -> Tensor:
        relief = points[..., 2] * (shared.focal / points[..., 2].mean(1, keepdim=True)) - seen.depth
        r = torch.cat([self._camera(shared).project(points) - seen.points, relief[..., None]], -1) * self.to_percent
        known = torch.stack([seen.known, seen.known, seen.has_depth[:, None] & seen.known], -1)
        return self._centred(r[..., None], seen)[..., 0] * known

    def _centred(self, columns: Tensor, seen: Observations) -> Tensor:
        """(n, L, 3, K) with the weighted mean over the landmarks taken off the third row: the detector's relief has no zero."""
        share = self.depth_weights * seen.known
        share = (share / share.sum(1, keepdim=True).clamp(min=1e-9)).to(columns)
        mean = torch.einsum("nl,nlk->nk", share, columns[:, :, 2])
        return torch.cat([columns[:, :, :2], (columns[:, :, 2] - mean[:, None])[:, :, None]], 2)

    def _whitening(self, residual: Tensor) -> Tensor:
        """(n, L, 3): what turns residuals into standard deviations of a robust loss (that of Geman and McClure's family
        which grows linearly)."""
        weights = torch.stack([self.weights, self.weights, self.depth_weights], -1) / self.noise
        size = (residual[..., :2] * weights[..., :2]).norm(dim=-1, keepdim=True)
        return weights / (1 + (size / priors.ROBUST_SCALE) ** 2) ** 0.25

    def error(self, shared: Shared, x: Pose, seen: Observations) -> Tensor:
        """(n,) mean reprojection error of the known landmarks, hundredths of the distance between the eyes."""
        seen = seen.at(self.landmarks)
        away = self.residuals(shared, x, seen)[..., :2].norm(dim=-1)
        return away.sum(1) / seen.known.sum(1).clamp(min=1)

    def noise_level(self, shared: Shared, x: Pose, seen: Observations) -> float:
        """The landmarks' standard deviation as the residuals show it, by their median."""
        seen = seen.at(self.landmarks)
        r = (self.residuals(shared, x, seen)[..., :2] * self.weights[:, None])[seen.known]
        return max(float(1.4826 * r.abs().median()), priors.LEAST_NOISE)

    def deviations(self, shared: Shared, x: Pose, seen: Observations) -> Deviations:
        """How certain frames are that the shape was solved on (Laplace's approximation at the solution)."""
        own, across, cov = _posterior(self.normal(shared, x, seen.at(self.landmarks), self.n_shape))
        variance = own.diagonal(dim1=1, dim2=2) + (across @ cov).mul(across).sum(-1)
        return Deviations(
            variance[:, -6:-3].sum(1).sqrt(), variance[:, -3:].sum(1).sqrt(), cov.diagonal()[: self.n_shape].sqrt()
        )

    def flat(self, x: Pose) -> Tensor:
        """(n, P) the unknowns in the order of the normal equations: expression, joint angles, rotation, translation."""
        return torch.cat([x.expression, self._angles(x), x.rotation, x.translation], 1)

    def unflat(self, values: Tensor, like: Pose) -> Pose:
        """The pose of columns (n, P); what they do not tell is that of `like`."""
        e, a = like.expression.shape[1], len(self.free_joints)
        joints = like.joints.clone()
        for k, (_, j, axis) in enumerate(self.free_joints):
            joints[:, j, axis] = values[:, e + k]
        expression = values[:, :e].clamp(0, 1) if self.bounded else values[:, :e]
        return Pose(expression, joints, values[:, e + a : e + a + 3], values[:, e + a + 3 :])

    def _prior(self, x: Pose, seen: Observations) -> tuple[Tensor, Tensor]:
        """Weights (n, P) and distances (n, P) of the unknowns from what is expected."""
        n, none = len(seen), torch.zeros(len(seen), 3, dtype=torch.float64)
        angles = self._angles(x)
        weight = torch.cat(
            [
                priors.expression_weights(self.head, seen),
                self.joint_weights.expand(n, -1),
                seen.trust[:, None].expand(n, 3),
                none,
            ],
            1,
        )
        off = compose(x.rotation, inverse(seen.rotation))
        return weight, torch.cat([x.expression - seen.scores, angles, off, none], 1)

    def _angles(self, x: Pose) -> Tensor:
        chosen = [x.joints[:, j, axis] for _, j, axis in self.free_joints]
        return torch.stack(chosen, -1) if chosen else x.joints.new_zeros(len(x.joints), 0)

    def cost(self, shared: Shared, x: Pose, seen: Observations) -> Tensor:
        """(n,) what is minimised, the shared unknowns' prior left out. `seen` has the solver's landmarks."""
        weights = torch.stack([self.weights, self.weights, self.depth_weights], -1) / self.noise
        r = self.residuals(shared, x, seen) * weights
        c2 = priors.ROBUST_SCALE**2
        flat = r[..., :2].square().sum(-1)
        data = (2 * c2 * ((1 + flat / c2).sqrt() - 1)).sum(1)
        relief = (r[..., 2].square() / (1 + flat / c2).sqrt()).sum(1)
        weight, away = self._prior(x, seen)
        return data + relief + (weight * away).square().sum(1)

    def normal(self, shared: Shared, x: Pose, seen: Observations, joint: int) -> Normal:
        """Normal equations at x; `joint` is how many shared unknowns take part: none, the shape's, or the focal length too."""
        points, linear = self.model.posed(shared.shape, x.expression, x.joints)
        turn = to_matrix(x.rotation)
        turned = points @ turn.transpose(-1, -2)
        placed = turned + x.translation[:, None]
        r = self._residuals(placed, shared, seen)
        whitening = self._whitening(r)
        rows = 3 if bool(seen.has_depth.any()) else 2
        weight = (whitening * seen.known[..., None])[:, :, :rows]
        weight[:, :, 2:] *= seen.has_depth[:, None, None]
        projection = projection_jacobian(placed, self._camera(shared))
        if rows == 3:
            relief = torch.zeros_like(placed)[..., None, :]
            relief[..., 0, 2] = shared.focal / placed[..., 2].mean(1, keepdim=True)
            projection = torch.cat([projection, relief], -2)
        projection = projection * self.to_percent
        axes = torch.eye(3, dtype=points.dtype)
        spin = torch.stack([torch.linalg.cross(axis.expand_as(turned), turned) for axis in axes], -1)
        joints = self.model.spins(shared.shape, x.expression, x.joints, [(j, a) for _, j, a in self.free_joints])
        to_rest = (projection @ (turn[:, None] @ linear)).float()  # (n, L, rows, 3)
        blocks = [_times_basis(to_rest, self._expression)]
        blocks += [(projection @ (turn[:, None] @ joints)).float(), (projection @ spin).float(), projection.float()]
        if joint:
            shifts = self.model.skeleton_shifts(x.joints)
            blocks.append(_times_basis(to_rest, self._shape) + (projection @ turn[:, None]).float() @ shifts)
        if joint > self.n_shape:
            column = torch.zeros(*placed.shape[:2], rows, 1)
            column[:, :, :2, 0] = placed[..., :2] * (shared.focal / placed[..., 2:]) * self.to_percent
            blocks.append(column)
        jacobian = torch.cat(blocks, -1)
        if rows == 3:
            jacobian = self._centred(jacobian, seen)
        jacobian = (jacobian * weight.float()[..., None]).flatten(1, 2)
        r = (r[:, :, :rows] * weight).flatten(1).float()
        return self._assembled(jacobian, r, shared, x, seen, joint)

    def _assembled(
        self, jacobian: Tensor, r: Tensor, shared: Shared, x: Pose, seen: Observations, joint: int
    ) -> Normal:
        """Whitened Jacobian (n, R, P + G) and residuals (n, R), priors added."""
        p = jacobian.shape[-1] - joint
        own, common = jacobian[..., :p], jacobian[..., p:]
        weight, away = self._prior(x, seen)
        frames = (own.transpose(1, 2) @ own).double() + torch.diag_embed(weight**2)
        gradient = (own.transpose(1, 2) @ r[..., None])[..., 0].double() + weight**2 * away
        cross = (own.transpose(1, 2) @ common).double()
        flat = common.flatten(0, 1)
        precision = torch.full((joint,), priors.SHAPE**-2, dtype=torch.float64)
        distance = torch.zeros(joint, dtype=torch.float64)
        if joint:
            distance[: self.n_shape] = shared.shape
        if joint > self.n_shape:
            precision[-1] = _FOCAL**-2
            distance[-1] = torch.tensor(shared.focal / self.camera.focal).log()
        together = (flat.T @ flat).double() + torch.diag(precision)
        return Normal(frames, gradient, cross, together, (flat.T @ r.flatten()).double() + precision * distance)

    def frame_steps(self, shared: Shared, x: Pose, seen: Observations, steps: int) -> Pose:
        """At most `steps` damped steps of everything that changes from frame to frame, each frame by itself."""
        seen = seen.at(self.landmarks)
        damping = torch.full((len(seen),), _FIRST_DAMPING, dtype=torch.float64)
        cost = self.cost(shared, x, seen)
        for _ in range(steps):
            system = self.normal(shared, x, seen, 0)
            trial = self._stepped(x, self._frame_step(system, x, damping))
            new = self.cost(shared, trial, seen)
            better = new <= cost
            gained = float(torch.where(better, cost - new, 0).max())
            x, cost = trial.where(better, x), torch.where(better, new, cost)
            damping = torch.where(better, damping * 0.1, damping * 10).clamp(1e-9, 1e6)
            if bool(better.all()) and gained < _ENOUGH:
                break
        return x

    def _frame_step(self, system: Normal, x: Pose, damping: Tensor) -> Tensor:
        """(n, P): the damped step of each frame by itself."""
        held = torch.zeros_like(system.gradient)
        at_bound = torch.zeros_like(system.gradient, dtype=torch.bool)
        for _ in range(_BOUND_PASSES):
            part = _held(system, at_bound, held)
            diagonal = torch.diagonal(part.frames, dim1=1, dim2=2)
            step = -torch.cholesky_solve(part.gradient[..., None], _factor(part.frames, damping[:, None] * diagonal))[..., 0]
            at_bound, held = self._bounds(x, step, at_bound, held)
        return step

    def _bounds(self, x: Pose, step: Tensor, at_bound: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the unknowns (n, P) a step takes to a bound, and how far that is: they go there and no farther."""
        if not self.bounded:
            return at_bound, held
        e = x.expression.shape[1]
        moved = x.expression + step[:, :e]
        over = ((moved < 0) | (moved > 1)) & ~at_bound[:, :e]
        at_bound, held = at_bound.clone(), held.clone()
        held[:, :e] = torch.where(over, moved.clamp(0, 1) - x.expression, held[:, :e])
        at_bound[:, :e] |= over
        return at_bound, held

    def joint_steps(self, shared: Shared, x: Pose, seen: Observations, steps: int, focal: bool) -> tuple[Shared, Pose]:
        """At most `steps` damped steps of all frames together with their shape, and with the focal length where asked."""
        seen = seen.at(self.landmarks)
        damping = _FIRST_DAMPING
        for _ in range(steps):
            system = self.normal(shared, x, seen, self.n_shape + focal)
            determined = self._determined(system, x, seen)
            distance = x.translation.norm(dim=-1, keepdim=True)
            system.gradient[:, -3:] -= determined[:, None] * x.translation / distance**2
            common, own = self._joint_step(system, x, damping)
            trial = self._shared_stepped(shared, common), self._stepped(x, own)
            before, after = self._joint_cost(shared, x, seen, determined), self._joint_cost(*trial, seen, determined)
            if after > before:
                damping *= 10
                continue
            (shared, x), damping = trial, max(damping * 0.1, 1e-9)
            if before - after < _ENOUGH:
                break
        return shared, x

    def _determined(self, system: Normal, x: Pose, seen: Observations) -> Tensor:
        """(n,) how many coefficients of the frame's expression, and of its share of the shape, the landmarks determine
        rather than their priors."""
        frames, across, shape = _posterior(system)
        e = x.expression.shape[1]
        variance = (frames + (across @ shape).mul(across).sum(-1).diag_embed()).diagonal(dim1=1, dim2=2)[:, :e]
        free = (x.expression > 0) & (x.expression < 1) if self.bounded else torch.ones_like(x.expression, dtype=torch.bool)
        weight = priors.expression_weights(self.head, seen)
        expression = ((1 - variance * weight**2) * free).sum(1)
        by_shape = self.n_shape - (shape.diagonal()[: self.n_shape] / priors.SHAPE**2).sum()
        return expression + by_shape / len(seen)

    def _joint_cost(self, shared: Shared, x: Pose, seen: Observations, determined: Tensor) -> float:
        """What the joint problem minimises.

        A head that is smaller and nearer looks the same and needs smaller coefficients, so that the joint mode of shape,
        expression and distance comes out several percent too near. The last term, the log determinant of the
        coefficients' posterior with its dependence on the distance, makes it the mode of the distance with the
        coefficients integrated out.
        """
        off = torch.tensor(shared.focal / self.camera.focal).log() / _FOCAL
        prior = (shared.shape / priors.SHAPE).square().sum() + off**2
        nearness = -2 * (determined * x.translation.norm(dim=-1).log()).sum()
        return float(self.cost(shared, x, seen).sum() + prior + nearness)

    def _joint_step(self, system: Normal, x: Pose, damping: float) -> tuple[Tensor, Tensor]:
        """The step of the shared unknowns (G,), and of the frames' own (n, P), which follow from it."""
        held = torch.zeros_like(system.gradient)
        at_bound = torch.zeros_like(system.gradient, dtype=torch.bool)
        for _ in range(_BOUND_PASSES):
            part = _held(system, at_bound, held)
            diagonal = torch.diagonal(part.frames, dim1=1, dim2=2)
            factor = _factor(part.frames, damping * diagonal)
            solved = torch.cholesky_solve(torch.cat([part.cross, part.gradient[..., None]], -1), factor)
            across, alone = solved[..., :-1], solved[..., -1]
            shared = part.shared + torch.diag(damping * torch.diagonal(part.shared))
            reduced = shared - torch.einsum("npg,nph->gh", part.cross, across)
            right = part.shared_gradient - torch.einsum("npg,np->g", part.cross, alone)
            common = -torch.linalg.solve(reduced, right)
            own = -(alone + across @ common)
            at_bound, held = self._bounds(x, own, at_bound, held)
        return common, own

    def _shared_stepped(self, shared: Shared, step: Tensor) -> Shared:
        shape = (shared.shape + step[: self.n_shape]).clamp(-_MAX_SHAPE_SIGMA, _MAX_SHAPE_SIGMA)
        focal = shared.focal * float(step[self.n_shape :].sum().clamp(-0.3, 0.3).exp())
        return Shared(shape, focal)

    def _stepped(self, x: Pose, step: Tensor) -> Pose:
        e, a = x.expression.shape[1], len(self.free_joints)
        joints = x.joints.clone()
        for k, (_, j, axis) in enumerate(self.free_joints):
            turn = torch.zeros(len(step), 3, dtype=torch.float64)
            turn[:, axis] = step[:, e + k]
            joints[:, j] = compose(turn, joints[:, j])
        moved = x.expression + step[:, :e]
        return Pose(
            moved.clamp(0, 1) if self.bounded else moved,
            joints,
            compose(step[:, e + a : e + a + 3], x.rotation),
            x.translation + step[:, e + a + 3 :],
        )

    def pose_steps(self, shared: Shared, x: Pose, seen: Observations, steps: int) -> Pose:
        """Steps of rotation and translation alone, for a first guess that may be far off."""
        seen = seen.at(self.landmarks)
        for _ in range(steps):
            points, _ = self.model.posed(shared.shape, x.expression, x.joints)
            turned = points @ to_matrix(x.rotation).transpose(-1, -2)
            placed = turned + x.translation[:, None]
            r = self._residuals(placed, shared, seen)[..., :2]
            weight = (self._whitening(torch.cat([r, r[..., :1] * 0], -1)) * seen.known[..., None])[..., :2]
            projection = projection_jacobian(placed, self._camera(shared)) * self.to_percent
            axes = torch.eye(3, dtype=points.dtype)
            spin = torch.stack([torch.linalg.cross(axis.expand_as(turned), turned) for axis in axes], -1)
            j = (torch.cat([projection @ spin, projection], -1) * weight[..., None]).flatten(1, 2)
            matrix = j.transpose(1, 2) @ j
            matrix = matrix + torch.diag_embed(1e-4 * torch.diagonal(matrix, dim1=1, dim2=2) + 1e-9)
            step = -torch.linalg.solve(matrix, j.transpose(1, 2) @ (r * weight).flatten(1)[..., None])[..., 0]
            x = replace(x, rotation=compose(step[:, :3], x.rotation), translation=x.translation + step[:, 3:])
        return x


def _held(system: Normal, at_bound: Tensor, held: Tensor) -> Normal:
    """The system in which the unknowns `at_bound` (n, P) move by `held` (n, P), whatever the others do."""
    free = (~at_bound).double()
    value = held * at_bound
    gradient = (system.gradient + (system.frames @ value[..., None])[..., 0]) * free - value
    matrix = system.frames * free[:, :, None] * free[:, None] + torch.diag_embed(at_bound.double())
    shared_gradient = system.shared_gradient + torch.einsum("npg,np->g", system.cross, value)
    return replace(
        system, frames=matrix, gradient=gradient, cross=system.cross * free[..., None], shared_gradient=shared_gradient
    )


def _posterior(system: Normal) -> tuple[Tensor, Tensor, Tensor]:
    """Inverses of each frame's own block (n, P, P), what the shared unknowns do to it (n, P, G), and the covariance of
    the shared unknowns (G, G). A frame's covariance is `own + across @ shared @ across^T`."""
    own = torch.cholesky_inverse(_factor(system.frames, torch.zeros_like(system.gradient)))
    across = own @ system.cross
    reduced = system.shared - torch.einsum("npg,nph->gh", system.cross, across)
    return own, across, torch.linalg.inv(reduced)


def _factor(matrix: Tensor, damping: Tensor) -> Tensor:
    """Cholesky factors of matrices (n, P, P) with `damping` (n, P) on the diagonal, and as much more as the rounding of
    single precision asks for."""
    diagonal = torch.diagonal(matrix, dim1=1, dim2=2)
    for rounding in (1e-6, 1e-4, 1e-2, 1.0):
        factor, failed = torch.linalg.cholesky_ex(matrix + torch.diag_embed(damping + rounding * diagonal + 1e-9))
        if not failed.any():
            break
    return factor


def _times_basis(to_rest: Tensor, basis: Tensor) -> Tensor:
    """(n, L, R, 3) and (L, 3, K) to (n, L, R, K)."""
    out = to_rest[..., 0, None] * basis[:, None, 0]
    for k in (1, 2):
        out.addcmul_(to_rest[..., k, None], basis[:, None, k])
    return out
