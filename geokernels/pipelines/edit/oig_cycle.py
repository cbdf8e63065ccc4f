r"""OIG+'s cycle: the source goes back into noise while its edit leaves it, and each is held to the other.

Beside an edit's latents $x$, which come down from the noisiest level, latents $y$ of its own go up from the
source's picture by DDIM's inversion, told their own level as in :func:`ddim_inversion`. They go first: y has
taken i + 1 steps where x has taken i. At the noisiest level, which y reaches before the last step of x, it
stays. With $T$ the noisiest level and $G$ the sampling with the target's words from $T$ to a picture,

.. math::
    L_3(x) = \lVert \hat x_0(x) - G(\hat y_T) \rVert_2, \qquad
    L_4(y) = \lVert \hat y_T(y) - \hat x'_T \rVert_2,

where $\hat x_0$ is the picture in $x$, and $\hat y_T$ what $y$ becomes at $T$ by the noise that the U-Net
finds in it. $\hat x'_T$ is what the picture in the edit's latents, which have taken as many steps as $y$,
becomes at $T$, by the noise that is found in that picture. Step i of $y$ is one of $\lambda (1 - i/N) / 5$
against the gradient of $L_4$, and that of $x$ one of $\lambda (1 - j/N)$ against that of $L_3$, where j is
that of :func:`one_on`; what each is held to is a constant.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ...models.latents import Words
from .ddim import Parts, Schedule

CYCLE_TERMS = ("cycle", "source_cycle")  # L3 and L4
SOURCE_SHARE = 0.2  # of the edit's weight, for the source


class Cycle:
    """The source's latents on their way back into noise, ``(B, C, h, w)``: one row per edit.

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
        """Of an edit's step against the cycle; it decays. Of a source's step it is a part of that."""
        return self._weight * (1 - index / len(self.schedule))

    @torch.no_grad()
    def begin(self, noise: Tensor, words: Sequence[Words]) -> None:
        """Sample sources out of ``noise``, ``(S, C, h, w)``, by ``words``: the way back begins there."""
        B = len(self.source[0].rows)
        self.latents = self._sample(noise, words, range(len(self.schedule) + 1)).expand(B, -1, -1, -1)

    @torch.no_grad()
    def goal(self, index: int) -> Tensor:
        """What the target's words make of the source's latents at the edit's step of this number: G."""
        noise, _ = self._lead_up(self.latents, index + 1)
        return self._sample(noise, self.target, self.levels)

    @torch.no_grad()
    def advance(self, taken: int) -> None:
        """Go a level up without guidance."""
        _, self.latents = self._lead_up(self.latents, taken)

    def follow(self, edits: Tensor, taken: int, *, scale: float = 1.0) -> Tensor:
        """Go a level up, and towards where the edits came from; L4, ``(B,)``.

        Args:
            edits: Their latents after ``taken`` steps, which are not all.
            taken: Steps that edits and sources have taken.
            scale: Of the gradient on its way back.
        """
        origin, y = self._origin(edits, taken), self.latents.detach().requires_grad_()
        # again, after goal: a graph that was kept until now would lie beside that of the edit
        noisiest, moved = self._lead_up(y, taken)
        loss = distance(noisiest, origin)
        (gradient,) = torch.autograd.grad((scale * loss).sum(), y)
        self.latents = moved.detach() - SOURCE_SHARE * self.weight(taken) / scale * gradient
        return loss.detach()

    @torch.no_grad()
    def _origin(self, edits: Tensor, level: int) -> Tensor:
        """The noisiest latents of the picture in ``edits``, by the noise that is found in the picture."""
        schedule = self.schedule
        output = self.output(edits, schedule.timesteps[level], self.target)
        picture = schedule.split(edits, output, schedule.shares[level]).picture
        output = self.output(picture, schedule.timesteps[-1], self.target)
        # a clean picture shows no noise: it is the noise that the least noisy level's split would find
        noise = schedule.split(picture, output, schedule.shares[-2]).noise
        return Parts(picture, noise).at(schedule.shares[0])

    def _lead_up(self, y: Tensor, taken: int) -> tuple[Tensor, Tensor]:
        """``y`` after ``taken`` steps at the noisiest level, and at the next noisier than its own."""
        level, shares = len(self.schedule) - 1 - taken, self.schedule.shares
        if level <= 0:
            return y, y
        output = self.output(y, self.schedule.timesteps[level], self.source)
        parts = self.schedule.split(y, output, shares[level])
        return parts.at(shares[0]), parts.at(shares[level - 1])

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
