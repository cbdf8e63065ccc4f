"""The noise out of which a rectified flow makes a picture: the flow's own way, followed upwards."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ..._checks import require_choice
from ..._modes import own_modes
from ...models.flow import FlowModel, latent_model
from ...models.latents import LatentModel, Words
from .classifier_free import guided_output
from .flow_schedule import flow_schedule
from .flow_solvers import SOLVERS, travel
from .source import EditSource, ddim_inversion, inversion_levels, require_captioned

SOLVER = "midpoint"


@own_modes
@torch.no_grad()
def flow_inversion(
    pipeline,
    pictures: Tensor,
    captions: Sequence[str],
    *,
    steps: int = 28,
    solver: str = SOLVER,
    callback: Callable[[int], None] = lambda index: None,
) -> EditSource:
    """Noise out of which a rectified flow makes ``pictures`` again, found without guidance.

    Each step is told the level at which its state lies: the first, that of a clean picture, is 0. Where
    guidance is an input, as for FLUX.1 dev, it is 1.

    Args:
        pipeline: Of diffusers: Stable Diffusion 3 or FLUX.
        pictures: ``(S, 3, H, W)`` in [0, 1].
        captions: What each shows.
        steps: Levels of the edit, as the pipeline's scheduler spreads them.
        solver: ``"euler"``, ``"midpoint"``, ``"rf_solver"`` or ``"fireflow"``, see :func:`travel`.
        callback: Called after each step with its number, from 1.

    Returns:
        The noise, for as many edits as are wanted, with the states on the way to it.

    Raises:
        ValueError: If shapes, captions, steps or values do not suit.
        TypeError: If the pipeline is of another kind, or the pictures are not floating point.
    """
    require_choice("solver", solver, SOLVERS)
    model = FlowModel(pipeline)
    captions = require_captioned(pictures, captions)
    x, words = model.encode(pictures), model.read(captions)
    schedule, path = flow_schedule(model, steps, x.shape[-2:]), [x]
    velocity = partial(model, words=words)
    for k, state in enumerate(travel(velocity, x, schedule.shares[::-1], solver)):
        path.append(state)
        callback(k + 1)
    return EditSource(
        path[-1], captions, True, steps, model.digest(), path=torch.stack(path[::-1]), solver=solver
    )


@torch.no_grad()
def leave_flow(
    model: FlowModel,
    x: Tensor,
    levels: Sequence[float],
    words: Sequence[Words],
    *,
    guidance_scale: float,
    solver: str = "euler",
) -> Tensor:
    """Sample: latents at the last of ``levels``, led there from ``x`` at the first by guided velocities.

    Args:
        model: Whose velocity.
        x: ``(B, C, h, w)``.
        levels: Where the steps begin and end.
        words: Of :meth:`FlowModel.guided`.
        guidance_scale: Of the pair, where there is one.
        solver: See :func:`travel`.
    """
    velocity = partial(guided_output, model, words=words, guidance_scale=guidance_scale)
    for state in travel(velocity, x, levels, solver):
        x = state
    return x


def invert(pipeline, pictures: Tensor, captions: Sequence[str], *, solver: str | None = None, **settings):
    """The inversion that suits the pipeline: :func:`ddim_inversion` or :func:`flow_inversion`.

    Raises:
        ValueError: If a solver is given for a U-Net, or a skip for a transformer; and theirs.
    """
    if isinstance(latent_model(pipeline), FlowModel):
        if settings.pop("skip", None):
            raise ValueError("skip must be left out for a rectified-flow model, whose every level is taken")
        return flow_inversion(pipeline, pictures, captions, solver=solver or SOLVER, **settings)
    if solver is not None:
        raise ValueError(f"solver must be left out for a U-Net, which is inverted by DDIM, got {solver!r}")
    return ddim_inversion(pipeline, pictures, captions, **settings)


def inversion_steps(model: LatentModel, steps: int) -> int:
    """How many steps :func:`invert` takes, for who shows how far it is."""
    return steps if isinstance(model, FlowModel) else len(inversion_levels(steps))
