"""What an edit is measured by."""

from .intervals import Interval, wilson_interval
from .stability import outside_psnr, score_edit

__all__ = ["Interval", "outside_psnr", "score_edit", "wilson_interval"]
