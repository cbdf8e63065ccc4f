"""Every CUDA kernel once, at sizes that reach every path, for compute-sanitizer.

python -m benchmarks.gpu.small
"""

import argparse
import math
import sys

import torch

from geokernels.kernels import native
from geokernels.testing import cloud, orthonormal, weights

DEVICE = "cuda"
LAYOUTS = [(5, 7), (33, 64), (77, 77), (100, 128), (150, 256)]  # points a side, one for each


def transport(dtype: torch.dtype) -> None:
    """All layouts, balanced and not, with absorption, zero weights, forbidden pairs, ragged sizes; points."""
    for N, M in LAYOUTS:
        cost = torch.cdist(cloud(3, N, 3, seed=0), cloud(3, M, 3, seed=1)).square()
        cost[0, 0, : M // 2] = math.inf
        parts = [part.to(DEVICE, dtype) for part in (cost, weights(3, N, seed=2), weights(3, M, seed=3))]
        n, m = torch.tensor([[N, N, 1], [M, 1, M]], device=DEVICE)
        for eps, reach in ((0.5, math.inf), (0.01, 0.7)):
            torch.ops.geokernels.sinkhorn(*parts, None, None, None, eps, reach, 20, 1e-4)
            torch.ops.geokernels.sinkhorn(*parts, n, m, None, eps, reach, 20, 1e-4)
            v = cloud(3, M, 70, seed=4).to(DEVICE, dtype)
            torch.ops.geokernels.sinkhorn_carry(parts[0], v, *parts[1:], n, m, None, eps, reach, 20, 1e-4)
        x, y = (cloud(3, size, 70, seed=size).to(DEVICE, dtype) for size in (N, M))
        for kind in range(3):
            torch.ops.geokernels.sinkhorn_points(x, y, *parts[1:], n, m, None, kind, 50.0, math.inf, 20, 1e-4)
        numbers = 50.0, math.inf, 20, 1e-4
        torch.ops.geokernels.sinkhorn_points_carry(x, y, y, *parts[1:], n, m, None, 2, *numbers)


def half_precision() -> None:
    """Points in two bytes, read as they are; only the GPU's kernels do that."""
    for N, M in LAYOUTS:
        a, b = (
            weights(3, N, seed=2).to(DEVICE, torch.float32),
            weights(3, M, seed=3).to(DEVICE, torch.float32),
        )
        n, m = torch.tensor([[N, N, 1], [M, 1, M]], device=DEVICE)
        for dtype in (torch.float16, torch.bfloat16):
            x, y = (cloud(3, size, 70, seed=size).to(DEVICE, dtype) for size in (N, M))
            for kind in (0, 2):
                torch.ops.geokernels.sinkhorn_points(x, y, a, b, n, m, None, kind, 50.0, math.inf, 20, 1e-4)


def geodesic(dtype: torch.dtype) -> None:
    """Bases and cosines in shared and device memory, dependent rows, zero columns, and gradients."""
    for N, D, K, L in ((1, 5, 1, 2), (16, 96, 16, 8), (70, 700, 33, 64)):
        x, y, a = (cloud(3, N, D, seed=seed).to(DEVICE, dtype) for seed in range(3))
        a[0, -1] = a[0, 0]
        frame = torch.ops.geokernels.subspace_basis(a, min(N, D), 1e-6)
        ones = [torch.ones_like(part) for part in frame[1:]]
        torch.ops.geokernels.subspace_basis_backward(*ones, *frame, min(N, D))
        p, q = (orthonormal(3, D, rank, seed=rank).mT.contiguous().to(DEVICE, dtype) for rank in (K, L))
        p[0, 0] = 0
        torch.ops.geokernels.principal_angles(p, q)
        cosine, *kept = torch.ops.geokernels.geodesic_cosine(x, y, p, q, 1e-12)
        wanted = 1e-12, True, True, True, True
        torch.ops.geokernels.geodesic_cosine_backward(torch.ones_like(cosine), x, y, p, q, *kept, *wanted)


def gradients_and_assignment(dtype: torch.dtype) -> None:
    """Of ragged sizes, with pairs that cannot meet; assignments by a warp, by a block, and with state far."""
    for N, M, D in ((1, 1, 1), (77, 77, 70), (90, 150, 130)):
        cost, f, g = (cloud(3, *size, seed=0).to(DEVICE, dtype) for size in ((N, M), (N,), (M,)))
        cost[0, 0] = math.inf
        torch.ops.geokernels.transport_density(cost, f, g, 0.5)
        x, y = (cloud(3, size, D, seed=size).to(DEVICE, dtype) for size in (N, M))
        for kind in range(3):
            torch.ops.geokernels.point_gradient(cost.nan_to_num(), x, y, kind)
        torch.ops.geokernels.assignment(cost.double())
        torch.ops.geokernels.displacement(x, y, torch.linspace(0, 1, 3).to(x).repeat(3, 1))
    torch.ops.geokernels.assignment(cloud(1, 2, 12_000, seed=0).to(DEVICE))


def main() -> int:
    """0 when everything ran; what the sanitizer finds is its own exit code."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    if native.missing_cuda:
        print(f"nothing to check: {native.missing_cuda}", file=sys.stderr)
        return 1
    for dtype in (torch.float32, torch.float64):
        transport(dtype)
        geodesic(dtype)
        gradients_and_assignment(dtype)
    half_precision()
    torch.cuda.synchronize()
    print("every CUDA kernel ran")
    return 0


if __name__ == "__main__":
    sys.exit(main())
