"""Text2LIVE's published network: an hourglass with thin skips, whose colours are decorrelated.

Its shape is that of the "skip" network of Ulyanov, Vedaldi and Lempitsky (Deep Image Prior, 2018) in the
settings of Text2LIVE's release. The colour axes are those by which Olah, Mordvintsev and Schubert (Feature
Visualization, 2017) decorrelate the colours of natural pictures.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .edit_network import without_faint

SLOPE = 0.2  # of the LeakyReLU below 0

# Columns: how brightness and two differences of colour spread over red, green and blue in natural pictures
COLOUR_SPREAD = ((0.26, 0.09, 0.02), (0.27, 0.0, -0.05), (0.27, -0.09, 0.03))
DIMMING = 1.6  # of brightness beside the two, for more saturated colours


class SkipNetwork(nn.Module):
    """An hourglass over pictures of any size of at least ``least_side``.

    Batch normalisation always uses the picture at hand, when an edit is shown as when it is learned, as the
    release does. Running means would never be read and are not kept: showing an edit changes nothing.

    Args:
        widths: Channels of each level, the finest first; each level halves the sides.
        beside: Channels of each skip.
        generator: Source of random numbers.

    Attributes:
        least_side: Shortest side of a picture: at the coarsest level a side needs two pixels to be
            reflected at.
    """

    def __init__(self, widths: Sequence[int] = (128,) * 7, *, beside: int = 4, generator: torch.Generator):
        super().__init__()
        self.least_side = least_side(widths)
        self.levels = _Level(3, tuple(widths), beside, finest=True)
        self.head = nn.Conv2d(widths[0], 4, 1)
        self.register_buffer("colours", decorrelated_colours(), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # PyTorch's own start, drawn from ``generator``
                nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
                bound = module.weight[0].numel() ** -0.5
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)

    def forward(self, picture: Tensor) -> Tensor:
        """Logits of colour and opacity, ``(B, 4, H, W)``, for pictures ``(B, 3, H, W)`` in [0, 1]."""
        painted = self.head(self.levels(picture))
        colour = torch.einsum("bahw,ca->bchw", painted[:, :3], self.colours.to(painted.dtype))
        return torch.cat([colour, painted[:, 3:]], 1)

    @staticmethod
    def layer(logits: Tensor) -> Tensor:
        """The edit that logits (B, 4, H, W) stand for: colour and opacity, in (0, 1)."""
        return logits.sigmoid()

    @staticmethod
    def written(opacity: Tensor) -> Tensor:
        """See :func:`without_faint`."""
        return without_faint(opacity)

    def require_sides(self, sides: tuple[int, int]) -> None:
        """Refuse pictures of which too little is left at the coarsest level.

        Raises:
            ValueError: Says how small they may be.
        """
        if min(sides) < self.least_side:
            raise ValueError(
                f"working_size must leave crops of at least {self.least_side} x {self.least_side} pixels to "
                f"the published network, the smallest would have {sides[1]} x {sides[0]}"
            )


def least_side(widths: Sequence[int]) -> int:
    """Shortest side of a picture for a network of these widths: see :class:`SkipNetwork`."""
    return 2 ** len(widths) + 1


def decorrelated_colours() -> Tensor:
    """The map from three colour coordinates that vary independently to red, green and blue, ``(3, 3)``."""
    spread = torch.tensor(COLOUR_SPREAD, dtype=torch.float32)
    spread = spread / torch.tensor([DIMMING, 1.0, 1.0], dtype=torch.float32)
    return spread / spread.norm(dim=0).max()


class _Level(nn.Module):
    """One level and all that are coarser."""

    def __init__(self, inputs: int, widths: tuple[int, ...], beside: int, *, finest: bool = False):
        super().__init__()
        width, coarser = widths[0], widths[1:]
        self.beside = _block(inputs, beside, 1)
        self.down = nn.Sequential(_block(inputs, width, 3, stride=2), _block(width, width, 3))
        self.deeper = _Level(width, coarser, beside) if coarser else nn.Identity()
        both = beside + (coarser[0] if coarser else width)
        self.norm = _norm(both)
        last = nn.Sequential(nn.Conv2d(width, width, 1), nn.LeakyReLU(SLOPE, inplace=True))
        self.up = nn.Sequential(_block(both, width, 3), last if finest else _block(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        beside = self.beside(x)
        deep = self.deeper(self.down(x))
        deep = F.interpolate(deep, scale_factor=2.0, mode="bilinear", align_corners=False)
        # twice the half of an odd side is a pixel too long
        deep = deep[..., : x.shape[-2], : x.shape[-1]]
        return self.up(self.norm(torch.cat([beside, deep], 1)))


def _block(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    reflect = {"padding": size // 2, "padding_mode": "reflect"} if size > 1 else {}
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride=stride, **reflect),
        _norm(outputs),
        nn.LeakyReLU(SLOPE, inplace=True),
    )


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, track_running_stats=False)
