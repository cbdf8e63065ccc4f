"""match_points is what its definition says, and finds what belongs together."""

import math
import re

import pytest
import torch

import geokernels as gk
from geokernels import reference
from geokernels.ops.matching import one_way, other_way
from geokernels.testing import assert_as_accurate, cloud, weights

COSTS = pytest.mark.parametrize("cost", ["cosine", "sqeuclidean"])
REACHES = pytest.mark.parametrize("reach", [None, 0.5], ids=["balanced", "unbalanced"])
TIGHT = {"tol": 1e-12, "max_iter": 3000}
PARTS = ("map", "confidence", "cycle_error")


def clouds(N=9, M=7, D=4, P=2, batch=(), dtype=torch.float64, seed=0):
    """Features and positions of both sides, about points that are not the origin."""
    shapes = (N, D), (M, D), (N, P), (M, P)
    return [(0.3 + cloud(*batch, *shape, seed=seed + k)).to(dtype) for k, shape in enumerate(shapes)]


def defined(
    x, y, at_x, at_y, a=None, b=None, *, eps, reach, cost="cosine", position_weight=0.0, sigma, **how
):
    """The definition, in float64."""
    parts = [None if part is None else part.double() for part in (x, y, at_x, at_y, a, b)]
    limits = {"tol": how.get("tol", 1e-5), "max_iter": how.get("max_iter", 1000)}
    of = {"eps": eps, "reach": math.inf if reach is None else reach, "cost": cost, **limits}
    problem = reference.Problem(a=parts[4], b=parts[5], **of)
    return reference.match_points(*parts[:4], problem, position_weight, torch.tensor(sigma).double())


@COSTS
@REACHES
# dense and streamed
@pytest.mark.parametrize("N, M", [(9, 7), (300, 270)], ids=str)
def test_agrees_with_its_definition(N, M, cost, reach):
    parts = clouds(N, M)
    options = {"eps": 0.3, "reach": reach, "cost": cost, "position_weight": 0.4, "sigma": 0.8, **TIGHT}
    a, b = weights(N, seed=7), weights(M, seed=8)
    for name, ours, truth in zip(
        PARTS, gk.match_points(*parts, a=a, b=b, **options), defined(*parts, a, b, **options)
    ):
        torch.testing.assert_close(
            ours, truth, rtol=1e-6, atol=1e-7, msg=lambda said, name=name: f"{name}: {said}"
        )


@REACHES
def test_is_as_accurate_as_eager_in_float32(reach):
    parts = clouds(300, 270, dtype=torch.float32)
    options = {"eps": 0.5, "reach": reach, "position_weight": 0.4, "sigma": 0.8, "tol": 0.0, "max_iter": 30}
    ours = gk.match_points(*parts, **options)
    eager = gk.match_points(*parts, **options, backend="reference")
    for name, one, other, truth in zip(PARTS, ours, eager, defined(*parts, **options)):
        assert one.dtype == torch.float32
        assert_as_accurate(name, one, other, truth)


def test_a_permutation_is_found():
    x, _, at, _ = clouds(40, D=16)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    found = gk.match_points(x, x[order], at, at, eps=0.01, reach=1.0)
    torch.testing.assert_close(found.map, at[order.argsort()], atol=1e-3, rtol=0)
    assert found.confidence.min() > 0.95
    assert found.cycle_error.max() < 1e-3


def test_what_has_no_partner_is_not_believed():
    x, _, at, _ = clouds(30, D=16)
    y = x.clone()
    y[:5] = -y[:5]  # the first five look like nothing in the other cloud
    found = gk.match_points(x, y, at, at, eps=0.02, reach=0.1)
    assert found.confidence[5:].min() > 0.7
    assert found.confidence[:5].max() < 0.2


def test_positions_decide_between_alike():
    # two points look the same; each goes to the nearer of two that look like them
    x = torch.ones(2, 3).double()
    at_x, at_y = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[0.9], [0.1]]).double()
    near = gk.match_points(x, x, at_x, at_y, eps=0.01, reach=None, position_weight=1.0)
    torch.testing.assert_close(near.map, at_y.flip(0), atol=1e-3, rtol=0)
    blind = gk.match_points(x, x, at_x, at_y, eps=0.01, reach=None)
    torch.testing.assert_close(blind.map, torch.full_like(at_x, 0.5))
    torch.testing.assert_close(blind.cycle_error, torch.full((2,), 0.5).double())


def test_a_zero_row_is_at_right_angles_to_all():
    parts = clouds()
    parts[0][2], parts[1][3] = 0, 0
    options = {"eps": 0.3, "reach": 0.5, "sigma": 1.0, **TIGHT}
    for ours, truth in zip(gk.match_points(*parts, **options), defined(*parts, **options)):
        torch.testing.assert_close(ours, truth, rtol=1e-6, atol=1e-7)


def test_the_map_moves_with_the_target_and_not_with_the_unit():
    x, y, at_x, at_y = clouds()
    options = {"eps": 0.2, "reach": 0.5, **TIGHT}
    found = gk.match_points(x, y, at_x, at_y, **options)
    moved = gk.match_points(x, y, at_x, at_y + 3, **options)
    torch.testing.assert_close(moved.map, found.map + 3)
    larger = gk.match_points(x, y, 10 * at_x, 10 * at_y, **options)
    torch.testing.assert_close(larger.map, 10 * found.map)
    torch.testing.assert_close(larger.confidence, found.confidence)


def test_batches_and_halves():
    parts = clouds(batch=(2, 3))
    options = {"eps": 0.3, "reach": 0.5, **TIGHT}
    found = gk.match_points(*parts, **options)
    assert (found.map.shape, found.confidence.shape) == ((2, 3, 9, 2), (2, 3, 9))
    alone = gk.match_points(*(part[1, 2] for part in parts), **options)
    for many, one in zip(found, alone):
        torch.testing.assert_close(many[1, 2], one)
    half = gk.match_points(*(part.bfloat16() for part in parts), eps=0.3, reach=0.5)
    assert {part.dtype for part in half} == {torch.bfloat16}
    torch.testing.assert_close(half.map.double(), found.map, atol=0.1, rtol=0)


def test_the_other_way_is_that_of_the_transposed_plan():
    x, y, at_x, at_y = clouds()
    t = gk.sinkhorn(x, y, eps=0.5, reach=0.5)
    found = other_way(one_way(t.apply, t.apply_t, at_x, at_y), t.apply_t, at_y)
    for ours, truth in zip(found, one_way(t.apply_t, t.apply, at_y, at_x)):
        torch.testing.assert_close(ours, truth)


def test_a_point_without_weight_has_no_confidence():
    parts = clouds()
    a = weights(9, seed=0, zeros=2)
    found = gk.match_points(*parts, a=a, eps=0.3, reach=0.5)
    assert (found.confidence[:2] == 0).all()
    assert (found.confidence[2:] > 0).all()
    assert all(part.isfinite().all() for part in found)


class TestGradients:
    @COSTS
    @REACHES
    def test_by_finite_differences(self, cost, reach):
        leaves = [part.requires_grad_() for part in clouds(5, 4, 3)]

        def run(*parts):
            options = {"eps": 0.5, "reach": reach, "cost": cost, "position_weight": 0.4, "sigma": 0.8}
            return tuple(gk.match_points(*parts, **options, tol=1e-14, max_iter=5000))

        assert torch.autograd.gradcheck(run, leaves)

    def test_of_second_order(self):
        leaves = [part.requires_grad_() for part in clouds(3, 3, 2)]

        def run(*parts):
            return gk.match_points(*parts, eps=0.7, reach=0.6, position_weight=0.4, sigma=0.8, tol=1e-14).map

        assert torch.autograd.gradgradcheck(run, leaves)

    def test_of_a_round_trip_that_comes_back_are_finite(self):
        x, _, at, _ = (part.requires_grad_() for part in clouds(1, 1))
        found = gk.match_points(x, x, at, at, eps=0.1, reach=None)
        assert found.cycle_error.item() == 0
        for grad in torch.autograd.grad(found.cycle_error.sum() + found.confidence.sum(), (x, at)):
            assert torch.equal(grad, torch.zeros_like(grad))


def test_compiles_in_one_graph():
    parts = [part.requires_grad_() for part in clouds()]

    def loss(*parts):
        found = gk.match_points(*parts, eps=0.3, reach=0.5, position_weight=0.1)
        return found.map.sum() + found.confidence.sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*parts), loss(*parts))
    for one, other in zip(
        torch.autograd.grad(compiled(*parts), parts), torch.autograd.grad(loss(*parts), parts)
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        (
            "at_x must have one position for each row of x, (..., N, P) = (9, 'P')",
            {"at_x": (7, 2)},
        ),
        (
            "at_y must have one position for each row of y, (..., M, P) = (7, 'P')",
            {"at_y": (6, 2)},
        ),
        ("at_y must have as many coordinates as at_x, 2, got (7, 3)", {"at_y": (7, 3)}),
        ("y must have the batch shape and features of x", {"y": (7, 5)}),
        ("at_x must be finite, got NaN", {"at_x": math.nan}),
        ("x must be finite, got infinite values", {"x": math.inf}),
        ("position_weight must be a finite number, 0 or above, got -1", {"position_weight": -1}),
        ("sigma must be a finite number above 0, got 0", {"sigma": 0}),
        ("cost must be one of cosine, sqeuclidean, got 'dot'", {"cost": "dot"}),
        ("reach must be a finite number above 0, got -2", {"reach": -2}),
    ],
)
def test_refusals(message, changes):
    given = dict(zip(("x", "y", "at_x", "at_y"), clouds()))
    for name, value in changes.items():
        if isinstance(value, tuple):
            given[name] = cloud(*value, seed=0)
        elif name in ("x", "at_x"):
            given[name][0, 0] = value
        else:
            given[name] = value
    with pytest.raises(ValueError, match=re.escape(message)):
        gk.match_points(**{"eps": 0.1, "reach": 1.0, **given})


def test_refuses_another_dtype():
    x, y, at_x, at_y = clouds()
    with pytest.raises(
        TypeError, match=re.escape("at_y must have the dtype of y, torch.float64, got torch.float32")
    ):
        gk.match_points(x, y, at_x, at_y.float(), eps=0.1, reach=1.0)
