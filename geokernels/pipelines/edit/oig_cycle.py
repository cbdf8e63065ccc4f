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

import torch
from torch import Tensor

from ...models.denoiser import Words
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
        """Of the edit's step against the cycle at the step of this number; it decays."""
        return self._weight * (1 - index / len(self.schedule))

    @torch.no_grad()
    def begin(self, noise: Tensor, words: Sequence[Words]) -> None:
        """Sample sources out of ``noise``, ``(S, C, h, w)``, by ``words``: the way back begins there."""
        B = len(self.source[0].rows)
        self.latents = self._sample(noise, words, range(len(self.schedule) + 1)).expand(B, -1, -1, -1)

    @torch.no_grad()
    def goal(self, index: int) -> Tensor:
        """What the target's words make of the source's latents at the step of this number: G."""
        noise = self._find(self.latents, index).at(self.schedule.shares[0])
        return self._sample(noise, self.target, self.levels)

    @torch.no_grad()
    def advance(self, index: int) -> None:
        """Go a level up without guidance."""
        self.latents = self._find(self.latents, index).at(self._share(index + 1))

    def follow(self, edits: Tensor, index: int, *, scale: float = 1.0) -> Tensor:
        """Go a level up, and towards where the edits came from; L4, ``(B,)``.

        Args:
            edits: Their latents after the step of this number, which is not the last.
            index: The number.
            scale: Of the gradient on its way back.
        """
        origin, y = self._origin(edits, index + 1), self.latents.detach().requires_grad_()
        # again, after goal: a graph that was kept until now would lie beside that of the edit
        parts = self._find(y, index)
        loss = distance(parts.at(self.schedule.shares[0]), origin)
        (gradient,) = torch.autograd.grad((scale * loss).sum(), y)
        moved = parts.at(self._share(index + 1)).detach()
        self.latents = moved - SOURCE_SHARE * self.weight(index) / scale * gradient
        return loss.detach()

    @torch.no_grad()
    def _origin(self, edits: Tensor, level: int) -> Tensor:
        """The noisiest latents of the picture in ``edits``, by the noise that is found in the picture."""
        schedule = self.schedule
        output = self.output(edits, schedule.timesteps[level], self.target)
        picture = schedule.split(edits, output, schedule.shares[level]).picture
        output = self.output(picture, schedule.timesteps[-1], self.target)
        return _taken_apart(schedule, picture, output, 1.0).at(schedule.shares[0])

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
