"""What Text2LIVE's edits of pictures and of atlases share: the network that paints a layer, and its steps."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..._torch_internals import norms
from ...models.clip import ClipEncoder
from ..descent import Descent, require_finite_step
from ..run import Tell
from ..start.guess import Guess
from .crops import Crop, draw_crop, draw_crops
from .edit_network import EditNetwork
from .internal_dataset import FreshCrops, InternalDataset
from .layer_guidance import APART, LayerGuidance, PhotoGuidance, Sample
from .parametrisation import RESTRAINT, logits_of
from .skip_network import SkipNetwork

LEARNING_RATE = 0.01
NETWORKS = {"unet": EditNetwork, "skip": SkipNetwork}
GUIDES = {"affine": LayerGuidance, "photo": PhotoGuidance}


class LayerDescent(Descent):
    """A layered edit in progress: one sample of the internal data set a step, or a few.

    A subclass calls :meth:`_begin_layer` first, then sets ``source``, what the network reads,
    ``(1, 3, h, w)``, and ``dataset``, and then calls :meth:`_begin_steps`.

    Attributes:
        guidance: What the encoders say.
        network: What paints the layer.
        start: The first guess as logits, ``(1, 4, h, w)``, if the search found one that is good enough; None
            before :meth:`prepare`.
    """

    knobs = "views, or working_size (--size)"
    replaced = ("guidance.previous", "start")

    source: Tensor
    dataset: InternalDataset | FreshCrops

    def _begin_layer(
        self,
        encoders: Sequence[ClipEncoder],
        source: str,
        target: str,
        config,
        *,
        screen: str | None,
        generator: torch.Generator,
    ) -> None:
        """Read the prompts, and draw the seed of everything random."""
        self.config, self._seed = config, int(torch.randint(2**62, (), generator=generator))
        guide = GUIDES[config.augmentation]
        self.guidance = guide(encoders, source, target, config, screen=screen, key=self._seed + 3)
        self._prompts = {"source": source, "target": target, "screen": self.guidance.screen}
        self.start: Tensor | None = None

    def _begin_steps(self, facts: dict) -> None:
        """Make the network, and stand before the first step; ``facts`` are those of the subclass alone."""
        config, names = self.config, [encoder.name for encoder in self.guidance.encoders]
        network = NETWORKS[config.network]
        self.network = network(config.widths, generator=_generator(self._seed)).to(self.source)
        rate = config.learning_rate or LEARNING_RATE
        self._begin({**self._prompts, "encoders": names, **facts}, steps=config.steps, rate=rate)
        decay = {"weight_decay": config.weight_decay} if config.weight_decay else {}
        self._optimise(self.network.parameters(), by=config.optimiser, **decay)

    def _learning_rate(self) -> float:
        if self.config.schedule == "cosine":
            return super()._learning_rate()
        return max(self.config.least_rate, self._rate * self.config.decay**self.index)

    def _crops(self, size: tuple[int, int]) -> list[Crop]:
        """Windows that come again, of what is ``size`` high and wide."""
        config, chance = self.config, _generator(self._seed + 1)
        return draw_crops(config.crops, size, share=config.crop, mirrored=config.mirrored, generator=chance)

    def _dataset(self) -> InternalDataset | FreshCrops:
        """Windows of ``source``: those that come again, or a new one at every step."""
        size, config = self.source.shape[-2:], self.config
        if config.crops is not None:
            return InternalDataset(self.source, self.guidance, self._crops(size))
        how = {"zoom": config.zoom, "share": config.crop}
        how |= {"mirrored": config.mirrored, "tinted": config.tinted}

        def draw(step: int) -> Crop:
            return draw_crop(size, **how, generator=_generator(self._seed + 4 * APART + step))

        return FreshCrops(self.source, self.guidance, draw, config.whole_every)

    @abstractmethod
    def _first_guess(self, tell: Tell) -> Guess | None:
        """The guess to start from, if one is good enough."""

    @abstractmethod
    def _layer_of(self, sample: Sample) -> Tensor:
        """What the network paints for one sample, ``(1, 4, h, w)``."""

    @abstractmethod
    def _looks(self, sample: Sample) -> Sequence[Callable[[Tensor], dict[str, Tensor]]]:
        """The looks that are taken at a layer, each with the terms that follow from it."""

    def _prepare(self, tell: Tell) -> None:
        guess = self._first_guess(tell)
        self.start = None if guess is None else logits_of(guess)

    def _step(self) -> Tensor:
        terms = self._learn_from_all(self.dataset.samples(self.index))
        loss = self._weighted(terms)
        gradients = [p.grad for p in self.network.parameters()]
        require_finite_step(self.index, loss, norms(gradients))
        return self._descend(loss, terms)

    def _learn_from_all(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """The mean terms of samples, each painted on its own; makes the network's gradients."""
        terms: dict[str, Tensor] = {}
        for i, sample in enumerate(samples):
            for name, term in self._learn_from(sample, 1 / len(samples), afresh=i == 0).items():
                terms[name] = terms.get(name, 0) + term / len(samples)
        return terms

    def _learn_from(self, sample: Sample, share: float, *, afresh: bool) -> dict[str, Tensor]:
        """The terms of one sample; adds its share to the network's gradients, or begins them afresh."""
        layer = self._layer_of(sample)
        # the encoders' graphs end here, and are freed one after the other
        leaf = layer.detach().requires_grad_()
        terms: dict[str, Tensor] = {}
        for look in self._looks(sample):
            part = look(leaf)
            if part:
                self._weighted(part).backward()
                terms |= {name: term.detach() for name, term in part.items()}
        if afresh:
            self.optimizer.zero_grad()
        layer.backward(leaf.grad if share == 1 else leaf.grad * share)
        return terms

    def _paint(self, picture: Tensor, start: Tensor | None) -> Tensor:
        """Colour and opacity for ``picture`` (1, 3, h, w): ``(1, 4, h, w)`` float32 in [0, 1]."""
        with self.guidance.precision(picture):
            logits = self.network(picture)
        logits = logits.float() if start is None else RESTRAINT * logits.float() + start
        return self.network.layer(logits)

    def _weighted(self, terms: dict[str, Tensor]) -> Tensor:
        return torch.stack([self._weight(name) * term for name, term in terms.items()]).sum()

    def _weight(self, term: str) -> float:
        """Of a term at this step."""
        return self.config.weight(term)

    def _own_state(self) -> dict:
        return {"network": self.network.state_dict(), "previous": dict(self.guidance.previous)}

    def _take_state(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.guidance.previous = dict(state["previous"])


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
