"""What an edit, and a path of pictures, is measured by."""

from .intervals import Interval, wilson_interval
from .path import PathScore, gini, respace, score_path
from .stability import EditScore, outside_psnr, score_edit

__all__ = [
    "EditScore",
    "Interval",
    "PathScore",
    "gini",
    "outside_psnr",
    "respace",
    "score_edit",
    "score_path",
    "wilson_interval",
]
