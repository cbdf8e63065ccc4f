"""The public operators: checked, documented, and sent to the fastest implementation that can run."""

from .geodesic import GeodesicFlow, geodesic_cosine, geodesic_cosine_along, geodesic_flow
from .subspace import SubspaceBasis, principal_angles, project, subspace_basis

__all__ = [
    "GeodesicFlow",
    "SubspaceBasis",
    "geodesic_cosine",
    "geodesic_cosine_along",
    "geodesic_flow",
    "principal_angles",
    "project",
    "subspace_basis",
]
