"""POT's exact transport, on :func:`geokernels.exact_transport`."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .._checks import require_rank
from .._typing import Cost, Weights
from ..ops import ExactTransport, exact_transport
from .arrays import as_tensors
from .conventions import calling
from .pot_result import OTResult

Restore = Callable[[Tensor], Any]
OPTIMAL = 1  # POT's number for a problem that is solved


def emd(
    a,
    b,
    M,
    numItermax: int = 100000,
    log: bool = False,
    center_dual: bool = True,
    numThreads: int = 1,
    check_marginals: bool = True,
    potentials_init: tuple | None = None,
) -> Any:
    r"""Cheapest plan of ``ot.emd``: the minimiser of $\langle P, M\rangle$ with marginals ``a`` and ``b``.

    Args:
        a: Weights of the rows, ``(N,)``; empty or None for uniform ones.
        b: Weights of the columns, ``(M,)``.
        M: Cost, ``(N, M)``. +inf forbids a pair.
        numItermax: Without effect: every problem is solved to its end.
        log: Whether to return a dictionary too: ``cost``, potentials ``u`` and ``v``, ``warning``, which is
            None, and ``result_code``, which is 1.
        center_dual: Without effect: potentials are centred as there.
        numThreads: Without effect.
        check_marginals: Whether to refuse masses that differ; if not, ``b`` is scaled to the mass of ``a``.
        potentials_init: Without effect.

    Returns:
        The plan, ``(N, M)``. With ``log`` a pair.

    Gradients:
        None, as there: those of :func:`emd2` are of its cost.

    Raises:
        ValueError: If shapes or values do not fit, or there is no plan; POT warns of that.

    Example:
        >>> import torch
        >>> emd([0.5, 0.5], [0.25, 0.75], torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        tensor([[0.2500, 0.2500],
                [0.0000, 0.5000]])
    """
    restore, (cost, a, b) = _given(a, b, M)
    found = _solved(cost.detach(), *(None if w is None else w.detach() for w in (a, b)), check_marginals)
    plan = restore(found.plan())
    return (plan, _record(restore, found, float(found.value))) if log else plan


def emd2(
    a,
    b,
    M,
    processes: int = 1,
    numItermax: int = 100000,
    log: bool = False,
    return_matrix: bool = False,
    center_dual: bool = True,
    numThreads: int = 1,
    check_marginals: bool = True,
    potentials_init: tuple | None = None,
) -> Any:
    r"""Cost $\langle P, M\rangle$ of the cheapest plan, as ``ot.emd2`` has it.

    Arguments are those of :func:`emd`; ``b`` may be several, ``(M, K)``, and ``processes`` is without effect.
    ``return_matrix`` asks for the log too, with the plan in it as ``G``.

    Returns:
        A number, or a list of ``K``. With ``log`` or ``return_matrix`` each is a list of it and a dictionary.

    Gradients:
        To ``M`` the plan, to ``a`` and ``b`` the potentials without their means, as there. First order.

    Raises:
        ValueError: If shapes or values do not fit, or there is no plan.

    Example:
        >>> import torch
        >>> emd2([0.5, 0.5], [0.25, 0.75], torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        tensor(0.2500)
    """
    restore, (cost, a, b) = _given(a, b, M)

    def one(b: Weights | None) -> Any:
        found = _solved(cost, _centred(a), _centred(b), check_marginals)
        value = restore(found.value)
        if not (log or return_matrix):
            return value
        matrix = {"G": restore(found.plan())} if return_matrix else {}
        return [value, {**_record(restore, found, value), **matrix}]

    return one(b) if b is None or b.dim() < 2 else [one(column) for column in b.unbind(1)]


def exact(
    restore: Restore, cost: Cost, a: Weights | None, b: Weights | None, unbalanced: Any, grad: str
) -> OTResult:
    """Transport without regularisation, of one problem or a batch, as POT's solvers report it."""
    if unbalanced is not None:
        raise NotImplementedError(f"unbalanced must be None where reg is None or 0, got {unbalanced}")
    if grad == "detach":
        cost, a, b = (None if part is None else part.detach() for part in (cost, a, b))
    found = _solved(cost, _centred(a), _centred(b), True)
    return OTResult(
        restore,
        value=found.value,
        plan=found.plan,
        linear=lambda: found.value,
        potentials=(found.f, found.g),
    )


def _given(a: Any, b: Any, M: Any) -> tuple[Restore, list[Tensor | None]]:
    restore, (cost, a, b) = as_tensors(M, a, b)
    require_rank("M", cost, 2, "(N, M)")
    return restore, [cost, *(None if w is None or w.numel() == 0 else w for w in (a, b))]


def _solved(cost: Cost, a: Weights | None, b: Weights | None, check: bool) -> ExactTransport:
    if not check and b is not None:
        b = b * ((1 if a is None else a.sum()) / b.sum())
    with calling(cost="M"):
        return exact_transport(cost, a, b)


def _centred(weight: Weights | None) -> Weights | None:
    """The same weights; a gradient loses its mean on the way to them."""
    if weight is None or not weight.requires_grad:
        return weight
    return weight - (weight - weight.detach()).mean(-1, keepdim=True)


def _record(restore: Restore, found: ExactTransport, cost: Any) -> dict:
    u, v = restore(found.f), restore(found.g)
    return {"cost": cost, "u": u, "v": v, "warning": None, "result_code": OPTIMAL}
