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
from .w_inversion import WInversion, WInversionConfig, WInversionResult, invert_picture

__all__ = [
    "Adaptation",
    "AdaptationConfig",
    "AdaptationResult",
    "ClipInversion",
    "ClipInversionConfig",
    "ClipInversionResult",
    "PromptInterpolation",
    "PromptInterpolationConfig",
    "PromptInterpolationPipeline",
    "PromptInterpolationResult",
    "WInversion",
    "WInversionConfig",
    "WInversionResult",
    "adapt_generator",
    "clip_inversion",
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
