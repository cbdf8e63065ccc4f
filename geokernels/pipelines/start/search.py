"""The first guess that an edit starts from: the better of the best recolouring and the best reshaping."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..guidance.clip import Guidance
from .guess import Guess, colour_centres
from .recolour import recolour
from .reshape import reshape


def search_guess(source: Tensor, guidance: Guidance, *, area: float, seed: int) -> Guess | None:
    """The guess to start an edit of ``source`` (1, 3, h, w) from, if one is good enough.

    Args:
        source: The picture at working size.
        guidance: Of the run; its config says how good is enough.
        area: What it costs to repaint the whole picture, in cosines.
        seed: Of the search.
    """
    if guidance.config.guess > 1:
        return None
    size = max(encoder.image_size for encoder in guidance.encoders)
    small = F.interpolate(source, (size, size), mode="bilinear", antialias=True, align_corners=False)
    given = source, colour_centres(small[0]), guidance.likeness
    best = recolour(*given, size=size, area=area)
    outline = reshape(
        *given,
        size=size,
        area=area,
        least=best.score - 0.3,
        generator=torch.Generator().manual_seed(seed),
    )
    if outline is not None and outline.score > best.score:
        best = outline
    return best if best.cosine >= guidance.config.guess else None
