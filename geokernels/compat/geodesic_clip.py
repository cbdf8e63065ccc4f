"""The class of the published geodesic loss: ``from geokernels.compat.geodesic_clip import GeoCLIP``."""

from torch.nn.functional import normalize

from .._checks import require_like, require_shape
from .._typing import Basis, Rows, Scores
from ..ops import geodesic_cosine, subspace_basis
from ..ops.inputs import require_rows


class GeoCLIP:
    r"""Geodesic cosines between paired CLIP features, with the arguments of geodesic-CLIP's ``GeoCLIP``.

    ``1 - GeoCLIP().fit(x, y).mean()`` is its consistency loss for unit directions of pictures and texts, and
    its regularisation for the features of two iterates. The subspaces are those of the published code: unit
    rows, each less its own mean over the features, and as many directions as rows for up to two rows, two
    fewer than rows beyond, at most ``source_dim`` and ``target_dim``.

    What differs:

    - The kernel is exact. The published one keeps ``dim`` arbitrary directions of the first subspace's
      complement, and computes the decomposition with an inverse that has random noise added and one step of
      Newton's method, so that equal calls give different values. ``dim`` has no effect here.
    - Equal subspaces, angles of zero, rank-deficient features and rows of zeros have finite values and
      gradients; a row without direction in the metric scores 0.
    - Any device, leading batch dimensions, and the dtype of ``x`` throughout.

    For new code see :func:`geokernels.geodesic_consistency_loss`, whose gradients also follow the subspaces.

    Args:
        dim: Without effect.
        source_dim: Most directions of the first subspace.
        target_dim: Most directions of the second.

    Example:
        >>> import torch
        >>> x = torch.eye(3, 5)
        >>> GeoCLIP().fit(x, x).round(decimals=4)
        tensor([1., 1., 1.])
    """

    def __init__(self, dim: int = 256, source_dim: int = 128, target_dim: int = 128):
        for name, value in (("source_dim", source_dim), ("target_dim", target_dim)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.dim, self.source_dim, self.target_dim = dim, source_dim, target_dim

    def fit(self, x: Rows, y: Rows) -> Scores:
        """The geodesic cosine of each pair of rows.

        Args:
            x: Features, ``(..., B, D)``; they need not be normalised.
            y: Their partners, like ``x``.

        Returns:
            Cosines, ``(..., B)``.

        Gradients:
            First order, to ``x`` and ``y``, with the kernel constant, as published.

        Raises:
            ValueError: If shapes or values do not fit.
            TypeError: If dtypes or devices disagree.
        """
        require_rows("x", x)
        require_shape("y", y, tuple(x.shape), "(..., B, D)")
        require_like("y", y, "x", x)
        x, y = normalize(x, dim=-1), normalize(y, dim=-1)
        return geodesic_cosine(x, y, _subspace(x, self.source_dim), _subspace(y, self.target_dim))


def _subspace(x: Rows, most: int) -> Basis:
    rows, features = x.shape[-2:]
    rank = rows if rows <= 2 else min(most, rows - 2)
    return subspace_basis(x.detach(), min(rank, features), center="rows").basis
