r"""OIG+'s cycle: the source goes back into noise while its edit leaves it, and each is held to the other.

Beside an edit's latents $x$, which come down from the noisiest level, latents $y$ of its own go up from the
source's picture by DDIM's inversion, one level for each of the edit's N steps. At step i, with $T$ the
noisiest level and $G$ the sampling with the target's words from $T$ to a picture,

.. math::
    L_3(x) = \lVert \hat x_0(x) - G(\hat y_T) \rVert_2, \qquad
    L_4(y) = \lVert \hat y_T(y) - \hat x'_T \rVert_2,

where $\hat x_0$ is the picture in $x$, and $\hat y_T$ what $y$ becomes at $T$ by the noise that the U-Net
finds in it. $\hat x'_T$ is what the picture in the edit's next latents becomes at $T$, by the noise that is
found in that picture. $x$ takes a step of $\lambda (1 - i/N)$ against the gradient of $L_3$, and $y$ a fifth
of it against that of $L_4$; what each is held to is a constant.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.denoiser import Words
from .ddim import Parts, Schedule

CYCLE_TERMS = ("cycle", "source_cycle")  # L3 and L4
SOURCE_SHARE = 0.2  # of the edit's weight, for the source


class Ahead(NamedTuple):
    """What a step knows of the source's way back into noise."""

    latents: Tensor  # y, a leaf
    parts: Parts  # of y, with gradients to it
    goal: Tensor  # G, what the edit's picture is held to


class Cycle:
    """The source's latents on their way back into noise, ``(B, C, h, w)``: one row an edit.

    Args:
        output: The U-Net's, of latents, timestep and words: :func:`guided_output` with its settings.
        schedule: Of the edit.
        source: The words by which a source is sampled, ``B`` rows each.
        target: The words of the edits.
        weight: Of the cycle.
        steps: Of the sampling that closes it; None for all of the schedule.
    """

    def __init__(
        self,
        output: Callable[[Tensor, int, Sequence[Words]], Tensor],
        schedule: Schedule,
        source: Sequence[Words],
        target: Sequence[Words],
        *,
        weight: float,
        steps: int | None,
    ):
        self.output, self.schedule, self.source, self.target = output, schedule, source, target
        self._weight = weight
        N, K = len(schedule), min(steps or len(schedule), len(schedule))
        self.levels = [k * N // K for k in range(K + 1)]
        self.latents: Tensor | None = None

    def weight(self, index: int) -> float:
        """Of the edit's step against the cycle at the step of this number; it decays."""
        return self._weight * (1 - index / len(self.schedule))

    @torch.no_grad()
    def begin(self, noise: Tensor, words: Sequence[Words]) -> None:
        """Sample sources out of ``noise``, ``(S, C, h, w)``, by ``words``: the way back begins there."""
        B = len(self.source[0].rows)
        self.latents = self._sample(noise, words, range(len(self.schedule) + 1)).expand(B, -1, -1, -1)

    def look(self, index: int) -> Ahead:
        """What the step of this number is held to, and what the way back can learn from it."""
        y = self.latents.detach().requires_grad_()
        parts = self._find(y, index)
        noise = parts.at(self.schedule.shares[0]).detach()
        return Ahead(y, parts, self._sample(noise, self.target, self.levels))

    @torch.no_grad()
    def advance(self, index: int) -> None:
        """Go a level up without guidance."""
        self.latents = self._find(self.latents, index).at(self._share(index + 1))

    def follow(self, ahead: Ahead, edits: Tensor, index: int, *, scale: float = 1.0) -> Tensor:
        """Go a level up, and towards where the edits came from; L4, ``(B,)``.

        Args:
            ahead: Of :meth:`look` at this step.
            edits: Their latents after it, which is not the last.
            index: Its number.
            scale: Of the gradient on its way back.
        """
        noisiest = self.schedule.shares[0]
        with torch.no_grad():
            output = self.output(edits, self.schedule.timesteps[index + 1], self.target)
            picture = self.schedule.split(edits, output, self.schedule.shares[index + 1]).picture
            output = self.output(picture, self.schedule.timesteps[-1], self.target)
            origin = _taken_apart(self.schedule, picture, output, 1.0).at(noisiest)
        loss = distance(ahead.parts.at(noisiest), origin)
        (gradient,) = torch.autograd.grad((scale * loss).sum(), ahead.latents)
        moved = ahead.parts.at(self._share(index + 1)).detach()
        self.latents = moved - SOURCE_SHARE * self.weight(index) / scale * gradient
        return loss.detach()

    def _find(self, y: Tensor, index: int) -> Parts:
        """What ``y`` is made of after ``index`` steps; the U-Net is told the noisier end of the next."""
        output = self.output(y, self.schedule.timesteps[-1 - index], self.source)
        return _taken_apart(self.schedule, y, output, self._share(index))

    def _share(self, taken: int) -> float:
        """The signal's, after so many steps back."""
        return self.schedule.shares[-1 - taken]

    @torch.no_grad()
    def _sample(self, latents: Tensor, words: Sequence[Words], levels: Sequence[int]) -> Tensor:
        shares = self.schedule.shares
        for level, after in pairwise(levels):
            output = self.output(latents, self.schedule.timesteps[level], words)
            latents = self.schedule.split(latents, output, shares[level]).at(shares[after])
        return latents


def distance(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean, of each edit's latents, ``(B,)``; gradients to both, 0 where they are equal."""
    return (x - y).flatten(1).norm(dim=1)


def _taken_apart(schedule: Schedule, latents: Tensor, output: Tensor, share: float) -> Parts:
    """Parts of latents that may be without noise, in which the least noisy level's is found nevertheless."""
    if share < 1:
        return schedule.split(latents, output, share)
    return Parts(latents, schedule.split(latents, output, schedule.shares[-2]).noise)
