"""Inversion: the W+ code by which a network draws a given picture."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..._checks import require_positive, settle
from ..._modes import own_modes
from ...losses.perceptual import pyramid_distance
from ...models.stylegan2 import Generator
from ..descent import Descent, require_finite_step
from ..morph.picture import require_picture
from ..run import Tell
from ..run_state import checksum, plain


@dataclass(frozen=True, kw_only=True)
class WInversionConfig:
    """How a picture is inverted. The defaults were chosen on the rendered world.

    Attributes:
        steps: Adam steps.
        learning_rate: Of the first step; the cosine schedule ends at 0.
        perceptual: Weight of the perceptual distance, beside the mean squared error, whose weight is 1.
        searched: Samples among which the start is looked for.
        chunk: Samples drawn at a time.
    """

    steps: int = 200
    learning_rate: float = 0.05
    perceptual: float = 0.1
    searched: int = 256
    chunk: int = 16

    def __post_init__(self):
        settle(self)
        for name in ("steps", "learning_rate", "searched", "chunk"):
            require_positive(name, getattr(self, name))
        if not 0 <= self.perceptual < math.inf:
            raise ValueError(f"perceptual must be a finite number, 0 or above, got {self.perceptual}")


class WInversionResult(NamedTuple):
    """The code, what is drawn of it, and every loss term at every step.

    Attributes:
        w: The code in W+, ``(1, codes, style_dim)``.
        picture: What is drawn of it, ``(3, size, size)`` in [0, 1].
        history: ``(steps, terms)`` float32.
        terms: Names of the columns of ``history``; ``"loss"`` is the weighted sum.
    """

    w: Tensor
    picture: Tensor
    history: Tensor
    terms: tuple[str, ...]


class WInversion(Descent):
    """An inversion in progress, see :class:`Run`; :meth:`prepare` looks for the nearest of some samples.

    Args:
        model: The network; not changed.
        picture: ``(3, H, W)`` in [0, 1], floating point, on its device; its middle square is resized to the
            network's size.
        config: See :class:`WInversionConfig`.
        generator: Source of random numbers, on the CPU.
        perceptual: Distance of two ``(1, 3, H, W)`` pictures to a scalar or ``(1,)``, LPIPS for instance;
            ``pyramid_distance``, which needs no model, by default.

    Raises:
        ValueError: If the picture has another shape, is not finite, or lies outside of [0, 1].
        TypeError: If it is not floating point.
    """

    knobs = "chunk (--chunk), or take a smaller network"

    @own_modes
    def __init__(
        self,
        model: Generator,
        picture: Tensor,
        *,
        config: WInversionConfig | None = None,
        generator: torch.Generator,
        perceptual: Callable[[Tensor, Tensor], Tensor] = pyramid_distance,
    ):
        self.config = config = config or WInversionConfig()
        require_picture(picture)
        self.model, self.perceptual = model, perceptual
        self.goal = middle_square(picture.detach().float(), model.config.size)[None]
        self._seed = int(torch.randint(2**62, (), generator=generator))
        facts = {
            "config": plain(config),
            "model": model.name,
            "picture": checksum(self.goal),
            "seed": self._seed,
        }
        self.w = torch.zeros(
            1, model.config.codes, model.config.style_dim, device=self.goal.device, dtype=torch.float32
        )
        self.w.requires_grad_()
        self._begin(facts, steps=config.steps, rate=config.learning_rate)
        self._optimise([self.w])

    @own_modes
    @torch.no_grad()
    def picture(self) -> Tensor:
        """What is drawn of the code as it stands, ``(3, size, size)`` in [0, 1]."""
        return self.model.synthesis(self.w)[0].clamp(0, 1)

    def _prepare(self, tell: Tell) -> None:
        if self.index == 0:  # otherwise w is that of a state
            tell("looking for the nearest sample")
            self.w.data.copy_(self._nearest())

    def _step(self) -> Tensor:
        drawn = self.model.synthesis(self.w)
        squared = (drawn - self.goal).square().mean()
        distance = self.perceptual(drawn.clamp(0, 1), self.goal).mean()
        loss = squared + self.config.perceptual * distance
        (self.w.grad,) = torch.autograd.grad(loss, self.w)
        require_finite_step(self.index, loss.detach(), self.w.grad.norm())
        return self._descend(loss, {"squared": squared, "perceptual": distance})

    @torch.no_grad()
    def _nearest(self) -> Tensor:
        """The code of the sample that differs least from the picture, at an eighth of the size."""
        chance = torch.Generator().manual_seed(self._seed)
        z = torch.randn(
            self.config.searched, self.model.config.style_dim, generator=chance, dtype=torch.float32
        )
        w = self.model.mapping(z.to(self.goal))
        side = max(8, self.model.config.size // 8)
        goal = _small(self.goal, side)
        errors = [
            (_small(self.model.synthesis(part), side) - goal).square().mean((1, 2, 3))
            for part in w.split(self.config.chunk)
        ]
        return w[torch.cat(errors).argmin()].expand_as(self.w)

    def _own_state(self) -> dict:
        return {"w": self.w.detach()}

    def _take_state(self, state: dict) -> None:
        self.w.data.copy_(state["w"])


def invert_picture(
    model: Generator,
    picture: Tensor,
    *,
    config: WInversionConfig | None = None,
    generator: torch.Generator,
    perceptual: Callable[[Tensor, Tensor], Tensor] = pyramid_distance,
    callback: Callable[[WInversion], None] | None = None,
) -> WInversionResult:
    """Find the W+ code by which ``model`` draws ``picture``.

    Arguments and errors are those of :class:`WInversion`, which this runs to its end; ``callback`` is called
    with it after every step.

    Returns:
        The code, what is drawn of it, and the history of its losses.
    """
    run = WInversion(model, picture, config=config, generator=generator, perceptual=perceptual)
    run.finish(callback)
    return WInversionResult(run.w.detach(), run.picture(), run.history, run.terms)


def middle_square(picture: Tensor, size: int) -> Tensor:
    """The largest middle square of ``picture`` (3, H, W), resized to ``(3, size, size)``."""
    H, W = picture.shape[-2:]
    side = min(H, W)
    top, left = (H - side) // 2, (W - side) // 2
    square = picture[:, top : top + side, left : left + side]
    return square if side == size else _small(square[None], size)[0].clamp(0, 1)


def _small(pictures: Tensor, side: int) -> Tensor:
    return F.interpolate(pictures, (side, side), mode="bilinear", antialias=True, align_corners=False)
