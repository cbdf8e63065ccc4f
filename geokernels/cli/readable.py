"""What models can read of the texts of a command."""

from __future__ import annotations

import re

from .console import warn, warn_of_words


def readable_by(pipeline, encoder, texts: list[str], *, option: str, truncate: bool) -> list[str]:
    """The texts, which all models can read, or as many of their words as they can; before long work.

    Args:
        pipeline: The diffusion model.
        encoder: A CLIP that reads them too, or None.
        texts: The texts.
        option: What they were typed with.
        truncate: Whether they are cut, with a warning, where one is too long.

    Raises:
        ValueError: If one is too long, and is not to be cut.
    """
    readable = []
    for text in texts:
        error, words = _refusal(pipeline, encoder, text, option), text.split()
        while error is not None and truncate and len(words) > 1:
            words.pop()
            error = _refusal(pipeline, encoder, " ".join(words), option)
        if error is not None:
            raise error
        whole = len(words) == len(text.split())
        readable.append(text if whole else " ".join(words))
        if not whole:
            warn(f"Warning: {option} is too long for a model and was cut to {readable[-1]!r}.")
    return readable


def _refusal(pipeline, encoder, text: str, option: str) -> ValueError | None:
    """What the models say of a text that is too long, or None."""
    from .._checks import renamed
    from ..models.flow import latent_model

    try:
        latent_model(pipeline).read([text])
        if encoder is not None:
            encoder.encode_text([text])
    except ValueError as error:
        if " tokens, got " not in str(error):
            raise
        said = str(error).removesuffix("; shorten it, or have it truncated")
        return ValueError(f"{renamed(said, {'prompt': option})}; shorten it, or add --truncate")
    return None


def warn_of_world_words(prompts: list[str]) -> None:
    """Say which words the world's diffusion model was not trained on."""
    from ..world import WORDS

    words = {word for text in prompts for word in re.findall(r"[^\W_]+", text.lower())}
    warn_of_words("the world's diffusion model", words - WORDS)
