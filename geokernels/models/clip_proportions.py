"""What a CLIP sees of pictures that keep their proportions: nothing is cropped, features are not normalised.

Text2LIVE shows its views so: a vision transformer reads as many patches as fit, with its positions
interpolated to them. Models whose positions cannot be interpolated see the picture squeezed to a square.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from .._modes import own_modes
from .clip import ClipEncoder


def encode_whole(encoder: ClipEncoder, pictures: Tensor) -> Tensor:
    """Features of pictures of any proportions, as the model gives them.

    Args:
        encoder: Any CLIP.
        pictures: ``(B, 3, H, W)`` in [0, 1], each side at least as long as a patch.

    Returns:
        ``(B, dim)`` float32, not normalised.

    Gradients:
        To ``pictures``.
    """
    visual = encoder.model.visual
    if not _has_positions(visual):
        return encoder.model.encode_image(encoder.preprocess(_squeezed(encoder, pictures))).float()
    pictures = encoder.preprocess(pictures, fit=False)
    return functional_call(visual, _positions(visual, pictures.shape[-2:]), (pictures,)).float()


def tokens_of_whole(encoder: ClipEncoder, pictures: Tensor) -> Tensor:
    """Tokens before a vision transformer's last block, the class token first.

    Args:
        encoder: Any CLIP. Those without a class token, and those whose positions cannot be interpolated,
            give the tokens of :meth:`ClipEncoder.encode_image_and_tokens` for the squeezed picture.
        pictures: As :func:`encode_whole` takes them.

    Returns:
        ``(B, 1 + N, C)`` float32, N patches.

    Gradients:
        To ``pictures``.
    """
    visual = encoder.model.visual
    if not _has_positions(visual):
        return encoder.encode_image_and_tokens(_squeezed(encoder, pictures))[1]
    pictures = encoder.preprocess(pictures, fit=False)
    positions = {f"visual.{name}": x for name, x in _positions(visual, pictures.shape[-2:]).items()}
    return functional_call(_Tokens(visual), positions, (pictures,)).float()


@own_modes
@torch.no_grad()
def encode_words(encoder: ClipEncoder, prompts: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Features of every prompt in every template as the model gives them, ``(P, T, dim)`` float32."""
    unit = encoder.encode_text(prompts, templates)  # refuses what cannot be read
    tokens = encoder.tokenize([template.format(prompt) for prompt in prompts for template in templates])
    return encoder.model.encode_text(tokens.to(unit.device)).float().view_as(unit)


def _squeezed(encoder: ClipEncoder, pictures: Tensor) -> Tensor:
    size = (encoder.image_size,) * 2
    return F.interpolate(pictures.float(), size, mode="bilinear", align_corners=False)


def _has_positions(visual: nn.Module) -> bool:
    """Whether it is open_clip's transformer, which adds a table of positions to its tokens."""
    from open_clip.transformer import VisionTransformer

    return isinstance(visual, VisionTransformer) and not visual.output_tokens


def _positions(visual: nn.Module, sides: tuple[int, int]) -> dict[str, Tensor]:
    """The table of positions for pictures of these sides, by its name."""
    table = visual.positional_embedding
    rows, columns = visual.grid_size
    wanted = [side // patch for side, patch in zip(sides, visual.patch_size)]
    if wanted == [rows, columns]:
        return {"positional_embedding": table}
    grid = table[1:].view(1, rows, columns, -1).permute(0, 3, 1, 2)
    # a tenth more, so that no rounding loses a row, as in the releases of DINO and of Text2LIVE
    scale = ((wanted[0] + 0.1) / rows, (wanted[1] + 0.1) / columns)
    grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
    return {"positional_embedding": torch.cat([table[:1], grid[0].flatten(1).mT])}


class _Tokens(nn.Module):
    """The tokens of a transformer as a module, so that its table of positions can be replaced for a call."""

    def __init__(self, visual: nn.Module):
        super().__init__()
        self.visual = visual

    def forward(self, pictures: Tensor) -> Tensor:
        passed = self.visual.forward_intermediates(
            pictures,
            indices=2,
            stop_early=True,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        parts = (passed["image_intermediates_prefix"][0], passed["image_intermediates"][0])
        return torch.cat(parts, 1)
