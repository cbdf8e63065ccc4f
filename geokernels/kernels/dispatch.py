"""Which implementation runs, and why the others did not."""

from collections.abc import Mapping


class BackendError(RuntimeError):
    """No requested implementation can run this call; the message says why."""


def choose(op: str, refusals: Mapping[str, str | None], wanted: str | None) -> str:
    """Name the implementation of ``op`` that will run.

    Args:
        op: Operator name, for messages.
        refusals: Implementations, fastest first, each with the reason it cannot run or None.
        wanted: A name to insist on, or None for the first that can run.

    Raises:
        BackendError: If ``wanted`` cannot run, or none can; the message lists every reason.
    """
    if wanted is not None and wanted not in refusals:
        raise BackendError(f"{op} has no backend {wanted!r}; it has {', '.join(refusals)}")
    candidates = refusals if wanted is None else {wanted: refusals[wanted]}
    for name, reason in candidates.items():
        if reason is None:
            return name
    listed = "; ".join(f"{name}: {reason}" for name, reason in candidates.items())
    raise BackendError(f"{op} cannot run on this input: {listed}")
