"""POT's conventions, translated: what goes into a problem and what is made of its solution."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._typing import Cost, Potential, Weights
from ..ops import Transport
from .conventions import without_masses
from .pot_result import OTResult, cost_of

Restore = Callable[[Tensor], Any]


def refuse(**options: Any) -> None:
    """Refuse options that must keep their default, None."""
    for name, value in options.items():
        if value is not None:
            raise NotImplementedError(f"{name} is not offered; leave it None")


def detached(*parts: Tensor | None) -> list[Tensor | None]:
    """The tensors without their history."""
    return [None if part is None else part.detach() for part in parts]


def reach_of(reg_type: str, unbalanced: Any, unbalanced_type: str) -> float | None:
    """The marginal penalty of an entropic problem, None for hard marginals; refuses every other kind."""
    if not isinstance(reg_type, str) or reg_type.lower() not in ("kl", "entropy"):
        raise NotImplementedError(f'reg_type must be "KL" or "entropy", got {reg_type!r}')
    if unbalanced is None:
        return None
    if str(unbalanced_type).lower() != "kl":
        raise NotImplementedError(f'unbalanced_type must be "KL", got {unbalanced_type!r}')
    try:
        penalties = set(torch.as_tensor(unbalanced, dtype=torch.float64).reshape(-1).tolist())
    except (TypeError, ValueError) as error:
        raise TypeError(f"unbalanced must be a number, got {unbalanced!r}") from error
    if len(penalties) != 1:
        raise NotImplementedError(f"unbalanced must be the same for both sides, got {unbalanced}")
    reach = penalties.pop()
    if reach == math.inf:
        return None
    if reg_type.lower() == "entropy":
        raise NotImplementedError('reg_type must be "KL" for unbalanced transport, got "entropy"')
    return reach


def start(
    potentials: tuple | None,
    like: Tensor,
    a: Weights | None,
    b: Weights | None,
    reg: float,
    reach: float | None,
) -> tuple[Potential, Potential] | None:
    """Our potentials for POT's, the inverse of :func:`log_scalings`."""
    if potentials is None:
        return None
    given = [torch.as_tensor(part, dtype=like.dtype, device=like.device).detach() for part in potentials]
    if reach is None:
        given = [part - log_weight(w, part) for part, w in zip(given, (a, b), strict=True)]
    # a point without mass has a scaling of 0, and its potential follows the others
    return tuple(reg * torch.where(part.isfinite(), part, 0) for part in given)


def log_weight(weight: Weights | None, potential: Potential) -> Tensor:
    """Logarithms of weights, of uniform ones where there are none."""
    return torch.full_like(potential, -math.log(potential.shape[-1])) if weight is None else weight.log()


def log_scalings(
    solved: Transport, a: Weights | None, b: Weights | None, reg: float, reach: float | None
) -> tuple[Tensor, Tensor]:
    """Logarithms of u and v, of the kernel exp(-M / reg) or, unbalanced, of that times the weights."""
    scaled = solved.f / reg, solved.g / reg
    if reach is not None:
        return scaled
    return tuple(part + log_weight(w, part) for part, w in zip(scaled, (a, b), strict=True))


def warn_unless_converged(solved: Transport) -> None:
    """Warn as POT does when the tolerance was not reached."""
    if not bool(solved.converged.all()):
        warnings.warn(
            f"Sinkhorn did not converge: the marginal error is {float(solved.error.max()):.1e}. Allow more "
            "iterations, a larger error or a larger reg.",
            stacklevel=3,
        )


def value_of(
    solved: Transport, a: Weights | None, b: Weights | None, reg: float, reach: float | None, reg_type: str
) -> Tensor:
    """The value POT reports: divergences without their masses, or the entropy of the plan."""
    if reach is not None:
        masses = [1.0 if w is None else w.sum(-1) for w in (a, b)]
        b = torch.full_like(solved.g, 1 / solved.g.shape[-1]) if b is None else b
        moved = (b * torch.exp(-solved.g / reach)).sum(-1)
        kept = masses[0] + masses[1] - 2 * moved
        return solved.value - reg * (masses[0] * masses[1] - moved) - reach * kept
    value = without_masses(solved.value, a, b, reg)
    if reg_type.lower() == "kl":
        return value
    # the plan has the marginals a and b: sum P log(ab) is a matter of the weights
    for weight, potential in ((a, solved.f), (b, solved.g)):
        if weight is None:
            value = value - reg * math.log(potential.shape[-1])
        else:
            logs = torch.where(weight > 0, weight, 1).log()
            value = value + reg * (weight * logs).sum(-1)
    return value


def result_of(
    restore: Restore,
    solved: Transport,
    cost: Callable[[], Cost],
    a: Weights | None,
    b: Weights | None,
    reg: float,
    reach: float | None,
    reg_type: str,
    grad: str,
    *,
    linear_follows_cost: bool = False,
) -> OTResult:
    """A solution as POT reports it; with "envelope" its ``value_linear`` may follow the cost."""

    def plan() -> Tensor:
        return solved.plan().detach() if grad == "envelope" else solved.plan()

    def linear() -> Tensor:
        fixed = grad == "envelope" and not linear_follows_cost
        return cost_of(result.raw_plan, cost().detach() if fixed else cost())

    potentials = log_scalings(solved, a, b, reg, reach)
    result = OTResult(
        restore,
        value=value_of(solved, a, b, reg, reach, reg_type),
        plan=plan,
        linear=linear,
        potentials=detached(*potentials) if grad == "envelope" else potentials,
        converged=solved.converged,
    )
    return result
