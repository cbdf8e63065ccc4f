"""For tests and benchmarks only: inputs with known properties, and what 'equal' means here."""

from .closeness import assert_as_accurate
from .inputs import cloud, directions, orthonormal, weights

__all__ = ["assert_as_accurate", "cloud", "directions", "orthonormal", "weights"]
