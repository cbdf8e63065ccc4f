"""Methods that move pictures: one method, one file."""

from .atlas_fit import AtlasFit, AtlasFitConfig, AtlasFitResult, fit_atlas
from .clip_inversion import ClipInversion, ClipInversionConfig, ClipInversionResult, clip_inversion
from .edit_source import EditSource, ddim_inversion, draw_source
from .footage import Footage, prepare_footage
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
from .text2live_video import VideoEdit, VideoEditConfig, VideoEditResult, edit_video
from .w_inversion import WInversion, WInversionConfig, WInversionResult, invert_picture

__all__ = [
    "Adaptation",
    "AdaptationConfig",
    "AdaptationResult",
    "AtlasFit",
    "AtlasFitConfig",
    "AtlasFitResult",
    "ClipInversion",
    "ClipInversionConfig",
    "ClipInversionResult",
    "EditSource",
    "Footage",
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
    "VideoEdit",
    "VideoEditConfig",
    "VideoEditResult",
    "WInversion",
    "WInversionConfig",
    "WInversionResult",
    "adapt_generator",
    "clip_inversion",
    "ddim_inversion",
    "draw_source",
    "edit_layer",
    "edit_video",
    "feature_metric",
    "fit_atlas",
    "interpolate_prompts",
    "invert_picture",
    "oig_edit",
    "prepare_footage",
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
