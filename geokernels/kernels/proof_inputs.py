"""Inputs to prove kernels with: seeded, in float64, on the CPU; each function gives what makes some."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .proof_checks import Inputs

Make = Callable[[], Inputs]


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _weights(*shape: int, seed: int, zeros: int = 1) -> Tensor:
    mass = 0.1 + torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mass[..., : min(zeros, shape[-1] - 1)] = 0
    return mass / mass.sum(-1, keepdim=True)


def inside(size: int, count: Tensor) -> Tensor:
    """Which of ``size`` count, where the first ``count`` do."""
    return torch.arange(size, device=count.device) < count[..., None]


def costs(B: int, N: int, M: int, *, zeros=0, forbidden=False, ragged=False, **settings) -> Make:
    """Costs between weighted points.

    Args:
        B: Problems.
        N: Rows.
        M: Columns.
        zeros: How many weights are zero.
        forbidden: Whether a pair of each problem is.
        ragged: Whether problems differ in size.
        **settings: Of the solver.
    """

    def make() -> Inputs:
        cost = torch.cdist(_normal(B, N, 3, seed=0), _normal(B, M, 3, seed=1)).square()
        if forbidden:
            cost[:, N // 2, M // 2] = math.inf
        given = {"eps": 0.5, "max_iter": 8, "tol": 0.0} | settings
        return _transported({"cost": cost}, B, N, M, zeros, ragged, given)

    return make


def clouds(B: int, N: int, M: int, D: int, *, zeros=0, ragged=False, **settings) -> Make:
    """Weighted points, likewise."""

    def make() -> Inputs:
        points = {"x": 1 + _normal(B, N, D, seed=0), "y": 1.5 + 0.7 * _normal(B, M, D, seed=1)}
        given = {"eps": 0.5 * D, "max_iter": 8, "tol": 0.0} | settings
        return _transported(points, B, N, M, zeros, ragged, given)

    return make


def _transported(tensors, B, N, M, zeros, ragged, settings) -> Inputs:
    a, b = _weights(B, N, seed=2, zeros=zeros), _weights(B, M, seed=3, zeros=zeros)
    if ragged:
        n, m = (1 + torch.arange(B) * (size - 1) // max(B - 1, 1) for size in (N, M))
        a, b = (torch.where(inside(size, count), w, 0) for size, count, w in ((N, n, a), (M, m, b)))
        a, b = (w / w.sum(-1, keepdim=True).clamp_min(1e-300) for w in (a, b))
        tensors = tensors | {"n": n, "m": m}
    return Inputs(tensors | {"a": a, "b": b}, settings)


def from_a_start(make: Make) -> Make:
    """The same, with potentials to start from."""

    def started() -> Inputs:
        inputs = make()
        start = 0.1 * _normal(*inputs.tensors["b"].shape, seed=5)
        return inputs._replace(tensors=inputs.tensors | {"start": start})

    return started


def with_nan(make: Make, name: str) -> Make:
    """The same with a NaN in the middle of one tensor of one problem."""

    def broken() -> Inputs:
        inputs = make()
        x = inputs.tensors[name].clone(memory_format=torch.contiguous_format)
        x[1].view(-1)[x[1].numel() // 2] = math.nan
        return inputs._replace(tensors=inputs.tensors | {name: x}, broken=1)

    return broken


def rows(B: int, N: int, D: int, rank: int | None = None, *, span: bool = True) -> Make:
    """Feature rows, of which a basis is wanted; ``span``: compare its projector, ``(D, D)``, instead."""

    def make() -> Inputs:
        x = _normal(B, N, D, seed=0)
        # values well apart: a span between two that are nearly equal is known to nobody
        x = x * ((0.7 if N <= 16 else 0.95) ** torch.arange(N, dtype=x.dtype))[:, None]
        return Inputs({"x": x}, {"rank": rank or min(N, D), "span": span})

    return make


def pairs_of_rows(B: int, N: int, D: int, K: int) -> Make:
    """Rows to compare, and two bases."""

    def make() -> Inputs:
        x, y = _normal(B, N, D, seed=0), _normal(B, N, D, seed=1)
        p, q = (torch.linalg.qr(_normal(B, D, K, seed=seed)).Q for seed in (2, 3))
        return Inputs({"x": x, "y": y, "p": p, "q": q}, {})

    return make


def bases(B: int, D: int, K: int, L: int) -> Make:
    """Two bases."""

    def make() -> Inputs:
        p, q = (torch.linalg.qr(_normal(B, D, size, seed=size)).Q for size in (K, L))
        return Inputs({"p": p, "q": q}, {})

    return make


def matrices(B: int, N: int, M: int) -> Make:
    """Costs without weights."""
    return lambda: Inputs({"cost": _normal(B, N, M, seed=0)}, {})


def ways(B: int, N: int, M: int, D: int) -> Make:
    """Points to move to others, and when to look."""

    def make() -> Inputs:
        times = torch.linspace(0, 1, 3, dtype=torch.float64).expand(B, 3).contiguous()
        return Inputs({"x": _normal(B, N, D, seed=0), "y": _normal(B, M, D, seed=1), "times": times}, {})

    return make
