"""LPIPS, for real pictures.

For the rendered world compare the maps of its own CLIP (``ClipEncoder.image_features``) by
:func:`geokernels.losses.feature_distance`, and call it a feature distance.
"""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from .._checks import require_choice
from .._modes import own_modes
from .tensor_files import fitted, read_state

BACKBONES = ("alex", "vgg", "squeeze")


@own_modes
def load_lpips(
    backbone: str = "alex",
    weights: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    called: str = "weights",
) -> nn.Module:
    """Load LPIPS, frozen.

    Args:
        backbone: ``"alex"``, ``"vgg"`` or ``"squeeze"``.
        weights: State dict of torchvision's backbone; None lets torchvision download it. The learned channel
            weights come with the ``lpips`` package.
        device: Where to.
        called: What messages call ``weights``.

    Returns:
        A module that takes two pictures ``(B, 3, H, W)`` in [0, 1] to distances ``(B,)``, differentiable in
        both.

    Raises:
        ImportError: If lpips is not installed.
        FileNotFoundError: If there is no such weights file.
        ValueError: If the backbone is unknown, or the file is damaged, not finite, or does not fit it.
    """
    require_choice("backbone", backbone, BACKBONES)
    try:
        import lpips
    except ImportError as error:
        raise ImportError('LPIPS needs the lpips package: pip install "geokernels[morph]"') from error
    with warnings.catch_warnings():
        # lpips calls torchvision by arguments it has deprecated
        warnings.simplefilter("ignore")
        net = lpips.LPIPS(net=backbone, pnet_rand=weights is not None, verbose=False)
    if weights is not None:
        _fill(net.net, Path(weights), backbone, called)
    return _Lpips(net).to(device)


class _Lpips(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net.requires_grad_(False).eval()

    def forward(self, pictures: Tensor, others: Tensor) -> Tensor:
        return self.net(pictures, others, normalize=True).flatten()


def _fill(net: nn.Module, path: Path, backbone: str, called: str) -> None:
    """Fill lpips' slices of a backbone from torchvision's state dict: ``features.3.weight`` is layer 3."""
    state = read_state(called, path)
    own = net.state_dict()
    named = {f"features.{key.split('.', 1)[1]}": key for key in own}
    expected = {name: own[key] for name, key in named.items()}
    how = {"name": called, "file": path.name, "what": backbone, "but": r"classifier\..*"}
    weights = fitted(expected, state, asked="backbone", **how)
    net.load_state_dict({key: weights[name] for name, key in named.items()})
