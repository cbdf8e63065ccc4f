"""Triton's kernels for large clouds, on the GPU or in the interpreter, agree with the definition.

In the interpreter they run in float64 as well, and are held to its rounding; on a GPU in float32 alone.
"""

import math
import os
import subprocess
import sys

import pytest
import torch

import geokernels as gk
from geokernels.kernels import transport_clouds, triton
from geokernels.testing import assert_as_accurate, cloud, weights

COSTS = ["sqeuclidean", "euclidean", "cosine", "dot", "lp"]
DEVICE = "cpu" if triton.interpreted else "cuda"
WIDEST = torch.float64 if triton.interpreted else torch.float32
# relative errors that rounding may make in a tile of numbers of moderate size
NEAR = {torch.float32: 2e-5, torch.float64: 1e-12}
KINDS = [(0, 2.0), (1, 2.0), (2, 2.0), (3, 1.0), (3, 1.5), (3, 2.0)]
NAMES = ["dot", "square", "root", "sizes", "power", "squares"]


@pytest.fixture(autouse=True)
def streamed(monkeypatch):
    """Send clouds of any size the way of large ones."""
    monkeypatch.setattr(transport_clouds, "are_large", lambda x, y: True)


def there(*parts, dtype=WIDEST):
    return [part.to(DEVICE, dtype) for part in parts]


def problem(N=23, M=30, D=3, B=None):
    """Clouds about a common point that is not the origin, and weights of which the first is zero."""
    batch = () if B is None else (B,)
    x, y = 1 + cloud(*batch, N, D, seed=0), 1.5 + 0.7 * cloud(*batch, M, D, seed=1)
    return x, y, weights(*batch, N, seed=2), weights(*batch, M, seed=3)


def tensors():
    """Points, potentials and factors of several tiles of pairs, the last ones not full."""
    shapes = (2, 70, 5), (2, 90, 5), (2, 70), (2, 90), (2, 70, 2), (2, 90, 2), (2, 90, 7)
    x, y, f, g, *more = (cloud(*shape, seed=seed) for seed, shape in enumerate(shapes))
    return x, y, f - 5, g, *more


def operators():
    """The operators of Triton, and those of the CPU that say what they must return."""
    from geokernels.kernels.triton.transport_clouds import TRITON

    return (lambda name: transport_clouds.operator(TRITON, name)), (
        lambda name: transport_clouds.operator(transport_clouds.NATIVE, name)
    )


def assert_near(found, exact):
    assert found.shape == exact.shape
    assert (found.double().cpu() - exact).abs().max() <= NEAR[found.dtype] * exact.abs().max()


def test_the_kernels_run_here():
    # no test of this file may be skipped for want of a GPU
    assert triton.refuse(torch.zeros(1, device=DEVICE)) is None


def test_constant_under_a_large_reach():
    # far apart, where the plan's entries are known to thousands of roundings
    x, y, a, b = problem()
    options = {"eps": 1.0, "reach": 1e6, "max_iter": 20, "tol": 0.0}
    truth = gk.sinkhorn(x + 100, y, a, 1.1 * b, **options, backend="reference")
    found = gk.sinkhorn(*there(x + 100, y, a, 1.1 * b, dtype=torch.float32), **options, backend="triton")
    for name in ("f", "g"):
        off = getattr(found, name).double().cpu() - getattr(truth, name)
        assert off.abs().max() <= 64 * options["reach"] * torch.finfo(torch.float32).eps


@pytest.mark.parametrize(("kind", "p"), KINDS, ids=NAMES)
def test_product_is_that_of_the_matrix(kind, p):
    ours, native = operators()
    *pairs, v = tensors()
    exact = native("multiply_clouds")(*pairs, v, kind, p)
    assert_near(ours("multiply_clouds")(*there(*pairs, v), kind, p, 0), exact)
    # one column takes a way of its own; a point that meets nobody
    pairs[2][:, 3] = -math.inf
    exact = native("multiply_clouds")(*pairs[:4], None, None, v[..., :1].contiguous(), kind, p)
    found = ours("multiply_clouds")(*there(*pairs[:4]), None, None, *there(v[..., :1]), kind, p, 0)
    assert_near(found, exact)
    assert (found[:, 3] == 0).all()


@pytest.mark.parametrize(("kind", "p"), KINDS[2:], ids=NAMES[2:])
def test_derivative_is_that_of_the_matrix(kind, p):
    ours, native = operators()
    x, y, *pairs, _ = tensors()
    y[:, 3] = x[:, 3]  # points that coincide have no direction
    exact = native("differentiate_clouds")(x, y, *pairs, kind, p)
    assert_near(ours("differentiate_clouds")(*there(x, y, *pairs), kind, p, 0), exact)


@pytest.mark.parametrize("reach", [None, 0.7], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("cost", COSTS)
def test_matches_reference(cost, reach):
    parts = problem()
    options = {"eps": 0.5, "cost": cost, "p": 1.5, "reach": reach, "max_iter": 2, "tol": 0.0}
    truth = gk.sinkhorn(*parts, **options, backend="reference")
    found = gk.sinkhorn(*there(*parts), **options, backend="triton")
    for name in ("value", "f", "g", "error"):
        assert_near(getattr(found, name), getattr(truth, name))
    v, u = cloud(30, 2, seed=4), cloud(23, seed=5)
    for name, vector in (("apply", v), ("apply_t", u), ("barycentric", v)):
        assert_near(getattr(found, name)(*there(vector)), getattr(truth, name)(vector))


@pytest.mark.parametrize("cost", COSTS)
def test_is_as_accurate_as_eager(cost):
    parts = problem(70, 80, 7)
    options = {"eps": 2.0, "cost": cost, "max_iter": 2, "tol": 0.0}
    truth = gk.sinkhorn(*parts, **options, backend="reference")
    near = there(*parts, dtype=torch.float32)
    ours = gk.sinkhorn(*near, **options, backend="triton")
    eager = gk.sinkhorn(*near, **options, backend="reference")
    v = cloud(80, 3, seed=4)
    for name in ("value", "f", "g"):
        assert_as_accurate(name, *(getattr(t, name).cpu() for t in (ours, eager, truth)))
    products = [t.apply(v.to(t.f.device, t.f.dtype)).cpu() for t in (ours, eager, truth)]
    assert_as_accurate("apply", *products)


# columns in splits, features in several blocks, a point alone on either side
@pytest.mark.parametrize("N, M, D", [(20, 600, 2), (70, 20, 130), (1, 20, 3), (20, 1, 3)], ids=str)
def test_sizes(N, M, D):
    parts = problem(N, M, D)
    options = {"eps": 0.3 * D, "max_iter": 1, "tol": 0.0}
    truth = gk.sinkhorn(*parts, **options, backend="reference")
    found = gk.sinkhorn(*there(*parts), **options, backend="triton")
    for name in ("value", "f", "g"):
        assert_near(getattr(found, name), getattr(truth, name))
    v = cloud(M, 70, seed=4)
    assert_near(found.apply(*there(v)), truth.apply(v))


@pytest.mark.parametrize("reach", [None, 0.7], ids=["balanced", "unbalanced"])
def test_each_problem_stops_where_the_reference_stops(reach):
    x, y, a, b = problem(20, 16, B=2)
    x[1], y[1] = x[1] * 0.3, y[1] * 0.3
    options = {"eps": 1.0, "reach": reach, "tol": 1e-3}
    truth = gk.sinkhorn(x, y, a, b, **options, backend="reference")
    found = gk.sinkhorn(*there(x, y, a, b), **options, backend="triton")
    assert reach or truth.iterations[0] > truth.iterations[1]
    assert torch.equal(found.iterations.cpu(), truth.iterations)
    assert found.converged.all()
    assert_near(found.value, truth.value)


def test_annealing_matches_reference():
    parts = problem(20, 16)
    options = {"eps": 0.2, "anneal": (4.0, 0.3), "max_iter": 5, "tol": 0.0}
    for reach in (None, 0.7):
        truth = gk.sinkhorn(*parts, **options, reach=reach, backend="reference")
        found = gk.sinkhorn(*there(*parts), **options, reach=reach, backend="triton")
        assert torch.equal(found.iterations.cpu(), truth.iterations)
        assert_near(found.f, truth.f)
        assert_near(found.g, truth.g)


def converged(parts, backend, **options):
    """The reference's solution, or ours from there on, so that few half-steps tell."""
    start = gk.sinkhorn(*parts, **options, backend="reference", tol=1e-11, max_iter=3000)
    if backend == "reference":
        return start
    start = tuple(there(start.f.detach(), start.g.detach()))
    return gk.sinkhorn(*there(*parts), **options, backend="triton", init=start, tol=1e-5, max_iter=2)


@pytest.mark.parametrize(
    ("cost", "reach"),
    [("sqeuclidean", None), ("euclidean", 0.7), ("cosine", None), ("dot", 0.7), ("lp", None)],
)
def test_gradients_match_the_reference(cost, reach):
    def gradients(backend):
        leaves = [part.requires_grad_() for part in problem(12, 15)]
        t = converged(leaves, backend, eps=0.5, cost=cost, p=1.5, reach=reach)
        moved = t.barycentric(leaves[1].to(t.f))
        loss = t.value + t.f.sin().sum() + t.g.cos().sum() + moved.sin().sum()
        return torch.autograd.grad(loss, leaves)

    for name, gradient, exact in zip("xyab", gradients("triton"), gradients("reference"), strict=True):
        if name in "ab" and reach is None:
            # balanced, the constant is free: masses stay equal
            gradient, exact = gradient - gradient.mean(), exact - exact.mean()
        tolerance = 1e-6 if torch.float64 == WIDEST else 1e-3
        assert torch.allclose(gradient, exact, rtol=tolerance, atol=tolerance), name


def test_value_twice():
    def second(backend):
        leaves = [part.requires_grad_() for part in problem(6, 8)[:2]]
        value = converged([*leaves, *problem(6, 8)[2:]], backend, eps=0.5).value
        first = torch.autograd.grad(value, leaves, create_graph=True)
        return torch.autograd.grad(sum(part.sin().sum() for part in first), leaves)

    for gradient, exact in zip(second("triton"), second("reference"), strict=True):
        assert torch.allclose(gradient, exact, rtol=1e-3, atol=1e-6 if torch.float64 == WIDEST else 1e-3)


def test_ragged_equals_separate():
    x, y, *_ = problem(B=2)
    n, m = torch.tensor([23, 9]), torch.tensor([2, 30])
    for k in range(2):
        x[k, n[k] :], y[k, m[k] :] = math.nan, math.nan
    given = [part.requires_grad_() for part in there(x, y)]
    lengths = n.to(DEVICE), m.to(DEVICE)
    t = gk.sinkhorn(*given, eps=0.5, lengths=lengths, tol=0.0, max_iter=2, backend="triton")
    v = cloud(2, 30, 2, seed=4)
    product = t.apply(*there(v))
    to_x, to_y = torch.autograd.grad(t.value.sum(), given)
    for k in range(2):
        own = [part[k, :size].detach().requires_grad_() for part, size in ((x, n[k]), (y, m[k]))]
        s = gk.sinkhorn(*own, eps=0.5, tol=0.0, max_iter=2, backend="reference")
        assert_near(t.value[k].detach(), s.value.detach())
        assert_near(t.f[k, : n[k]].detach(), s.f.detach())
        assert (t.f[k, n[k] :] == 0).all()
        assert (t.g[k, m[k] :] == 0).all()
        assert_near(product[k, : n[k]].detach(), s.apply(v[k, : m[k]]).detach())
        alone = torch.autograd.grad(s.value, own)
        assert_near(to_x[k, : n[k]], alone[0])
        assert_near(to_y[k, : m[k]], alone[1])
        assert (to_x[k, n[k] :] == 0).all()


# what products of rounded points cost: the largest error of a potential, in units of eps, and of the value's
# gradient beside its size. docs/transport.md has what was measured of larger clouds
@pytest.mark.parametrize(
    ("precision", "of_potential", "of_gradient"),
    [("fp32", 2e-5, 2e-5), ("bf16x3", 2e-4, 2e-4), ("tf32", 1e-2, 1e-2), ("bf16", 1e-1, 1e-1)],
)
def test_precision_of_products(precision, of_potential, of_gradient):
    parts = problem(40, 50, 16)
    eps = 3.0

    def run(parts, backend, **options):
        leaves = [part.clone().requires_grad_() for part in parts]
        t = gk.sinkhorn(*leaves, eps=eps, tol=0.0, max_iter=3, backend=backend, **options)
        return t.f.detach().double().cpu(), torch.autograd.grad(t.value, leaves[0])[0].double().cpu()

    near = there(*parts, dtype=torch.float32)
    (f, gradient), (exact, slope) = run(near, "triton", precision=precision), run(parts, "reference")
    errors = (f - exact).abs().max() / eps, (gradient - slope).abs().max() / slope.abs().max()
    assert errors[0] <= of_potential, errors
    assert errors[1] <= of_gradient, errors
    if precision != "fp32":
        # if points were not rounded, this would measure nothing
        assert errors[0] > of_potential / 100, errors


def test_error_is_that_of_the_plan_that_comes_back():
    x, y, a, b = problem(20, 16)
    near = there(10 * x, 10 * y, a, b, dtype=torch.float32)
    t = gk.sinkhorn(*near, eps=1.0, tol=1e-6, max_iter=30, backend="triton", anneal=(300.0, 0.5))
    cost = torch.cdist(10 * x, 10 * y).square()
    plan = a[:, None] * b * torch.exp(t.f.double().cpu()[:, None] + t.g.double().cpu() - cost)
    actual = (plan.sum(-1) - a).abs().sum() + (plan.sum(-2) - b).abs().sum()
    assert 0.2 * actual < t.error.item() < 5 * actual


def test_a_point_without_mass_stays_without():
    # before convergence its density overflows: no mass times that is none
    x, y, a, b = problem(12, 10)
    y[0] += 60
    start = there(0 * a, 3000 + 0 * b, dtype=torch.float32)
    near = there(x, y, a, b, dtype=torch.float32)
    t = gk.sinkhorn(*near, eps=0.5, cost="dot", max_iter=1, tol=0.0, init=start, backend="triton")
    assert t.apply_t(near[0])[0].eq(0).all()
    assert t.apply(near[1]).isfinite().all()


def test_what_cannot_be_solved():
    x, y, a, b = there(*problem(12, 10), dtype=torch.float32)
    nowhere = torch.where(torch.arange(12, device=DEVICE)[:, None] == 7, math.nan, x)
    for parts, reason in (
        ((nowhere, y), "x must be finite, got NaN"),
        ((x, y, a, 2 * b), "b must have the mass of a"),
        ((x, y, -a, b), "a must be finite and non-negative"),
        ((x, y, 0 * a, b), "a must have some mass"),
    ):
        if triton.interpreted:
            with pytest.raises(ValueError, match=reason):
                gk.sinkhorn(*parts, eps=0.5, max_iter=2, backend="triton")
        else:
            assert not gk.sinkhorn(*parts, eps=0.5, max_iter=2, backend="triton").converged


# numpy says so in the interpreter
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
@pytest.mark.parametrize("reach", [math.inf, 0.7], ids=["balanced", "unbalanced"])
def test_numbers_that_overflow_stop_their_problem_alone(reach):
    ours, _ = operators()
    x, y, *_ = there(*problem(12, 10, B=2), dtype=torch.float32)
    # products overflow, which the points' own parts do not show where the centre is 0
    x[1], y[1] = 0, 0
    x[1, :2], y[1, :2] = torch.tensor([[1e25], [-1e25]]), torch.tensor([[1e25], [-1e25]])
    settings = 0, 2.0, reach, 1.0, 0.5, 9, 1e-6, 0
    value, f, _, error, iterations = ours("sinkhorn_clouds")(x, y, *(None,) * 5, *settings)
    assert error.isnan().tolist() == [False, True]
    assert value.isfinite().tolist() == [True, False]
    assert iterations[0] > iterations[1] == 1
    alone = ours("sinkhorn_clouds")(x[:1], y[:1], *(None,) * 5, *settings)
    assert torch.equal(alone[1][0], f[0])
    assert iterations[0] == alone[4]


# numpy says so in the interpreter
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_a_potential_that_is_no_number_leaves_none():
    ours, _ = operators()
    x, y, f, g, *_, v = there(*tensors())
    f[0, 5], g[1, 7] = math.nan, math.nan
    found = ours("multiply_clouds")(x, y, f, g, None, None, v, 1, 2.0, 0)
    assert found[0, 5].isnan().all()
    assert found[1].isnan().all()
    assert found[0, 6].isfinite().all()


def small(dtype=WIDEST):
    x, y, a, b = there(*problem(4, 5, B=2), dtype=dtype)
    f, g = there(cloud(2, 4, seed=4), cloud(2, 5, seed=5), dtype=dtype)
    left, right, v = there(*(cloud(2, n, 2, seed=n) for n in (4, 5, 5)), dtype=dtype)
    return x, y, a, b, f, g, left, right, v


def arguments():
    """Arguments that every operator can be called with."""
    x, y, a, b, f, g, left, right, v = small()
    flat = f - f.mean(-1, keepdim=True), g - g.mean(-1, keepdim=True)
    return {
        "triton_sinkhorn_clouds": (
            *(x, y, a, b, None, None, None),
            *(1, 2.0, math.inf, 1.0, 0.5, 1, 1e-9, 0),
        ),
        "triton_multiply_clouds": (x, y, f, g, left, right, v, 1, 2.0, 0),
        "triton_differentiate_clouds": (x, y, f, g, left, right, 2, 2.0, 0),
        "triton_solve_adjoint_clouds": (x, y, f, g, a, b, *flat, 1, 2.0, 1.0, 0),
    }


def test_no_operator_is_left_out():
    operators()
    names = torch._C._dispatch_get_all_op_names()
    ours = {name.split("::")[1] for name in names if name.startswith("geokernels::triton_")}
    assert {name for name in ours if "clouds" in name} == set(arguments())


@pytest.mark.parametrize("name", arguments())
def test_operator_is_well_registered(name):
    operators()
    args = arguments()[name]
    if "solve" not in name and "differentiate" not in name:
        args = tuple(part.requires_grad_() if isinstance(part, torch.Tensor) else part for part in args)
    torch.library.opcheck(getattr(torch.ops.geokernels, name).default, args)


def test_vmap_folds_into_the_batch():
    x, y, *_ = there(*problem(12, 9, B=2))
    options = {"eps": 0.7, "max_iter": 1, "backend": "triton"}
    batched = gk.sinkhorn(x, y, **options)

    def values(x, y):
        t = gk.sinkhorn(x, y, **options)
        return t.value, t.apply(y)

    value, product = torch.vmap(values)(x, y)
    assert torch.equal(value, batched.value)
    assert torch.equal(product, batched.apply(y))


def test_compiles_whole():
    x, y, *_ = there(*problem(9, 7), dtype=torch.float32)

    def run(x, y):
        t = gk.sinkhorn(x, y, eps=2.0, max_iter=2, backend="triton")
        return t.value, t.f, t.apply(y), t.barycentric(y), t.converged

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    leaves = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    outs = [f(leaf, y) for f, leaf in zip((run, compiled), leaves)]
    for eager, traced in zip(*outs):
        assert torch.allclose(eager.float(), traced.float(), atol=1e-5)
    gradients = [torch.autograd.grad(out[0], leaf)[0] for out, leaf in zip(outs, leaves)]
    assert torch.allclose(*gradients, atol=1e-5)


def test_runs_do_not_change_a_bit():
    parts = there(*problem(70, 80), dtype=torch.float32)
    once, again = (gk.sinkhorn(*parts, eps=0.5, max_iter=1, tol=0.0, backend="triton") for _ in range(2))
    assert torch.equal(once.f, again.f)
    assert torch.equal(once.g, again.g)


REFUSED = """
import torch, geokernels as gk
x = torch.zeros(300, 2)
for options in ({"backend": "triton"}, {"precision": "bf16"}, {"backend": "native", "precision": "tf32"}):
    try:
        gk.sinkhorn(x, x, eps=1.0, **options)
    except gk.BackendError as error:
        print(error)
"""


def test_refuses_in_one_sentence_where_it_cannot_run():
    clean = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-c", REFUSED], capture_output=True, text=True, check=True, env=clean
    )
    named, unnamed, native = run.stdout.splitlines()
    assert named == (
        "sinkhorn cannot run on this input: triton: Triton kernels run on GPUs "
        "(or with TRITON_INTERPRET=1, for tests), not on cpu"
    )
    assert unnamed == (
        "sinkhorn cannot run on this input: native: it has no products in bf16; "
        "reference: it has no products in bf16"
    )
    assert native == "sinkhorn cannot run on this input: native: it has no products in tf32"


def test_unknown_precision_is_refused():
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="precision must be one of fp32, tf32, bf16, bf16x3, got 'fp8'"):
        gk.sinkhorn(x, x, eps=1.0, precision="fp8")
