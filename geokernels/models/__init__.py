"""Adapters of other libraries' models; each loads its library when it is used, not before."""

from .clip import ClipEncoder, load_clip
from .diffusion import load_diffusion, load_text_to_image, load_tiny_autoencoder
from .stylegan2 import Generator, GeneratorConfig
from .stylegan2_files import load_generator, save_generator

__all__ = [
    "ClipEncoder",
    "Generator",
    "GeneratorConfig",
    "load_clip",
    "load_diffusion",
    "load_generator",
    "load_text_to_image",
    "load_tiny_autoencoder",
    "save_generator",
]
