"""The settings of layered edits by recipe: what Text2LIVE's authors released, and ours for the world."""

from types import MappingProxyType

from ..guidance import terms
from . import picture

# Of util/util.py in github.com/omerbt/Text2LIVE
TEXT2LIVE_TEMPLATES = (
    "photo of {}.",
    "high quality photo of {}.",
    "a photo of {}.",
    "the photo of {}.",
    "image of {}.",
    "an image of {}.",
    "high quality image of {}.",
    "a high quality image of {}.",
    "the {}.",
    "a {}.",
    "{}.",
    "{}",
    "{}!",
    "{}...",
)
SCREEN_TEMPLATES = ("{} over a green screen.", "{} in front of a green screen.")

# configs/image_config.yaml of the same, with its code where that decides. Not in it: no first guess, and
# mixed precision, which its README says makes training unstable. The relevancy's weight falls over all steps
# as in its example golden_horse.yaml.
PUBLISHED = MappingProxyType(
    {
        **picture.WORLD,  # of which these views take nothing
        **terms.PUBLISHED,
        "strength": 1.0,
        "regularisation": 0.0,
        "reach_weight": 0.0,
        "templates": TEXT2LIVE_TEMPLATES,
        "mixed_precision": False,
        "guess": 2.0,
        "guess_encodings": 600,
        "steps": 1000,
        "learning_rate": 2.5e-3,
        "spherical": 1.0,
        "screen": 1.0,
        "structure": 2.0,
        "sparsity": 6.0,
        "sparsity_count": 0.01,
        "sparsity_amount": 0.01,
        "bootstrap": 10.0,
        "bootstrapped": 1.0,
        "drawn_templates": True,
        "screen_templates": SCREEN_TEMPLATES,
        "augmentation": "photo",
        "fill": 1.0,
        "views": 16,
        "screen_views": 16,
        "crops": None,
        "crop": (0.85, 1.0),
        "zoom": (0.8, 1.2),
        "mirrored": 0.5,
        "tinted": 0.1,
        "whole_every": 75,
        "short_side": 512,
        "network": "skip",
        "widths": (128,) * 7,
        "optimiser": "madgrad",
        "weight_decay": 0.01,
        "schedule": "exponential",
        "decay": 0.99,
        "least_rate": 1e-5,
    }
)

WORLD = MappingProxyType(
    {
        **picture.WORLD,
        "regularisation": 0.0,
        "reach_weight": 0.0,
        "spherical": 1.0,
        "screen": 1.0,
        "structure": 2.0,
        "sparsity": 6.0,
        "sparsity_count": 0.01,
        "sparsity_amount": 0.01,
        "bootstrap": 10.0,
        "bootstrapped": 0.5,
        "drawn_templates": False,
        "screen_templates": None,
        "augmentation": "affine",
        "fill": 1.0,
        "screen_views": 2,
        "crops": 16,
        "crop": (0.8, 1.0),
        "zoom": (1.0, 1.0),
        "mirrored": 0.5,
        "tinted": 0.0,
        "whole_every": None,
        "short_side": None,
        "network": "unet",
        "widths": (24, 32, 32),
        "optimiser": "adam",
        "weight_decay": 0.0,
        "schedule": "cosine",
        "decay": 0.99,
        "least_rate": 1e-5,
    }
)
