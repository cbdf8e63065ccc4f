"""SamplesLoss is GeomLoss's loss at convergence, by its formulas and beside the package itself."""

import pytest
import torch

from geokernels import reference
from geokernels.compat.geomloss import SamplesLoss
from geokernels.testing import cloud, weights

EXACT = {"tol": 1e-11, "max_iter": 20000}
P = pytest.mark.parametrize("p", [1, 2])
REACHES = pytest.mark.parametrize("reach", [None, 0.8], ids=["balanced", "unbalanced"])
DEBIAS = pytest.mark.parametrize("debias", [True, False], ids=["debiased", "raw"])


def measures(B=2, N=9, M=12, D=3, mass=1.0, seed=0):
    """Weights with a zero among them, and points about one unit apart."""
    x, y = 0.4 * cloud(B, N, D, seed=seed), 0.3 + 0.4 * cloud(B, M, D, seed=seed + 1)
    return mass * weights(B, N, seed=seed + 2), x, mass * weights(B, M, seed=seed + 3), y


def by_formula(a, x, b, y, p, eps, rho, debias):
    """GeomLoss's value from potentials of the cost |x - y|^p / p."""

    def half_step(cost, weight, potential):
        damping = 1 if rho is None else rho / (rho + eps)
        return -eps * damping * torch.logsumexp(weight.log() + (potential - cost) / eps, -1)

    def potentials(x, y, a, b):
        cost = torch.cdist(x, y) ** p / p
        f, g = torch.zeros_like(a), torch.zeros_like(b)
        for _ in range(300):
            f = half_step(cost, b[:, None], g[:, None])
            g = half_step(cost.mT, a[:, None], f[:, None])
        return f, g

    def count(weight, potential):
        if rho is not None:
            potential = (rho + eps / 2) * (1 - torch.exp(-potential / rho))
        return (weight * potential).sum(-1)

    def value(x, y, a, b):
        f, g = potentials(x, y, a, b)
        return count(a, f) + count(b, g)

    own = (value(x, x, a, a) + value(y, y, b, b)) / 2 if debias else 0
    return value(x, y, a, b) - own


@P
@REACHES
@DEBIAS
@pytest.mark.parametrize("mass", [1.0, 2.5])
def test_value_is_the_formula(p, reach, debias, mass):
    a, x, b, y = measures(mass=mass)
    found = SamplesLoss(p=p, blur=0.5, reach=reach, debias=debias, **EXACT)(a, x, b, y)
    expected = by_formula(a, x, b, y, p, 0.5**p, reach and reach**p, debias)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


def test_unbalanced_masses_may_differ():
    a, x, b, y = measures()
    found = SamplesLoss(blur=0.5, reach=0.8, **EXACT)(a, x, 1.7 * b, y)
    torch.testing.assert_close(found, by_formula(a, x, 1.7 * b, y, 2, 0.25, 0.64, True))


@P
@REACHES
@DEBIAS
def test_beside_geomloss(p, reach, debias):
    geomloss = pytest.importorskip("geomloss")
    # GeomLoss stops with its descent: the bounds are what a slow one leaves
    a, x, b, y = measures(mass=1.5)
    x.requires_grad_()
    settings = {"p": p, "blur": 0.3, "reach": reach, "debias": debias, "backend": "tensorized"}
    ours = SamplesLoss(**settings, **EXACT)(a, x, b, y)
    theirs = geomloss.SamplesLoss(**settings, scaling=0.998)(a, x, b, y)
    torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-4)
    ours, theirs = (torch.autograd.grad(value.sum(), x)[0] for value in (ours, theirs))
    if reach is not None:  # the factor that the docstring states
        eps, rho = 0.3**p, reach**p
        ours = ours * (rho + eps / 2) / (rho + eps)
    torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-3)
    ours = SamplesLoss(**settings, **EXACT, potentials=True)(a, x, b, y)
    theirs = geomloss.SamplesLoss(**settings, scaling=0.998, potentials=True)(a, x, b, y)
    for f, g in zip(ours, theirs, strict=True):
        constant = (f - g).mean(-1, keepdim=True) if reach is None else 0
        torch.testing.assert_close(f, g + constant, rtol=2e-2, atol=2e-3)


@REACHES
@DEBIAS
def test_gradients_are_those_of_the_value(reach, debias):
    a, x, b, y = measures(B=1, N=4, M=5)
    loss = SamplesLoss(blur=0.6, reach=reach, debias=debias, diameter=2.0, tol=1e-13, max_iter=20000)
    points = [part.requires_grad_() for part in (x, y)]
    assert torch.autograd.gradcheck(lambda x, y: loss(a, x, b, y), points)
    if reach is not None:  # without reach, weights cannot move one at a time
        masses = [(w + 0.1).requires_grad_() for w in (a, b)]
        assert torch.autograd.gradcheck(lambda a, b: loss(a, x, b, y), masses)


def test_call_forms_agree():
    _, x, _, y = measures()
    a, b = torch.full((2, 9), 1 / 9, dtype=x.dtype), torch.full((2, 12), 1 / 12, dtype=x.dtype)
    loss = SamplesLoss(blur=0.4, **EXACT)
    found = loss(x, y)
    assert found.shape == (2,)
    for args in ((a, x, b, y), (a[..., None], x, b[..., None], y), (None, a, x, None, b, y)):
        torch.testing.assert_close(loss(*args), found)
    single = loss(x[1], y[1])
    assert single.shape == ()
    torch.testing.assert_close(single, found[1])
    f, g = SamplesLoss(blur=0.4, potentials=True)(x[0], y[0])
    assert f.shape == (1, 9)
    assert g.shape == (1, 12)


def test_a_cost_of_ones_own():
    a, x, b, y = measures()
    quartic = SamplesLoss(p=2, blur=0.5, cost=lambda x, y: torch.cdist(x, y) ** 4, debias=False, **EXACT)
    problem = reference.Problem(a=a, b=b, eps=0.25, max_iter=20000, tol=1e-11)
    solved = reference.solve(torch.cdist(x, y) ** 4, problem)
    torch.testing.assert_close(quartic(a, x, b, y), solved[0])


def test_descent_reaches_a_small_blur():
    x, y = cloud(40, 2, seed=0), cloud(40, 2, seed=1)
    truth = SamplesLoss(blur=0.02, debias=False, max_iter=100000)(x, y)
    found = SamplesLoss(blur=0.02, debias=False, scaling=0.9, max_iter=500)(x, y)
    cold = SamplesLoss(blur=0.02, debias=False, diameter=0.02, max_iter=500)(x, y)
    assert (found - truth).abs() < 0.1 * (cold - truth).abs()


def test_equal_clouds_of_one_point():
    x = torch.ones(1, 3)
    assert SamplesLoss()(x, x) == 0
    assert SamplesLoss(p=1)(x, x + torch.tensor([3.0, 4.0, 0.0])).item() == pytest.approx(5)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"loss": "energy"}, "loss must be one of sinkhorn, got 'energy'"),
        ({"p": 3}, "p must be 1 or 2 unless a cost is given, got 3"),
        ({"blur": 0}, "blur must be a finite number above 0, got 0"),
        ({"scaling": 1}, "scaling must lie between 0 and 1, got 1"),
        ({"backend": "gpu"}, "backend must be one of"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        SamplesLoss(**settings)


def test_refuses_formulas():
    with pytest.raises(TypeError, match="cost must be a function of two clouds, got str"):
        SamplesLoss(cost="SqDist(X,Y)")


def test_refuses_arguments():
    a, x, b, y = measures()
    with pytest.raises(ValueError, match="got 3 arguments"):
        SamplesLoss()(a, x, y)
    with pytest.raises(ValueError, match=r"a must have shape \(2, 9\), got \(2, 12\)"):
        SamplesLoss()(b, x, a, y)
    with pytest.raises(ValueError, match="b must have the mass of a"):
        SamplesLoss()(a, x, 2 * b, y)
    with pytest.raises(ValueError, match="x must be finite, got NaN"):
        SamplesLoss()(x * float("nan"), y)


def test_is_mapped_over_problems():
    a, x, b, y = measures()
    loss = SamplesLoss(blur=0.4)
    mapped = torch.func.vmap(torch.func.grad(loss, argnums=1))(a, x, b, y)
    for k in range(len(x)):
        each = x[k].clone().requires_grad_()
        (grad,) = torch.autograd.grad(loss(a[k], each, b[k], y[k]), each)
        torch.testing.assert_close(mapped[k], grad, rtol=1e-3, atol=1e-5)
