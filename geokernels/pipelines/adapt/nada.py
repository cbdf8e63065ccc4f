"""StyleGAN-NADA: a network learns to draw what a text asks, from that text alone."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..._modes import own_modes
from ..._renamed import renamed_fields
from ...losses.directional import unit_rows
from ...losses.perceptual import feature_distance
from ...models.clip import ClipEncoder
from ...models.stylegan2 import Generator
from ..descent import Descent, require_finite_step
from ..guidance.terms import add_terms, guiding_terms, read_texts, require_guides
from ..run import Prepared, Tell
from ..run_state import checksum, plain
from ..start.effort import Encodings
from .fresh import Fresh
from .latent_pool import LatentPool, Visit
from .latent_transport import MAPS, TRIED, Start, absorb, find_start
from .layer_choice import code_movements, moved_most, trained_parameters, usual_count
from .nada_config import LEARNING_RATES, AdaptationConfig
from .sight import Sight, joined

BETAS = (0.0, 0.99**0.8)  # of StyleGAN-NADA


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
    previous: list[Tensor] | None  # of latents that come again


class Adaptation(Descent):
    """An adaptation in progress, see :class:`Run`.

    :meth:`prepare` draws and encodes the frozen pictures of a pool, and searches a map to start from, as far
    as the settings say so. Everything random is drawn from ``generator`` at once and keyed by the step, so
    that a run resumed from a state ends as if it had never stopped, to the bit on the CPU.

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
        frozen: The network as it was given, where latents are fresh and it is still needed.
        pool: The latents that are visited again and again, if there are such.
        start: The best map of style codes, if one was searched.
        chosen: Rows of W+ whose layers learned, each time they were chosen.

    Raises:
        ValueError: For prompts, encoders or settings that cannot be used; the message says which.
    """

    knobs = "batch (--batch), chunk (--chunk) or pool (--pool)"
    replaced = ("pool", "start", "started", "chosen")
    prepared_by = (
        *("templates", "encoder_weights", "guess", "searched", "carried"),
        *("pool", "noise", "clamp", "truncation"),
    )

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
        self.config = config = (config or AdaptationConfig()).settled(model, *encoders)
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
        self.goals = [self._goal(encoder, target, i) for i, encoder in enumerate(encoders)]
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        # the frozen pictures of a pool are drawn by the copy, before it changes
        self.frozen = None if config.pool else model
        self._fresh = Fresh(self._seed)
        self._sight = Sight(self.model, self.frozen, self.encoders, config, self._fresh)
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

    def _goal(self, encoder: ClipEncoder, target: str, index: int) -> Tensor:
        """The text by whose likeness layers are chosen, ``(D,)``."""
        if self.config.choose_by == "text":
            return encoder.encode_text([target])[0, 0].detach().float()
        return unit_rows(self.texts[index].after.mean(0))

    def _learning_rate(self) -> float:
        return self._rate if self.config.schedule == "constant" else super()._learning_rate()

    @own_modes
    @torch.no_grad()
    def pictures(self, w: Tensor) -> Tensor:
        """What the network draws of codes as it stands, in [0, 1], ``config.chunk`` at a time."""
        drawn = torch.cat([self._sight.draw(part) for part in w.split(self.config.chunk)])
        return drawn if self.config.clamp else drawn.clamp(0, 1)

    @torch.no_grad()
    def _prepare(self, tell: Tell) -> None:
        if self.pool is not None or self.start is not None:  # it is that of a state
            return
        config, looks = self.config, self.config.guess <= 1
        if config.pool is None and not looks:
            return
        w, source, start = self._search(looks, tell) if self._prepared is None else self._prepared.parts
        if config.pool is not None:
            self.pool = LatentPool(w, source)
            self._draw_maps(self.pool)
        if start is not None and start.cosine >= config.guess:
            self._before_changing(self.model.parameters())
            absorb(self.model, start.map)
            self.started = True
        self.start = start

    def _search(self, looks: bool, tell: Tell) -> tuple[Tensor, list[Tensor], Start | None]:
        """Codes to visit, the features of their frozen pictures, and a start, where one is asked for."""
        config = self.config
        kept = config.pool or 0
        chance = torch.Generator().manual_seed(self._seed)
        count = max(kept, config.searched if looks else 0)
        z = torch.randn(count, self.model.config.style_dim, generator=chance, dtype=torch.float32)
        w = self.model.truncate(self.model.mapping(z.to(self.model.latent_avg)), config.truncation)
        encodings = Encodings(tell, "drawing and encoding latents", count + looks * MAPS * min(TRIED, count))
        encode = partial(self._sight.frozen_features, turn=0, shown=encodings.add)
        with self._sight.half():
            seen = encode(w)
            start = None
            if looks:
                start = find_start(w, seen, encode, self.texts, self.weights, share=config.carried)
        return w[:kept], [features[:kept] for features in seen], start

    def _parts(self) -> tuple[Tensor, list[Tensor], Start | None]:
        if self.start is not None and self.start.map is None:
            raise RuntimeError("a run that goes on from a state has not prepared what others could use")
        pool = self.pool
        return (pool.w, pool.source, self.start) if pool else (None, None, self.start)

    def _draw_maps(self, pool: LatentPool) -> None:
        """The frozen pictures' feature maps, where they are needed; while the network is still as given."""
        if self.config.perceptual:
            with torch.no_grad(), self._sight.half():
                pool.maps = self._sight.frozen_maps(pool.w, 0)

    @own_modes
    def next_batch(self) -> Batch:
        """What the next step compares, and what it moves: for a loss of one's own on the same features."""
        self.prepare()
        parameters, visit = self._unfreeze(), self._visit()
        current = self._sight.trained(visit.codes, self.index)[: len(self.encoders)]
        return Batch(parameters, current, visit.source, visit.previous)

    @property
    def _visited(self) -> Tensor:
        """The latents of the pool that the next step visits."""
        return self.pool.visit(self.index, self.config.batch, key=self._seed + 1)

    def _visit(self) -> Visit:
        """The latents of the next step."""
        if self.config.pool is None:
            return self._visit_fresh()
        pool, visited = self.pool, self._visited
        source, previous = ([rows[visited] for rows in of] for of in (pool.source, pool.previous))
        maps = [pool.maps_of(i, visited) for i in range(len(pool.maps))]
        return Visit(pool.w[visited], source, previous, maps)

    @torch.no_grad()
    def _visit_fresh(self) -> Visit:
        """New latents, and what the encoders see in their frozen pictures."""
        config, sight = self.config, self._sight
        how = {"truncation": config.truncation, "mixing": config.mixing}
        codes = self._fresh.codes(self.model, self.index, config.batch, **how)
        with sight.half():
            source = [features.float() for features in sight.frozen_features(codes, self.index)]
            maps = sight.frozen_maps(codes, self.index) if config.perceptual else []
        return Visit(codes, source, None, maps)

    def _step(self) -> Tensor:
        parameters, visit = self._unfreeze(), self._visit()
        chunk = self.config.chunk
        parts = [slice(first, first + chunk) for first in range(0, len(visit.codes), chunk)]
        whole = len(parts) == 1
        with torch.set_grad_enabled(whole):
            seen = joined(self._sight.trained(visit.codes, self.index, part) for part in parts)
        if not whole:
            seen = [rows.requires_grad_() for rows in seen]
        terms = self._terms(visit, seen)
        loss = sum(self.config.weight(name) * term for name, term in terms.items())
        self.optimizer.zero_grad()
        loss.backward()
        if not whole:
            self._send_back(visit.codes, parts, [rows.grad for rows in seen])
        norms = torch.stack([p.grad.norm() for p in parameters if p.grad is not None])
        require_finite_step(self.index, loss, norms)
        if self.pool is not None:
            visited = self._visited
            self._before_changing(self.pool.previous)
            for previous, features in zip(self.pool.previous, seen):
                previous[visited] = features.detach()
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
        turn, count, truncation = len(self.chosen), self.config.choose_from, self.config.truncation
        if self.config.pool is None:
            w = self._fresh.choosing_codes(self.model, turn, count, truncation=truncation)
        else:
            w = self.pool.w[self.pool.visit(turn, count, key=self._seed + 2**32)]

        def unlikeness(codes: Tensor, part: slice) -> Tensor:
            return self._sight.unlikeness(codes, turn, part.start, self.goals, self.weights)

        with self._sight.half():
            moved = code_movements(self.model.requires_grad_(False), w, unlikeness, chunk=self.config.chunk)
        return moved_most(moved, self.count)

    def _send_back(self, codes: Tensor, parts: Sequence[slice], gradients: Sequence[Tensor | None]) -> None:
        """Draw the pictures again, some at once, and take the gradients of what was seen to the parameters.

        A loss may compare the pictures of a batch with each other. Its gradient to what was seen is all that
        a picture needs of the others, so that no two of them need be held in memory.
        """
        for part in parts:
            seen = self._sight.trained(codes, self.index, part)
            pairs = [(rows, whole[part]) for rows, whole in zip(seen, gradients) if whole is not None]
            torch.autograd.backward(*zip(*pairs))

    def _terms(self, visit: Visit, seen: Sequence[Tensor]) -> dict[str, Tensor]:
        """The guiding terms of a batch of latents, of what is seen in their pictures."""
        terms: dict[str, Tensor] = {}
        maps = iter(seen[len(self.encoders) :])
        for i, (weight, current) in enumerate(zip(self.weights, seen)):
            source, previous = visit.source[i], visit.previous and visit.previous[i]
            unmoved = self._is_unmoved(current, source)
            own = guiding_terms(current, source, previous, self.texts[i], self.config, unmoved=unmoved)
            if self.config.perceptual:
                own["perceptual"] = feature_distance(
                    [next(maps) for _ in visit.maps[i]], visit.maps[i]
                ).mean()
            add_terms(terms, own, weight)
        return terms

    def _is_unmoved(self, current: Tensor, source: Tensor) -> bool:
        """Whether nothing tells the pictures of the first step from the frozen ones: no change, no noise."""
        if self.index or self.started:
            return False
        return self.config.noise == "fixed" or (not current.is_meta and torch.equal(current, source))

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
