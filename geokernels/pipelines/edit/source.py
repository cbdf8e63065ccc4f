"""Where a diffusion edit begins: the noise out of which a source picture comes, and what it shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..._checks import require_finite, require_float, require_rank, require_shades
from ..._modes import own_modes
from ..._sealed import load_sealed, save_sealed
from ...models.denoiser import Denoiser
from ...models.flow import FlowModel, latent_model
from ...models.latents import LatentModel
from ..run_state import require_state
from .ddim import Schedule, schedule_of
from .flow_schedule import FlowSchedule, flow_schedule

KIND, REMEDY = "inversion", "invert the picture again"  # of files
FORMAT = 2  # of files; those without a number tell of levels that are one off


@dataclass(frozen=True)
class EditSource:
    """Source pictures as noise; any number of edits may begin from one.

    Attributes:
        latents: ``(S, C, h, w)``, at least float32.
        captions: What each of the S pictures shows.
        inverted: Whether the noise was found by inverting pictures. Where it was, the pictures come back
            without guidance, and their captions take the place of the empty prompt.
        steps: DDIM steps from noise to pictures.
        model: Names the network; see :meth:`LatentModel.digest`.
        skip: Timesteps left out at either end of the inversion.
        path: What the inversion came through, noise first and the clean latents last, ``(K, S, C, h, w)``;
            None for noise that was drawn. ``path[k]`` lies at the level of step k of :meth:`schedule`; the
            clean latents are taken to lie at the level at which the inversion began.
        solver: Of a rectified flow, see :func:`flow_inversion`; None for DDIM, and for noise that was drawn.
    """

    latents: Tensor
    captions: tuple[str, ...]
    inverted: bool
    steps: int
    model: str
    skip: int = 0
    path: Tensor | None = None
    solver: str | None = None

    def schedule(self, scheduler) -> Schedule:
        """The DDIM steps from the level at which ``latents`` lie; see :func:`schedule_of`."""
        return schedule_of(scheduler, self.steps).below(_last(self.skip) - 1)

    def save(self, path: str | Path) -> None:
        """Write it to a file, whole or not at all."""
        kept = {k: v.cpu() if isinstance(v, Tensor) else v for k, v in vars(self).items()}
        save_sealed(path, {**kept, "captions": list(self.captions), "format": FORMAT}, kind=KIND)

    @staticmethod
    def load(path: str | Path) -> "EditSource":
        """Read what :meth:`save` wrote; no code in it is run.

        Raises:
            ValueError: If the file is damaged, holds something else, or was written by a version that took
                latents for one level and told the U-Net another; it ends with its checksum.
        """
        if not Path(path).is_file():
            raise ValueError(f"an inversion must be a file, got {str(path)!r}, which is not one")
        kept = load_sealed(path, kind=KIND, remedy=REMEDY)
        if kept.pop("format", None) != FORMAT:
            raise ValueError(
                f"the inversion {str(path)!r} was made by another version of geokernels, "
                f"whose levels of noise are not those of this one; {REMEDY}"
            )
        kept.setdefault("solver", None)  # which files without flows do not have
        none = EditSource(torch.empty(0, dtype=torch.float32), (), False, 0, "")
        require_state(kept, {**vars(none), "latents": None, "captions": []}, "inversion")
        require_rank("latents of the inversion", kept["latents"], 4, "(S, C, h, w)")
        return EditSource(**{**kept, "captions": tuple(kept["captions"])})


@own_modes
def draw_source(
    pipeline,
    captions: Sequence[str],
    *,
    steps: int = 50,
    height: int | None = None,
    width: int | None = None,
    generator: torch.Generator,
) -> EditSource:
    """Noise for pictures that the model itself draws of ``captions``.

    Args:
        pipeline: Of diffusers: Stable Diffusion 1, 2, XL or 3, or FLUX.
        captions: One per picture.
        steps: Of DDIM, or levels of a rectified flow.
        height: Of the pictures, in pixels; None for the model's own.
        width: The same.
        generator: Source of random numbers, on the CPU.

    Returns:
        What :func:`oig_edit` starts from.

    Raises:
        ValueError: If a side or the number of steps does not suit the model, or there are no captions.
        TypeError: If the pipeline is of another kind.
    """
    model, captions = latent_model(pipeline), _listed(captions)
    shape = model.latent_shape(height, width)
    noise = torch.randn(len(captions), *shape, generator=generator, dtype=torch.float32).to(
        model.device, model.dtype
    )
    source = EditSource(noise, captions, False, steps, model.digest())
    schedule_for(model, source)  # refuses steps that it cannot take
    return source


def schedule_for(model: LatentModel, source: EditSource) -> Schedule | FlowSchedule:
    """The steps from where a source's latents lie to its picture, as the model takes them."""
    if isinstance(model, FlowModel):
        return flow_schedule(model, source.steps, source.latents.shape[-2:])
    return source.schedule(model.pipeline.scheduler)


@own_modes
@torch.no_grad()
def ddim_inversion(
    pipeline,
    pictures: Tensor,
    captions: Sequence[str],
    *,
    steps: int = 50,
    skip: int = 1,
    callback: Callable[[int], None] = lambda index: None,
) -> EditSource:
    r"""Noise out of which DDIM makes ``pictures`` again, found by going its steps backwards, unguided.

    Sampling takes latents at level i, tells the U-Net timestep $t_i$, splits them at their share $s_i$ of the
    signal, and puts the parts together at $s_{i+1}$. Backwards, too, the U-Net is told the level of the
    latents that it sees: from the least noisy i to the noisiest,

    .. math::
        (\hat x_0, \hat\epsilon) = \mathrm{split}(x_i, u(x_i, t_i), s_i), \qquad
        x_{i-1} = \sqrt{s_{i-1}}\,\hat x_0 + \sqrt{1 - s_{i-1}}\,\hat\epsilon .

    The clean latents are taken to lie at the first level that is not left out. Nothing is noisier than level
    0, where the last step ends: with one timestep left out at either end, or with none, that is where
    sampling begins. Where more are left out, :meth:`EditSource.schedule` begins later.

    Args:
        pipeline: Of diffusers: Stable Diffusion 1, 2 or XL.
        pictures: ``(S, 3, H, W)`` in [0, 1].
        captions: What each shows.
        steps: DDIM steps of the edit.
        skip: Timesteps left out at either end: 1, as published, inverts 48 of 50.
        callback: Called after each step with its number, from 1.

    Returns:
        The noise, for as many edits as are wanted.

    Raises:
        ValueError: If shapes, captions, steps or values do not suit.
        TypeError: If the pipeline is of another kind, or the pictures are not floating point.
    """
    denoiser, captions = Denoiser(pipeline), require_captioned(pictures, captions)
    if skip < 0 or 2 * skip >= steps:
        raise ValueError(f"skip must leave some of the {steps} steps at both ends, got {skip}")
    if steps == 1:
        raise ValueError("steps must be at least 2: from the only level of one step nothing leads to noise")
    schedule, words = schedule_of(pipeline.scheduler, steps), denoiser.read(captions)
    latents = denoiser.encode(pictures)
    path = [latents]
    for k, i in enumerate(inversion_levels(steps, skip=skip)):
        output = denoiser(latents, schedule.timesteps[i], words)
        latents = schedule.split(latents, output, schedule.shares[i]).at(schedule.shares[i - 1])
        path.append(latents)
        callback(k + 1)
    return EditSource(latents, captions, True, steps, denoiser.digest(), skip, torch.stack(path[::-1]))


def inversion_levels(steps: int, *, skip: int = 1) -> range:
    """The levels from which an inversion takes its steps, from the least noisy on."""
    return range(_last(skip), steps - skip)[::-1]


def _last(skip: int) -> int:
    """The noisiest level from which an inversion takes a step: from level 0 nothing leads any further."""
    return max(skip, 1)


def require_captioned(pictures: Tensor, captions: Sequence[str]) -> tuple[str, ...]:
    """The captions, if there is one for each of the pictures, and these are pictures.

    Raises:
        ValueError: If not.
        TypeError: If the pictures are not floating point.
    """
    captions = _listed(captions)
    require_float("pictures", pictures)
    if pictures.dim() != 4 or pictures.shape[1] != 3 or len(pictures) != len(captions):
        raise ValueError(
            f"pictures must have shape ({len(captions)}, 3, H, W), one for each caption, "
            f"got {tuple(pictures.shape)}"
        )
    require_finite("pictures", pictures)
    require_shades("pictures", pictures)
    return captions


def _listed(captions: Sequence[str]) -> tuple[str, ...]:
    if isinstance(captions, str) or not captions:
        raise ValueError(f"captions must be one text per picture, got {captions!r}")
    return tuple(captions)
