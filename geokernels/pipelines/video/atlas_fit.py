"""Layered neural atlases: two pictures and the maps to them, fitted to a clip by its pixels and its flow."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from ..._checks import require_choice, require_positive
from ..._modes import own_modes
from ..._torch_internals import norms
from ...models.atlas import AtlasShape, LayeredAtlas
from ..descent import Descent, require_finite_step
from ..recipe import OF_RECIPE, RecipeConfig
from ..run_state import checksum, plain
from .atlas_recipes import PUBLISHED, WORLD
from .atlas_sample import BOTH, FORWARD, FitSample, draw_sample
from .atlas_terms import fit_terms, global_rigidity
from .footage import Footage

SMALL = 128  # longest side up to which the small settings are the default
MARGIN = 0.03  # of an atlas, kept around what is seen of it
OUTLIERS = 0.002  # share of a frame's points that may lie beyond
GLOBAL = ("global_rigidity", "global_rigidity_ground")  # by layer
CHOICES = {
    "schedule": ("cosine", "constant"),
    "flow_ways": (FORWARD, BOTH),
    "bootstrap_schedule": ("linear", "step"),
}


@dataclass(frozen=True, kw_only=True)
class AtlasFitConfig(RecipeConfig):
    """How an atlas is fitted; a recipe that is not named follows the size of the frames.

    Attributes:
        steps: Adam steps.
        samples: Pixels per step, from all frames; each comes with its neighbours right, below and in the next
            frame.
        learning_rate: Of the first step.
        schedule: Of the learning rate: ``"cosine"``, which ends at 0, or ``"constant"``.
        colour: Weight of the squared error of the colours.
        gradient: Of their differences between neighbours.
        flow: Of the way, in pixels, that points move in an atlas.
        cover_flow: Of the change of the opacity along the flow.
        flow_ways: ``"forward"``: the flow is followed to the next frame, and its terms are means over all
            pixels. ``"both"``: to the frame before as well; they are means over the pixels whose flow is
            trusted, half for each way, and the opacity learns from how well the maps follow the flow.
        rigidity: Of how much the maps stretch and shear from one pixel to the next.
        global_rigidity: The same of the foreground's map over ``global_distance``, at the first steps.
        global_rigidity_ground: The same of the background's map.
        global_distance: In pixels.
        globally_rigid: Share of the steps after which both weights are 0.
        sparsity: Of the foreground's colour where it does not cover.
        bootstrap: Of the opacity's distance to the masks, at the first step.
        bootstrap_schedule: How that weight comes to 0: ``"linear"``, or ``"step"``, all at once.
        bootstrapped: Share of the steps after which it is 0.
        shape: Sizes of the networks.
    """

    steps: int = OF_RECIPE
    samples: int = OF_RECIPE
    learning_rate: float = OF_RECIPE
    schedule: str = OF_RECIPE
    colour: float = 1.0
    gradient: float = 0.2
    flow: float = OF_RECIPE
    cover_flow: float = OF_RECIPE
    flow_ways: str = OF_RECIPE
    rigidity: float = OF_RECIPE
    global_rigidity: float = OF_RECIPE
    global_rigidity_ground: float = OF_RECIPE
    global_distance: float = 100.0
    globally_rigid: float = 5_000 / 400_000
    sparsity: float = OF_RECIPE
    bootstrap: float = OF_RECIPE
    bootstrap_schedule: str = OF_RECIPE
    bootstrapped: float = OF_RECIPE
    shape: AtlasShape = OF_RECIPE

    recipes = MappingProxyType({"world": WORLD, "published": PUBLISHED})

    def _check(self) -> None:
        super()._check()
        for name in ("steps", "samples", "learning_rate", "global_distance"):
            require_positive(name, getattr(self, name))
        weights = ("colour", "gradient", "flow", "cover_flow", "rigidity", *GLOBAL, "sparsity", "bootstrap")
        for name in (*weights, "globally_rigid", "bootstrapped"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number, 0 or above, got {getattr(self, name)}")
        for name, choices in CHOICES.items():
            require_choice(name, getattr(self, name), choices)

    def settled_by(self, size: tuple[int, int]) -> "AtlasFitConfig":
        """The same with every setting filled for frames of ``size`` (H, W).

        A fit has no models to choose a recipe by: up to 128 pixels a side it is the world's, and the
        published one above.
        """
        if self.recipe is not None:
            return self
        return replace(self, recipe="world" if max(size) <= SMALL else "published")

    @classmethod
    def of_size(cls, size: tuple[int, int], **given) -> "AtlasFitConfig":
        """What is given, and for the rest what suits frames of ``size`` (H, W); see :meth:`settled_by`."""
        return cls(**given).settled_by(size)


class AtlasFitResult(NamedTuple):
    """The atlas, and every loss term at every step.

    Attributes:
        atlas: The fitted atlas.
        history: ``(steps, 1 + terms)`` float32.
        terms: Names of the columns of ``history``; ``"loss"`` is the weighted sum.
    """

    atlas: LayeredAtlas
    history: Tensor
    terms: tuple[str, ...]


class AtlasFit(Descent):
    """A fit in progress, see :class:`Run`.

    A step looks at random pixels of all frames, which are read from the footage, so that memory does not
    grow with the clip. Everything random is drawn from ``generator`` at the start and keyed by the step, so
    that a run resumed from a state ends as if it had never stopped, to the bit on the CPU.

    Args:
        footage: The clip.
        config: None for what suits the size of its frames.
        generator: Source of random numbers, on the CPU.
        device: Where to fit.
    """

    knobs = "samples (--samples)"
    replaced = ("atlas.bounds",)

    @own_modes
    def __init__(
        self,
        footage: Footage,
        *,
        config: AtlasFitConfig | None = None,
        generator: torch.Generator,
        device: str | torch.device = "cpu",
    ):
        self.config = config = (config or AtlasFitConfig()).settled_by(footage.size)
        self.footage, self._seed = footage, int(torch.randint(2**62, (), generator=generator))
        self.atlas = LayeredAtlas(
            footage.motion, footage.size, config.shape, generator=torch.Generator().manual_seed(self._seed)
        ).to(device)
        self.atlas.clip = footage.checksum
        facts = {
            "config": plain(config),
            "picture": footage.checksum,
            "masks": checksum(footage.masks),
            "seed": self._seed,
        }
        self._begin(facts, steps=config.steps, rate=config.learning_rate)
        self._optimise(self.atlas.parameters())

    def _step(self) -> Tensor:
        terms = self._losses(self._sample())
        loss = torch.stack([self._weight(name) * term for name, term in terms.items()]).sum()
        self.optimizer.zero_grad()
        loss.backward()
        gradients = [p.grad for p in self.atlas.parameters()]
        require_finite_step(self.index, loss, norms(gradients))
        row = self._descend(loss, terms)
        if self.index + 1 == self.steps:
            self.atlas.bounds = seen_bounds(self.atlas).to(self.atlas.bounds)
        return row

    def _sample(self) -> FitSample:
        """Random pixels, the same for the same step."""
        return draw_sample(
            self.footage,
            self.config.samples,
            flow_ways=self.config.flow_ways,
            generator=torch.Generator().manual_seed(self._seed + 1 + self.index),
            device=self.atlas.motion.device,
        )

    def _losses(self, sample: FitSample) -> dict[str, Tensor]:
        """Every term, before it is weighed; a term that is over by now is 0."""
        terms = fit_terms(self.atlas, sample, flow_ways=self.config.flow_ways)
        for layer, name in enumerate(GLOBAL):
            if not getattr(self.config, name):
                continue
            if self._weight(name):
                terms[name] = global_rigidity(self.atlas, layer, sample, self.config.global_distance)
            else:
                terms[name] = torch.zeros_like(terms["colour"])
        return terms

    def _learning_rate(self) -> float:
        return self.config.learning_rate if self.config.schedule == "constant" else super()._learning_rate()

    def _weight(self, term: str) -> float:
        config, weight = self.config, getattr(self.config, term)
        if term in GLOBAL:
            return weight if self.index < config.globally_rigid * config.steps else 0.0
        if term != "bootstrap":
            return weight
        until = config.bootstrapped * config.steps
        if config.bootstrap_schedule == "step":
            return weight if self.index < until else 0.0
        return weight * max(0.0, 1 - self.index / max(until, 1e-9))

    def _own_state(self) -> dict:
        return {"atlas": self.atlas.state_dict()}

    def _take_state(self, state: dict) -> None:
        self.atlas.load_state_dict(state["atlas"])


def fit_atlas(
    footage: Footage,
    *,
    config: AtlasFitConfig | None = None,
    generator: torch.Generator,
    device: str | torch.device = "cpu",
    callback: Callable[[AtlasFit], None] | None = None,
) -> AtlasFitResult:
    """Fit layered atlases to a clip.

    Arguments and errors are those of :class:`AtlasFit`, which this runs to its end; ``callback`` is called
    with it after every step.

    Returns:
        The atlas and the history of its losses.
    """
    run = AtlasFit(footage, config=config, generator=generator, device=device)
    run.finish(callback)
    return AtlasFitResult(run.atlas, run.history, run.terms)


@torch.no_grad()
def seen_bounds(atlas: LayeredAtlas) -> Tensor:
    """What part of each atlas frames show: left, top, right, bottom, ``(2, 4)``; 0 where there is none."""
    low, high = (
        torch.full((2, 2), math.inf, dtype=torch.float32),
        torch.full((2, 2), -math.inf, dtype=torch.float32),
    )
    for frame in range(atlas.frames):
        seen = atlas.look(frame)
        for layer, shown in enumerate((seen.opacity[:, 0] > 0.5, seen.opacity[:, 0] < 0.5)):
            places = seen.places[layer][shown].cpu().sort(0).values
            if len(places) < 2:
                continue
            out = int(OUTLIERS * len(places))
            low[layer] = torch.minimum(low[layer], places[out])
            high[layer] = torch.maximum(high[layer], places[-1 - out])
    around = MARGIN * (high - low)
    bounds = torch.cat([low - around, high + around], 1)
    return torch.where(torch.isfinite(bounds), bounds, 0.0)
