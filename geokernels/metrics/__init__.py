"""What an edit, and a path of pictures, is measured by."""

from .conventions import Conventions
from .editing import OutsideScore, blank, clip_score, directional_similarity, filled, outside_score
from .intervals import Interval, MeanInterval, mean_interval, wilson_interval
from .path import PathScore, gini, respace, score_path
from .stability import EditScore, outside_psnr, score_edit
from .warping import warping_error

__all__ = [
    "Conventions",
    "EditScore",
    "Interval",
    "MeanInterval",
    "OutsideScore",
    "PathScore",
    "blank",
    "clip_score",
    "directional_similarity",
    "filled",
    "gini",
    "mean_interval",
    "outside_psnr",
    "outside_score",
    "respace",
    "score_edit",
    "score_path",
    "warping_error",
    "wilson_interval",
]
