"""What transport refuses, in words."""

import math
import re

import pytest
import torch

import geokernels as gk
from geokernels.testing import cloud

pytestmark = pytest.mark.cpu  # elsewhere values are not read for these messages

COST = cloud(3, 4, seed=0).abs()
X, Y = cloud(3, 2, seed=0), cloud(4, 2, seed=1)
THIRD = torch.full((3,), 1 / 3, dtype=torch.float64)


def edited(x, index, value):
    x = x.clone()
    x[index] = value
    return x


@pytest.mark.parametrize(
    ("message", "cost", "options"),
    [
        ("cost must have shape (..., N, M), got (4,)", COST[0], {}),
        ("cost must have at least one row and one feature, got (..., N, M) = (3, 0)", COST[:, :0], {}),
        ("eps must be a finite number above 0, got 0", COST, {"eps": 0}),
        ("eps must be a finite number above 0, got nan", COST, {"eps": math.nan}),
        ("reach must be a finite number above 0, got -1", COST, {"reach": -1}),
        ("max_iter must be at least 1, got 0", COST, {"max_iter": 0}),
        ("tol must be a finite number, 0 or above, got -1", COST, {"tol": -1}),
        ("a must have shape (..., N) = (3,), got (4,)", COST, {"a": torch.ones(4).double()}),
        ("b must have shape (..., M) = (4,), got (3,)", COST, {"b": THIRD}),
        ("a must be finite and non-negative, got -0.5", COST, {"a": edited(THIRD, 0, -0.5)}),
        ("a must be finite and non-negative, got NaN", COST, {"a": edited(THIRD, 0, math.nan)}),
        ("a must have some mass, got weights that are all zero", COST, {"a": 0 * THIRD}),
        (
            "b must have the mass of a, 2, got 1; give reach to transport unequal masses",
            COST,
            {"a": 2 * THIRD},
        ),
        ("cost must hold finite numbers or +inf, got NaN", edited(COST, (1, 1), math.nan), {}),
        ("cost must hold finite numbers or +inf, got -inf", edited(COST, (1, 1), -math.inf), {}),
        ("got only infinite costs for row 1", edited(COST, 1, math.inf), {}),
        ("got only infinite costs for column 2", edited(COST, (slice(None), 2), math.inf), {}),
        ("init[1] must have shape (..., M) = (4,), got (3,)", COST, {"init": (THIRD, THIRD)}),
        ("lengths[0] must lie between 1 and 3, got 5", COST, {"lengths": (torch.tensor(5), torch.tensor(1))}),
        ("lengths[1] must lie between 1 and 4, got 0", COST, {"lengths": (torch.tensor(3), torch.tensor(0))}),
    ],
)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_bad_values(message, cost, options, backend):
    with pytest.raises(ValueError, match=re.escape(message)):
        gk.sinkhorn_from_cost(cost, **{"eps": 0.1, "backend": backend} | options)


@pytest.mark.parametrize(
    ("message", "cost", "options"),
    [
        ("cost must be a tensor, got list", [[1.0]], {}),
        ("cost must be float16, bfloat16, float32 or float64, got torch.int64", COST.long(), {}),
        ("a must have the dtype of cost, torch.float64, got torch.float32", COST, {"a": THIRD.float()}),
        ("a must be on the device of cost, cpu, got meta", COST, {"a": THIRD.to("meta")}),
        ("lengths[0] must be int64, got torch.int32", COST, {"lengths": 2 * (torch.tensor(3).int(),)}),
    ],
)
def test_bad_types(message, cost, options):
    with pytest.raises(TypeError, match=re.escape(message)):
        gk.sinkhorn_from_cost(cost, eps=0.1, **options)


@pytest.mark.parametrize(
    ("message", "x", "y", "options"),
    [
        ("x must have shape (..., N, D), got (2,)", X[0], Y, {}),
        (
            "y must have the batch shape and features of x, (..., M, D) = ('M', 2), got (4, 1)",
            X,
            Y[:, :1],
            {},
        ),
        ("x must have at least one row and one feature, got (..., N, D) = (0, 2)", X[:0], Y, {}),
        ("cost must be one of sqeuclidean, euclidean, cosine, dot, lp, got 'l2'", X, Y, {"cost": "l2"}),
        ("p must be a finite number, 1 or above, got 0.5", X, Y, {"cost": "lp", "p": 0.5}),
        ("x must be finite, got NaN", edited(X, (0, 0), math.nan), Y, {}),
        ("y must be finite, got infinite values", X, edited(Y, (0, 0), math.inf), {}),
        ("the sqeuclidean cost between x and y overflows torch.float32", 1e25 * X.float(), Y.float(), {}),
    ],
)
def test_bad_clouds(message, x, y, options):
    with pytest.raises(ValueError, match=re.escape(message)):
        gk.sinkhorn(x, y, eps=0.1, **options)


LARGE = cloud(300, 2, seed=2)
COSTS = ["sqeuclidean", "euclidean", "cosine", "dot", "lp"]
OPERATORS = {
    "sinkhorn": lambda x, y, cost, backend: gk.sinkhorn(x, y, eps=1.0, cost=cost, backend=backend),
    "sinkhorn, ragged": lambda x, y, cost, backend: gk.sinkhorn(
        x, y, eps=1.0, cost=cost, lengths=(torch.tensor(3), torch.tensor(4)), backend=backend
    ),
    "sinkhorn, no mass": lambda x, y, cost, backend: gk.sinkhorn(
        x, y, edited(x[:, 0].abs(), 1, 0.0), y[:, 0].abs(), eps=1.0, cost=cost, reach=1.0, backend=backend
    ),
    "sinkhorn_divergence": lambda x, y, cost, backend: gk.sinkhorn_divergence(
        x, y, eps=1.0, cost=cost, backend=backend
    ),
    "displacement": lambda x, y, cost, backend: gk.displacement(x, y, 0.5, backend=backend),
    "displacement, entropic": lambda x, y, cost, backend: gk.displacement(
        x, y, 0.5, plan="entropic", eps=1.0, backend=backend
    ),
}


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("run", OPERATORS.values(), ids=OPERATORS)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_points_that_are_nowhere(run, cost, backend):
    for bad, said in ((math.nan, "NaN"), (math.inf, "infinite values"), (-math.inf, "infinite values")):
        for name, x, y in (("x", edited(X, (1, 1), bad), Y), ("y", X, edited(Y, (1, 1), bad))):
            with pytest.raises(ValueError, match=f"^{name} must be finite, got {said}$"):
                run(x, y, cost, backend)
    x = edited(LARGE, (290, 1), math.nan)
    with pytest.raises(ValueError, match=r"^x must be finite, got NaN$"):
        gk.sinkhorn(x, LARGE, eps=1.0, cost=cost, backend=backend)


def attempt(run):
    """The results, or how the call was refused."""
    try:
        found = run()
    except ValueError as refusal:
        return (), str(refusal)
    return found if isinstance(found, tuple) else (found,), None


@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e-22, 1.0, 1e30, 1e38])
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_finite_points_of_any_size_give_finite_results_or_a_reason(size, cost, large):
    x, y = (LARGE, LARGE.flip(0) + 0.1) if large else (X, Y)
    x, y = (size * part.float()[None] / part.abs().max() for part in (x, y))
    counts = torch.tensor([3]), torch.tensor([4])

    def solve(**lengths):
        t = gk.sinkhorn(x, y, eps=0.5, cost=cost, max_iter=20, **lengths)
        return t.value, t.f, t.g, t.plan(), t.apply(y), t.barycentric(y)

    runs = [
        solve,
        lambda: solve(lengths=counts),
        lambda: gk.sinkhorn_divergence(x, y, eps=0.5, cost=cost, max_iter=20),
        lambda: gk.sinkhorn_divergence(x, y, eps=0.5, cost=cost, max_iter=20, lengths=counts),
        lambda: gk.displacement(x, y, 0.5, plan="entropic", eps=0.5),
    ]
    for run in runs:
        found, refusal = attempt(run)
        if size <= 1:
            assert refusal is None
        assert refusal is None or "scale them" in refusal
        assert all(part.isfinite().all() for part in found)


@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e20, 3e38])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_cosine_does_not_see_the_length_of_rows(size, backend):
    unit = X.float() / X.abs().max(), Y.float() / Y.abs().max()
    t, u = (gk.sinkhorn(s * unit[0], s * unit[1], eps=0.5, cost="cosine", backend=backend) for s in (size, 1))
    torch.testing.assert_close(t.plan(), u.plan())
    torch.testing.assert_close(t.value, u.value)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_what_a_point_without_mass_meets_is_looked_at(backend):
    options = {"a": torch.tensor([0.5, 0.5, 0.0]).double(), "eps": 0.1, "backend": backend}
    with pytest.raises(ValueError, match=r"^cost must hold finite numbers or \+inf, got NaN$"):
        gk.sinkhorn_from_cost(edited(COST, (2, 1), math.nan), **options)
    with pytest.raises(ValueError, match=r"^init\[1\] must hold finite numbers or \+inf, got NaN$"):
        gk.sinkhorn_from_cost(COST, init=(THIRD, edited(COST[0], 1, math.nan)), **options)
    with pytest.raises(ValueError, match=r"^init\[1\] must hold finite numbers or \+inf, got -inf$"):
        gk.sinkhorn_from_cost(COST, init=(THIRD, edited(COST[0], 1, -math.inf)), **options)


def test_bad_columns():
    t = gk.sinkhorn(X, Y, eps=1.0)
    with pytest.raises(
        ValueError, match=re.escape("must have 4 rows, as (..., 4) or (..., 4, E), got (3, 2)")
    ):
        t.apply(X)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize(
    ("message", "cost"),
    [
        ("cost must have no more rows than columns, got (N, M) = (4, 3)", COST.T),
        ("cost must hold finite numbers or +inf, got NaN", edited(COST, (1, 1), math.nan)),
        ("cost forbids every one-to-one assignment", edited(COST, (slice(2), slice(1, None)), math.inf)),
    ],
)
def test_bad_assignments(message, cost, backend):
    with pytest.raises(ValueError, match=re.escape(message)):
        gk.assignment(cost, backend=backend)


@pytest.mark.parametrize(
    ("message", "x", "y", "options"),
    [
        ("t must lie in [0, 1], got 1.5", X, Y, {"t": 1.5}),
        ("plan must be one of exact, entropic, got 'best'", X, Y, {"plan": "best"}),
        ("eps must be given for the entropic plan, got None", X, Y, {"plan": "entropic"}),
        ("y must have at least as many points as x for the exact plan, 4, got 3", Y, X, {}),
    ],
)
def test_bad_displacements(message, x, y, options):
    with pytest.raises(ValueError, match=re.escape(message)):
        gk.displacement(x, y, **{"t": 0.5} | options)
