"""Methods that move pictures: one method, one file."""

from .clip_inversion import ClipInversion, ClipInversionConfig, ClipInversionResult, clip_inversion
from .edit_source import EditSource, ddim_inversion, draw_source
from .nada import Adaptation, AdaptationConfig, AdaptationResult, adapt_generator
from .oig import OIGConfig, OIGEdit, OIGResult, oig_edit
from .prompt_interpolation import (
    PromptInterpolation,
    PromptInterpolationConfig,
    PromptInterpolationResult,
    feature_metric,
    interpolate_prompts,
)
from .text2live import LayerEdit, LayerEditConfig, LayerEditResult, Layers, edit_layer
from .w_inversion import WInversion, WInversionConfig, WInversionResult, invert_picture

__all__ = [
    "Adaptation",
    "AdaptationConfig",
    "AdaptationResult",
    "ClipInversion",
    "ClipInversionConfig",
    "ClipInversionResult",
    "EditSource",
    "LayerEdit",
    "LayerEditConfig",
    "LayerEditResult",
    "Layers",
    "OIGConfig",
    "OIGEdit",
    "OIGPipeline",
    "OIGResult",
    "PromptInterpolation",
    "PromptInterpolationConfig",
    "PromptInterpolationPipeline",
    "PromptInterpolationResult",
    "WInversion",
    "WInversionConfig",
    "WInversionResult",
    "adapt_generator",
    "clip_inversion",
    "ddim_inversion",
    "draw_source",
    "edit_layer",
    "feature_metric",
    "interpolate_prompts",
    "invert_picture",
    "oig_edit",
]


def __getattr__(name: str):
    # a subclass of diffusers' own needs diffusers, which takes seconds to import
    if name == "OIGPipeline":
        from .oig_pipeline import OIGPipeline

        return OIGPipeline
    if name == "PromptInterpolationPipeline":
        from .prompt_interpolation_pipeline import PromptInterpolationPipeline

        return PromptInterpolationPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
