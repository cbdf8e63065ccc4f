"""Rows whose squares would overflow or vanish, brought to where they do neither."""

import torch
from torch import Tensor

FAR = 2.0**30


def moderation(x: Tensor) -> Tensor:
    """What to multiply the rows of ``x`` by before they are squared, ``(..., N, 1)``: 1 for ordinary ones."""
    most = x.detach().abs().amax(-1, keepdim=True)
    moderate = ~(most > 0) | ((most >= 1 / FAR) & (most <= FAR))
    return torch.where(moderate, 1, 1 / torch.where(moderate, 1, most).clamp(min=torch.finfo(x.dtype).tiny))
