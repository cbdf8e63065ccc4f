"""The first guess that an edit starts from: the better of the best recolouring and the best reshaping."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..guidance.clip import Guidance
from ..run import Tell
from .effort import Effort
from .guess import Guess, colour_centres
from .recolour import recolour
from .reshape import reshape


def search_guess(source: Tensor, guidance: Guidance, *, area: float, seed: int, tell: Tell) -> Guess | None:
    """The guess to start an edit of ``source`` (1, 3, h, w) from, if one is good enough.

    Args:
        source: The picture at working size.
        guidance: Of the run; its config says how good is enough, and how many pictures may be encoded.
        area: What it costs to repaint the whole picture, in cosines.
        seed: Of the search.
        tell: Told how many pictures were encoded.
    """
    if guidance.config.guess > 1:
        return None
    size = max(encoder.image_size for encoder in guidance.encoders)
    small = F.interpolate(source, (size, size), mode="bilinear", antialias=True, align_corners=False)
    effort = Effort(guidance.likeness, guidance.config.guess_encodings, tell)
    given = source, colour_centres(small[0]), effort
    best = recolour(*given, size=size, area=area, most=effort.left)
    if best is None:
        return None
    outline = reshape(
        *given,
        size=size,
        area=area,
        least=best.score - 0.3,
        most=effort.left,
        generator=torch.Generator().manual_seed(seed),
    )
    if outline is not None and outline.score > best.score:
        best = outline
    return best if best.cosine >= guidance.config.guess else None
