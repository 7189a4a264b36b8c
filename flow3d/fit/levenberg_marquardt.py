"""Levenberg-Marquardt on landmarks: a batch of frames with the shape fixed, or some frames with what they share.

The maximum a posteriori fit: residuals are in standard deviations, and so are the priors. In the joint problem the
frames' own unknowns are eliminated (the Schur complement of bundle adjustment, Triggs et al. 2000, section 6), so that a
step costs one small system a frame and one for shape and focal length. Unknowns and systems are float64; landmarks and
the products of their derivatives, which cost the most, are float32.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..camera import Camera
from ..head.model import FLIP, HeadModel, Landmarks
from ..rotations import compose, inverse, to_matrix
from . import priors
from .landmark_model import LandmarkModel
from .normal_equations import Bases, Normal, Relief, Rows, Turning, of_frames, with_shape
from .observations import CONTOUR, SPARSE, Observations, all_landmarks

MAX_SHAPE = 120
_FIRST_DAMPING = 1e-5  # more would slow the way along the valley where shape, distance and turn trade
_ENOUGH = 3.0  # of the cost, in squared standard deviations: a step that gains less is the last
_ENOUGH_A_FRAME = 0.3  # the same in a joint problem, for each of its frames
_TRIALS = 4  # of ever shorter steps, before a joint problem counts as solved
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
        dtype: of landmarks and their derivatives.

    Joints that are not fitted are at rest.
    """

    def __init__(
        self,
        head: HeadModel,
        camera: Camera,
        seen: Observations,
        eye_distance: float,
        noise: float = priors.NOISE,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        weights = priors.landmark_weights(head)
        known = seen.known.any(0)
        known[CONTOUR] = bool(known[SPARSE].any())
        self.landmarks = (known & (weights > 0)).nonzero()[:, 0]
        marks = Landmarks(*(x[self.landmarks] for x in all_landmarks(head)))
        self.model = LandmarkModel.at(head, MAX_SHAPE, marks)
        self.head, self.camera = head, camera
        self.to_percent, self.noise, self.dtype = 100 / eye_distance, noise, dtype
        self.weights, self.depth_weights = weights[self.landmarks], priors.depth_weights(weights)[self.landmarks]
        self.bounded = bool(head.expression_names)
        self.free_joints = free_joints(head)
        sigma = [priors.JAW if name == "jaw" else priors.EYE for name, _, _ in self.free_joints]
        self.joint_weights = 1 / torch.tensor(sigma, dtype=torch.float64)
        flip = torch.tensor(FLIP, dtype=torch.float64)
        self._loose = _following(self.model, [j + 1 for _, j, _ in self.free_joints])
        of_shape = (
            self.model.shape_basis - self.model.skeleton_basis[:, :1]
        )  # landmarks are counted from the root joint
        of_shape[:, self._loose] = 0
        self._bases = Bases((self.model.expression_basis * flip).to(dtype), (of_shape * flip).to(dtype))
        self._template = ((self.model.template - self.model.skeleton[0]) * flip).T.to(dtype)  # (3, L)
        self._loose_model = LandmarkModel.at(head, MAX_SHAPE, Landmarks(*(x[self._loose] for x in marks)))

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
        return self._residuals(self._placed(self._points(shared, x), x)[1], shared, seen).transpose(1, 2).double()

    def _points(self, shared: Shared, x: Pose) -> Tensor:
        """(n, 3, L) landmarks from the root joint with camera axes, before the head's rotation."""
        rest = self._template + self._bases.shape @ shared.shape.to(self.dtype)
        moved = x.expression.to(self.dtype) @ self._bases.expression.flatten(0, 1).T
        points = rest + moved.reshape(-1, *rest.shape)
        if len(self._loose):
            loose, _ = self._loose_model.posed(shared.shape, x.expression, x.joints)
            points[:, :, self._loose] = loose.transpose(1, 2).to(self.dtype)
        return points

    def _placed(self, points: Tensor, x: Pose) -> tuple[Tensor, Tensor]:
        """(n, 3, 3) the head's rotation; (n, 3, L) landmarks in the camera frame."""
        turn = to_matrix(x.rotation).to(self.dtype)
        return turn, torch.baddbmm(x.translation[..., None].to(self.dtype), turn, points)

    def _residuals(self, placed: Tensor, shared: Shared, seen: Observations) -> Tensor:
        """(n, 3, L): see `residuals`."""
        z = placed[:, 2]
        flat = placed[:, :2] * (shared.focal / z)[:, None] + placed.new_tensor([[self.camera.cx], [self.camera.cy]])
        relief = z * (shared.focal / z.mean(1, keepdim=True)) - seen.depth.to(self.dtype)
        relief = relief - (self._share(seen) * relief).sum(1, keepdim=True)
        away = torch.cat([flat - seen.points.transpose(1, 2).to(self.dtype), relief[:, None]], 1)
        known = torch.stack([seen.known, seen.known, seen.has_depth[:, None] & seen.known], 1)
        return away * known * self.to_percent

    def _share(self, seen: Observations) -> Tensor:
        """(n, L): each landmark's part in the mean of the relief, whose zero the detector does not know."""
        share = self.depth_weights * seen.known
        return (share / share.sum(1, keepdim=True).clamp(min=1e-9)).to(self.dtype)

    def _weights(self) -> Tensor:
        """(3, L): what turns residuals into standard deviations."""
        return (torch.stack([self.weights, self.weights, self.depth_weights]) / self.noise).to(self.dtype)

    def _whitening(self, residual: Tensor) -> Tensor:
        """(n, 3, L): the same for a robust loss (that of Geman and McClure's family which grows linearly)."""
        weights = self._weights()
        size = (residual[:, :2] * weights[:2]).square().sum(1, keepdim=True)
        return weights / (1 + size / priors.ROBUST_SCALE**2).sqrt().sqrt()

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
        off = compose(x.rotation, inverse(seen.rotation)) if seen.trust.any() else none
        return weight, torch.cat([x.expression - seen.scores, angles, off, none], 1)

    def _angles(self, x: Pose) -> Tensor:
        chosen = [x.joints[:, j, axis] for _, j, axis in self.free_joints]
        return torch.stack(chosen, -1) if chosen else x.joints.new_zeros(len(x.joints), 0)

    def cost(self, shared: Shared, x: Pose, seen: Observations) -> Tensor:
        """(n,) what is minimised, the shared unknowns' prior left out. `seen` has the solver's landmarks."""
        r = self._residuals(self._placed(self._points(shared, x), x)[1], shared, seen) * self._weights()
        c2 = priors.ROBUST_SCALE**2
        spread = (1 + r[:, :2].square().sum(1) / c2).sqrt()
        data = (2 * c2 * (spread - 1)).double().sum(1)
        relief = (r[:, 2].square() / spread).double().sum(1)
        weight, away = self._prior(x, seen)
        return data + relief + (weight * away).square().sum(1)

    def normal(self, shared: Shared, x: Pose, seen: Observations, joint: int) -> Normal:
        """Normal equations at x; `joint` is how many shared unknowns take part: none, the shape's, or the focal length too."""
        rows = self._rows(shared, x, seen, joint > self.n_shape)
        if not joint:
            frames, gradient = of_frames(self._bases, rows)
            n, p = gradient.shape
            none = torch.zeros(n, p, 0, dtype=torch.float64)
            system = Normal(frames.double(), gradient.double(), none, none.new_zeros(0, 0), none.new_zeros(0))
        else:
            system = with_shape(self._bases, rows, self._turning(rows, x))
            if joint > self.n_shape:
                system = _last_is_shared(system)
        return self._with_priors(system, shared, x, seen)

    def _rows(self, shared: Shared, x: Pose, seen: Observations, focal: bool) -> Rows:
        """The residuals' derivatives; by the logarithm of the focal length, last, where asked."""
        turn, placed = self._placed(self._points(shared, x), x)
        count = 3 if bool(seen.has_depth.any()) else 2
        residual, weight, by_place, spin = self._by_pose(placed, x, shared, seen, count)
        rest = turn.transpose(1, 2)[:, None] @ by_place
        angles = by_place.new_zeros(*by_place.shape[:2], len(self.free_joints), placed.shape[2])
        if len(self._loose):
            chosen = [(j, a) for _, j, a in self.free_joints]
            spins, linear = self._loose_model.spins(shared.shape, x.expression, x.joints, chosen)
            angles[..., self._loose] = torch.einsum("nrik,nkia->nrak", rest[..., self._loose], spins.to(self.dtype))
            linear = (linear * linear.new_tensor(FLIP)).to(self.dtype)
            rest[..., self._loose] = torch.einsum("nrik,nkij->nrjk", rest[..., self._loose], linear)
        own = [angles, spin, by_place]
        if focal:
            column = torch.zeros_like(by_place[:, :, :1])
            scale = weight[:, :2, None] * self.to_percent * shared.focal
            column[:, :2] = placed[:, :2, None] / placed[:, None, None, 2] * scale
            own.append(column)
        relief = None
        if count == 3:
            part = torch.where(weight[:, 2] > 0, self._share(seen) / weight[:, 2].clamp(min=1e-12), 0)
            relief = Relief(weight[:, 2], part)
        return Rows(residual, rest, torch.cat(own, 2), relief)

    def _by_pose(
        self, placed: Tensor, x: Pose, shared: Shared, seen: Observations, count: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The first `count` residuals (n, count, L) and what they were weighted with; their derivatives (n, count, 3, L) by the
        landmarks' places, and by a further rotation of the head."""
        residual = self._residuals(placed, shared, seen)
        known = torch.stack([seen.known, seen.known, seen.has_depth[:, None] & seen.known], 1)
        weight = (self._whitening(residual) * known)[:, :count]
        by_place = self._by_place(placed, shared.focal)[:, :count] * (weight[:, :, None] * self.to_percent)
        turned = placed - x.translation[..., None].to(self.dtype)
        spin = torch.linalg.cross(turned[:, None].expand_as(by_place), by_place, dim=2)
        return residual[:, :count] * weight, weight, by_place, spin

    def _by_place(self, placed: Tensor, focal: float) -> Tensor:
        """(n, 3, 3, L): derivatives of image coordinates and relief, in pixels, by the place in the camera frame."""
        x, y, z = placed.unbind(1)
        none, scale = torch.zeros_like(z), focal / z
        relief = (focal / z.mean(1, keepdim=True)).expand_as(z)
        rows = [scale, none, -scale * x / z, none, scale, -scale * y / z, none, none, relief]
        return torch.stack(rows, 1).reshape(len(placed), 3, 3, -1)

    def _turning(self, rows: Rows, x: Pose) -> Turning:
        """What the shape does to the landmarks that fitted joints turn: it moves the joints, too."""
        model, first = self._loose_model, len(self.free_joints) + 3
        n, r, k = len(rows.residual), rows.residual.shape[1], len(self._loose)
        by_place = rows.own[:, :, first : first + 3, self._loose]
        by_body = to_matrix(x.rotation).to(self.dtype).transpose(1, 2)[:, None] @ by_place  # (n, R, 3, K)
        linear = model.posed(x.expression.new_zeros(self.n_shape), x.expression, x.joints)[1]
        basis = model.shape_basis.permute(1, 2, 0).to(self.dtype)  # (K, 3, S)
        moves = linear.to(self.dtype) @ basis + model.skeleton_shifts(x.joints).to(self.dtype)  # (n, K, 3, S)
        by_shape = by_body.permute(0, 3, 1, 2) @ moves  # (n, K, R, S)
        return Turning(self._loose, by_shape.transpose(1, 2).reshape(n, r, k, self.n_shape))

    def _with_priors(self, system: Normal, shared: Shared, x: Pose, seen: Observations) -> Normal:
        weight, away = self._prior(x, seen)
        joint = len(system.shared)
        precision = torch.full((joint,), priors.SHAPE**-2, dtype=torch.float64)
        distance = torch.zeros(joint, dtype=torch.float64)
        if joint:
            distance[: self.n_shape] = shared.shape
        if joint > self.n_shape:
            precision[-1] = _FOCAL**-2
            distance[-1] = torch.tensor(shared.focal / self.camera.focal).log()
        return Normal(
            system.frames + torch.diag_embed(weight**2),
            system.gradient + weight**2 * away,
            system.cross,
            system.shared + torch.diag(precision),
            system.shared_gradient + precision * distance,
        )

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
            step = -torch.cholesky_solve(part.gradient[..., None], _factor(part.frames, damping[:, None] * diagonal))[
                ..., 0
            ]
            over = self._over(x, step, at_bound)
            if not over.any():
                break
            at_bound, held = at_bound | over, torch.where(over, self._to_bound(x, step), held)
        return step

    def _over(self, x: Pose, step: Tensor, at_bound: Tensor) -> Tensor:
        """(n, P) bool: unknowns, but those `at_bound`, that a step takes beyond a bound."""
        over = torch.zeros_like(at_bound)
        if self.bounded:
            e = x.expression.shape[1]
            moved = x.expression + step[:, :e]
            over[:, :e] = ((moved < 0) | (moved > 1)) & ~at_bound[:, :e]
        return over

    def _to_bound(self, x: Pose, step: Tensor) -> Tensor:
        """(n, P): the step, as far as the bounds allow."""
        e = x.expression.shape[1]
        return torch.cat([(x.expression + step[:, :e]).clamp(0, 1) - x.expression, step[:, e:]], 1)

    def joint_steps(
        self, shared: Shared, x: Pose, seen: Observations, steps: int, focal: bool, stepped: Callable[[], None] = lambda: None
    ) -> tuple[Shared, Pose]:
        """At most `steps` damped steps of all frames together with their shape, and with the focal length where asked.

        `stepped` is called before each and before each of its trials; it may raise to cancel.
        """
        seen = seen.at(self.landmarks)
        damping, enough = _FIRST_DAMPING, _ENOUGH + _ENOUGH_A_FRAME * len(seen)
        for _ in range(steps):
            stepped()
            system = self.normal(shared, x, seen, self.n_shape + focal)
            determined = self._determined(system, x, seen)
            distance = x.translation.norm(dim=-1, keepdim=True)
            system.gradient[:, -3:] -= determined[:, None] * x.translation / distance**2
            before = self._joint_cost(shared, x, seen, determined)
            for attempt in range(_TRIALS):
                stepped()
                common, own = self._joint_step(system, shared, x, damping)
                trial = self._shared_stepped(shared, common), self._stepped(x, own)
                gained = before - self._joint_cost(*trial, seen, determined)
                if gained >= 0:
                    (shared, x), damping = trial, damping * (1.0 if attempt else 0.3)
                    break
                damping *= 10
            if gained < enough:
                break
        return shared, x

    def _determined(self, system: Normal, x: Pose, seen: Observations) -> Tensor:
        """(n,) how many coefficients of the frame's expression, and of its share of the shape, the landmarks determine
        rather than their priors."""
        frames, across, shape = _posterior(system)
        e = x.expression.shape[1]
        variance = (frames + (across @ shape).mul(across).sum(-1).diag_embed()).diagonal(dim1=1, dim2=2)[:, :e]
        free = (
            (x.expression > 0) & (x.expression < 1) if self.bounded else torch.ones_like(x.expression, dtype=torch.bool)
        )
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

    def _joint_step(self, system: Normal, shared: Shared, x: Pose, damping: float) -> tuple[Tensor, Tensor]:
        """The step of the shared unknowns (G,), and of the frames' own (n, P), which follow from it."""
        held = torch.zeros_like(system.gradient)
        at_bound = torch.zeros_like(system.gradient, dtype=torch.bool)
        room = torch.full(
            (2, len(system.shared)), torch.inf, dtype=torch.float64
        )  # of the shared unknowns, down and up
        room[:, : self.n_shape] = _MAX_SHAPE_SIGMA + torch.stack([shared.shape, -shared.shape])
        common = torch.zeros_like(system.shared_gradient)
        free = torch.ones_like(common, dtype=torch.bool)
        for _ in range(_BOUND_PASSES):
            part = _held(system, at_bound, held)
            diagonal = torch.diagonal(part.frames, dim1=1, dim2=2)
            factor = _factor(part.frames, damping * diagonal)
            solved = torch.cholesky_solve(torch.cat([part.cross, part.gradient[..., None]], -1), factor)
            across, alone = solved[..., :-1], solved[..., -1]
            matrix = part.shared + torch.diag(damping * torch.diagonal(part.shared))
            reduced = matrix - part.cross.flatten(0, 1).T @ across.flatten(0, 1)
            right = part.shared_gradient - part.cross.flatten(0, 1).T @ alone.flatten()
            right = right[free] + reduced[free][:, ~free] @ common[~free]
            common[free] = -torch.linalg.solve(reduced[free][:, free], right)
            own = -(alone + across @ common)
            over = self._over(x, own, at_bound)
            beyond = free & ((common < -room[0]) | (common > room[1]))
            common, free = torch.clamp(common, -room[0], room[1]), free & ~beyond
            if not over.any() and not beyond.any():
                break
            at_bound, held = at_bound | over, torch.where(over, self._to_bound(x, own), held)
        return common, own

    def _shared_stepped(self, shared: Shared, step: Tensor) -> Shared:
        shape = (shared.shape + step[: self.n_shape]).clamp(-_MAX_SHAPE_SIGMA, _MAX_SHAPE_SIGMA)
        focal = shared.focal * float(step[self.n_shape :].sum().clamp(-0.3, 0.3).exp())
        return Shared(shape, focal)

    def _stepped(self, x: Pose, step: Tensor) -> Pose:
        e, a = x.expression.shape[1], len(self.free_joints)
        turn = torch.zeros_like(x.joints)
        for k, (_, j, axis) in enumerate(self.free_joints):
            turn[:, j, axis] = step[:, e + k]
        moved = x.expression + step[:, :e]
        return Pose(
            moved.clamp(0, 1) if self.bounded else moved,
            compose(turn, x.joints) if self.free_joints else x.joints,
            compose(step[:, e + a : e + a + 3], x.rotation),
            x.translation + step[:, e + a + 3 :],
        )

    def pose_steps(self, shared: Shared, x: Pose, seen: Observations, steps: int) -> Pose:
        """Steps of rotation and translation alone, for a first guess that may be far off."""
        seen = seen.at(self.landmarks)
        points = self._points(shared, x)
        for _ in range(steps):
            residual, _, by_place, spin = self._by_pose(self._placed(points, x)[1], x, shared, seen, 2)
            own = torch.cat([spin, by_place], 2).transpose(1, 2).flatten(2).double()
            matrix = own @ own.transpose(1, 2)
            matrix = matrix + torch.diag_embed(1e-4 * torch.diagonal(matrix, dim1=1, dim2=2) + 1e-9)
            step = -torch.linalg.solve(matrix, own @ residual.flatten(1)[..., None].double())[..., 0]
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
    reduced = system.shared - system.cross.flatten(0, 1).T @ across.flatten(0, 1)
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


def _following(model: LandmarkModel, joints: list[int]) -> Tensor:
    """(K,) the landmarks that follow any of these joints, or one that hangs on them."""
    turned = set(joints)
    for j, parent in enumerate(model.parents):
        if parent in turned:
            turned.add(j)
    return (model.skin_weights[:, sorted(turned)] > 0).any(1).nonzero()[:, 0]


def _last_is_shared(system: Normal) -> Normal:
    """The system in which the last of the frames' unknowns is one that they share."""
    across = system.cross[:, -1].sum(0)
    corner = system.frames[:, -1, -1].sum()
    return Normal(
        system.frames[:, :-1, :-1],
        system.gradient[:, :-1],
        torch.cat([system.cross[:, :-1], system.frames[:, :-1, -1:]], 2),
        torch.cat([torch.cat([system.shared, across[:, None]], 1), torch.cat([across, corner[None]])[None]]),
        torch.cat([system.shared_gradient, system.gradient[:, -1].sum(0, keepdim=True)]),
    )
