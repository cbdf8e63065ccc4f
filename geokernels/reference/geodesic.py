"""Geodesics between subspaces and the cosine along them, as defined."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _forward_mode
from .._first_order import first_order
from .._moderation import moderation
from .._precision import full_precision
from .._typing import Basis, Rows, Scores
from . import path, tangents
from .subspace import living

SERIES_BELOW = 0.5  # radians
SHORTEST = 1e-12  # the default of eps: a squared length up to this has no direction


def _filled(p: Basis, q: Basis) -> tuple[Basis, Basis]:
    """Give both bases the same number of columns; what is added, and what was zero, is a constant zero."""
    rank = max(p.shape[-1], q.shape[-1])
    p, q = (torch.where(living(b)[..., None, :], b, 0) for b in (p, q))
    return tuple(torch.nn.functional.pad(b, (0, rank - b.shape[-1])) for b in (p, q))


def _weighting_gradient(grad: Tensor, _overlap: Tensor, u: Tensor, g: Tensor, v: Tensor) -> Tensor:
    """Gradient to the overlap, from that to ``F`` of :class:`_Weighting`."""
    plus, minus = torch.cat([u, v], -2), torch.cat([u, -v], -2)
    grad = (grad + grad.mT) / 2
    slope, mixed = path.divided_differences(g), path.mixed_differences(g)
    twist = mixed * (plus.mT @ grad @ minus)
    inner = slope.sum * (plus.mT @ grad @ plus) + slope.difference * (minus.mT @ grad @ minus)
    return u @ (inner + twist.mT - twist) @ v.mT


def _weighting_tangent(moved: Tensor, _overlap: Tensor, u: Tensor, g: Tensor, v: Tensor) -> Tensor:
    """Tangent of ``F`` of :class:`_Weighting`, from that of the overlap."""
    plus, minus = torch.cat([u, v], -2), torch.cat([u, -v], -2)
    same, opposite, crossed = tangents.of_weighting(u.mT @ moved @ v, g)
    cross = plus @ crossed @ minus.mT
    return plus @ same @ plus.mT + minus @ opposite @ minus.mT + cross + cross.mT


class _Weighting(torch.autograd.Function):
    r"""The overlap $C = P^\top Q$ to the matrix $F$ with $G = [P\,Q]\,F\,[P\,Q]^\top$, ``(..., 2K, 2K)``.

    With $C = U \mathrm{diag}(g) V^\top$, the eigenvectors of $H = [[0, C], [C^\top, 0]]$ are
    $(u_j, \pm v_j)/\sqrt2$ with eigenvalues $\pm g_j$, and $F = f(H)$, $f(g) = 2 w_+(g)$, $f(-g) = 2 w_-(g)$.
    Hence the derivative of $F$ needs divided differences of $f$ alone (Daleckii and Krein), which are finite
    at equal angles and at angle 0, where those of the singular vectors are not.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(overlap: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        u, g, vt = torch.linalg.svd(overlap)
        v = vt.mT
        w = path.weights(g)
        same, cross = ((w.sum + w.difference)[..., None, :], (w.sum - w.difference)[..., None, :])
        upper = torch.cat([(u * same) @ u.mT, (u * cross) @ v.mT], -1)
        lower = torch.cat([(v * cross) @ u.mT, (v * same) @ v.mT], -1)
        return torch.cat([upper, lower], -2), u, g, v

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(inputs[0], *output[1:])
        ctx.save_for_forward(inputs[0], *output[1:])

    @staticmethod
    def backward(ctx, grad: Tensor, *_grad_frame: Tensor) -> Tensor:
        return first_order("geodesic_cosine", _weighting_gradient, grad, *ctx.saved_tensors)


def _tangents_of_weighting(ctx, saved: tuple[Tensor, ...], moved: Tensor) -> tuple[Tensor | None, ...]:
    return first_order("geodesic_cosine", _weighting_tangent, moved, *saved), None, None, None


_weighting = _forward_mode.applied(_Weighting, _tangents_of_weighting)


def _moderated(x: Rows, eps: float) -> tuple[Rows, Tensor]:
    """Rows as they can be squared, and ``eps`` for each."""
    scale = moderation(x)
    return x * scale, (eps * scale * scale)[..., 0]


def _cosine(xx: Tensor, xy: Tensor, yy: Tensor, eps: tuple[Tensor, Tensor]) -> Scores:
    # select before dividing, so that rows without direction back-propagate 0 and not 0 * inf
    directed = (xx > eps[0]) & (yy > eps[1])
    lengths = torch.where(directed, xx, 1).sqrt() * torch.where(directed, yy, 1).sqrt()
    return torch.where(directed, xy, 0) / lengths


@full_precision
def geodesic_cosine(x: Rows, y: Rows, p: Basis, q: Basis, *, eps: float = SHORTEST) -> Scores:
    """See :func:`geokernels.geodesic_cosine`, which this defines."""
    p, q = _filled(p, q)
    weighting, *_frame = _weighting(p.mT @ q)
    both = torch.cat([p, q], -1)
    (x, eps_x), (y, eps_y) = _moderated(x, eps), _moderated(y, eps)
    x, y = x @ both, y @ both
    weighted_x, weighted_y = x @ weighting, y @ weighting
    xx, xy, yy = ((a * b).sum(-1) for a, b in ((weighted_x, x), (weighted_x, y), (weighted_y, y)))
    return _cosine(xx, xy, yy, (eps_x, eps_y))


@dataclass(frozen=True)
class GeodesicFlow:
    r"""The geodesic from one subspace to another, $\Phi_j(t) = a_j \cos(t\theta_j) + c_j \sin(t\theta_j)$.

    Attributes:
        start: Principal vectors $a_j$ of the first subspace, ``(..., D, K)``.
        turn: Unit vectors $c_j$ towards the second, orthogonal to the first, ``(..., D, K)``; zero where the
            angle is zero.
        angles: Principal angles $\theta_j$ in radians, ``(..., K)``.
    """

    start: Basis
    turn: Basis
    angles: Tensor

    def at(self, t: float | Tensor) -> Basis:
        """The basis at time ``t``, ``(..., D, K)``; a tensor ``t`` broadcasts with the batch shape."""
        t = torch.as_tensor(t, dtype=self.angles.dtype, device=self.angles.device)
        angle = (t[..., None] * self.angles)[..., None, :]
        return self.start * angle.cos() + self.turn * angle.sin()

    def weights(self) -> tuple[Tensor, Tensor, Tensor]:
        r"""The integrals over [0, 1] of $\cos^2$, $\cos\sin$ and $\sin^2$ of $t\theta$, each ``(..., K)``."""
        double = 2 * self.angles
        small = double < SERIES_BELOW
        x = torch.where(small, 1, double)
        s = torch.where(small, double, 0) ** 2
        # (1 - sin(x)/x) / 2 and (1 - cos(x)) / (2 x); nine terms reach 1e-17 below SERIES_BELOW
        rest, cross = torch.zeros_like(s), torch.zeros_like(s)
        for n in range(8, 0, -1):
            rest = (1 - rest) * s / (2 * n * (2 * n + 1))
            cross = (1 - cross) * s / ((2 * n + 1) * (2 * n + 2))
        sin_sin = torch.where(small, rest, 1 - x.sin() / x) / 2
        cos_sin = torch.where(small, double * (1 - cross) / 2, (1 - x.cos()) / x) / 2
        return 1 - sin_sin, cos_sin, sin_sin

    def kernel(self) -> Tensor:
        r"""The geodesic flow kernel $\int_0^1 \Phi\Phi^\top dt$, ``(..., D, D)``; no operator needs it."""
        cos_cos, cos_sin, sin_sin = (w[..., None, :] for w in self.weights())
        a, c = self.start, self.turn
        with torch.autocast(a.device.type, enabled=False):
            cross = (a * cos_sin) @ c.mT
            return (a * cos_cos) @ a.mT + cross + cross.mT + (c * sin_sin) @ c.mT


@full_precision
@torch.no_grad()
def geodesic_flow(p: Basis, q: Basis) -> GeodesicFlow:
    """See :func:`geokernels.geodesic_flow`, which this defines."""
    p, q = _filled(p, q)
    u, g, vt = torch.linalg.svd(p.mT @ q)
    v = vt.mT
    start = p @ u
    rise = q @ v - g[..., None, :] * start
    # a zero column stands for a direction of its own, outside the features: it has length, and is not seen
    unseen_p = torch.where(living(p)[..., None], 0, u).square().sum(-2)
    unseen_q = torch.where(living(q)[..., None], 0, v).square().sum(-2)
    sine = (rise.square().sum(-2) + unseen_q + g**2 * unseen_p).sqrt()
    turn = torch.where(sine[..., None, :] > 0, rise, 0) / torch.where(sine > 0, sine, 1)[..., None, :]
    return GeodesicFlow(start, turn, torch.atan2(sine, g))


@full_precision
def geodesic_cosine_along(x: Rows, y: Rows, flow: GeodesicFlow, *, eps: float = SHORTEST) -> Scores:
    """See :func:`geokernels.geodesic_cosine_along`, which this defines."""
    cos_cos, cos_sin, sin_sin = (w[..., None, :] for w in flow.weights())

    def product(x: Rows, y: Rows) -> Tensor:
        xa, xc, ya, yc = x @ flow.start, x @ flow.turn, y @ flow.start, y @ flow.turn
        return (cos_cos * xa * ya + cos_sin * (xa * yc + xc * ya) + sin_sin * xc * yc).sum(-1)

    (x, eps_x), (y, eps_y) = _moderated(x, eps), _moderated(y, eps)
    return _cosine(product(x, x), product(x, y), product(y, y), (eps_x, eps_y))
