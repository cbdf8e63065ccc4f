r"""The levels between noise and a picture at which a rectified flow is followed.

A state at level $s$ is $x_s = (1 - s)\,x_0 + s\,\epsilon$, and its velocity $v = \epsilon - x_0$ takes it
apart: $x_0 = x_s - s\,v$, $\epsilon = x_s + (1 - s)\,v$. Put together at another level it is Euler's step,
$x_{s'} = x_s + (s' - s)\,v$.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...models.flow import FlowModel


class FlowParts(NamedTuple):
    """What a state is made of."""

    picture: Tensor
    noise: Tensor

    def at(self, level: float) -> Tensor:
        """The state at ``level``."""
        return (1 - level) * self.picture + level * self.noise


@dataclass(frozen=True)
class FlowSchedule:
    """The steps from noise to a picture.

    Attributes:
        shares: The noise's share of the state before each of N steps, and after the last: N + 1 levels that
            fall from 1 to 0.
    """

    shares: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.shares) - 1

    @property
    def timesteps(self) -> tuple[float, ...]:
        """What the transformer is told at each step: the level at which the state lies."""
        return self.shares[:-1]

    def split(self, latents: Tensor, velocity: Tensor, level: float) -> FlowParts:
        """Take a state at ``level`` apart by its velocity."""
        return FlowParts(latents - level * velocity, latents + (1 - level) * velocity)


def flow_schedule(model: FlowModel, steps: int, sides: tuple[int, int]) -> FlowSchedule:
    """The levels that a pipeline of diffusers would take, shifted as its scheduler says.

    Args:
        model: Whose pipeline; its scheduler is a ``FlowMatchEulerDiscreteScheduler``.
        steps: How many.
        sides: Height and width of the latents, on which a dynamic shift depends.

    Raises:
        ValueError: If the scheduler is of another kind, inverts its levels or adds noise, or has fewer steps.
    """
    import diffusers

    scheduler = model.pipeline.scheduler
    if not isinstance(scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        raise ValueError(
            f"scheduler must be a FlowMatchEulerDiscreteScheduler, got {type(scheduler).__name__}"
        )
    config = scheduler.config
    for name in ("invert_sigmas", "stochastic_sampling"):
        if config.get(name):
            raise ValueError(f"scheduler must not have {name}, which no edit here can follow")
    if not 1 <= steps <= config.num_train_timesteps:
        raise ValueError(f"steps must lie between 1 and {config.num_train_timesteps}, got {steps}")
    own = diffusers.FlowMatchEulerDiscreteScheduler.from_config(config)
    given: dict = {"num_inference_steps": steps}
    if config.use_dynamic_shifting:
        given["mu"] = _shift(config, model.tokens(*sides))
    # FLUX's pipeline says where its levels lie before they are shifted, Stable Diffusion 3's leaves it open
    if model.packed and not config.get("use_flow_sigmas"):
        given["sigmas"] = torch.linspace(1.0, 1 / steps, steps, dtype=torch.float64).tolist()
    own.set_timesteps(**given)
    return FlowSchedule(tuple(own.sigmas.tolist()))


def _shift(config, tokens: int) -> float:
    """By how much levels are shifted for a picture of so many tokens: linear in their number."""
    fewest, most = config.base_image_seq_len, config.max_image_seq_len
    slope = (config.max_shift - config.base_shift) / (most - fewest)
    return config.base_shift + slope * (tokens - fewest)
