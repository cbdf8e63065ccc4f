"""Features inside a network, and what its modules must be set to while gradients run through them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from operator import itemgetter
from threading import get_ident

from torch import Tensor, nn

from ...models.latents import UnsuitedPipelineError


def residual_convolutions(unet) -> list[nn.Module]:
    """The second convolution of every ResNet block on the way down and up; the middle's are left out."""
    blocks = [*unet.down_blocks, *unet.up_blocks]
    convolutions = [resnet.conv2 for block in blocks for resnet in getattr(block, "resnets", ())]
    if not convolutions:
        raise UnsuitedPipelineError(
            f"unet must have ResNet blocks on its way down and up, {type(unet).__name__} has none"
        )
    return convolutions


def spread_blocks(transformer, share: float) -> list[nn.Module]:
    """``share`` of a transformer's blocks, in their order and evenly spread, the last among them."""
    blocks = [*transformer.transformer_blocks, *getattr(transformer, "single_transformer_blocks", ())]
    count = max(1, round(share * len(blocks)))
    return [blocks[(k + 1) * len(blocks) // count - 1] for k in range(count)]


def tapped_layers(network, share: float) -> tuple[list[nn.Module], Callable[[object], Tensor]]:
    """The layers whose features say what a picture is like, and how they are had from what a layer returns.

    Of a U-Net they are all its residual convolutions; of a transformer the tokens of the picture, which it
    returns after those of the text, behind ``share`` of its blocks.
    """
    if hasattr(network, "transformer_blocks"):
        return spread_blocks(network, share), itemgetter(1)
    return residual_convolutions(network), lambda output: output


@contextmanager
def tapped(network, *, share: float = 1.0) -> Iterator[list[Tensor]]:
    """Collect the features of :func:`tapped_layers`, before a U-Net's skip is added, in the order they run.

    The list is filled by calls inside the context alone: what checkpointing computes again in a backward
    pass, which must lie outside, is not collected twice. Nor is what other threads ask of the same network.
    """
    features: list[Tensor] = []
    thread = get_ident()
    layers, found = tapped_layers(network, share)

    def collect(module: nn.Module, given: tuple, output: object) -> None:
        if get_ident() == thread:
            features.append(found(output))

    with ExitStack() as stack:
        for layer in layers:
            handle = layer.register_forward_hook(collect)
            stack.callback(handle.remove)
        yield features


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Keep weights out of every graph: no gradient of theirs is computed, nothing is kept for one."""
    learning = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


@contextmanager
def checkpointed(*models, enabled: bool = True) -> Iterator[None]:
    """Compute activations again in the backward pass instead of keeping them; diffusers' own blocks of it."""
    switched = [model for model in models if enabled and not model.is_gradient_checkpointing]
    for model in switched:
        model.enable_gradient_checkpointing()
    try:
        yield
    finally:
        for model in switched:
            model.disable_gradient_checkpointing()
