"""What POT's solvers return: values and potentials at once, the plan when somebody looks at it."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .._typing import Cost


class OTResult:
    """A solved problem, with the properties of ``ot.utils.OTResult`` that concern linear transport.

    Arrays are of the kind that went in. The plan is made on first use, and so is what is made of it.
    ``lazy_plan`` is the plan, and ``sparse_plan`` and ``value_quad`` are always None.

    Attributes:
        value: Optimal value, regularisation included, ``(...)``.
        potentials: Two arrays, ``(..., N)`` and ``(..., M)``.
        log: None or a dictionary.
    """

    sparse_plan = value_quad = None

    def __init__(
        self,
        restore: Callable[[Tensor], Any],
        *,
        value: Tensor,
        plan: Callable[[], Tensor],
        linear: Callable[[], Tensor],
        potentials: Sequence[Tensor] | None = None,
        converged: Tensor | None = None,
        log: dict | None = None,
    ):
        self.value = restore(value)
        self.potentials = None if potentials is None else tuple(restore(part) for part in potentials)
        self.log = log
        self._restore, self._value, self._plan, self._linear = restore, value, plan, linear
        self._potentials, self._converged = potentials, converged

    def __repr__(self) -> str:
        return f"OTResult(value={self.value}, status={self.status!r})"

    @cached_property
    def raw_plan(self) -> Tensor:
        """The plan as a tensor, whatever went in."""
        return self._plan()

    @cached_property
    def raw_linear(self) -> Tensor:
        """``value_linear`` as a tensor."""
        return self._linear()

    @property
    def plan(self) -> Any:
        """Transport plan, ``(..., N, M)``."""
        return self._restore(self.raw_plan)

    lazy_plan = plan

    @property
    def value_linear(self) -> Any:
        """The cost of the plan, without regularisation, ``(...)``."""
        return self._restore(self.raw_linear)

    @property
    def marginal_a(self) -> Any:
        """Row sums of the plan."""
        return self._restore(self.raw_plan.sum(-1))

    @property
    def marginal_b(self) -> Any:
        """Column sums of the plan."""
        return self._restore(self.raw_plan.sum(-2))

    @property
    def marginals(self) -> tuple[Any, Any]:
        """Both."""
        return self.marginal_a, self.marginal_b

    @property
    def potential_a(self) -> Any:
        """First potential."""
        return None if self.potentials is None else self.potentials[0]

    @property
    def potential_b(self) -> Any:
        """Second potential."""
        return None if self.potentials is None else self.potentials[1]

    @property
    def status(self) -> str:
        """Whether the solver reached its tolerance; reading it waits for the device."""
        return "Converged" if self._converged is None or bool(self._converged.all()) else "Not converged"

    def debiased(self, own_a: "OTResult", own_b: "OTResult") -> "OTResult":
        """This result with half of each measure against itself taken away from its values."""
        parts = (self, own_a, own_b)
        flags = [part._converged for part in parts if part._converged is not None]
        return OTResult(
            self._restore,
            value=self._value - (own_a._value + own_b._value) / 2,
            plan=lambda: self.raw_plan,
            linear=lambda: self.raw_linear - (own_a.raw_linear + own_b.raw_linear) / 2,
            potentials=self._potentials,
            converged=torch.stack(flags) if flags else None,
            log={"res_aa": own_a, "res_bb": own_b, "res_ab": self},
        )


def cost_of(plan: Tensor, cost: Cost) -> Tensor:
    """The sum of P C; a forbidden pair moves nothing and costs nothing."""
    return (plan * cost.masked_fill(cost.isinf(), 0)).sum((-2, -1))
