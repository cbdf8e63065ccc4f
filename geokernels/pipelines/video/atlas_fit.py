"""Layered neural atlases: two pictures and the maps to them, fitted to a clip by its pixels and its flow."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..._checks import require_positive, settle
from ..._modes import own_modes
from ..._torch_internals import norms
from ...losses.atlas import colour_gradient_loss, flow_loss, hidden_colour_loss, mask_loss, rigidity_loss
from ...models.atlas import AtlasShape, LayeredAtlas, Points
from ..descent import Descent, require_finite_step
from ..run_state import checksum, plain
from .footage import Footage

SMALL = 128  # longest side up to which the small settings are the default
MARGIN = 0.03  # of an atlas, kept around what is seen of it
OUTLIERS = 0.002  # share of a frame's points that may lie beyond


@dataclass(frozen=True, kw_only=True)
class AtlasFitConfig:
    """How an atlas is fitted. The defaults were chosen on clips of the rendered world, 64 pixels a side.

    Attributes:
        steps: Adam steps.
        samples: Pixels per step, from all frames; each comes with its neighbours right, below and in the next
            frame.
        learning_rate: Of the first step; the cosine schedule ends at 0.
        colour: Weight of the squared error of the colours.
        gradient: Of their differences between neighbours.
        flow: Of the way, in pixels, that points move in an atlas.
        cover_flow: Of the change of the opacity along the flow.
        rigidity: Of how much the maps stretch and shear.
        sparsity: Of the foreground's colour where it does not cover.
        bootstrap: Of the opacity's distance to the masks, at the first step.
        bootstrapped: Share of the steps after which that weight has fallen to 0.
        shape: Sizes of the networks.
    """

    steps: int = 1200
    samples: int = 768
    learning_rate: float = 4e-3
    colour: float = 1.0
    gradient: float = 0.2
    flow: float = 0.01
    cover_flow: float = 0.02
    rigidity: float = 0.002
    sparsity: float = 0.02
    bootstrap: float = 0.2
    bootstrapped: float = 0.5
    shape: AtlasShape = field(default_factory=AtlasShape)

    def __post_init__(self):
        settle(self)
        for name in ("steps", "samples", "learning_rate"):
            require_positive(name, getattr(self, name))
        weights = ("colour", "gradient", "flow", "cover_flow", "rigidity", "sparsity", "bootstrap")
        for name in (*weights, "bootstrapped"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number, 0 or above, got {getattr(self, name)}")

    @classmethod
    def of_size(cls, size: tuple[int, int], **given) -> "AtlasFitConfig":
        """The settings for frames of ``size`` (H, W); above 128 pixels a side, of the published order."""
        if max(size) <= SMALL:
            return cls(**given)
        octaves = max(1, math.ceil(math.log2(max(size) / 2)) + 1)
        shape = AtlasShape(width=256, map_layers=4, layers=6, octaves=octaves, plain_octaves=5)
        return cls(**{"samples": 10_000, "steps": 20_000, "learning_rate": 1e-3, "shape": shape} | given)


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
        self.config = config = config or AtlasFitConfig.of_size(footage.size)
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

    def _sample(self) -> "_Sample":
        """Random pixels, the same for the same step."""
        footage, chance = self.footage, torch.Generator().manual_seed(self._seed + 1 + self.index)
        (H, W), T, n = footage.size, len(footage), self.config.samples
        share = torch.rand((3, n), generator=chance, dtype=torch.float32).numpy()
        t, y, x = (np.minimum((a * b).astype(np.int64), b - 1) for a, b in zip(share, (T, H - 1, W - 1)))
        colours = np.stack([footage.frames[t, y + dy, x + dx] for dy, dx in ((0, 0), (0, 1), (1, 0))])
        onwards, sure = np.zeros((n, 2), np.float32), np.zeros(n, np.float32)
        moving = t < T - 1
        at = t[moving], y[moving], x[moving]
        onwards[moving], sure[moving] = footage.flow[at], footage.trusted[at]
        longest = max(H, W)
        pixel = np.float32(2 / longest)
        here = pixel * np.stack([x + (1 - W) / 2, y + (1 - H) / 2], 1).astype(np.float32)
        steps = np.stack(
            [np.zeros_like(here), np.full_like(here, (1, 0)), np.full_like(here, (0, 1)), onwards]
        )
        places = here + pixel * steps
        frames = np.stack([t, t, t, np.minimum(t + 1, T - 1)])
        device = self.atlas.motion.device
        points = Points(
            torch.from_numpy(frames.reshape(-1)).to(device),
            torch.from_numpy(places.reshape(-1, 2)).to(device),
        )
        return _Sample(
            points,
            (torch.from_numpy(colours).float() / 255).to(device),
            torch.from_numpy(sure).to(device),
            (torch.from_numpy(footage.masks[t, y, x][:, None]).float() / 255).to(device),
        )

    def _losses(self, sample: "_Sample") -> dict[str, Tensor]:
        """Every term, before it is weighed."""
        atlas, pixels = self.atlas, max(self.footage.size) / 2
        flat = [atlas.place(layer, sample.points) for layer in range(2)]
        opacity = atlas.opacity(sample.points, flat[0]).unflatten(0, (4, -1))  # (4, n, 1)
        places = [place.unflatten(0, (4, -1)) for place in flat]  # (4, n, 2) a layer
        n = places[0].shape[1]
        over, under = (atlas.colour(i, place[: 3 * n]).unflatten(0, (3, -1)) for i, place in enumerate(flat))
        mixed = under + opacity[:3] * (over - under)
        true, covered = sample.colours, opacity[0, :, 0].detach()
        return {
            "colour": (mixed - true).square().sum(-1).mean(),
            "gradient": sum(colour_gradient_loss(mixed[i] - mixed[0], true[i] - true[0]) for i in (1, 2)),
            "flow": sum(
                flow_loss(place[0] * pixels, place[3] * pixels, sample.sure * share)
                for place, share in zip(places, (covered, 1 - covered))
            ),
            "cover_flow": flow_loss(opacity[0], opacity[3], sample.sure),
            "rigidity": sum(
                rigidity_loss((place[1] - place[0]) * pixels, (place[2] - place[0]) * pixels)
                for place in places
            ),
            "sparsity": hidden_colour_loss(over[0], opacity[0]),
            "bootstrap": mask_loss(opacity[0], sample.masks),
        }

    def _weight(self, term: str) -> float:
        if term != "bootstrap":
            return getattr(self.config, term)
        until = self.config.bootstrapped * self.config.steps
        return self.config.bootstrap * max(0.0, 1 - self.index / max(until, 1e-9))

    def _own_state(self) -> dict:
        return {"atlas": self.atlas.state_dict()}

    def _take_state(self, state: dict) -> None:
        self.atlas.load_state_dict(state["atlas"])


class _Sample(NamedTuple):
    """Pixels, their neighbours to the right and below, and where the flow takes them: four of each point."""

    points: Points  # 4 n
    colours: Tensor  # (3, n, 3), of the first three
    sure: Tensor  # (n,), 1 where the flow is to be believed
    masks: Tensor  # (n, 1), of the first


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
