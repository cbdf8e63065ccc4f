"""Whatever is asked: no NaN, the promised shapes, and the promised marginals or a plain "no"."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import geokernels as gk
from geokernels.reference import pairwise_cost

BACKENDS = [None, "reference"]


@st.composite
def problems(draw):
    """Clouds, weights and settings, degenerate ones among them."""
    batch = draw(st.sampled_from([(), (1,), (3,), (2, 2)]))
    N, M, D = draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(st.integers(1, 5))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    chance = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def cloud(n: int) -> torch.Tensor:
        points = torch.randn((*batch, n, D), generator=chance, dtype=dtype)
        kind = draw(st.sampled_from(["free", "one point", "pairs", "far", "tiny", "zero"]))
        if kind == "one point":
            points = points[..., :1, :].expand_as(points).clone()
        if kind == "pairs":
            points = points[..., torch.arange(n) // 2, :]
        return points * {"far": 1e3, "tiny": 1e-4, "zero": 0.0}.get(kind, 1.0)

    def weights(n: int) -> torch.Tensor | None:
        kind = draw(st.sampled_from(["uniform", "free", "some zero", "all on one"]))
        if kind == "uniform":
            return None
        w = 0.05 + torch.rand((*batch, n), generator=chance, dtype=dtype)
        if kind == "some zero":
            w = w * (torch.rand((*batch, n), generator=chance) < 0.5)
            w[..., 0] = 1.0
        if kind == "all on one":
            w = torch.zeros_like(w)
            w[..., -1] = 1.0
        return w / w.sum(-1, keepdim=True)

    given_ = {
        "cost": draw(st.sampled_from(["sqeuclidean", "euclidean", "cosine", "dot", "lp"])),
        "eps": draw(st.sampled_from([1e-2, 0.1, 1.0, 50.0])),
        "reach": draw(st.sampled_from([None, None, 0.5, 10.0])),
        "max_iter": draw(st.sampled_from([1, 30, 500])),
    }
    x, y = cloud(N), cloud(M)
    if given_["cost"] == "dot" and given_["reach"] is not None:
        # free mass runs after costs far below zero; exp(1e6 / eps) of it is no number
        x, y = x / 1e3, y / 1e3
    return x, y, weights(N), weights(M), given_


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(problem=problems())
def test_sinkhorn_never_lies(backend, problem):
    x, y, a, b, given_ = problem
    refusal = None
    try:
        found = gk.sinkhorn(x, y, a, b, **given_, tol=1e-4, backend=backend)
    except ValueError as error:
        refusal = str(error)
    if refusal is not None:
        assert "does not resolve the plan" in refusal
        # only where eps is a rounding of what potentials are made of
        largest = pairwise_cost(x, y, given_["cost"], 2.0).abs().amax().item()
        assert 8 * largest * torch.finfo(x.dtype).eps > given_["eps"]
        return
    batch, N, M = x.shape[:-2], x.shape[-2], y.shape[-2]
    plan = found.plan()
    assert found.value.shape == found.error.shape == found.iterations.shape == found.converged.shape == batch
    assert (found.f.shape, found.g.shape, plan.shape) == ((*batch, N), (*batch, M), (*batch, N, M))
    assert found.value.dtype == plan.dtype == x.dtype
    # a point without weight may have a potential of any size, even an infinite one, but never NaN
    for part in (found.value, found.f, found.g, found.error, plan):
        assert not part.isnan().any()
    assert found.value.isfinite().all()
    assert (plan >= 0).all()
    assert (found.iterations <= given_["max_iter"]).all()
    assert torch.equal(found.converged, found.error <= 1e-4)

    if given_["reach"] is None:
        uniform = x.new_tensor(1.0)
        rows = (plan.sum(-1) - (uniform / N if a is None else a)).abs().sum(-1)
        columns = (plan.sum(-2) - (uniform / M if b is None else b)).abs().sum(-1)
        promised = found.converged
        # potentials of size |f| / eps are known to that many roundings
        size = (found.f.nan_to_num(0, 0, 0).abs().amax(-1) / given_["eps"]).clamp(min=1)
        slack = 1e-4 + 200 * torch.finfo(x.dtype).eps * size
        assert (rows + columns)[promised].le(1.5 * slack[promised]).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(problem=problems())
def test_gradients_are_finite(problem):
    x, y, a, b, given_ = problem
    x, y = x.requires_grad_(), y.requires_grad_()
    found = gk.sinkhorn(x, y, a, b, **given_, tol=1e-4)
    found.value.sum().backward()
    # a coordinate of a distance has no derivative at 0; what comes back must still be a number
    assert x.grad.isfinite().all()
    assert y.grad.isfinite().all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([(), (3,), (2, 2)])),
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["free", "zero", "equal rows", "huge", "tiny"]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)
def test_bases_are_orthonormal_or_zero(sizes, seed, kind, dtype):
    N, D, batch = sizes
    x = torch.randn((*batch, N, D), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x[..., :1, :].expand_as(x) if kind == "equal rows" else x
    x = (x * {"zero": 0.0, "huge": 1e3, "tiny": 1e-3}.get(kind, 1.0)).to(dtype)
    basis, values = gk.subspace_basis(x)
    rank = min(N, D)
    assert (basis.shape, values.shape) == ((*batch, D, rank), (*batch, rank))
    assert basis.dtype == values.dtype == dtype
    alive = (basis != 0).any(-2).double()
    gram = basis.double().mT @ basis.double()
    tolerance = 4e-2 if dtype in (torch.float16, torch.bfloat16) else 1e-4
    torch.testing.assert_close(gram, torch.diag_embed(alive), atol=tolerance, rtol=0)
    assert (values[..., :-1] >= values[..., 1:]).all()
    assert (values >= 0).all()
