"""The losses as modules, in the call shapes of other projects' training loops: pictures and texts in."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from .directional import directional_loss
from .geodesic import geodesic_consistency_loss, geodesic_regularisation_loss


class Encoder(Protocol):
    """What the modules need of a CLIP; ``geokernels.models.ClipEncoder`` is one."""

    def encode_image(self, pictures: Tensor) -> Tensor:
        """Unit features ``(B, D)`` of pictures ``(B, 3, H, W)`` in [0, 1]."""

    def encode_text(self, prompts: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Unit features ``(prompts, templates, D)``."""


class _Reading(nn.Module):
    """Reads pictures and texts by an encoder; the base of every module here."""

    def __init__(self, encoder: Encoder, *, templates: Sequence[str], value_range: tuple[float, float]):
        super().__init__()
        if not value_range[0] < value_range[1]:
            raise ValueError(f"value_range must be two numbers, the smaller first, got {value_range}")
        self.encoder, self.templates, self.value_range = encoder, tuple(templates), value_range

    def look(self, pictures: Tensor) -> Tensor:
        """Features of pictures ``(B, 3, H, W)`` in ``value_range``; rows ``(B, D)`` are features already."""
        if pictures.dim() == 2:
            return pictures
        low, high = self.value_range
        return self.encoder.encode_image((pictures - low) / (high - low))

    def read(self, source: str, target: str) -> tuple[Tensor, Tensor]:
        """Features of both texts under the templates, ``(T, D)`` each."""
        before, after = self.encoder.encode_text([source, target], self.templates)
        return before, after


class DirectionalLoss(_Reading):
    """:func:`geokernels.directional_loss` of pictures and texts.

    Args:
        encoder: A frozen CLIP, see :class:`Encoder`.
        templates: Sentences around both texts, each with one ``{}``.
        value_range: Of black and white in the pictures; generators often give (-1, 1).
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        templates: Sequence[str] = ("{}",),
        value_range: tuple[float, float] = (0.0, 1.0),
    ):
        super().__init__(encoder, templates=templates, value_range=value_range)

    def forward(
        self, source_pictures: Tensor, source_text: str, pictures: Tensor, target_text: str
    ) -> Tensor:
        """The loss, a scalar.

        Args:
            source_pictures: ``(B, 3, H, W)``, or their features ``(B, D)``, which are not computed again.
            source_text: What they show.
            pictures: The same pictures as they are now, like ``source_pictures``.
            target_text: What they shall show.

        Gradients:
            To ``pictures`` alone.
        """
        with torch.no_grad():
            before = self.look(source_pictures)
        return self.compare(self.look(pictures), before, *self.read(source_text, target_text))

    def compare(self, current: Tensor, source: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """The loss of features, ``(..., B, D)`` and ``(..., T, D)``, to ``(...)``."""
        return directional_loss(current, source, before, after)


class GeodesicConsistencyLoss(DirectionalLoss):
    """IMC, :func:`geokernels.geodesic_consistency_loss`, called as :class:`DirectionalLoss` is.

    Args:
        encoder: A frozen CLIP, see :class:`Encoder`.
        rank: Leading directions of the pictures' change that span its subspace; None for all.
        text_rank: The same of the texts' change.
        templates: Sentences around both texts, each with one ``{}``.
        value_range: Of black and white in the pictures.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        rank: int | None = 1,
        text_rank: int | None = 1,
        templates: Sequence[str] = ("{}",),
        value_range: tuple[float, float] = (0.0, 1.0),
    ):
        super().__init__(encoder, templates=templates, value_range=value_range)
        self.rank, self.text_rank = rank, text_rank

    def compare(self, current: Tensor, source: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """The loss of features, ``(..., B, D)`` and ``(..., T, D)``, to ``(...)``."""
        return geodesic_consistency_loss(
            current, source, before, after, rank=self.rank, text_rank=self.text_rank
        )


class GeodesicRegularisationLoss(_Reading):
    """IMR, :func:`geokernels.geodesic_regularisation_loss`, of pictures.

    Args:
        encoder: A frozen CLIP, see :class:`Encoder`.
        rank: Columns of both bases; None for all.
        value_range: Of black and white in the pictures.
    """

    def __init__(
        self, encoder: Encoder, *, rank: int | None = None, value_range: tuple[float, float] = (0.0, 1.0)
    ):
        super().__init__(encoder, templates=("{}",), value_range=value_range)
        self.rank = rank

    def forward(self, previous_pictures: Tensor, pictures: Tensor) -> Tensor:
        """The loss, a scalar, of pictures ``(B, 3, H, W)``, or features ``(B, D)``, against the last ones.

        Gradients:
            To ``pictures`` alone.
        """
        with torch.no_grad():
            previous = self.look(previous_pictures)
        return geodesic_regularisation_loss(self.look(pictures), previous, rank=self.rank)


class PatchLoss(nn.Module):
    """A loss of directions asked of random patches one by one, as CLIPstyler asks it of a styled picture.

    Patches that are nearly as asked are left alone: what counts is a mean over all of them in which losses
    below ``threshold`` are 0.

    Args:
        loss: What each patch is asked, :class:`DirectionalLoss` or :class:`GeodesicConsistencyLoss`.
        patches: How many.
        size: Their side in pixels.
        threshold: Least loss that counts.
        augment: Applied to the patches, ``(patches, 3, size, size)``; a random perspective, for instance.
    """

    def __init__(
        self,
        loss: DirectionalLoss,
        *,
        patches: int = 64,
        size: int = 128,
        threshold: float = 0.7,
        augment: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        self.loss, self.patches, self.size, self.threshold = loss, patches, size, threshold
        self.augment = augment

    def forward(
        self,
        source_picture: Tensor,
        source_text: str,
        picture: Tensor,
        target_text: str,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The loss, a scalar.

        Args:
            source_picture: ``(1, 3, H, W)``, or its features ``(1, D)``; the patches are compared with all
                of it.
            source_text: What it shows.
            picture: ``(1, 3, H, W)``, at least ``size`` a side.
            target_text: The style that is asked for.
            generator: Random number generator that places the patches, on the CPU; None for the global one.

        Gradients:
            To ``picture`` alone.

        Raises:
            ValueError: If the picture is smaller than a patch, or there is more than one.
        """
        if picture.dim() != 4 or len(picture) != 1 or min(picture.shape[-2:]) < self.size:
            raise ValueError(
                f"picture must have shape (1, 3, H, W), at least {self.size} pixels a side, "
                f"got {tuple(picture.shape)}"
            )
        room = torch.tensor(picture.shape[-2:]) - self.size + 1
        places = (
            (torch.rand(self.patches, 2, generator=generator, dtype=torch.float32) * room).long().tolist()
        )
        seen = torch.cat([picture[..., y : y + self.size, x : x + self.size] for y, x in places])
        seen = seen if self.augment is None else self.augment(seen)
        with torch.no_grad():
            source = self.loss.look(source_picture)
        current = self.loss.look(seen)[:, None]  # each patch is a batch of one
        before, after = (
            text.expand(self.patches, -1, -1) for text in self.loss.read(source_text, target_text)
        )
        losses = self.loss.compare(current, source.expand_as(current[:, 0])[:, None], before, after)
        return torch.where(losses >= self.threshold, losses, 0).mean()
