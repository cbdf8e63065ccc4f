"""DINO's keys, by which the structure of pictures is compared (Tumanyan et al., CVPR 2022)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._modes import own_modes
from .tensor_files import WRAPPERS, fill, read_state

# DINO's training keeps the network that is used as teacher, and its head, which is not, beside it
TEACHER, HEAD = ("teacher", *WRAPPERS), r"head\..*"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class DinoKeys(nn.Module):
    """Keys of the last block of a vision transformer of timm, of all heads together.

    Attributes:
        name: The architecture.
        side: Of the square picture that it sees.
    """

    def __init__(self, name: str, model: nn.Module):
        super().__init__()
        self.name, self.side = name, model.patch_embed.img_size[0]
        self.model = model.requires_grad_(False).eval()
        self.register_buffer("_mean", torch.tensor(MEAN, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(STD, dtype=torch.float32).view(3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Keys ``(B, N, C)``, the class token's first, of pictures ``(B, 3, H, W)`` in [0, 1]."""
        size = (self.side, self.side)
        if pictures.shape[-2:] != size:
            pictures = F.interpolate(pictures, size, mode="bilinear", antialias=True, align_corners=False)
        projections: list[Tensor] = []
        attention = self.model.blocks[-1].attn
        handle = attention.qkv.register_forward_hook(lambda layer, given, rows: projections.append(rows))
        try:
            self.model.forward_features((pictures.float() - self._mean) / self._std)
        finally:
            handle.remove()
        return projections[0].chunk(3, -1)[1]


@own_modes
def load_dino(
    weights: str | Path,
    *,
    architecture: str = "vit_base_patch8_224",
    device: str | torch.device = "cpu",
    called: str = "weights",
) -> DinoKeys:
    """Load a vision transformer by its state dict.

    Args:
        weights: A file of safetensors, or of ``torch.save`` that holds tensors alone, such as DINO's own
            ``dino_vitbase8_pretrain.pth`` or ``dino_vitbase8_pretrain_full_checkpoint.pth``.
        architecture: Its name in timm; the published structure distance is ViT-B/8's.
        device: Where to.
        called: What messages call ``weights``.

    Raises:
        ImportError: If timm is not installed.
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, does not fit the architecture, or is not finite.
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError('DINO needs timm: pip install "geokernels[morph]"') from error
    state = read_state(called, weights, wrappers=TEACHER)
    state = {key.removeprefix("backbone."): value for key, value in state.items()}
    model = timm.create_model(architecture, pretrained=False, num_classes=0)
    fill(model, state, name=called, file=Path(weights).name, what=architecture, but=HEAD, asked="vit")
    return DinoKeys(architecture, model).to(device)
