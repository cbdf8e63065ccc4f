"""Text2LIVE on pictures: a network paints an edit layer, a colour and an opacity, that a text describes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..._checks import require_shape
from ..._modes import own_modes
from ...losses.text2live import bootstrap_loss, lay_over, sparsity_loss
from ...models.clip import ClipEncoder
from ..run import Descent
from ..running import plain, require_finite_step
from .edit_network import EditNetwork, as_layer, by_bands, enlarge, require_widths
from .internal_dataset import InternalDataset, Sample, draw_crops
from .layer_guidance import LayerGuidance
from .parametrisation import RESTRAINT, logits_of
from .picture import (
    PictureConfig,
    checksum,
    require_picture,
    require_range,
    search_guess,
    to_preview,
    to_working_size,
)

LEARNING_RATE = 0.01


@dataclass(frozen=True, kw_only=True)
class LayerEditConfig(PictureConfig):
    """How an edit layer is guided, shown and stepped. The defaults were chosen on the rendered world.

    The composition loss is ``spherical`` and the term of ``loss``, whose weight is ``strength``; with
    ``loss="spherical"`` it has no direction.

    Attributes:
        spherical: Weight of the angle between the composite and the target text.
        screen: Weight of the same angle between the edit over green and the text that describes it.
        structure: Weight of the change of CLIP tokens' self-similarity.
        sparsity: Weight of what is painted over.
        bootstrap: Weight of the opacity's distance to the relevancy, where that is given, at the first step.
        bootstrapped: Share of the steps after which that weight has fallen to 0.
        screen_views: How many of the views also show the edit over green.
        crops: Windows of the picture that are visited in turn, the whole picture among them.
        crop: Range of a window's share of height and width.
        mirrored: Share of windows that are mirrored.
        widths: Channels of the network's levels, multiples of 8, the finest first.
    """

    regularisation: float = 0.0
    reach: float = 0.0
    spherical: float = 1.0
    screen: float = 1.0
    structure: float = 2.0
    sparsity: float = 6.0
    bootstrap: float = 10.0
    bootstrapped: float = 0.5
    views: int = 8
    screen_views: int = 2
    crops: int = 16
    crop: tuple[float, float] = (0.8, 1.0)
    mirrored: float = 0.5
    widths: tuple[int, ...] = (24, 32, 32)

    counts: ClassVar[tuple[str, ...]] = (*PictureConfig.counts, "screen_views", "crops")
    amounts: ClassVar[tuple[str, ...]] = (
        *PictureConfig.amounts,
        *("spherical", "screen", "structure", "sparsity", "bootstrap", "bootstrapped", "mirrored"),
    )

    def __post_init__(self):
        super().__post_init__()
        require_range("crop", self.crop)
        if self.crop[1] > 1:
            raise ValueError(f"crop must be shares of the picture, at most 1, got {self.crop}")
        if self.screen_views > self.views:
            raise ValueError(f"screen_views must be at most views, {self.views}, got {self.screen_views}")
        require_widths(self.widths)


class Layers(NamedTuple):
    """An edit at full size, float32 in [0, 1]."""

    edit: Tensor  # (3, H, W), the colour; means nothing where alpha is 0
    alpha: Tensor  # (1, H, W)
    composite: Tensor  # (3, H, W), to the bit the picture given where alpha is 0


class LayerEditResult(NamedTuple):
    """The layers, and every loss term at every step."""

    edit: Tensor  # (3, H, W)
    alpha: Tensor  # (1, H, W)
    composite: Tensor  # (3, H, W)
    history: Tensor  # (steps, terms) float32
    terms: tuple[str, ...]  # names of the columns of history; "loss" is the weighted sum


class LayerEdit(Descent):
    """A layered edit in progress: :meth:`step` until :attr:`done`; :meth:`state_dict` between any steps.

    A step shows one crop of the picture. Its composite is encoded once under all views, and every loss reads
    that; the source under the same views was encoded when the crop came first. The composite's graph is gone
    before the edit is looked at over green.

    All chance is drawn from ``generator`` at the start and keyed by the crop, so that a run resumed from a
    state ends as if it had never stopped, to the bit on the CPU.

    Args:
        picture: ``(3, H, W)`` in [0, 1], any size, floating point.
        encoders: Frozen CLIP encoders on the picture's device; each guides by its weight.
        source: What the picture shows.
        target: What it shall show.
        screen: What the edit alone shows, over green; None for the target text "over a green screen", or what
            the world's CLIP can read of that.
        config: See :class:`LayerEditConfig`.
        generator: Source of chance, on the CPU.
        relevancy: Where the edit should begin, ``(1, H, W)`` in [0, 1], for ``config.bootstrap``.

    Raises:
        ValueError: For a picture, prompt or setting that cannot be used; the message says which.
        TypeError: If the picture is not floating point.
    """

    knobs = "views, or working_size (--size)"

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
        self.config = config = config or LayerEditConfig()
        require_picture(picture)
        if relevancy is not None:
            require_shape("relevancy", relevancy, (1, *picture.shape[-2:]), "(1, H, W)")
        chance = int(torch.randint(2**62, (), generator=generator))
        self.guidance = LayerGuidance(encoders, source, target, config, screen=screen, key=chance + 3)
        began = time.perf_counter()

        self.full = picture.detach()[None].float()
        self.source = to_working_size(self.full, encoders, config.working_size)
        self._previews: dict[int, Tensor] = {}
        self.relevancy = None
        if relevancy is not None and config.bootstrap:
            relevancy = relevancy.to(self.full)[None]
            self.relevancy = to_working_size(relevancy, encoders, config.working_size)
        guess = search_guess(self.source, self.guidance, area=0.1, chance=chance + 2)
        self.start = None if guess is None else logits_of(guess)
        self.network = EditNetwork(config.widths, generator=_chance(chance)).to(self.source.device)
        self.dataset = InternalDataset(self.source, self.guidance, self._crops(chance + 1))
        self.prepared_in = time.perf_counter() - began

        run = {
            "config": plain(config),
            "source": source,
            "target": target,
            "screen": self.guidance.screen,
            "encoders": [encoder.name for encoder in encoders],
            "picture": checksum(self.full),
            "relevancy": None if self.relevancy is None else checksum(self.relevancy),
            "seed": chance,
        }
        rate = config.learning_rate or LEARNING_RATE
        adam = torch.optim.Adam(self.network.parameters(), lr=rate)
        self._begin(adam, steps=config.steps, rate=rate, run=run)

    @own_modes
    @torch.no_grad()
    def layers(self) -> Layers:
        """The edit as it stands."""
        layer = enlarge(self._paint(self.source, self.start), self.full)
        edit, alpha = layer[:, :3], layer[:, 3:]
        composite = by_bands(lambda ground, *layer: lay_over(*layer, ground), self.full, edit, alpha)
        return Layers(edit[0], alpha[0], composite[0])

    def picture(self) -> Tensor:
        """The composite as it stands, like the picture given."""
        return self.layers().composite

    @own_modes
    @torch.no_grad()
    def preview(self, longest: int) -> Tensor:
        """The same with its longest side at most ``longest``, or at working size: quick for large ones."""
        if longest not in self._previews:
            self._previews[longest] = to_preview(self.full, self.source, longest)
        ground = self._previews[longest]
        layer = enlarge(self._paint(self.source, self.start), ground)
        return lay_over(layer[:, :3], layer[:, 3:], ground)[0]

    def _step(self) -> None:
        sample = self.dataset.sample(self.index)
        source = sample.crop.take(self.source)
        layer = self._paint(source, None if self.start is None else sample.crop.take(self.start))
        # the encoders' graphs end here, and are freed one after the other
        leaf = layer.detach().requires_grad_()
        terms: dict[str, Tensor] = {}
        for find in (
            lambda: self.guidance.composite_terms(leaf, source, sample),
            lambda: self.guidance.screen_terms(leaf, sample),
            lambda: self._opacity_terms(leaf, sample),
        ):
            found = find()
            if found:
                self._weighted(found).backward()
                terms |= {name: term.detach() for name, term in found.items()}
        loss = self._weighted(terms)

        self.optimizer.zero_grad()
        layer.backward(leaf.grad)
        gradients = [p.grad for p in self.network.parameters()]
        require_finite_step(self.index, loss, torch.stack(torch._foreach_norm(gradients)))
        self._descend(loss, terms)

    def _own_state(self) -> dict:
        return {"network": self.network.state_dict(), "previous": dict(self.guidance.previous)}

    def _take_state(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.guidance.previous = dict(state["previous"])

    def _crops(self, chance: int) -> list:
        config, size = self.config, self.source.shape[-2:]
        return draw_crops(
            config.crops, size, share=config.crop, mirrored=config.mirrored, generator=_chance(chance)
        )

    def _paint(self, picture: Tensor, start: Tensor | None) -> Tensor:
        """Colour and opacity for ``picture`` (1, 3, h, w): ``(1, 4, h, w)`` float32 in [0, 1]."""
        with self.guidance.precision(picture):
            logits = self.network(picture)
        logits = logits.float() if start is None else RESTRAINT * logits.float() + start
        return as_layer(logits)

    def _opacity_terms(self, layer: Tensor, sample: Sample) -> dict[str, Tensor]:
        """What speaks of the opacity alone."""
        terms = {"sparsity": sparsity_loss(layer[:, 3:])}
        if self.relevancy is not None:
            terms["bootstrap"] = bootstrap_loss(layer[:, 3:], sample.crop.take(self.relevancy))
        return terms

    def _weighted(self, terms: dict[str, Tensor]) -> Tensor:
        return torch.stack([self._weight(name) * term for name, term in terms.items()]).sum()

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
    while not run.done:
        run.step()
        if callback is not None:
            callback(run)
    return LayerEditResult(*run.layers(), run.history, run.terms)


def _chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
