"""What derivatives are held to: autograd through every half-step of a long run."""

import torch
from torch import Tensor


def unrolled_sinkhorn(
    cost: Tensor, a: Tensor, b: Tensor, eps: float, reach: float | None, iterations: int = 400
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Value, f, g and plan of entropic transport, in the plainest form, differentiable to any order.

    Args:
        cost: ``(..., N, M)``; may hold +inf.
        a: Weights ``(..., N)``. Where one is 0, its own gradient is not a number.
        b: Weights ``(..., M)``, likewise.
        eps: Regularisation.
        reach: Marginal penalty; None when balanced.
        iterations: Pairs of half-steps, without a stopping rule.
    """
    damping, f, g = 1.0 if reach is None else reach / (reach + eps), torch.zeros_like(a), torch.zeros_like(b)
    for _ in range(iterations):
        f = -damping * eps * torch.logsumexp((g[..., None, :] - cost) / eps + b.log()[..., None, :], -1)
        g = -damping * eps * torch.logsumexp((f[..., :, None] - cost) / eps + a.log()[..., :, None], -2)
    if reach is None:
        shift = ((b * g).sum(-1) - (a * f).sum(-1)) / (a.sum(-1) + b.sum(-1))
        f, g = f + shift[..., None], g - shift[..., None]
    plan = a[..., :, None] * b[..., None, :] * torch.exp((f[..., :, None] + g[..., None, :] - cost) / eps)
    gain = (lambda p: p) if reach is None else (lambda p: -reach * torch.expm1(-p / reach))
    value = (a * gain(f)).sum(-1) + (b * gain(g)).sum(-1)
    return value + eps * (a.sum(-1) * b.sum(-1) - plan.sum((-2, -1))), f, g, plan
