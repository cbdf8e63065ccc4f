"""Prompt interpolation: pictures along a path of prompt embeddings whose rows are coupled by transport."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from ..._checks import require_choice, require_positive
from ..._modes import own_modes
from ...losses.perceptual import feature_distance
from ...media.frame_files import FrameFiles, HeldFrames, Lazily
from ...metrics import PathScore, respace, score_path
from ...models.clip import ClipEncoder
from ...models.text_to_image import CONTENT, Embedding, Invariance, TextToImage
from ..recipe import RecipeConfig
from ..run import Run, naming_knobs
from ..run_state import checksum, plain
from .couplings import COUPLINGS, ROWS, prompt_path, slerp

Distance = Callable[[Tensor, Tensor], Tensor]  # two batches of pictures (n, 3, H, W) in [0, 1] to (n,)


@dataclass(frozen=True)
class PromptInterpolationConfig(RecipeConfig, guidance="guidance_scale"):
    """Which way prompts are joined, and how the pictures on it are drawn.

    Attributes:
        coupling: ``"ot"``, ``"entropic"``, ``"row"``, ``"slerp"`` or ``"random"``; see :func:`prompt_path`.
        rows: Which rows may go where: ``"all"``, ``"pinned"`` or ``"blockwise"``.
        eps: Regularisation of the entropic coupling, as a share of the mean cost.
        frames: Pictures, both ends included.
        steps: Of each sampling.
        guidance_scale: Scale of classifier-free guidance; 1 is none.
        height: Of the pictures, in pixels; None for the model's own.
        width: Likewise.
        batch: Pictures drawn at once.
        uniform: Whether times are moved until the pictures lie evenly.
        evenness: How far the largest step may then exceed the mean step, as a share of it.
        rounds: How often times are moved at most; the most even round counts.
        truncate: Whether prompts that are too long are cut, with a warning, and not refused.
    """

    coupling: str = "ot"
    rows: str = "all"
    eps: float = 0.05
    frames: int = 9
    steps: int = 25
    guidance_scale: float = 3.0
    height: int | None = None
    width: int | None = None
    batch: int = 8
    uniform: bool = False
    evenness: float = 0.1
    rounds: int = 16
    truncate: bool = False

    recipes = MappingProxyType({"world": MappingProxyType({}), "published": MappingProxyType({})})

    def _check(self) -> None:
        require_choice("coupling", self.coupling, COUPLINGS)
        require_choice("rows", self.rows, ROWS)
        for name in ("eps", "steps", "batch", "evenness", "rounds"):
            require_positive(name, getattr(self, name))
        if self.frames < 2:
            raise ValueError(f"frames must be at least 2, got {self.frames}")
        if not 1 <= self.guidance_scale < math.inf:
            raise ValueError(f"guidance_scale must be a finite number, 1 or above, got {self.guidance_scale}")


class PromptInterpolationResult(NamedTuple):
    """The pictures on the way, when they were made, and how evenly they lie.

    Attributes:
        frames: ``(frames, 3, H, W)`` float32 in [0, 1].
        times: ``(frames,)`` float64 in [0, 1].
        distances: ``(frames - 1,)``, of consecutive pictures; None without a distance.
        score: Of the path; None without a distance.
        invariance: How much the model's picture changes when rows are exchanged, and when they are repeated.
    """

    frames: Tensor
    times: Tensor
    distances: Tensor | None
    score: PathScore | None
    invariance: Invariance


class PromptInterpolation(Run):
    """An interpolation in progress, see :class:`Run`: each step draws a batch of pictures.

    Pictures are kept as a file holds them, in 8 bits, and so are the distances measured: a run resumed from a
    state ends as if it had never stopped, to the bit on the CPU.

    Args:
        pipeline: A pipeline of diffusers, of one of the kinds of :class:`TextToImage`.
        prompts: Two or more, each a text or an :class:`Embedding` made elsewhere.
        config: See :class:`PromptInterpolationConfig`.
        generator: Source of random numbers, on the CPU. With one, all pictures start from the same noise.
            With one for each prompt, the noise turns from that of one to that of the next.
        negative: What guidance leads away from; None for what the pipeline takes by itself.
        distance: Between pictures, for scores and even speed.
        invariance: What :meth:`TextToImage.invariance` said of this model before; None to measure it.
        made: Where pictures are kept, in the order in which they are drawn; None for memory.

    Raises:
        ValueError: If prompts or settings do not fit, or the model is no function of a set of rows; the
            message has the measured difference.
        TypeError: If the pipeline is of a kind that is not known.
        FloatingPointError: If the model returns NaN.
    """

    knobs = "batch, or height and width"
    replaced = ("round", "times", "_goal", "_pictures", "_made.kept", "_best")

    @own_modes
    def __init__(
        self,
        pipeline,
        prompts: Sequence[str | Embedding],
        *,
        config: PromptInterpolationConfig | None = None,
        generator: torch.Generator | Sequence[torch.Generator],
        negative: str | None = None,
        distance: Distance | None = None,
        invariance: Invariance | None = None,
        made: HeldFrames | FrameFiles | None = None,
    ):
        self.model = model = pipeline if isinstance(pipeline, TextToImage) else TextToImage(pipeline)
        self.config = config = (config or PromptInterpolationConfig()).settled(model.pipeline)
        if config.uniform and distance is None:
            raise ValueError("distance must be given for uniform speed, got None")
        self.distance = distance
        chances = [generator] if isinstance(generator, torch.Generator) else list(generator)
        if len(chances) not in (1, len(prompts)):
            raise ValueError(f"generator must be one, or one for each of {len(prompts)}, got {len(chances)}")
        shape = model.latent_shape(config.height, config.width)
        self.noise = torch.stack(
            [torch.randn(shape, generator=chance, dtype=torch.float32) for chance in chances]
        )
        self._seed = int(torch.randint(2**31, (), generator=chances[0]))
        self.keys = [
            p if isinstance(p, Embedding) else model.encode(p, truncate=config.truncate) for p in prompts
        ]
        self.negative = model.encode_negative(negative) if config.guidance_scale > 1 else None
        self.path = prompt_path(
            self.keys,
            coupling=config.coupling,
            rows=config.rows,
            eps=config.eps,
            generator=torch.Generator().manual_seed(self._seed),
        )
        with naming_knobs("height and width"):
            telling = next((key for key in self.keys if bool((key.kinds == CONTENT).any())), self.keys[0])
            self.invariance = invariance or model.invariance(telling, self.noise[:1])
        self._require_invariance()
        self.round = 0
        self.times = torch.linspace(0, 1, config.frames, dtype=torch.float64)
        self._goal: Tensor | None = None  # (3, H, W) uint8, of the last prompt alone, for the score
        self._pictures: dict[float, int] = {}  # by time, the number of the picture in the order of drawing
        self._made = HeldFrames() if made is None else made
        self._best: tuple[float, Tensor] | None = None  # largest over mean step, times
        facts = {
            "config": plain(config),
            "prompts": [p if isinstance(p, str) else "an embedding" for p in prompts],
            "negative": negative,
            "model": f"{model.name} {model.dtype}",
            "embeddings": checksum(key.rows for key in self.keys),
            "seed": checksum(self.noise),
        }
        self._begin(facts, steps=None)

    @property
    def pending(self) -> list[float]:
        """The times of this round that have no picture yet."""
        return [t for t in self.times.tolist() if t not in self._pictures]

    @property
    def steps(self) -> int:
        """Steps taken, and those that this round still needs; uneven pictures may ask for another round."""
        segments = Counter(self.path.locate(t)[0] for t in self.pending)
        batches = sum(math.ceil(count / self.config.batch) for count in segments.values())
        return self.index + self._lacks_goal + batches

    @property
    def _lacks_goal(self) -> bool:
        """Whether the picture of the last prompt alone is still to be drawn: a score compares with it."""
        return self.distance is not None and self._goal is None

    @property
    def drawn(self) -> int:
        """How many pictures of this round there are."""
        return self.config.frames - len(self.pending)

    @property
    def frames(self) -> Tensor:
        """The pictures of this round so far, ``(drawn, 3, H, W)`` float32 in [0, 1]."""
        made = list(self.shown)
        return torch.stack(made) if made else torch.empty(0, 3, 0, 0, dtype=torch.float32)

    @property
    def shown(self) -> Sequence[Tensor]:
        """The same, ``(3, H, W)`` each, read one at a time."""
        return Lazily(self._picture, [t for t in self.times.tolist() if t in self._pictures])

    def _picture(self, t: float) -> Tensor:
        return self._made[self._pictures[t]].float() / 255

    def _step(self) -> Tensor:
        """Draw the next batch, and at the end of a round that is too uneven move the times."""
        if self._lacks_goal:
            self._goal = self._draw_goal()[0]
        else:
            times = self._next_batch()
            for t, picture in zip(times, self._draw(times)):
                self._pictures[t] = len(self._made)
                self._made.append(picture)
        if not self.pending and self.config.uniform:
            self._even_out()
        return torch.empty(0, dtype=torch.float32)

    @own_modes
    def distances(self) -> Tensor | None:
        """Distances of consecutive pictures, float64; None without a distance."""
        if self.distance is None:
            return None
        return self._between(self.shown)

    @own_modes
    def score(self) -> PathScore | None:
        """Length, smoothness, worst step and fidelity of the finished path; None without a distance."""
        if self.distance is None:
            return None
        frames, goal = (
            torch.stack([self.shown[0], self.shown[-1]]),
            (self._goal.float() / 255).expand(2, -1, -1, -1),
        )
        chord, missed = self._apart(frames, goal).tolist()
        return score_path(self.distances(), missed=missed, chord=chord)

    def result(self) -> PromptInterpolationResult:
        """The pictures as they stand, their times, and how evenly they lie."""
        return PromptInterpolationResult(
            self.frames, self.times, self.distances(), self.score(), self.invariance
        )

    def _own_state(self) -> dict:
        best = None if self._best is None else {"ratio": self._best[0], "times": self._best[1]}
        return {
            "round": self.round,
            "times": self.times,
            "goal": self._goal,
            "drawn": list(self._pictures),
            "pictures": list(self._made.kept),
            "best": best,
        }

    def _take_state(self, state: dict) -> None:
        self.round, self.times, self._goal = state["round"], state["times"], state["goal"]
        self._pictures = {t: number for number, t in enumerate(state["drawn"])}
        self._made.take_back(state["pictures"])
        self._best = state["best"] and (state["best"]["ratio"], state["best"]["times"])

    def _require_invariance(self) -> None:
        permuted, repeated, tolerance = self.invariance
        if not permuted <= tolerance:
            half = self.model.dtype in (torch.float16, torch.bfloat16)
            cause = "it knows the rows' order"
            cause += ", or rounds too coarsely, which float32 would tell" if half else ""
            raise ValueError(
                "the model must read a prompt's rows as a set, but exchanging them changes its output by "
                f"{100 * permuted:.2g}% of what the prompt changes, and {100 * tolerance:.2g}% is allowed: "
                f"{cause}, and a path between exchanged rows means nothing to it"
            )
        lengths = [len(key.rows) for key in self.keys]
        if len(set(lengths)) > 1 and not repeated <= tolerance:
            raise ValueError(
                f"prompts must have as many rows each for this model, got {' and '.join(map(str, lengths))}: "
                f"repeating every row changes its output by {100 * repeated:.2g}% of what the prompt changes"
            )

    def _next_batch(self) -> list[float]:
        """Pending times of one segment."""
        pending = self.pending
        segment = self.path.locate(pending[0])[0]
        same = [t for t in pending if self.path.locate(t)[0] == segment]
        return same[: self.config.batch]

    def _draw(self, times: Sequence[float]) -> Tensor:
        located = [self.path.locate(t) for t in times]
        index, local = located[0][0], torch.tensor([t for _, t in located], dtype=torch.float64)
        rows = self.path.segments[index].at(local)
        return self._pictures_of(rows, self.path.pooled_at(index, local), self._noise_at(index, local))

    def _draw_goal(self) -> Tensor:
        last = self.keys[-1]
        pooled = None if last.pooled is None else last.pooled[None]
        return self._pictures_of(last.rows[None], pooled, self.noise[-1:])

    def _noise_at(self, index: int, local: Tensor) -> Tensor:
        if len(self.noise) == 1:
            return self.noise.expand(len(local), -1, -1, -1)
        ends = (self.noise[index + i].flatten() for i in (0, 1))
        return slerp(*ends, local).view(-1, *self.noise.shape[1:])

    def _pictures_of(self, rows: Tensor, pooled: Tensor | None, noise: Tensor) -> Tensor:
        drawn = self.model.draw(
            rows,
            pooled,
            self.negative,
            noise,
            steps=self.config.steps,
            guidance_scale=self.config.guidance_scale,
            seed=self._seed,
        )
        return drawn.mul(255).round().to(torch.uint8)

    @torch.no_grad()
    def _apart(self, pictures: Tensor, others: Tensor) -> Tensor:
        parts = zip(pictures.split(self.config.batch), others.split(self.config.batch))
        return torch.cat([self.distance(a, b).double().cpu() for a, b in parts])

    def _between(self, pictures: Sequence[Tensor]) -> Tensor:
        """Distances of consecutive pictures, of which memory holds a batch."""
        firsts, batch = range(0, len(pictures) - 1, self.config.batch), self.config.batch
        some = (
            torch.stack([pictures[i] for i in range(first, min(first + batch + 1, len(pictures)))])
            for first in firsts
        )
        return torch.cat([self._apart(part[:-1], part[1:]) for part in some])

    def _even_out(self) -> None:
        """Remember the round if it is the most even so far; begin another, or go back to the best."""
        steps = self.distances()
        ratio = float(steps.max() / steps.mean()) if steps.sum() > 0 else 1.0
        if self._best is None or ratio < self._best[0]:
            self._best = ratio, self.times
        self.round += 1
        if ratio <= 1 + self.config.evenness or self.round >= self.config.rounds:
            self.times = self._best[1]
            return
        known = sorted(self._pictures)
        apart = self._between(Lazily(self._picture, known))
        self.times = respace(self.times, steps, torch.tensor(known, dtype=torch.float64), apart)


def interpolate_prompts(
    pipeline,
    prompts: Sequence[str | Embedding],
    *,
    config: PromptInterpolationConfig | None = None,
    generator: torch.Generator | Sequence[torch.Generator],
    negative: str | None = None,
    distance: Distance | None = None,
    callback: Callable[[PromptInterpolation], None] | None = None,
) -> PromptInterpolationResult:
    """Draw pictures along a path through prompts; see :class:`PromptInterpolation` for arguments and errors.

    Args:
        pipeline: A pipeline of diffusers.
        prompts: Two or more texts or embeddings.
        config: See :class:`PromptInterpolationConfig`.
        generator: Source of random numbers: one, or one for each prompt.
        negative: What guidance leads away from.
        distance: Between pictures, for the score and even speed: :func:`feature_metric`, LPIPS, or any other.
        callback: Called after each batch.

    Returns:
        The pictures, when they were made, and how evenly they lie.

    Example:
        >>> from geokernels.models import load_diffusion
        >>> prompts = ["a red circle on a white background", "a blue star on a green background"]
        >>> result = interpolate_prompts(
        ...     load_diffusion("world"),
        ...     prompts,
        ...     config=PromptInterpolationConfig(frames=3, steps=2),
        ...     generator=torch.Generator().manual_seed(0),
        ... )
        >>> result.frames.shape
        torch.Size([3, 3, 64, 64])
    """
    run = PromptInterpolation(
        pipeline, prompts, config=config, generator=generator, negative=negative, distance=distance
    )
    run.finish(callback)
    return run.result()


def feature_metric(encoder: ClipEncoder) -> Distance:
    """Distance of pictures by an encoder's maps: the root of :func:`feature_distance`, which is a metric.

    Steps along a path therefore add up to at least the distance of its ends.

    Args:
        encoder: A CLIP that gives feature maps.

    Returns:
        A function of two batches of pictures that returns their distances.
    """

    def distance(pictures: Tensor, others: Tensor) -> Tensor:
        features = encoder.image_features(torch.cat([pictures, others]))
        pairs = [layer.chunk(2) for layer in features]
        return feature_distance([a for a, _ in pairs], [b for _, b in pairs]).sqrt()

    return distance
