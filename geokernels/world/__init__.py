"""The rendered world: captioned scenes drawn by code, and a judge that reads them back."""

from .captions import TEMPLATES, WORDS, caption, describe, understand
from .clips import Clip, render_clip
from .edits import KINDS, EditCase, read_edit_folder, write_edit_folder
from .judge import Verdict, judge
from .renderer import object_frame, object_mask, render
from .scenes import ATTRIBUTES, COLOURS, PALETTE, Scenes, edit, sample_scenes

__all__ = [
    "ATTRIBUTES",
    "COLOURS",
    "KINDS",
    "PALETTE",
    "TEMPLATES",
    "WORDS",
    "Clip",
    "EditCase",
    "Scenes",
    "Verdict",
    "caption",
    "describe",
    "edit",
    "judge",
    "object_frame",
    "object_mask",
    "read_edit_folder",
    "render",
    "render_clip",
    "sample_scenes",
    "understand",
    "write_edit_folder",
]
