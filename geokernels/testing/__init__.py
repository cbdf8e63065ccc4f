"""For tests and benchmarks only: inputs with known properties, what 'equal' means here, and oracles."""

from .closeness import assert_as_accurate
from .inputs import cloud, directions, orthonormal, weights
from .oracles import unrolled_sinkhorn

__all__ = ["assert_as_accurate", "cloud", "directions", "orthonormal", "unrolled_sinkhorn", "weights"]
