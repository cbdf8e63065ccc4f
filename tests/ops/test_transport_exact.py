"""exact_transport finds a cheapest plan, and potentials that prove it."""

import math
import re

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.sparse import eye, kron, vstack

import geokernels as gk
from geokernels.kernels import native
from geokernels.testing import cloud, weights

BACKENDS = pytest.mark.parametrize("backend", ["native", "reference"])


def masses(*shapes, seed, zeros=0):
    """Weights for every shape, of one sum."""
    return [3 * weights(*shape, seed=seed + k, zeros=zeros) for k, shape in enumerate(shapes)]


def by_linear_programming(cost, a, b):
    """The least cost, None where there is no plan."""
    N, M = cost.shape
    sums = vstack([kron(eye(N), np.ones((1, M))), kron(np.ones((1, N)), eye(M))]).tocsc()
    finite = np.isfinite(cost).ravel()
    bounds = [(0, None if allowed else 0) for allowed in finite]
    costs = np.where(finite, cost.ravel(), 0)
    found = linprog(costs, A_eq=sums, b_eq=np.concatenate([a, b]), bounds=bounds, method="highs")
    return found.fun if found.success else None


def assert_optimal(cost, a, b, found, tol=1e-12):
    """Hold a solution to what proves that it is one: marginals, signs, dual feasibility, and no gap."""
    N, M = cost.shape[-2:]
    a = torch.full(cost.shape[:-1], 1 / N, dtype=cost.dtype) if a is None else a
    b = torch.full((*cost.shape[:-2], M), 1 / M, dtype=cost.dtype) if b is None else b
    total, size = a.sum(-1).max(), cost[cost.isfinite()].abs().max() * (N + M) + 1
    plan = found.plan()
    assert (found.mass >= 0).all()
    torch.testing.assert_close(plan.sum(-1), a, rtol=0, atol=float(tol * total))
    torch.testing.assert_close(plan.sum(-2), b, rtol=0, atol=float(tol * total))
    reduced = cost - found.f[..., :, None] - found.g[..., None, :]
    assert reduced.min() >= -tol * size
    assert reduced[plan > 0].abs().max() <= tol * size
    dual = (a * found.f).sum(-1), (b * found.g).sum(-1)
    torch.testing.assert_close(found.value, dual[0] + dual[1], rtol=tol, atol=float(tol * total * size))
    torch.testing.assert_close(*dual, rtol=tol, atol=float(tol * total * size))


def assert_tree(found, N, M):
    """Hold the pairs to join every row and column without a cycle."""
    parent = list(range(N + M))

    def top(node):
        return node if parent[node] == node else top(parent[node])

    for row, column in zip(found.rows.tolist(), found.columns.tolist(), strict=True):
        assert top(row) != top(N + column)
        parent[top(row)] = top(N + column)
    assert len({top(node) for node in range(N + M)}) == 1


@BACKENDS
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (5, 5), (4, 11), (13, 7)], ids=str)
@pytest.mark.parametrize("kind", ["normal", "ties", "points", "forbidden"])
@pytest.mark.parametrize("of", ["uniform", "random", "with zeros", "whole"])
def test_agrees_with_linear_programming(shape, kind, of, backend):
    N, M = shape
    cost = {
        "normal": cloud(N, M, seed=0),
        "ties": cloud(N, M, seed=1).round(),
        "points": torch.cdist(cloud(N, 2, seed=2), cloud(M, 2, seed=3)) ** 2,
        "forbidden": cloud(N, M, seed=4).masked_fill(cloud(N, M, seed=5) > 0.8, math.inf),
    }[kind]
    a, b = {
        "uniform": (None, None),
        "random": masses((N,), (M,), seed=6),
        "with zeros": masses((N,), (M,), seed=8, zeros=2),
        "whole": [cloud(size, seed=10).mul(2).round().abs() + 1 for size in shape],
    }[of]
    if of == "whole":
        a, b = a * b.sum(), b * a.sum()
    given = [np.full(n, 1 / n) if w is None else w.numpy() for w, n in zip((a, b), shape)]
    least = by_linear_programming(cost.numpy(), *given)
    if least is None:
        with pytest.raises(ValueError, match="cost"):
            gk.exact_transport(cost, a, b, backend=backend)
        return
    found = gk.exact_transport(cost, a, b, backend=backend)
    assert found.value.item() == pytest.approx(least, rel=1e-9, abs=1e-9)
    assert_optimal(cost, a, b, found)
    assert_tree(found, N, M)


@pytest.mark.parametrize(
    ("name", "shape"), [("random", (60, 45)), ("uniform", (77, 97)), ("uniform", (64, 64))], ids=str
)
def test_agrees_with_pot(name, shape):
    ot = pytest.importorskip("ot")
    cost = torch.cdist(cloud(shape[0], 2, seed=0), cloud(shape[1], 2, seed=1)) ** 2
    a, b = masses((shape[0],), (shape[1],), seed=2) if name == "random" else (None, None)
    found = gk.exact_transport(cost, a, b)
    given = [[] if w is None else w.numpy() for w in (a, b)]
    assert found.value.item() == pytest.approx(ot.emd2(*given, cost.numpy()), rel=1e-9)
    assert_optimal(cost, a, b, found)


def test_a_one_to_one_plan_is_the_assignment():
    cost = torch.cdist(cloud(2, 50, 3, seed=0), cloud(2, 50, 3, seed=1))
    found = gk.exact_transport(cost)
    best = cost.gather(-1, gk.assignment(cost)[..., None]).mean((-2, -1))
    torch.testing.assert_close(found.value, best)
    assert ((found.mass == 0) | (found.mass == 1 / 50)).all()


def test_masses_that_tie_at_every_pivot_end():
    # all pivots of the first are degenerate or equal; in the second every plan costs the same
    for cost in (cloud(40, 40, seed=0).mul(2).round(), torch.ones(40, 40).double()):
        assert_optimal(cost, None, None, gk.exact_transport(cost))
    a, b = (torch.ones(size).double() for size in (30, 60))
    cost = cloud(30, 60, seed=1).round()
    assert_optimal(cost, 2 * a, b, gk.exact_transport(cost, 2 * a, b))


def test_equal_masses_leave_no_crumbs():
    found = gk.exact_transport(cloud(6, 4, seed=0))
    assert torch.equal((found.mass * 12).round(), found.mass * 12)


@BACKENDS
def test_batches(backend):
    cost, (a, b) = cloud(2, 3, 4, 5, seed=0), masses((2, 3, 4), (2, 3, 5), seed=1)
    found = gk.exact_transport(cost, a, b, backend=backend)
    assert found.rows.shape == found.columns.shape == found.mass.shape == (2, 3, 8)
    assert found.rows.dtype == found.columns.dtype == torch.int64
    alone = gk.exact_transport(cost[1, 2], a[1, 2], b[1, 2], backend=backend)
    for many, one in zip(found, alone, strict=True):
        assert torch.equal(many[1, 2], one)
    empty = gk.exact_transport(cost[:0], a[:0], b[:0], backend=backend)
    assert (empty.value.shape, empty.f.shape, empty.mass.shape) == ((0, 3), (0, 3, 4), (0, 3, 8))


@BACKENDS
def test_masses_that_meet_in_separate_parts(backend):
    # nothing joins the two blocks but forbidden pairs; a part of one side may go over, and does not
    cost = torch.full((5, 6), math.inf, dtype=torch.float64)
    cost[:2, :3], cost[2:, 3:], cost[0, 4] = cloud(2, 3, seed=0), cloud(3, 3, seed=1), -50.0
    a, b = (torch.cat(parts) for parts in zip(masses((2,), (3,), seed=2), masses((3,), (3,), seed=4)))
    found = gk.exact_transport(cost, a, b, backend=backend)
    assert_optimal(cost, a, b, found)
    assert found.plan()[0, 4] < 1e-14


@BACKENDS
def test_a_point_without_mass_may_have_nowhere_to_go(backend):
    cost, (a, b) = cloud(4, 5, seed=0), masses((4,), (5,), seed=1, zeros=1)
    expected = gk.exact_transport(cost[1:, 1:], a[1:].contiguous(), b[1:].contiguous(), backend=backend)
    cost[0] = math.inf
    found = gk.exact_transport(cost, a, b, backend=backend)
    assert_optimal(cost, a, b, found)
    torch.testing.assert_close(found.value, expected.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_precisions(dtype):
    cost, (a, b) = cloud(6, 8, seed=0).to(dtype), (w.to(dtype) for w in masses((6,), (8,), seed=1))
    found = gk.exact_transport(cost, a, b)
    wide = gk.exact_transport(cost.double(), a.double(), b.double() * (a.double().sum() / b.double().sum()))
    assert found.value.dtype == found.f.dtype == found.mass.dtype == torch.float32
    torch.testing.assert_close(found.value.double(), wide.value, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.plan().double(), wide.plan(), rtol=1e-2, atol=1e-2)


def test_costs_of_many_sizes_keep_their_small_differences():
    # a slack in the unit of the largest cost would leave the others unsolved
    cost = cloud(12, 12, seed=0).abs()
    found = gk.exact_transport(torch.where(torch.eye(12, dtype=torch.bool).flip(0), 1e15, cost))
    expected = gk.exact_transport(torch.where(torch.eye(12, dtype=torch.bool).flip(0), math.inf, cost))
    torch.testing.assert_close(found.value, expected.value, rtol=1e-12, atol=0)


@pytest.mark.parametrize("level", native.build_info().get("simd_levels", []))
@pytest.mark.parametrize("M", [1, 3, 7, 8, 9, 63, 64, 65, 77, 127, 130, 511, 515])
def test_rows_of_every_length_are_searched_whole(level, M, simd_level):
    # vectors, machine words and chunks of columns, each with and without a rest; of ties the first is taken
    simd_level(level)
    for cost in (cloud(2, 11, M, seed=M), cloud(2, 11, M, seed=M + 1).round()):
        for a, b in (masses((2, 11), (2, M), seed=5), (None, None)):
            assert_optimal(cost, a, b, gk.exact_transport(cost, a, b, backend="native"))


@pytest.mark.parametrize("level", native.build_info().get("simd_levels", []))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_level_finds_the_same_bits(level, dtype, simd_level):
    cost, (a, b) = cloud(3, 33, 70, seed=0).to(dtype), (w.to(dtype) for w in masses((3, 33), (3, 70), seed=1))
    widest = gk.exact_transport(cost, a, b, backend="native")
    simd_level(level)
    for one, other in zip(gk.exact_transport(cost, a, b, backend="native"), widest, strict=True):
        assert torch.equal(one, other)


class TestGradients:
    @BACKENDS
    def test_of_the_value(self, backend):
        cost, (a, b) = cloud(2, 4, 5, seed=0), masses((2, 4), (2, 5), seed=1)
        leaves = [part.clone().requires_grad_() for part in (cost, a, b)]
        found = gk.exact_transport(*leaves, backend=backend)
        up = torch.tensor([2.0, -3.0]).double()
        grads = torch.autograd.grad(found.value, leaves, up)
        for grad, part in zip(grads, (found.plan(), found.f, found.g), strict=True):
            torch.testing.assert_close(grad, part.detach() * up.view(2, *(1,) * (grad.dim() - 1)))
        assert not any(part.requires_grad for part in (found.f, found.g, found.mass))

    @BACKENDS
    def test_by_finite_differences(self, backend):
        cost, (a, b) = cloud(4, 5, seed=0), masses((4,), (5,), seed=1)
        cost[1, 2] = math.inf

        def value(cost, shift):
            # both sums grow alike, or gradients to masses have no meaning
            moved = a + shift[:4], b + torch.cat([shift[4:], shift[:4].sum()[None] - shift[4:].sum()])
            return gk.exact_transport(cost, *moved, backend=backend).value

        finite = cost.masked_fill(cost.isinf(), 0).requires_grad_()
        barred = cost.isinf()
        shift = torch.zeros(8, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda c, s: value(c.masked_fill(barred, math.inf), s), (finite, shift), eps=1e-7
        )

    def test_there_is_no_second_one(self):
        cost, (a, b) = cloud(4, 5, seed=0), masses((4,), (5,), seed=1)
        leaves = [part.requires_grad_() for part in (cost, a, b)]
        grads = torch.autograd.grad(gk.exact_transport(*leaves).value, leaves, create_graph=True)
        with pytest.raises(NotImplementedError, match="exact_transport has first derivatives only"):
            torch.autograd.grad(grads[0].square().sum(), leaves)

    def test_only_those_asked_for(self):
        cost = cloud(4, 5, seed=0).requires_grad_()
        assert torch.equal(
            torch.autograd.grad(gk.exact_transport(cost).value, cost)[0] > 0, _uniform(cost) > 0
        )


def _uniform(cost):
    return gk.exact_transport(cost.detach()).plan()


def test_compiles_in_one_graph():
    cost, (a, b) = cloud(2, 4, 5, seed=0), masses((2, 4), (2, 5), seed=1)

    def loss(cost, a, b):
        return gk.exact_transport(cost, a, b).value.sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    leaves = [part.requires_grad_() for part in (cost, a, b)]
    assert torch.equal(compiled(*leaves), loss(*leaves))
    for one, other in zip(
        torch.autograd.grad(compiled(*leaves), leaves),
        torch.autograd.grad(loss(*leaves), leaves),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_without_a_look_at_values_a_problem_that_has_no_plan_is_nan():
    cost = torch.stack([cloud(3, 4, seed=0), cloud(3, 4, seed=1)])
    cost[1, :2, 1:] = math.inf
    value = torch.vmap(lambda c: gk.exact_transport(c).value)(cost)
    assert value[0].isfinite()
    assert value[1].isnan()
    torch.testing.assert_close(value[0], gk.exact_transport(cost[0]).value)


# prices overflow along a way of these
HUGE = 1.7e308 * (1 - 2 * ((torch.arange(3)[:, None] + torch.arange(4)) % 2)).double()
COST, A, B = cloud(2, 3, 4, seed=0), *masses((2, 3), (2, 4), seed=1)


def edited(x, at, value):
    x = x.clone()
    x[at] = value
    return x


@BACKENDS
@pytest.mark.parametrize(
    ("message", "cost", "a", "b"),
    [
        ("cost must have shape (..., N, M), got (4,)", COST[0, 0], None, None),
        ("cost must have at least one row", COST[:, :0], None, None),
        ("cost must hold finite numbers or +inf, got NaN", edited(COST, (1, 2, 0), math.nan), A, B),
        ("cost must hold finite numbers or +inf, got -inf", edited(COST, (1, 2, 0), -math.inf), A, B),
        ("a must have shape (..., N) = (2, 3), got (2, 4)", COST, B, None),
        ("a must be finite and non-negative, got -1", COST, edited(A, (0, 1), -1.0), B),
        ("b must be finite and non-negative, got NaN", COST, A, edited(B, (0, 1), math.nan)),
        ("a must have some mass, got weights that are all zero", COST, edited(A, 1, 0.0), B),
        ("b must have the mass of a, 3, got 3.003", COST, A, B * 1.001),
        ("got only infinite costs for row 2 of problem (1,)", edited(COST, (1, 2), math.inf), A, B),
        (
            "cost forbids every plan for the masses of problem (1,)",
            edited(COST, (1, slice(2), slice(1, None)), math.inf),
            None,
            None,
        ),
        ("cost must span fewer orders of magnitude of problem (0,)", edited(COST, 0, HUGE), A, B),
    ],
)
def test_refusals(message, cost, a, b, backend):
    with pytest.raises(ValueError, match=re.escape(message)) as said:
        gk.exact_transport(cost, a, b, backend=backend)
    assert "give reach" not in str(said.value)
