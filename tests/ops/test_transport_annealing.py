"""Regularisation that comes down to eps: the same solution, in fewer half-steps."""

import math
import re

import pytest
import torch

import geokernels as gk
from geokernels import reference
from geokernels.kernels import transport_clouds
from geokernels.testing import assert_as_accurate, cloud, weights

REACHES = pytest.mark.parametrize("reach", [None, 0.7], ids=["balanced", "unbalanced"])


@pytest.fixture
def streamed(monkeypatch):
    """Send clouds of any size the way of large ones."""
    monkeypatch.setattr(transport_clouds, "are_large", lambda x, y: True)


def problem(N=60, M=50, D=2):
    return cloud(N, D, seed=0), 0.5 + cloud(M, D, seed=1), weights(N, seed=2), weights(M, seed=3)


def start(parts):
    return reference.pairwise_cost(*parts[:2]).max().item()


@REACHES
@pytest.mark.usefixtures("streamed")
def test_streams_as_the_definition_does(reach):
    parts = problem()
    options = {"eps": 0.05, "reach": reach, "anneal": (start(parts), 0.5), "max_iter": 14, "tol": 0.0}
    ours, truth = (gk.sinkhorn(*parts, **options, backend=backend) for backend in ("native", "reference"))
    assert torch.equal(ours.iterations, truth.iterations)
    for name in ("value", "f", "g", "error"):
        assert torch.allclose(getattr(ours, name), getattr(truth, name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("large", [False, True], ids=["small", "streamed"])
def test_reaches_the_same_solution_sooner(large, request):
    if large:
        request.getfixturevalue("streamed")
    parts = problem()
    options = {"eps": 0.02, "tol": 1e-6, "max_iter": 20_000}
    plain = gk.sinkhorn(*parts, **options, backend="native")
    annealed = gk.sinkhorn(*parts, **options, anneal=(start(parts), 0.7), backend="native")
    assert plain.converged
    assert annealed.converged
    assert annealed.iterations < plain.iterations
    assert torch.allclose(plain.value, annealed.value, rtol=1e-5)


@pytest.mark.usefixtures("streamed")
def test_float32_is_as_accurate_as_the_definition():
    exact = problem()
    parts = [part.float() for part in exact]
    options = {"eps": 0.1, "anneal": (start(exact), 0.6), "max_iter": 30, "tol": 0.0}
    ours = gk.sinkhorn(*parts, **options, backend="native")
    eager = gk.sinkhorn(*parts, **options, backend="reference")
    truth = gk.sinkhorn(*(part.double() for part in parts), **options, backend="reference")
    for name in ("value", "f", "g"):
        assert_as_accurate(name, *(getattr(t, name) for t in (ours, eager, truth)))


@pytest.mark.parametrize("large", [False, True], ids=["small", "streamed"])
def test_gradients_and_ends(large, request):
    if large:
        request.getfixturevalue("streamed")
    x, y, a, b = problem()
    x.requires_grad_()
    options = {"eps": 0.2, "tol": 1e-12, "max_iter": 5000}
    plain, annealed = (gk.sinkhorn(x, y, a, b, **options, anneal=by) for by in (None, (9.0, 0.5)))
    gradients = (torch.autograd.grad(t.value + t.f.sin().sum(), x)[0] for t in (plain, annealed))
    assert torch.allclose(*gradients, atol=1e-8)
    # too few half-steps to come down: the last is made at eps all the same
    few = gk.sinkhorn(x, y, a, b, eps=0.2, anneal=(1e3, 0.9), max_iter=3)
    assert few.iterations == 3
    assert few.value.isfinite()
    # nothing to come down from
    assert torch.equal(
        gk.sinkhorn(x, y, a, b, eps=0.2, anneal=(0.1, 0.5)).f, gk.sinkhorn(x, y, a, b, eps=0.2).f
    )


@pytest.mark.parametrize(
    ("message", "anneal"),
    [
        ("anneal[0] must be a finite number above 0, got 0", (0, 0.5)),
        ("anneal[0] must be a finite number above 0, got nan", (math.nan, 0.5)),
        ("anneal[1] must lie between 0 and 1, got 1", (1.0, 1)),
    ],
)
def test_refusals(message, anneal):
    with pytest.raises(ValueError, match=re.escape(message)):
        gk.sinkhorn_from_cost(torch.zeros(2, 2), eps=1.0, anneal=anneal)
