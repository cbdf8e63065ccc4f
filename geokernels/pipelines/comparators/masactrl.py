"""MasaCtrl (Cao et al., ICCV 2023): an edit looks at its source's contents where it would look at its own."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor

from ..._checks import require_share, settle
from ..._renamed import Renamed
from ...models.denoiser import Denoiser
from ...models.latents import UnsuitedPipelineError
from .attention import attending, in_order, plain_attention, self_attentions
from .lockstep import from_source, leave_noise
from .task import EditModels, EditTask


@dataclass(frozen=True)
class MasaCtrlConfig(Renamed, guidance="guidance_scale"):
    """From when and where on an edit looks at its source.

    Attributes:
        guidance_scale: Scale of classifier-free guidance.
        start: Share of the steps before; 4 of 50 were published.
        layer: Share of the self-attentions before; 10 of Stable Diffusion's 16 were published.
    """

    guidance_scale: float = 7.5
    start: float = 0.08
    layer: float = 0.625

    def __post_init__(self):
        settle(self)
        require_share("start", self.start)
        require_share("layer", self.layer)


def masactrl(models: EditModels, task: EditTask, config: MasaCtrlConfig) -> Tensor:
    """Edit by mutual self-attention, without the published option of masks.

    Edits with and without their prompts look at the one source, which is inverted with its caption.
    """
    denoiser = Denoiser(models.pipeline)
    layers = self_attentions(in_order(denoiser.unet))
    layers = layers[int(config.layer * len(layers)) :]
    if not layers:
        raise UnsuitedPipelineError("MasaCtrl needs a U-Net with self-attention, this one has none so late")

    def looking(share: float) -> AbstractContextManager:
        return attending(layers, _at_source) if share >= config.start else nullcontext()

    latents = leave_noise(
        denoiser, task.source, task.targets, guidance_scale=config.guidance_scale, looking=looking
    )
    return denoiser.pictures(latents)


def _at_source(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return plain_attention(q, from_source(k, (0, 0, 0)), from_source(v, (0, 0, 0)), scale)
