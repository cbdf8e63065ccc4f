r"""POT's solvers on these operators: ``from geokernels.compat import pot as ot``.

:func:`sinkhorn`, :func:`sinkhorn2`, :func:`emd`, :func:`emd2`, :func:`solve`, :func:`solve_sample` and
:func:`solve_batch`, with POT's arguments, on tensors, NumPy arrays and lists. What differs everywhere:

- One solver, in the log domain, stands for all ``method`` names: small ``reg`` neither overflows nor warns
  of numerical errors. Options of particular methods, thread counts and ``verbose`` are accepted, without
  effect.
- It stops when the L1 error of both marginals is at most the tolerance, looked at after every pair of
  half-steps. POT looks at the L2 error of one marginal (balanced) or the change of the scalings
  (unbalanced), every tenth or every iteration.
- Gradients are those of the converged problem, by the envelope theorem and by implicit differentiation,
  rather than through the iterations. No iterates are kept, whatever ``grad`` says.
- Balanced masses that differ, negative weights and NaN are refused with a ``ValueError``.
- Scaling vectors and potentials are fixed up to a constant, and may differ by it.
- What POT offers beyond entropic and exact transport raises ``NotImplementedError``.
"""

from typing import Any

from torch import Tensor

from .. import reference
from .._checks import require_choice, require_number, require_pair, require_positive, require_rank
from .._typing import Cost, Weights
from ..ops import sinkhorn as sinkhorn_of_points
from ..ops import sinkhorn_from_cost
from .arrays import as_tensors
from .conventions import calling
from .pot_exact import emd as emd
from .pot_exact import emd2 as emd2
from .pot_exact import exact
from .pot_problem import (
    detached,
    log_scalings,
    reach_of,
    refuse,
    result_of,
    start,
    warn_unless_converged,
)
from .pot_result import OTResult, cost_of

LOSS_METHODS = ("sinkhorn", "sinkhorn_log", "sinkhorn_stabilized")
PLAN_METHODS = (*LOSS_METHODS, "greenkhorn", "sinkhorn_epsilon_scaling")
BATCH_METHODS = ("auto", "proximal", "log_sinkhorn", "sinkhorn")
GRADS = ("autodiff", "envelope", "last_step", "detach")
MAX_ITER, TOL = 1000, 1e-9  # where solve and solve_sample are given None
# metric: cost of the operator and its exponent
METRICS = {
    "sqeuclidean": ("sqeuclidean", 2.0),
    "euclidean": ("euclidean", 2.0),
    "cityblock": ("lp", 1.0),
    "cosine": ("cosine", 2.0),
}


def sinkhorn(
    a,
    b,
    M,
    reg: float,
    method: str = "sinkhorn",
    numItermax: int = 1000,
    stopThr: float = 1e-9,
    verbose: bool = False,
    log: bool = False,
    warn: bool = True,
    warmstart: tuple | None = None,
    **method_options,
) -> Any:
    r"""Entropic plan of ``ot.sinkhorn``: the minimiser of $\langle P, M\rangle + reg \sum P \log P$.

    Args:
        a: Weights of the rows, ``(N,)``; empty or None for uniform ones.
        b: Weights of the columns, ``(M,)``, or several, ``(M, K)``.
        M: Cost, ``(N, M)``. +inf forbids a pair.
        reg: Regularisation.
        method: Any of POT's; all give the same.
        numItermax: Most pairs of half-steps.
        stopThr: L1 marginal error to stop at.
        verbose: Without effect.
        log: Whether to return a dictionary too: ``u``, ``v`` and their logarithms ``log_u``, ``log_v`` with
            $P = \mathrm{diag}(u)\, e^{-M / reg}\, \mathrm{diag}(v)$, ``niter`` counted from 0 as there, and
            ``err``, a list of the last error alone.
        warn: Whether to warn when ``stopThr`` was not reached.
        warmstart: Logarithms of ``u`` and ``v`` to start from. Only that of ``v`` matters.
        **method_options: Without effect.

    Returns:
        The plan ``(N, M)``; for several ``b`` the costs $\langle P, M\rangle$, ``(K,)``. With ``log`` a pair.

    Gradients:
        To ``a``, ``b`` and ``M``, by implicit differentiation.

    Raises:
        ValueError: If shapes or values do not fit, or POT has no such method.

    Example:
        >>> import torch
        >>> sinkhorn(torch.tensor([0.5, 0.5]), [], torch.tensor([[0.0, 1.0], [1.0, 0.0]]), reg=1)
        tensor([[0.3655, 0.1345],
                [0.1345, 0.3655]])
    """
    require_choice("method", str(method).lower(), PLAN_METHODS)
    return _sinkhorn(a, b, M, reg, numItermax, stopThr, log, warn, warmstart, plan=True)


def sinkhorn2(
    a,
    b,
    M,
    reg: float,
    method: str = "sinkhorn",
    numItermax: int = 1000,
    stopThr: float = 1e-9,
    verbose: bool = False,
    log: bool = False,
    warn: bool = False,
    warmstart: tuple | None = None,
    **method_options,
) -> Any:
    r"""Cost $\langle P, M\rangle$ of the entropic plan, without the entropy, as ``ot.sinkhorn2`` has it.

    Arguments, log and gradients are those of :func:`sinkhorn`.

    Returns:
        A number, or ``(K,)`` for several ``b``. With ``log`` a pair.

    Raises:
        ValueError: If shapes or values do not fit, or POT has no such method.

    Example:
        >>> import torch
        >>> sinkhorn2([0.5, 0.5], [0.5, 0.5], torch.tensor([[0.0, 1.0], [1.0, 0.0]]), reg=1)
        tensor(0.2689)
    """
    require_choice("method", str(method).lower(), LOSS_METHODS)
    return _sinkhorn(a, b, M, reg, numItermax, stopThr, log, warn, warmstart, plan=False)


def solve(
    M,
    a=None,
    b=None,
    reg: float | None = None,
    c=None,
    reg_type: str = "KL",
    unbalanced: float | None = None,
    unbalanced_type: str = "KL",
    method: str | None = None,
    n_threads: int = 1,
    max_iter: int | None = None,
    plan_init=None,
    potentials_init: tuple | None = None,
    tol: float | None = None,
    verbose: bool = False,
    grad: str = "autodiff",
) -> OTResult:
    r"""Transport from a cost matrix, as ``ot.solve``.

    $$\min_P\ \langle P, M\rangle + reg \sum P \log \frac{P}{a b^\top}
      + \rho \sum P1 \log \frac{P1}{a} + \rho \sum P^\top 1 \log \frac{P^\top 1}{b}$$

    is the value reported, without the masses of a full divergence, though the plan minimises the objective
    that has them.

    Args:
        M: Cost, ``(N, M)``. +inf forbids a pair.
        a: Weights of the rows; None for uniform ones.
        b: Weights of the columns.
        reg: Regularisation. None or 0 is exact transport.
        c: Reference measure of the regularisation: not offered.
        reg_type: ``"KL"``; ``"entropy"``, balanced, reports $\sum P \log P$ in place of the divergence.
        unbalanced: Marginal penalty $\rho$, the same for both sides; None or inf for balanced transport.
        unbalanced_type: ``"KL"``.
        method: Without effect.
        n_threads: Without effect.
        max_iter: Most pairs of half-steps; 1000 by default.
        plan_init: Without effect: the solver starts from potentials.
        potentials_init: Potentials, as in the result, to start from.
        tol: L1 marginal error to stop at; 1e-9 by default.
        verbose: Without effect.
        grad: ``"autodiff"`` or ``"last_step"`` for gradients of everything, ``"envelope"`` for those of the
            value alone, ``"detach"`` for none.

    Returns:
        An :class:`OTResult`. Balanced, its potentials are the logarithms of the scalings of $e^{-M/reg}$;
        with ``unbalanced`` those of $ab^\top e^{-M/reg}$; of exact transport, those of :func:`emd`.

    Gradients:
        To ``M``, ``a`` and ``b``, as ``grad`` says. With ``unbalanced``, that of the value takes a linear
        solve, because the value reported is not the one minimised.

    Raises:
        ValueError: If shapes or values do not fit.
        NotImplementedError: For what is not offered.
    """
    refuse(c=c)
    require_choice("grad", grad, GRADS)
    restore, (cost, a, b) = as_tensors(M, a, b)
    require_rank("M", cost, 2, "(N, M)")
    if potentials_init is not None:
        require_pair("potentials_init", potentials_init)
    if not _regularised(reg):
        return exact(restore, cost, a, b, unbalanced, grad)
    reach = reach_of(reg_type, unbalanced, unbalanced_type)
    if grad == "detach":
        cost, a, b = detached(cost, a, b)
    init = start(potentials_init, cost, a, b, reg, reach)
    with calling(cost="M", reach="unbalanced"):
        solved = sinkhorn_from_cost(
            cost,
            a,
            b,
            eps=reg,
            reach=reach,
            max_iter=MAX_ITER if max_iter is None else max_iter,
            tol=TOL if tol is None else tol,
            init=init,
        )
    warn_unless_converged(solved)
    return result_of(restore, solved, lambda: cost, a, b, reg, reach, reg_type, grad)


def solve_sample(
    X_a,
    X_b,
    a=None,
    b=None,
    metric: str = "sqeuclidean",
    reg: float | None = None,
    c=None,
    reg_type: str = "KL",
    unbalanced: float | None = None,
    unbalanced_type: str = "KL",
    lazy: bool = False,
    batch_size: int | None = None,
    method: str | None = None,
    n_threads: int = 1,
    max_iter: int | None = None,
    plan_init=None,
    rank: int = 100,
    scaling: float = 0.95,
    potentials_init: tuple | None = None,
    X_init=None,
    tol: float | None = None,
    verbose: bool = False,
    grad: str = "autodiff",
    random_state=None,
    debias: bool = False,
    n_projections: int = 50,
    projections=None,
    scaler=None,
) -> OTResult:
    """Transport between point clouds, as ``ot.solve_sample``.

    Points ``X_a`` ``(N, D)`` and ``X_b`` ``(M, D)``; ``metric`` is ``"sqeuclidean"``, ``"euclidean"``,
    ``"cityblock"`` or ``"cosine"``. ``debias=True`` takes half of each cloud against itself away from
    ``value`` and ``value_linear``; the plan stays that between the clouds. ``lazy`` has no effect: values
    need no plan, and the plan is made when it is looked at. The rest is as for :func:`solve`. ``method``,
    ``X_init``, ``projections``, ``scaler`` and ``debias="split"`` are not offered, and the options of sliced,
    low-rank and other solvers are without effect.

    Returns:
        An :class:`OTResult`; with ``debias`` its ``log`` holds ``res_aa``, ``res_bb`` and ``res_ab``.

    Gradients:
        To points and weights.

    Raises:
        ValueError: If shapes or values do not fit.
        NotImplementedError: For what is not offered.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> result = solve_sample(x, x + 2, reg=2.0, tol=1e-5, debias=True)
        >>> round(result.value.item(), 3)
        4.0
    """
    refuse(c=c, method=method, X_init=X_init, projections=projections, scaler=scaler)
    require_choice("grad", grad, GRADS)
    if debias not in (False, True):
        raise NotImplementedError(f"debias must be False or True, got {debias!r}")
    if metric not in METRICS:
        raise NotImplementedError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    name, p = METRICS[metric]
    restore, (x, y, a, b) = as_tensors(X_a, X_b, a, b)
    require_rank("X_a", x, 2, "(N, D)")
    require_rank("X_b", y, 2, "(M, D)")
    if potentials_init is not None:
        require_pair("potentials_init", potentials_init)
    if grad == "detach":
        x, y, a, b = detached(x, y, a, b)

    def solved(x: Tensor, y: Tensor, a: Weights | None, b: Weights | None, init: tuple | None) -> OTResult:
        def cost() -> Cost:
            return reference.pairwise_cost(x, y, name, p)

        if not _regularised(reg):
            return exact(restore, cost(), a, b, unbalanced, grad)
        reach = reach_of(reg_type, unbalanced, unbalanced_type)
        names = {"x": "X_a", "y": "X_b", "reach": "unbalanced"}
        with calling(**names):
            transport = sinkhorn_of_points(
                x,
                y,
                a,
                b,
                eps=reg,
                cost=name,
                p=p,
                reach=reach,
                max_iter=MAX_ITER if max_iter is None else max_iter,
                tol=TOL if tol is None else tol,
                init=start(init, x, a, b, reg, reach),
            )
        warn_unless_converged(transport)
        return result_of(restore, transport, cost, a, b, reg, reach, reg_type, grad)

    result = solved(x, y, a, b, potentials_init)
    if not debias:
        return result
    return result.debiased(solved(x, x, a, a, None), solved(y, y, b, b, None))


def solve_batch(
    M,
    reg: float | None = None,
    a=None,
    b=None,
    max_iter: int = 1000,
    tol: float = 1e-5,
    method: str = "auto",
    inner_iter: int = 1,
    inner_reg: float = 1e-3,
    reg_type: str = "entropy",
    grad: str = "envelope",
) -> OTResult:
    """A batch of problems from their cost matrices, as ``ot.solve_batch``; each stops by itself.

    Args:
        M: Costs, ``(B, N, M)``.
        reg: As for :func:`solve`.
        a: Weights, ``(B, N)``; None for uniform ones.
        b: Weights, ``(B, M)``.
        max_iter: Most pairs of half-steps.
        tol: L1 marginal error to stop at.
        method: ``"auto"``, ``"proximal"``, ``"log_sinkhorn"`` or ``"sinkhorn"``; without effect.
        inner_iter: Without effect.
        inner_reg: Without effect.
        reg_type: ``"entropy"`` or ``"kl"``: what ``value`` counts.
        grad: As for :func:`solve`; with ``"envelope"`` ``value_linear`` follows ``M`` too, at a fixed plan.

    Returns:
        An :class:`OTResult` with a batch dimension; ``log["n_iter"]`` is that of the slowest problem.

    Raises:
        ValueError: If shapes or values do not fit.
        NotImplementedError: For what is not offered.
    """
    require_choice("method", method, BATCH_METHODS)
    require_choice("reg_type", reg_type, ("entropy", "kl"))
    require_choice("grad", grad, GRADS)
    if "sinkhorn" in method and not _regularised(reg):
        raise ValueError(f"reg must be above 0 for method {method}, got {reg}")
    restore, (cost, a, b) = as_tensors(M, a, b)
    if cost.dim() != 3:
        raise ValueError(f"M must have shape (B, N, M), got {tuple(cost.shape)}")
    if not _regularised(reg):
        return exact(restore, cost, a, b, None, grad)
    if grad == "detach":
        cost, a, b = detached(cost, a, b)
    with calling(cost="M"):
        solved = sinkhorn_from_cost(cost, a, b, eps=reg, max_iter=max_iter, tol=tol)
    result = result_of(
        restore, solved, lambda: cost, a, b, reg, None, reg_type, grad, linear_follows_cost=True
    )
    result.log = {"n_iter": int(solved.iterations.max()) - 1}
    return result


def _sinkhorn(a, b, M, reg, numItermax, stopThr, log, warn, warmstart, *, plan: bool) -> Any:
    """Both functions: the plan or its cost, with the log if asked for."""
    restore, (cost, a, b) = as_tensors(M, a, b)
    require_rank("M", cost, 2, "(N, M)")
    a, b = (None if w is None or w.numel() == 0 else w for w in (a, b))
    several = b is not None and b.dim() == 2
    if several:
        # one problem a column
        b = b.mT
        cost = cost.expand(len(b), *cost.shape)
        a = None if a is None else a.expand(len(b), *a.shape)
        warmstart = None if warmstart is None else [part.T for part in warmstart]
    require_positive("reg", reg)
    if warmstart is not None:
        require_pair("warmstart", warmstart)
    init = start(warmstart, cost, a, b, reg, None)
    with calling(cost="M", max_iter="numItermax", tol="stopThr"):
        solved = sinkhorn_from_cost(cost, a, b, eps=reg, max_iter=numItermax, tol=stopThr, init=init)
    if warn:
        warn_unless_converged(solved)
    out = solved.plan()
    out = restore(out if plan and not several else cost_of(out, cost))
    if not log:
        return out
    log_u, log_v = (part.mT if several else part for part in log_scalings(solved, a, b, reg, None))
    record = {"log_u": log_u, "log_v": log_v, "u": log_u.exp(), "v": log_v.exp()}
    record = {name: restore(part) for name, part in record.items()}
    niter = int(solved.iterations.max()) - 1
    return out, {"err": [restore(solved.error.max())], "niter": niter, **record}


def _regularised(reg: float | None) -> bool:
    """Whether there is any regularisation; refuses one that is no number, or below 0."""
    if reg is None:
        return False
    require_number("reg", reg)
    if reg == 0:
        return False
    require_positive("reg", reg)
    return True


OFFERED = ("sinkhorn", "sinkhorn2", "emd", "emd2", "solve", "solve_sample", "solve_batch")


def __getattr__(name: str) -> Any:
    # of POT's hundreds of functions these seven are what this module stands in for
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise AttributeError(
        f"{__name__} offers {', '.join(OFFERED)}, and not {name}: import that from POT beside it (import ot)"
    )
