"""The geodesic losses agree with the kernel integrated by quadrature, and have the laws they claim."""

import math

import numpy
import pytest
import torch

import geokernels as gk
from geokernels.kernels import native
from geokernels.losses import geodesic_consistency_loss, geodesic_regularisation_loss, unit_rows
from geokernels.testing import cloud, directions


def embeddings(B=4, T=3, D=12):
    return (*(directions(B, D, seed=i) for i in (0, 1)), *(directions(T, D, seed=i) for i in (2, 3)))


def quadrature(p, q, nodes=40):
    """The kernel between two spans by Gauss and Legendre, independent of the closed form."""
    flow = gk.geodesic_flow(p, q)
    at, weight = (torch.from_numpy(x) for x in numpy.polynomial.legendre.leggauss(nodes))
    steps = [flow.at(t) for t in (at + 1) / 2]
    return sum(w / 2 * phi @ phi.mT for w, phi in zip(weight, steps))


def cosines(x, y, G):
    xy, xx, yy = ((a @ G * b).sum(-1) for a, b in ((x, y), (x, x), (y, y)))
    return xy / (xx * yy).sqrt()


def test_consistency_equals_the_integral():
    z, z0, before, after = embeddings()
    change, asked = unit_rows(z - z0), unit_rows(after - before)
    towards = unit_rows(asked.mean(0, keepdim=True)).expand_as(change)
    G = quadrature(gk.subspace_basis(change).basis, gk.subspace_basis(asked).basis)
    expected = 1 - cosines(change, towards, G).mean()
    assert torch.allclose(geodesic_consistency_loss(z, z0, before, after), expected, atol=1e-10)


def test_regularisation_equals_the_integral():
    z, previous, *_ = embeddings()
    G = quadrature(gk.subspace_basis(previous).basis, gk.subspace_basis(z).basis)
    expected = 1 - cosines(previous, z, G).mean()
    assert torch.allclose(geodesic_regularisation_loss(z, previous), expected, atol=1e-10)


def test_consistency_is_zero_where_every_view_follows_the_text():
    _, z0, before, after = embeddings()
    z = z0 + 0.3 * unit_rows(unit_rows(after - before).mean(0, keepdim=True))
    assert geodesic_consistency_loss(z, z0, before, after).item() == pytest.approx(0, abs=1e-9)


def test_a_basis_given_is_the_basis_computed():
    z, z0, before, after = embeddings()
    basis = gk.subspace_basis(unit_rows(after - before)).basis
    given = geodesic_consistency_loss(z, z0, before, after, text_basis=basis)
    assert torch.equal(given, geodesic_consistency_loss(z, z0, before, after))


def test_regularisation_is_zero_at_rest_and_grows_with_the_step():
    z, previous, *_ = embeddings()
    steps = [geodesic_regularisation_loss(previous + s * (z - previous), previous) for s in (0, 0.1, 0.3)]
    assert steps[0].abs() < 1e-12
    assert 0 < steps[1] < steps[2]


def test_regularisation_of_one_small_step_is_far_below_the_ordinary_cosine():
    z, previous, *_ = embeddings(2, 3, 64)
    z = unit_rows(previous + 0.2 * z)
    ordinary = 1 - torch.cosine_similarity(z, previous).mean()
    assert geodesic_regularisation_loss(z, previous) < ordinary / 5


@pytest.mark.parametrize("through_bases", [True, False])
def test_consistency_gradient_by_finite_differences(through_bases):
    z, z0, before, after = embeddings(2, 3, 8)
    z.requires_grad_()
    if through_bases:
        assert torch.autograd.gradcheck(lambda z: geodesic_consistency_loss(z, z0, before, after), z)
        return
    # with the bases held still, the finite differences must hold them still as well
    basis = gk.subspace_basis(unit_rows(z.detach() - z0)).basis
    asked = unit_rows(after - before)
    towards = unit_rows(asked.mean(0, keepdim=True)).expand(2, -1)
    other = gk.subspace_basis(asked).basis

    def held(z):
        return 1 - gk.geodesic_cosine(unit_rows(z - z0), towards, basis, other).mean()

    assert torch.autograd.gradcheck(held, z)
    (expected,) = torch.autograd.grad(held(z), z)
    loss = geodesic_consistency_loss(z, z0, before, after, through_bases=False)
    assert torch.allclose(torch.autograd.grad(loss, z)[0], expected, atol=1e-12)


def test_regularisation_gradient_by_finite_differences_reaches_the_current_alone():
    z, previous, *_ = embeddings(2, 3, 8)
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: geodesic_regularisation_loss(z, previous), z)
    previous.requires_grad_()
    loss = geodesic_regularisation_loss(z, previous)
    assert torch.autograd.grad(loss, previous, allow_unused=True)[0] is None


def test_nothing_moved_yet_scores_one_with_a_zero_gradient():
    _, z0, before, after = embeddings()
    z = z0.clone().requires_grad_()
    loss = geodesic_consistency_loss(z, z0, before, after)
    assert loss.item() == 1
    assert not torch.autograd.grad(loss, z)[0].any()


def test_more_views_than_features_and_repeated_views():
    z, z0, before, after = embeddings(9, 3, 5)
    z[1], z0[1] = z[0], z0[0]
    z.requires_grad_()
    loss = geodesic_consistency_loss(z, z0, before, after) + geodesic_regularisation_loss(z, z0)
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, z)[0]).all()


def test_batches_are_independent():
    batch = [torch.stack([x, x.flip(0)]) for x in embeddings()]
    together = geodesic_consistency_loss(*batch)
    assert together.shape == (2,)
    assert torch.allclose(together[1], geodesic_consistency_loss(*(x[1] for x in batch)), atol=1e-12)


def losses(z, z0, before, after, backend=None, rank=None, basis=None, follow=True):
    how = {"rank": rank, "through_bases": follow, "backend": backend}
    moved = geodesic_consistency_loss(z, z0, before, after, text_basis=basis, text_rank=rank, **how)
    return torch.stack([moved, geodesic_regularisation_loss(z, z0, **how)])


# one call makes loss and gradient where it can, other inputs take steps: both must lead to the same place
@pytest.mark.parametrize("follow", [True, False], ids=["follow", "hold"])
@pytest.mark.parametrize("batch", [(), (3,), (2, 1)], ids=str)
@pytest.mark.parametrize(
    ("B", "T", "D", "rank"), [(1, 1, 3, None), (4, 9, 12, None), (9, 3, 5, None), (16, 16, 70, 3)], ids=str
)
def test_at_once_and_in_steps(B, T, D, rank, batch, follow):
    inputs = [cloud(*batch, rows, D, seed=i) for i, rows in enumerate((B, B, T, T))]
    inputs[0][..., 0, :] = inputs[1][..., 0, :]  # a view that did not move
    basis = gk.subspace_basis(unit_rows(inputs[3] - inputs[2]), rank).basis
    for given in (None, basis):
        results = []
        for backend in ("native", "reference"):
            z = inputs[0].clone().requires_grad_()
            loss = losses(z, *inputs[1:], backend, rank, given, follow)
            results.append((loss.detach(), *torch.autograd.grad(loss.square().sum(), z)))
        for ours, expected in zip(*results, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)


def test_gradients_to_everything_else_go_in_steps():
    results = []
    for backend in (None, "reference"):
        leaves = [x.requires_grad_() for x in embeddings()]
        loss = geodesic_consistency_loss(*leaves, backend=backend)
        results.append(torch.autograd.grad(loss, leaves))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)
        assert expected.abs().max() > 0


def test_compiled_and_mapped_they_go_in_steps():
    z, *others = embeddings()
    z.requires_grad_()
    expected = losses(z, *others)
    found = torch.compile(losses, fullgraph=True, backend="aot_eager")(z, *others)
    for ours, theirs in zip(*((x, *torch.autograd.grad(x.sum(), z)) for x in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    mapped = torch.vmap(losses)(*(x.detach().expand(3, *x.shape) for x in (z, *others)))
    torch.testing.assert_close(mapped, expected.detach().expand(3, 2))


def test_loss_has_first_derivatives_only():
    z, *others = embeddings()
    z.requires_grad_()
    for loss in (geodesic_consistency_loss(z, *others), geodesic_regularisation_loss(z, others[0])):
        (grad,) = torch.autograd.grad(loss, z, create_graph=True)
        with pytest.raises(NotImplementedError, match="first derivatives only"):
            grad.sum().backward()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("at", range(4))
def test_what_is_not_finite_is_refused(at, bad):
    inputs = embeddings()
    inputs[at][0, 0] = bad
    with pytest.raises(ValueError, match="must be finite"):
        geodesic_consistency_loss(*inputs)
    if at < 2:
        with pytest.raises(ValueError, match="must be finite"):
            geodesic_regularisation_loss(*inputs[:2])


def test_refusals_are_sentences():
    z, z0, before, after = embeddings()
    with pytest.raises(
        ValueError, match=r"previous must have shape \(\.\.\., B, D\) = \(4, 12\), got \(3, 12\)"
    ):
        geodesic_regularisation_loss(z, z0[:3])
    with pytest.raises(ValueError, match=r"rank must be from 1 to min\(N, D\) = 4, got 5"):
        geodesic_regularisation_loss(z, z0, rank=5)
    with pytest.raises(TypeError, match="q must have the dtype of x"):
        geodesic_consistency_loss(z, z0, before, after, text_basis=torch.eye(12)[:, :3])
    with pytest.raises(gk.BackendError, match="has no backend 'abacus'"):
        geodesic_consistency_loss(z, z0, before, after, backend="abacus")


@pytest.mark.skipif(native.missing is not None, reason=str(native.missing))
class TestFused:
    """The one compiled call can be named, and says why it cannot run."""

    def test_is_what_runs_by_itself(self):
        assert torch.equal(losses(*embeddings(), "fused"), losses(*embeddings()))

    @pytest.mark.parametrize(
        "reason, change",
        [
            ("gradients to the current rows alone", lambda given: given[2].requires_grad_()),
            ("no fused kernel for torch.bfloat16", lambda given: [part.bfloat16() for part in given]),
            ("one batch shape on both sides", lambda given: [given[0][None], given[1][None], *given[2:]]),
            ("up to 160 rows, not 170", lambda given: embeddings(B=170)),
            ("up to 128 columns, not 130", lambda given: embeddings(B=130, D=140)),
        ],
    )
    def test_refusals_are_reasons(self, reason, change):
        given = list(embeddings())
        changed = change(given)
        given = changed if isinstance(changed, (list, tuple)) else given
        with pytest.raises(gk.BackendError, match=f"geodesic_consistency_loss cannot run.*fused: .*{reason}"):
            geodesic_consistency_loss(*given, backend="fused")
        if len(given[0].shape) == len(given[2].shape):
            assert geodesic_consistency_loss(*given).isfinite()

    def test_is_refused_under_transforms(self):
        z, *others = embeddings()
        with pytest.raises(gk.BackendError, match=r"no rules for torch.compile, torch.func"):
            torch.func.grad(lambda z: geodesic_consistency_loss(z, *others, backend="fused"))(z)
