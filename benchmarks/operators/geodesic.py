"""Subspace bases and the geodesic cosine, beside the shortest correct composition of torch.linalg."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

import geokernels as gk
from geokernels.testing import cloud, orthonormal

from ..harness.case import Case, Rival, Work

N, D = 16, 512  # sixteen views of a picture, the features of ViT-B/32


def basis_by_svd(a: Tensor) -> Tensor:
    return torch.linalg.svd(a, full_matrices=False).Vh.mT


def cosine_by_svd(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """As one writes it from the formulas: thin SVDs, principal vectors, the three integrals."""
    return cosine_between(x, y, basis_by_svd(a), basis_by_svd(b))


def cosine_between(x: Tensor, y: Tensor, p: Tensor, q: Tensor) -> Tensor:
    u, g, vh = torch.linalg.svd(p.mT @ q)
    start = p @ u
    rise = q @ vh.mT - start * g[..., None, :]
    sine = torch.linalg.vector_norm(rise, dim=-2)
    turn = rise / sine[..., None, :]
    double = 2 * torch.atan2(sine, g)[..., None, :]
    cos_cos, sin_sin = ((1 + sign * double.sin() / double) / 2 for sign in (1, -1))
    cos_sin = (1 - double.cos()) / (2 * double)

    def product(xa: Tensor, xc: Tensor, ya: Tensor, yc: Tensor) -> Tensor:
        return (cos_cos * xa * ya + cos_sin * (xa * yc + xc * ya) + sin_sin * xc * yc).sum(-1)

    on_x, on_y = (x @ start, x @ turn), (y @ start, y @ turn)
    return product(*on_x, *on_y) / (product(*on_x, *on_x) * product(*on_y, *on_y)).sqrt()


def cosine_by_operators(x: Tensor, y: Tensor, a: Tensor, b: Tensor, backend: str = "native") -> Tensor:
    p, q = (gk.subspace_basis(part, backend=backend).basis for part in (a, b))
    return gk.geodesic_cosine(x, y, p, q, backend=backend)


def with_gradient(cosine, which: tuple[int, ...]):
    """Values, and the gradient of their sum to some of the arguments."""

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        leaves = [part.detach().requires_grad_(i in which) for i, part in enumerate(inputs)]
        out = cosine(*leaves)
        return out.detach(), *torch.autograd.grad(out.sum(), [leaves[i] for i in which])

    return run


def published_kernel(p: Tensor, q: Tensor) -> Tensor:
    """The D x D kernel as the published code makes it, but exact: a complement of all columns, no noise.

    Blocks of the first basis and of its complement, turned by the singular vectors of their products with
    the second; angles by arccos.
    """
    rank = p.shape[-1]
    complement = torch.linalg.svd(p, full_matrices=True).U[:, rank:]
    u, cosine, vh = torch.linalg.svd(p.mT @ q)
    angle = torch.arccos(cosine.clamp(-1, 1))
    w = -(complement.mT @ q) @ vh.mT / angle.sin()
    double = 2 * angle
    cos_cos, sin_sin = ((1 + sign * double.sin() / double) / 2 for sign in (1, -1))
    cos_sin = (double.cos() - 1) / (2 * double)
    start, turn = p @ u, complement @ w
    mixed = start * cos_sin @ turn.mT
    return start * cos_cos @ start.mT + mixed + mixed.mT + turn * sin_sin @ turn.mT


def published_cosine(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """As published: bases by SVD, the D x D kernel held constant, then row by row."""
    with torch.no_grad():
        kernel = published_kernel(basis_by_svd(a), basis_by_svd(b))
    rows = []
    for u, v in zip(x, y):
        lengths = (u @ kernel @ u).sqrt() * (v @ kernel @ v).sqrt()
        rows.append(u @ kernel @ v / lengths)
    return torch.stack(rows)


def cosine_case(
    name: str,
    reason: str,
    batch: tuple[int, ...],
    which: tuple[int, ...],
    products: int,
    more_rivals: dict | None = None,
    **more,
) -> Case:
    """``products`` counts the N x N x D matrix products of the work."""

    def make() -> tuple:
        return tuple(cloud(*batch, N, D, seed=seed).float() for seed in range(4))

    def exact(inputs: tuple) -> tuple[Tensor, ...]:
        wide = (part.double() for part in inputs)
        return with_gradient(lambda *args: cosine_by_operators(*args, backend="reference"), which)(*wide)

    def error(result: tuple[Tensor, ...], inputs: tuple) -> float:
        return max((a.double() - b).abs().max().item() for a, b in zip(result, exact(inputs), strict=True))

    def work(inputs: tuple) -> Work:
        numbers = sum(part.numel() for part in inputs) + sum(inputs[i].numel() for i in which)
        return Work(2.0 * products * math.prod(batch) * N * N * D, 0, 4.0 * numbers)

    return Case(
        name=name,
        reason=reason,
        make=make,
        ours={"native": with_gradient(cosine_by_operators, which)},
        rivals={"torch.linalg": with_gradient(cosine_by_svd, which)} | (more_rivals or {}),
        error=error,
        allowed=1e-4,
        work=work,
        **more,
    )


def consistency_by_svd(z: Tensor, z0: Tensor, before: Tensor, after: Tensor, text_basis: Tensor) -> Tensor:
    """The loss as a pipeline calls it, step by step: the texts' basis is known, the views' is not."""
    change, asked = (functional.normalize(part, dim=-1) for part in (z - z0, after - before))
    towards = functional.normalize(asked.mean(-2, keepdim=True), dim=-1).expand_as(change)
    return 1 - cosine_between(change, towards, basis_by_svd(change), text_basis).mean(-1)


def regularisation_by_svd(z: Tensor, previous: Tensor) -> Tensor:
    return 1 - cosine_by_svd(previous, z, previous, z).mean(-1)


def loss_case(name: str, reason: str, rows: tuple[int, ...], loss, by_svd, with_basis: bool, **more) -> Case:
    """Loss and gradient to the first input; ``rows`` of each input. ``loss`` is ours."""

    def make() -> tuple:
        current, *inputs = (cloud(n, D, seed=seed).float() for seed, n in enumerate(rows))
        if with_basis:
            inputs.append(basis_by_svd(functional.normalize(inputs[2] - inputs[1], dim=-1)))
        return current.requires_grad_(), *inputs

    def with_its_gradient(loss):
        def run(current: Tensor, *constants: Tensor) -> tuple[Tensor, ...]:
            result = loss(current, *constants)
            return result.detach(), *torch.autograd.grad(result, current)

        return run

    def error(result: tuple[Tensor, ...], inputs: tuple) -> float:
        exact = with_its_gradient(partial(loss, backend="reference"))(*(part.double() for part in inputs))
        return max((a.double() - b).abs().max().item() for a, b in zip(result, exact, strict=True))

    return Case(
        name=name,
        reason=reason,
        make=make,
        ours={"native": with_its_gradient(partial(loss, backend="native"))},
        rivals={"torch.linalg": with_its_gradient(by_svd)},
        error=error,
        allowed=1e-4,
        targets={"ratio": 8},
        **more,
    )


def consistency(
    z: Tensor, z0: Tensor, before: Tensor, after: Tensor, text_basis: Tensor, backend: str
) -> Tensor:
    return gk.geodesic_consistency_loss(z, z0, before, after, text_basis=text_basis, backend=backend)


def basis_case(
    name: str, reason: str, batch: tuple[int, ...], rows: int = N, features: int = D, **more
) -> Case:
    def error(basis: Tensor, inputs: tuple) -> float:
        (x,) = inputs
        exact = basis_by_svd(x.double())
        # the span alone is defined: what one basis has outside the other
        return (exact - basis.double() @ (basis.double().mT @ exact)).abs().max().item()

    return Case(
        name=name,
        reason=reason,
        make=lambda: (cloud(*batch, rows, features, seed=0).float(),),
        ours={"native": lambda x: gk.subspace_basis(x, backend="native").basis},
        rivals={"torch.linalg.svd": basis_by_svd},
        error=error,
        allowed=1e-5,
        # half a Gram matrix, and a product with its vectors
        work=lambda inputs: Work(3.0 * math.prod(batch) * rows * rows * features, 0, 8.0 * inputs[0].numel()),
        **more,
    )


def directions_case(name: str, reason: str, directions: int, features: int, **more) -> Case:
    """Cosines of sixteen pairs of rows between given bases, and the gradient to the rows and both bases."""

    def make() -> tuple:
        rows = (cloud(N, features, seed=seed).float() for seed in range(2))
        return *rows, *(orthonormal(features, directions, seed=seed).float() for seed in (2, 3))

    def by(backend: str) -> Callable:
        return with_gradient(partial(gk.geodesic_cosine, backend=backend), (0, 1, 2, 3))

    def error(result: tuple[Tensor, ...], inputs: tuple) -> float:
        exact = by("reference")(*(part.double() for part in inputs))
        differences = [a.double() - b for a, b in zip(result, exact, strict=True)]
        # only motion that keeps bases orthonormal counts
        for which in (3, 4):
            basis = inputs[which - 1].double()
            differences[which] -= basis @ (basis.mT @ differences[which])
        return max(difference.abs().max().item() for difference in differences)

    return Case(
        name=name,
        reason=reason,
        make=make,
        ours={"native": by("native")},
        rivals={
            "torch.linalg": with_gradient(cosine_between, (0, 1, 2, 3)),
            "the definition": by("reference"),
        },
        error=error,
        allowed=1e-4,
        **more,
    )


def cases() -> list[Case]:
    # products: half a Gram and a basis for each subspace, the overlap, two projections a side, two a gradient
    published = Rival(with_gradient(published_cosine, (0,)))
    return [
        cosine_case(
            "two bases and geodesic cosine, 16 x 512, gradient to x",
            "one step on one picture: 16 views, d = 512; the bases are constants",
            (), (0,), 10,
            more_rivals={"the published algorithm": published},
            targets={"ratio": 8, "ratio to the published algorithm": 40},
        ),
        cosine_case(
            "two bases and geodesic cosine, 16 x 512, gradient to x and through both bases",
            "the same where the subspaces follow the picture, as in both losses",
            (), (0, 2, 3), 22,
            targets={"ratio": 8},
        ),
        cosine_case(
            "1024 times two bases and geodesic cosine, 16 x 512, gradient to x",
            "a batch large enough to hide every call",
            (1024,), (0,), 10,
            targets={"ratio": 10},
        ),
        loss_case(
            "geodesic_consistency_loss, 16 x 512, loss and gradient",
            "one step on one picture, as the morphing pipeline calls it: 16 views, 16 templates",
            (N, N, N, N), consistency, consistency_by_svd, with_basis=True,
        ),
        loss_case(
            "geodesic_regularisation_loss, 16 x 512, loss and gradient",
            "the same against the previous iterate",
            (N, N), gk.geodesic_regularisation_loss, regularisation_by_svd, with_basis=False,
        ),
        basis_case(
            "batched bases, 1024 x (16 x 512)", "bases alone, where batched SVDs are slowest", (1024,),
            targets={"ratio": 10},
        ),
    ]  # fmt: skip
