"""CLIP inversion: a picture is optimised until it has moved as one text moves to another."""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .._checks import require_choice, require_finite, require_float
from ..losses.perceptual import total_variation
from ..models.clip import ClipEncoder
from .first_guess import Guess, colour_centres
from .guidance import Guidance
from .parametrisation import PARAMETRISATIONS, parametrise
from .recolouring import recolour
from .reshaping import reshape
from .running import naming_knobs, plain, require_finite_step, require_same_run
from .terms import GuidanceConfig, require_guides


@dataclass(frozen=True, kw_only=True)
class ClipInversionConfig(GuidanceConfig):
    """How a morph is guided, shown and stepped. The defaults were chosen on the rendered world.

    Here the pictures of :class:`GuidanceConfig` are views of one picture, and without ``reach`` the edit
    layer's opacity shrinks its change to nothing.

    Attributes:
        perceptual: Weight of the distance to the source: that of the ``perceptual`` callable (LPIPS, say) or,
            where there is none, of the encoders' own feature maps.
        total_variation: Weight of roughness.
        opacity: Weight of the edit layer's mean opacity.
        indecision: Weight of opacities between 0 and 1.
        parametrisation: ``"layer"``, ``"fourier"`` or ``"pixels"``.
        guess: Least cosine between what a recolouring found by search changes and what the text asks, for an
            edit layer to start from it; above 1, every edit starts from nothing.
        steps: Adam steps.
        learning_rate: Of the first step; the cosine schedule ends at 0. None for the parametrisation's own.
        views: Random views a step.
        hold: Steps for which the views are kept before new ones are drawn.
        scale: Range of the share of the picture that a view shows.
        shift: Largest displacement of a view, in picture widths.
        jitter: Largest rotation (radians) and shear of a view.
        noise: Largest standard deviation of a view's noise.
        blurred: Share of views that are blurred.
        working_size: Longest side at which the edit is optimised; None for twice what the encoder sees, at
            most 512. The edit of a larger picture is enlarged to its full size.
    """

    perceptual: float = 0.0
    total_variation: float = 0.0
    opacity: float = 0.1
    indecision: float = 0.05
    parametrisation: str = "layer"
    guess: float = 0.5
    steps: int = 40
    learning_rate: float | None = None
    views: int = 8
    hold: int = 4
    scale: tuple[float, float] = (0.7, 1.1)
    shift: float = 0.125
    jitter: float = 0.05
    noise: float = 0.05
    blurred: float = 0.3
    working_size: int | None = None

    counts: ClassVar[tuple[str, ...]] = (
        *GuidanceConfig.counts, "steps", "views", "hold", "learning_rate", "working_size"
    )  # fmt: skip
    amounts: ClassVar[tuple[str, ...]] = (
        *GuidanceConfig.amounts,
        *("perceptual", "total_variation", "opacity", "indecision", "shift", "jitter", "noise", "blurred"),
    )

    def __post_init__(self):
        super().__post_init__()
        require_choice("parametrisation", self.parametrisation, PARAMETRISATIONS)
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be two numbers above 0, the smaller first, got {self.scale}")


LEARNING_RATES = {"layer": 0.01, "fourier": 0.02, "pixels": 0.01}


class ClipInversionResult(NamedTuple):
    """The morphed picture, and every loss term at every step."""

    picture: Tensor  # like the picture given
    history: Tensor  # (steps, terms) float32
    terms: tuple[str, ...]  # names of the columns of history; "loss" is the weighted sum


class ClipInversion:
    """A morph in progress: :meth:`step` until :attr:`done`; :meth:`state_dict` at any time between steps.

    The first guess is made on construction, in :attr:`prepared_in` seconds.

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

    Raises:
        ValueError: For a picture, prompt or setting that cannot be used; the message says which.
        TypeError: If the picture is not floating point.
    """

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
    ):
        self.config = config = config or ClipInversionConfig()
        _require_picture(picture)
        require_guides(encoders, source, target, config)
        self.perceptual = perceptual
        chance = int(torch.randint(2**62, (), generator=generator))
        began = time.perf_counter()

        self.full = picture.detach()[None].float()
        self.source = _shrink(self.full, config.working_size or _working_size(encoders))
        self.guidance = Guidance(encoders, source, target, config, key=chance + 1)
        self.edit = parametrise(
            config.parametrisation,
            self.source,
            generator=torch.Generator().manual_seed(chance),
            start=self._start(chance + 2),
        )
        self.prepared_in = time.perf_counter() - began
        rate = config.learning_rate or LEARNING_RATES[config.parametrisation]
        self.optimizer = torch.optim.Adam(self.edit.parameters(), lr=rate)
        self._rate = rate
        self.index = 0
        self.terms: tuple[str, ...] = ()
        self._history: list[Tensor] = []
        self._run = {
            "config": plain(config),
            "source": source,
            "target": target,
            "encoders": [encoder.name for encoder in encoders],
            "picture": hashlib.sha256(self.full.cpu().numpy().tobytes()).hexdigest(),
            "seed": chance,
        }

    def _start(self, chance: int) -> Guess | None:
        """The guess to start from, if there is one that says enough of what the text asks."""
        config = self.config
        if config.parametrisation != "layer" or config.guess > 1:
            return None
        size = max(encoder.image_size for encoder in self.guidance.encoders)
        small = F.interpolate(self.source, (size, size), mode="bilinear", antialias=True, align_corners=False)
        how = {"size": size, "area": config.opacity}
        given = self.source, colour_centres(small[0]), self.guidance.likeness
        best = recolour(*given, **how)
        outline = reshape(
            *given, **how, least=best.score - 0.3, generator=torch.Generator().manual_seed(chance)
        )
        if outline is not None and outline.score > best.score:
            best = outline
        return best if best.cosine >= config.guess else None

    @property
    def done(self) -> bool:
        """Whether every step has been taken."""
        return self.index >= self.config.steps

    @property
    def history(self) -> Tensor:
        """Loss terms so far, ``(index, len(terms))`` float32 on the CPU."""
        return torch.stack(self._history).cpu() if self._history else torch.empty(0, len(self.terms))

    @property
    def loss(self) -> float:
        """The weighted sum at the last step; waits for the device."""
        return self._history[-1][0].item()

    def picture(self) -> Tensor:
        """The picture as it stands, like the one given: float32 in [0, 1], at full size."""
        return self.edit.render(self.source, self.full)[0]

    def step(self) -> None:
        """Take one Adam step.

        Raises:
            RuntimeError: If every step has been taken.
            FloatingPointError: On the CPU, if the loss is no longer finite.
            MemoryError: If memory runs out; names the settings to lower.
        """
        if self.done:
            raise RuntimeError(f"all {self.config.steps} steps have been taken")
        with naming_knobs("views or working_size (--size)"):
            self._step()

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

        for group in self.optimizer.param_groups:
            group["lr"] = self._rate * 0.5 * (1 + math.cos(math.pi * self.index / self.config.steps))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

        self.terms = ("loss", *terms)
        self._history.append(torch.stack([loss, *terms.values()]).detach())
        self.index += 1

    def state_dict(self) -> dict:
        """Everything a later run needs to end as this one would: tensors, numbers and strings only."""
        return {
            "run": self._run,
            "index": self.index,
            "terms": list(self.terms),
            "history": self.history,
            "edit": self.edit.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "kept": dict(self.guidance.kept),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from a state of the same run.

        Raises:
            ValueError: If the state belongs to a run with another picture, prompt, encoder, seed or setting.
        """
        require_same_run(state["run"], self._run)
        device = self.source.device
        self.edit.load_state_dict(state["edit"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.index, self.terms = state["index"], tuple(state["terms"])
        self._history = [row.to(device) for row in state["history"]]
        self.guidance.load(state["kept"], self.index, device)

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
    while not run.done:
        run.step()
        if callback is not None:
            callback(run)
    return ClipInversionResult(run.picture(), run.history, run.terms)


def _require_picture(picture: Tensor) -> None:
    if not isinstance(picture, Tensor):
        raise TypeError(f"picture must be a tensor, got {type(picture).__name__}")
    require_float("picture", picture)
    if picture.dim() != 3 or picture.shape[0] != 3 or 0 in picture.shape:
        raise ValueError(f"picture must have shape (3, H, W), got {tuple(picture.shape)}")
    require_finite("picture", picture)


def _working_size(encoders: Sequence[ClipEncoder]) -> int:
    return min(512, 2 * max(encoder.image_size for encoder in encoders))


def _shrink(picture: Tensor, longest: int) -> Tensor:
    """The picture with its longest side at most ``longest``."""
    H, W = picture.shape[-2:]
    if max(H, W) <= longest:
        return picture
    size = [max(1, round(side * longest / max(H, W))) for side in (H, W)]
    return F.interpolate(picture, size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
