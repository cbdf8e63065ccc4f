"""Adapters of other libraries' models; each loads its library when it is used, not before."""

from .clip import ClipEncoder, load_clip

__all__ = ["ClipEncoder", "load_clip"]
