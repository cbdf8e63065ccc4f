"""Losses on embeddings: pure functions, no models and no state."""

from .directional import directional_loss, reach_loss, unit_rows
from .geodesic import geodesic_consistency_loss, geodesic_regularisation_loss
from .perceptual import feature_distance, pyramid_distance, total_variation

__all__ = [
    "directional_loss",
    "feature_distance",
    "geodesic_consistency_loss",
    "geodesic_regularisation_loss",
    "pyramid_distance",
    "reach_loss",
    "total_variation",
    "unit_rows",
]
