"""The data set that one picture makes by itself: crops that come again, or a new one at every step."""

from collections.abc import Callable

from torch import Tensor

from .crops import Crop
from .layer_guidance import LayerGuidance, Sample


class InternalDataset:
    """Crops of one picture that come again and again.

    Because a crop and its views come again, the source is encoded once for each and not at every step. The
    views are drawn again at every visit: their noise takes more memory than all that is kept.
    """

    def __init__(self, source: Tensor, guidance: LayerGuidance, crops: list[Crop]):
        self.source, self.guidance, self.crops = source, guidance, crops
        self._seen: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def picture(self, turn: int) -> Tensor:
        """What the encoders see of the source."""
        return self.crops[turn].show(self.source)

    def samples(self, step: int) -> list[Sample]:
        """What step ``step`` learns from."""
        return [self.sample(step)]

    def sample(self, step: int) -> Sample:
        """The sample of step ``step``: every crop in turn."""
        turn = step % len(self.crops)
        picture = self.picture(turn)
        views = self.guidance.draw(turn, picture.device)
        if turn not in self._seen:
            self._seen[turn] = self.guidance.observe(picture, views)
        return Sample(turn, step, self.crops[turn], picture, views, *zip(*self._seen[turn]))


class FreshCrops:
    """A new crop at every step, and the whole picture beside it now and then; nothing comes again.

    Args:
        source: The picture, ``(1, 3, H, W)``.
        guidance: What the encoders say.
        draw: Makes the crop of a step.
        whole_every: The whole picture is learned from at the first of so many steps; None for never.
    """

    def __init__(
        self,
        source: Tensor,
        guidance: LayerGuidance,
        draw: Callable[[int], Crop],
        whole_every: int | None,
    ):
        self.source, self.guidance, self.draw, self.whole_every = source, guidance, draw, whole_every

    def samples(self, step: int) -> list[Sample]:
        """What step ``step`` learns from, the crop first."""
        crops = [self.draw(step)]
        if self.whole_every is not None and step % self.whole_every == 0:
            crops.append(Crop(0, 0, *self.source.shape[-2:], False))
        samples = []
        for turn, crop in enumerate(crops, start=2 * step):
            picture = crop.show(self.source)
            views = self.guidance.draw(turn, picture.device)
            seen = self.guidance.observe(picture, views)
            samples.append(Sample(turn, step, crop, picture, views, *zip(*seen)))
        return samples
