"""GeomLoss's layer on these operators: ``from geokernels.compat.geomloss import SamplesLoss``."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .._checks import require_choice, require_like, require_number, require_positive, whole
from .._typing import Points, Potential, Weights
from ..ops import sinkhorn, sinkhorn_from_cost
from ..ops.transport_checks import require_clouds
from .conventions import without_masses

BACKENDS = ("auto", "tensorized", "online", "multiscale")
COSTS = {1: "euclidean", 2: "sqeuclidean"}


class SamplesLoss(torch.nn.Module):
    r"""Sinkhorn divergence between sampled measures, with the arguments of ``geomloss.SamplesLoss``.

    The cost is $|x - y|^p / p$, the regularisation $\epsilon = \mathrm{blur}^p$ and the marginal penalty
    $\mathrm{reach}^p$. Weights need not sum to one.

    What differs:

    - The problem is solved: after the descent of ``scaling``, half-steps go on until the marginal error is
      at most ``tol`` of the mass, or ``max_iter`` is reached. GeomLoss stops where its descent ends, with
      values some percent off at its default ``scaling``; the two agree as that goes to 1.
    - Balanced measures of unequal mass are refused.
    - Potentials have $\langle a, f\rangle = \langle b, g\rangle$ when balanced (before the self-terms are
      taken away), and are differentiable to all inputs.
    - Gradients with ``reach`` are those of the value. GeomLoss's to the points are smaller by
      $(\rho + \epsilon / 2) / (\rho + \epsilon)$ with $\rho = \mathrm{reach}^p$, and those to the weights
      lack a term. Balanced, the two agree. Second derivatives are right for ``p=2``.
    - ``backend`` and cluster labels say how GeomLoss should compute the same thing: accepted, without effect,
      as are ``truncate``, ``kernel``, ``cluster_scale`` and ``verbose``. A ``cost`` must be a function, not a
      formula of KeOps.
    - The losses ``"hausdorff"``, ``"energy"``, ``"gaussian"`` and ``"laplacian"`` are not offered.

    Args:
        loss: ``"sinkhorn"``.
        p: 1 or 2; with ``cost``, any positive number.
        blur: Scale below which detail is ignored, in the unit of the points.
        reach: Distance beyond which mass is rather created and destroyed than moved; None never.
        diameter: Where the descent begins; None for the diagonal of the clouds' bounding box, the reading
            of which waits for the device.
        scaling: Ratio of successive blurs of the descent, between 0 and 1.
        truncate: Without effect.
        cost: A function of ``(B, N, D)`` and ``(B, M, D)`` that gives ``(B, N, M)``, to use as it is.
        kernel: Without effect.
        cluster_scale: Without effect.
        debias: Whether to take half the value of each measure against itself away.
        potentials: Whether to return the pair of potentials in place of the value.
        verbose: Without effect.
        backend: ``"auto"``, ``"tensorized"``, ``"online"`` or ``"multiscale"``.
        tol: L1 marginal error, as a part of the smaller mass, at which a problem is solved.
        max_iter: Most pairs of half-steps after the descent.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> loss = SamplesLoss("sinkhorn", p=2, blur=1.0)
        >>> round(loss(x, x + 2).item(), 3)
        2.0
    """

    def __init__(
        self,
        loss: str = "sinkhorn",
        p: float = 2,
        blur: float = 0.05,
        reach: float | None = None,
        diameter: float | None = None,
        scaling: float = 0.5,
        truncate: float | None = 5,
        cost: Callable[[Points, Points], Tensor] | None = None,
        kernel: Callable | None = None,
        cluster_scale: float | None = None,
        debias: bool = True,
        potentials: bool = False,
        verbose: bool = False,
        backend: str = "auto",
        *,
        tol: float = 1e-5,
        max_iter: int = 1000,
    ):
        super().__init__()
        require_choice("loss", loss, ("sinkhorn",))
        require_choice("backend", backend, BACKENDS)
        if cost is None and p not in COSTS:
            raise ValueError(f"p must be 1 or 2 unless a cost is given, got {p}")
        if cost is not None and not callable(cost):
            raise TypeError(f"cost must be a function of two clouds, got {type(cost).__name__}")
        require_number("scaling", scaling)
        require_number("tol", tol)
        if not 0 <= tol < math.inf:
            raise ValueError(f"tol must be a finite number, 0 or above, got {tol}")
        max_iter = whole("max_iter", max_iter)
        require_positive("max_iter", max_iter)
        if not 0 < scaling < 1:
            raise ValueError(f"scaling must lie between 0 and 1, got {scaling}")
        for name, value in (("p", p), ("blur", blur), ("reach", reach), ("diameter", diameter)):
            if value is not None:
                require_positive(name, value)
        self.loss, self.p, self.blur, self.reach = loss, p, blur, reach
        self.diameter, self.scaling, self.truncate, self.cost = diameter, scaling, truncate, cost
        self.kernel, self.cluster_scale, self.debias, self.potentials = (
            kernel,
            cluster_scale,
            debias,
            potentials,
        )
        self.verbose, self.backend, self.tol, self.max_iter = verbose, backend, tol, max_iter

    def forward(self, *args) -> Tensor | tuple[Potential, Potential]:
        r"""The loss between two measures, or their potentials.

        Args:
            *args: ``(x, y)`` for uniform weights, or ``(a, x, b, y)``, or with cluster labels ``(labels_x,
                a, x, labels_y, b, y)``. Points ``(N, D)`` or ``(B, N, D)``, weights ``(N,)`` or ``(B, N)``; a
                last dimension of one is allowed on weights.

        Returns:
            The loss, ``()`` or ``(B,)``; or potentials ``(B, N)`` and ``(B, M)``, where B is 1 without a
            batch, as GeomLoss has it.

        Raises:
            ValueError: If shapes or values do not fit, or balanced masses are unequal.
            TypeError: If dtypes or devices disagree.
        """
        a, x, b, y = self._measures(args)
        unbatched = x.dim() == 2
        x, y, a, b = (part[None] if unbatched and part is not None else part for part in (x, y, a, b))
        diameter = self._widest(x, y)
        value, f, g = self._solve(x, y, a, b, diameter)
        if self.debias:
            value_xx, *own_x = self._solve(x, x, a, a, diameter)
            value_yy, *own_y = self._solve(y, y, b, b, diameter)
            value = value - (value_xx + value_yy) / 2
            # at the optimum the two potentials of a measure against itself are one
            f, g = f - sum(own_x) / 2, g - sum(own_y) / 2
        if self.potentials:
            return f, g
        return value[0] if unbatched else value

    def _measures(self, args: tuple) -> tuple[Weights | None, Points, Weights | None, Points]:
        """Weights and points, whichever way they were given."""
        if len(args) not in (2, 4, 6):
            raise ValueError(
                "SamplesLoss takes (x, y), (a, x, b, y) or (labels_x, a, x, labels_y, b, y), "
                f"got {len(args)} arguments"
            )
        if len(args) == 2:
            args = (None, args[0], None, args[1])
        a, x, b, y = args if len(args) == 4 else (*args[1:3], *args[4:])
        require_clouds(x, y)
        if x.dim() > 3:
            raise ValueError(f"x must have shape (N, D) or (B, N, D), got {tuple(x.shape)}")
        weights = []
        for name, weight, points in (("a", a, x), ("b", b, y)):
            rows = points.shape[:-1]
            if weight is not None:
                require_like(name, weight, "x", x)
                if weight.shape not in (rows, (*rows, 1)):
                    raise ValueError(f"{name} must have shape {tuple(rows)}, got {tuple(weight.shape)}")
                weight = weight.reshape(rows)
            weights.append(weight)
        return weights[0], x, weights[1], y

    def _widest(self, x: Points, y: Points) -> float:
        """The blur at which the descent begins; under ``vmap``, which has no one number, there is none."""
        if self.diameter is not None:
            return self.diameter
        points = torch.cat((x.detach(), y.detach()), dim=-2).flatten(0, -2).float()
        return _number((points.amax(0) - points.amin(0)).norm(), self.blur)

    def _solve(self, x: Points, y: Points, a: Weights | None, b: Weights | None, diameter: float):
        """Value, f and g in GeomLoss's unit and by its count of masses."""
        if self.cost is None:
            # |x - y|^p is p times the cost
            unit, problem = self.p, partial(sinkhorn, x, y, a, b, cost=COSTS[self.p])
        else:
            unit, problem = 1, partial(sinkhorn_from_cost, self.cost(x, y), a, b)
        if self.reach is not None:
            problem = partial(problem, reach=unit * self.reach**self.p)
        max_iter = self.max_iter
        if self.blur < diameter < math.inf:
            problem = partial(problem, anneal=(unit * diameter**self.p, self.scaling**self.p))
            max_iter += math.ceil(math.log(self.blur / diameter) / math.log(self.scaling))
        eps = self.blur**self.p
        masses = [_number(w.detach().sum(-1).min(), 1.0) for w in (a, b) if w is not None]
        tol = self.tol * max(0.0, min(masses, default=1.0))
        solved = problem(eps=unit * eps, max_iter=max_iter, tol=tol)
        value = without_masses(solved.value / unit, a, b, eps)
        return value, solved.f / unit, solved.g / unit


def _number(x: Tensor, otherwise: float) -> float:
    """The value of a tensor of one element; ``otherwise`` under ``vmap``, where it has none."""
    try:
        return x.item()
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        return otherwise
