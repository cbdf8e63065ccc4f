"""The two losses of geodesic morphing, IMC and IMR: angles along the flow between feature subspaces."""

from torch import Tensor

from .._checks import require_like, require_rank, require_shape
from .._typing import Basis, Rows
from ..kernels import dispatch, native
from ..kernels import geodesic_loss as kernels
from ..ops import geodesic_cosine, subspace_basis
from .directional import SHORTEST, require_embeddings, unit_rows


def _directions(rank: int | None, rows: Rows) -> int:
    return min(rows.shape[-2:]) if rank is None else rank


def _fused(op: str, sides: tuple, backend: str | None, **how) -> Tensor | None:
    """The loss by one compiled call; None where the operators make it, or are to say what is wrong."""
    implementations = {"fused": lambda: kernels.refuse(*sides), "operators": None}
    wanted = backend if backend in (None, "fused") else None if backend == "native" else "operators"
    if dispatch.choose(op, implementations, wanted, sides[0], order=tuple(implementations)) == "operators":
        return None
    loss = kernels.loss(*sides, **how)
    return loss if native.direct_is_finite(loss) else None


def geodesic_consistency_loss(
    current: Rows,
    source: Rows,
    text_source: Rows,
    text_target: Rows,
    *,
    text_basis: Basis | None = None,
    rank: int | None = None,
    text_rank: int | None = None,
    through_bases: bool = True,
    eps: float = SHORTEST,
    backend: str | None = None,
) -> Tensor:
    r"""Inter-modality consistency (IMC): does the picture change as the text does, on the geodesic flow?

    With $x_i$ the unit change of view $i$, $y$ the unit mean of the unit changes of the text, $P$ a basis of
    the $x_i$ and $Q$ one of the text changes, and $G$ the geodesic flow kernel (GFK) between $P$ and $Q$:

    $$L = 1 - \frac1B \sum_i \frac{x_i^\top G\, y}{\sqrt{x_i^\top G\, x_i}\,\sqrt{y^\top G\, y}}$$

    Args:
        current: Features of the current picture's views, ``(..., B, D)``, usually unit rows.
        source: Features of the source picture under the same views, like ``current``.
        text_source: Features of the source prompt under T templates, ``(..., T, D)``.
        text_target: The same of the target prompt.
        text_basis: $Q$, ``(..., D, L)``, where the caller has it already: it is constant over a run.
        rank: Columns of $P$; min(B, D) by default.
        text_rank: Columns of $Q$; min(T, D) by default. Ignored where ``text_basis`` is given.
        through_bases: Whether $G$ follows the views, so that gradients also flow through $P$.
        eps: A change of length at most ``eps`` has no direction: it scores a cosine of 0.
        backend: ``"fused"`` insists on one compiled call, which has gradients to ``current`` alone; any other
            name on one implementation of the operators. None for the fastest that can run.

    Returns:
        The loss, ``(...)``, between 0 and 2.

    Gradients:
        First order, to ``current`` and ``source``, and to the texts through $y$ (through $Q$ too where it
        is computed here). Zero for rows without direction.

    Raises:
        ValueError: If shapes disagree.
        TypeError: If dtypes or devices disagree.
        BackendError: If ``backend`` cannot run this input.
    """
    require_embeddings(current, source, text_source, text_target)
    ranks = _directions(rank, current), _directions(text_rank, text_source)
    if text_basis is not None:
        ranks = ranks[0], text_basis.shape[-1]
    sides = current, source, text_target, text_source, text_basis, ranks
    loss = _fused("geodesic_consistency_loss", sides, backend, shortest=eps, follow=through_bases)
    if loss is not None:
        return loss
    backend = "native" if backend == "fused" else backend
    change = unit_rows(current - source, eps=eps)
    asked = unit_rows(text_target - text_source, eps=eps)
    towards = unit_rows(asked.mean(-2, keepdim=True), eps=eps)
    if text_basis is None:
        text_basis = subspace_basis(asked, text_rank, backend=backend).basis
    spanned = change if through_bases else change.detach()
    basis = subspace_basis(spanned, rank, backend=backend).basis
    cosines = geodesic_cosine(change, towards.expand_as(change), basis, text_basis, backend=backend)
    return 1 - cosines.mean(-1)


def geodesic_regularisation_loss(
    current: Rows,
    previous: Rows,
    *,
    rank: int | None = None,
    through_bases: bool = True,
    backend: str | None = None,
) -> Tensor:
    r"""Intra-modality regularisation (IMR): one minus the geodesic cosine between this iterate and the last.

    With $P$ a basis of the previous features and $Q$ one of the current: $L = 1 - \frac1B \sum_i
    \cos_G(z_{t-1,i}, z_{t,i})$. For one small step it is far below the ordinary ``1 - cos``: give it a
    large weight.

    Args:
        current: Features of the current picture's views, ``(..., B, D)``.
        previous: Features of the previous iterate under the same views, like ``current``; a constant.
        rank: Columns of both bases; min(B, D) by default.
        through_bases: Whether gradients also flow through $Q$.
        backend: ``"fused"`` insists on one compiled call, which has gradients to ``current`` alone; any other
            name on one implementation of the operators. None for the fastest that can run.

    Returns:
        The loss, ``(...)``, between 0 and 2; 0 where nothing has moved.

    Gradients:
        First order, to ``current`` alone.

    Raises:
        ValueError: If shapes disagree.
        TypeError: If dtypes or devices disagree.
        BackendError: If ``backend`` cannot run this input.
    """
    require_rank("current", current, 2, "(..., B, D)")
    require_shape("previous", previous, tuple(current.shape), "(..., B, D)")
    require_like("previous", previous, "current", current)
    previous = previous.detach()
    ranks = (_directions(rank, current),) * 2
    sides = current, None, previous, None, None, ranks
    loss = _fused("geodesic_regularisation_loss", sides, backend, follow=through_bases)
    if loss is not None:
        return loss
    backend = "native" if backend == "fused" else backend
    start = subspace_basis(previous, rank, backend=backend).basis
    spanned = current if through_bases else current.detach()
    end = subspace_basis(spanned, rank, backend=backend).basis
    return 1 - geodesic_cosine(previous, current, start, end, backend=backend).mean(-1)
