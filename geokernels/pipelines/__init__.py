"""Methods that move pictures: one method, one file."""

from importlib import import_module
from typing import TYPE_CHECKING

from .adapt.nada import Adaptation, AdaptationConfig, AdaptationResult, adapt_generator
from .adapt.w_inversion import WInversion, WInversionConfig, WInversionResult, invert_picture
from .blend.config import BlendConfig
from .blend.maps import Maps, MatchingConfig, find_maps
from .blend.pipeline import Blend, BlendResult, blend_pictures
from .edit.flow_inversion import flow_inversion
from .edit.oig import OIGConfig, OIGEdit, OIGResult, oig_edit
from .edit.source import EditSource, ddim_inversion, draw_source
from .interpolate.prompts import (
    PromptInterpolation,
    PromptInterpolationConfig,
    PromptInterpolationResult,
    feature_metric,
    interpolate_prompts,
)
from .morph.clip_inversion import ClipInversion, ClipInversionConfig, ClipInversionResult, clip_inversion
from .morph.text2live import LayerEdit, LayerEditConfig, LayerEditResult, Layers, edit_layer
from .video.atlas_edit import VideoEdit, VideoEditConfig, VideoEditResult, edit_video
from .video.atlas_fit import AtlasFit, AtlasFitConfig, AtlasFitResult, fit_atlas
from .video.footage import Footage, prepare_footage

if TYPE_CHECKING:  # at run time by __getattr__, below
    from .edit.pipeline import OIGPipeline
    from .interpolate.blocks import PromptTransportStep
    from .interpolate.pipeline import PromptInterpolationPipeline

__all__ = [
    "Adaptation",
    "AdaptationConfig",
    "AdaptationResult",
    "AtlasFit",
    "AtlasFitConfig",
    "AtlasFitResult",
    "Blend",
    "BlendConfig",
    "BlendResult",
    "ClipInversion",
    "ClipInversionConfig",
    "ClipInversionResult",
    "EditSource",
    "Footage",
    "LayerEdit",
    "LayerEditConfig",
    "LayerEditResult",
    "Layers",
    "Maps",
    "MatchingConfig",
    "OIGConfig",
    "OIGEdit",
    "OIGPipeline",
    "OIGResult",
    "PromptInterpolation",
    "PromptInterpolationConfig",
    "PromptInterpolationPipeline",
    "PromptInterpolationResult",
    "PromptTransportStep",
    "VideoEdit",
    "VideoEditConfig",
    "VideoEditResult",
    "WInversion",
    "WInversionConfig",
    "WInversionResult",
    "adapt_generator",
    "blend_pictures",
    "clip_inversion",
    "ddim_inversion",
    "draw_source",
    "edit_layer",
    "edit_video",
    "feature_metric",
    "find_maps",
    "fit_atlas",
    "flow_inversion",
    "interpolate_prompts",
    "invert_picture",
    "oig_edit",
    "prepare_footage",
]


# subclasses of diffusers' own need diffusers, which takes seconds to import
OF_DIFFUSERS = {
    "OIGPipeline": ".edit.pipeline",
    "PromptInterpolationPipeline": ".interpolate.pipeline",
    "PromptTransportStep": ".interpolate.blocks",
}


def __getattr__(name: str):
    if name in OF_DIFFUSERS:
        return getattr(import_module(OF_DIFFUSERS[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
