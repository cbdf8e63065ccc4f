"""Triton's geodesic cosine, on the GPU or in the interpreter, and the decomposition in it."""

import pytest
import torch

import geokernels as gk
from geokernels.kernels import triton
from geokernels.testing import assert_as_accurate, cloud, orthonormal

DEVICE = "cpu" if triton.interpreted else "cuda"
WIDEST = torch.float64 if triton.interpreted else torch.float32
NEAR = {torch.float32: 1e-5, torch.float64: 1e-12}


def there(*parts, dtype=WIDEST):
    return [part.to(DEVICE, dtype) for part in parts]


def decompose(c):
    """By the kernel, whose overlap of a whole basis with anything is that itself."""
    from geokernels.kernels.triton import geodesic  # noqa: F401  registers the operator

    one = torch.eye(c.shape[-1], dtype=c.dtype, device=c.device).expand_as(c)
    _, u, v, g, _ = torch.ops.geokernels.triton_geodesic_cosine(one, one, one, c, 0.0)
    return u, g, v


def matrices(K):
    """Random ones, one with equal and vanishing singular values, and none at all."""
    equal = torch.zeros(K, K).double()
    equal[: K - K // 2, K // 2 :] = 0.5 * orthonormal(K - K // 2, K - K // 2, seed=1)
    return torch.stack([cloud(K, K, seed=0), equal, torch.zeros(K, K).double()])


def test_the_kernels_run_here():
    # no test of this file may be skipped for want of a GPU
    x = torch.zeros(1, 1, device=DEVICE)
    assert triton.refuse_bases(x, x, x) is None


@pytest.mark.parametrize("K", [1, 2, 5])
def test_decomposition(K):
    (c,) = there(matrices(K))
    u, g, v = decompose(c)
    one = torch.eye(K, dtype=c.dtype, device=DEVICE).expand_as(c)
    near = {"rtol": 0, "atol": NEAR[WIDEST]}
    assert torch.allclose((u * g[..., None, :]) @ v.mT, c, **near)
    assert torch.allclose(u.mT @ u, one, **near)
    assert torch.allclose(v.mT @ v, one, **near)


def problem(N=4, D=9, K=3, L=3, B=2):
    """Rows and bases of two problems, the second at small angles."""
    p = orthonormal(B, D, K, seed=2)
    q = torch.linalg.qr(p[..., :, :L] + torch.tensor([1.0, 1e-4])[:, None, None] * cloud(B, D, L, seed=3)).Q
    return cloud(B, N, D, seed=0), cloud(B, N, D, seed=1), p, q


def value_and_gradients(parts, backend, dtype=WIDEST):
    leaves = [part.to(dtype, copy=True).requires_grad_() for part in parts]
    if backend == "triton":
        leaves = [part.detach().to(DEVICE).requires_grad_() for part in leaves]
    cosines = gk.geodesic_cosine(*leaves, backend=backend)
    return [cosines.detach(), *torch.autograd.grad(cosines.sin().sum(), leaves)]


@pytest.mark.parametrize("L", [3, 2], ids=["equal ranks", "unequal ranks"])
def test_matches_reference(L):
    parts = problem(L=L)
    truth = value_and_gradients(parts, "reference", torch.float64)
    for ours, exact in zip(value_and_gradients(parts, "triton"), truth, strict=True):
        # at unequal ranks one angle is right: its geodesic, and what depends on it, is not unique
        if L == 3:
            assert torch.allclose(ours.double().cpu(), exact, rtol=0, atol=10 * NEAR[WIDEST])
        assert ours.isfinite().all()
    if L < 3:
        x, _, p, q = there(*parts)
        assert torch.allclose(gk.geodesic_cosine(x, x, p, q, backend="triton"), x.new_tensor(1.0))


def test_is_as_accurate_as_eager():
    parts = problem()
    eager = value_and_gradients(parts, "reference", torch.float32)
    exact = value_and_gradients(parts, "reference", torch.float64)
    ours = value_and_gradients(parts, "triton", torch.float32)
    for name, *found in zip(["cosine", "x", "y", "p", "q"], ours, eager, exact, strict=True):
        assert_as_accurate(name, found[0].cpu(), *found[1:])


def test_equal_subspaces_and_zero_columns():
    x, y, p, _ = problem()
    p[0, :, 2] = 0
    exact = value_and_gradients((x, y, p, p.clone()), "reference", torch.float64)
    for ours, truth in zip(value_and_gradients((x, y, p, p.clone()), "triton"), exact, strict=True):
        assert torch.allclose(ours.double().cpu(), truth, rtol=0, atol=10 * NEAR[WIDEST])


def test_more_rows_and_features_than_a_tile_and_a_row_without_direction():
    x, y, p, q = problem(N=18, D=35, B=1)
    x[0, 17] = 0
    exact = value_and_gradients((x, y, p, q), "reference", torch.float64)
    found = value_and_gradients((x, y, p, q), "triton")
    for ours, truth in zip(found, exact, strict=True):
        assert torch.allclose(ours.double().cpu(), truth, rtol=0, atol=10 * NEAR[WIDEST])
    assert (found[1][0, 17] == 0).all()


def test_several_blocks_of_directions():
    # two of the gradient to P^T Q, the second with columns that are not there
    parts = problem(N=2, D=37, K=17, L=17)
    exact = value_and_gradients(parts, "reference", torch.float64)
    for ours, truth in zip(value_and_gradients(parts, "triton"), exact, strict=True):
        assert torch.allclose(ours.double().cpu(), truth, rtol=0, atol=10 * NEAR[WIDEST])


@pytest.mark.parametrize("K", [33, 64])
def test_the_most_directions(K):
    # a panel of 64 columns: with most of its second half missing, and full
    parts = problem(N=2, D=67, K=K, L=K, B=1)
    exact = value_and_gradients(parts, "reference", torch.float64)
    for ours, truth in zip(value_and_gradients(parts, "triton"), exact, strict=True):
        assert torch.allclose(ours.double().cpu(), truth, rtol=0, atol=10 * NEAR[WIDEST])


def test_refusals():
    x, basis = torch.zeros(1, 65, device=DEVICE), torch.eye(65, device=DEVICE)
    with pytest.raises(gk.BackendError, match="bases of up to 64 columns, not 65"):
        gk.geodesic_cosine(x, x, basis, basis, backend="triton")


def test_operators_are_well_registered_and_map():
    from geokernels.kernels.triton import geodesic  # noqa: F401

    ops = torch.ops.geokernels
    parts = [part.requires_grad_() for part in there(*problem(N=1, D=3, K=1, L=1))]
    torch.library.opcheck(ops.triton_geodesic_cosine.default, (*parts, 1e-12))
    parts = [part.detach() for part in parts]
    cosines, *kept = found = ops.triton_geodesic_cosine(*parts, 1e-12)
    args = cosines, *parts, *kept, 1e-12
    torch.library.opcheck(ops.triton_geodesic_cosine_backward.default, args)
    mapped = torch.vmap(lambda *parts: ops.triton_geodesic_cosine(*parts, 1e-12))(*parts)
    assert all(map(torch.equal, mapped, found))
    grads = torch.vmap(lambda *args: ops.triton_geodesic_cosine_backward(*args, 1e-12))(*args[:-1])
    assert all(map(torch.equal, grads, ops.triton_geodesic_cosine_backward(*args)))


def test_has_first_derivatives_only():
    parts = [part.requires_grad_() for part in there(*problem(N=1, D=4, K=1, L=1))]
    (grad,) = torch.autograd.grad(
        gk.geodesic_cosine(*parts, backend="triton").sum(), parts[0], create_graph=True
    )
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        grad.sum().backward()


# torch's tracer does that with the derivative of the definition, too
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiles_whole():
    parts = there(*problem(B=2), dtype=torch.float32)
    compiled = torch.compile(
        lambda *parts: gk.geodesic_cosine(*parts, backend="triton"), fullgraph=True, backend="aot_eager"
    )
    assert torch.allclose(compiled(*parts), gk.geodesic_cosine(*parts, backend="triton"), atol=1e-6)
