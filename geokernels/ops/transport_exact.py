"""Exact optimal transport between any two masses."""

from typing import NamedTuple

from torch import Tensor

from .. import reference
from .._checks import require_float, require_not_empty, require_rank, require_values, values_can_be_read
from .._typing import Cost, Potential, Weights
from ..kernels import dispatch
from ..kernels import transport_exact as kernels
from ..reference.transport_exact import FORBIDDEN
from .inputs import widened
from .transport_checks import checked_weights, explain_cost, explain_forbidden, explain_weights


class ExactTransport(NamedTuple):
    """A cheapest plan, as the pairs that may have mass, and the potentials that prove it.

    The pairs join rows and columns to a tree: there are ``N + M - 1`` of them, each once, whatever the plan.

    Attributes:
        rows: Row of each pair, ``(..., N + M - 1)``, int64.
        columns: Column of each pair, likewise.
        mass: What goes from the row to the column, likewise; 0 for pairs that only complete the tree.
        f: Potential of the rows, ``(..., N)``: ``f_i + g_j`` is at most ``C_ij``, and equal to it where mass
            goes.
        g: Potential of the columns, ``(..., M)``.
        value: Cost of the plan, ``(...)``, and ``<a, f> + <b, g>`` as well.
    """

    rows: Tensor
    columns: Tensor
    mass: Tensor
    f: Potential
    g: Potential
    value: Tensor

    def plan(self) -> Tensor:
        """The plan as a matrix, ``(..., N, M)``."""
        return kernels.on_plan(self.mass, self.rows, self.columns, (self.f.shape[-1], self.g.shape[-1]))


def exact_transport(
    cost: Cost, a: Weights | None = None, b: Weights | None = None, *, backend: str | None = None
) -> ExactTransport:
    r"""The cheapest way to move one set of masses onto another, exactly.

    $$\min_{P \ge 0} \langle P, C\rangle \quad\text{with } P 1 = a,\; P^\top 1 = b$$

    Solved by the network simplex method, in float64. :func:`assignment` is faster where every point goes to
    one other as a whole. Tensors on other devices are copied to the CPU, and the result back, which waits for
    a GPU.

    Args:
        cost: ``(..., N, M)``. +inf forbids a pair.
        a: Masses of the rows, ``(..., N)``, non-negative; None for ``1 / N`` each.
        b: Masses of the columns, ``(..., M)``, which must have the sum of ``a``, to one part in a million or,
            in float32, to the root of its precision. They are scaled to it.
        backend: ``"native"`` or ``"reference"`` to insist on one; None for the fastest that can run.

    Returns:
        An :class:`ExactTransport`, in the dtype of ``cost``, float32 for half precision. Of several cheapest
        plans which one comes back is not specified, but does not change from call to call, with the number of
        threads or with the batch. Potentials are fixed up to constants, one for every part of the tree that
        has mass; these have ``<a, f> = <b, g>``. Masses are resolved to $2^{-61}$ of their sum.

    Gradients:
        Of ``value``, first order: to ``cost`` the plan, to ``a`` and ``b`` the potentials, which have a
        meaning only along changes that keep the two sums equal. ``value`` is piecewise linear: where plan or
        potentials are not unique these are one subgradient of several. The other results have none.

    Raises:
        ValueError: If shapes or values do not fit, or every plan uses a forbidden pair. Where values cannot
            be read (a GPU, ``torch.compile``) such a problem has the value NaN.
        TypeError: If dtypes or devices disagree.
        BackendError: If ``backend`` cannot run this input; the message says why.

    Example:
        >>> import torch
        >>> cost = torch.tensor([[1.0, 2.0, 4.0], [3.0, 1.0, 2.0]])
        >>> exact_transport(cost, torch.tensor([0.6, 0.4]), torch.tensor([0.3, 0.5, 0.2])).plan()
        tensor([[0.3000, 0.3000, 0.0000],
                [0.0000, 0.2000, 0.2000]])
    """
    require_rank("cost", cost, 2, "(..., N, M)")
    require_float("cost", cost)
    require_values("cost", cost)
    require_not_empty("cost", cost, "(..., N, M)")
    a, b = checked_weights(a, b, cost, "cost", cost.shape[-2:])
    cost = widened(cost)
    here = [x if x is None or x.is_cpu else x.cpu() for x in (cost, a, b)]
    refusals = {"native": lambda: kernels.refuse(here[0]), "reference": None}
    run = kernels if dispatch.choose("exact_transport", refusals, backend) == "native" else reference
    solved = run.exact_transport(*here)
    # values are looked at by the solver, which takes no problem that they make none
    if values_can_be_read(*(x for x in (cost, a, b) if x is not None)) and bool(solved.ending.any()):
        raise ValueError(_explain(cost, a, b, solved.ending))
    parts = solved.rows, solved.columns, solved.mass, solved.f, solved.g, solved.value
    return ExactTransport(*(parts if cost.is_cpu else (part.to(cost.device) for part in parts)))


def _explain(cost: Cost, a: Weights | None, b: Weights | None, ending: Tensor) -> str:
    """Say why a problem was not solved."""
    problem = reference.Problem(eps=1.0, a=a, b=b)
    reason = explain_cost(cost) or explain_weights(problem, remedy="") or explain_forbidden(cost, problem)
    if reason:
        return reason
    at = tuple(ending.nonzero()[0].tolist())
    of = f" of problem {at}" if at else ""
    if int(ending[at]) == FORBIDDEN:
        return f"cost forbids every plan for the masses{of}: too many of its entries are +inf"
    return f"cost must span fewer orders of magnitude{of}: float64 does not resolve the plan"
