"""An atlas as a picture that can be edited, and frames as they look at it."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.atlas import LayeredAtlas, LayerSample
from ..morph.crops import Crop
from ..morph.edit_network import within
from .footage import BACKGROUND, FOREGROUND

LAYERS = {"foreground": FOREGROUND, "background": BACKGROUND}
FINE = 2.0  # pixels of an atlas for one of a frame
SURE = 0.03  # opacities nearer than this to 0 and 1 are 0 and 1, so that what is not covered is kept


class AtlasPicture(NamedTuple):
    """The part of a layer's atlas that frames show."""

    rgb: Tensor  # (1, 3, h, w) in [0, 1]; what no frame shows has the mean colour of the rest
    seen: Tensor  # (1, 1, h, w), 1 where a frame shows it


class FrameView(NamedTuple):
    """A frame, or a window of one, and how it sees one layer."""

    frame: Tensor  # (1, 3, H, W)
    grid: Tensor  # (1, H, W, 2), in the picture of the atlas, as ``grid_sample`` has it
    cover: Tensor  # (1, 1, H, W), how much of a pixel is the layer's
    own: Tensor  # (1, 3, H, W), the layer's colour before any edit

    def shown(self, layer: Tensor) -> Tensor:
        """An edit of the atlas as the frame sees it: colour, and opacity where the layer itself is seen.

        Args:
            layer: Colour and opacity, ``(n, 4, h, w)``.

        Returns:
            ``(n, 4, H, W)``.

        Gradients:
            To ``layer``.
        """
        grid = self.grid.expand(len(layer), -1, -1, -1)
        sampled = F.grid_sample(layer, grid, padding_mode="border", align_corners=False)
        return torch.cat([sampled[:, :3], self.cover * sampled[:, 3:]], 1)

    def composite(self, shown: Tensor) -> Tensor:
        """The frame with an edit, ``(n, 3, H, W)`` in [0, 1]; its own to the bit where the opacity is 0.

        Only the layer's share of a pixel changes, from its own colour to the edit's, so that no rim of the
        old colour is left along outlines.

        Args:
            shown: From :meth:`shown`.

        Gradients:
            To ``shown``.
        """
        return within(self.frame + shown[:, 3:] * (shown[:, :3] - self.own))


def window(view: FrameView, crop: Crop) -> FrameView:
    """The part of a view that ``crop`` takes; its tint is on the frame and on the layer's own colour."""
    grid = crop.take(view.grid.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return FrameView(crop.show(view.frame), grid, crop.take(view.cover), crop.show(view.own))


def within_box(inside: Tensor, border: int) -> tuple[int, int, int, int] | None:
    """Top, left, height and width of the box of what is ``inside`` (H, W), and of ``border`` pixels around.

    None where nothing is.
    """
    sides = []
    for way, whole in ((1, inside.shape[0]), (0, inside.shape[1])):
        places = inside.any(way).nonzero()
        if not len(places):
            return None
        low, high = places[0].item() - border, places[-1].item() + 1 + border
        sides.append((max(0, low), min(whole, high)))
    (top, bottom), (left, right) = sides
    return top, left, bottom - top, right - left


def host(view: FrameView) -> FrameView:
    """A view in the host's memory; itself where it is there, or has no values."""
    return FrameView(*(part if part.is_meta else part.cpu() for part in view))


def view_atlas(picture: AtlasPicture) -> FrameView:
    """A layer's whole atlas as one more frame of it."""
    h, w = picture.rgb.shape[-2:]
    y, x = (
        (2 * torch.arange(side, device=picture.rgb.device, dtype=torch.float32) + 1) / side - 1
        for side in (h, w)
    )
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
    return FrameView(picture.rgb, grid, picture.seen, picture.rgb)


def require_layer(atlas: LayeredAtlas, layer: str) -> int:
    """The number of a layer; refuses one that the clip does not have.

    Raises:
        ValueError: If there is no such layer, or nothing was found to be in it.
    """
    if layer not in LAYERS:
        raise ValueError(f"layer must be one of {', '.join(LAYERS)}, got {layer!r}")
    number = LAYERS[layer]
    left, top, right, bottom = atlas.bounds[number].tolist()
    if right <= left or bottom <= top:
        raise ValueError(
            f"layer must be one that the clip shows, nothing was found in its {layer}; give masks of it"
        )
    return number


def view_frame(
    atlas: LayeredAtlas, layer: int, index: int, frame: Tensor, *, seen: LayerSample | None = None
) -> FrameView:
    """How frame ``index``, ``(3, H, W)``, sees a layer, at full size; without gradients.

    Args:
        atlas: Of the clip.
        layer: Its number.
        index: Of the frame.
        frame: As it was given.
        seen: What the atlas says of the frame, with both layers' colours, where that is at hand.
    """
    H, W = atlas.size
    if seen is None:
        # the other layer's colours would stay in memory as long as the view
        seen = atlas.look(index, colours=(layer,))
        (own,) = seen.colours
    else:
        own = seen.colours[layer]
    grid, cover = _looks(atlas, layer, seen)
    return FrameView(
        frame[None].to(grid),
        grid.view(1, H, W, 2),
        cover.T.view(1, 1, H, W),
        own.T.reshape(1, 3, H, W),
    )


def _looks(atlas: LayeredAtlas, layer: int, seen: LayerSample) -> tuple[Tensor, Tensor]:
    """Where a frame's pixels look in the picture of a layer, ``(N, 2)``, and how much is its, ``(N, 1)``."""
    low, high = atlas.bounds[layer].split(2)
    opacity = ((seen.opacity - SURE) / (1 - 2 * SURE)).clamp(0, 1)
    cover = opacity if layer == FOREGROUND else 1 - opacity
    return 2 * (seen.places[layer] - low) / (high - low) - 1, cover


def resize_view(view: FrameView, longest: int) -> FrameView:
    """The same for a frame of at most ``longest`` pixels a side."""
    H, W = view.frame.shape[-2:]
    if max(H, W) <= longest:
        return view
    size = [max(1, round(side * longest / max(H, W))) for side in (H, W)]
    parts = (view.frame, view.grid.permute(0, 3, 1, 2), view.cover, view.own)
    frame, grid, cover, own = (
        F.interpolate(part, size, mode="bilinear", antialias=True, align_corners=False) for part in parts
    )
    return FrameView(frame.clamp(0, 1), grid.permute(0, 2, 3, 1), cover, own)


@torch.no_grad()
def atlas_picture(atlas: LayeredAtlas, layer: int, longest: int, *, least: int = 1) -> AtlasPicture:
    """A layer's atlas as a picture of at most ``longest`` pixels a side, and of at least ``least``."""
    low, high = atlas.bounds[layer].split(2)
    extent = (high - low) * (FINE * max(atlas.size) / 2 / atlas.shape.scale)
    scale = max(min(1.0, longest / extent.max().item()), least / extent.min().item())
    w, h = (max(1, math.ceil(side * scale)) for side in extent.tolist())
    x = low[0] + (high - low)[0] * (torch.arange(w, device=low.device, dtype=torch.float32) + 0.5) / w
    y = low[1] + (high - low)[1] * (torch.arange(h, device=low.device, dtype=torch.float32) + 0.5) / h
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
    rgb = torch.cat([atlas.colour(layer, part) for part in places.split(2**16)]).T.reshape(1, 3, h, w)
    seen = _seen(atlas, layer, (h, w))
    mean = (rgb * seen).sum((2, 3), keepdim=True) / seen.sum().clamp(min=1)
    return AtlasPicture(torch.where(seen > 0, rgb, mean), seen)


def _seen(atlas: LayeredAtlas, layer: int, size: tuple[int, int]) -> Tensor:
    """Which pixels of an atlas any frame shows more than half of."""
    seen = torch.zeros(size, device=atlas.bounds.device, dtype=torch.float32)
    limit = seen.new_tensor([size[1], size[0]])
    for index in range(atlas.frames):
        grid, cover = _looks(atlas, layer, atlas.look(index, colours=()))
        place = ((grid + 1) / 2 * limit).floor()[cover[:, 0] > 0.5]
        inside = ((place >= 0) & (place < limit)).all(1)
        x, y = place[inside].long().unbind(1)
        seen[y, x] = 1.0
    # pixels of the atlas are finer than those of frames, and lie between them
    return F.max_pool2d(seen[None, None], 3, 1, 1)
