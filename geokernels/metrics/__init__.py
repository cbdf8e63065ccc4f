"""What an edit is measured by."""

from .intervals import Interval, wilson_interval
from .stability import EditScore, outside_psnr, score_edit

__all__ = ["EditScore", "Interval", "outside_psnr", "score_edit", "wilson_interval"]
