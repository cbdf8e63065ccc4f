"""Names for the shapes that operators take; notation for the reader, plain tensors at run time.

``...`` is any batch shape. ``N``, ``M`` rows; ``D`` features; ``K``, ``L`` ranks.
"""

from typing import TypeAlias

from torch import Tensor

Rows: TypeAlias = Tensor  # (..., N, D)
Points: TypeAlias = Tensor  # (..., N, D)
Basis: TypeAlias = Tensor  # (..., D, K), orthonormal or zero columns
Scores: TypeAlias = Tensor  # (..., N)
Weights: TypeAlias = Tensor  # (..., N), non-negative
Cost: TypeAlias = Tensor  # (..., N, M), may hold +inf
Potential: TypeAlias = Tensor  # (..., N)
