"""The definitions of every operator, in plain PyTorch: exact in float64, differentiable by autograd."""

from .geodesic import GeodesicFlow, geodesic_cosine, geodesic_cosine_along, geodesic_flow
from .matching import match_points
from .problem import Problem, Solution
from .subspace import SubspaceBasis, centred, default_rtol, principal_angles, project, subspace_basis
from .transport import assignment, displacement, pairwise_cost, solve
from .transport_exact import exact_transport

__all__ = [
    "GeodesicFlow",
    "Problem",
    "Solution",
    "SubspaceBasis",
    "assignment",
    "centred",
    "default_rtol",
    "displacement",
    "exact_transport",
    "geodesic_cosine",
    "geodesic_cosine_along",
    "geodesic_flow",
    "match_points",
    "pairwise_cost",
    "principal_angles",
    "project",
    "solve",
    "subspace_basis",
]
