"""The compiled transport operators: registration, SIMD levels, threads, compilation, batching."""

import math

import pytest
import torch

import geokernels as gk
from geokernels.kernels import native
from geokernels.kernels import transport as kernels
from geokernels.testing import assert_as_accurate, cloud, weights

LEVELS = native.build_info().get("simd_levels", [])


def problem(B=4, N=19, M=23, dtype=torch.float64):
    cost = cloud(B, N, M, seed=0).abs()
    return [part.to(dtype) for part in (cost, weights(B, N, seed=1), weights(B, M, seed=2))]


def arguments(*parts, start=None, n=None, m=None, reach=math.inf):
    return *parts, n, m, start, 0.3, reach, 200, 1e-10


@pytest.mark.parametrize("reach", [math.inf, 0.5], ids=["balanced", "unbalanced"])
def test_operator_is_well_registered(reach):
    parts = [part.requires_grad_() for part in problem(B=2, N=4, M=5)]
    torch.library.opcheck(torch.ops.geokernels.sinkhorn.default, arguments(*parts, reach=reach))
    cost = parts[0].detach()
    n, m = torch.tensor([4, 2]), torch.tensor([1, 5])
    torch.library.opcheck(
        torch.ops.geokernels.sinkhorn.default,
        arguments(cost, None, None, n=n, m=m, start=torch.zeros(2, 5).double(), reach=reach),
    )


def test_a_gpu_takes_no_large_costs():
    for size in ((257, 4), (4, 257)):
        reason = kernels.refuse(torch.empty(size, device="meta"))
        assert reason == f"the CUDA kernel takes at most 256 points a side, got {size[0]} and {size[1]}"


def test_assignment_is_well_registered():
    torch.library.opcheck(torch.ops.geokernels.assignment.default, (cloud(2, 3, 4, seed=0),))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("reach", [None, 0.5], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("sizes", [(4, 19, 23), (1, 300, 270)], ids=str)
def test_every_simd_level(level, reach, dtype, sizes, simd_level):
    simd_level(level)
    parts = problem(*sizes, dtype=dtype)
    options = {"eps": 0.1, "reach": reach, "tol": 0.0, "max_iter": 80}
    ours = gk.sinkhorn_from_cost(*parts, **options, backend="native")
    eager = gk.sinkhorn_from_cost(*parts, **options, backend="reference")
    truth = gk.sinkhorn_from_cost(*(part.double() for part in parts), **options, backend="reference")
    for name in ("value", "f", "g"):
        assert_as_accurate(name, *(getattr(t, name) for t in (ours, eager, truth)))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("sizes", [(2, 33, 40), (1, 290, 270)], ids=str)
def test_every_simd_level_renews_its_matrix(level, sizes, simd_level):
    simd_level(level)
    cost = cloud(*sizes, seed=0).abs()
    options = {"eps": 1e-3, "tol": 0.0, "max_iter": 200}
    for dtype, bound in ((torch.float32, 2e-5), (torch.float64, 1e-11)):
        ours = gk.sinkhorn_from_cost(cost.to(dtype), **options, backend="native")
        truth = gk.sinkhorn_from_cost(cost.to(dtype).double(), **options, backend="reference")
        assert torch.allclose(ours.f.double(), truth.f, atol=bound)
        assert torch.allclose(ours.g.double(), truth.g, atol=bound)


def soil_the_heap():
    """Leave NaN in memory that the next workspaces are likely to be given."""
    del [torch.full((size,), math.nan) for size in (500, 2000, 8000, 40_000) for _ in range(8)][:]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("cost", [None, "dot", "sqeuclidean"], ids=["given", "dot", "sqeuclidean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_tiny_weights_with_reach(level, cost, dtype, simd_level):
    # sums leave the range of the scalings in the first sweep: scalings are absorbed before any was made
    simd_level(level)
    x, y = cloud(2, 19, 3, seed=0).to(dtype), cloud(2, 23, 3, seed=1).to(dtype)
    spread = 10.0 ** (-30 * torch.rand(2, 19, dtype=torch.float64))
    a = torch.stack([torch.full((19,), 1e-20, dtype=torch.float64), spread[0]]).to(dtype)
    b = torch.stack([torch.full((23,), 1e-24, dtype=torch.float64), spread[1, 0].expand(23)]).to(dtype)

    def solve(x, y, a, b, backend):
        options = {"eps": 0.5, "reach": 2.0, "max_iter": 300, "backend": backend}
        if cost is None:
            return gk.sinkhorn_from_cost(torch.cdist(x, y), a, b, **options)
        return gk.sinkhorn(x, y, a, b, cost=cost, **options)

    runs = []
    for _ in range(3):
        soil_the_heap()
        t = solve(x, y, a, b, "native")
        runs.append((t.value, t.f, t.g, t.error, t.iterations))
    assert all(torch.equal(first, again) for run in runs[1:] for first, again in zip(runs[0], run))
    truth = solve(*(part.double() for part in (x, y, a, b)), "reference")
    bound = 3e-5 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(runs[0][0].double(), truth.value, rtol=bound, atol=0)
    for ours, exact in zip(runs[0][1:3], (truth.f, truth.g)):
        torch.testing.assert_close(ours.double(), exact, rtol=bound, atol=bound)


STORED = 2**30  # bytes, more than the matrices of these tests


@pytest.mark.parametrize("reach", [None, 0.5], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("sizes", [(16, 19, 23), (2, 500, 450), (3, 1050, 980)], ids=str)
def test_neither_threads_nor_memory_change_a_bit(sizes, reach):
    # problems among the threads, one after another by all of them (of a million pairs or more), and without
    # room for a kernel matrix; the small eps renews the matrix by rows and by columns
    cost, a, b = problem(*sizes, dtype=torch.float32)
    a[:, 3], b[:, 5] = 0, 0
    b = b * a.sum(-1, keepdim=True) / b.sum(-1, keepdim=True)
    threads, most = torch.get_num_threads(), 30 if sizes[1] < 1000 else 6
    for eps in (0.05, 0.002):
        runs = []
        try:
            for count, room in ((1, STORED), (2, STORED), (4, STORED), (1, 1000), (2, 1000), (2, 10**6)):
                torch.set_num_threads(count)
                with native.storing(room):
                    t = gk.sinkhorn_from_cost(
                        cost, a, b, eps=eps, reach=reach, max_iter=most, tol=1e-7, backend="native"
                    )
                runs.append((t.value, t.f, t.g, t.error, t.iterations))
        finally:
            torch.set_num_threads(threads)
        for other in runs[1:]:
            assert all(torch.equal(x, y) for x, y in zip(runs[0], other))


def test_layout_of_the_inputs_does_not_matter():
    cost, a, b = problem()
    strided = (
        cost.mT.contiguous().mT,
        a[..., None].expand(-1, -1, 2)[..., 0],
        b.repeat_interleave(2, -1)[..., ::2],
    )
    t, s = (gk.sinkhorn_from_cost(*parts, eps=0.1, backend="native") for parts in ((cost, a, b), strided))
    assert torch.equal(t.f, s.f)


@pytest.mark.parametrize("op", ["from_cost", "points", "divergence"])
def test_compiles_whole(op):
    x, y = cloud(2, 9, 3, seed=0).float(), cloud(2, 7, 3, seed=1).float()
    v = cloud(2, 7, 2, seed=2).float()

    def run(x, y, v):
        if op == "divergence":
            return (gk.sinkhorn_divergence(x, y, eps=0.5),)
        if op == "points":
            t = gk.sinkhorn(x, y, eps=0.5)
        else:
            t = gk.sinkhorn_from_cost((x[:, :, None] - y[:, None]).square().sum(-1), eps=0.5)
        return t.value, t.f, t.plan(), t.apply(v), t.barycentric(v), t.converged

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    leaves = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    outs = [f(leaf, y, v) for f, leaf in zip((run, compiled), leaves)]
    for eager, traced in zip(*outs):
        assert torch.allclose(eager.float(), traced.float(), atol=1e-5)
    gradients = [torch.autograd.grad(out[0].sum(), leaf)[0] for out, leaf in zip(outs, leaves)]
    assert torch.allclose(*gradients, atol=1e-5)


def test_vmap_folds_into_the_batch():
    cost, a, b = problem()
    batched = gk.sinkhorn_from_cost(cost, a, b, eps=0.2)

    def values(cost, a, b):
        t = gk.sinkhorn_from_cost(cost, a, b, eps=0.2)
        return t.value, t.f

    value, f = torch.vmap(values)(cost, a, b)
    assert torch.equal(value, batched.value)
    assert torch.equal(f, batched.f)
    shared, _ = torch.vmap(values, in_dims=(0, None, None))(cost, a[0], b[0])
    assert torch.equal(shared[0], batched.value[0])
    assert torch.equal(torch.vmap(gk.assignment)(cost), gk.assignment(cost))


def test_autocast_does_not_reach_the_computation():
    x, y = cloud(9, 64, seed=0).float(), cloud(7, 64, seed=1).float()
    plain = gk.sinkhorn(x, y, eps=20.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = gk.sinkhorn(x, y, eps=20.0)
        product = cast.apply(y)
    assert torch.equal(plain.f, cast.f)
    assert torch.equal(product, plain.apply(y))


@pytest.mark.parametrize("sizes", [(19, 23), (300, 260)], ids=str)
def test_memory_is_safe_with_wrong_lengths(sizes):
    # the public operator refuses these; the kernel only has to stay inside its arrays
    cost, _, _ = problem(2, *sizes)
    n, m = torch.tensor([0, 4000]), torch.tensor([-5, 23])
    value, *_ = torch.ops.geokernels.sinkhorn(*arguments(cost, None, None, n=n, m=m))
    assert value.isfinite().all()
