"""Distances of all pairs, with derivatives in both directions."""

import torch
from torch import Tensor

from .. import _forward_mode
from .._first_order import first_order
from .._torch_internals import distance_gradient, forward_mode_is_on
from .._typing import Cost, Points

OF = "sinkhorn with the costs 'euclidean' and 'lp'"  # what second derivatives are refused of


def tangent(x: Points, y: Points, apart_by: Cost, p: float, dx: Points, dy: Points) -> Cost:
    """That of the distances that were ``apart_by``; 0 between points that coincide, as the gradient is."""
    met, moved = apart_by == 0, torch.zeros_like(apart_by)
    length = apart_by.masked_fill(met, 1)
    for d in range(x.shape[-1]):
        apart, rise = (u[..., :, None, d] - v[..., None, :, d] for u, v in ((x, y), (dx, dy)))
        moved = moved + apart.sign() * (apart.abs() / length) ** (p - 1) * rise
    return torch.where(met, 0, moved)


def plain(x: Points, y: Points, p: float) -> Cost:
    """The distances of all pairs, by their differences: products would round small ones to 0."""
    return torch.cdist(x, y, p, compute_mode="donot_use_mm_for_euclid_dist")


class _Distances(torch.autograd.Function):
    """torch.cdist with a rule for tangents, which it does not have; first order only."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Points, y: Points, p: float) -> Cost:
        return plain(x, y, p)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Cost) -> None:
        x, y, ctx.p = inputs
        ctx.save_for_backward(x, y, output)
        ctx.save_for_forward(x, y, output)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, y, apart_by = ctx.saved_tensors

        def both(x, y, apart_by, grad):
            to_x = distance_gradient(x, y, apart_by, ctx.p, grad)
            return to_x, distance_gradient(y, x, apart_by.mT, ctx.p, grad.mT)

        return *first_order(OF, both, x, y, apart_by, grad), None


def _tangents(ctx, saved: tuple, dx: Points | None, dy: Points | None, _p) -> Cost:
    x, y, apart_by = saved
    dx, dy = torch.zeros_like(x) if dx is None else dx, torch.zeros_like(y) if dy is None else dy

    def along(x, y, apart_by, dx, dy):
        return tangent(x, y, apart_by, ctx.p, dx, dy)

    return first_order(OF, along, x, y, apart_by, dx, dy)


_apply = _forward_mode.applied(_Distances, _tangents)


def distances(x: Points, y: Points, p: float = 2.0) -> Cost:
    r"""$(\sum_d |x_{id} - y_{jd}|^p)^{1/p}$, ``(..., N, M)``; the derivative at distance 0 is 0."""
    if torch.compiler.is_compiling() or not forward_mode_is_on(x, y):
        return plain(x, y, p)
    return _apply(x, y, p)
