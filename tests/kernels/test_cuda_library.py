"""The CUDA library agrees with the definition; skipped, with the reason, where there is no GPU."""

import pytest
import torch

import geokernels as gk
from geokernels.kernels import native
from geokernels.testing import assert_as_accurate, cloud, orthonormal, weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
    pytest.mark.skipif(native.missing_cuda is not None, reason=str(native.missing_cuda)),
]


@pytest.mark.parametrize("reach", [None, 0.7], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 17, 33), (5, 256, 130)], ids=str)
def test_sinkhorn_matches_reference(shape, dtype, reach):
    B, N, M = shape
    cost = torch.cdist(cloud(B, N, 3, seed=0), cloud(B, M, 3, seed=1)).square()
    exact = [cost / cost.mean(), weights(B, N, seed=2), weights(B, M, seed=3)]
    options = {"eps": 0.2, "reach": reach, "max_iter": 60, "tol": 0.0}
    there = [part.to("cuda", dtype) for part in exact]
    ours = gk.sinkhorn_from_cost(*there, **options, backend="native")
    eager = gk.sinkhorn_from_cost(*there, **options, backend="reference")
    truth = gk.sinkhorn_from_cost(*exact, **options, backend="reference")
    for name in ("value", "f", "g"):
        assert_as_accurate(name, *(getattr(t, name).cpu() for t in (ours, eager)), getattr(truth, name))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=["f16", "bf16", "f32"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 17, 33), (5, 256, 130)], ids=str)
def test_plan_of_points_carries_columns(shape, dtype):
    B, N, M = shape
    x, y = (cloud(B, size, 40, seed=size).to("cuda", dtype) for size in (N, M))
    v = cloud(B, M, 70, seed=5).cuda().float()
    solve = torch.ops.geokernels.sinkhorn_points_carry
    *_, carried = solve(x, y, v, *(None,) * 5, 2, 8.0, float("inf"), 200, 1e-6)
    exact = gk.sinkhorn(
        *(part.cpu().double() for part in (x, y)), eps=8.0, max_iter=200, tol=1e-6, backend="reference"
    )
    expected = exact.apply(v.cpu().double()) * N
    torch.testing.assert_close(carried.cpu().double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_angles_match_reference(dtype):
    p, q = (orthonormal(4, 100, rank, seed=rank).to("cuda", dtype) for rank in (9, 33))
    exact = gk.principal_angles(p.cpu().double(), q.cpu().double(), backend="reference")
    eager = gk.principal_angles(p, q, backend="reference")
    assert_as_accurate("angles", gk.principal_angles(p, q, backend="native").cpu(), eager.cpu(), exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("kind", range(3))
def test_gradients_match_the_cpu(dtype, kind):
    x, y = (cloud(3, size, 130, seed=size) for size in (90, 150))
    weight, f, g = cloud(3, 90, 150, seed=0), cloud(3, 90, seed=1), cloud(3, 150, seed=2)
    for operator, args in (
        (torch.ops.geokernels.point_gradient, (weight, x, y, kind)),
        (torch.ops.geokernels.transport_density, (weight, f, g, 0.5)),
    ):
        rounded = [part.to(dtype) if isinstance(part, torch.Tensor) else part for part in args]
        there = [part.cuda() if isinstance(part, torch.Tensor) else part for part in rounded]
        exact = operator(*(part.double() if isinstance(part, torch.Tensor) else part for part in rounded))
        assert_as_accurate("gradient", operator(*there).cpu(), operator(*rounded), exact)


@pytest.mark.parametrize("shape", [(1, 1), (70, 70), (77, 120), (300, 300), (2, 12_000)], ids=str)
@pytest.mark.parametrize("kind", ["random", "tied", "sparse"])
def test_assignment_is_that_of_the_cpu(shape, kind):
    cost = cloud(3, *shape, seed=0)
    if kind == "tied":
        cost = cost.round()
    if kind == "sparse":
        cost[cloud(3, *shape, seed=1) > 0] = torch.inf
    expected = torch.ops.geokernels.assignment(cost)
    assert torch.equal(torch.ops.geokernels.assignment(cost.cuda()).cpu(), expected)


def test_displacement_follows_it():
    x, y, times = cloud(3, 9, 5, seed=0), cloud(3, 12, 5, seed=1), cloud(3, 4, seed=2).sigmoid()
    x[1, 0, 0] = torch.inf
    moved, chosen = torch.ops.geokernels.displacement(*(part.cuda() for part in (x, y, times)))
    expected, columns = torch.ops.geokernels.displacement(x, y, times)
    assert torch.equal(chosen.cpu(), columns)
    torch.testing.assert_close(moved.cpu(), expected, equal_nan=True)


def sinkhorn():
    cost = torch.rand(8, 77, 77, device="cuda")
    return torch.ops.geokernels.sinkhorn(cost, None, None, None, None, None, 0.1, float("inf"), 100, 1e-5)


def basis():
    x = cloud(8, 16, 512, seed=0).to("cuda", torch.float32)
    frame = torch.ops.geokernels.subspace_basis(x, 16, 1e-6)
    ones = [torch.ones_like(part) for part in frame[1:]]
    return *frame, torch.ops.geokernels.subspace_basis_backward(*ones, *frame, 16)


def cosine():
    x, y = (cloud(8, 16, 512, seed=seed).to("cuda", torch.float32) for seed in (0, 1))
    p, q = (orthonormal(8, 512, 16, seed=seed).mT.contiguous().to("cuda", torch.float32) for seed in (2, 3))
    out, *frame = torch.ops.geokernels.geodesic_cosine(x, y, p, q, 1e-12)
    grads = torch.ops.geokernels.geodesic_cosine_backward(
        torch.ones_like(out), x, y, p, q, *frame, 1e-12, True, True, True, True
    )
    return out, *frame, *grads


def gradient():
    parts = [cloud(8, *size, seed=0).cuda().float() for size in ((77, 77), (77, 512), (77, 512))]
    return torch.ops.geokernels.point_gradient(*parts, 2), torch.ops.geokernels.assignment(parts[0].double())


@pytest.mark.parametrize("run", [sinkhorn, basis, cosine, gradient])
def test_repeats_to_the_bit(run):
    torch.manual_seed(0)
    first = run()
    torch.manual_seed(0)
    assert all(torch.equal(x, y) for x, y in zip(first, run(), strict=True))


def test_is_captured_in_a_graph():
    cost = torch.rand(8, 77, 77, device="cuda")
    rest = None, None, None, None, None, 0.1, float("inf"), 100, 1e-5
    x, y = (cloud(4, 6, 40, seed=seed).cuda().float() for seed in (0, 1))

    def run():
        solved = torch.ops.geokernels.sinkhorn(cost, *rest)
        left, directions, values = torch.ops.geokernels.subspace_basis(x, 6, 1e-6)
        return (
            *solved,
            left,
            values,
            *torch.ops.geokernels.geodesic_cosine(x, y, directions, directions, 1e-12),
        )

    first = run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        again = run()
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
