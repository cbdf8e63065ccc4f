"""StyleGAN-NADA: a network learns to draw what a text asks, from that text alone."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
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
from .fresh import CHOOSING, FROZEN, TRAINED, Fresh
from .latent_pool import LatentPool, Visit
from .latent_transport import Start, absorb, find_start
from .layer_choice import code_movements, moved_most, trained_parameters, usual_count
from .nada_config import LEARNING_RATES, AdaptationConfig

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
        drawn = torch.cat([self._draw(part) for part in w.split(self.config.chunk)])
        return drawn if self.config.clamp else drawn.clamp(0, 1)

    @torch.no_grad()
    def _prepare(self, tell: Tell) -> None:
        if self.pool is not None or self.start is not None:  # it is that of a state
            return
        config, looks = self.config, self.config.guess <= 1
        if config.pool is None and not looks:
            return
        tell("drawing and encoding latents")
        w, source, start = self._search(looks) if self._prepared is None else self._prepared.parts
        if config.pool is not None:
            self.pool = LatentPool(w, source)
            self._draw_maps(self.pool)
        if start is not None and start.cosine >= config.guess:
            self._before_changing(self.model.parameters())
            absorb(self.model, start.map)
            self.started = True
        self.start = start

    def _search(self, looks: bool) -> tuple[Tensor, list[Tensor], Start | None]:
        """Codes to visit, the features of their frozen pictures, and a start, where one is asked for."""
        config = self.config
        kept = config.pool or 0
        chance = torch.Generator().manual_seed(self._seed)
        count = max(kept, config.searched if looks else 0)
        z = torch.randn(count, self.model.config.style_dim, generator=chance, dtype=torch.float32)
        w = self.model.truncate(self.model.mapping(z.to(self.model.latent_avg)), config.truncation)
        with self._half():
            seen = self._encode(w)
            start = None
            if looks:
                start = find_start(w, seen, self._encode, self.texts, self.weights, share=config.carried)
        return w[:kept], [features[:kept] for features in seen], start

    def _encode(self, w: Tensor) -> list[Tensor]:
        """Features of the frozen pictures of codes, ``(N, D)`` per encoder."""
        return _joined(self._see(pictures) for pictures in self._draw_frozen(w, 0))

    def _draw_frozen(self, w: Tensor, turn: int) -> Iterator[Tensor]:
        """The frozen pictures of codes, ``config.chunk`` at a time."""
        for first in range(0, len(w), self.config.chunk):
            part = w[first : first + self.config.chunk]
            noise = self._noise(FROZEN, turn, range(first, first + len(part)))
            yield self._draw(part, noise, self.frozen)

    def _see(self, pictures: Tensor) -> list[Tensor]:
        return [encoder.encode_image(pictures, clamp=self.config.clamp) for encoder in self.encoders]

    def _maps(self, pictures: Tensor) -> list[list[Tensor]]:
        return [encoder.image_features(pictures, clamp=self.config.clamp) for encoder in self.encoders]

    def _parts(self) -> tuple[Tensor, list[Tensor], Start | None]:
        if self.start is not None and self.start.map is None:
            raise RuntimeError("a run that goes on from a state has not prepared what others could use")
        pool = self.pool
        return (pool.w, pool.source, self.start) if pool else (None, None, self.start)

    def _draw_maps(self, pool: LatentPool) -> None:
        """The frozen pictures' feature maps, where they are needed; while the network is still as given."""
        if self.config.perceptual:
            with torch.no_grad(), self._half():
                seen = zip(*(self._maps(pictures) for pictures in self._draw_frozen(pool.w, 0)))
                pool.maps = [_joined(parts) for parts in seen]

    @own_modes
    def next_batch(self) -> Batch:
        """What the next step compares, and what it moves: for a loss of one's own on the same features."""
        self.prepare()
        parameters, visit = self._unfreeze(), self._visit()
        with self._half():
            current = [features.float() for features in self._see(self._draw_trained(visit.codes))]
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
        config, fresh = self.config, Fresh(self._seed)
        how = {"truncation": config.truncation, "mixing": config.mixing}
        codes = fresh.codes(self.model, self.index, config.batch, **how)
        with self._half():
            pictures = list(self._draw_frozen(codes, self.index))
            source = [features.float() for features in _joined(map(self._see, pictures))]
            seen = map(self._maps, pictures) if config.perceptual else ()
            maps = [_joined(parts) for parts in zip(*seen)]
        return Visit(codes, source, None, maps)

    def _step(self) -> Tensor:
        parameters, visit = self._unfreeze(), self._visit()
        parts = self._parts_of(visit.codes)
        whole = len(parts) == 1
        with torch.set_grad_enabled(whole):
            seen = _joined(self._look(visit.codes, part) for part in parts)
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
            w = Fresh(self._seed).choosing_codes(self.model, turn, count, truncation=truncation)
        else:
            w = self.pool.w[self.pool.visit(turn, count, key=self._seed + 2**32)]

        def unlikeness(codes: Tensor, part: slice) -> Tensor:
            noise = self._noise(CHOOSING, turn, range(part.start, part.start + len(codes)))
            return self._unlikeness(self._draw(codes, noise))

        with self._half():
            moved = code_movements(self.model.requires_grad_(False), w, unlikeness, chunk=self.config.chunk)
        return moved_most(moved, self.count)

    def _parts_of(self, codes: Tensor) -> list[slice]:
        """Those of a batch that are drawn at once."""
        chunk = self.config.chunk
        return [slice(first, first + chunk) for first in range(0, len(codes), chunk)]

    def _look(self, codes: Tensor, part: slice) -> list[Tensor]:
        """What the encoders see in some pictures of a batch: features, then the maps that are needed."""
        with self._half():
            pictures = self._draw_trained(codes, part)
            seen = [features.float() for features in self._see(pictures)]
            if self.config.perceptual:
                seen += [layer for layers in self._maps(pictures) for layer in layers]
        return seen

    def _send_back(self, codes: Tensor, parts: Sequence[slice], gradients: Sequence[Tensor | None]) -> None:
        """Draw the pictures again, some at once, and take the gradients of what was seen to the parameters.

        A loss may compare the pictures of a batch with each other. Its gradient to what was seen is all that
        a picture needs of the others, so that no two of them need be held in memory.
        """
        for part in parts:
            seen = self._look(codes, part)
            pairs = [(rows, whole[part]) for rows, whole in zip(seen, gradients) if whole is not None]
            torch.autograd.backward(*zip(*pairs))

    def _terms(self, visit: Visit, seen: Sequence[Tensor]) -> dict[str, Tensor]:
        """The guiding terms of a batch of latents, of what :meth:`_look` saw."""
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

    def _unlikeness(self, pictures: Tensor) -> Tensor:
        """One minus the cosine of each picture with the target text, averaged over the encoders."""
        unlikeness = torch.ones(len(pictures), device=pictures.device, dtype=torch.float32)
        for weight, features, goal in zip(self.weights, self._see(pictures), self.goals):
            unlikeness = unlikeness - weight * (features @ goal)
        return unlikeness

    def _draw_trained(self, codes: Tensor, part: slice = slice(None)) -> Tensor:
        """Pictures of some codes of a batch."""
        return self._draw(codes[part], self._noise(TRAINED, self.index, range(len(codes))[part]))

    def _draw(
        self, w: Tensor, noise: str | Sequence[Tensor] = "fixed", model: Generator | None = None
    ) -> Tensor:
        """Pictures as a file would hold them, with the gradient of the pictures before they are cut off.

        Otherwise a colour beyond white or black would have no way back. Without ``config.clamp`` they are
        not cut off.
        """
        drawn = (model or self.model).synthesis(w, noise=noise)
        return drawn + (drawn.clamp(0, 1) - drawn).detach() if self.config.clamp else drawn

    def _noise(self, drawn_for: int, turn: int, pictures: range) -> str | list[Tensor]:
        """That of some pictures, of those that are drawn together, as ``config.noise`` says."""
        if self.config.noise == "fixed":
            return "fixed"
        return Fresh(self._seed).noise(self.model, drawn_for, turn, pictures)

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


def _joined(parts: Iterable[Sequence[Tensor]]) -> list[Tensor]:
    """Of several tensors each in parts, every one whole."""
    return [whole[0] if len(whole) == 1 else torch.cat(whole) for whole in zip(*parts)]
