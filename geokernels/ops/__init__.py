"""The public operators: checked, documented, and sent to the fastest implementation that can run."""

from .geodesic import GeodesicFlow, geodesic_cosine, geodesic_cosine_along, geodesic_flow
from .matching import Match, match_points
from .subspace import SubspaceBasis, principal_angles, project, subspace_basis
from .transport import Transport, sinkhorn, sinkhorn_divergence, sinkhorn_from_cost
from .transport_assignment import assignment, displacement
from .transport_exact import ExactTransport, exact_transport

__all__ = [
    "ExactTransport",
    "GeodesicFlow",
    "Match",
    "SubspaceBasis",
    "Transport",
    "assignment",
    "displacement",
    "exact_transport",
    "geodesic_cosine",
    "geodesic_cosine_along",
    "geodesic_flow",
    "match_points",
    "principal_angles",
    "project",
    "sinkhorn",
    "sinkhorn_divergence",
    "sinkhorn_from_cost",
    "subspace_basis",
]
