"""The data set that one picture makes by itself: crops and mirror images, each with its views."""

from typing import NamedTuple

import torch
from torch import Tensor

from ...losses.text2live import self_similarity
from ..guidance.clip import Guidance
from ..guidance.views import Views


class Crop(NamedTuple):
    """A window of a picture, and whether it is mirrored."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool

    def take(self, x: Tensor) -> Tensor:
        """The window of ``x`` (..., H, W)."""
        window = x[..., self.top : self.top + self.height, self.left : self.left + self.width]
        return window.flip(-1) if self.mirrored else window


def draw_crops(
    count: int,
    size: tuple[int, int],
    *,
    share: tuple[float, float],
    mirrored: float,
    generator: torch.Generator,
) -> list[Crop]:
    """Draw windows of pictures of ``size`` (H, W); the first is the whole picture.

    Args:
        count: How many, the whole picture included.
        size: Any, down to one pixel: windows are shares of it, at least a pixel wide and high.
        share: Range of a window's share of height and width, within (0, 1].
        mirrored: Share of windows that are mirrored.
        generator: Source of random numbers, on the CPU.
    """
    H, W = size
    crops = [Crop(0, 0, H, W, False)]
    for chance in torch.rand((count - 1, 4), generator=generator, dtype=torch.float32).tolist():
        part = share[0] + (share[1] - share[0]) * chance[0]
        height, width = max(1, round(part * H)), max(1, round(part * W))
        top, left = round(chance[1] * (H - height)), round(chance[2] * (W - width))
        crops.append(Crop(top, left, height, width, chance[3] < mirrored))
    return crops


class Sample(NamedTuple):
    """One crop, how it is viewed, and what each encoder saw of the source there."""

    turn: int  # its number in the data set
    crop: Crop
    views: list[Views]
    features: list[Tensor]  # (V, D) per encoder
    similarity: list[Tensor]  # (V, N, N) per encoder, of its tokens


class InternalDataset:
    """Crops of one picture that come again and again.

    Because a crop and its views come again, the source is encoded once for each and not at every step. The
    views are drawn again at every visit: their noise takes more memory than all that is kept.
    """

    def __init__(self, source: Tensor, guidance: Guidance, crops: list[Crop]):
        self.source, self.guidance, self.crops = source, guidance, crops
        self._seen: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def picture(self, turn: int) -> Tensor:
        """What the encoders see of the source."""
        return self.crops[turn].take(self.source)

    def sample(self, step: int) -> Sample:
        """The sample of step ``step``: every crop in turn."""
        turn = step % len(self.crops)
        picture, crop = self.picture(turn), self.crops[turn]
        views = self.guidance.draw(turn, picture.device)
        if turn not in self._seen:
            with torch.no_grad():
                seen = self.guidance.see_with_tokens(picture, views)
            self._seen[turn] = [(features, self_similarity(tokens)) for features, tokens in seen]
        features, similarity = zip(*self._seen[turn])
        return Sample(turn, crop, views, list(features), list(similarity))
