"""Methods that move pictures: one method, one file."""

from .clip_inversion import ClipInversion, ClipInversionConfig, ClipInversionResult, clip_inversion
from .nada import Adaptation, AdaptationConfig, AdaptationResult, adapt_generator
from .w_inversion import WInversion, WInversionConfig, WInversionResult, invert_picture

__all__ = [
    "Adaptation",
    "AdaptationConfig",
    "AdaptationResult",
    "ClipInversion",
    "ClipInversionConfig",
    "ClipInversionResult",
    "WInversion",
    "WInversionConfig",
    "WInversionResult",
    "adapt_generator",
    "clip_inversion",
    "invert_picture",
]
