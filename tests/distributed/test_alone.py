"""Sharded transport on a group of one: its derivatives, and what it refuses without anybody to ask."""

import pytest
import torch
import torch.distributed as dist

import geokernels as gk
from geokernels import distributed
from geokernels.kernels import transport_clouds
from geokernels.testing import cloud, weights

pytestmark = [
    pytest.mark.cpu,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="needs gloo"),
]


@pytest.fixture
def alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def problem(N=7, M=6):
    return cloud(N, 2, seed=0), cloud(M, 2, seed=1), weights(N, seed=2), weights(M, seed=3)


def test_without_a_group_it_says_what_to_call():
    with pytest.raises(ValueError, match="must be initialised before rows can be spread"):
        distributed.sinkhorn(*problem(), eps=0.5)


@pytest.mark.parametrize("reach", [None, 0.6], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine", "dot", "lp"])
def test_gradients_by_finite_differences(alone, cost, reach):
    x, y, _, b = problem()
    v = cloud(6, 2, seed=4)

    def all_of_it(x, y, v, shift):
        # along changes of weights that keep the masses equal
        weight = torch.softmax(shift, 0)
        options = {"eps": 2.0, "cost": cost, "p": 1.6, "reach": reach, "tol": 1e-12, "max_iter": 400}
        solved = distributed.sinkhorn(x, y, weight, b, **options)
        return solved.value, solved.f, solved.g, solved.apply(v), solved.apply_t(x), solved.barycentric(v)

    leaves = [part.clone().requires_grad_() for part in (x, y, v, cloud(7, seed=5))]
    assert torch.autograd.gradcheck(all_of_it, leaves, atol=1e-5, rtol=1e-3, fast_mode=True)


def test_a_second_derivative_is_refused(alone):
    x, y, a, b = problem()
    x.requires_grad_()
    (grad,) = torch.autograd.grad(distributed.sinkhorn(x, y, a, b, eps=0.5).value, x, create_graph=True)
    with pytest.raises(NotImplementedError, match="rows spread over ranks has first derivatives only"):
        grad.sum().backward()


def test_no_marginal_of_what_is_not_converged_is_hidden(alone, monkeypatch):
    monkeypatch.setattr(transport_clouds, "are_large", lambda x, y: True)
    found = distributed.sinkhorn(*problem(), eps=0.01, max_iter=3)
    expected = gk.sinkhorn(*problem(), eps=0.01, max_iter=3, tol=0.0)
    assert not found.converged
    assert torch.allclose(found.error, expected.error)
    assert found.iterations == 3


def test_potentials_that_rounding_moves_have_their_own_error(alone):
    # far below what float32 resolves: the error is that of the potentials returned
    x, y, a, b = (part.float() for part in problem(40, 30))
    found = distributed.sinkhorn(x, 100 + y, a, b, eps=0.05, tol=1e-7, max_iter=2000)
    density = torch.exp(
        (found.f.double()[:, None] + found.g.double() - torch.cdist(x.double(), 100 + y.double()).square())
        / 0.05
    )
    plan = a.double()[:, None] * b.double() * density
    off = (plan.sum(1) - a.double()).abs().sum() + (plan.sum(0) - b.double()).abs().sum()
    assert 0.2 < found.error / off < 5


def test_what_is_not_offered_is_refused(alone):
    x, y, _, _ = problem()
    with pytest.raises(gk.BackendError, match="the definition is not spread over ranks"):
        distributed.sinkhorn(x, y, eps=0.5, backend="reference")
    with pytest.raises(gk.BackendError, match="no products in bf16"):
        distributed.sinkhorn(x, y, eps=0.5, backend="native", precision="bf16")
    with pytest.raises(ValueError, match="rank 0: memory must be a number of bytes, 0 or above, got -1"):
        distributed.sinkhorn(x, y, eps=0.5, memory=-1)
    with pytest.raises(ValueError, match="rank 0: timeout must be a finite number above 0, got 0"):
        distributed.sinkhorn(x, y, eps=0.5, timeout=0)
    with pytest.raises(ValueError, match="rank 0: cost must be one of sqeuclidean"):
        distributed.sinkhorn(x, y, eps=0.5, cost="manhattan")
    with pytest.raises(TypeError, match="lengths"):
        distributed.sinkhorn(x, y, eps=0.5, lengths=None)


def test_a_result_shows_whose_rows_it_has(alone):
    solved = distributed.sinkhorn(*problem(), eps=0.5)
    assert repr(solved).startswith("ShardedTransport(value=")
    assert repr(solved).endswith("rank 0 of 1: N=7, M=6)")


def test_triton_passes(alone):
    triton = pytest.importorskip("triton")
    assert triton
    x, y, a, b = problem(20, 18)
    x.requires_grad_()
    options = {"eps": 4.0, "tol": 1e-9, "max_iter": 50}
    found, expected = (distributed.sinkhorn(x, y, a, b, backend=k, **options) for k in ("triton", "native"))
    for name in ("value", "f", "g"):
        assert torch.allclose(getattr(found, name), getattr(expected, name), atol=1e-7), name
    grads = [torch.autograd.grad(one.apply(y).sum() + one.value, x)[0] for one in (found, expected)]
    assert torch.allclose(*grads, atol=1e-6)
