"""What is optimised in place of the picture: an edit layer, a spectrum, or the pixels themselves.

All three are modules with the same face: ``module(source)`` is the current picture at working size and the
terms that keep the edit in bounds; ``module.render(source, full)`` is the same edit on the full-size picture.
"""

import math

import torch
from torch import Tensor, nn

from ..start.guess import Guess
from .edit_network import EditNetwork, by_bands, enlarge, within, without_faint

PARAMETRISATIONS = ("layer", "fourier", "pixels")

# Directions of decreasing spread of colours in natural pictures: brightness, blue-yellow, green-magenta.
COLOUR_AXES = ((0.577, 0.577, 0.577), (0.707, 0.0, -0.707), (0.408, -0.816, 0.408))
COLOUR_SPREAD = (1.0, 0.35, 0.15)


# How firmly an edit layer holds on to the guess it starts from
CERTAINTY = 4.0  # logit of the opacity inside and, negated, outside
RESTRAINT = 0.1  # share of the network's output that is added to it


def parametrise(
    name: str,
    source: Tensor,
    *,
    generator: torch.Generator,
    start: Guess | None = None,
    opacity: float = 0.5,
) -> nn.Module:
    """Build the parametrisation ``name`` (one of ``PARAMETRISATIONS``) for ``source``, ``(1, 3, H, W)``.

    ``start`` is where an edit layer starts; without one, it starts about as opaque as ``opacity``. The others
    start at the source.
    """
    if name == "layer":
        return EditLayer(source.shape[-2:], generator=generator, start=start, opacity=opacity).to(
            source.device
        )
    if name == "fourier":
        return FourierChange(source.shape[-2:]).to(source.device)
    if name == "pixels":
        return PixelChange(source.shape[-2:]).to(source.device)
    raise ValueError(f"parametrisation must be one of {', '.join(PARAMETRISATIONS)}, got {name!r}")


class EditLayer(EditNetwork):
    """A small U-Net that paints a colour and an opacity over the source; the default.

    Without a ``start`` the opacity starts near the one given; with one, the network corrects it.
    """

    starts_at_source = False

    def __init__(
        self,
        size: tuple[int, int],
        *,
        generator: torch.Generator,
        start: Guess | None = None,
        opacity: float = 0.5,
    ):
        super().__init__(generator=generator)
        plain = torch.zeros(1, 4, *size, dtype=torch.float32)
        plain[:, 3] = math.log(opacity / (1 - opacity))
        self.register_buffer("start", plain if start is None else logits_of(start))
        self.gain = 1.0 if start is None else RESTRAINT

    def forward(self, source: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Paint over ``source``, ``(1, 3, H, W)`` in [0, 1]; report the opacity and how undecided it is."""
        edit = self._edit(source)
        opacity = edit[:, 3]
        return _paint(source, edit), {
            "opacity": opacity.mean(),
            "indecision": (4 * opacity * (1 - opacity)).mean(),
        }

    @torch.no_grad()
    def render(self, source: Tensor, full: Tensor) -> Tensor:
        """Paint the edit of ``source``, enlarged, over ``full``, which stays to the bit where it is faint."""
        edit = enlarge(self._edit(source), full)
        edit[:, 3:] = without_faint(edit[:, 3:])
        return by_bands(_paint, full, edit)

    def _edit(self, source: Tensor) -> Tensor:
        return (self.gain * super().forward(source) + self.start).sigmoid()


def logits_of(guess: Guess) -> Tensor:
    """The logits of ``guess``, which a network that starts from it corrects, ``(1, 4, H, W)``."""
    return torch.cat([guess.colour.logit(), CERTAINTY * (2 * guess.opacity - 1)], 1)


class _Change(nn.Module):
    """A difference added to the source, kept within [0, 1]."""

    starts_at_source = True

    def forward(self, source: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the change to ``source``, ``(1, 3, H, W)``; there is nothing else to keep in bounds."""
        return within(source + self.change()), {}

    @torch.no_grad()
    def render(self, source: Tensor, full: Tensor) -> Tensor:
        """Add the change, enlarged, to ``full``."""
        return (full + enlarge(self.change(), full)).clamp(0, 1)


class FourierChange(_Change):
    """A change given by its spectrum, scaled by 1/f, in colour axes that vary independently in pictures."""

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.size = tuple(size)
        H, W = self.size
        f = torch.hypot(torch.fft.fftfreq(H)[:, None], torch.fft.rfftfreq(W)[None])
        self.register_buffer("scale", f.clamp(min=1 / max(H, W)).reciprocal(), persistent=False)
        axes = torch.tensor(COLOUR_SPREAD, dtype=torch.float32)[:, None] * torch.tensor(
            COLOUR_AXES, dtype=torch.float32
        )
        self.register_buffer("axes", axes, persistent=False)
        self.spectrum = nn.Parameter(torch.zeros(1, 3, *f.shape, 2, dtype=torch.float32))

    def change(self) -> Tensor:
        """The difference in pixels, ``(1, 3, H, W)``."""
        spectrum = torch.view_as_complex(self.spectrum) * self.scale
        waves = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        return torch.einsum("bahw,ac->bchw", waves, self.axes)


class PixelChange(_Change):
    """Free pixels. They fool a small CLIP: it scores the target text high, and the judge sees no change.

    Kept for comparison, and for large CLIPs under strong views and total variation.
    """

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.values = nn.Parameter(torch.zeros(1, 3, *size, dtype=torch.float32))

    def change(self) -> Tensor:
        """The difference in pixels, ``(1, 3, H, W)``."""
        return self.values


def _paint(source: Tensor, edit: Tensor) -> Tensor:
    colour, opacity = edit[:, :3], edit[:, 3:]
    return source * (1 - opacity) + colour * opacity
