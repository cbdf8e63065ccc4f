"""Adapters of other libraries' models; each loads its library when it is used, not before."""

from .atlas import AtlasShape, LayeredAtlas, load_atlas, save_atlas
from .clip import ClipEncoder, load_clip
from .diffusion import load_diffusion, load_text_to_image, load_tiny_autoencoder
from .optical_flow import load_flow
from .stylegan2 import Generator, GeneratorConfig
from .stylegan2_files import load_generator, save_generator

__all__ = [
    "AtlasShape",
    "ClipEncoder",
    "Generator",
    "GeneratorConfig",
    "LayeredAtlas",
    "load_atlas",
    "load_clip",
    "load_diffusion",
    "load_flow",
    "load_generator",
    "load_text_to_image",
    "load_tiny_autoencoder",
    "save_atlas",
    "save_generator",
]
