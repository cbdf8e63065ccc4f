r"""Part of the way from pictures to noise, and from there down again, on U-Nets and rectified flows alike."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...models.flow import FlowModel
from ...models.latents import LatentModel, Words
from .classifier_free import guided_output
from .ddim import schedule_of
from .flow_inversion import SOLVER, leave_flow
from .flow_schedule import flow_schedule
from .flow_solvers import travel


class Partway:
    """The steps between pictures and one level of noise, of a model and its scheduler.

    Attributes:
        steps: How many of them lie between the level and a picture.
        picture: What a state at the level has of the picture's latents: it is ``picture x_0 + noise e``.
        noise: What it has of unit noise.

    Args:
        model: Whose.
        steps: From noise to pictures, as for an edit.
        level: Share of them below the level, above 0 and at most 1; at least one is.
        sides: Height and width of the latents, on which the levels of a flow may depend.
        solver: How a flow is led upwards, see :func:`travel`; None for ``"midpoint"``, and for a U-Net.

    Raises:
        ValueError: If the scheduler cannot take so many steps, or is of another kind.
    """

    def __init__(
        self, model: LatentModel, *, steps: int, level: float, sides: tuple[int, int], solver: str | None
    ) -> None:
        self.model, self.solver, self.steps = model, solver or SOLVER, max(1, round(level * steps))
        self._flow = isinstance(model, FlowModel)
        if self._flow:
            self._schedule = flow_schedule(model, steps, sides)
        else:
            self._schedule = schedule_of(model.pipeline.scheduler, steps)
        self._first = steps - self.steps
        share = self._schedule.shares[self._first]
        self.picture, self.noise = (1 - share, share) if self._flow else (share**0.5, (1 - share) ** 0.5)

    @property
    def climbs(self) -> int:
        """How many steps :meth:`up` takes."""
        return self.steps if self._flow else self.steps - 1

    @torch.no_grad()
    def up(self, latents: Tensor, words: Words) -> Iterator[Tensor]:
        """Invert, unguided: the states from that of pictures ``(B, C, h, w)`` on, the last at the level.

        A U-Net's clean latents are taken to lie at the level of its last step, as
        :func:`~geokernels.pipelines.edit.source.ddim_inversion` takes them.
        """
        schedule, state = self._schedule, latents
        yield state
        if self._flow:
            levels = schedule.shares[self._first :][::-1]
            yield from travel(lambda x, s: self.model(x, s, words), state, levels, self.solver)
            return
        for i in range(len(schedule) - 1, self._first, -1):
            output = self.model(state, schedule.timesteps[i], words)
            state = schedule.split(state, output, schedule.shares[i]).at(schedule.shares[i - 1])
            yield state

    @torch.no_grad()
    def down(self, state: Tensor, words: Sequence[Words], *, guidance_scale: float) -> Tensor:
        """Sample: the clean latents of a state ``(B, C, h, w)`` at the level.

        Args:
            state: Where it begins.
            words: Of :meth:`LatentModel.guided`.
            guidance_scale: Of the pair, where there is one.
        """
        schedule = self._schedule
        if self._flow:
            levels = schedule.shares[self._first :]
            return leave_flow(self.model, state, levels, words, guidance_scale=guidance_scale)
        for i in range(self._first, len(schedule)):
            output = guided_output(
                self.model, state, schedule.timesteps[i], words, guidance_scale=guidance_scale
            )
            state = schedule.split(state, output, schedule.shares[i]).at(schedule.shares[i + 1])
        return state
