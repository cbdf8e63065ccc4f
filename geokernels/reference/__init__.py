"""The definitions of every operator, in plain PyTorch: exact in float64, differentiable by autograd."""

from .geodesic import GeodesicFlow, geodesic_cosine, geodesic_cosine_along, geodesic_flow
from .subspace import SubspaceBasis, centred, default_rtol, principal_angles, project, subspace_basis

__all__ = [
    "GeodesicFlow",
    "SubspaceBasis",
    "centred",
    "default_rtol",
    "geodesic_cosine",
    "geodesic_cosine_along",
    "geodesic_flow",
    "principal_angles",
    "project",
    "subspace_basis",
]
