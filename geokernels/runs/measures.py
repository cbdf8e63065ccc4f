"""Measures one edit by everything that there are models for."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..losses import self_similarity, structure_loss
from ..media.pictures import through_jpeg
from ..metrics import (
    Conventions,
    blank,
    clip_score,
    directional_similarity,
    filled,
    outside_psnr,
    outside_score,
    score_edit,
)
from ..world import ATTRIBUTES, EditCase, judge, understand
from ..world.edits import unmarked


class Measures:
    """What edits are measured by.

    Args:
        encoder: A CLIP, which should not be the one that guided them.
        tokens: From pictures ``(1, 3, H, W)`` to tokens ``(1, N, C)`` whose self-similarity is the structure.
        distance: From two pictures ``(1, 3, H, W)`` to ``(1,)``.
        names: What they are called: ``structure`` and ``perceptual``.
        conventions: How they are used; None for the published ones. Which models they name is for whoever
            made ``tokens`` and ``distance``, and whoever read the edits decided about brackets.
        device: Where they are.
    """

    def __init__(
        self,
        encoder,
        tokens: Callable[[Tensor], Tensor],
        distance: Callable[[Tensor, Tensor], Tensor],
        names: dict[str, str],
        *,
        conventions: Conventions | None = None,
        device: str | torch.device = "cpu",
    ):
        self.encoder, self.tokens, self.distance, self.device = encoder, tokens, distance, device
        self.names, self.conventions = {"clip": encoder.name, **names}, conventions or Conventions()

    @property
    def facts(self) -> dict:
        """What a record says of them."""
        return {"measures": self.names, "conventions": self.conventions.record()}

    @torch.no_grad()
    def __call__(self, case: EditCase, source: Tensor, edit: Tensor) -> dict[str, float | None]:
        """Every number of an edit; None where a number does not exist.

        Args:
            case: What was asked.
            source: ``(3, H, W)`` in [0, 1].
            edit: Like ``source``.
        """
        verdict, how = _verdict(case, source, edit), self.conventions
        if how.jpeg is not None:
            edit = through_jpeg(edit, how.jpeg)
        source, edit = (compared(picture, how).to(self.device) for picture in (source, edit))
        inside = mask_of(case, *source.shape[-2:], how).to(self.device)
        before, after = self.encoder.encode_image(torch.stack([source, edit])).split(1)
        old, new = self.encoder.encode_text([case.source, case.target])[:, 0].split(1)
        similarity = self_similarity(self.tokens(source[None]))
        outside = outside_score(edit, source, inside, how)
        far = None
        if outside is not None:
            far = self.distance(*(filled(x, source, inside, how.fill)[None] for x in (edit, source)))
        return {
            "clip_score": float(clip_score(after, new)),
            "clip_score_edit": self._score_inside(edit, inside, new),
            "directional": float(directional_similarity(before, after, old, new)),
            "structure": float(structure_loss(self.tokens(edit[None]), similarity)),
            "perceptual": float(self.distance(edit[None], source[None])),
            "psnr_outside": None if outside is None else outside.psnr,
            "ssim_outside": None if outside is None else outside.ssim,
            "mse_outside": None if outside is None else outside.mse,
            "perceptual_outside": None if far is None else float(far),
            **verdict,
        }

    def _score_inside(self, edit: Tensor, inside: Tensor, asked: Tensor) -> float | None:
        """CLIP's score of what the mask allows to change, the rest of the picture in black."""
        if not bool(inside.any()) and self.conventions.whole_masks == "skipped":
            return None
        return float(clip_score(self.encoder.encode_image(blank(edit, ~inside)[None]), asked))


def compared(picture: Tensor, how: Conventions) -> Tensor:
    """A picture ``(3, H, W)`` at the size at which pictures are compared."""
    if how.compare_size is None or how.compare_size == max(picture.shape[-2:]):
        return picture
    share = how.compare_size / max(picture.shape[-2:])
    sides = [max(1, round(side * share)) for side in picture.shape[-2:]]
    resized = F.interpolate(picture[None], sides, mode=how.resample, antialias=True, align_corners=False)
    return resized[0].clamp(0, 1)


def mask_of(case: EditCase, height: int, width: int, how: Conventions) -> Tensor:
    """Where an edit may change its picture, ``(1, height, width)`` bool."""
    whole = case.mask(border=how.border).float()
    if how.mask_fit == "nearest":
        return F.interpolate(whole[None], (height, width), mode="nearest-exact")[0] > 0
    return F.adaptive_max_pool2d(whole, (height, width)) > 0


def _verdict(case: EditCase, source: Tensor, edit: Tensor) -> dict[str, float | None]:
    """What the judge says of an edit of the rendered world; it follows no conventions, as masks are exact."""
    wanted = None if case.attribute is None else understand(unmarked(case.target))
    if wanted is None or set(wanted) != set(ATTRIBUTES):
        return dict.fromkeys(("reached", "kept", "right", "background"))
    score = score_edit(wanted, judge(edit[None].cpu()).names()[0], case.attribute)
    inside = mask_of(case, *source.shape[-2:], Conventions(border=False))
    background = None if bool(inside.all()) else outside_psnr(edit, source, inside)
    return {**{name: float(value) for name, value in score._asdict().items()}, "background": background}
