"""The first guess that an edit starts from: the better of the best recolouring and the best reshaping."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...world import judge
from ..guidance.clip import Guidance
from ..run import Tell
from .effort import Effort
from .guess import Guess, colour_centres
from .recolour import recolour
from .reshape import reshape

START = 0.5  # least cosine between the change that a guess makes and that of the text


def search_guess(source: Tensor, guidance: Guidance, *, area: float, seed: int, tell: Tell) -> Guess | None:
    """The guess to start an edit of ``source`` (1, 3, h, w) from, if one is good enough.

    Args:
        source: The picture at working size.
        guidance: Of the run; its config says how good is enough, and how many pictures may be encoded.
        area: What it costs to repaint the whole picture, in cosines.
        seed: Of the search.
        tell: Told how many pictures were encoded.
    """
    least = least_cosine(guidance.config.guess, source)
    if least > 1:
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
    return best if best.cosine >= least else None


def least_cosine(wanted: float | None, picture: Tensor) -> float:
    """The cosine that a first guess must reach; infinite where none is to be searched.

    Args:
        wanted: What the settings say; None leaves it to the judge, for the search was made for pictures of
            few even colours, and turns a photograph into one.
        picture: To be edited, ``(1, 3, h, w)``.
    """
    if wanted is not None:
        return wanted if wanted <= 1 else math.inf
    return START if is_scene(picture) else math.inf


def is_scene(picture: Tensor) -> bool:
    """Whether ``picture`` (1, 3, h, w) is like the rendered world's: its judge names what is there."""
    small = F.interpolate(picture, (64, 64), mode="bilinear", antialias=True, align_corners=False)
    seen = judge(small.clamp(0, 1)).names()[0]
    return all(seen[name] for name in ("shape", "colour", "background"))
