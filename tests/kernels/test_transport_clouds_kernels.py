"""The passes over the pairs of large clouds: registration, SIMD levels, threads, compilation, memory."""

import math
import subprocess
import sys

import pytest
import torch

import geokernels as gk
from geokernels.kernels import native, transport_clouds
from geokernels.testing import assert_as_accurate, cloud, weights

LEVELS = native.build_info().get("simd_levels", [])
KINDS = pytest.mark.parametrize("kind", range(4), ids=["dot", "square", "root", "power"])


@pytest.fixture
def streamed(monkeypatch):
    """Send clouds of any size the way of large ones."""
    monkeypatch.setattr(transport_clouds, "are_large", lambda x, y: True)


def pairs(B=2, N=4, M=5, D=3):
    """Points, potentials, and factors of the pairs."""
    shapes = (B, N, D), (B, M, D), (B, N), (B, M), (B, N, 2), (B, M, 2)
    return [cloud(*shape, seed=seed) for seed, shape in enumerate(shapes)]


def dense_weights(x, y, f, g, left, right, kind, p):
    """What the operators multiply with, as a matrix."""
    apart = x[..., :, None, :] - y[..., None, :, :]
    cost = {
        0: -(x @ y.mT),
        1: apart.square().sum(-1) / 2,
        2: apart.square().sum(-1).clamp_min(1e-300).sqrt(),
        3: apart.abs().pow(p).sum(-1),
    }[kind]
    return (f[..., :, None] + g[..., None, :] - cost).exp() * (left @ right.mT), cost


@pytest.mark.parametrize(
    ("kind", "p"),
    [(0, 2.0), (1, 2.0), (2, 2.0), (3, 1.0), (3, 1.5), (3, 2.0)],
    ids=["dot", "square", "root", "sizes", "power", "squares"],
)
def test_product_is_that_of_the_matrix(kind, p):
    x, y, f, g, left, right = pairs(N=130, M=211, D=7)
    f = f - 20
    weight, _ = dense_weights(x, y, f, g, left, right, kind, p)
    v = cloud(2, 211, 9, seed=7)
    found = torch.ops.geokernels.multiply_clouds(x, y, f, g, left, right, v, kind, p)
    assert torch.allclose(found, weight @ v, rtol=1e-11, atol=1e-11 * (weight @ v).abs().max())


# far: no exponential of a cost is above 0 in float64
@pytest.mark.parametrize("scale", [1.0, 60.0], ids=["near", "far"])
@KINDS
def test_soft_minimum_is_that_of_the_matrix(kind, scale):
    x, y, _, g, left, right = (part[0] for part in pairs(N=130, M=211, D=7))
    b = weights(211, seed=8)
    _, cost = dense_weights(x * scale, y * scale, torch.zeros(130), g, left, right, kind, 2.0)
    found = transport_clouds.soft_minimum("", x * scale, y * scale, scale * g, b, kind, 2.0)
    expected = -torch.logsumexp(b.log() + scale * g - cost, -1)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-10 * scale)


@pytest.mark.parametrize("kind", [2, 3], ids=["root", "power"])
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
def test_derivative_is_that_of_the_matrix(kind, p):
    x, y, f, g, left, right = pairs(N=130, M=211, D=7)
    x.requires_grad_()
    weight, cost = dense_weights(x, y, f, g, left, right, kind, p)
    (exact,) = torch.autograd.grad((weight.detach() * cost).sum(), x)
    found = torch.ops.geokernels.differentiate_clouds(x.detach(), y, f, g, left, right, kind, p)
    assert torch.allclose(found, exact, rtol=1e-10, atol=1e-11 * exact.abs().max())


@KINDS
def test_products_are_well_registered(kind):
    parts = [part.requires_grad_(kind < 2) for part in pairs()]
    v = cloud(2, 5, 2, seed=7)
    ops = torch.ops.geokernels
    torch.library.opcheck(ops.multiply_clouds.default, (*parts, v, kind, 1.5))
    torch.library.opcheck(ops.multiply_clouds.default, (*parts[:4], None, None, v, kind, 1.5))
    if kind >= 2:
        torch.library.opcheck(ops.differentiate_clouds.default, (*parts, kind, 1.5))


@pytest.mark.parametrize("reach", [math.inf, 0.5], ids=["balanced", "unbalanced"])
def test_solvers_are_well_registered(reach):
    x, y, f, g, *_ = pairs()
    a, b = weights(2, 4, seed=5), weights(2, 5, seed=6)
    settings = 1, 2.0, reach, 1.0, 0.5, 200, 1e-12
    leaves = [part.clone().requires_grad_() for part in (x, y, a, b)]
    solver = torch.ops.geokernels.sinkhorn_clouds
    torch.library.opcheck(solver.default, (*leaves, None, None, None, *settings))
    n, m = torch.tensor([4, 2]), torch.tensor([1, 5])
    torch.library.opcheck(solver.default, (x, y, None, None, n, m, torch.zeros_like(g), *settings))
    _, f, g, *_ = solver(x, y, a, b, None, None, None, *settings)
    grad_f, grad_g = f - f.mean(-1, keepdim=True), g - g.mean(-1, keepdim=True)
    adjoint = torch.ops.geokernels.solve_adjoint_clouds
    torch.library.opcheck(adjoint.default, (x, y, f, g, a, b, grad_f, grad_g, 1, 2.0, reach))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "lp"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_every_simd_level(level, cost, dtype, simd_level):
    simd_level(level)
    exact = cloud(260, 5, seed=0), cloud(270, 5, seed=1), weights(260, seed=2), weights(270, seed=3)
    parts = [part.to(dtype) for part in exact]
    options = {"eps": 0.5, "cost": cost, "p": 1.0, "tol": 0.0, "max_iter": 20}
    ours = gk.sinkhorn(*parts, **options, backend="native")
    eager = gk.sinkhorn(*parts, **options, backend="reference")
    truth = gk.sinkhorn(*(part.double() for part in parts), **options, backend="reference")
    v = cloud(270, 5, seed=4).to(dtype)
    for name in ("value", "f", "g"):
        assert_as_accurate(name, *(getattr(t, name) for t in (ours, eager, truth)))
    assert_as_accurate("apply", *(t.apply(v.to(t.f.dtype)) for t in (ours, eager, truth)))


def test_threads_and_runs_do_not_change_a_bit():
    parts = [part.float() for part in (cloud(700, 9, seed=0), cloud(600, 9, seed=1), weights(700, seed=2))]
    threads = torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            leaves = [part.clone().requires_grad_() for part in parts]
            t = gk.sinkhorn(*leaves, eps=2.0, backend="native")
            product = t.barycentric(leaves[1])
            gradients = torch.autograd.grad(t.value + product.sin().sum(), leaves)
            runs.append((t.value, t.f, t.g, t.error, t.iterations, product, *gradients))
    finally:
        torch.set_num_threads(threads)
    for other in runs[1:]:
        assert all(torch.equal(x, y) for x, y in zip(runs[0], other))


def test_layout_of_the_inputs_does_not_matter():
    x, y = cloud(300, 4, seed=0), cloud(290, 4, seed=1)
    strided = x.mT.contiguous().mT, y.repeat_interleave(2, 0)[::2]
    t, s = (gk.sinkhorn(*parts, eps=1.0, cost="dot", backend="native") for parts in ((x, y), strided))
    assert torch.equal(t.f, s.f)
    assert torch.equal(t.apply(y), s.apply(strided[1]))


def test_compiles_whole():
    x, y = cloud(300, 3, seed=0).float(), cloud(290, 3, seed=1).float()

    def run(x, y):
        t = gk.sinkhorn(x, y, eps=2.0)
        return t.value, t.f, t.apply(y), t.barycentric(y), t.converged

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    leaves = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    outs = [f(leaf, y) for f, leaf in zip((run, compiled), leaves)]
    for eager, traced in zip(*outs):
        assert torch.allclose(eager.float(), traced.float(), atol=1e-5)
    losses = [out[0] + out[1].sin().sum() + out[3].sin().sum() for out in outs]
    gradients = [torch.autograd.grad(loss, leaf)[0] for loss, leaf in zip(losses, leaves)]
    assert torch.allclose(*gradients, atol=1e-4)


@pytest.mark.usefixtures("streamed")
def test_vmap_folds_into_the_batch():
    x, y = cloud(3, 12, 2, seed=0), cloud(3, 9, 2, seed=1)
    batched = gk.sinkhorn(x, y, eps=0.7)

    def values(x, y):
        t = gk.sinkhorn(x, y, eps=0.7)
        return t.value, t.apply(y)

    value, product = torch.vmap(values)(x, y)
    assert torch.equal(value, batched.value)
    assert torch.equal(product, batched.apply(y))
    shared, _ = torch.vmap(values, in_dims=(0, None))(x, y[0])
    assert torch.equal(shared[0], batched.value[0])


def test_memory_is_safe_with_wrong_lengths():
    # the public operator refuses these; the kernel only has to stay inside its arrays
    x, y, *_ = pairs()
    n, m = torch.tensor([0, 400]), torch.tensor([-5, 3])
    settings = 1, 2.0, math.inf, 1.0, 0.5, 5, 0.0
    value, *_ = torch.ops.geokernels.sinkhorn_clouds(x, y, None, None, n, m, None, *settings)
    assert value.isfinite().all()


MEASURE = """
import resource, torch
import geokernels as gk
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
chance = torch.Generator().manual_seed(0)
x, y = (torch.randn(6000, 16, generator=chance).requires_grad_() for _ in range(2))
def run(x, y):
    t = gk.sinkhorn(x, y, eps=20.0, max_iter=2, tol=1.0)
    t.value.backward()
    with torch.no_grad():
        t.barycentric(y), t.apply_t(x)
run(x[:300], y[:300])  # what is loaded on first use is not counted
before = peak()
run(x, y)
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_pairs():
    # 6000 x 6000 costs alone are 144 MB; two clouds of 6000 x 16 are 1 MB
    run = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 40
