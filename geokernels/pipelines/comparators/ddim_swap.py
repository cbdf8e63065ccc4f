"""DDIM swap: the inverted noise is sampled with another prompt, and nothing holds it back."""

from dataclasses import dataclass

from torch import Tensor

from ..._checks import require_choice, settle
from ..._renamed import Renamed
from ...models.denoiser import Denoiser
from .lockstep import leave_noise
from .task import EditModels, EditTask


@dataclass(frozen=True)
class DdimSwapConfig(Renamed, guidance="guidance_scale"):
    """How the swap is sampled.

    Attributes:
        guidance_scale: Scale of classifier-free guidance.
        negative: What it leads away from: ``"source"``, the source's caption, as in OIG without its gradient;
            or ``"empty"``, no prompt.
    """

    guidance_scale: float = 5.0
    negative: str = "source"

    def __post_init__(self):
        settle(self)
        require_choice("negative", self.negative, ("source", "empty"))


def ddim_swap(models: EditModels, task: EditTask, config: DdimSwapConfig) -> Tensor:
    """Edit by the target prompt alone."""
    denoiser = Denoiser(models.pipeline)
    negatives = None
    if config.negative == "source":
        negatives = [denoiser.read(task.source.captions)] * task.source.steps
    latents = leave_noise(
        denoiser, task.source, task.targets, guidance_scale=config.guidance_scale, negatives=negatives
    )
    return denoiser.pictures(latents)
