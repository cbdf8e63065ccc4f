"""The compiled subspace and geodesic kernels: registration, every SIMD level, threads, compilation."""

from functools import partial

import pytest
import torch

import geokernels as gk
from geokernels.kernels import native
from geokernels.testing import cloud, orthonormal

LEVELS = native.build_info().get("simd_levels", [])
pytestmark = pytest.mark.skipif(native.missing is not None, reason=str(native.missing))


def features(B=2, N=5, D=37):
    """Rows x, y and feature rows of two subspaces, of sizes that divide no vector."""
    return [cloud(B, N, D, seed=seed).requires_grad_() for seed in range(4)]


def cosine(x, y, a, b, **kw):
    """The chain the losses use: features to bases to cosines."""
    p, q = gk.subspace_basis(a, **kw).basis, gk.subspace_basis(b, 3, center="rows", **kw).basis
    return gk.geodesic_cosine(x, y, p, q, **kw)


def with_gradients(f, leaves, constants=(), **kw):
    out = f(*leaves, *constants, **kw)
    return out.detach(), *torch.autograd.grad(out.square().sum(), leaves)


class TestRegistration:
    def test_subspace_basis(self):
        x = features()[0]
        torch.library.opcheck(torch.ops.geokernels.subspace_basis.default, (x, 3, 1e-9))

    def test_subspace_basis_backward(self):
        left, directions, values = torch.ops.geokernels.subspace_basis(features()[0].detach(), 3, 1e-9)
        grads = torch.ones_like(directions), torch.ones_like(values)
        torch.library.opcheck(
            torch.ops.geokernels.subspace_basis_backward.default, (*grads, left, directions, values, 3)
        )

    @pytest.mark.parametrize(("K", "L"), [(4, 4), (2, 5)], ids=str)
    def test_geodesic_cosine(self, K, L):
        x, y, *_ = features()
        bases = (orthonormal(2, 37, rank, seed=rank).mT.contiguous().requires_grad_() for rank in (K, L))
        torch.library.opcheck(torch.ops.geokernels.geodesic_cosine.default, (x, y, *bases, 1e-12))

    @pytest.mark.parametrize("wanted", [(True,) * 4, (True, False, True, False)], ids=str)
    def test_geodesic_cosine_backward(self, wanted):
        x, y, *_ = (part.detach() for part in features())
        p, q = (orthonormal(2, 37, 4, seed=seed).mT.contiguous() for seed in (1, 2))
        out, *frame = torch.ops.geokernels.geodesic_cosine(x, y, p, q, 1e-12)
        torch.library.opcheck(
            torch.ops.geokernels.geodesic_cosine_backward.default,
            (torch.ones_like(out), x, y, p, q, *frame, 1e-12, *wanted),
        )

    @pytest.mark.parametrize("sources", [True, False], ids=["changes", "iterates"])
    def test_geodesic_loss(self, sources):
        current, *others = (part.detach() for part in features())
        q = orthonormal(2, 37, 3, seed=1).mT.contiguous()
        source, other, other_source = others if sources else (None, others[0], None)
        numbers = 4, 3, 1e-6, 1e-12, True, True
        torch.library.opcheck(
            torch.ops.geokernels.geodesic_loss.default,
            (current.requires_grad_(), source, other, other_source, q, *numbers),
        )

    def test_foreign_memory_is_safe(self):
        x, y, *_ = (part.detach() for part in features())
        p, q = (orthonormal(2, 37, 4, seed=seed).mT.contiguous() for seed in (1, 2))
        for bad in (x[0, 0], x.mT, x.half()):
            with pytest.raises(RuntimeError, match="float32 or float64 of at least 2 dimensions"):
                torch.ops.geokernels.subspace_basis(bad, 3, 1e-9)
        for wrong in ((x, y[:1], p, q), (x, y, p[..., :36].contiguous(), q), (x, y, p, q.float())):
            with pytest.raises(RuntimeError, match="another shape, layout, device or dtype"):
                torch.ops.geokernels.geodesic_cosine(*wrong, 1e-12)
        loss, numbers = torch.ops.geokernels.geodesic_loss, (1e-6, 1e-12, True, True)
        for wrong in ((x, y[:1], x, y, None, 3, 3), (x, y, x, y, p.float(), 3, 3)):
            with pytest.raises(RuntimeError, match="another shape, layout, device or dtype"):
                loss(*wrong, *numbers)
        for wrong in ((x, y, x, None, p, 3, 3), (x, None, x[:, :2].contiguous(), None, p, 3, 3),
                      (x, None, y, None, None, 6, 3), (x, None, y, None, None, 3, 0)):  # fmt: skip
            with pytest.raises(RuntimeError, match="directions of"):
                loss(*wrong, *numbers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
class TestEveryWay:
    @pytest.mark.parametrize("level", LEVELS)
    @pytest.mark.parametrize("D", [1, 3, 37, 64], ids=lambda D: f"D{D}")
    def test_every_simd_level(self, simd_level, level, D, dtype):
        leaves = [part[..., :D].to(dtype).detach().requires_grad_() for part in features(D=64)]
        if D == 1:  # no room for three directions
            leaves = [part.expand(-1, -1, 3).contiguous().detach().requires_grad_() for part in leaves]
        simd_level(level)
        found = with_gradients(cosine, leaves, backend="native")
        exact = with_gradients(cosine, [part.double().detach().requires_grad_() for part in leaves])
        for a, b in zip(found, exact, strict=True):
            torch.testing.assert_close(
                a.double(), b, rtol=1e-3 if dtype == torch.float32 else 1e-9, atol=1e-4
            )

    @pytest.mark.parametrize("level", LEVELS)
    @pytest.mark.parametrize("N", [1, 2, 3, 4, 5, 8, 9, 16, 24, 33, 65, 129], ids=lambda N: f"N{N}")
    def test_every_number_of_rows_at_every_simd_level(self, simd_level, level, N, dtype):
        # around and between multiples of every vector width: rows turn in pairs of vectors
        simd_level(level)
        x = cloud(2, N, 70 if N <= 70 else 150, seed=N).to(dtype)
        basis, values = gk.subspace_basis(x, backend="native")
        rank, tolerance = N, 1e-4 if dtype == torch.float32 else 1e-12
        wide = basis.double()
        torch.testing.assert_close(
            wide.mT @ wide, torch.eye(rank).double().expand(2, -1, -1), rtol=0, atol=tolerance
        )
        spread = (x.double() @ wide).square().sum(-2).sqrt()
        torch.testing.assert_close(spread, values.double(), rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(
            values.double(), torch.linalg.svdvals(x.double()), rtol=tolerance, atol=tolerance
        )

    @pytest.mark.parametrize("level", LEVELS)
    @pytest.mark.parametrize("repeated", [True, False], ids=["repeated", "mixed"])
    @pytest.mark.parametrize(("N", "rank"), [(20, 7), (60, 25), (150, 40)], ids=str)
    def test_dependent_and_zero_rows_at_every_simd_level(self, simd_level, level, N, rank, repeated, dtype):
        simd_level(level)
        mixing = torch.eye(rank).double().repeat(N // rank + 1, 1)[:N] if repeated else cloud(N, rank, seed=1)
        x = (mixing @ cloud(rank, 160, seed=2)).to(dtype)
        x[3], x[-2:] = 0, 0
        # as many values are rounding as there are rows too many
        basis, values = gk.subspace_basis(x, rtol=1e-4, backend="native")
        assert (basis != 0).any(-2).sum() == rank
        wide, exact = basis[:, :rank].double(), torch.linalg.svd(x.double(), full_matrices=False)
        tolerance = 2e-4 if dtype == torch.float32 else 1e-10
        torch.testing.assert_close(wide.mT @ wide, torch.eye(rank).double(), rtol=0, atol=tolerance)
        span = exact.Vh[:rank].mT @ exact.Vh[:rank]
        torch.testing.assert_close(wide @ wide.mT, span, rtol=0, atol=tolerance)
        torch.testing.assert_close(values.double(), exact.S, rtol=tolerance, atol=tolerance)

    @pytest.mark.parametrize("level", LEVELS)
    @pytest.mark.parametrize(("K", "L"), [(33, 33), (65, 40), (40, 128)], ids=str)
    def test_many_directions_at_every_simd_level(self, simd_level, level, K, L, dtype):
        simd_level(level)
        x, y = (cloud(2, 5, 200, seed=seed).to(dtype).requires_grad_() for seed in (0, 1))
        p, q = (orthonormal(2, 200, k, seed=k).to(dtype).requires_grad_() for k in (K, L))
        found = with_gradients(gk.geodesic_cosine, (x, y, p, q), backend="native")
        wide = [part.detach().double().requires_grad_() for part in (x, y, p, q)]
        exact = with_gradients(gk.geodesic_cosine, wide, backend="reference")
        tolerance = 1e-4 if dtype == torch.float32 else 1e-9
        for a, b in zip(found, exact, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)

    def test_threads_change_no_bit(self, dtype):
        leaves = [part.to(dtype).detach().requires_grad_() for part in features(B=24, N=16, D=130)]
        before, found = torch.get_num_threads(), []
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            found.append(with_gradients(cosine, leaves, backend="native"))
        torch.set_num_threads(before)
        for once, again, more in zip(*found, strict=True):
            assert torch.equal(once, again)
            assert torch.equal(again, more)

    @pytest.mark.parametrize("level", LEVELS)
    def test_losses_at_every_simd_level_and_number_of_threads(self, simd_level, level, dtype):
        simd_level(level)
        z, *others = (part.detach().to(dtype) for part in features(B=24, N=7, D=130))

        def loss(z, *others, **how):
            moved = gk.geodesic_consistency_loss(z, *others, **how)
            return moved + gk.geodesic_regularisation_loss(z, others[0], rank=3, **how)

        before, found = torch.get_num_threads(), []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(with_gradients(partial(loss, backend="native"), [z.requires_grad_()], others))
        torch.set_num_threads(before)
        exact = with_gradients(
            partial(loss, backend="reference"),
            [z.detach().double().requires_grad_()],
            [x.double() for x in others],
        )
        for once, again, wide in zip(*found, exact, strict=True):
            assert torch.equal(once, again)
            tolerance = 1e-4 if dtype == torch.float32 else 1e-10
            torch.testing.assert_close(once.double(), wide, rtol=tolerance, atol=tolerance)

    def test_place_in_the_batch_changes_no_bit(self, dtype):
        leaves = [part.to(dtype).detach().requires_grad_() for part in features(B=3)]
        alone = with_gradients(cosine, [part[1:2].detach().requires_grad_() for part in leaves])
        for one, every in zip(alone, with_gradients(cosine, leaves), strict=True):
            assert torch.equal(one[0], every[1])


class TestDirectCalls:
    """Plain tensors take a shorter way than the registered derivative; it must lead to the same place."""

    def registered(self, x, y, a, b):
        bases = []
        for features in (a, b):
            _left, directions, _values = torch.ops.geokernels.subspace_basis(features, 5, 1e-9)
            bases.append(directions)
        return torch.ops.geokernels.geodesic_cosine(x, y, *bases, 1e-12)[0]

    def direct(self, x, y, a, b):
        p, q = (gk.subspace_basis(features, rtol=1e-9, backend="native").basis for features in (a, b))
        return gk.geodesic_cosine(x, y, p, q, backend="native")

    def test_same_bits_as_the_registered_operators(self):
        leaves = features()
        expected, found = with_gradients(self.registered, leaves), with_gradients(self.direct, leaves)
        for a, b in zip(expected, found, strict=True):
            assert torch.equal(a, b)

    def test_batches_of_any_shape_are_problems_side_by_side(self):
        leaves = [part.detach() for part in features(B=6)]
        expected = self.direct(*leaves)
        assert torch.equal(self.direct(*(part[4] for part in leaves)), expected[4])
        nested = self.direct(*(part.view(3, 1, 2, *part.shape[1:]) for part in leaves))
        assert torch.equal(nested.view(expected.shape), expected)

    def test_values_alone_of_leading_directions(self):
        x = features()[0]
        weights = torch.tensor([3.0, 2.0], dtype=x.dtype)
        grads = []
        for backend in ("native", "reference"):
            values = gk.subspace_basis(x, 2, backend=backend).values
            grads += torch.autograd.grad((values * weights).sum(), x)
        torch.testing.assert_close(*grads)

    def test_nothing_is_recorded_without_need(self):
        x, *_ = features()
        assert gk.subspace_basis(x).basis.requires_grad
        assert not gk.subspace_basis(x.detach()).basis.requires_grad
        with torch.no_grad():
            assert not gk.subspace_basis(x).basis.requires_grad


class TestCompilation:
    def test_every_operator_without_graph_breaks(self):
        x, y, a, b = (part.detach() for part in features())

        def everything(x, y, a, b):
            p, q = gk.subspace_basis(a, 3).basis, gk.subspace_basis(b, 2).basis
            flow = gk.geodesic_flow(p, q)
            along = gk.geodesic_cosine_along(x, y, flow)
            return gk.project(x, p), gk.principal_angles(p, q), flow.at(0.3), flow.kernel(), along

        compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
        for found, expected in zip(compiled(x, y, a, b), everything(x, y, a, b), strict=True):
            torch.testing.assert_close(found, expected)

    def test_without_graph_breaks(self):
        leaves = features()
        compiled = torch.compile(cosine, fullgraph=True, backend="aot_eager")
        for a, b in zip(with_gradients(compiled, leaves), with_gradients(cosine, leaves), strict=True):
            torch.testing.assert_close(a, b)

    # tracing an autograd.Function makes torch 2.11 warn about itself
    @pytest.mark.filterwarnings("ignore:.*should not be instantiated")
    def test_reference_without_graph_breaks(self):
        leaves = [part.detach() for part in features()]
        compiled = torch.compile(cosine, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*leaves, backend="reference"), cosine(*leaves))
