"""Faces that other projects already call: those of GeomLoss, POT and the published geodesic loss."""
