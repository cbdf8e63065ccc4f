"""What operators on feature rows and bases ask of their input, and the precision they compute it in."""

import torch
from torch import Tensor

from .._checks import require_finite, require_float, require_like, require_not_empty, require_rank
from ..kernels import native

# names of backends that mean the compiled kernels where a tensor is in CPU memory
FASTEST_ON_CPU = (None, "native")
HALVES = (torch.float16, torch.bfloat16)


def widened(x: Tensor) -> Tensor:
    """Half precision as float32, the dtype it is computed in; other tensors as they are."""
    return x.float() if x.dtype in HALVES else x


def narrowed(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` in ``dtype``, without a call where that is its own."""
    return x if x.dtype == dtype else x.to(dtype)


def require_rows(name: str, x: Tensor) -> None:
    """Refuse what is not at least one feature row, ``(..., N, D)``."""
    require_rank(name, x, 2, "(..., N, D)")
    require_float(name, x)
    require_not_empty(name, x, "(..., N, D)")


def require_basis(name: str, basis: Tensor, x_name: str, x: Tensor, features: int) -> None:
    """Refuse what is not at least one column of ``features`` numbers, ``(..., D, K)``."""
    require_rank(name, basis, 2, "(..., D, K)")
    require_like(name, basis, x_name, x)
    if basis.shape[-2] != features or basis.shape[-1] == 0:
        raise ValueError(
            f"{name} must have shape (..., D, K) with D = {features} and K > 0, got {tuple(basis.shape)}"
        )


def require_all_finite(**tensors: Tensor) -> None:
    """Refuse NaN and infinities in any of them."""
    for name, x in tensors.items():
        require_finite(name, x)


def require_products(p: Tensor, q: Tensor) -> None:
    """Refuse finite bases, far from orthonormal, whose products are not finite."""
    if not native.is_finite(p.mT @ q):
        longest = max(float(torch.linalg.vector_norm(b, dim=-2, dtype=torch.float64).max()) for b in (p, q))
        raise ValueError(f"p and q must have orthonormal columns, got one of length {longest:.3g}")


def in_common_batch(**tensors: Tensor) -> list[Tensor]:
    """All tensors with the batch shape they broadcast to; the last two dimensions are not part of it."""
    shapes = [x.shape[:-2] for x in tensors.values()]
    if all(shape == shapes[0] for shape in shapes):
        return list(tensors.values())
    try:
        batch = torch.broadcast_shapes(*shapes)
    except RuntimeError as error:
        batches = ", ".join(f"{name} {tuple(x.shape[:-2])}" for name, x in tensors.items())
        raise ValueError(f"batch shapes must broadcast, got {batches}") from error
    return [x.expand(*batch, *x.shape[-2:]) for x in tensors.values()]
