"""Equal calls give equal bits: again, and with one thread as with two; derivatives included."""

import pytest
import torch

import geokernels as gk
from geokernels.testing import cloud, weights

pytestmark = pytest.mark.cpu  # it counts threads

X, Y, A, B = (
    cloud(3, 60, 33, seed=0),
    cloud(3, 77, 33, seed=1),
    weights(3, 60, seed=2),
    weights(3, 77, seed=3),
)
LARGE_X, LARGE_Y = cloud(300, 9, seed=4), cloud(410, 9, seed=5)


def products(t, x, y):
    return t.value, t.f, t.g, t.plan(), t.apply(y), t.apply_t(x), t.barycentric(y)


def transport(x, y, **options):
    t = gk.sinkhorn(x, y, eps=20.0, **options)
    return *products(t, x, y), t.error, t.iterations.to(x.dtype)


def from_cost(cost, a, b):
    return products(gk.sinkhorn_from_cost(cost, a, b, eps=8.0), cost, cost.mT)


def exactly(cost, a, b):
    found = gk.exact_transport(cost, a, b)
    return found.value, found.f, found.g, found.plan()


def bases(x, y):
    return gk.subspace_basis(x, 12).basis, gk.subspace_basis(y, 10).basis


def geodesic(x, y):
    return (gk.geodesic_cosine(x, y[..., : x.shape[-2], :], *bases(x, y)),)


def along_a_flow(x, y):
    p, q = bases(x, y)
    flow = gk.geodesic_flow(p, q)
    cosines = gk.geodesic_cosine_along(x, y[..., : x.shape[-2], :], flow)
    return cosines, gk.project(x, p), gk.principal_angles(p, q), flow.at(0.3), flow.kernel()


# sizes that a matrix product would split among threads, and one that a library solves
CALLS = {
    "sinkhorn": (transport, X, Y),
    "sinkhorn, unbalanced": (lambda x, y: transport(x, y, reach=10.0), X, Y),
    "sinkhorn, streamed": (lambda x, y: transport(x, y), LARGE_X, LARGE_Y),
    "sinkhorn_from_cost": (from_cost, torch.cdist(X, Y).square(), A, B),
    "sinkhorn_from_cost, large": (
        from_cost,
        torch.cdist(LARGE_X, LARGE_Y)[None].square(),
        weights(1, 300, seed=7),
        weights(1, 410, seed=8),
    ),
    "sinkhorn_divergence": (lambda x, y: (gk.sinkhorn_divergence(x, y, eps=20.0),), X, Y),
    "sinkhorn_divergence, streamed": (
        lambda x, y: (gk.sinkhorn_divergence(x, y, eps=20.0),),
        LARGE_X,
        LARGE_Y,
    ),
    "assignment": (lambda cost: (gk.assignment(cost).to(cost.dtype),), torch.cdist(X, Y)),
    "exact_transport": (exactly, torch.cdist(X, Y).square(), A, B),
    "displacement": (lambda x, y: (gk.displacement(x, y, [0.2, 0.7]),), X, Y),
    "geodesic": (geodesic, X, Y),
    "along a flow": (along_a_flow, X, Y),
    "subspace_basis by the library": (lambda x: tuple(gk.subspace_basis(x, 20)), cloud(150, 200, seed=6)),
}


# torch's own products make these derivatives: their last bits follow the number of threads
DERIVED_BY_TORCH = ("sinkhorn_from_cost, large", "along a flow", "subspace_basis by the library")


def outcome(function, inputs):
    """What comes back, and its derivatives."""
    leaves = [part.clone().requires_grad_() for part in inputs]
    found = function(*leaves)
    smooth = [part for part in found if part.requires_grad]
    loss = sum((part * cloud(*part.shape, seed=9).to(part.dtype)).sum() for part in smooth)
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True) if smooth else ()
    return found, [part for part in gradients if part is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("name", CALLS)
def test_bits_repeat(name, dtype):
    function, *inputs = CALLS[name]
    inputs = [part.to(dtype) for part in inputs]
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            runs.append(outcome(function, inputs))
    finally:
        torch.set_num_threads(before)
    values, gradients = zip(*runs)
    for alone, together, again in zip(*values, strict=True):
        assert torch.equal(alone, together)
        assert torch.equal(together, again)
    for alone, together, again in zip(*gradients, strict=True):
        assert torch.equal(together, again)
        assert name in DERIVED_BY_TORCH or torch.equal(alone, together)
