"""What pipelines that move one picture share: how it is shown, and at what size."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ..._checks import require_finite, require_float, require_pair, require_shades
from ...models.clip import ClipEncoder
from ..guidance import terms
from ..guidance.terms import GuidanceConfig
from ..recipe import OF_RECIPE

WORLD = MappingProxyType(
    {
        **terms.WORLD,
        "guess": None,
        "guess_encodings": 2600,  # all that the search would ever show
        "steps": 40,
        "learning_rate": None,
        "views": 8,
        "scale": (0.7, 1.1),
        "shift": 0.125,
        "jitter": 0.05,
        "noise": 0.05,
        "blurred": 0.3,
    }
)


@dataclass(frozen=True, kw_only=True)
class PictureConfig(GuidanceConfig):
    """How one picture is shown to the encoders; the pictures of :class:`GuidanceConfig` are its views.

    Attributes:
        guess: Least cosine, between the change that a searched first guess makes and the change of the text,
            for an edit layer to start from it. Above 1 nothing is searched. None for 0.5 where the judge of
            the rendered world names an object's shape and colour and the background's, and otherwise no
            search: a photograph would come out in few even colours.
        guess_encodings: Pictures that the search may show to the encoders.
        steps: Adam steps.
        learning_rate: Of the first step; the cosine schedule ends at 0. None for the pipeline's own.
        views: Random views per step.
        scale: Range of the share of the picture that a view shows.
        shift: Largest displacement of a view, in picture widths.
        jitter: Largest rotation (radians) and shear of a view.
        noise: Largest standard deviation of a view's noise.
        blurred: Share of views that are blurred.
        working_size: Longest side at which the edit is optimised; None for twice what the encoder sees, at
            most 512. The edit of a larger picture is enlarged to its full size.
    """

    guess: float | None = OF_RECIPE
    guess_encodings: int = OF_RECIPE
    steps: int = OF_RECIPE
    learning_rate: float | None = OF_RECIPE
    views: int = OF_RECIPE
    scale: tuple[float, float] = OF_RECIPE
    shift: float = OF_RECIPE
    jitter: float = OF_RECIPE
    noise: float = OF_RECIPE
    blurred: float = OF_RECIPE
    working_size: int | None = None

    counts: ClassVar[tuple[str, ...]] = (
        *GuidanceConfig.counts, "guess_encodings", "steps", "views", "learning_rate", "working_size"
    )  # fmt: skip
    amounts: ClassVar[tuple[str, ...]] = (*GuidanceConfig.amounts, "shift", "jitter", "noise", "blurred")

    def _check(self) -> None:
        super()._check()
        require_range("scale", self.scale)


def require_range(name: str, limits: tuple[float, float]) -> None:
    """Refuse limits that are not above 0 and in order."""
    require_pair(name, limits)
    if not 0 < limits[0] <= limits[1]:
        raise ValueError(f"{name} must be two numbers above 0, the smaller first, got {limits}")


def require_picture(picture: Tensor, name: str = "picture") -> None:
    """Refuse what is no single RGB picture in [0, 1]."""
    if not isinstance(picture, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(picture).__name__}")
    require_float(name, picture)
    if picture.dim() != 3 or picture.shape[0] != 3 or 0 in picture.shape:
        raise ValueError(f"{name} must have shape (3, H, W), got {tuple(picture.shape)}")
    require_finite(name, picture)
    require_shades(name, picture)


def to_working_size(picture: Tensor, encoders: Sequence[ClipEncoder], wanted: int | None) -> Tensor:
    """``picture`` (1, C, H, W) with its longest side at most ``wanted``, see :class:`PictureConfig`."""
    return _shrunk(picture, wanted or min(512, 2 * max(encoder.image_size for encoder in encoders)))


def to_preview(full: Tensor, source: Tensor, longest: int) -> Tensor:
    """``full`` (1, 3, H, W) with its longest side at most ``longest``, or that of ``source`` if longer."""
    return _shrunk(full, max(longest, *source.shape[-2:]))


def _shrunk(picture: Tensor, longest: int) -> Tensor:
    H, W = picture.shape[-2:]
    if max(H, W) <= longest:
        return picture
    size = [max(1, round(side * longest / max(H, W))) for side in (H, W)]
    return F.interpolate(picture, size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
