"""CLIP inversion: a picture is optimised until it has moved as one text moves to another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..._checks import require_choice
from ..._modes import own_modes
from ...losses.perceptual import total_variation
from ...models.clip import ClipEncoder
from ..descent import Descent, require_finite_step
from ..guidance import terms
from ..guidance.clip import Guidance
from ..guidance.terms import require_guides
from ..recipe import OF_RECIPE
from ..run import Prepared, Tell
from ..run_state import checksum, plain
from ..start.guess import Guess
from ..start.search import is_scene, search_guess
from . import picture as pictures
from .parametrisation import PARAMETRISATIONS, parametrise
from .picture import PictureConfig, require_picture, to_preview, to_working_size

WORLD = MappingProxyType(
    {
        **pictures.WORLD,
        "perceptual": 0.0,
        "opacity": 0.1,
        "indecision": 0.05,
        "first_opacity": None,
        "hold": 4,
    }
)
# nobody has published settings: these are ours for real models
PUBLISHED = MappingProxyType(
    {
        **terms.PUBLISHED,
        "guess": 2.0,
        "guess_encodings": 600,
        "steps": 200,
        "learning_rate": None,
        "views": 16,
        "scale": (0.7, 1.1),
        "shift": 0.125,
        "jitter": 0.05,
        "noise": 0.0,
        "blurred": 0.0,
        "perceptual": 0.0,
        "opacity": 0.1,
        "indecision": 0.05,
        "first_opacity": 0.01,
        "hold": 1,
    }
)


@dataclass(frozen=True, kw_only=True)
class ClipInversionConfig(PictureConfig):
    """How a morph is guided, shown and stepped.

    Without ``reach_weight`` the edit layer's opacity shrinks its change to nothing.

    Attributes:
        perceptual: Weight of the distance to the source: that of the ``perceptual`` callable (LPIPS, say) or,
            where there is none, of the encoders' own feature maps.
        total_variation: Weight of roughness.
        opacity: Weight of the edit layer's mean opacity.
        indecision: Weight of opacities that are neither 0 nor 1.
        first_opacity: At which an edit layer starts where it has no first guess. None for 0.5 in a picture of
            the rendered world, see ``guess``, and 0.01 in any other, of which most is to stay as it is.
        parametrisation: ``"layer"``, ``"fourier"`` or ``"pixels"``.
        hold: Steps between two draws of new views.
    """

    perceptual: float = OF_RECIPE
    total_variation: float = 0.0
    opacity: float = OF_RECIPE
    indecision: float = OF_RECIPE
    first_opacity: float | None = OF_RECIPE
    parametrisation: str = "layer"
    hold: int = OF_RECIPE

    recipes = MappingProxyType({"world": WORLD, "published": PUBLISHED})

    counts: ClassVar[tuple[str, ...]] = (*PictureConfig.counts, "hold")
    amounts: ClassVar[tuple[str, ...]] = (
        *PictureConfig.amounts, "perceptual", "total_variation", "opacity", "indecision"
    )  # fmt: skip

    def _check(self) -> None:
        super()._check()
        require_choice("parametrisation", self.parametrisation, PARAMETRISATIONS)
        if self.first_opacity is not None and not 0 < self.first_opacity < 1:
            raise ValueError(f"first_opacity must lie between 0 and 1, got {self.first_opacity}")


SCENE, BARELY = 0.5, 0.01  # first opacities: over few even colours, and over anything else
LEARNING_RATES = {"layer": 0.01, "fourier": 0.02, "pixels": 0.01}


class ClipInversionResult(NamedTuple):
    """The morphed picture, and every loss term at every step.

    Attributes:
        picture: Like the picture given.
        history: ``(steps, terms)`` float32.
        terms: Names of the columns of ``history``; ``"loss"`` is the weighted sum.
    """

    picture: Tensor
    history: Tensor
    terms: tuple[str, ...]


class ClipInversion(Descent):
    """A morph in progress, see :class:`Run`; :meth:`prepare` searches its first guess.

    The loss is checked for being finite on the CPU alone: on a GPU every step would have to wait for it.

    Everything random is drawn from ``generator`` at the start and keyed by the step, so that a run resumed
    from a state ends as if it had never stopped, to the bit on the CPU.

    Args:
        picture: ``(3, H, W)`` in [0, 1], any size, floating point.
        encoders: Frozen CLIP encoders on the picture's device; each guides by its weight.
        source: What the picture shows.
        target: What it should show.
        config: See :class:`ClipInversionConfig`.
        generator: Source of random numbers, on the CPU.
        perceptual: Distance of two ``(1, 3, h, w)`` pictures to a scalar, for ``config.perceptual``.
        prepared: The first guess of a run of the same picture, encoders, prompts and seed.

    Attributes:
        start: The first guess, if the search found one that is good enough; None before :meth:`prepare`.
        edit: What is optimised; made by :meth:`prepare`.

    Raises:
        ValueError: For a picture, prompt or setting that cannot be used; the message says which.
        TypeError: If the picture is not floating point.
    """

    knobs = "views or working_size (--size)"
    replaced = ("guidance.kept", "guidance.views", "start")
    prepared_by = (
        "guess",
        "guess_encodings",
        "opacity",
        "working_size",
        "parametrisation",
        "templates",
        "encoder_weights",
    )

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
        prepared: Prepared | None = None,
    ):
        self.config = config = (config or ClipInversionConfig()).settled(*encoders)
        require_picture(picture)
        require_guides(encoders, source, target, config)
        self.perceptual = perceptual
        self._seed = int(torch.randint(2**62, (), generator=generator))
        self.full = picture.detach()[None].float()
        self.source = to_working_size(self.full, encoders, config.working_size)
        self._previews: dict[int, Tensor] = {}
        self.guidance = Guidance(encoders, source, target, config, key=self._seed + 1)
        self.start: Guess | None = None
        facts = {
            "config": plain(config),
            "source": source,
            "target": target,
            "encoders": [encoder.name for encoder in encoders],
            "picture": checksum(self.full),
            "seed": self._seed,
        }
        rate = config.learning_rate or LEARNING_RATES[config.parametrisation]
        self._begin(facts, steps=config.steps, rate=rate, prepared=prepared)

    def _prepare(self, tell: Tell) -> None:
        self.start = self._first_guess(tell) if self._prepared is None else self._prepared.parts
        chance = torch.Generator().manual_seed(self._seed)
        how = {"generator": chance, "start": self.start, "opacity": self._first_opacity()}
        self.edit = parametrise(self.config.parametrisation, self.source, **how)
        self._optimise(self.edit.parameters())

    def _first_opacity(self) -> float:
        """Of an edit layer without a first guess; of anything else it is not asked."""
        if self.config.first_opacity is not None:
            return self.config.first_opacity
        asked = self.config.parametrisation == "layer" and self.start is None
        return SCENE if not asked or is_scene(self.source) else BARELY

    def _parts(self) -> Guess | None:
        return self.start

    def _first_guess(self, tell: Tell) -> Guess | None:
        """What to start from; only an edit layer can."""
        if self.config.parametrisation != "layer":
            return None
        return search_guess(
            self.source, self.guidance, area=self.config.opacity, seed=self._seed + 2, tell=tell
        )

    @own_modes
    def picture(self) -> Tensor:
        """The picture as it stands, like the one given: float32 in [0, 1], at full size."""
        self.prepare()
        return self.edit.render(self.source, self.full)[0]

    @own_modes
    def preview(self, longest: int) -> Tensor:
        """The same with its longest side at most ``longest``, or at working size: quick for large ones."""
        self.prepare()
        if longest not in self._previews:
            self._previews[longest] = to_preview(self.full, self.source, longest)
        return self.edit.render(self.source, self._previews[longest])[0]

    def _step(self) -> Tensor:
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
        return self._descend(loss, terms)

    def _own_state(self) -> dict:
        self.prepare()
        return {"edit": self.edit.state_dict(), "kept": dict(self.guidance.kept)}

    def _take_state(self, state: dict) -> None:
        self.edit.load_state_dict(state["edit"])
        self.guidance.load(state["kept"], state["index"], self.source.device)

    def _distance(self, picture: Tensor) -> Tensor:
        """How far ``picture`` is from the source: the caller's measure, or the encoders' own features."""
        if self.perceptual is not None:
            return self.perceptual(picture, self.source).mean()
        return self.guidance.feature_distance(picture, self.source)


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

    Arguments and errors are those of :class:`ClipInversion`, which this runs to its end; ``callback`` is
    called with it after every step.

    Returns:
        The picture and the history of its losses.
    """
    run = ClipInversion(
        picture, encoders, source, target, config=config, generator=generator, perceptual=perceptual
    )
    run.finish(callback)
    return ClipInversionResult(run.picture(), run.history, run.terms)
