"""The data set that a clip makes by itself: windows of frames, and how each sees the layer that is edited."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..morph.crops import Crop, draw_crop
from ..morph.internal_dataset import InternalDataset
from ..morph.layer_guidance import APART, LayerGuidance, Sample
from .atlas_view import FrameView, host, window, within_box

COVERED = 0.95  # of a pixel, for it to lie in the box around a layer
ROOM = 2**30  # bytes of views that are kept on the host


class Moments(InternalDataset):
    """Windows of frames that come again and again, and how each sees the layer."""

    def __init__(
        self, see: Callable[[int], FrameView], frames: int, guidance: LayerGuidance, crops: list[Crop]
    ):
        super().__init__(None, guidance, crops)
        self._see, self._frames = see, frames
        self._views: dict[int, FrameView] = {}

    def view(self, turn: int) -> FrameView:
        """The window of ``turn`` (modulo their number); looked up in the footage when it comes first."""
        turn %= len(self.crops)
        if turn not in self._views:
            # in the middle of as many equal parts of the clip as there are windows
            whole = self._see(int((turn + 0.5) * self._frames / len(self.crops)))
            self._views[turn] = window(whole, self.crops[turn])
        return self._views[turn]

    def picture(self, turn: int) -> Tensor:
        """What the encoders see of the source."""
        return self.view(turn).frame


class FreshMoments:
    """A new window at every step, in a few frames of one stretch of the clip; nothing comes again.

    Args:
        see: How a frame sees the layer.
        frames: Of the clip.
        guidance: What the encoders say.
        config: With ``moments``, ``apart``, ``border``, ``crop``, ``mirrored``, ``tinted`` and
            ``whole_every``; see :class:`VideoEditConfig`.
        atlas: The whole layer as one more view of it, for ``whole_every``.
        seed: Of what is drawn.

    Attributes:
        kept: Views of frames that were asked for before, on the host, as far as there is room.
    """

    def __init__(
        self,
        see: Callable[[int], FrameView],
        frames: int,
        guidance: LayerGuidance,
        config,
        *,
        atlas: FrameView,
        seed: int,
    ):
        self._see, self._frames, self.guidance, self.config = see, frames, guidance, config
        self._atlas, self._seed = atlas, seed
        self.kept: dict[int, FrameView] = {}
        self._step: list[FrameView] = []

    def samples(self, step: int) -> list[Sample]:
        """What step ``step`` learns from: the windows, and now and then the whole layer."""
        chance = torch.Generator().manual_seed(self._seed + 4 * APART + step)
        crops = self._windows(chance)
        if self.config.whole_every is not None and (step + 1) % self.config.whole_every == 0:
            crops.append((self._atlas, Crop(0, 0, *self._atlas.frame.shape[-2:], False)))
        self._step, samples = [window(view, crop) for view, crop in crops], []
        for i, (view, (_, crop)) in enumerate(zip(self._step, crops)):
            turn = (self.config.moments + 1) * step + i
            views = self.guidance.draw(turn, view.frame.device)
            seen = self.guidance.observe(view.frame, views)
            samples.append(Sample(i, step, crop, view.frame, views, *zip(*seen)))
        return samples

    def view(self, turn: int) -> FrameView:
        """The window of a sample of the step that was asked for last."""
        return self._step[turn]

    def _windows(self, chance: torch.Generator) -> list[tuple[FrameView, Crop]]:
        """Frames and what is taken of each; all are mirrored and tinted, or none."""
        config, last = self.config, self._frames - 1
        way = config.apart * (config.moments - 1)
        # all within the clip, where it is long enough
        first = int(torch.randint(max(1, last - way + 1), (), generator=chance, dtype=torch.int64))
        numbers = [min(first + config.apart * i, last) for i in range(config.moments)]
        key = int(torch.randint(2**62, (), generator=chance, dtype=torch.int64))
        windows = []
        for index in numbers:
            view = self.whole_frame(index)
            top, left, *sides = self._box(view)
            # the same luck for every frame: one window of the background, one share of an object
            crop = draw_crop(
                tuple(sides),
                zoom=(1.0, 1.0),
                share=config.crop,
                mirrored=config.mirrored,
                tinted=config.tinted,
                generator=torch.Generator().manual_seed(key),
            )
            crop = crop._replace(top=top + crop.top, left=left + crop.left, sides=None)
            windows.append((view, crop))
        return windows

    def _box(self, view: FrameView) -> tuple[int, int, int, int]:
        """Top, left, height and width of what windows are taken of."""
        whole = (0, 0, *view.frame.shape[-2:])
        if self.config.border is None or self.config.layer != "foreground" or view.cover.is_meta:
            return whole
        return within_box(view.cover[0, 0] >= COVERED, self.config.border) or whole

    def whole_frame(self, index: int) -> FrameView:
        """How a frame sees the layer; kept on the host as long as there is room."""
        device = self._atlas.frame.device
        if index in self.kept:
            return FrameView(*(part.to(device) for part in self.kept[index]))
        view = self._see(index)
        size = sum(part.numel() * part.element_size() for part in view)
        if (len(self.kept) + 1) * size <= ROOM:
            self.kept[index] = host(view)
        return view
