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
    """Keys of one block of a vision transformer of timm, of all heads together.

    Attributes:
        name: The architecture.
        side: Of the square picture that it sees.
        layer: The block, counted as lists are.
        scale: What pictures are multiplied by before they are normalised.
        antialias: Whether they are smoothed before they are made smaller.
        class_token: Whether the class token's key is the first.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        *,
        side: int | None = None,
        layer: int = -1,
        scale: float = 1.0,
        antialias: bool = True,
        class_token: bool = True,
    ):
        super().__init__()
        self.name, self.side = name, side or model.patch_embed.img_size[0]
        self.layer, self.scale, self.antialias, self.class_token = layer, scale, antialias, class_token
        self.model = model.requires_grad_(False).eval()
        self.register_buffer("_mean", torch.tensor(MEAN, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(STD, dtype=torch.float32).view(3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Keys ``(B, N, C)`` of pictures ``(B, 3, H, W)`` in [0, 1]."""
        size = (self.side, self.side)
        if pictures.shape[-2:] != size:
            smooth = {"antialias": self.antialias, "align_corners": False}
            pictures = F.interpolate(pictures, size, mode="bilinear", **smooth)
        projections: list[Tensor] = []
        attention = self.model.blocks[self.layer].attn
        handle = attention.qkv.register_forward_hook(lambda layer, given, rows: projections.append(rows))
        try:
            self.model.forward_features((self.scale * pictures.float() - self._mean) / self._std)
        finally:
            handle.remove()
        keys = projections[0].chunk(3, -1)[1]
        return keys if self.class_token else keys[:, self.model.num_prefix_tokens :]


@own_modes
def load_dino(
    weights: str | Path,
    *,
    architecture: str = "vit_base_patch8_224",
    side: int | None = None,
    device: str | torch.device = "cpu",
    called: str = "weights",
    **settings,
) -> DinoKeys:
    """Load a vision transformer by its state dict.

    Args:
        weights: A file of safetensors, or of ``torch.save`` that holds tensors alone, such as DINO's own
            ``dino_vitbase8_pretrain.pth`` or ``dino_vitbase8_pretrain_full_checkpoint.pth``.
        architecture: Its name in timm; the published structure distance is ViT-B/8's.
        side: Of the square picture that it sees, a multiple of its patches' side; None for its own. For
            another, its places are interpolated by timm.
        device: Where to.
        called: What messages call ``weights``.
        **settings: See :class:`DinoKeys`.

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
    model = timm.create_model(
        architecture, pretrained=False, num_classes=0, dynamic_img_size=side is not None
    )
    fill(model, state, name=called, file=Path(weights).name, what=architecture, but=HEAD, asked="vit")
    return DinoKeys(architecture, model, side=side, **settings).to(device)
