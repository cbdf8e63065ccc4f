"""What each rank was given, checked, and what they agree on before any of them waits for another's rows."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._checks import (
    is_finite,
    require_choice,
    require_finite,
    require_float,
    require_like,
    require_number,
    require_positive,
    require_rank,
    require_shape,
)
from .._typing import Points, Weights
from ..kernels import dispatch, native, triton
from ..ops.inputs import HALVES, widened
from ..ops.transport_checks import (
    checked_problem,
    explain_entries,
    explain_weights,
    of_equal_mass,
    require_cost,
)
from ..reference.problem import Problem
from .ranks import Ranks

NOT_SPREAD = 'the definition is not spread over ranks; name backend="triton" for kernels not proved here'


class Given(NamedTuple):
    """A problem that all ranks agree on; points and weights are this rank's, half precision widened.

    Attributes:
        x: Points ``(N, D)``.
        y: Points ``(M, D)``.
        a: Weights ``(N,)``.
        b: Weights ``(M,)``.
        problem: All else.
        counts: How many rows of ``x`` and of ``y`` each rank has.
        backend: What makes the passes.
        precision: How it rounds.
    """

    x: Points
    y: Points
    a: Weights
    b: Weights
    problem: Problem
    counts: tuple[Sequence[int], Sequence[int]]
    backend: str
    precision: str | None


def agree(
    ranks: Ranks,
    step: str,
    x: Points,
    y: Points,
    a: Weights | None,
    b: Weights | None,
    settings: dict[str, Any],
) -> Given:
    """Check what this rank was given, and that all have been given parts of one problem."""
    told, (problem, backend) = ranks.agree(step, lambda: _described(x, y, a, b, settings))
    counts = tuple([one["rows"][k] for one in told] for k in range(2))
    masses = [sum(one["mass"][k] for one in told) for k in range(2)]
    for name, rows in zip(("x_rows", "y_rows"), counts):
        if not sum(rows):
            raise ValueError(f"{name} must have at least one row on one of the ranks, got none on any")
    dtype = x.dtype
    a, b = (None if w is None else widened(w) for w in (a, b))
    if dtype in HALVES and a is not None and b is not None:
        whole = [x.new_tensor([mass], dtype=torch.float32) for mass in masses]
        b, masses[1] = of_equal_mass(b, *whole, dtype), float(of_equal_mass(whole[1], *whole, dtype))
    of_all = [None if w is None else w.new_tensor([mass]) for w, mass in zip((a, b), masses)]
    if reason := explain_weights(problem._replace(a=of_all[0], b=of_all[1])):
        raise ValueError(reason)
    x, y = widened(x), widened(y)
    a, b = (
        x.new_full((rows.shape[0],), 1 / sum(count)) if w is None else w
        for w, rows, count in zip((a, b), (x, y), counts)
    )
    return Given(x, y, a, b, problem, counts, backend, settings["precision"])


def _described(
    x: Points, y: Points, a, b, settings: dict[str, Any]
) -> tuple[dict, dict, tuple[Problem, str]]:
    """What :meth:`.Ranks.agree` asks for, with the problem and what makes its passes."""
    options = dict(settings)
    backend, precision, memory, timeout, group = (
        options.pop(name) for name in ("backend", "precision", "memory", "timeout", "group")
    )
    _require_rows(x, y)
    require_positive("timeout", timeout)
    require_number("memory", memory)
    if not memory >= 0:
        raise ValueError(f"memory must be a number of bytes, 0 or above, got {memory}")
    require_cost(options["cost"], options["p"])
    problem = checked_problem(x, "x_rows", (x.shape[0], y.shape[0]), a=None, b=None, lengths=None, **options)
    masses = [_mass(label, w, rows) for label, w, rows in (("a", a, x), ("b", b, y))]
    chosen = _backend(x, y, backend, precision, group)
    alike = {
        "dtype": str(x.dtype),
        "device": x.device.type,
        "the number of features": x.shape[1],
        **{name: _plain(value) for name, value in options.items() if name != "init"},
        **{"memory": float(memory), "timeout": float(timeout), "backend": chosen, "precision": precision},
        **{f"whether {name} is given": options.get(name, w) is not None for name, w in _optional(a, b)},
        **{
            f"whether {name} requires a gradient": torch.is_grad_enabled()
            and w is not None
            and w.requires_grad
            for name, w in (("x_rows", x), ("y_rows", y), ("a", a), ("b", b))
        },
    }
    return alike, {"rows": [x.shape[0], y.shape[0]], "mass": masses}, (problem, chosen)


def _optional(a: Weights | None, b: Weights | None) -> tuple:
    return ("a", a), ("b", b), ("init", None)


def _plain(value: Any) -> Any:
    """A setting as it is told to others."""
    if isinstance(value, str) or value is None:
        return value
    return [float(part) for part in value] if isinstance(value, tuple | list) else float(value)


def _require_rows(x: Points, y: Points) -> None:
    for name, rows, letter in (("x_rows", x, "N"), ("y_rows", y, "M")):
        require_rank(name, rows, 2, f"({letter}, D)")
        if rows.dim() > 2 or rows.shape[1] == 0:
            raise ValueError(
                f"{name} must have shape ({letter}, D) with at least one feature, as batches are not spread "
                f"over ranks, got {tuple(rows.shape)}"
            )
    require_float("x_rows", x)
    require_like("y_rows", y, "x_rows", x)
    if y.shape[1] != x.shape[1]:
        raise ValueError(f"y_rows must have the {x.shape[1]} features of x_rows, got {tuple(y.shape)}")
    for name, rows in (("x_rows", x), ("y_rows", y)):
        if rows.numel() and not is_finite(rows):
            require_finite(name, rows)


def _mass(label: str, weight: Weights | None, rows: Points) -> float:
    """What a side has here; its share of 1 is not known yet where no weights are given."""
    if weight is None:
        return 0.0
    require_shape(label, weight, (rows.shape[0],), "(N,)" if label == "a" else "(M,)")
    require_like(label, weight, "x_rows", rows)
    if weight.numel() and (reason := explain_entries(label, weight)):
        raise ValueError(reason)
    return float(weight.detach().double().sum())


def _backend(x: Points, y: Points, backend: str | None, precision: str | None, group: Any) -> str:
    """What makes the passes of this rank."""
    if precision is not None:
        require_choice("precision", precision, triton.PRECISIONS)
    passing = torch.distributed.get_backend(group)
    wrong = {"gloo": "cuda", "nccl": "cpu"}.get(passing)
    if x.device.type == wrong:
        raise TypeError(f"x_rows must be on a device that the group's {passing} passes, got {x.device}")
    refusals = {
        "native": lambda: f"it has no products in {precision}" if precision else native.refuse(x),
        "triton": lambda: triton.refuse(x),
        "reference": lambda: NOT_SPREAD,
    }
    return dispatch.choose("sinkhorn of sharded clouds", refusals, backend, x, y, proved="sinkhorn")


def centre_of(ranks: Ranks, given: Given) -> Tensor:
    """The common centre of both clouds, ``(D,)``; see :func:`geokernels.reference.potentials.centred`."""
    sums = torch.stack([rows.detach().double().sum(0) for rows in (given.x, given.y)])
    of_x, of_y = ranks.total(sums)
    return ((of_x / sum(given.counts[0]) + of_y / sum(given.counts[1])) / 2).to(given.x.dtype)


def corners_of(ranks: Ranks, given: Given) -> tuple[Points, Points]:
    """Corners of the box round each cloud, one of each rank that has rows."""
    boxes = []
    for rows, counts in ((given.x, given.counts[0]), (given.y, given.counts[1])):
        mine = rows.detach()[:0]
        if rows.numel():
            mine = torch.stack(torch.aminmax(rows.detach(), dim=0))
        boxes.append(torch.cat(ranks.exchange(mine, [2 if count else 0 for count in counts])))
    return boxes[0], boxes[1]
