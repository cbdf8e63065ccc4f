"""Text2LIVE on pictures: a network paints an edit layer, a colour and an opacity, that a text describes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..._checks import require_choice, require_shape
from ..._modes import own_modes
from ...losses.text2live import bootstrap_loss, lay_over, sparsity_loss
from ...models.clip import ClipEncoder
from ..descent import MOMENTS
from ..guidance.terms import require_templates
from ..recipe import OF_RECIPE
from ..run import Tell
from ..run_state import checksum, plain
from ..start.guess import Guess
from ..start.search import search_guess
from .crops import resized
from .edit_network import by_bands, enlarge, require_widths
from .layer_descent import GUIDES, NETWORKS, LayerDescent
from .layer_guidance import Sample
from .picture import PictureConfig, require_picture, require_range, to_preview, to_working_size
from .text2live_recipes import PUBLISHED, WORLD

CHOICES = {
    "network": tuple(NETWORKS),
    "augmentation": tuple(GUIDES),
    "optimiser": tuple(MOMENTS),
    "schedule": ("cosine", "exponential"),
}


@dataclass(frozen=True, kw_only=True)
class LayerEditConfig(PictureConfig):
    """How an edit layer is guided, shown and stepped.

    Text2LIVE's composition loss is the sum of ``spherical`` and of the term of ``loss``, which ``strength``
    weighs. With ``loss="spherical"`` there is no term for the direction.

    Attributes:
        spherical: Weight of the angle between the composite and the target text.
        screen: Weight of the same angle between the edit over green and the text that describes it.
        structure: Weight of the change of CLIP tokens' self-similarity.
        sparsity: Weight of what is painted over.
        sparsity_count: Share in it of the smooth count of painted pixels.
        sparsity_amount: Share in it of their mean opacity.
        bootstrap: Weight, at the first step, of the opacity's distance to the relevancy, if one is given.
        bootstrapped: Share of the steps after which that weight has fallen to 0.
        drawn_templates: Whether each step draws some of the templates and takes the mean of their losses,
            rather than the loss of the mean over all.
        screen_templates: Sentences around the text of the edit alone; None for ``templates``, with "over a
            green screen" in the text.
        augmentation: How the encoders see: ``"affine"`` for square views, see :func:`draw_views`, or
            ``"photo"`` for views in the picture's proportions, mirrored, warped and tinted as Text2LIVE's
            release has them, see :func:`draw_photo_views`. The latter take nothing from ``scale``,
            ``shift``, ``jitter``, ``noise`` and ``blurred``; structure is then read from the picture itself,
            with the class token.
        fill: Shade of what a view shows beside the picture, with ``"photo"``.
        screen_views: How many of the views also show the edit over green.
        crops: Windows of the picture that are visited in turn, the whole picture among them; None for a new
            one at every step, to which ``zoom``, ``tinted`` and ``whole_every`` belong.
        crop: Range of a window's share of height and width.
        zoom: Range of the factor by which the picture is scaled before a window is taken.
        mirrored: Share of windows that are mirrored.
        tinted: Share of windows whose colours are changed a little.
        whole_every: Every so many steps, from the first, the whole picture is learned from too; None for
            never.
        short_side: Shorter side at which the edit is optimised where ``working_size`` is None, whatever the
            picture's own; None for the rule of ``working_size``.
        network: ``"unet"``, small and with opacities of exactly 0, or ``"skip"``, the published one, whose
            opacities below half of a grey level are written as 0.
        widths: Channels of the network's levels, multiples of 8, the finest first.
        optimiser: ``"adam"`` or ``"madgrad"``.
        weight_decay: Of the optimiser.
        schedule: ``"cosine"``, or ``"exponential"``, which ``decay`` and ``least_rate`` belong to.
        decay: Factor of the learning rate at every step.
        least_rate: Below which it does not fall.
    """

    spherical: float = OF_RECIPE
    screen: float = OF_RECIPE
    structure: float = OF_RECIPE
    sparsity: float = OF_RECIPE
    sparsity_count: float = OF_RECIPE
    sparsity_amount: float = OF_RECIPE
    bootstrap: float = OF_RECIPE
    bootstrapped: float = OF_RECIPE
    drawn_templates: bool = OF_RECIPE
    screen_templates: tuple[str, ...] | None = OF_RECIPE
    augmentation: str = OF_RECIPE
    fill: float = OF_RECIPE
    screen_views: int = OF_RECIPE
    crops: int | None = OF_RECIPE
    crop: tuple[float, float] = OF_RECIPE
    zoom: tuple[float, float] = OF_RECIPE
    mirrored: float = OF_RECIPE
    tinted: float = OF_RECIPE
    whole_every: int | None = OF_RECIPE
    short_side: int | None = OF_RECIPE
    network: str = OF_RECIPE
    widths: tuple[int, ...] = OF_RECIPE
    optimiser: str = OF_RECIPE
    weight_decay: float = OF_RECIPE
    schedule: str = OF_RECIPE
    decay: float = OF_RECIPE
    least_rate: float = OF_RECIPE

    recipes = MappingProxyType({"world": WORLD, "published": PUBLISHED})
    counts: ClassVar[tuple[str, ...]] = (
        *PictureConfig.counts, "screen_views", "crops", "whole_every", "short_side"
    )  # fmt: skip
    amounts: ClassVar[tuple[str, ...]] = (
        *PictureConfig.amounts,
        *("spherical", "screen", "structure", "sparsity", "sparsity_count", "sparsity_amount"),
        *("bootstrap", "bootstrapped", "mirrored", "tinted", "fill", "weight_decay", "decay", "least_rate"),
    )

    def _check(self) -> None:
        super()._check()
        for name, choices in CHOICES.items():
            require_choice(name, getattr(self, name), choices)
        require_range("crop", self.crop)
        require_range("zoom", self.zoom)
        if self.crop[1] > 1:
            raise ValueError(f"crop must be shares of the picture, at most 1, got {self.crop}")
        if self.screen_views > self.views:
            raise ValueError(f"screen_views must be at most views, {self.views}, got {self.screen_views}")
        if self.crops is None and self.regularisation:
            raise ValueError(
                "regularisation must be 0 where crops is None: it holds on to what a crop was when it last "
                f"came, got {self.regularisation}"
            )
        require_templates("screen_templates", self.screen_templates or self.templates)
        require_widths(self.widths)


class Layers(NamedTuple):
    """An edit at full size, float32 in [0, 1].

    Attributes:
        edit: Colours, ``(3, H, W)``; they mean nothing where ``alpha`` is 0.
        alpha: Opacity, ``(1, H, W)``.
        composite: ``(3, H, W)``, to the bit the picture given where ``alpha`` is 0.
    """

    edit: Tensor
    alpha: Tensor
    composite: Tensor


class LayerEditResult(NamedTuple):
    """The layers, and every loss term at every step.

    Attributes:
        edit: Colours, ``(3, H, W)``.
        alpha: Opacity, ``(1, H, W)``.
        composite: The edit over the picture, ``(3, H, W)``.
        history: ``(steps, terms)`` float32.
        terms: Names of the columns of ``history``; ``"loss"`` is the weighted sum.
    """

    edit: Tensor
    alpha: Tensor
    composite: Tensor
    history: Tensor
    terms: tuple[str, ...]


class LayerEdit(LayerDescent):
    """A layered edit of a picture in progress, see :class:`Run`; :meth:`prepare` searches its first guess.

    A step shows one crop of the picture, and some steps the whole picture as well. Its composite is encoded
    once under all views, and every loss of the text reads those features. The source under the same views is
    encoded when a crop comes first. The composite's graph is freed before the edit is encoded over green.

    Everything random is drawn from ``generator`` at the start and keyed by crop or step, so that a run
    resumed from a state ends as if it had never stopped, to the bit on the CPU.

    Args:
        picture: ``(3, H, W)`` in [0, 1], any size, floating point.
        encoders: Frozen CLIP encoders on the picture's device; each guides by its weight.
        source: What the picture shows.
        target: What it should show.
        screen: What the edit alone shows; None for the target text. It is read in ``screen_templates``, which
            speak of a green screen; where there are none it is to speak of it, and None is for the target
            text "over a green screen", or what the world's CLIP can read of that.
        config: See :class:`LayerEditConfig`.
        generator: Source of random numbers, on the CPU.
        relevancy: Where the edit should begin, ``(1, H, W)`` in [0, 1], for ``config.bootstrap``.

    Raises:
        ValueError: For a picture, prompt or setting that cannot be used; the message says which.
        TypeError: If the picture is not floating point.
    """

    @own_modes
    def __init__(
        self,
        picture: Tensor,
        encoders: Sequence[ClipEncoder],
        source: str,
        target: str,
        *,
        screen: str | None = None,
        config: LayerEditConfig | None = None,
        generator: torch.Generator,
        relevancy: Tensor | None = None,
    ):
        config = (config or LayerEditConfig()).settled(*encoders)
        require_picture(picture)
        if relevancy is not None:
            require_shape("relevancy", relevancy, (1, *picture.shape[-2:]), "(1, H, W)")
        self._begin_layer(encoders, source, target, config, screen=screen, generator=generator)
        self.full = picture.detach()[None].float()
        self.source = self._to_working_size(self.full)
        self._previews: dict[int, Tensor] = {}
        self.relevancy = None
        if relevancy is not None and config.bootstrap:
            self.relevancy = self._to_working_size(relevancy.to(self.full)[None])
        self.dataset = self._dataset()
        facts = {
            "config": plain(config),
            "picture": checksum(self.full),
            "relevancy": None if self.relevancy is None else checksum(self.relevancy),
            "seed": self._seed,
        }
        self._begin_steps(facts)
        self.network.require_sides(self._least_sides())

    @own_modes
    @torch.no_grad()
    def layers(self) -> Layers:
        """The edit as it stands."""
        self.prepare()
        edit, alpha = self._written(self.full)
        composite = by_bands(lambda ground, *layer: lay_over(*layer, ground), self.full, edit, alpha)
        return Layers(edit[0], alpha[0], composite[0])

    def picture(self) -> Tensor:
        """The composite as it stands, like the picture given."""
        return self.layers().composite

    @own_modes
    @torch.no_grad()
    def preview(self, longest: int) -> Tensor:
        """The same with its longest side at most ``longest``, or at working size: quick for large ones."""
        self.prepare()
        if longest not in self._previews:
            self._previews[longest] = to_preview(self.full, self.source, longest)
        ground = self._previews[longest]
        return lay_over(*self._written(ground), ground)[0]

    def _written(self, ground: Tensor) -> tuple[Tensor, Tensor]:
        """Colour and opacity at the size of ``ground``, as they are written."""
        layer = enlarge(self._paint(self.source, self.start), ground)
        return layer[:, :3], self.network.written(layer[:, 3:])

    def _to_working_size(self, plane: Tensor) -> Tensor:
        short, config = self.config.short_side, self.config
        if short is None or config.working_size is not None:
            return to_working_size(plane, self.guidance.encoders, config.working_size)
        sides = plane.shape[-2:]
        return resized(plane, tuple(max(1, int(short * side / min(sides))) for side in sides)).clamp(0, 1)

    def _least_sides(self) -> tuple[int, int]:
        """Of what the network may be shown."""
        config, sides = self.config, self.source.shape[-2:]
        zoom = 1.0 if config.crops is not None else min(1.0, config.zoom[0])
        return tuple(int(config.crop[0] * int(zoom * side)) for side in sides)

    def _first_guess(self, tell: Tell) -> Guess | None:
        return search_guess(self.source, self.guidance, area=0.1, seed=self._seed + 2, tell=tell)

    def _layer_of(self, sample: Sample) -> Tensor:
        start = None if self.start is None else sample.crop.take(self.start)
        return self._paint(sample.picture, start)

    def _looks(self, sample: Sample) -> Sequence[Callable[[Tensor], dict[str, Tensor]]]:
        return (
            lambda layer: self.guidance.composite_terms(layer, sample.picture, sample),
            lambda layer: self.guidance.screen_terms(layer, sample),
            lambda layer: self._opacity_terms(layer, sample),
        )

    def _opacity_terms(self, layer: Tensor, sample: Sample) -> dict[str, Tensor]:
        """The terms that depend on the opacity alone."""
        config = self.config
        share = {"count": config.sparsity_count, "amount": config.sparsity_amount}
        terms = {"sparsity": sparsity_loss(layer[:, 3:], **share)}
        if self.relevancy is not None:
            terms["bootstrap"] = bootstrap_loss(layer[:, 3:], sample.crop.take(self.relevancy))
        return terms

    def _weight(self, term: str) -> float:
        if term != "bootstrap":
            return self.config.weight(term)
        until = self.config.bootstrapped * self.config.steps
        return self.config.bootstrap * max(0.0, 1 - self.index / max(until, 1e-9))


def edit_layer(
    picture: Tensor,
    encoders: Sequence[ClipEncoder],
    source: str,
    target: str,
    *,
    screen: str | None = None,
    config: LayerEditConfig | None = None,
    generator: torch.Generator,
    relevancy: Tensor | None = None,
    callback: Callable[[LayerEdit], None] | None = None,
) -> LayerEditResult:
    """Edit a picture by a layer that shows what ``target`` says and ``source`` does not.

    Arguments and errors are those of :class:`LayerEdit`, which this runs to its end; ``callback`` is called
    with it after every step.

    Returns:
        The layers and the history of their losses.
    """
    run = LayerEdit(
        picture,
        encoders,
        source,
        target,
        screen=screen,
        config=config,
        generator=generator,
        relevancy=relevancy,
    )
    run.finish(callback)
    return LayerEditResult(*run.layers(), run.history, run.terms)
