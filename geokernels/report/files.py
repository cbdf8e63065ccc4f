"""How reports write files: whole, or not at all."""

from .._files import replacing, sha256, write_json, write_text

__all__ = ["replacing", "sha256", "write_json", "write_text"]
