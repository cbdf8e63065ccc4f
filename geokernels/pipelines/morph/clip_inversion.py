"""CLIP inversion: a picture is optimised until it has moved as one text moves to another."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..._checks import require_choice
from ..._modes import own_modes
from ...losses.perceptual import total_variation
from ...models.clip import ClipEncoder
from ..guidance.clip import Guidance
from ..guidance.terms import require_guides
from ..run import Descent
from ..running import plain, require_finite_step
from ..start.guess import Guess
from .parametrisation import PARAMETRISATIONS, parametrise
from .picture import PictureConfig, checksum, require_picture, search_guess, to_preview, to_working_size


@dataclass(frozen=True, kw_only=True)
class ClipInversionConfig(PictureConfig):
    """How a morph is guided, shown and stepped. The defaults were chosen on the rendered world.

    Without ``reach`` the edit layer's opacity shrinks its change to nothing.

    Attributes:
        perceptual: Weight of the distance to the source: that of the ``perceptual`` callable (LPIPS, say) or,
            where there is none, of the encoders' own feature maps.
        total_variation: Weight of roughness.
        opacity: Weight of the edit layer's mean opacity.
        indecision: Weight of opacities between 0 and 1.
        parametrisation: ``"layer"``, ``"fourier"`` or ``"pixels"``.
        hold: Steps for which the views are kept before new ones are drawn.
    """

    perceptual: float = 0.0
    total_variation: float = 0.0
    opacity: float = 0.1
    indecision: float = 0.05
    parametrisation: str = "layer"
    hold: int = 4

    counts: ClassVar[tuple[str, ...]] = (*PictureConfig.counts, "hold")
    amounts: ClassVar[tuple[str, ...]] = (
        *PictureConfig.amounts, "perceptual", "total_variation", "opacity", "indecision"
    )  # fmt: skip

    def __post_init__(self):
        super().__post_init__()
        require_choice("parametrisation", self.parametrisation, PARAMETRISATIONS)


SEARCHED = ("guess", "opacity", "working_size", "parametrisation", "templates", "encoder_weights")
LEARNING_RATES = {"layer": 0.01, "fourier": 0.02, "pixels": 0.01}


class ClipInversionResult(NamedTuple):
    """The morphed picture, and every loss term at every step."""

    picture: Tensor  # like the picture given
    history: Tensor  # (steps, terms) float32
    terms: tuple[str, ...]  # names of the columns of history; "loss" is the weighted sum


class ClipInversion(Descent):
    """A morph in progress: :meth:`step` until :attr:`done`; :meth:`state_dict` at any time between steps.

    The first guess is made on construction, in :attr:`prepared_in` seconds. Whether the loss is finite is
    looked at on the CPU alone: a GPU would have to be waited for.

    All chance is drawn from ``generator`` at the start and keyed by the step, so that a run resumed from a
    state ends as if it had never stopped, to the bit on the CPU.

    Args:
        picture: ``(3, H, W)`` in [0, 1], any size, floating point.
        encoders: Frozen CLIP encoders on the picture's device; each guides by its weight.
        source: What the picture shows.
        target: What it shall show.
        config: See :class:`ClipInversionConfig`.
        generator: Source of chance, on the CPU.
        perceptual: Distance of two ``(1, 3, h, w)`` pictures to a scalar, for ``config.perceptual``.
        like: A run of the same picture, encoders, prompts and seed, whose first guess serves this one too.
            What guides, how strongly and how long may differ.

    Attributes:
        start: The first guess, where one was found that says enough of what is asked.

    Raises:
        ValueError: For a picture, prompt or setting that cannot be used; the message says which.
        TypeError: If the picture is not floating point.
    """

    knobs = "views or working_size (--size)"

    @own_modes
    def __init__(
        self,
        picture: Tensor,
        encoders: Sequence[ClipEncoder],
        source: str,
        target: str,
        *,
        config: ClipInversionConfig | None = None,
        generator: torch.Generator,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
        like: "ClipInversion | None" = None,
    ):
        self.config = config = config or ClipInversionConfig()
        require_picture(picture)
        require_guides(encoders, source, target, config)
        self.perceptual = perceptual
        chance = int(torch.randint(2**62, (), generator=generator))
        began = time.perf_counter()

        self.full = picture.detach()[None].float()
        self.source = to_working_size(self.full, encoders, config.working_size)
        self._previews: dict[int, Tensor] = {}
        self.guidance = Guidance(encoders, source, target, config, key=chance + 1)
        run = {
            "config": plain(config),
            "source": source,
            "target": target,
            "encoders": [encoder.name for encoder in encoders],
            "picture": checksum(self.full),
            "seed": chance,
        }
        self.start = self._first_guess(chance + 2) if like is None else _guess_of(like, run)
        self.edit = parametrise(
            config.parametrisation,
            self.source,
            generator=torch.Generator().manual_seed(chance),
            start=self.start,
        )
        self.prepared_in = time.perf_counter() - began
        rate = config.learning_rate or LEARNING_RATES[config.parametrisation]
        adam = torch.optim.Adam(self.edit.parameters(), lr=rate)
        self._begin(adam, steps=config.steps, rate=rate, run=run)

    def _first_guess(self, chance: int) -> Guess | None:
        """What to start from; only an edit layer can."""
        if self.config.parametrisation != "layer":
            return None
        return search_guess(self.source, self.guidance, area=self.config.opacity, chance=chance)

    @own_modes
    def picture(self) -> Tensor:
        """The picture as it stands, like the one given: float32 in [0, 1], at full size."""
        return self.edit.render(self.source, self.full)[0]

    @own_modes
    def preview(self, longest: int) -> Tensor:
        """The same with its longest side at most ``longest``, or at working size: quick for large ones."""
        if longest not in self._previews:
            self._previews[longest] = to_preview(self.full, self.source, longest)
        return self.edit.render(self.source, self._previews[longest])[0]

    def _step(self) -> None:
        self.guidance.begin_step(self.index, self.source)
        picture, penalties = self.edit(self.source)
        unmoved = self.index == 0 and self.edit.starts_at_source
        terms = self.guidance.terms(picture, unmoved=unmoved)
        terms = {**terms, **penalties}
        if self.config.total_variation:
            terms["total_variation"] = total_variation(picture)
        if self.config.perceptual:
            terms["perceptual"] = self._distance(picture)
        loss = sum(self.config.weight(name) * term for name, term in terms.items())
        if loss.device.type == "cpu":
            require_finite_step(self.index, loss)

        self.optimizer.zero_grad()
        loss.backward()
        self._descend(loss, terms)

    def _own_state(self) -> dict:
        return {"edit": self.edit.state_dict(), "kept": dict(self.guidance.kept)}

    def _take_state(self, state: dict) -> None:
        self.edit.load_state_dict(state["edit"])
        self.guidance.load(state["kept"], state["index"], self.source.device)

    def _distance(self, picture: Tensor) -> Tensor:
        """How far ``picture`` is from the source: the caller's measure, or the encoders' own features."""
        if self.perceptual is not None:
            return self.perceptual(picture, self.source).mean()
        return self.guidance.feature_distance(picture, self.source)


def _guess_of(other: ClipInversion, run: dict) -> Guess | None:
    """The first guess of another run, if ``run`` would search for the same."""
    theirs, ours = ({**r, "config": {k: r["config"][k] for k in SEARCHED}} for r in (other._run, run))
    if theirs != ours:
        raise ValueError("like must be a run of the same picture, encoders, prompts, seed and search")
    return other.start


def clip_inversion(
    picture: Tensor,
    encoders: Sequence[ClipEncoder],
    source: str,
    target: str,
    *,
    config: ClipInversionConfig | None = None,
    generator: torch.Generator,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
    callback: Callable[[ClipInversion], None] | None = None,
) -> ClipInversionResult:
    """Morph a picture from what ``source`` says to what ``target`` says.

    Arguments and errors are those of :class:`ClipInversion` (which also compares settings from one first
    guess), which this runs to its end; ``callback`` is called with it after every step.

    Returns:
        The picture and the history of its losses.
    """
    run = ClipInversion(
        picture, encoders, source, target, config=config, generator=generator, perceptual=perceptual
    )
    while not run.done:
        run.step()
        if callback is not None:
            callback(run)
    return ClipInversionResult(run.picture(), run.history, run.terms)
