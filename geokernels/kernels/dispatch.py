"""Which implementation runs, and why the others did not."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from . import native, proof


class BackendError(RuntimeError):
    """No requested implementation can run this call; the message says why."""


class Preference(NamedTuple):
    """What ``backend=None`` means on a device: the first of ``order`` that can run, and on what evidence."""

    device: str
    order: tuple[str, ...]
    evidence: str


# Shapes and dtypes that an implementation cannot take are its refusals. What is in no order runs when named.
PREFERENCES = (
    Preference("cpu", ("native", "reference"), "measured: benchmarks/results/cpu.json"),
    Preference(
        "GPU",
        ("proved kernels", "reference"),
        "proved on the GPU itself, by geokernels tune or the first call",
    ),
)
ON_CPU = PREFERENCES[0].order


Refusal = Callable[[], str | None] | None  # the reason why an implementation cannot run; None: it always can


def choose(
    op: str,
    refusals: Mapping[str, Refusal],
    wanted: str | None,
    x: Tensor | None = None,
    *others: Tensor,
    order: tuple[str, ...] | None = None,
    proved: str | None = None,
) -> str:
    """Name the implementation of ``op`` that will run.

    Args:
        op: Operator name, for messages.
        refusals: What says why an implementation cannot run; asked only of those that come into question.
        wanted: A name to insist on, or None for the first that can run.
        x: The tensor that decides the device.
        *others: Those that, with it, decide the class of sizes (proof_sizes.py).
        order: Which to try first; None for the order of the device.
        proved: The operator that proofs on a GPU are of, where that is not ``op``.

    Raises:
        BackendError: If ``wanted`` cannot run, or none can; the message lists every reason.
    """
    if wanted is not None and wanted not in refusals:
        raise BackendError(f"{op} has no backend {wanted!r}; it has {', '.join(refusals)}")
    reasons = {}
    if wanted is not None:
        order = (wanted,)
    elif order is None:
        order = ON_CPU if x is None or x.is_cpu else proof.order(proved or op, x, *others)
    for name in order:
        if name not in refusals:
            continue
        refuse = refusals[name]
        reason = None if refuse is None else refuse()
        if reason is None:
            return name
        if wanted is None and reason == native.missing:
            native.tell_that_it_is_missing()
        reasons[name] = reason
    listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise BackendError(f"{op} cannot run on this input: {listed}")
