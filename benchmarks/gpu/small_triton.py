"""Every Triton kernel once, at small sizes, for compute-sanitizer.

python -m benchmarks.gpu.small_triton
"""

import argparse
import math
import sys

import torch

import geokernels as gk
from geokernels.kernels import triton
from geokernels.kernels.costs import PairCost
from geokernels.testing import cloud, orthonormal, weights

DEVICE = "cpu" if triton.interpreted else "cuda"
N, M = 257, 20  # the fewest points that are streamed, against few
STEPS = {"max_iter": 3, "tol": 1e-4, "backend": "triton"}


def there(*parts: torch.Tensor) -> list[torch.Tensor]:
    return [part.to(DEVICE, torch.float32) for part in parts]


def given_costs() -> None:
    """Given costs, balanced and not, one pair forbidden, of several sizes of a program, and streamed ones."""
    for N, M in ((5, 7), (70, 40), (20, 250), (257, 20)):
        cost, a, b = there(cloud(2, N, M, seed=0).abs(), weights(2, N, seed=1), weights(2, M, seed=2))
        cost[0, N // 2, M // 2] = math.inf
        for reach in (None, 0.7):
            gk.sinkhorn_from_cost(cost, a, b, eps=0.5, reach=reach, **STEPS)


def clouds() -> None:
    """Streamed points: every cost, tiles that are not full, gradients of value and potentials, plans."""
    for cost, features in (("sqeuclidean", 5), ("euclidean", 3), ("lp", 3)):
        x, y = there(1 + cloud(1, N, features, seed=0), cloud(1, M, features, seed=1))
        a, b = there(weights(1, N, seed=2), weights(1, M, seed=3))
        x.requires_grad_()
        for reach in (None, 2.0):
            t = gk.sinkhorn(x, y, a, b, cost=cost, eps=3.0, reach=reach, **STEPS)
            torch.autograd.grad(t.value.sum() + t.barycentric(y).sum() + t.f.square().sum(), x)


def precisions() -> None:
    """All ways to round products, of points that lie in registers and of more features."""
    for features in (5, 80):
        x, y = there(cloud(1, N, features, seed=0), cloud(1, M, features, seed=1))
        for precision in triton.PRECISIONS:
            gk.sinkhorn(x, y, eps=30.0, precision=precision, **STEPS).apply(y)


def stored_costs() -> None:
    """Costs that are made once: whether they are depends on the memory that is free."""
    # triton loads on use
    from geokernels.kernels.triton import transport_clouds_given, transport_clouds_tiles

    x, y = there(cloud(1, 70, 80, seed=0), cloud(1, 40, 80, seed=1))
    for precision, tile in transport_clouds_given.TILE.items():
        packed = transport_clouds_tiles.pack(x, y, PairCost.SQUARE, 2.0, precision, tile.features)
        transport_clouds_given.stored(*packed, precision)


def subspaces() -> None:
    """Bases of few rows and many, dependent rows; cosines with all gradients."""
    for N, D, K, L in ((1, 5, 1, 2), (16, 96, 16, 8), (20, 40, 20, 31)):
        x, y = there(cloud(2, N, D, seed=0), cloud(2, N, D, seed=1))
        x[0, -1] = x[0, 0]
        gk.subspace_basis(x, min(N, D), backend="triton")
        p, q = there(*(orthonormal(2, D, min(rank, D), seed=rank) for rank in (K, L)))
        parts = [part.requires_grad_() for part in (x, y, p, q)]
        torch.autograd.grad(gk.geodesic_cosine(*parts, backend="triton").sum(), parts)


def main() -> int:
    """0 when everything ran; what the sanitizer finds is its own exit code."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    if reason := triton.refuse(torch.empty(0, device=DEVICE)):
        print(f"nothing to check: {reason}", file=sys.stderr)
        return 1
    for part in (given_costs, clouds, precisions, stored_costs, subspaces):
        part()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    print("every Triton kernel ran")
    return 0


if __name__ == "__main__":
    sys.exit(main())
