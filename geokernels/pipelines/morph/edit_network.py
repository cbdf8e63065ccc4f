"""The network that paints edits: a picture in, a colour and an opacity for each of its pixels out."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BAND = 256  # rows that are mixed at a time
GROUPS = 8  # of a normalisation; divides every width
FAINTEST = 1 / 510  # opacity, half of a grey level of eight bits
MARGIN = 0.05  # of the opacity's sigmoid beyond [0, 1], so that it reaches both ends


class EditNetwork(nn.Module):
    """A U-Net over pictures, or atlases, of any size.

    It sees colours, not coordinates: what looks alike is edited alike.

    Args:
        widths: Channels of each level, multiples of 8, the finest first; each level halves the sides.
        generator: Source of random numbers.

    Raises:
        ValueError: If a width is no multiple of 8, or there are none.
    """

    def __init__(self, widths: Sequence[int] = (24, 32, 32), *, generator: torch.Generator):
        super().__init__()
        require_widths(widths)
        levels = list(pairwise(widths))
        self.down = nn.ModuleList([_block(3, widths[0]), *(_block(a, b, stride=2) for a, b in levels)])
        self.up = nn.ModuleList(_block(a + b, a) for a, b in reversed(levels))
        self.head = nn.Conv2d(widths[0], 4, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.head.weight, std=0.1, generator=generator)

    def forward(self, picture: Tensor) -> Tensor:
        """Logits of colour and opacity, ``(B, 4, H, W)``, for pictures ``(B, 3, H, W)`` in [0, 1].

        They start near 0: grey, half opaque.
        """
        H, W = picture.shape[-2:]
        multiple = 2 ** len(self.up)
        x = F.pad(picture, (0, -W % multiple, 0, -H % multiple), mode="replicate") * 2 - 1
        seen = []
        for block in self.down:
            x = block(x)
            seen.append(x)
        for block, beside in zip(self.up, reversed(seen[:-1])):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), beside], 1))
        return self.head(x)[..., :H, :W]

    @staticmethod
    def layer(logits: Tensor) -> Tensor:
        """See :func:`as_layer`."""
        return as_layer(logits)

    @staticmethod
    def written(opacity: Tensor) -> Tensor:
        """Opacity as it is written: as it is, for it reaches 0."""
        return opacity

    def require_sides(self, sides: tuple[int, int]) -> None:
        """Any will do, down to one pixel."""


def require_widths(widths: Sequence[int]) -> None:
    """Refuse widths that no network can be built with."""
    if not widths or any(width < 1 or width % GROUPS for width in widths):
        raise ValueError(f"widths must be multiples of {GROUPS}, at least one, got {tuple(widths)}")


def as_layer(logits: Tensor) -> Tensor:
    """The edit that logits (B, 4, H, W) stand for: colour and opacity, ``(B, 4, H, W)`` in [0, 1].

    Opacities of exactly 0 and 1 are reached at finite logits, and are left again: see :func:`within`.
    """
    shares = logits.sigmoid()
    opacity = (1 + 2 * MARGIN) * shares[:, 3:] - MARGIN
    return torch.cat([shares[:, :3], within(opacity)], 1)


def without_faint(opacity: Tensor) -> Tensor:
    """Opacity as it is written: 0 below half of a grey level, which a sigmoid never is.

    A layer so faint changes no picture of eight bits, and without it every value of the source stays.
    """
    return torch.where(opacity < FAINTEST, 0, opacity)


def within(x: Tensor) -> Tensor:
    """Clamp to [0, 1], but let gradients through as if nothing were clamped: a pixel can come back."""
    return x + (x.clamp(0, 1) - x).detach()


def enlarge(x: Tensor, like: Tensor) -> Tensor:
    """``x`` (B, C, h, w) at the height and width of ``like``; itself where it has them."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


def by_bands(mix: Callable[..., Tensor], *planes: Tensor) -> Tensor:
    """``mix(*planes)``, band by band, so that it takes little memory; without gradients.

    Args:
        mix: A function of planes ``(B, C, H, W)`` that treats every pixel by itself.
        planes: The first is like the result.
    """
    mixed = torch.empty_like(planes[0])
    for top in range(0, mixed.shape[-2], BAND):
        mixed[..., top : top + BAND, :] = mix(*(plane[..., top : top + BAND, :] for plane in planes))
    return mixed


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1),
        nn.GroupNorm(GROUPS, outputs),
        nn.LeakyReLU(0.2),
    )
