"""assignment is exact, and displacement follows it."""

import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import geokernels as gk
from geokernels import reference
from geokernels.kernels import native
from geokernels.kernels import transport_assignment as kernels
from geokernels.ops.transport_assignment import _target, _target_at_once
from geokernels.testing import cloud

LEVELS = native.build_info().get("simd_levels", [])
BACKENDS = pytest.mark.parametrize("backend", ["native", "reference"])


def total(cost, chosen):
    return cost.gather(-1, chosen[..., None])[..., 0].sum(-1)


@BACKENDS
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 7), (20, 33), (77, 77)], ids=str)
@pytest.mark.parametrize("kind", ["normal", "points", "ties"])
def test_agrees_with_scipy(shape, kind, backend):
    N, M = shape
    cost = {
        "normal": cloud(3, N, M, seed=0),
        "points": torch.cdist(cloud(3, N, 5, seed=1), cloud(3, M, 5, seed=2)) ** 2,
        "ties": cloud(3, N, M, seed=3).mul(2).round(),
    }[kind]
    chosen = gk.assignment(cost, backend=backend)
    assert chosen.dtype == torch.int64
    for k in range(3):
        assert len(set(chosen[k].tolist())) == N
        rows, columns = linear_sum_assignment(cost[k].cpu().numpy())
        best = cost[k][rows, columns].sum()
        assert torch.allclose(total(cost[k], chosen[k]), best, rtol=1e-12, atol=1e-12)


def hard_costs(kind, N, M, seed):
    """Costs of a kind that is hard in its own way."""
    chance = torch.Generator().manual_seed(seed)
    uniform = torch.rand(N, M, generator=chance, dtype=torch.float64)
    if kind == "tied":
        return (3 * uniform).floor()
    if kind == "sparse":
        return uniform.masked_fill(torch.rand(N, M, generator=chance) < 0.5, math.inf)
    if kind == "sparse and tied":
        return (3 * uniform).floor().masked_fill(torch.rand(N, M, generator=chance) < 0.3, math.inf)
    if kind == "products":  # every search goes through most rows
        return torch.outer(torch.arange(1.0, N + 1), torch.arange(1.0, M + 1)).double()
    if kind == "distances":
        x = torch.randn(N + M, 2, generator=chance, dtype=torch.float64)
        return torch.cdist(x[:N], x[N:]).square()
    return {"uniform": uniform, "huge": 1e300 * (uniform - 0.5), "tiny": 1e-300 * uniform}[kind]


KINDS = ["uniform", "tied", "sparse", "sparse and tied", "products", "distances", "huge", "tiny"]


def is_the_cheapest(cost, chosen):
    """Whether ``chosen`` is one-to-one and as cheap as what scipy finds."""
    costs = cost.double().numpy()
    rows, columns = linear_sum_assignment(costs)
    best, found = costs[rows, columns], costs[rows, chosen.numpy()]
    rounding = 1e-12 * abs(best).sum()
    return len(set(chosen.tolist())) == len(cost) and abs(found.sum() - best.sum()) <= rounding


def is_possible(cost):
    try:
        linear_sum_assignment(cost.double().numpy())
    except ValueError:
        return False
    return True


class TestSearches:
    """Rows that are looked at whole, up to 768 columns, and rows of which the nearest columns are kept."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_agrees_with_scipy_at_every_size(self, kind, dtype):
        for N in range(1, 41):
            for M in (N, N + 1, N + N // 2 + 3):
                cost = hard_costs(kind, N, M, seed=41 * N + M)
                if dtype == torch.float32:
                    cost = cost.clamp(-1e38, 1e38) if kind == "huge" else cost.float()
                if is_possible(cost):
                    assert is_the_cheapest(cost, gk.assignment(cost, backend="native")), (N, M)
                else:
                    with pytest.raises(ValueError, match="forbids every one-to-one assignment"):
                        gk.assignment(cost, backend="native")

    @pytest.mark.parametrize("level", LEVELS)
    @pytest.mark.parametrize("shape", [(60, 60), (9, 90), (60, 771), (771, 771)], ids=str)
    def test_every_simd_level_decides_alike(self, level, shape, simd_level):
        for seed, kind in enumerate(KINDS):
            cost = hard_costs(kind, *shape, seed)
            expected = torch.ops.geokernels.assignment(cost)
            if kind not in ("sparse", "sparse and tied") or is_possible(cost):
                assert is_the_cheapest(cost, expected), kind
            simd_level(level)
            assert torch.equal(torch.ops.geokernels.assignment(cost), expected), kind
            narrow = cost.float().clamp(-3e38, 3e38)
            simd_level(LEVELS[-1])
            expected = torch.ops.geokernels.assignment(narrow.double())
            simd_level(level)
            assert torch.equal(torch.ops.geokernels.assignment(narrow), expected), kind

    def test_looking_at_some_columns_decides_as_looking_at_all(self):
        # the same problem with columns nobody can take: beyond 768 the other search has it
        for seed, kind in enumerate(KINDS):
            cost = hard_costs(kind, 90, 700, seed)
            longer = torch.cat([cost, torch.full((90, 100), math.inf, dtype=torch.float64)], 1)
            whole, near = (torch.ops.geokernels.assignment(part) for part in (cost, longer))
            assert torch.equal(near, whole), kind

    @pytest.mark.parametrize("level", LEVELS)
    def test_columns_that_are_kept_in_vain_change_nothing(self, level, simd_level):
        # every search goes through half of the rows, and moves their prices
        order = torch.arange(1.0, 401, dtype=torch.float64)
        cost = torch.outer(order[:390], order)
        none = torch.full((390, 400), math.inf, dtype=torch.float64)
        simd_level(level)
        for kind, part in (("whole", cost), ("not whole", cost / 7), ("float32", cost.float())):
            whole = torch.ops.geokernels.assignment(part)
            near = torch.ops.geokernels.assignment(torch.cat([part, none.to(part.dtype)], 1))
            assert is_the_cheapest(part.double(), whole), kind
            assert torch.equal(near, whole), kind

    def test_any_number_of_threads(self):
        cost = torch.stack([hard_costs(kind, 30, 35, seed) for seed, kind in enumerate(KINDS)])
        threads = torch.get_num_threads()
        try:
            found = []
            for count in (1, 2):
                torch.set_num_threads(count)
                found.append(torch.ops.geokernels.assignment(cost))
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(*found)

    @pytest.mark.parametrize("shape", [(5, 7), (5, 800)], ids=str)
    def test_no_cost_leads_out_of_memory(self, shape):
        # nobody has looked at the values of what the operator is given
        for bad in (math.nan, -math.inf, 1.7e308, -1.7e308):
            cost = hard_costs("uniform", *shape, seed=1)
            cost[1, 2:5], cost[3] = bad, -bad
            chosen = torch.ops.geokernels.assignment(cost)
            assert ((chosen >= -1) & (chosen < shape[1])).all()


class TestDirectCalls:
    """A tensor in CPU memory goes past the dispatcher."""

    def test_whatever_the_layout(self):
        cost = hard_costs("uniform", 9, 14, seed=0)
        wide = torch.stack([cost, cost], -1)
        expected = torch.ops.geokernels.assignment(cost)
        assert torch.equal(gk.assignment(cost.mT.contiguous().mT), expected)
        assert torch.equal(gk.assignment(wide[..., 1]), expected)
        assert torch.equal(gk.assignment(cost.requires_grad_()), expected)
        assert torch.equal(gk.assignment(cost[None, None])[0, 0], expected)
        imaginary = torch.complex(cost, -cost).detach().conj().imag  # its memory holds the negatives
        assert imaginary.is_neg()
        assert torch.equal(gk.assignment(imaginary), expected)

    def test_is_there_whatever_the_default_device(self):
        cost = hard_costs("uniform", 5, 6, seed=0)
        with torch.device("meta"):
            assert torch.equal(gk.assignment(cost), torch.ops.geokernels.assignment(cost))

    def test_goes_by_the_dispatcher_where_somebody_listens(self):
        seen = []

        class Listener(TorchDispatchMode):
            def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
                seen.append(str(operator))
                return operator(*args, **(kwargs or {}))

        cost = hard_costs("uniform", 5, 6, seed=0)
        expected = gk.assignment(cost)
        with Listener():
            assert torch.equal(gk.assignment(cost), expected)
        assert "geokernels.assignment.default" in seen

    def test_one_bad_problem_of_a_batch_is_named(self):
        batch = torch.stack([hard_costs("uniform", 5, 6, seed) for seed in range(4)])
        for bad, sentence in (
            (math.nan, "got NaN"),
            (-math.inf, "got -inf"),
            (math.inf, "forbids every one-to-one"),
        ):
            for dtype in (torch.float16, torch.float32, torch.float64):
                cost = batch.to(dtype)
                cost[2, 1] = bad
                with pytest.raises(ValueError, match=sentence):
                    gk.assignment(cost)


@BACKENDS
def test_forbidden_pairs_are_avoided(backend):
    cost = cloud(8, 8, seed=0)
    order = torch.randperm(8)
    allowed = torch.zeros(8, 8, dtype=torch.bool)
    allowed[torch.arange(8), order] = True  # one assignment is certainly possible
    allowed |= cloud(8, 8, seed=1) > 0.5
    cost[~allowed] = math.inf
    chosen = gk.assignment(cost, backend=backend)
    rows, columns = linear_sum_assignment(cost.cpu().numpy())
    assert torch.allclose(total(cost, chosen), cost[rows, columns].sum())


@BACKENDS
@pytest.mark.parametrize("shape", [(40, 40), (30, 45)], ids=str)
def test_rows_that_have_hardly_a_choice(shape, backend):
    # one column each that all assignments need, and few others; the second offer is often infinite
    N, M = shape
    cost = cloud(6, N, M, seed=0)
    allowed = cloud(6, N, M, seed=1) > 1.5
    allowed[:, torch.arange(N), cloud(M, seed=2).argsort()[:N]] = True
    cost[~allowed] = math.inf
    chosen = gk.assignment(cost, backend=backend)
    for k in range(6):
        rows, columns = linear_sum_assignment(cost[k].numpy())
        assert torch.allclose(total(cost[k], chosen[k]), cost[k][rows, columns].sum())


def test_bids_that_rounding_swallows_end():
    # prices of this size do not feel a difference between offers
    cost = 1e17 + cloud(60, 60, seed=0).mul(40).round()
    chosen = gk.assignment(cost, backend="native")
    assert chosen.unique().numel() == 60
    assert total(cost, chosen) <= cost.diagonal().sum()


@BACKENDS
def test_batch_shapes(backend):
    cost = cloud(2, 3, 4, 5, seed=0)
    chosen = gk.assignment(cost, backend=backend)
    assert chosen.shape == (2, 3, 4)
    assert torch.equal(chosen[1, 2], gk.assignment(cost[1, 2], backend=backend))
    assert gk.assignment(cost[:0], backend=backend).shape == (0, 3, 4)


def test_half_and_single_precision():
    cost = cloud(6, 6, seed=0)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        rounded = cost.to(dtype)
        expected = gk.assignment(rounded.double())
        assert torch.equal(gk.assignment(rounded), expected)


def test_the_definition_follows_its_input_to_a_device():
    cost = cloud(2, 5, 7, seed=0)
    with torch.device("meta"):  # what is made without a word of where would be of no use
        chosen = reference.assignment(cost)
    assert chosen.device == cost.device
    assert torch.equal(chosen, reference.assignment(cost))


class TestDisplacement:
    def test_in_parts_as_on_a_gpu(self):
        x, y, times = cloud(3, 9, 5, seed=0), cloud(3, 12, 5, seed=1), cloud(3, 4, seed=2).sigmoid()
        x[1, 0, 0] = math.inf
        expected, chosen = kernels.displacement(x, y, times)
        moved, columns = kernels._displacement_in_parts(x, y, times)
        assert torch.equal(columns, chosen)
        assert (columns[1] == -1).all()
        torch.testing.assert_close(moved, expected, equal_nan=True)
        with FakeTensorMode():  # what has no values cannot be waited for
            parts = [torch.empty(part.shape, device="cuda") for part in (x, y, times)]
            moved, chosen = kernels._displacement_in_parts(*parts)
        assert (moved.shape, chosen.shape) == (expected.shape, columns.shape)

    @BACKENDS
    @pytest.mark.parametrize(
        "shape", [(1, 1, 1), (3, 7, 5), (6, 9, 17), (20, 20, 1030), (77, 77, 768)], ids=str
    )
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_goes_where_scipy_says(self, shape, dtype, backend):
        N, M, D = shape
        far = 100.0  # an origin that the costs must not lose their digits to
        x, y = cloud(3, N, D, seed=0).add(far).to(dtype), cloud(3, M, D, seed=1).add(far).to(dtype)
        path = gk.displacement(x, y, [0.0, 0.3, 1.0], backend=backend)
        assert path.dtype == dtype
        assert torch.equal(path[0], x)
        for k in range(3):
            cost = torch.cdist(x[k].double(), y[k].double()).square()
            best = cost[linear_sum_assignment(cost.cpu().numpy())].sum()
            there = torch.cdist(path[2, k].double(), y[k].double()).argmin(-1)
            assert there.unique().numel() == N
            assert torch.equal(path[2, k], y[k, there])  # to the bit
            rounding = 1e-5 if dtype == torch.float32 else 1e-12
            assert total(cost, there) <= best * (1 + rounding)
            torch.testing.assert_close(path[1, k], torch.lerp(x[k], y[k, there], 0.3))

    def test_half_precision(self):
        x, y = cloud(2, 9, 12, seed=0), cloud(2, 11, 12, seed=1)
        for dtype in (torch.float16, torch.bfloat16):
            path = gk.displacement(x.to(dtype), y.to(dtype), [0.25, 1.0])
            wide = gk.displacement(x.to(dtype).float(), y.to(dtype).float(), [0.25, 1.0])
            assert path.dtype == dtype
            assert torch.equal(path, wide.to(dtype))

    def test_views_and_batches(self):
        x, y = cloud(6, 9, 2, 3, seed=0).permute(2, 3, 1, 0), cloud(2, 3, 11, 6, seed=1)
        path = gk.displacement(x, y, [0.2, 0.9])
        assert path.shape == (2, 2, 3, 9, 6)
        assert torch.equal(path[:, 1, 2], gk.displacement(x[1, 2], y[1, 2], [0.2, 0.9]))
        assert gk.displacement(x[:0], y[:0], 0.5).shape == (1, 0, 3, 9, 6)

    @BACKENDS
    def test_a_lost_pair_is_named_or_comes_back_nan(self, backend):
        x, y = cloud(3, 4, 2, seed=0).float(), cloud(3, 5, 2, seed=1).float()
        y[1, 0, 0] = math.inf
        with pytest.raises(ValueError, match="y must be finite, got infinite values"):
            gk.displacement(x, y, 0.5, backend=backend)
        far = torch.where(y.isfinite(), y, 1e30)
        with pytest.raises(ValueError, match="so near that their squared distances are finite"):
            gk.displacement(x, far, 0.5, backend=backend)
        run = kernels if backend == "native" else reference
        moved, chosen = run.displacement(x, y, torch.tensor([0.5]).expand(3, 1))
        assert moved[1].isnan().all()
        assert torch.equal(moved.isnan().any((1, 2, 3)), torch.tensor([False, True, False]))
        assert torch.equal((chosen >= 0).all(1), torch.tensor([True, False, True]))

    def test_ends_are_the_clouds(self):
        x, y = cloud(2, 9, 3, seed=0), cloud(2, 9, 3, seed=1)
        path = gk.displacement(x, y, [0.0, 0.5, 1.0])
        assert path.shape == (3, 2, 9, 3)
        assert torch.allclose(path[0], x)
        assert torch.allclose(path[2].sort(-2).values, y.sort(-2).values)
        assert torch.allclose(path[1], (path[0] + path[2]) / 2)

    def test_is_a_geodesic(self):
        x, y = cloud(9, 3, seed=0), cloud(9, 3, seed=1)

        def distance(p, q):
            cost = torch.cdist(p, q) ** 2
            return total(cost, gk.assignment(cost)).sqrt()

        times = torch.tensor([0.0, 0.2, 0.7, 1.0]).double()
        path = gk.displacement(x, y, times)
        for s in range(4):
            for t in range(4):
                expected = (times[s] - times[t]).abs() * distance(x, y)
                assert torch.allclose(distance(path[s], path[t]), expected, atol=1e-6)

    def test_follows_a_translation_whatever_the_order(self):
        x, shift = cloud(9, 3, seed=0), torch.tensor([1.0, -2.0, 0.5]).double()
        path = gk.displacement(x, (x + shift)[torch.randperm(9)], 0.25)
        assert torch.allclose(path[0], x + 0.25 * shift)

    def test_entropic_path_nears_the_exact_one(self):
        x, y = cloud(6, 3, seed=0), cloud(6, 3, seed=1)
        exact = gk.displacement(x, y, 0.5)
        gaps = [(gk.displacement(x, y, 0.5, plan="entropic", eps=e) - exact).norm() for e in (10, 1, 0.1)]
        assert gaps[0] > gaps[1] > gaps[2]

    @BACKENDS
    def test_gradients(self, backend):
        x, y = cloud(2, 4, 2, seed=0).requires_grad_(), cloud(2, 5, 2, seed=1).requires_grad_()
        times = torch.tensor([0.3, 0.8]).double().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda x, y, t: gk.displacement(x, y, t, backend=backend), (x, y, times)
        )
        assert torch.autograd.gradgradcheck(
            lambda x, y, t: gk.displacement(x, y, t, backend=backend), (x, y, times)
        )

    def test_compiles_in_one_graph(self):
        x, y = cloud(2, 4, 3, seed=0), cloud(2, 5, 3, seed=1)

        def move(x, y):
            return gk.displacement(x, y, [0.25, 0.5])

        compiled = torch.compile(move, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(x, y), move(x, y))

    def test_entropic_path_in_one_launch(self):
        # what a GPU's kernel is asked for, and what is made of it
        x, y = cloud(2, 5, 3, seed=0), cloud(2, 7, 3, seed=1)
        expected = _target(x, y, 0.5, "native")
        torch.testing.assert_close(_target_at_once(x, y, 0.5, "native"), expected)

    def test_gradients_of_the_entropic_path(self):
        x, y = cloud(4, 2, seed=0), cloud(5, 2, seed=1)
        x, y = x.detach().requires_grad_(), y.detach().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda x, y: gk.displacement(x, y, 0.3, plan="entropic", eps=20.0), (x, y), atol=1e-4
        )
