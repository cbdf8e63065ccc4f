"""Which latents a step compares: some of a fixed set, seen before, or fresh ones."""

from typing import NamedTuple

import torch
from torch import Tensor


class Visit(NamedTuple):
    """The latents of a step, and what CLIP encoders saw in the frozen network's pictures of them."""

    codes: Tensor  # (B, D), or W+
    source: list[Tensor]  # (B, D), one per encoder
    previous: list[Tensor] | None  # when last visited, like source; None if never
    maps: list[list[Tensor]]  # (B, C, h, w), one per encoder and layer; empty unless needed


class LatentPool:
    """Latents that an adaptation visits again and again.

    Because they are fixed, the frozen network draws each once, every encoder encodes that picture once,
    and then the frozen network is no longer needed. Because a latent comes again, its features at the last
    visit are the "previous iterate" of the regularisation.

    Attributes:
        w: Codes, ``(P, D)``.
        source: Features of the frozen pictures, ``(P, D)`` per encoder.
        previous: Features when last visited, like ``source``; at first those.
        maps: Feature maps of the frozen pictures, ``(P, C, h, w)`` per encoder and layer, where needed.
    """

    def __init__(self, w: Tensor, source: list[Tensor], previous: list[Tensor] | None = None):
        self.w, self.source = w, source
        self.previous = [features.clone() for features in source] if previous is None else previous
        self.maps: list[list[Tensor]] = []

    def visit(self, step: int, count: int, *, key: int) -> Tensor:
        """Which latents step ``step`` visits, ``(count,)``: all once, in random order, then all again."""
        size = len(self.w)
        first = step * count
        orders = {
            turn: torch.randperm(size, generator=torch.Generator().manual_seed(key + turn))
            for turn in range(first // size, (first + count - 1) // size + 1)
        }
        visits = range(first, first + count)
        return torch.stack([orders[visit // size][visit % size] for visit in visits]).to(self.w.device)

    def maps_of(self, encoder: int, visited: Tensor) -> list[Tensor]:
        """Feature maps of the frozen pictures of some latents."""
        return [layer[visited] for layer in self.maps[encoder]]

    def state_dict(self) -> dict:
        """Everything but the maps, which are drawn again."""
        return {"w": self.w, "source": self.source, "previous": self.previous}
