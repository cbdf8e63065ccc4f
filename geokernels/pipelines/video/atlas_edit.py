"""Text2LIVE on video: one edit of a layer's atlas, seen in every frame."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from ..._checks import require_choice
from ..._modes import own_modes
from ...losses.text2live import sparsity_loss
from ...models.atlas import LayeredAtlas
from ...models.clip import ClipEncoder
from ..guidance.clip import Likeness
from ..morph import text2live_recipes
from ..morph.internal_dataset import Crop, InternalDataset, Sample
from ..morph.layer_descent import LayerDescent
from ..morph.layer_guidance import LayerGuidance
from ..morph.text2live import LayerEditConfig
from ..recipe import OF_RECIPE
from ..run import Tell
from ..run_state import checksum, plain
from ..start.effort import Effort
from ..start.guess import Guess, colour_centres
from ..start.recolour import recolour
from .atlas_view import (
    LAYERS,
    AtlasPicture,
    FrameView,
    atlas_picture,
    require_layer,
    resize_view,
    view_frame,
)
from .footage import Footage

AREA = 0.1  # what it costs a first guess to repaint a whole frame, in cosines

WORLD = MappingProxyType({**text2live_recipes.WORLD, "bootstrap": 0.0})
PUBLISHED = MappingProxyType({**text2live_recipes.PUBLISHED, "bootstrap": 0.0})


@dataclass(frozen=True, kw_only=True)
class VideoEditConfig(LayerEditConfig):
    """How an edit of an atlas is guided, shown and stepped; see :class:`LayerEditConfig`.

    Its windows are those of frames: ``crops`` of them, spread over the clip.
    There is no relevancy, as the layer says where to edit.

    Attributes:
        layer: ``"foreground"`` or ``"background"``.
    """

    layer: str = "foreground"
    bootstrap: float = OF_RECIPE

    recipes = MappingProxyType({"world": WORLD, "published": PUBLISHED})

    def _check(self) -> None:
        super()._check()
        require_choice("layer", self.layer, tuple(LAYERS))


class VideoEditResult(NamedTuple):
    """The edit of the atlas, every loss term at every step, and the frames.

    Attributes:
        edit: ``(3, h, w)`` float32 in [0, 1], on the part of the atlas that is seen.
        alpha: Opacity, ``(1, h, w)``.
        history: ``(steps, terms)`` float32.
        terms: Names of the columns of ``history``; ``"loss"`` is the weighted sum.
        frames: ``(3, H, W)`` each, made when they are asked for.
    """

    edit: Tensor
    alpha: Tensor
    history: Tensor
    terms: tuple[str, ...]
    frames: Iterator[Tensor]


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
            crop = self.crops[turn]
            grid = crop.take(whole.grid.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            self._views[turn] = FrameView(
                crop.take(whole.frame), grid, crop.take(whole.cover), crop.take(whole.own)
            )
        return self._views[turn]

    def picture(self, turn: int) -> Tensor:
        """What the encoders see of the source."""
        return self.view(turn).frame


class VideoEdit(LayerDescent):
    """An edit of an atlas in progress, see :class:`Run`; :meth:`prepare` searches its first guess.

    A step paints the atlas once and shows it in a window of one frame, whose composite is encoded once under
    all views. As many frames are kept as there are windows, whatever the length of the clip; edited frames
    are made one at a time.

    Everything random is drawn from ``generator`` at the start and keyed by the window, so that a run resumed
    from a state ends as if it had never stopped, to the bit on the CPU.

    Args:
        footage: The clip.
        atlas: Fitted to it, on the encoders' device.
        encoders: Frozen CLIP encoders; each guides by its weight.
        source: What the frames show.
        target: What they should show.
        screen: What the edit alone shows, over green; see :class:`LayerEdit`.
        config: See :class:`VideoEditConfig`.
        picture: The layer as :func:`atlas_picture` draws it, where it is at hand, for several edits of it
            say; None to draw it.
        generator: Source of random numbers, on the CPU.

    Raises:
        ValueError: For an atlas of another clip, a layer in which nothing is, or a prompt or setting that
            cannot be used; the message says which.
    """

    @own_modes
    def __init__(
        self,
        footage: Footage,
        atlas: LayeredAtlas,
        encoders: Sequence[ClipEncoder],
        source: str,
        target: str,
        *,
        screen: str | None = None,
        config: VideoEditConfig | None = None,
        picture: AtlasPicture | None = None,
        generator: torch.Generator,
    ):
        config = (config or VideoEditConfig()).settled(*encoders)
        atlas.require_clip(footage.checksum)
        self.footage, self.atlas = footage, atlas
        # what has a picture is there
        self.layer = require_layer(atlas, config.layer) if picture is None else LAYERS[config.layer]
        self._begin_layer(encoders, source, target, config, screen=screen, generator=generator)
        self.longest = config.working_size or min(512, 2 * max(encoder.image_size for encoder in encoders))
        self.source, self.seen = picture or atlas_picture(atlas, self.layer, self.longest)
        crops = self._crops(self._working_shape())
        self.dataset = Moments(self._working_view, len(footage), self.guidance, crops)
        facts = {
            "config": plain(config),
            "picture": footage.checksum,
            "atlas": checksum(atlas),
            "seed": self._seed,
        }
        self._begin_steps(facts)

    @own_modes
    @torch.no_grad()
    def painted(self) -> Tensor:
        """The edit of the atlas as it stands: colour and opacity, ``(1, 4, h, w)``."""
        self.prepare()
        return self._paint(self.source, self.start)

    def frames(self) -> Iterator[Tensor]:
        """The frames with the edit as it stands, one at a time, ``(3, H, W)`` on the CPU."""
        layer = self.painted()
        for index in range(len(self.footage)):
            yield self.frame(index, layer)

    @own_modes
    @torch.no_grad()
    def frame(self, index: int, layer: Tensor | None = None) -> Tensor:
        """One of them; ``layer`` is :meth:`painted`, where it is at hand."""
        layer = self.painted() if layer is None else layer
        view = view_frame(self.atlas, self.layer, index, self.footage.frame(index))
        return view.composite(view.shown(layer))[0].cpu()

    def _layer_of(self, sample: Sample) -> Tensor:
        return self._paint(self.source, self.start)

    def _looks(self, sample: Sample) -> Sequence[Callable[[Tensor], dict[str, Tensor]]]:
        view = self.dataset.view(self.index)
        return (
            lambda layer: self.guidance.terms_of_composite(view.composite(view.shown(layer)), sample),
            lambda layer: self.guidance.screen_terms(view.shown(layer), sample),
            lambda layer: {"sparsity": sparsity_loss(view.shown(layer)[:, 3:])},
        )

    def _working_shape(self) -> tuple[int, int]:
        """Height and width of the frames that the encoders are shown."""
        H, W = self.footage.size
        scale = min(1.0, self.longest / max(H, W))
        return max(1, round(H * scale)), max(1, round(W * scale))

    def _working_view(self, index: int) -> FrameView:
        return resize_view(view_frame(self.atlas, self.layer, index, self.footage.frame(index)), self.longest)

    def _first_guess(self, tell: Tell) -> Guess | None:
        """The recolouring of the layer that goes furthest towards the text, judged on the middle frame."""
        if self.config.guess > 1:
            return None
        view = self._working_view(len(self.footage) // 2)

        def likeness(pictures: Tensor, source: Tensor) -> Likeness:
            opaque = torch.cat([pictures, torch.ones_like(pictures[:, :1])], 1)
            return self.guidance.likeness(view.composite(view.shown(opaque)), view.frame)

        centres = colour_centres(self.source[0])
        size = max(encoder.image_size for encoder in self.guidance.encoders)
        area = AREA * view.cover.mean().item()
        effort = Effort(likeness, self.config.guess_encodings, tell)
        best = recolour(self.source, centres, effort, size=size, area=area, most=effort.left, whole=True)
        return best if best and best.cosine >= self.config.guess else None


def edit_video(
    footage: Footage,
    atlas: LayeredAtlas,
    encoders: Sequence[ClipEncoder],
    source: str,
    target: str,
    *,
    screen: str | None = None,
    config: VideoEditConfig | None = None,
    generator: torch.Generator,
    callback: Callable[[VideoEdit], None] | None = None,
) -> VideoEditResult:
    """Edit one layer of a clip, so that every frame shows what ``target`` says and ``source`` does not.

    Arguments and errors are those of :class:`VideoEdit`, which this runs to its end; ``callback`` is called
    with it after every step.

    Returns:
        The edit of the atlas, the history of its losses, and the frames, made as they are asked for.
    """
    run = VideoEdit(
        footage, atlas, encoders, source, target, screen=screen, config=config, generator=generator
    )
    run.finish(callback)
    layer = run.painted()[0]
    return VideoEditResult(layer[:3], layer[3:], run.history, run.terms, run.frames())
