"""Measures one edit by everything that there are models for."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..losses import self_similarity, structure_loss
from ..metrics import blank, clip_score, directional_similarity, outside_psnr, outside_score, score_edit
from ..world import ATTRIBUTES, EditCase, judge, understand


class Measures:
    """What edits are measured by.

    Args:
        encoder: A CLIP, which should not be the one that guided them.
        tokens: From pictures ``(1, 3, H, W)`` to tokens ``(1, N, C)`` whose self-similarity is the structure.
        distance: From two pictures ``(1, 3, H, W)`` to ``(1,)``.
        names: What they are called: ``structure`` and ``perceptual``.
        device: Where they are.
    """

    def __init__(
        self,
        encoder,
        tokens: Callable[[Tensor], Tensor],
        distance: Callable[[Tensor, Tensor], Tensor],
        names: dict[str, str],
        *,
        device: str | torch.device = "cpu",
    ):
        self.encoder, self.tokens, self.distance, self.device = encoder, tokens, distance, device
        self.names = {"clip": encoder.name, **names}

    @torch.no_grad()
    def __call__(self, case: EditCase, source: Tensor, edit: Tensor) -> dict[str, float | None]:
        """Every number of an edit; None where a number does not exist.

        Args:
            case: What was asked.
            source: ``(3, H, W)`` in [0, 1].
            edit: Like ``source``.
        """
        source, edit = source.to(self.device), edit.to(self.device)
        inside = mask_of(case, *source.shape[-2:]).to(self.device)
        before, after = self.encoder.encode_image(torch.stack([source, edit])).split(1)
        old, new = self.encoder.encode_text([case.source, case.target])[:, 0].split(1)
        seen = self.encoder.encode_image(blank(edit, ~inside)[None]) if bool(inside.any()) else None
        similarity = self_similarity(self.tokens(source[None]))
        outside = outside_score(edit, source, inside)
        far = (
            None if outside is None else self.distance(blank(edit, inside)[None], blank(source, inside)[None])
        )
        return {
            "clip_score": float(clip_score(after, new)),
            "clip_score_edit": None if seen is None else float(clip_score(seen, new)),
            "directional": float(directional_similarity(before, after, old, new)),
            "structure": float(structure_loss(self.tokens(edit[None]), similarity)),
            "perceptual": float(self.distance(edit[None], source[None])),
            "psnr_outside": None if outside is None else outside.psnr,
            "ssim_outside": None if outside is None else outside.ssim,
            "mse_outside": None if outside is None else outside.mse,
            "perceptual_outside": None if far is None else float(far),
            **_verdict(case, source, edit, inside),
        }


def mask_of(case: EditCase, height: int, width: int) -> Tensor:
    """Where an edit may change its picture, ``(1, height, width)``: every pixel that any part of is inside.

    PIE-Bench's own masks gain the outermost pixels, as in the published evaluation.
    """
    whole = case.mask(border=case.attribute is None)
    return F.adaptive_max_pool2d(whole.float(), (height, width)) > 0


def _verdict(case: EditCase, source: Tensor, edit: Tensor, inside: Tensor) -> dict[str, float | None]:
    """What the judge says of an edit of the rendered world."""
    wanted = None if case.attribute is None else understand(case.target)
    if wanted is None or set(wanted) != set(ATTRIBUTES):
        return dict.fromkeys(("reached", "kept", "right", "background"))
    score = score_edit(wanted, judge(edit[None].cpu()).names()[0], case.attribute)
    background = None if bool(inside.all()) else outside_psnr(edit, source, inside)
    return {**{name: float(value) for name, value in score._asdict().items()}, "background": background}
