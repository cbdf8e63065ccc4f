"""Nodes of geokernels for ComfyUI; see README.md beside this file."""

from .nodes import comfy_entrypoint

__all__ = ["comfy_entrypoint"]
