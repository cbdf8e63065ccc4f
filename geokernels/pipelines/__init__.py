"""Methods that move pictures: one method, one file."""

from .clip_inversion import ClipInversion, ClipInversionConfig, ClipInversionResult, clip_inversion

__all__ = ["ClipInversion", "ClipInversionConfig", "ClipInversionResult", "clip_inversion"]
