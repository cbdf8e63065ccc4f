"""Every CUDA kernel once, at sizes that reach every path, for compute-sanitizer.

python -m benchmarks.gpu.small
"""

import math
import sys

import torch

from geokernels.kernels import native
from geokernels.testing import cloud, weights

LAYOUTS = [(5, 7), (33, 64), (77, 77), (100, 128), (150, 256)]  # points a side, one for each


def transport(dtype: torch.dtype) -> None:
    """All layouts, balanced and not, with absorption, zero weights, forbidden pairs, ragged sizes."""
    for N, M in LAYOUTS:
        cost = torch.cdist(cloud(3, N, 3, seed=0), cloud(3, M, 3, seed=1)).square()
        cost[0, 0, : M // 2] = math.inf
        parts = [part.to("cuda", dtype) for part in (cost, weights(3, N, seed=2), weights(3, M, seed=3))]
        n, m = torch.tensor([N, N, 1]).cuda(), torch.tensor([M, 1, M]).cuda()
        for eps, reach in ((0.5, math.inf), (0.01, 0.7)):
            torch.ops.geokernels.sinkhorn(*parts, None, None, None, eps, reach, 20, 1e-4)
            torch.ops.geokernels.sinkhorn(*parts, n, m, None, eps, reach, 20, 1e-4)


def main() -> int:
    """0 when everything ran; what the sanitizer finds is its own exit code."""
    if native.missing_cuda:
        print(f"nothing to check: {native.missing_cuda}", file=sys.stderr)
        return 1
    for dtype in (torch.float32, torch.float64):
        transport(dtype)
    torch.cuda.synchronize()
    print("every CUDA kernel ran")
    return 0


if __name__ == "__main__":
    sys.exit(main())
