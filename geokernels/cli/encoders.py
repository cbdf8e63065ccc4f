"""The CLIP models that guide a command, as its options name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .console import warn_of_words
from .kept import kept

if TYPE_CHECKING:
    from ..models.clip import ClipEncoder


def require_clips(**named: str | None) -> None:
    """Refuse names of CLIPs that stand for nothing, by their options, before any model is read."""
    from ..models.clip_sources import Called, require_name

    for name, clip in named.items():
        option = "--" + name.replace("_", "-")
        if clip is not None:
            require_name(clip, Called(option, f"{option}-weights", f"{option}-tokenizer"))


def encoder_of(
    clip: str, weights: Path | None, device: str, *, tokenizer: Path | None = None, option: str = "--clip"
) -> ClipEncoder:
    """The model that ``option`` names, with its options for weights and tokenizer."""
    from ..models.clip import load_clip
    from ..models.clip_sources import EVALUATION, OPEN_CLIP, Called

    if clip == EVALUATION and option == "--clip":
        raise ValueError(f"{option} must not be {EVALUATION}, which evaluates and never guides")
    called = Called(option, f"{option}-weights", f"{option}-tokenizer")
    how = {"tokenizer": tokenizer, "device": device, "called": called}
    return kept(load_clip, clip.removeprefix(OPEN_CLIP), weights, **how)


def encoders_of(
    clips: Sequence[str], weights: Sequence[Path], tokenizers: Sequence[Path], device: str
) -> list[ClipEncoder]:
    """The models of repeated ``--clip``.

    Of repeated ``--clip-weights`` each takes the next that cannot find its weights by its name, and of
    ``--clip-tokenizer`` each whose tokenizer is on the hub.
    """
    from ..models.clip_sources import needs_file, needs_tokenizer

    files, folders = iter(weights), iter(tokenizers)
    # as many files as models other than the world's: each has one, its tag says only how it was trained
    all_have = len(weights) == sum(clip != "world" for clip in clips)
    encoders = []
    for clip in clips:
        takes = needs_file(clip) or (all_have and clip != "world")
        folder = next(folders, None) if needs_tokenizer(clip) else None
        encoders.append(encoder_of(clip, next(files, None) if takes else None, device, tokenizer=folder))
    for option, left in (("--clip-weights", files), ("--clip-tokenizer", folders)):
        one = next(left, None)
        if one is not None:
            raise ValueError(f"{option} must be one for each --clip that needs one, {one} is left over")
    return encoders


def warn_of_unknown_words(encoders: Sequence[ClipEncoder], *prompts: str) -> None:
    """Say which words the world's model was not trained on."""
    unknown = {word for encoder in encoders for prompt in prompts for word in encoder.unknown_words(prompt)}
    warn_of_words("the world CLIP", unknown)
