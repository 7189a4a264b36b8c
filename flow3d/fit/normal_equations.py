"""Normal equations of landmarks that are linear in their coefficients, without the Jacobian.

A landmark's derivative by a coefficient is a part that all frames share, the basis, times a 3 x 3 part of its frame. So
J^T J needs no J: the frames' parts go into six numbers a landmark (the symmetric 3 x 3 information that its rows give
about where it rests), and one product of matrices with a table of the basis' pairs makes the blocks of all frames.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_SYMMETRIC = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


@dataclass(frozen=True, eq=False)
class Normal:
    """Normal equations of n frames: P unknowns a frame, G shared ones. float64."""

    frames: Tensor  # (n, P, P)
    gradient: Tensor  # (n, P)
    cross: Tensor  # (n, P, G)
    shared: Tensor  # (G, G)
    shared_gradient: Tensor  # (G,)


@dataclass(frozen=True, eq=False)
class Rows:
    """What n frames' residuals do, R rows for each of L landmarks, all in standard deviations."""

    residual: Tensor  # (n, R, L)
    rest: Tensor  # (n, R, 3, L) by where the landmark rests
    own: Tensor  # (n, R, C, L) by the frame's unknowns that are not coefficients
    relief: "Relief | None"


@dataclass(frozen=True, eq=False)
class Relief:
    """The last of the rows, where it is known but for a constant: its residual is given less its weighted mean, and so are its
    derivatives, by what is here. (The mean is one number a frame; to take it off each row would take a Jacobian.)"""

    weight: Tensor  # (n, L) of the row, in 1 / standard deviations
    part: Tensor  # (n, L) what the mean takes of each row, which has its weight already


@dataclass(frozen=True, eq=False)
class Turning:
    """Landmarks that turn about joints which the shape moves: their derivatives by shape are no product with a basis."""

    landmarks: Tensor  # (K,)
    by_shape: Tensor  # (n, R, K, S)


class Bases:
    """Bases of expression and shape at the landmarks, and the table of the expression's pairs.

    Args:
        expression: (E, L, 3). shape: (S, L, 3), 0 where a landmark is one of `Turning`. Both with camera axes.
    """

    def __init__(self, expression: Tensor, shape: Tensor) -> None:
        self.expression = expression.permute(2, 1, 0).contiguous()  # (3, L, E)
        self.shape = shape.permute(2, 1, 0).contiguous()
        first, second = torch.triu_indices(len(expression), len(expression))
        axes = expression.permute(2, 0, 1).contiguous()  # (3, E, L)
        one, other = axes[:, first], axes[:, second]
        squares = [one[i] * other[j] if i == j else one[i] * other[j] + one[j] * other[i] for i, j in _SYMMETRIC]
        self.pairs = torch.cat(squares, 1).T  # (6 L, E (E + 1) / 2)
        place = torch.zeros(len(expression), len(expression), dtype=torch.long)
        place[first, second] = torch.arange(len(first))
        self.unfolded = torch.maximum(place, place.T).flatten()

    def by_expression(self, of_rest: Tensor) -> Tensor:
        """(..., 3, L) derivatives by the resting landmarks to (..., E) by expression."""
        return of_rest.flatten(-2) @ self.expression.flatten(0, 1)

    def by_shape(self, of_rest: Tensor) -> Tensor:
        """(..., 3, L) to (..., S)."""
        return of_rest.flatten(-2) @ self.shape.flatten(0, 1)


def _information(rest: Tensor) -> Tensor:
    """(n, 6, L): the symmetric sum over rows (n, R, 3, L) of their outer products."""
    return torch.stack([(rest[:, :, i] * rest[:, :, j]).sum(1) for i, j in _SYMMETRIC], 1)


def _squares(information: Tensor) -> Tensor:
    """(..., 6, L) to (L, ..., 3, 3)."""
    place = torch.tensor([[0, 3, 4], [3, 1, 5], [4, 5, 2]])
    return information[..., place, :].movedim(-1, 0)


def _mixed(rows: Rows) -> Tensor:
    """(n, C, 3, L): the sum over rows of the products of a frame's own unknowns with the resting landmarks."""
    out = rows.rest[:, 0, None] * rows.own[:, 0, :, None]
    for r in range(1, rows.rest.shape[1]):
        out.addcmul_(rows.rest[:, r, None], rows.own[:, r, :, None])
    return out


def _own_blocks(bases: Bases, rows: Rows, information: Tensor, mixed: Tensor) -> Tensor:
    """(n, E + C, E + C)."""
    n, e = len(rows.residual), bases.expression.shape[-1]
    own = rows.own.transpose(1, 2).flatten(2)
    out = own.new_empty(n, e + own.shape[1], e + own.shape[1])
    out[:, :e, :e] = (information.flatten(1) @ bases.pairs)[:, bases.unfolded].reshape(n, e, e)
    out[:, e:, :e] = bases.by_expression(mixed)
    out[:, :e, e:] = out[:, e:, :e].transpose(1, 2)
    out[:, e:, e:] = own @ own.transpose(1, 2)
    return out


def _gradient(bases: Bases, rows: Rows) -> tuple[Tensor, Tensor]:
    """(n, E + C), and (n, 3, L) by the resting landmarks."""
    rest = (rows.rest * rows.residual[:, :, None]).sum(1)
    own = rows.own.transpose(1, 2).flatten(2) @ rows.residual.flatten(1)[..., None]
    return torch.cat([bases.by_expression(rest), own[..., 0]], 1), rest


@dataclass(frozen=True, eq=False)
class _Sums:
    """The relief row's weighted sum and mean over the landmarks."""

    total: Tensor  # (n, E + C) by the frame's own unknowns
    mean: Tensor
    rest_total: Tensor  # (n, 3, L) by the resting landmarks, to be summed
    rest_mean: Tensor
    weight: Tensor  # (n,) sum of squared weights
    residual: Tensor  # (n, 1) weighted sum


def _sums(bases: Bases, rows: Rows, relief: Relief) -> _Sums:
    rest, own = rows.rest[:, -1], rows.own[:, -1]
    rest_total, rest_mean = rest * relief.weight[:, None], rest * relief.part[:, None]
    both = own @ torch.stack([relief.weight, relief.part], 2)  # (n, C, 2)
    return _Sums(
        torch.cat([bases.by_expression(rest_total), both[..., 0]], 1),
        torch.cat([bases.by_expression(rest_mean), both[..., 1]], 1),
        rest_total,
        rest_mean,
        relief.weight.square().sum(1),
        (relief.weight * rows.residual[:, -1]).sum(1, keepdim=True),
    )


def _outer(total: Tensor, mean: Tensor, other_total: Tensor, other_mean: Tensor, weight: Tensor) -> Tensor:
    """(n, P, Q): what taking the mean off the relief row adds to a block of J^T J. weight: (n,) its squares' sum."""
    left = torch.stack([weight[:, None] * mean - total, -mean], 2)
    return left @ torch.stack([other_mean, other_total], 1)


def of_frames(bases: Bases, rows: Rows) -> tuple[Tensor, Tensor]:
    """J^T J (n, E + C, E + C) and J^T r (n, E + C) of each frame by itself."""
    frames = _own_blocks(bases, rows, _information(rows.rest), _mixed(rows))
    gradient, _ = _gradient(bases, rows)
    if rows.relief is not None:
        sums = _sums(bases, rows, rows.relief)
        frames += _outer(sums.total, sums.mean, sums.total, sums.mean, sums.weight)
        gradient = gradient - sums.mean * sums.residual
    return frames, gradient


def with_shape(bases: Bases, rows: Rows, turning: Turning) -> Normal:
    """The same with the shape that the frames share: the products of P = E + C and G = S unknowns."""
    information, mixed = _information(rows.rest), _mixed(rows)
    frames = _own_blocks(bases, rows, information, mixed)
    gradient, by_rest = _gradient(bases, rows)
    shape_gradient = bases.by_shape(by_rest)
    cross = torch.cat([bases.by_shape(_spread(information, bases.expression)), bases.by_shape(mixed)], 1)
    shared = bases.by_shape(_spread(information.sum(0, keepdim=True), bases.shape))[0]
    turned = turning.by_shape.flatten(1, 2)  # (n, R K, S)
    cross += _own_rows(bases, rows, turning.landmarks) @ turned
    shared += turned.flatten(0, 1).T @ turned.flatten(0, 1)
    shape_gradient += (rows.residual[:, :, turning.landmarks].flatten(1)[:, None] @ turned)[:, 0]
    if rows.relief is not None:
        sums = _sums(bases, rows, rows.relief)
        weight, part = (
            x[:, None, turning.landmarks] @ turning.by_shape[:, -1] for x in (rows.relief.weight, rows.relief.part)
        )
        total, mean = bases.by_shape(sums.rest_total) + weight[:, 0], bases.by_shape(sums.rest_mean) + part[:, 0]
        frames += _outer(sums.total, sums.mean, sums.total, sums.mean, sums.weight)
        cross += _outer(sums.total, sums.mean, total, mean, sums.weight)
        shared += (mean * sums.weight[:, None] - total).T @ mean - mean.T @ total
        gradient, shape_gradient = gradient - sums.mean * sums.residual, shape_gradient - mean * sums.residual
    parts = (frames, gradient, cross, shared, shape_gradient.sum(0))
    return Normal(*(x.double() for x in parts))


def _own_rows(bases: Bases, rows: Rows, landmarks: Tensor) -> Tensor:
    """(n, E + C, R K): the transposed Jacobian of some landmarks by the frame's own unknowns."""
    expression = torch.einsum("nrik,ike->nerk", rows.rest[..., landmarks], bases.expression[:, landmarks])
    return torch.cat([expression, rows.own[..., landmarks].transpose(1, 2)], 1).flatten(2)


def _spread(information: Tensor, basis: Tensor) -> Tensor:
    """(n, K, 3, L): the information (n, 6, L) about resting landmarks times a basis (3, L, K)."""
    n, length = len(information), basis.shape[1]
    square = _squares(information).reshape(length, n * 3, 3)
    product = (square @ basis.transpose(0, 1)).reshape(length, n, 3, -1)
    return product.permute(1, 3, 2, 0)
