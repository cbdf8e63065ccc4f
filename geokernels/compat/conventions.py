"""What the faces share: how other libraries count the value of a transport problem."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from .._checks import renamed
from .._typing import Weights


@contextmanager
def calling(**names: str) -> Iterator[None]:
    """Let refusals of our operators call arguments what the library that is stood in for calls them.

    Args:
        **names: What our arguments are called there.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        raise type(error)(renamed(str(error), names)) from error


def without_masses(value: Tensor, a: Weights | None, b: Weights | None, eps: float) -> Tensor:
    r"""The value with $\sum P \log(P / ab)$ as its entropy, without the masses of a full divergence.

    Our value has $\mathrm{KL}(P | a \otimes b)$, which also counts $|a||b| - |P|$, and a converged balanced
    plan has the mass of its marginals. With ``reach`` this is the dual form that GeomLoss evaluates. Nothing
    changes for masses of one.
    """
    if a is None and b is None:
        return value
    masses = [1.0 if w is None else w.to(value.dtype).sum(-1) for w in (a, b)]
    return value + eps * ((masses[0] + masses[1]) / 2 - masses[0] * masses[1])
