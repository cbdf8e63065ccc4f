"""StyleGAN-NADA: a network learns to draw what a text asks, from that text alone."""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..._checks import require_choice
from ..._modes import own_modes
from ..._renamed import renamed_fields
from ...losses.directional import unit_rows
from ...losses.perceptual import feature_distance
from ...models.clip import ClipEncoder
from ...models.stylegan2 import Generator
from ..descent import Descent, require_finite_step
from ..guidance.terms import GuidanceConfig, add_terms, guiding_terms, read_texts, require_guides
from ..run import Prepared, Tell
from ..run_state import checksum, plain
from .latent_pool import LatentPool, encode_codes, encode_maps
from .latent_transport import Start, absorb, find_start
from .layer_choice import PARTS, code_movements, moved_most, trained_parameters, usual_count

BETAS = (0.0, 0.99**0.8)  # of StyleGAN-NADA
LEARNING_RATES = {"modulation": 0.003, "layers": 0.0016}


@dataclass(frozen=True, kw_only=True)
class AdaptationConfig(GuidanceConfig):
    """How a network is guided, which of its layers learn, and how fast.

    Here the pictures of :class:`GuidanceConfig` are those of a batch of latents. The defaults were chosen on
    the rendered world. StyleGAN-NADA as published is ``train="layers"``, ``guess=2``, ``choose_every=1``,
    ``batch=2``, ``reach_weight=0`` and ``loss="directional"``.

    Attributes:
        perceptual: Weight of the distance to the frozen picture in the encoders' feature maps.
        train: Of a chosen layer, its ``"modulation"``, by which it reads the style code, or the whole
            ``"layers"``.
        guess: Least cosine, between the change that the best map of style codes makes and the change of the
            text, for the adaptation to start from that map. Above 1 none is searched, and the adaptation
            starts from the network as it is.
        searched: Samples among which those that look as asked are searched.
        carried: Share of the samples that are taken to look as asked.
        steps: Adam steps.
        learning_rate: Of the first step; the cosine schedule ends at 0. None for that of ``train``.
        batch: Latents per step.
        pool: Latents that are visited in turn.
        layers: How many layers learn at a time; None for StyleGAN-NADA's number.
        choose_every: Steps for which the layers are kept before they are chosen again.
        choose_from: Latents by which they are chosen.
        chunk: Pictures at a time where gradients or features of several do not depend on each other.
        truncation: Of the latents' codes; 1 is none.
    """

    reach_weight: float = 1.0
    perceptual: float = 0.0
    train: str = "modulation"
    guess: float = 0.2
    searched: int = 512
    carried: float = 0.08
    steps: int = 20
    learning_rate: float | None = None
    batch: int = 4
    pool: int = 64
    layers: int | None = None
    choose_every: int = 10
    choose_from: int = 8
    chunk: int = 4
    truncation: float = 1.0

    counts: ClassVar[tuple[str, ...]] = (
        *GuidanceConfig.counts,
        *("carried", "steps", "learning_rate", "batch", "pool", "layers"),
        *("choose_every", "choose_from", "chunk"),
    )
    amounts: ClassVar[tuple[str, ...]] = (*GuidanceConfig.amounts, "perceptual", "guess", "truncation")

    def __post_init__(self):
        super().__post_init__()
        require_choice("train", self.train, PARTS)
        if self.batch > self.pool:
            raise ValueError(f"batch must be at most pool, {self.pool}, got {self.batch}")
        if self.carried > 1:
            raise ValueError(f"carried must be at most 1, got {self.carried}")


@renamed_fields(generator="model")
class AdaptationResult(NamedTuple):
    """The adapted model, and every loss term at every step.

    Attributes:
        model: The adapted copy; the model given is left alone.
        history: ``(steps, terms)`` float32.
        terms: Names of the columns of ``history``; ``"loss"`` is the weighted sum.
        chosen: Rows of W+ whose layers learned, each time they were chosen.
    """

    model: Generator
    history: Tensor
    terms: tuple[str, ...]
    chosen: tuple[tuple[int, ...], ...]


class Batch(NamedTuple):
    """What a step of an adaptation compares, features ``(B, D)`` one per encoder, and what it moves."""

    parameters: list[nn.Parameter]
    current: list[Tensor]  # with a graph to the parameters
    source: list[Tensor]
    previous: list[Tensor]


class Adaptation(Descent):
    """An adaptation in progress, see :class:`Run`.

    :meth:`prepare` draws and encodes the frozen pictures, and searches a map to start from. Everything
    random is drawn from ``generator`` at once and keyed by the step, so that a run resumed from a state ends
    as if it had never stopped, to the bit on the CPU.

    Args:
        model: The network; a copy of it is adapted.
        encoders: Frozen CLIP encoders on its device; each guides by its weight, whatever size it sees.
        source: What its pictures show, as far as it should change.
        target: What they should show.
        config: See :class:`AdaptationConfig`.
        generator: Source of random numbers, on the CPU.
        prepared: What a run of the same model, encoders, prompts and seed has prepared.

    Attributes:
        model: The network as it stands.
        start: The best map of style codes, if one was searched.
        chosen: Rows of W+ whose layers learned, each time they were chosen.

    Raises:
        ValueError: For prompts, encoders or settings that cannot be used; the message says which.
    """

    knobs = "batch (--batch), chunk (--chunk) or pool (--pool)"
    replaced = ("pool", "start", "started", "chosen")
    prepared_by = ("templates", "encoder_weights", "guess", "searched", "carried", "pool", "truncation")

    @own_modes
    def __init__(
        self,
        model: Generator,
        encoders: Sequence[ClipEncoder],
        source: str,
        target: str,
        *,
        config: AdaptationConfig | None = None,
        generator: torch.Generator,
        prepared: Prepared | None = None,
    ):
        self.config = config = config or AdaptationConfig()
        self.weights = require_guides(encoders, source, target, config)
        self.encoders = tuple(encoders)
        self.texts = [read_texts(encoder, source, target, config) for encoder in encoders]
        self.count = config.layers or usual_count(model.config.size)
        if not 0 < self.count <= model.config.codes:
            raise ValueError(
                f"layers must be from 1 to {model.config.codes} for {model.name}, got {self.count}"
            )
        self._seed = int(torch.randint(2**62, (), generator=generator))
        facts = {
            "config": plain(config),
            "source": source,
            "target": target,
            "encoders": [encoder.name for encoder in encoders],
            "model": checksum(model),
            "seed": self._seed,
        }
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        rate = config.learning_rate or LEARNING_RATES[config.train]
        every = trained_parameters(self.model, range(self.model.config.codes), config.train)
        self._begin(facts, steps=config.steps, rate=rate, prepared=prepared)
        self._optimise(every, betas=BETAS)
        self.pool: LatentPool | None = None
        self.start: Start | None = None
        self.started = False
        self.chosen: list[list[int]] = []

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.model.latent_avg.device

    @own_modes
    @torch.no_grad()
    def pictures(self, w: Tensor) -> Tensor:
        """What the network draws of codes as it stands, in [0, 1], ``config.chunk`` at a time."""
        return torch.cat([self._draw(part) for part in w.split(self.config.chunk)])

    @torch.no_grad()
    def _prepare(self, tell: Tell) -> None:
        if self.pool is not None:  # it is that of a state
            return
        tell("drawing and encoding latents")
        w, source, start = self._search() if self._prepared is None else self._prepared.parts
        pool = LatentPool(w, source)
        self._draw_maps(pool)
        if start is not None and start.cosine >= self.config.guess:
            self._before_changing(self.model.parameters())
            absorb(self.model, start.map)
            self.started = True
        self.pool, self.start = pool, start

    def _search(self) -> tuple[Tensor, list[Tensor], Start | None]:
        """Codes to visit, the features of their frozen pictures, and a start, where one is asked for."""
        config = self.config
        chance = torch.Generator().manual_seed(self._seed)
        looks = config.guess <= 1
        count = max(config.pool, config.searched if looks else 0)
        z = torch.randn(count, self.model.config.style_dim, generator=chance, dtype=torch.float32)
        w = self.model.truncate(self.model.mapping(z.to(self.model.latent_avg)), config.truncation)
        with self._half():
            seen = self._encode(w)
            start = None
            if looks:
                start = find_start(w, seen, self._encode, self.texts, self.weights, share=config.carried)
        return w[: config.pool], [features[: config.pool] for features in seen], start

    def _encode(self, w: Tensor) -> list[Tensor]:
        return encode_codes(w, self.pictures, self.encoders, chunk=self.config.chunk)

    def _parts(self) -> tuple[Tensor, list[Tensor], Start | None]:
        if self.start is not None and self.start.map is None:
            raise RuntimeError("a run that goes on from a state has not prepared what others could use")
        return self.pool.w, self.pool.source, self.start

    def _draw_maps(self, pool: LatentPool) -> None:
        """The frozen pictures' feature maps, where they are needed; while the network is still as given."""
        if self.config.perceptual:
            with torch.no_grad(), self._half():
                pool.maps = encode_maps(pool.w, self.pictures, self.encoders, chunk=self.config.chunk)

    @own_modes
    def next_batch(self) -> Batch:
        """What the next step compares, and what it moves: for a loss of one's own on the same features."""
        self.prepare()
        parameters, visited = self._unfreeze(), self._visited
        with self._half():
            pictures = self._draw(self.pool.w[visited])
            current = [encoder.encode_image(pictures).float() for encoder in self.encoders]
        source, previous = ([rows[visited] for rows in of] for of in (self.pool.source, self.pool.previous))
        return Batch(parameters, current, source, previous)

    @property
    def _visited(self) -> Tensor:
        """The latents of the next step."""
        return self.pool.visit(self.index, self.config.batch, key=self._seed + 1)

    def _step(self) -> Tensor:
        parameters, visited = self._unfreeze(), self._visited
        terms, features = self._terms(visited)
        loss = sum(self.config.weight(name) * term for name, term in terms.items())
        self.optimizer.zero_grad()
        loss.backward()
        norms = torch.stack([p.grad.norm() for p in parameters if p.grad is not None])
        require_finite_step(self.index, loss, norms)
        self._before_changing(self.pool.previous)
        for previous, seen in zip(self.pool.previous, features):
            previous[visited] = seen.detach()
        return self._descend(loss, terms)

    def _unfreeze(self) -> list[nn.Parameter]:
        """Let the chosen layers learn, chosen anew where it is time."""
        if len(self.chosen) <= self.index // self.config.choose_every:
            self.chosen.append(self._choose())
        self.model.requires_grad_(False)
        parameters = trained_parameters(self.model, self.chosen[-1], self.config.train)
        for parameter in parameters:
            parameter.requires_grad_()
        return parameters

    def _choose(self) -> list[int]:
        """The rows of W+ whose layers learn next."""
        latents = self.pool.visit(len(self.chosen), self.config.choose_from, key=self._seed + 2**32)
        with self._half():
            moved = code_movements(
                self.model.requires_grad_(False),
                self.pool.w[latents],
                lambda codes: self._unlikeness(self._draw(codes)),
                chunk=self.config.chunk,
            )
        return moved_most(moved, self.count)

    def _terms(self, visited: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The guiding terms of a batch of latents, and their features, one per encoder."""
        config, pool = self.config, self.pool
        terms: dict[str, Tensor] = {}
        features = []
        unmoved = self.index == 0 and not self.started
        with self._half():
            pictures = self._draw(pool.w[visited])
            seen = [encoder.encode_image(pictures) for encoder in self.encoders]
            maps = [encoder.image_features(pictures) for encoder in self.encoders if config.perceptual]
        for i, weight in enumerate(self.weights):
            current, source, previous = seen[i].float(), pool.source[i][visited], pool.previous[i][visited]
            features.append(current)
            own = guiding_terms(current, source, previous, self.texts[i], config, unmoved=unmoved)
            if maps:
                own["perceptual"] = feature_distance(maps[i], pool.maps_of(i, visited)).mean()
            add_terms(terms, own, weight)
        return terms, features

    def _unlikeness(self, pictures: Tensor) -> Tensor:
        """One minus the cosine of each picture with the target text, averaged over the encoders."""
        unlikeness = torch.ones(len(pictures), device=pictures.device, dtype=torch.float32)
        for weight, encoder, texts in zip(self.weights, self.encoders, self.texts):
            unlikeness = unlikeness - weight * (
                encoder.encode_image(pictures) @ unit_rows(texts.after.mean(0))
            )
        return unlikeness

    def _draw(self, w: Tensor) -> Tensor:
        """Pictures as a file would hold them, with the gradient of the pictures before they are cut off.

        Otherwise a colour beyond white or black would have no way back.
        """
        drawn = self.model.synthesis(w)
        return drawn + (drawn.clamp(0, 1) - drawn).detach()

    def _half(self) -> AbstractContextManager:
        if self.config.mixed_precision and self.device.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    def _own_state(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "pool": self.pool.state_dict() if self.pool else None,
            "start": [self.start.cosine, self.start.score] if self.start else None,
            "started": self.started,
            "chosen": self.chosen,
        }

    def _take_state(self, state: dict) -> None:
        device = self.device
        if state["pool"] is not None:
            kept = {name: _to(value, device) for name, value in state["pool"].items()}
            kept["previous"] = [features.clone() for features in kept["previous"]]  # changed in place
            self.pool = LatentPool(**kept)
            self._draw_maps(self.pool)
        self.start = Start(None, *state["start"]) if state["start"] else None
        self.started = state["started"]
        self.model.load_state_dict(state["model"])
        self.chosen = [list(rows) for rows in state["chosen"]]


def adapt_generator(
    model: Generator,
    encoders: Sequence[ClipEncoder],
    source: str,
    target: str,
    *,
    config: AdaptationConfig | None = None,
    generator: torch.Generator,
    callback: Callable[[Adaptation], None] | None = None,
) -> AdaptationResult:
    """Teach a network that draws what ``source`` says to draw what ``target`` says.

    Arguments and errors are those of :class:`Adaptation`, which this runs to its end; ``callback`` is called
    with it after every step.

    Returns:
        The adapted network, the history of its losses, and which layers learned.
    """
    run = Adaptation(model, encoders, source, target, config=config, generator=generator)
    run.finish(callback)
    run.model.requires_grad_(True)
    return AdaptationResult(run.model, run.history, run.terms, tuple(map(tuple, run.chosen)))


def _to(value, device: torch.device):
    return [tensor.to(device) for tensor in value] if isinstance(value, list) else value.to(device)
