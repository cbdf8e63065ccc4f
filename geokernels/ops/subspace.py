"""Subspaces of features: their bases, coordinates in them, and the angles between them."""

from torch import Tensor

from .. import reference
from .._checks import (
    require_choice,
    require_finite,
    require_float,
    require_number,
    require_rank,
    whole,
)
from .._typing import Basis, Rows
from ..kernels import direct, dispatch, native, triton
from ..kernels import subspace as kernels
from ..reference import SubspaceBasis
from .inputs import (
    FASTEST_ON_CPU,
    in_common_batch,
    narrowed,
    require_all_finite,
    require_basis,
    require_products,
    require_rows,
    widened,
)

CENTERS = ("none", "rows", "batch")


def subspace_basis(
    x: Rows,
    rank: int | None = None,
    *,
    center: str = "none",
    rtol: float | None = None,
    backend: str | None = None,
) -> SubspaceBasis:
    r"""Orthonormal directions along which rows of features spread most.

    $$x = \sum_i s_i\, u_i b_i^\top, \qquad s_1 \ge s_2 \ge \dots$$

    The columns $b_i$ are the right singular vectors, each with its largest component positive.

    Args:
        x: Feature rows, ``(..., N, D)``.
        rank: How many directions to keep, at most ``min(N, D)``, the default.
        center: ``"none"``; ``"rows"`` takes each row's own mean over ``D`` away; ``"batch"`` the mean row.
        rtol: A direction whose value is at most ``rtol`` times the largest is noise and comes back as a zero
            column, so that shapes do not depend on values. Default: ``max(N, D)`` roundings.
        backend: ``"native"``, ``"triton"`` (float32, on a GPU, up to 128 rows; its gradient is PyTorch's) or
            ``"reference"`` to insist on one; None for the fastest that can run.

    Returns:
        ``basis`` ``(..., D, rank)`` and ``values`` ``(..., rank)``, descending, in the dtype of ``x``.

    Gradients:
        First order, to ``x``. Through ``basis``: right for every function of the *span* of the columns (of
        $BB^\top$: projections, angles, the geodesic cosine), finite at equal values, and wrong for functions
        that tell one column of the span from another, which have no derivative at equal values. With ``rank``
        below ``min(N, D)`` the span has a derivative only where the last kept and the first dropped value
        differ; a pair of equal ones gives 0. Through ``values``: $u_i b_i^\top$. Zero columns give 0.

    Raises:
        ValueError: If shapes or values do not fit.
        TypeError: If ``x`` is not a floating-point tensor.
        BackendError: If ``backend`` cannot run this input; the message says why.

    Example:
        >>> import torch
        >>> subspace_basis(torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]])).values
        tensor([2., 1.])
    """
    if backend in FASTEST_ON_CPU and center == "none" and (made := direct.basis(x, rank, rtol)) is not None:
        return tuple.__new__(SubspaceBasis, made)
    require_rows("x", x)
    require_choice("center", center, CENTERS)
    most = min(x.shape[-2:])
    rank = None if rank is None else whole("rank", rank)
    if rank is not None and not 1 <= rank <= most:
        raise ValueError(f"rank must be from 1 to min(N, D) = {most}, got {rank}")
    if rtol is not None:
        require_number("rtol", rtol)
    if rtol is not None and not 0 <= rtol < 1:
        raise ValueError(f"rtol must be from 0 to below 1, got {rtol}")

    wide = widened(x)
    refusals = {
        "native": lambda: kernels.refuse_native(x),
        "triton": lambda: triton.refuse_rows(x),
        "reference": None,
    }
    chosen = dispatch.choose("subspace_basis", refusals, backend, x)
    if chosen != "native":
        require_finite("x", x)
        made = {"svd": _triton_svd()} if chosen == "triton" else {}
        result = reference.subspace_basis(wide, rank, center=center, rtol=rtol, **made)
    else:
        rtol = reference.default_rtol(wide) if rtol is None else rtol
        basis, values = kernels.basis(reference.centred(wide, center), rank or most, rtol)
        # the kernel hands NaN and infinities on: looking at a few values spares looking at all features
        if not native.is_finite(values):
            require_finite("x", x)
        result = SubspaceBasis(basis, values)
    return result if wide is x else SubspaceBasis(*(part.to(x.dtype) for part in result))


def _triton_svd():
    # triton loads on use
    from ..kernels.triton.subspace import decompose_rows

    return decompose_rows


def project(x: Rows, basis: Basis, *, backend: str | None = None) -> Tensor:
    """Coordinates of feature rows in a basis, ``x @ basis``.

    Args:
        x: Feature rows, ``(..., N, D)``.
        basis: Directions, ``(..., D, K)``; batch shapes broadcast.
        backend: ``"reference"`` is the only one: a matrix product, left to PyTorch.

    Returns:
        ``(..., N, K)``, in the dtype of ``x``; 0 for zero columns.

    Gradients:
        Any order, to both.

    Raises:
        ValueError: If shapes or values do not fit.
        TypeError: If dtypes or devices disagree.
        BackendError: If another backend is named.

    Example:
        >>> import torch
        >>> project(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0], [1.0]]))
        tensor([[4.]])
    """
    require_rows("x", x)
    require_basis("basis", basis, "x", x, x.shape[-1])
    in_common_batch(x=x, basis=basis)
    require_all_finite(x=x, basis=basis)
    dispatch.choose("project", {"reference": None}, backend)
    return reference.project(x, basis)


def principal_angles(p: Basis, q: Basis, *, backend: str | None = None) -> Tensor:
    r"""The angles between two subspaces, from the smallest to the largest.

    Cosines are the singular values of $P^\top Q$, sines those of $Q - PP^\top Q$, and the angle is their
    ``atan2``, which is accurate at 0 and at a right angle alike.

    Args:
        p: Orthonormal or zero columns, ``(..., D, K)``. Orthonormality is assumed, not checked.
        q: The same, ``(..., D, L)``; batch shapes broadcast.
        backend: ``"native"`` (without gradients; one launch on a GPU) or ``"reference"``; None for the latter
            on the CPU, and for the fastest that was proved on a GPU.

    Returns:
        Radians, ``(..., min(K, L))``, ascending, in [0, pi/2], in the dtype of ``p``. A zero column is
        at a right angle to everything.

    Gradients:
        First order, to both, within the orthonormal bases. Each angle has a derivative where it is above 0,
        below pi/2 and unlike the others; symmetric functions of all angles also where some are equal.

    Raises:
        ValueError: If shapes do not fit.
        TypeError: If dtypes or devices disagree.
        BackendError: If ``backend`` cannot run this input; the message says why.

    Example:
        >>> import torch
        >>> principal_angles(torch.eye(3)[:, :2], torch.eye(3)[:, 1:])
        tensor([0.0000, 1.5708])
    """
    require_rank("p", p, 2, "(..., D, K)")
    require_float("p", p)
    require_basis("p", p, "p", p, p.shape[-2])
    require_basis("q", q, "p", p, p.shape[-2])
    p, q = in_common_batch(p=p, q=q)
    require_all_finite(p=p, q=q)
    require_products(p, q)
    # on the CPU it gains nothing over the library's solver
    unasked = backend is None and p.is_cpu
    refusals = {
        "native": lambda: "it runs when it is named" if unasked else kernels.refuse_angles(p, q),
        "reference": None,
    }
    chosen = dispatch.choose("principal_angles", refusals, backend, p, q)
    run = kernels.angles if chosen == "native" else reference.principal_angles
    return narrowed(run(widened(p), widened(q)), p.dtype)
