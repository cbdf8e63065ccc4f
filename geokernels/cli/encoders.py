"""The CLIP models that guide a command, as its options name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .console import warn_of_words

if TYPE_CHECKING:
    from ..models.clip import ClipEncoder


def encoder_of(clip: str, weights: Path | None, device: str) -> ClipEncoder:
    """The model that ``--clip`` and ``--clip-weights`` name."""
    from ..models.clip import load_clip

    kind, _, name = clip.partition(":")
    if clip != "world" and (kind != "open_clip" or not name):
        raise ValueError(f"--clip must be world or open_clip:NAME, got {clip!r}")
    if name and weights is None:
        raise ValueError(f"--clip-weights must name a weights file for {clip}, got none")
    return load_clip(name or clip, weights, device=device)


def encoders_of(clips: Sequence[str], weights: Sequence[Path], device: str) -> list[ClipEncoder]:
    """The models of repeated ``--clip``; each but ``world`` takes the next of repeated ``--clip-weights``."""
    files = iter(weights)
    found = [encoder_of(clip, None if clip == "world" else next(files, None), device) for clip in clips]
    left = next(files, None)
    if left is not None:
        raise ValueError(f"--clip-weights must be one for each open_clip model, {left} is left over")
    return found


def warn_of_unknown_words(encoders: Sequence[ClipEncoder], *prompts: str) -> None:
    """Say which words the world's model has never read."""
    unknown = {word for encoder in encoders for prompt in prompts for word in encoder.unknown_words(prompt)}
    warn_of_words("the world CLIP", unknown)


def pace(run, seconds: float) -> dict[str, str]:
    """What a progress bar says of a run."""
    return {
        "loss": f"loss {run.loss:.3f}",
        "speed": f"{run.index / max(seconds, 1e-9):.1f} steps/s",
    }
