"""Triton's sweeps over costs that are given, of any size, and over those of clouds that it has stored.

The sizes here are those of several tiles; on a GPU small problems go to the kernel that holds them whole.
"""

import math

import pytest
import torch

import geokernels as gk
from geokernels.kernels import sizes, triton
from geokernels.testing import cloud, weights

DEVICE = "cpu" if triton.interpreted else "cuda"
WIDEST = torch.float64 if triton.interpreted else torch.float32
NEAR = {torch.float32: 2e-5, torch.float64: 1e-12}


@pytest.fixture
def streamed(monkeypatch):
    """Send costs of any size the way of large ones."""
    monkeypatch.setattr(sizes, "TRITON", sizes.TRITON._replace(points=0))


def there(*parts):
    return [part.to(DEVICE, WIDEST) for part in parts]


def assert_near(found, exact):
    assert found.shape == exact.shape
    some = exact.isfinite()
    assert torch.equal(found.double().cpu()[~some], exact[~some])
    most = NEAR[found.dtype] * max(1.0, exact[some].abs().max())
    assert (found.double().cpu() - exact)[some].abs().max() <= most


def problem(N=70, M=90, reach=None):
    """Two problems with pairs that must not meet; under a penalty also points that meet nobody."""
    cost = torch.cdist(cloud(2, N, 3, seed=0), cloud(2, M, 3, seed=1)).square()
    cost[:, 3, 5:] = math.inf
    if reach:
        cost[1, :, 7], cost[0, 9] = math.inf, math.inf
    return cost, weights(2, N, seed=2), weights(2, M, seed=3)


@pytest.mark.usefixtures("streamed")
@pytest.mark.parametrize("reach", [None, 0.7], ids=["balanced", "unbalanced"])
def test_matches_the_definition(reach):
    parts = problem(reach=reach)
    start = cloud(2, 70, seed=4), cloud(2, 90, seed=5)
    options = {"eps": 0.5, "reach": reach, "max_iter": 3, "tol": 0.0}
    truth = gk.sinkhorn_from_cost(*parts, **options, init=start, backend="reference")
    found = gk.sinkhorn_from_cost(*there(*parts), **options, init=tuple(there(*start)), backend="triton")
    for name in ("value", "f", "g", "error"):
        assert_near(getattr(found, name), getattr(truth, name))
    assert_near(found.plan(), truth.plan())


@pytest.mark.usefixtures("streamed")
@pytest.mark.parametrize("reach", [None, 0.7], ids=["balanced", "unbalanced"])
def test_stops_where_the_definition_stops(reach):
    cost, a, b = problem(20, 16, reach=reach)
    cost[1] *= 0.2
    options = {"eps": 1.0, "reach": reach, "tol": 1e-3}
    truth = gk.sinkhorn_from_cost(cost, a, b, **options, backend="reference")
    found = gk.sinkhorn_from_cost(*there(cost, a, b), **options, backend="triton")
    assert torch.equal(found.iterations.cpu(), truth.iterations)
    assert found.converged.all()


@pytest.mark.usefixtures("streamed")
def test_ragged_equals_separate():
    cost, *_ = problem(23, 30)
    n, m = torch.tensor([23, 9]), torch.tensor([12, 30])
    for k in range(2):
        cost[k, n[k] :], cost[k, :, m[k] :] = math.nan, math.nan
    options = {"eps": 0.5, "tol": 0.0, "max_iter": 2}
    lengths = n.to(DEVICE), m.to(DEVICE)
    t = gk.sinkhorn_from_cost(*there(cost), **options, lengths=lengths, backend="triton")
    for k in range(2):
        s = gk.sinkhorn_from_cost(cost[k, : n[k], : m[k]], **options, backend="reference")
        assert_near(t.value[k], s.value)
        assert_near(t.f[k, : n[k]], s.f)
        assert (t.f[k, n[k] :] == 0).all()
        assert (t.g[k, m[k] :] == 0).all()


@pytest.mark.usefixtures("streamed")
@pytest.mark.parametrize("reach", [None, 0.7], ids=["balanced", "unbalanced"])
def test_gradients_match_the_definition(reach):
    parts = problem(12, 15)
    start = gk.sinkhorn_from_cost(*parts, eps=1.0, reach=reach, tol=1e-11, backend="reference")

    def gradients(backend, parts, **options):
        leaves = [part.clone().requires_grad_() for part in parts]
        t = gk.sinkhorn_from_cost(*leaves, eps=1.0, reach=reach, backend=backend, **options)
        loss = t.value.sum() + t.f.sin().sum() + t.apply(t.g.detach()[..., None]).sum()
        return torch.autograd.grad(loss, leaves)

    exact = gradients("reference", parts, tol=1e-11)
    near = there(start.f, start.g)
    found = gradients("triton", there(*parts), tol=1e-5, max_iter=2, init=tuple(near))
    for name, gradient, truth in zip(("cost", "a", "b"), found, exact, strict=True):
        gradient = gradient.double().cpu()
        if name != "cost" and reach is None:
            # balanced, the constant is free: masses stay equal
            gradient, truth = (part - part.mean(-1, keepdim=True) for part in (gradient, truth))
        tolerance = 1e-6 if torch.float64 == WIDEST else 1e-3
        assert torch.allclose(gradient, truth, rtol=tolerance, atol=tolerance), name


@pytest.mark.usefixtures("streamed")
def test_a_mass_that_nobody_takes_is_refused():
    cost, a, b = there(*problem(12, 10))
    cost[:, :, 4] = math.inf
    if triton.interpreted:
        with pytest.raises(ValueError, match="mass"):
            gk.sinkhorn_from_cost(cost, a, b, eps=0.5, max_iter=2, backend="triton")
    else:
        assert not gk.sinkhorn_from_cost(cost, a, b, eps=0.5, max_iter=2, backend="triton").converged.any()


def test_operator_is_well_registered():
    from geokernels.kernels.triton import transport  # noqa: F401

    cost, a, b = there(*problem(4, 6))
    parts = tuple(part.requires_grad_() for part in (cost[:, :3], a[:, :3], b))
    args = (*parts, None, None, None, 0.5, math.inf, 1, 1e-9)
    torch.library.opcheck(torch.ops.geokernels.triton_sinkhorn_given.default, args)


def test_more_than_256_points_are_taken():
    cost = cloud(20, 260, seed=0).abs()
    options = {"eps": 1.0, "max_iter": 1, "tol": 0.0}
    truth = gk.sinkhorn_from_cost(cost, **options, backend="reference")
    found = gk.sinkhorn_from_cost(*there(cost), **options, backend="triton")
    assert_near(found.g, truth.g)


@pytest.mark.parametrize("cost", ["sqeuclidean", "dot"])
def test_stored_costs_of_clouds_are_those_of_the_points(monkeypatch, cost):
    from geokernels.kernels.triton import transport_clouds_given

    made, make = [], transport_clouds_given.stored
    monkeypatch.setattr(transport_clouds_given, "free_memory", lambda device: 4 * 2 * 70 * 90 * 8)
    monkeypatch.setattr(
        "geokernels.kernels.triton.transport_clouds.stored", lambda *of: made.append(1) or make(*of)
    )
    x, y = 1 + cloud(2, 70, 130, seed=0), 1.5 + 0.7 * cloud(2, 90, 130, seed=1)
    parts = x, y, weights(2, 70, seed=2), weights(2, 90, seed=3)
    options = {"eps": 40.0, "cost": cost, "max_iter": 2, "tol": 0.0}
    truth = gk.sinkhorn(*parts, **options, backend="reference")
    found = gk.sinkhorn(*there(*parts), **options, backend="triton", precision="fp32")
    assert made
    for name in ("value", "f", "g", "error"):
        assert_near(getattr(found, name), getattr(truth, name))
    # one pair more than there is memory for
    monkeypatch.setattr(transport_clouds_given, "free_memory", lambda device: 4 * (2 * 70 * 90 - 1) * 8)
    made.clear()
    gk.sinkhorn(*there(x[..., :65], y[..., :65]), **{**options, "max_iter": 1}, backend="triton")
    assert not made
