"""The geometry inside CLIP-guided morphing and diffusion editing: fast, exact and differentiable."""

from .kernels.dispatch import BackendError
from .ops import (
    GeodesicFlow,
    SubspaceBasis,
    geodesic_cosine,
    geodesic_cosine_along,
    geodesic_flow,
    principal_angles,
    project,
    subspace_basis,
)

__all__ = [
    "BackendError",
    "GeodesicFlow",
    "SubspaceBasis",
    "geodesic_cosine",
    "geodesic_cosine_along",
    "geodesic_flow",
    "principal_angles",
    "project",
    "subspace_basis",
]
