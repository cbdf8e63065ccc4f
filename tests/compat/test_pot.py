"""The POT face gives POT's numbers, by its formulas and beside the package itself."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from geokernels.compat import pot
from geokernels.testing import cloud, weights

EXACT = {"max_iter": 20000, "tol": 1e-12}


def problem(N=8, M=6, mass=1.0, seed=0):
    """Clouds, weights and squared distances, as arrays."""
    x, y = cloud(N, 2, seed=seed), cloud(M, 2, seed=seed + 1)
    a, b = mass * weights(N, seed=seed + 2, zeros=0), mass * weights(M, seed=seed + 3, zeros=0)
    return [part.numpy() for part in (x, y, a, b, torch.cdist(x, y) ** 2)]


def scaled(a, b, M, reg):
    """The plan by multiplication alone."""
    K, v = np.exp(-M / reg), np.ones_like(b)
    for _ in range(3000):
        u = a / (K @ v)
        v = b / (K.T @ u)
    return u[:, None] * K * v


class TestSinkhorn:
    def test_plan_and_cost(self):
        _, _, a, b, M = problem()
        plan = scaled(a, b, M, 0.7)
        found = pot.sinkhorn(a, b, M, 0.7, stopThr=1e-12, numItermax=20000)
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, plan, atol=1e-12)
        value = pot.sinkhorn2(a, b, M, 0.7, stopThr=1e-12, numItermax=20000)
        assert isinstance(value, np.float64)
        assert value == pytest.approx((plan * M).sum())

    @pytest.mark.parametrize("method", pot.PLAN_METHODS)
    def test_log(self, method):
        _, _, a, b, M = problem()
        plan, log = pot.sinkhorn(a, b, M, 0.7, method=method, log=True)
        np.testing.assert_allclose(log["u"][:, None] * np.exp(-M / 0.7) * log["v"], plan, atol=1e-12)
        np.testing.assert_allclose(np.exp(log["log_u"]), log["u"])
        assert log["err"][-1] <= 1e-9
        assert 0 < log["niter"] < 1000
        _, again = pot.sinkhorn(a, b, M, 0.7, log=True, warmstart=(log["log_u"], log["log_v"]))
        assert again["niter"] == 0

    def test_several_targets(self):
        _, _, a, b, M = problem()
        several = np.stack([b, b[::-1]], 1)
        found, log = pot.sinkhorn(a, several, M, 0.7, log=True)
        np.testing.assert_allclose(found, [pot.sinkhorn2(a, k, M, 0.7) for k in several.T])
        assert log["u"].shape == (8, 2)
        assert log["v"].shape == (6, 2)
        start = log["log_u"], log["log_v"]
        assert pot.sinkhorn2(a, several, M, 0.7, log=True, warmstart=start)[1]["niter"] == 0

    def test_zero_weights_and_forbidden_pairs(self):
        _, _, a, b, M = problem()
        a[0], a[1] = 0, a[0] + a[1]
        M[1, 2] = np.inf
        plan, log = pot.sinkhorn(a, b, M, 0.7, log=True)
        assert (plan[0] == 0).all()
        assert plan[1, 2] == log["u"][0] == 0
        assert pot.sinkhorn2(a, b, M, 0.7) == pytest.approx((plan[plan > 0] * M[plan > 0]).sum())
        again = pot.sinkhorn(a, b, M, 0.7, warmstart=(log["log_u"], log["log_v"]))
        np.testing.assert_allclose(again, plan, atol=1e-9)

    def test_uniform_weights_and_lists(self):
        _, _, _, _, M = problem()
        plan = pot.sinkhorn([], [], M, 1.0)
        np.testing.assert_allclose(plan.sum(1), np.full(8, 1 / 8))
        assert pot.sinkhorn2([0.5, 0.5], [0.5, 0.5], [[0, 1], [1, 0]], 1) == pytest.approx(1 / (1 + np.e))

    def test_warns_as_asked(self):
        _, _, a, b, M = problem()
        with pytest.warns(UserWarning, match="Sinkhorn did not converge"):
            pot.sinkhorn(a, b, M, 0.01, numItermax=2)
        with pytest.warns(UserWarning, match="Sinkhorn did not converge"):
            pot.sinkhorn2(a, b, M, 0.01, numItermax=2, warn=True)
        pot.sinkhorn(a, b, M, 0.01, numItermax=2, warn=False)
        pot.sinkhorn2(a, b, M, 0.01, numItermax=2)

    def test_gradient(self):
        M = torch.tensor(problem(4, 3)[-1], requires_grad=True)
        a, b = weights(4, seed=0, zeros=0), weights(3, seed=1, zeros=0)
        assert torch.autograd.gradcheck(lambda M: pot.sinkhorn2(a, b, M, 1.0, stopThr=1e-13), M)

    def test_refuses_methods(self):
        _, _, a, b, M = problem()
        with pytest.raises(ValueError, match="method must be one of"):
            pot.sinkhorn(a, b, M, 1.0, method="newton")
        with pytest.raises(ValueError, match="method must be one of"):
            pot.sinkhorn2(a, b, M, 1.0, method="greenkhorn")


class TestSolve:
    @pytest.mark.parametrize("mass", [1.0, 2.5])
    def test_balanced_values(self, mass):
        _, _, a, b, M = problem(mass=mass)
        plan = scaled(a, b, M, 0.7)
        linear = (plan * M).sum()
        found = pot.solve(M, a, b, reg=0.7, **EXACT)
        np.testing.assert_allclose(found.plan, plan, atol=1e-11)
        assert found.value_linear == pytest.approx(linear)
        assert found.value == pytest.approx(linear + 0.7 * (plan * np.log(plan / np.outer(a, b))).sum())
        entropic = pot.solve(M, a, b, reg=0.7, reg_type="entropy", **EXACT)
        assert entropic.value == pytest.approx(linear + 0.7 * (plan * np.log(plan)).sum())
        u, v = found.potentials
        np.testing.assert_allclose(np.exp(u[:, None] + v - M / 0.7), plan, atol=1e-11)
        np.testing.assert_allclose(found.marginal_a, a)
        np.testing.assert_allclose(found.marginals[1], b)
        assert found.status == "Converged"

    def test_unbalanced_value(self):
        _, _, a, b, M = problem()
        b = 1.6 * b
        found = pot.solve(M, a, b, reg=0.7, unbalanced=0.9, **EXACT)
        P = found.plan
        entropy = (P * np.log(P / np.outer(a, b))).sum()
        gaps = sum((m * np.log(m / w)).sum() for m, w in ((P.sum(1), a), (P.sum(0), b)))
        assert found.value == pytest.approx((P * M).sum() + 0.7 * entropy + 0.9 * gaps)
        # the optimum: P = ab exp(-M / reg) times powers of the marginals' ratios
        powers = np.outer(P.sum(1) / a, P.sum(0) / b) ** (-0.9 / 0.7)
        np.testing.assert_allclose(P, np.outer(a, b) * np.exp(-M / 0.7) * powers, rtol=1e-9)
        same = pot.solve(M, a, b, reg=0.7, unbalanced=[0.9, 0.9], **EXACT)
        assert same.value == found.value
        again = pot.solve(M, a, b, reg=0.7, unbalanced=0.9, potentials_init=found.potentials, max_iter=1)
        np.testing.assert_allclose(again.plan, P)

    def test_infinite_penalty_is_balanced(self):
        _, _, a, b, M = problem()
        found = pot.solve(M, a, b, reg=0.7, unbalanced=np.inf)
        assert found.value == pot.solve(M, a, b, reg=0.7).value

    @pytest.mark.parametrize("unbalanced", [None, 0.9])
    @pytest.mark.parametrize("reg_type", ["kl", "entropy"])
    def test_value_gradients(self, reg_type, unbalanced):
        if unbalanced and reg_type == "entropy":
            pytest.skip("not offered, see test_refuses")
        _, _, a, b, M = (torch.tensor(part) for part in problem(4, 3))

        def value(M, change):
            # balanced weights can only change with their sum unchanged
            moved = a + change - change.mean()
            return pot.solve(M, moved, b, reg=0.7, reg_type=reg_type, unbalanced=unbalanced, **EXACT).value

        change = torch.zeros(4, dtype=a.dtype)
        assert torch.autograd.gradcheck(value, (M.requires_grad_(), change.requires_grad_()))

    def test_modes_of_gradients(self):
        _, _, a, b, M = (torch.tensor(part) for part in problem())
        M.requires_grad_()
        for grad, everything, value in (
            ("autodiff", True, True),
            ("last_step", True, True),
            ("envelope", False, True),
            ("detach", False, False),
        ):
            found = pot.solve(M, a, b, reg=1.0, grad=grad)
            assert found.value.requires_grad == value
            for part in (found.plan, found.value_linear, found.potential_a):
                assert part.requires_grad == everything
        # a batch has its linear value follow the cost, as there
        batch = pot.solve_batch(M[None], 1.0, grad="envelope")
        (to_cost,) = torch.autograd.grad(batch.value_linear.sum(), M)
        torch.testing.assert_close(to_cost, batch.plan[0])

    def test_no_iterations_are_refused(self):
        *_, M = problem()
        with pytest.raises(ValueError, match="max_iter must be at least 1, got 0"):
            pot.solve(M, reg=1.0, max_iter=0)

    def test_exact_between_equally_many(self):
        M = torch.tensor(problem(7, 7)[-1], requires_grad=True)
        rows, columns = linear_sum_assignment(M.detach())
        found = pot.solve(M)
        assert found.value.item() == pytest.approx(M[rows, columns].mean().item())
        found.value.backward()
        torch.testing.assert_close(M.grad, found.plan)
        assert (found.plan.detach().numpy()[rows, columns] == 1 / 7).all()

    def test_exact_between_any_masses(self):
        x, y, a, b, M = problem()
        found = pot.solve(M, a, b)
        for other in (
            pot.solve(M, a, b, reg=0),
            pot.solve_sample(x, y, a, b),
            pot.solve_batch(M[None], a=a[None], b=b[None]),
        ):
            assert np.squeeze(other.value) == pytest.approx(found.value, rel=1e-12)
        np.testing.assert_allclose(found.marginal_a, a, atol=1e-15)
        assert found.value == found.value_linear == pytest.approx((found.plan * M).sum())
        assert a @ found.potential_a + b @ found.potential_b == pytest.approx(found.value)
        assert (M - found.potential_a[:, None] - found.potential_b).min() > -1e-12

    def test_refuses(self):
        _, _, a, b, M = problem()
        for options in (
            {"unbalanced": 1.0},
            {"reg": 1.0, "c": M},
            {"reg": 1.0, "reg_type": "L2"},
            {"reg": 1.0, "reg_type": (abs, abs)},
            {"reg": 1.0, "unbalanced": 1.0, "unbalanced_type": "TV"},
            {"reg": 1.0, "unbalanced": (1.0, np.inf)},
            {"reg": 1.0, "unbalanced": 1.0, "reg_type": "entropy"},
        ):
            with pytest.raises(NotImplementedError):
                pot.solve(M, a, b, **options)
        with pytest.raises(ValueError, match="grad must be one of"):
            pot.solve(M, a, b, reg=1.0, grad="all")

    def test_says_when_it_has_not_converged(self):
        _, _, a, b, M = problem()
        with pytest.warns(UserWarning, match="did not converge"):
            found = pot.solve(M, a, b, reg=0.01, max_iter=1)
        assert found.status == "Not converged"


class TestSamplesAndBatches:
    @pytest.mark.parametrize("metric", pot.METRICS)
    def test_samples_are_their_costs(self, metric):
        x, y, a, b, _ = problem()
        difference = x[:, None] - y[None]
        lengths = np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1))
        M = {
            "sqeuclidean": (difference**2).sum(-1),
            "euclidean": np.linalg.norm(difference, axis=-1),
            "cityblock": np.abs(difference).sum(-1),
            "cosine": 1 - x @ y.T / lengths,
        }[metric]
        found = pot.solve_sample(x, y, a, b, metric=metric, reg=0.7, lazy=True)
        expected = pot.solve(M, a, b, reg=0.7)
        assert found.value == pytest.approx(expected.value)
        assert found.value_linear == pytest.approx(expected.value_linear)
        np.testing.assert_allclose(found.lazy_plan[:], expected.plan, atol=1e-9)

    @pytest.mark.parametrize("unbalanced", [None, 0.9])
    def test_debiased(self, unbalanced):
        x, y, a, b, _ = problem()
        options = {"reg": 0.7, "unbalanced": unbalanced}
        found = pot.solve_sample(x, y, a, b, debias=True, **options)
        ab, aa, bb = (
            pot.solve_sample(*args, **options) for args in ((x, y, a, b), (x, x, a, a), (y, y, b, b))
        )
        for name in ("value", "value_linear"):
            parts = [getattr(part, name) for part in (ab, aa, bb)]
            assert getattr(found, name) == pytest.approx(parts[0] - (parts[1] + parts[2]) / 2)
        assert set(found.log) == {"res_aa", "res_bb", "res_ab"}
        assert pot.solve_sample(x, x, a, a, debias=True, **options).value == pytest.approx(0, abs=1e-9)

    def test_exact_samples(self):
        x, y, _, _, M = problem(6, 6)
        rows, columns = linear_sum_assignment(M)
        assert pot.solve_sample(x, y).value == pytest.approx(M[rows, columns].mean())

    def test_refuses(self):
        x, y, *_ = problem()
        for options in (
            {"metric": "jaccard"},
            {"method": "sliced"},
            {"debias": "split"},
            {"scaler": "standard"},
        ):
            with pytest.raises(NotImplementedError):
                pot.solve_sample(x, y, reg=1.0, **options)

    def test_batch_is_its_problems(self):
        M = np.stack([problem(6, 6, seed=10 * k)[-1] for k in range(3)])
        a, b = (weights(3, 6, seed=k).numpy() for k in range(2))
        for reg_type in ("kl", "entropy"):
            found = pot.solve_batch(M, 0.7, a, b, tol=1e-10, reg_type=reg_type)
            assert found.log["n_iter"] > 0
            for k in range(3):
                one = pot.solve(M[k], a[k], b[k], reg=0.7, reg_type=reg_type, tol=1e-10)
                assert found.value[k] == pytest.approx(one.value)
                assert found.value_linear[k] == pytest.approx(one.value_linear)
                np.testing.assert_allclose(found.plan[k], one.plan, atol=1e-9)
        exact = [problem[linear_sum_assignment(problem)].mean() for problem in M]
        np.testing.assert_allclose(pot.solve_batch(M).value, exact)
        with pytest.raises(ValueError, match="reg must be above 0 for method log_sinkhorn"):
            pot.solve_batch(M, method="log_sinkhorn")


class TestExact:
    def test_log(self):
        _, _, a, b, M = problem()
        plan, log = pot.emd(a, b, M, log=True)
        np.testing.assert_allclose(plan.sum(0), b, atol=1e-15)
        assert log["cost"] == pytest.approx((plan * M).sum())
        assert (log["warning"], log["result_code"]) == (None, 1)
        assert a @ log["u"] == pytest.approx(b @ log["v"])
        value, log = pot.emd2(a, b, M, return_matrix=True)
        assert value == log["cost"]
        np.testing.assert_array_equal(log["G"], plan)

    def test_several_at_once(self):
        _, _, a, b, M = problem()
        both = np.stack([b, b[::-1]], 1)
        assert pot.emd2(a, both, M) == [pot.emd2(a, column.copy(), M) for column in both.T]

    def test_masses_that_differ(self):
        _, _, a, b, M = problem()
        with pytest.raises(ValueError, match="b must have the mass of a"):
            pot.emd(a, 2 * b, M)
        np.testing.assert_allclose(pot.emd(a, 2 * b, M, check_marginals=False), pot.emd(a, b, M), atol=1e-15)

    def test_no_plan(self):
        with pytest.raises(ValueError, match="M forbids every plan"):
            pot.emd2([], [], np.array([[1.0, np.inf, np.inf], [1.0, np.inf, np.inf], [1.0, 1.0, 1.0]]))


class TestBesidePot:
    def test_exact(self):
        ot = pytest.importorskip("ot")
        given = problem(9, 7)[2:]
        (theirs, their_log), (ours, log) = (module.emd(*given, log=True) for module in (ot, pot))
        np.testing.assert_allclose(ours, theirs, atol=1e-14)
        assert {name: type(part) for name, part in log.items()} == {
            name: type(part) for name, part in their_log.items()
        }
        for name in ("cost", "u", "v", "result_code"):
            np.testing.assert_allclose(log[name], their_log[name], atol=1e-12)
        assert isinstance(pot.emd2(*given), type(ot.emd2(*given)))

    def test_exact_gradients(self):
        ot = pytest.importorskip("ot")
        given = [torch.tensor(part).requires_grad_() for part in problem(9, 7)[2:]]
        theirs, ours = (torch.autograd.grad(module.emd2(*given), given) for module in (ot, pot))
        for there, here in zip(theirs, ours, strict=True):
            torch.testing.assert_close(here, there, rtol=1e-9, atol=1e-12)

    def test_functions(self):
        ot = pytest.importorskip("ot")
        _, _, a, b, M = problem()
        several = np.stack([b, b[::-1]], 1)
        for method in ("sinkhorn", "sinkhorn_log"):
            args = {"reg": 0.7, "method": method, "log": True, "stopThr": 1e-11}
            (ours, log), (theirs, their_log) = (lib.sinkhorn(a, b, M, **args) for lib in (pot, ot))
            np.testing.assert_allclose(ours, theirs, atol=1e-10)
            assert set(their_log) <= set(log)
            ours, theirs = (lib.sinkhorn2(a, several, M, **args)[0] for lib in (pot, ot))
            np.testing.assert_allclose(ours, theirs)

    @pytest.mark.parametrize("mass", [1.0, 2.5])
    @pytest.mark.parametrize(
        "options",
        [{"reg_type": "KL"}, {"reg_type": "entropy"}, {"unbalanced": 0.9}],
        ids=["kl", "entropy", "unbalanced"],
    )
    def test_solvers(self, options, mass):
        ot = pytest.importorskip("ot")
        x, y, a, b, M = problem(mass=mass)
        for run in (
            lambda lib: lib.solve(M, a, b, reg=0.7, **options, **EXACT),
            lambda lib: lib.solve_sample(x, y, a, b, reg=0.7, debias=True, **options, **EXACT),
        ):
            ours, theirs = run(pot), run(ot)
            for name in ("value", "value_linear", "plan"):
                np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-8)
            np.testing.assert_allclose(
                np.add.outer(*ours.potentials), np.add.outer(*theirs.potentials), atol=1e-8
            )

    def test_gradients(self):
        ot = pytest.importorskip("ot")
        found = []
        for lib in (pot, ot):
            _, _, a, b, M = (torch.tensor(part, requires_grad=True) for part in problem())
            result = lib.solve(M, a, b, reg=1.0, max_iter=5000, tol=1e-13)
            (result.value + result.value_linear).backward()
            found.append((a.grad - a.grad.mean(), b.grad - b.grad.mean(), M.grad))
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)

    def test_batches(self):
        ot = pytest.importorskip("ot")
        M = np.stack([problem(6, 5, seed=10 * k)[-1] for k in range(3)])
        for reg_type in ("kl", "entropy"):
            ours, theirs = (lib.solve_batch(M, 0.7, reg_type=reg_type, tol=1e-11) for lib in (pot, ot))
            for name in ("value", "value_linear", "plan"):
                np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-8)


def test_kinds_of_arrays():
    _, _, a, b, M = problem()
    half = pot.solve(torch.tensor(M, dtype=torch.float32), a, b, reg=1.0, tol=1e-5)
    assert half.plan.dtype == torch.float32
    single = pot.sinkhorn(a, b, M.astype(np.float32), 1.0, stopThr=1e-5)
    assert single.dtype == np.float32


def test_tensors_need_no_numpy():
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "import torch\n"
        "from geokernels.compat import geodesic_clip, geomloss, pot\n"
        "assert pot.solve(torch.eye(3), reg=1.0, tol=1e-5).status == 'Converged'\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


@pytest.mark.parametrize("kind", [">f4", ">f8", "longdouble", ">i4", "float16", "uint64", "bool"])
def test_arrays_of_any_real_numbers_are_converted(kind):
    chance = np.random.default_rng(0)
    cost = chance.integers(0, 2 if kind == "bool" else 9, (5, 6)).astype(kind)
    plan, expected = (pot.sinkhorn([], [], c, 1.0, stopThr=1e-4) for c in (cost, cost.astype("f8")))
    assert isinstance(plan, np.ndarray)
    assert np.allclose(plan, expected, rtol=1e-3, atol=0.01 if kind == "float16" else 0)
    assert plan.dtype == {">f4": np.float32, "float16": np.float32}.get(kind, np.float64)
    # beside a tensor, which decides
    beside = pot.sinkhorn(
        np.full(5, 0.2, kind if kind[-2] == "f" else ">f8"), [], torch.ones(5, 6), 1.0, stopThr=1e-4
    )
    assert beside.dtype == torch.float32


def test_arrays_that_hold_no_real_numbers_are_refused():
    with pytest.raises(TypeError, match="arrays must hold real numbers, got complex128"):
        pot.sinkhorn([], [], np.ones((3, 3)) + 1j, 1.0)
    with pytest.raises(TypeError, match="arrays must hold real numbers, got object"):
        pot.sinkhorn([], [], np.array([[1, None], [2, 3]]), 1.0)
    with pytest.raises(ValueError, match="arrays must have no masked entries, got 1"):
        pot.sinkhorn([], [], np.ma.masked_equal(np.eye(3)[:1].repeat(3, 0) + np.eye(3), 2.0), 1.0)


@pytest.mark.parametrize("kind", ["scipy", "torch"])
def test_sparse_costs_are_refused(kind):
    cost = torch.eye(3).to_sparse() if kind == "torch" else pytest.importorskip("scipy.sparse").eye(3).tocoo()
    with pytest.raises(NotImplementedError, match="sparse arrays are not offered, got"):
        pot.emd2([], [], cost)
