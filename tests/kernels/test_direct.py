"""Calls past the dispatcher: the same bits, and nobody who listens to the dispatcher is passed by."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import geokernels as gk
from geokernels.kernels import direct, native
from geokernels.reference import Problem
from geokernels.testing import cloud, orthonormal

pytestmark = pytest.mark.skipif(not direct._there, reason="no calls past the dispatcher")
LEVELS = native.build_info().get("simd_levels", [])


def features(B=2, N=5, D=37, dtype=torch.float32):
    return [cloud(B, N, D, seed=seed).to(dtype).requires_grad_() for seed in range(4)]


def gradients(leaves, rank):
    x, y, a, b = leaves
    p, values = gk.subspace_basis(a, rank)
    q = gk.subspace_basis(b).basis
    out = gk.geodesic_cosine(x, y, p, q)
    weight = cloud(*out.shape, 1, seed=9).to(out.dtype)[..., 0]
    return out, p, values, *torch.autograd.grad((out * weight).sum() + values.sum(), leaves)


@pytest.fixture
def by_the_dispatcher(monkeypatch):
    def switch():
        monkeypatch.setattr(direct, "_there", False)

    return switch


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize(("shape", "rank"), [((5, 37), 3), ((2, 16, 64), None), ((1, 3, 7, 5), 4)], ids=str)
def test_the_same_bits(simd_level, by_the_dispatcher, level, dtype, shape, rank):
    simd_level(level)
    leaves = [cloud(*shape, seed=seed).to(dtype).requires_grad_() for seed in range(4)]
    found = gradients(leaves, rank)
    by_the_dispatcher()
    for a, b in zip(found, gradients(leaves, rank), strict=True):
        assert torch.equal(a, b)


def test_is_the_way_of_plain_tensors():
    x, y, a, _b = features()
    basis, values = direct.basis(a, None, None)
    assert basis.shape == (2, 37, 5)
    assert values.shape == (2, 5)
    assert type(basis.grad_fn).__name__ == "_BasisBackward"
    with torch.no_grad():
        assert not direct.cosine(x, y, basis, basis, 1e-12).requires_grad
    assert direct.basis(torch.nn.Parameter(a.detach()), 2, 0.5)[0].requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("shape", [(7, 9), (2, 3, 19, 5), (1, 300, 270)], ids=str)
def test_transport_has_the_same_bits(by_the_dispatcher, dtype, shape):
    cost = cloud(*shape, seed=0).abs().to(dtype)

    def solved():
        found = (
            gk.sinkhorn_from_cost(cost, eps=0.2),
            gk.sinkhorn_from_cost(cost, eps=0.3, reach=0.7, max_iter=9),
        )
        return [part for t in found for part in (t.value, t.f, t.g, t.error, t.iterations)]

    found = solved()
    assert found[4].dtype == torch.int64
    by_the_dispatcher()
    for a, b in zip(found, solved(), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_what_transport_is_asked_by_the_dispatcher():
    cost = cloud(2, 7, 9, seed=0).abs()
    plain = Problem(eps=0.3)
    assert direct.sinkhorn(cost, plain) is not None
    assert direct.sinkhorn(cost.requires_grad_(), plain) is None
    with torch.no_grad():
        assert direct.sinkhorn(cost, plain) is not None
        for given in (cost.mT, cost.half(), cost[:0], cost.to("meta")):
            assert direct.sinkhorn(given, plain) is None
        for other in (plain._replace(a=cost[..., 0]), plain._replace(init=cost[:, 0]), Problem(eps=1)):
            assert direct.sinkhorn(cost, other) is None
        with Listening():
            assert direct.sinkhorn(cost, plain) is None


class Listening(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.heard = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.heard.append(str(function))
        return function(*args, **(kwargs or {}))


def test_modes_and_the_profiler_hear_operators():
    x, y, a, _b = (part.detach() for part in features())
    with Listening() as mode:
        p = gk.subspace_basis(a).basis
        gk.geodesic_cosine(x, y, p, p)
    assert {"geokernels.subspace_basis.default", "geokernels.geodesic_cosine.default"} <= set(mode.heard)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True
    ) as profiled:
        gk.subspace_basis(a)
    assert "geokernels::subspace_basis" in {event.name for event in profiled.events()}
    with torch.device("meta"):
        assert direct.basis(a, None, None) is None


def test_levels_of_transforms_and_of_tangents_are_heard():
    a = features()[2].detach()
    given = []

    def look(x):
        given.append(direct.basis(a, None, None))
        return x

    torch.vmap(look)(a)
    torch.func.grad(lambda x: look(x).sum())(a)
    with torch.autograd.forward_ad.dual_level():
        look(a)
    assert given == [None, None, None]
    assert direct.basis(a, None, None) is not None


def test_no_gradient_is_kept_where_none_is_wanted():
    x, y, a, _b = features()
    basis = gk.subspace_basis(a).basis.detach()
    made = (x.detach(), y.detach(), basis, basis, 1e-12, 256, 128)
    assert native._C.cosine(*made)[1] is None
    assert native._C.cosine(x, *made[1:])[1] is not None
    with torch.no_grad():
        assert native._C.cosine(x, *made[1:])[1] is None
        assert native._C.basis(a, None, None, 160)[2] is None


DECLINED = {
    "half": lambda a: a.half(),
    "meta": lambda a: a.to("meta"),
    "rows apart": lambda a: a[..., ::2],
    "one dimension": lambda a: a[0, 0],
    "a subclass": lambda a: a.as_subclass(type("Own", (torch.Tensor,), {})),
    "no tensor": lambda a: a.tolist(),
    "no rows": lambda a: a[:, :0],
    "integers": lambda a: a.long(),
    "not finite": lambda a: a * float("nan"),
    "many dimensions": lambda a: a.expand(*(1,) * 20, *a.shape),
    "sparse": lambda a: a.to_sparse(),
}


@pytest.mark.parametrize("what", DECLINED)
def test_declines(what):
    a = features()[0].detach()
    assert direct.basis(DECLINED[what](a), None, None) is None


@pytest.mark.parametrize(
    ("rank", "rtol"), [(0, None), (6, None), (2.0, None), (True, None), (2, 1.0), (2, 1), (2, -0.1)]
)
def test_declines_settings_that_others_explain(rank, rtol):
    assert direct.basis(features()[0].detach(), rank, rtol) is None


def test_declines_what_does_not_go_together():
    x, y, *_ = (part.detach() for part in features())
    p, q = (orthonormal(2, 37, 3, seed=seed).float().mT.contiguous().mT for seed in (1, 2))
    assert direct.cosine(x, y, p, q, 1e-12) is not None
    for wrong in (
        (x, y[:1], p, q, 1e-12), (x, y[..., :36], p, q, 1e-12), (x, y, p.double(), q, 1e-12),
        (x, y, p, q.contiguous(), 1e-12), (x, y, p[:, :36], q, 1e-12), (x, y, p, q, -1.0),
        (x, y, p, q, float("nan")), (x, y, p, q, 1), (x, y[:, :4], p, q, 1e-12), (x.mT, y.mT, p, q, 1e-12),
    ):  # fmt: skip
        assert direct.cosine(*wrong) is None


def test_transforms_have_their_rules():
    x, y, a, _b = (part.detach().double() for part in features())
    p = gk.subspace_basis(a).basis
    mapped = torch.vmap(lambda x, y, p: gk.geodesic_cosine(x, y, p, p))(x, y, p)
    torch.testing.assert_close(mapped, gk.geodesic_cosine(x, y, p, p))
    slope = torch.func.grad(lambda x: gk.geodesic_cosine(x, y, p, p).sum())(x)
    torch.testing.assert_close(
        slope, torch.autograd.grad(gk.geodesic_cosine(*(x.requires_grad_(), y, p, p)).sum(), x)[0]
    )


def test_gradients_in_a_batch_and_of_any_layout():
    x, y, a, b = features(dtype=torch.float64)
    p, q = gk.subspace_basis(a).basis, gk.subspace_basis(b, 3).basis
    out = gk.geodesic_cosine(x, y, p, q)
    weights = cloud(3, *out.shape, seed=8).double()
    together = torch.autograd.grad(out, (x, a, b), weights, is_grads_batched=True, retain_graph=True)
    for k, weight in enumerate(weights):
        alone = torch.autograd.grad(out, (x, a, b), weight.mT.contiguous().mT, retain_graph=True)
        for one, all_of_them in zip(alone, together, strict=True):
            torch.testing.assert_close(one, all_of_them[k])
    spread = torch.autograd.grad(out.sum(), x, retain_graph=True)[0]
    torch.testing.assert_close(spread, torch.autograd.grad(out, x, torch.ones_like(out))[0])


def test_what_is_kept_may_not_change():
    x, y, a, _ = features()
    p = gk.subspace_basis(a).basis.detach()
    y = y.detach()
    out = gk.geodesic_cosine(x, y, p, p).sum()
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


def test_second_derivatives_are_refused():
    x, y, a, _ = features()
    p = gk.subspace_basis(a).basis
    (slope,) = torch.autograd.grad(gk.geodesic_cosine(x, y, p, p).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="geodesic_cosine"):
        slope.sum().backward()
    (slope,) = torch.autograd.grad(gk.subspace_basis(a).values.sum(), a, create_graph=True)
    with pytest.raises(NotImplementedError, match="subspace_basis"):
        slope.sum().backward()
