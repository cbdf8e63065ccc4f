"""Frames of a film between two pictures: both moved to where they meet, mixed by time and confidence."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...media.pictures import uncovered
from .colours import Moves, move_of
from .maps import Maps
from .places import WHOLE, Places, sample
from .warp import Motion

FEATHER = 0.03  # of a picture's shorter side, over which it ends where the other one goes on
ALL_OF_IT = 4.0  # share of the film, turned round, after which the feather has its whole width
DIRECT = 8  # cells up to which a window is summed whole; of larger ones, whose sums take long, line by line
LEAST = 1e-4  # weight of what lies beyond a picture's edge, seen where nothing else is


class Mixture(NamedTuple):
    """How a frame is made of both pictures.

    Attributes:
        origins: Where its pixels are from in either picture, ``(H, W, 2)`` each, in the frame's pixels.
        share: Of the second picture in each of them, ``(1, H, W)``.
        partner: How sure both are that they show the same, ``(1, H, W)``.
    """

    origins: tuple[Tensor, Tensor]
    share: Tensor
    partner: Tensor


class Scene(NamedTuple):
    """What all frames of a film are made of.

    Attributes:
        pictures: Both, ``(3 or 4, H, W)`` each: colours over white, and opacity where either has any.
        places: Where they lie in the frames.
        motion: Between them.
        trust: How sure either's match is, ``(1, H, W)`` each.
        moves: Of colours without a partner; None where they fade.
        least_trust: Weight of what has no partner.
        haste: How much faster it changes over.
    """

    pictures: tuple[Tensor, Tensor]
    places: Places
    motion: Motion
    trust: tuple[Tensor, Tensor]
    moves: Moves | None
    least_trust: float
    haste: float

    def frame(
        self, t: float, rows: slice = WHOLE, drawn: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The frame at ``t`` in [0, 1]: colours over white, ``(3, H, W)``, and opacity where it has any.

        At 0 and 1 they are the given pictures' own values; in between ``drawn`` may stand in their place.
        Of some ``rows``, where the motion is of these.
        """
        if t in (0, 1):
            mixed = self.given(int(t), rows)
        elif drawn is None:
            mixed = self._mixed(t)
        else:
            mixed = torch.cat([drawn, self._mixed(t)[3:]]) if len(self.pictures[0]) == 4 else drawn
        alpha = mixed[3:] if len(mixed) == 4 else None
        if self.places.filled:
            return mixed[:3], alpha
        within = self.places.outline(t, mixed, rows)
        alpha = within if alpha is None else alpha * within
        return mixed[:3] * within + (1 - within), alpha

    def given(self, which: int, rows: slice = WHOLE) -> Tensor:
        """Rows of a given picture, laid into the frame; around it, as at its edge."""
        (H, W), picture = self.places.size, self.pictures[which]
        x, y = (self.places.first, self.places.second)[which]
        down = torch.arange(H, device=picture.device)[rows] - y
        around = (x, W - x - picture.shape[2], 0, 0)
        return F.pad(picture[None, :, down.clamp(0, picture.shape[1] - 1)], around, mode="replicate")[0]

    def mixture(self, t: float) -> "Mixture":
        """Where the frame at ``t`` has its pixels from, and how much of either picture."""
        origins = self.motion.origins(t, self.places.size)
        (sure, near), (sure_too, near_too) = (
            self._trusted(which, at, share) for which, (at, share) in enumerate(zip(origins, (1 - t, t)))
        )
        # where both end, neither gives way
        near, near_too = (of / torch.maximum(near, near_too) for of in (near, near_too))
        partner = (1 - t) * sure + t * sure_too
        # what has no partner changes over faster, around the middle of the film; beyond an edge nothing waits
        late = ((t - 0.5) * (1 + self.haste * (1 - partner)) + 0.5).clamp(0, 1)
        late = torch.lerp(torch.full_like(late, t), late, near * near_too)
        floor = self.least_trust
        ours = (1 - late) * (floor + (1 - floor) * sure) * near
        theirs = late * (floor + (1 - floor) * sure_too) * near_too
        return Mixture(origins, theirs / (ours + theirs), partner)

    def _mixed(self, t: float) -> Tensor:
        """Both pictures, moved to where they are at ``t``, and mixed."""
        found = self.mixture(t)
        # seen beyond the edge where neither picture goes on: mirrored, as a smear would look worse
        first, second = (
            sample(picture, self._own(which, at), mode="bicubic", beyond="reflection")
            for which, (picture, at) in enumerate(zip(self.pictures, found.origins))
        )
        if self.moves is not None:
            first = _recoloured(first, self.moves.of_first, t * (1 - found.partner))
            second = _recoloured(second, self.moves.of_second, (1 - t) * (1 - found.partner))
        return torch.lerp(first, second, found.share).clamp(0, 1)

    def _own(self, which: int, at: Tensor) -> Tensor:
        """Places of the frame in a picture's own pixels."""
        offset = (self.places.first, self.places.second)[which]
        return at - torch.tensor(offset, dtype=at.dtype, device=at.device)

    def _trusted(self, which: int, at: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """How sure a picture is at places of the frame, and how far within its edges these are."""
        here = self._own(which, at)
        H, W = self.places.sizes[which]
        x, y = here.unbind(-1)
        within = torch.minimum(torch.minimum(x, W - 1 - x), torch.minimum(y, H - 1 - y)) + 0.5
        # no feather where the picture has not moved: there its edge is the frame's
        moved = min(1.0, ALL_OF_IT * (1 - share))
        near = within / (1 + FEATHER * min(H, W) * moved) + moved / 2
        return sample(self.trust[which], here), near.clamp(LEAST, 1)[None]


def trust_of(maps: Maps, cell: int) -> tuple[Tensor, Tensor]:
    """Both confidences, ``(1, H, W)``, as smooth as the motion is that follows them."""
    return tuple(_smooth(sure[None].clamp(0, 1), cell) for sure in (maps.confidence_a, maps.confidence_b))


def as_bytes(rgb: Tensor, alpha: Tensor | None) -> Tensor:
    """A frame as a file holds it: ``(3, H, W)``, or colours as they are and opacity, ``(4, H, W)``; uint8."""
    shown = rgb if alpha is None else torch.cat([uncovered(rgb, alpha), alpha])
    return shown.mul(255).round().clamp(0, 255).to(torch.uint8).cpu()


def over_white(frame: Tensor) -> tuple[Tensor, Tensor | None]:
    """What :func:`as_bytes` holds: colours over white in [0, 1], and opacity where it has any."""
    shown = frame.float().div_(255)
    if len(shown) == 3:
        return shown, None
    alpha = shown[3:]
    return shown[:3] * alpha + (1 - alpha), alpha


def _smooth(sure: Tensor, cell: int) -> Tensor:
    """Means over square windows of two cells a side."""
    side = 2 * cell + 1
    padded = F.pad(sure[None], (cell,) * 4, mode="replicate")
    if cell <= DIRECT:
        return F.avg_pool2d(padded, side, stride=1)[0]
    return F.avg_pool2d(F.avg_pool2d(padded, (1, side), stride=1), (side, 1), stride=1)[0]


def _recoloured(picture: Tensor, moves: Tensor, share: Tensor) -> Tensor:
    """A picture whose colours have moved by a share of their way; those of opacity, as much as it is."""
    moved = share * move_of(picture[:3], moves)
    if len(picture) == 3:
        return picture + moved
    return torch.cat([picture[:3] + moved * picture[3:], picture[3:]])
