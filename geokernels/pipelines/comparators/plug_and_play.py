"""Plug-and-Play (Tumanyan et al., CVPR 2023): an edit takes its source's features and where these look."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from ..._checks import require_share, settle
from ..._renamed import Renamed
from ...models.denoiser import Denoiser
from ...models.latents import UnsuitedPipelineError
from .attention import attending, plain_attention, self_attentions
from .lockstep import from_source, leave_noise
from .task import EditModels, EditTask


@dataclass(frozen=True)
class PlugAndPlayConfig(Renamed, guidance="guidance_scale"):
    """How much an edit takes from its source.

    Attributes:
        guidance_scale: Scale of classifier-free guidance.
        features: Share of the steps in which the residual features of one layer are the source's.
        attention: Share of the steps in which queries and keys of self-attention are the source's.
    """

    guidance_scale: float = 7.5
    features: float = 0.8
    attention: float = 0.5

    def __post_init__(self):
        settle(self)
        require_share("features", self.features)
        require_share("attention", self.attention)


def plug_and_play(models: EditModels, task: EditTask, config: PlugAndPlayConfig) -> Tensor:
    """Edit by features; the source is inverted with its caption, and not without as was published."""
    denoiser = Denoiser(models.pipeline)
    feature, layers = injected_layers(denoiser.unet)
    latents = leave_noise(
        denoiser,
        task.source,
        task.targets,
        guidance_scale=config.guidance_scale,
        looking=partial(_injected, feature, layers, config),
    )
    return denoiser.pictures(latents)


def injected_layers(unet) -> tuple[nn.Module, list[nn.Module]]:
    """The convolution whose output, and the self-attentions whose queries and keys are taken from the source.

    In Stable Diffusion 1 they are layer 4 and layers 4 to 11 of the decoder: the second ResNet of the first
    block on the way up that attends, before the skip is added, and every self-attention from there on.

    Raises:
        TypeError: If the U-Net does not attend on its way up, or not from a second ResNet on.
    """
    up = list(unet.up_blocks)
    first = next((i for i, block in enumerate(up) if self_attentions([block])), None)
    if first is None or len(up[first].resnets) < 2:
        raise UnsuitedPipelineError(
            "Plug-and-Play needs a U-Net with attention and two ResNets in a block on its way up"
        )
    before = self_attentions([up[first].attentions[0]])
    return up[first].resnets[1].conv2, self_attentions(up)[len(before) :]


@contextmanager
def _injected(
    feature: nn.Module, layers: list[nn.Module], config: PlugAndPlayConfig, share: float
) -> Iterator[None]:
    with ExitStack() as stack:
        if share < config.features:
            hook = feature.register_forward_hook(lambda layer, given, output: from_source(output, (0, 0, 0)))
            stack.callback(hook.remove)
        if share < config.attention:
            stack.enter_context(attending(layers, _as_source_looks))
        yield


def _as_source_looks(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return plain_attention(from_source(q, (0, 0, 0)), from_source(k, (0, 0, 0)), v, scale)
