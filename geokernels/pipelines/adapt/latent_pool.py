"""A fixed set of latents: what the frozen network drew of each, how each looked when last seen."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...models.clip import ClipEncoder


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


@torch.no_grad()
def encode_codes(
    w: Tensor, render: Callable[[Tensor], Tensor], encoders: Sequence[ClipEncoder], *, chunk: int
) -> list[Tensor]:
    """Features of the pictures of codes ``(N, D)``, ``(N, D)`` per encoder, ``chunk`` pictures at a time."""
    features = []
    for part in w.split(chunk):
        pictures = render(part)
        features.append([encoder.encode_image(pictures) for encoder in encoders])
    return [torch.cat(parts) for parts in zip(*features)]


@torch.no_grad()
def encode_maps(
    w: Tensor, render: Callable[[Tensor], Tensor], encoders: Sequence[ClipEncoder], *, chunk: int
) -> list[list[Tensor]]:
    """Feature maps of the same pictures, ``(N, C, h, w)`` per encoder and layer."""
    maps = []
    for part in w.split(chunk):
        pictures = render(part)
        maps.append([encoder.image_features(pictures) for encoder in encoders])
    return [[torch.cat(layer) for layer in zip(*parts)] for parts in zip(*maps)]
