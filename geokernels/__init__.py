"""The geometry inside CLIP-guided morphing and diffusion editing: fast, exact and differentiable."""

from .kernels.dispatch import BackendError
from .losses import directional_loss, geodesic_consistency_loss, geodesic_regularisation_loss
from .ops import (
    ExactTransport,
    GeodesicFlow,
    Match,
    SubspaceBasis,
    Transport,
    assignment,
    displacement,
    exact_transport,
    geodesic_cosine,
    geodesic_cosine_along,
    geodesic_flow,
    match_points,
    principal_angles,
    project,
    sinkhorn,
    sinkhorn_divergence,
    sinkhorn_from_cost,
    subspace_basis,
)

__all__ = [
    "BackendError",
    "ExactTransport",
    "GeodesicFlow",
    "Match",
    "SubspaceBasis",
    "Transport",
    "assignment",
    "directional_loss",
    "displacement",
    "exact_transport",
    "geodesic_consistency_loss",
    "geodesic_cosine",
    "geodesic_cosine_along",
    "geodesic_flow",
    "geodesic_regularisation_loss",
    "match_points",
    "principal_angles",
    "project",
    "sinkhorn",
    "sinkhorn_divergence",
    "sinkhorn_from_cost",
    "subspace_basis",
]
