"""Methods that move pictures: one method, one file."""

from .clip_inversion import ClipInversion, ClipInversionConfig, ClipInversionResult, clip_inversion
from .nada import Adaptation, AdaptationConfig, AdaptationResult, adapt_generator
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
    "LayerEdit",
    "LayerEditConfig",
    "LayerEditResult",
    "Layers",
    "PromptInterpolation",
    "PromptInterpolationConfig",
    "PromptInterpolationPipeline",
    "PromptInterpolationResult",
    "WInversion",
    "WInversionConfig",
    "WInversionResult",
    "adapt_generator",
    "clip_inversion",
    "edit_layer",
    "feature_metric",
    "interpolate_prompts",
    "invert_picture",
]


def __getattr__(name: str):
    # a subclass of diffusers' own needs diffusers, which takes seconds to import
    if name == "PromptInterpolationPipeline":
        from .prompt_interpolation_pipeline import PromptInterpolationPipeline

        return PromptInterpolationPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
