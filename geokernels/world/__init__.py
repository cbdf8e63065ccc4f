"""The rendered world: captioned scenes drawn by code, and a judge that reads them back."""

from .captions import TEMPLATES, WORDS, caption, describe
from .judge import Verdict, judge
from .renderer import object_frame, object_mask, render
from .scenes import ATTRIBUTES, COLOURS, PALETTE, Scenes, edit, sample_scenes

__all__ = [
    "ATTRIBUTES",
    "COLOURS",
    "PALETTE",
    "TEMPLATES",
    "WORDS",
    "Scenes",
    "Verdict",
    "caption",
    "describe",
    "edit",
    "judge",
    "object_frame",
    "object_mask",
    "render",
    "sample_scenes",
]
