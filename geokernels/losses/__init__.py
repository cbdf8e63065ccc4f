"""Losses: pure functions of embeddings, and modules that read pictures and texts by an encoder."""

from .atlas import colour_gradient_loss, flow_loss, hidden_colour_loss, mask_loss, rigidity_loss
from .directional import directional_loss, reach_loss, spherical_loss, unit_rows
from .editing import contrast_loss, resemblance_loss
from .geodesic import geodesic_consistency_loss, geodesic_regularisation_loss
from .modules import (
    DirectionalLoss,
    Encoder,
    GeodesicConsistencyLoss,
    GeodesicRegularisationLoss,
    PatchLoss,
)
from .perceptual import feature_distance, pyramid_distance, total_variation
from .text2live import (
    bootstrap_loss,
    composition_loss,
    lay_over,
    lay_over_screen,
    self_similarity,
    sparsity_loss,
    structure_loss,
)

__all__ = [
    "DirectionalLoss",
    "Encoder",
    "GeodesicConsistencyLoss",
    "GeodesicRegularisationLoss",
    "PatchLoss",
    "bootstrap_loss",
    "colour_gradient_loss",
    "composition_loss",
    "contrast_loss",
    "directional_loss",
    "feature_distance",
    "flow_loss",
    "geodesic_consistency_loss",
    "geodesic_regularisation_loss",
    "hidden_colour_loss",
    "lay_over",
    "lay_over_screen",
    "mask_loss",
    "pyramid_distance",
    "reach_loss",
    "resemblance_loss",
    "rigidity_loss",
    "self_similarity",
    "sparsity_loss",
    "spherical_loss",
    "structure_loss",
    "total_variation",
    "unit_rows",
]
