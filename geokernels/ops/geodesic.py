"""Geodesics between subspaces, and the cosine measured along them."""

from .. import reference
from .._checks import require_float, require_like, require_number, require_rank, require_shape
from .._moderation import moderation
from .._typing import Basis, Rows, Scores
from ..kernels import direct, dispatch, native, triton
from ..kernels import geodesic as kernels
from ..reference import GeodesicFlow
from ..reference.geodesic import SHORTEST
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


def _require_pairs(x: Rows, y: Rows, eps: float) -> None:
    require_rows("x", x)
    require_rows("y", y)
    require_like("y", y, "x", x)
    if x.shape[-2:] != y.shape[-2:]:
        raise ValueError(
            f"y must have the rows of x, (N, D) = {tuple(x.shape[-2:])}, got {tuple(y.shape[-2:])}"
        )
    require_number("eps", eps)
    if not 0 <= eps < float("inf"):
        raise ValueError(f"eps must be a finite number, 0 or above, got {eps}")


def _require_bases(p: Basis, q: Basis) -> None:
    require_rank("p", p, 2, "(..., D, K)")
    require_float("p", p)
    require_basis("p", p, "p", p, p.shape[-2])
    require_basis("q", q, "p", p, p.shape[-2])


def geodesic_cosine(
    x: Rows, y: Rows, p: Basis, q: Basis, *, eps: float = SHORTEST, backend: str | None = None
) -> Scores:
    r"""Cosine between paired rows under the geodesic flow kernel (GFK) of two subspaces.

    $$\cos(x, y) = \frac{x^\top G y}{\sqrt{x^\top G x}\,\sqrt{y^\top G y}},
      \qquad G = \int_0^1 \Phi(t)\Phi(t)^\top dt,$$

    where $\Phi$ is the geodesic from span ``p`` to span ``q``. The geodesic flow kernel $G$ is never formed.
    With
    ``p = q`` this is the ordinary cosine of the projected rows.

    Args:
        x: Rows on one side of each pair, ``(..., N, D)``; they need not be normalised.
        y: Rows on the other side, like ``x``.
        p: Orthonormal columns, ``(..., D, K)``; zero columns, as :func:`subspace_basis` leaves them, are
            allowed. Orthonormality is assumed, not checked.
        q: The same, ``(..., D, L)``. Where one subspace has fewer dimensions, the other's directions without
            a partner fade in or out along the path.
        eps: A row with $x^\top G x$ at most ``eps`` has no direction: it scores 0, with zero gradient.
        backend: ``"native"``, ``"triton"`` (float32, on a GPU) or ``"reference"`` to insist on one; None for
            the fastest that can run.

    Batch shapes broadcast.

    Returns:
        Cosines, ``(..., N)``, in [-1, 1] up to rounding, in the dtype of ``x``.

    Gradients:
        First order, to ``x``, ``y``, ``p`` and ``q``; to the bases through $G$, which depends on their spans
        alone, and along directions in which they stay orthonormal. Finite and right at angle 0 and at equal
        angles. At a right angle the geodesic is not unique: the value is the limit along one of them, and
        motion that exchanges two directions at right angles gives 0. Zero columns receive 0.

    Raises:
        ValueError: If shapes or values do not fit.
        TypeError: If dtypes or devices disagree.
        BackendError: If ``backend`` cannot run this input; the message says why.

    Example:
        >>> import torch
        >>> x, y = torch.tensor([[1.0, 0.0, 5.0]]), torch.tensor([[1.0, 1.0, 0.0]])
        >>> plane = torch.eye(3)[:, :2]
        >>> geodesic_cosine(x, y, plane, plane)
        tensor([0.7071])
    """
    if backend in FASTEST_ON_CPU and (cosines := direct.cosine(x, y, p, q, eps)) is not None:
        return cosines
    _require_pairs(x, y, eps)
    require_basis("p", p, "x", x, x.shape[-1])
    require_basis("q", q, "x", x, x.shape[-1])
    refusals = {
        "native": lambda: kernels.refuse_native(x, p, q),
        "triton": lambda: triton.refuse_bases(x, p, q),
        "reference": None,
    }
    chosen = dispatch.choose("geodesic_cosine", refusals, backend, x, p, q)

    args = [widened(part) for part in in_common_batch(x=x, y=y, p=p, q=q)]
    if chosen != "native":
        require_all_finite(x=x, y=y, p=p, q=q)
        require_products(p, q)
        cosines = (
            _triton().cosine(*args, eps) if chosen == "triton" else reference.geodesic_cosine(*args, eps=eps)
        )
        return narrowed(cosines, x.dtype)
    cosines = kernels.cosine(*args, eps)
    # the kernel hands NaN and infinities on: looking at the scores spares looking at all features
    if not native.is_finite(cosines):
        require_all_finite(x=x, y=y, p=p, q=q)
        require_products(p, q)
        # the length of a row is beyond what its components can be
        cosines = kernels.cosine(*(part * moderation(part) for part in args[:2]), *args[2:], eps)
    return narrowed(cosines, x.dtype)


def _triton():
    # triton loads on use
    from ..kernels.triton import geodesic

    return geodesic


def geodesic_flow(p: Basis, q: Basis, *, backend: str | None = None) -> GeodesicFlow:
    r"""The geodesic from one subspace to another, to look at or to reuse.

    $$\Phi_j(t) = a_j \cos(t\theta_j) + c_j \sin(t\theta_j), \qquad 0 \le t \le 1,$$

    with principal vectors $a_j$ of ``p``, unit vectors $c_j$ that point from them towards ``q``, and
    principal angles $\theta_j$.

    Args:
        p: Orthonormal or zero columns, ``(..., D, K)``. Orthonormality is assumed, not checked.
        q: The same, ``(..., D, L)``; batch shapes broadcast. The smaller basis is filled with zero columns.
        backend: ``"reference"`` is the only one.

    Returns:
        ``.start`` and ``.turn`` ``(..., D, max(K, L))``, ``.angles`` ``(..., max(K, L))``; ``.at(t)`` is the
        basis at time ``t`` and ``.kernel()`` the geodesic flow kernel
        (GFK), the matrix $G$ of :func:`geodesic_cosine`.

    Gradients:
        None: the flow is a constant. Gradients to bases go through :func:`geodesic_cosine`.

    Raises:
        ValueError: If shapes or values do not fit.
        TypeError: If dtypes or devices disagree.
        BackendError: If another backend is named.

    Example:
        >>> import torch
        >>> flow = geodesic_flow(torch.eye(2)[:, :1], torch.eye(2)[:, 1:])
        >>> flow.at(0.5).flatten()
        tensor([0.7071, 0.7071])
    """
    _require_bases(p, q)
    p, q = in_common_batch(p=p, q=q)
    require_all_finite(p=p, q=q)
    require_products(p, q)
    dispatch.choose("geodesic_flow", {"reference": None}, backend)
    flow = reference.geodesic_flow(widened(p), widened(q))
    return GeodesicFlow(*(narrowed(part, p.dtype) for part in (flow.start, flow.turn, flow.angles)))


def geodesic_cosine_along(
    x: Rows, y: Rows, flow: GeodesicFlow, *, eps: float = SHORTEST, backend: str | None = None
) -> Scores:
    r"""The geodesic cosine along a flow that is fixed, such as one between two texts.

    The value of ``geodesic_cosine(x, y, p, q)`` for ``flow = geodesic_flow(p, q)``, without decomposing
    anything again.

    Args:
        x: Rows on one side of each pair, ``(..., N, D)``.
        y: Rows on the other side, like ``x``.
        flow: From :func:`geodesic_flow`; its batch shape broadcasts with that of the rows.
        eps: A row with $x^\top G x$ at most ``eps`` has no direction: it scores 0, with zero gradient.
        backend: ``"reference"`` is the only one.

    Returns:
        Cosines, ``(..., N)``, in the dtype of ``x``.

    Gradients:
        Any order, to ``x`` and ``y``; the flow is a constant.

    Raises:
        ValueError: If shapes or values do not fit.
        TypeError: If dtypes or devices disagree.
        BackendError: If another backend is named.

    Example:
        >>> import torch
        >>> flow = geodesic_flow(torch.eye(2)[:, :1], torch.eye(2)[:, :1])
        >>> geodesic_cosine_along(torch.tensor([[2.0, 1.0]]), torch.tensor([[-1.0, 1.0]]), flow)
        tensor([-1.])
    """
    if not isinstance(flow, GeodesicFlow):
        raise TypeError(f"flow must be a GeodesicFlow, got {type(flow).__name__}")
    _require_pairs(x, y, eps)
    require_basis("flow.start", flow.start, "x", x, x.shape[-1])
    require_shape("flow.turn", flow.turn, tuple(flow.start.shape), "that of flow.start")
    in_common_batch(x=x, y=y, flow=flow.start)
    require_all_finite(x=x, y=y)
    dispatch.choose("geodesic_cosine_along", {"reference": None}, backend)
    fixed = GeodesicFlow(*(widened(part.detach()) for part in (flow.start, flow.turn, flow.angles)))
    return narrowed(reference.geodesic_cosine_along(widened(x), widened(y), fixed, eps=eps), x.dtype)
