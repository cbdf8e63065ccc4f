"""Subspaces and the geodesic cosine under vmap, function transforms and autocast."""

import pytest
import torch

import geokernels as gk


@pytest.fixture(scope="module")
def clouds():
    chance = torch.Generator().manual_seed(0)
    x, y = torch.randn((2, 5, 8, 32), generator=chance)
    return x, y, gk.subspace_basis(x, 3).basis, gk.subspace_basis(y, 4).basis


OPERATORS = {
    "subspace_basis": lambda x, y, p, q: gk.subspace_basis(x, 3),
    "project": lambda x, y, p, q: gk.project(x, p),
    "principal_angles": lambda x, y, p, q: gk.principal_angles(p, q),
    "geodesic_flow": lambda x, y, p, q: gk.geodesic_flow(p, q).at(0.3),
    "kernel": lambda x, y, p, q: gk.geodesic_flow(p, q).kernel(),
    "geodesic_cosine": gk.geodesic_cosine,
    "geodesic_cosine_along": lambda x, y, p, q: gk.geodesic_cosine_along(x, y, gk.geodesic_flow(p, q)),
    "reference basis": lambda x, y, p, q: gk.subspace_basis(x, 3, backend="reference"),
    "reference cosine": lambda x, y, p, q: gk.geodesic_cosine(x, y, p, q, backend="reference"),
}


def tensors(found):
    return tuple(found) if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("name", OPERATORS)
def test_vmap_is_the_batch(name, clouds):
    run = OPERATORS[name]
    for mapped, batched in zip(tensors(torch.vmap(run)(*clouds)), tensors(run(*clouds)), strict=True):
        torch.testing.assert_close(mapped, batched, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("operator", ["subspace_basis", "geodesic_cosine"])
def test_vmap_of_a_compiled_operator_folds_and_does_not_loop(operator, clouds, recwarn):
    torch.vmap(OPERATORS[operator])(*clouds)
    assert not [str(w.message) for w in recwarn if "batching rule" in str(w.message)]


def test_vmap_in_vmap(clouds):
    nested = [part[:4].unflatten(0, (2, 2)) for part in clouds]
    mapped = torch.vmap(torch.vmap(gk.geodesic_cosine))(*nested)
    torch.testing.assert_close(mapped.flatten(0, 1), gk.geodesic_cosine(*(part[:4] for part in clouds)))


def test_vmap_repeats_what_is_not_mapped(clouds):
    x, y, p, q = clouds
    mapped = torch.vmap(gk.geodesic_cosine, in_dims=(0, None, None, 0))(x, y[0], p[0], q)
    each = torch.stack([gk.geodesic_cosine(x[i], y[0], p[0], q[i]) for i in range(len(x))])
    torch.testing.assert_close(mapped, each)


def test_vmap_over_an_inner_dimension(clouds):
    x, y, p, q = clouds
    moved = x.movedim(0, 1)
    mapped = torch.vmap(gk.geodesic_cosine, in_dims=(1, 0, 0, 0))(moved, y, p, q)
    torch.testing.assert_close(mapped, gk.geodesic_cosine(x, y, p, q))


def test_gradients_pass_through_vmap(clouds):
    grads = []
    for run in (gk.geodesic_cosine, torch.vmap(gk.geodesic_cosine)):
        leaves = [part.clone().requires_grad_() for part in clouds]
        run(*leaves).square().sum().backward()
        grads.append([leaf.grad for leaf in leaves])
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_function_transforms_of_the_reference(clouds):
    def loss(x, y, p, q):
        return gk.geodesic_cosine(x, y, p, q, backend="reference").square().sum()

    leaf = clouds[0].clone().requires_grad_()
    loss(leaf, *clouds[1:]).backward()
    torch.testing.assert_close(torch.vmap(torch.func.grad(loss))(*clouds), leaf.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
@pytest.mark.parametrize("name", [name for name in OPERATORS if name not in ("project", "kernel")])
def test_half_precision_is_computed_in_single(name, dtype, clouds):
    run, half = OPERATORS[name], [part.to(dtype) for part in clouds]
    if name == "geodesic_flow":
        run = lambda x, y, p, q: (flow := gk.geodesic_flow(p, q)).start.mT @ flow.turn  # noqa: E731
    for ours, single in zip(tensors(run(*half)), tensors(run(*(part.float() for part in half))), strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.float(), single, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("name", OPERATORS)
def test_autocast_does_not_reach_the_computation(name, clouds):
    run = OPERATORS[name]
    plain = tensors(run(*clouds))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = tensors(run(*clouds))
    for ours, theirs in zip(plain, cast, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
