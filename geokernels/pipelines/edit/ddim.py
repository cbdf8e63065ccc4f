r"""DDIM, forth and back, for U-Nets that predict noise, the picture or v.

With the signal's share of the variance $s = \bar\alpha$, latents are
$x = \sqrt{s}\,x_0 + \sqrt{1 - s}\,\epsilon$.
A step takes $x_0$ and $\epsilon$ apart at one share, and puts them together at another.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

PREDICTIONS = ("epsilon", "sample", "v_prediction")


class Parts(NamedTuple):
    """What latents are made of."""

    picture: Tensor  # x_0
    noise: Tensor  # epsilon

    def at(self, share: float) -> Tensor:
        """Latents in which the signal has ``share`` of the variance."""
        return math.sqrt(share) * self.picture + math.sqrt(1 - share) * self.noise


@dataclass(frozen=True)
class Schedule:
    """The steps from noise to a picture.

    Attributes:
        timesteps: What the U-Net is told at each of N steps, noisiest first.
        shares: The signal's share of the variance before each step, and after the last: N + 1 numbers.
        prediction: What the U-Net predicts: ``"epsilon"``, ``"sample"`` or ``"v_prediction"``.
    """

    timesteps: tuple[int, ...]
    shares: tuple[float, ...]
    prediction: str

    def __len__(self) -> int:
        return len(self.timesteps)

    def below(self, level: int) -> "Schedule":
        """The steps that are left where the first ``level`` are not taken."""
        return replace(self, timesteps=self.timesteps[level:], shares=self.shares[level:])

    def split(self, latents: Tensor, output: Tensor, share: float) -> Parts:
        """Take latents with ``share`` of signal apart by what the U-Net says of them."""
        signal, rest = math.sqrt(share), math.sqrt(1 - share)
        if self.prediction == "epsilon":
            return Parts((latents - rest * output) / signal, output)
        if self.prediction == "sample":
            if share == 1:  # nothing shows the noise of a clean picture: it is what the next level would show
                noisy = next(share for share in reversed(self.shares) if share < 1)
                return Parts(output, self.split(latents, output, noisy).noise)
            return Parts(output, (latents - signal * output) / rest)
        return Parts(signal * latents - rest * output, signal * output + rest * latents)


def schedule_of(scheduler, steps: int) -> Schedule:
    """The DDIM steps that a diffusers scheduler's own settings mean; its pictures are never clipped.

    Args:
        scheduler: Of any kind that has a table of ``alphas_cumprod``.
        steps: How many.

    Raises:
        ValueError: If the scheduler has no such table, predicts something else, has fewer steps, or ends in
            pure noise, out of which no picture can be divided, where the U-Net predicts noise.
    """
    from diffusers import DDIMScheduler

    config = scheduler.config
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(
            f"scheduler must have a table of alphas_cumprod, {type(scheduler).__name__} has none"
        )
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction_type must be one of {', '.join(PREDICTIONS)}, got {prediction!r}")
    if not 1 <= steps <= config.num_train_timesteps:
        raise ValueError(f"steps must lie between 1 and {config.num_train_timesteps}, got {steps}")
    ddim = DDIMScheduler.from_config(config, clip_sample=False, thresholding=False)
    ddim.set_timesteps(steps)
    timesteps = tuple(ddim.timesteps.tolist())
    table = ddim.alphas_cumprod.double()
    shares = (*table[list(timesteps)].tolist(), float(ddim.final_alpha_cumprod))
    if prediction == "epsilon" and shares[0] == 0:
        raise ValueError("a U-Net that predicts epsilon must have signal at every step, got a share of 0")
    return Schedule(timesteps, shares, prediction)
