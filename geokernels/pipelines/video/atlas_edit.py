"""Text2LIVE on video: one edit of a layer's atlas, seen in every frame."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..._checks import require_choice
from ..._modes import own_modes
from ...losses.text2live import sparsity_loss
from ...models.atlas import LayeredAtlas, LayerSample
from ...models.clip import ClipEncoder
from ..guidance.clip import Likeness
from ..morph.layer_descent import LayerDescent
from ..morph.layer_guidance import Sample
from ..morph.skip_network import least_side
from ..morph.text2live import LayerEditConfig
from ..recipe import OF_RECIPE
from ..run import Tell
from ..run_state import checksum, plain
from ..start.effort import Effort
from ..start.guess import Guess, colour_centres
from ..start.recolour import recolour
from ..start.search import least_cosine
from .atlas_view import (
    LAYERS,
    AtlasPicture,
    FrameView,
    atlas_picture,
    require_layer,
    resize_view,
    view_atlas,
    view_frame,
)
from .footage import Footage
from .moments import FreshMoments, Moments
from .video_edit_recipes import GROUND_CROP, PUBLISHED, WORLD

AREA = 0.1  # what it costs a first guess to repaint a whole frame, in cosines


@dataclass(frozen=True, kw_only=True)
class VideoEditConfig(LayerEditConfig):
    """How an edit of an atlas is guided, shown and stepped; see :class:`LayerEditConfig`.

    Its windows are those of frames: ``crops`` of them, spread over the clip, or new ones at every step, to
    which ``moments``, ``apart`` and ``border`` belong. There is no relevancy: the layer says where to edit.

    Attributes:
        layer: ``"foreground"`` or ``"background"``.
        moments: Frames that a step looks at.
        apart: How many frames there are from one of them to the next.
        border: Windows on the foreground are taken of the box around it and of so many pixels beside it, at
            working size; None for windows of the whole frame.
    """

    layer: str = "foreground"
    bootstrap: float = OF_RECIPE
    moments: int = OF_RECIPE
    apart: int = OF_RECIPE
    border: int | None = OF_RECIPE

    recipes = MappingProxyType({"world": WORLD, "published": PUBLISHED})
    counts: ClassVar[tuple[str, ...]] = (*LayerEditConfig.counts, "moments", "apart")
    amounts: ClassVar[tuple[str, ...]] = (*LayerEditConfig.amounts, "border")

    def __post_init__(self):
        if self.recipe == "published" and self.layer == "background" and self.crop is OF_RECIPE:
            object.__setattr__(self, "crop", GROUND_CROP)
        super().__post_init__()

    def _check(self) -> None:
        super()._check()
        require_choice("layer", self.layer, tuple(LAYERS))
        if tuple(self.zoom) != (1.0, 1.0):
            raise ValueError(f"zoom must be (1.0, 1.0) for a clip, got {self.zoom}")
        if self.crops is not None and self.moments != 1:
            raise ValueError(f"moments must be 1 where crops come again, got {self.moments}")


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


class VideoEdit(LayerDescent):
    """An edit of an atlas in progress, see :class:`Run`; :meth:`prepare` searches its first guess.

    A step paints the atlas once and shows it in a window of one frame or a few, whose composites are encoded
    once under all views. Where windows come again, as many frames are kept as there are windows; otherwise
    what fits into a GiB of the host's memory. Edited frames are made one at a time.

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
        self.longest = self._longest_side()
        least = least_side(config.widths) if config.network == "skip" else 1
        picture = picture or atlas_picture(atlas, self.layer, self.longest, least=least)
        self.source, self.seen = picture
        self.dataset = self._moments(picture)
        facts = {
            "config": plain(config),
            "picture": footage.checksum,
            "atlas": checksum(atlas),
            "seed": self._seed,
        }
        self._begin_steps(facts)
        self.network.require_sides(self.source.shape[-2:])

    @own_modes
    @torch.no_grad()
    def painted(self) -> Tensor:
        """The edit of the atlas as it stands: colour and opacity, ``(1, 4, h, w)``."""
        self.prepare()
        layer = self._paint(self.source, self.start)
        return torch.cat([layer[:, :3], self.network.written(layer[:, 3:])], 1)

    def frames(self) -> Iterator[Tensor]:
        """The frames with the edit as it stands, one at a time, ``(3, H, W)`` on the CPU."""
        layer = self.painted()
        for index in range(len(self.footage)):
            yield self.frame(index, layer)

    @own_modes
    @torch.no_grad()
    def frame(self, index: int, layer: Tensor | None = None, *, seen: LayerSample | None = None) -> Tensor:
        """One of them; ``layer`` is :meth:`painted`, and ``seen`` the atlas' look, where they are at hand."""
        layer = self.painted() if layer is None else layer
        view = view_frame(self.atlas, self.layer, index, self.footage.frame(index), seen=seen)
        return view.composite(view.shown(layer))[0].cpu()

    def _moments(self, picture: AtlasPicture) -> Moments | FreshMoments:
        config, frames = self.config, len(self.footage)
        if config.crops is not None:
            crops = self._crops(self._working_shape())
            return Moments(self._working_view, frames, self.guidance, crops)
        how = {"atlas": view_atlas(picture), "seed": self._seed}
        return FreshMoments(self._working_view, frames, self.guidance, config, **how)

    def _learn_from_all(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """The mean terms of windows that are shown one painting of the atlas."""
        layer = self._layer_of(samples[0])
        leaf = layer.detach().requires_grad_()
        terms: dict[str, Tensor] = {}
        for sample in samples:
            for look in self._looks(sample):
                part = look(leaf)
                if part:
                    (self._weighted(part) / len(samples)).backward()
                for name, term in part.items():
                    terms[name] = terms.get(name, 0) + term.detach() / len(samples)
        self.optimizer.zero_grad()
        layer.backward(leaf.grad)
        return terms

    def _layer_of(self, sample: Sample) -> Tensor:
        if self.config.crops is None and sample.crop.mirrored:
            # the network sees what the encoders do
            start = None if self.start is None else self.start.flip(-1)
            return self._paint(self.source.flip(-1), start).flip(-1)
        return self._paint(self.source, self.start)

    def _looks(self, sample: Sample) -> Sequence[Callable[[Tensor], dict[str, Tensor]]]:
        view, config = self.dataset.view(sample.turn), self.config
        share = {"count": config.sparsity_count, "amount": config.sparsity_amount}
        return (
            lambda layer: self.guidance.terms_of_composite(view.composite(view.shown(layer)), sample),
            lambda layer: self.guidance.screen_terms(view.shown(layer), sample),
            lambda layer: {"sparsity": sparsity_loss(view.shown(layer)[:, 3:], **share)},
        )

    def _longest_side(self) -> int:
        """Of the frames that the encoders are shown, unless they are smaller, and of the atlas."""
        config, (H, W) = self.config, self.footage.size
        if config.working_size is None and config.short_side is not None:
            return round(config.short_side * max(H, W) / min(H, W))
        return config.working_size or min(512, 2 * max(e.image_size for e in self.guidance.encoders))

    def _working_shape(self) -> tuple[int, int]:
        """Height and width of the frames that the encoders are shown."""
        H, W = self.footage.size
        scale = min(1.0, self.longest / max(H, W))
        return max(1, round(H * scale)), max(1, round(W * scale))

    def _working_view(self, index: int) -> FrameView:
        return resize_view(view_frame(self.atlas, self.layer, index, self.footage.frame(index)), self.longest)

    def _first_guess(self, tell: Tell) -> Guess | None:
        """The recolouring of the layer that goes furthest towards the text, judged on the middle frame."""
        if self.config.guess is not None and self.config.guess > 1:
            return None  # before a frame is looked at
        view = self._working_view(len(self.footage) // 2)
        least = least_cosine(self.config.guess, view.frame)
        if least > 1:
            return None

        def likeness(pictures: Tensor, source: Tensor) -> Likeness:
            opaque = torch.cat([pictures, torch.ones_like(pictures[:, :1])], 1)
            return self.guidance.likeness(view.composite(view.shown(opaque)), view.frame)

        centres = colour_centres(self.source[0])
        size = max(encoder.image_size for encoder in self.guidance.encoders)
        area = AREA * view.cover.mean().item()
        effort = Effort(likeness, self.config.guess_encodings, tell)
        best = recolour(self.source, centres, effort, size=size, area=area, most=effort.left, whole=True)
        return best if best and best.cosine >= least else None


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
