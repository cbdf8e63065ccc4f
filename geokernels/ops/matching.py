"""Which point of one cloud belongs to which of another, by their features and where they are."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .._checks import (
    require_choice,
    require_like,
    require_not_empty,
    require_number,
    require_positive,
    require_rank,
)
from .._typing import Points, Scores, Weights
from ..reference.matching import root
from ..reference.potentials import directions
from .inputs import require_all_finite, widened
from .transport import sinkhorn
from .transport_checks import require_clouds

COSTS = ("cosine", "sqeuclidean")
SIGMA_SHARE = 0.1  # of the extent of the first cloud: how far a round trip may miss, where nothing is said


class Match(NamedTuple):
    """Where the points of one cloud belong in another.

    Attributes:
        map: Position in the second cloud of every point of the first, ``(..., N, P)``.
        confidence: How far that is to be believed, ``(..., N)`` in [0, 1]: how much of the point's mass found
            a partner, times how nearly a round trip comes back.
        cycle_error: By what distance the round trip misses, ``(..., N)``, in the unit of the positions.
    """

    map: Points
    confidence: Scores
    cycle_error: Scores


class OneWay(NamedTuple):
    """What a plan says of the points of one side.

    Attributes:
        map: Where each is sent on average, ``(..., N, P)``.
        mass: How much of it is sent, in units of its weight, at most 1, ``(..., N)``.
        squared: Squared distance by which the round trip misses, ``(..., N)``.
        home: Where the points of the other side are sent, ``(..., M, P)``.
        received: How much mass each of those has received, ``(..., M)``.
    """

    map: Points
    mass: Scores
    squared: Scores
    home: Points
    received: Scores


def match_points(
    x: Points,
    y: Points,
    at_x: Points,
    at_y: Points,
    *,
    eps: float,
    reach: float | None,
    a: Weights | None = None,
    b: Weights | None = None,
    cost: str = "cosine",
    position_weight: float = 0.0,
    sigma: float | None = None,
    max_iter: int = 1000,
    tol: float = 1e-5,
    backend: str | None = None,
) -> Match:
    r"""Soft correspondence of two feature clouds with positions, by entropic transport.

    Transport $P$ between the points under the cost $C_{ij} = c(x_i, y_j) + w |p_i - q_j|^2$ of features
    ``x``, ``y`` and positions $p$ = ``at_x``, $q$ = ``at_y`` sends each point to the average of its partners,
    and back:

    $$T(p_i) = \frac{\sum_j P_{ij} q_j}{\sum_j P_{ij}}, \qquad
      S(q_j) = \frac{\sum_i P_{ij} p_i}{\sum_i P_{ij}}, \qquad
      r_i = \Bigl| \frac{\sum_j P_{ij} S(q_j)}{\sum_j P_{ij}} - p_i \Bigr|, \qquad
      \text{confidence}_i = \min\Bigl(1, \frac{\sum_j P_{ij}}{a_i}\Bigr)\, e^{-r_i^2 / 2\sigma^2}.$$

    With ``reach`` a point that has no partner need not find one, and its confidence tells. Clouds of more
    than 256 points are streamed on the CPU, as by :func:`sinkhorn`: the plan is never formed.

    Args:
        x: Features ``(..., N, D)``.
        y: Features ``(..., M, D)``.
        at_x: Positions of ``x``, ``(..., N, P)``, in any unit.
        at_y: Positions of ``y``, ``(..., M, P)``, in the same.
        eps: Regularisation, in the unit of the cost: a smaller one blurs less, over fewer partners.
        reach: Marginal penalty, likewise: what it may cost to find no partner. None for partners of all.
        a: Weights of ``x``, ``(..., N)``; None for ``1 / N`` each. A point of weight zero is
            sent nowhere: its map and its confidence are 0.
        b: Weights of ``y``, ``(..., M)``.
        cost: Between features: ``"cosine"``, $1 - \cos$, or ``"sqeuclidean"``.
        position_weight: $w$, in units of cost over squared position; 0 for features alone.
        sigma: In the unit of the positions; None for a tenth of the root mean square distance of ``at_x``
            from their mean.
        max_iter: The most iterations, each of two half-steps.
        tol: L1 marginal error at which a problem stops.
        backend: As for :func:`sinkhorn`.

    Returns:
        A :class:`Match`, in the dtype of ``x``.

    Gradients:
        To features, positions and weights, through the plan by implicit differentiation: those of the
        converged problem, so give a small ``tol``. Of first order, and of second where clouds are not
        streamed. None through the ``sigma`` that is chosen for None.

    Raises:
        ValueError: If shapes or values do not fit.
        TypeError: If dtypes or devices disagree.
        BackendError: If ``backend`` cannot run this input; the message says why.

    Example:
        >>> import torch
        >>> x, at = torch.eye(3), torch.tensor([[0.0], [1.0], [2.0]])
        >>> found = match_points(x, x[[2, 0, 1]], at, at, eps=0.02, reach=1.0)
        >>> found.map.T.round(decimals=3), found.confidence > 0.9
        (tensor([[1., 2., 0.]]), tensor([True, True, True]))
    """
    require_clouds(x, y)
    _require_positions("at_x", at_x, "x", x, "(..., N, P)")
    _require_positions("at_y", at_y, "y", y, "(..., M, P)")
    if at_y.shape[-1] != at_x.shape[-1]:
        raise ValueError(
            f"at_y must have as many coordinates as at_x, {at_x.shape[-1]}, got {tuple(at_y.shape)}"
        )
    require_choice("cost", cost, COSTS)
    require_number("position_weight", position_weight)
    if not 0 <= position_weight < math.inf:
        raise ValueError(f"position_weight must be a finite number, 0 or above, got {position_weight}")
    if sigma is not None:
        require_positive("sigma", sigma)
    require_all_finite(x=x, y=y, at_x=at_x, at_y=at_y)
    dtype, at_x, at_y = x.dtype, widened(at_x), widened(at_y)
    clouds = joined(widened(x), at_x, widened(y), at_y, cost=cost, position_weight=position_weight)
    a, b = (w if w is None else widened(w) for w in (a, b))
    transport = sinkhorn(*clouds, a, b, eps=eps, reach=reach, max_iter=max_iter, tol=tol, backend=backend)
    way = one_way(transport.apply, transport.apply_t, at_x, at_y, a)
    spread = _spread(at_x) if sigma is None else sigma
    confidence = way.mass * torch.exp(-way.squared / (2 * spread**2))
    return Match(*(part.to(dtype) for part in (way.map, confidence, root(way.squared))))


def _require_positions(name: str, at: Points, of_name: str, of: Points, layout: str) -> None:
    require_rank(name, at, 2, layout)
    require_like(name, at, of_name, of)
    require_not_empty(name, at, layout)
    if at.shape[:-1] != of.shape[:-1]:
        raise ValueError(
            f"{name} must have one position for each row of {of_name}, {layout} = "
            f"{(*of.shape[:-1], 'P')}, got {tuple(at.shape)}"
        )


def joined(
    x: Points, at_x: Points, y: Points, at_y: Points, *, cost: str, position_weight: float
) -> tuple[Points, Points]:
    """Clouds whose squared distances are the costs of features and positions together."""
    root_weight = math.sqrt(position_weight)
    if cost == "cosine":
        # |u - v|^2 / 2 is 1 - <u, v> of unit rows; a zero row has a coordinate of its own instead, by which
        # it is at right angles to all
        x, y = directions(x), directions(y)
        lone = [(1 - u.detach().square().sum(-1, keepdim=True)).round().clamp(min=0) for u in (x, y)]
        x = torch.cat([x, lone[0], torch.zeros_like(lone[0])], -1) * math.sqrt(0.5)
        y = torch.cat([y, torch.zeros_like(lone[1]), lone[1]], -1) * math.sqrt(0.5)
    return torch.cat([x, at_x * root_weight], -1), torch.cat([y, at_y * root_weight], -1)


def one_way(
    there: Callable[[Tensor], Tensor],
    back: Callable[[Tensor], Tensor],
    at_x: Points,
    at_y: Points,
    a: Weights | None = None,
) -> OneWay:
    """Follow a plan from the cloud at ``at_x`` to that at ``at_y``, and back.

    Args:
        there: Products with the plan: ``Transport.apply``, or ``apply_t`` for the other way.
        back: The other of the two.
        at_x: ``(..., N, P)``.
        at_y: ``(..., M, P)``.
        a: Weights of the points at ``at_x``; None for ``1 / N`` each.
    """
    P = at_x.shape[-1]
    received = back(_with_ones(at_x))
    home = _ratio(received)
    sums = there(_with_ones(torch.cat([at_y, home], -1)))
    means, total = _ratio(sums), sums[..., -1]
    squared = (means[..., P:] - at_x).square().sum(-1)
    return OneWay(means[..., :P], _share(total, a), squared, home, received[..., -1])


def other_way(way: OneWay, back: Callable[[Tensor], Tensor], at_y: Points) -> tuple[Points, Scores, Scores]:
    """Map, mass and squared miss of the other side of the plan of ``way``; its points weigh alike."""
    trip = _ratio(torch.cat([back(way.map), way.received[..., None]], -1))
    squared = (trip - at_y).square().sum(-1)
    return way.home, _share(way.received, None), squared


def _share(total: Scores, weight: Weights | None) -> Scores:
    """Sums of the plan over the weights, at most 1; 0 where those are."""
    weight = torch.full_like(total, 1 / total.shape[-1]) if weight is None else weight
    return torch.where(weight > 0, total / weight.masked_fill(weight == 0, 1), 0).clamp(max=1)


def _with_ones(v: Tensor) -> Tensor:
    return torch.cat([v, torch.ones_like(v[..., :1])], -1)


def _ratio(sums: Tensor) -> Tensor:
    """All columns by the last; 0 where that is."""
    total = sums[..., -1:]
    return torch.where(total > 0, sums[..., :-1] / total.masked_fill(total == 0, 1), 0)


def _spread(at: Points) -> Tensor:
    """A share of the root mean square distance from the mean, ``(..., 1)``; 1 where all lie in one place."""
    at = at.detach()
    squared = (at - at.mean(-2, keepdim=True)).square().sum(-1).mean(-1, keepdim=True)
    return torch.where(squared > 0, SIGMA_SHARE * squared.sqrt(), 1)
