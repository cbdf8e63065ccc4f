"""What is found when the library's kernels are looked at on the CPU, and Triton's and CUDA's emulated.

Each check is shown an implementation that fails it, and finds that.
"""

import math

import pytest
import torch

from geokernels.kernels import proof_cases, proof_checks, triton
from geokernels.kernels.proof_cases import OPERATORS
from geokernels.kernels.proof_checks import find_wrong_memory, find_wrong_values

from .emulated_transport import solver
from .proofs import COMPILED


@pytest.fixture(scope="module")
def solve(emulated):
    return solver(emulated("cuda_transport"))


def given(operator: str, problem: str, dtype=torch.float32):
    return OPERATORS[operator].problems[problem]().at(dtype, "cpu")


def wrong_values(operator: str, problem: str, run, dtype=torch.float32) -> str:
    known = OPERATORS[operator]
    return find_wrong_values(known.definition, run, given(operator, problem, dtype), known.leaves)


def wrong_memory(operator: str, problem: str, run) -> str:
    return find_wrong_memory(run, given(operator, problem), OPERATORS[operator].leaves)


# the interpreter takes seconds for what a GPU does in microseconds: one small problem each
@pytest.mark.skipif(triton.missing is not None or not triton.interpreted, reason="Triton is not interpreted")
@pytest.mark.parametrize(
    ("operator", "problem"),
    [
        ("sinkhorn_from_cost", "zero weights"),
        ("sinkhorn", "one point"),
        ("subspace_basis", "a rank"),
        ("geodesic_cosine", "one direction"),
    ],
)
def test_triton_passes_and_off_by_a_hundredth_does_not(operator, problem):
    run = OPERATORS[operator].implementations["triton"].run
    assert not wrong_values(operator, problem, run)
    assert not wrong_memory(operator, problem, run)
    assert "is off by" in wrong_values(operator, problem, off_by_a_hundredth(run))


def emulated_cuda(solve):
    """CUDA's kernel, thread by thread on the host, in place of the operator."""

    def run(t, settings):
        numbers = {name: settings[name] for name in ("eps", "tol", "max_iter")}
        cost = proof_cases._within(t["cost"], proof_cases._problem(t, settings))
        lengths = [t.get(name) for name in "nm"]
        found = solve(cost, t["a"], t["b"], *lengths, reach=settings.get("reach", math.inf), **numbers)
        value, f, g, error, _ = (out.clone() for out in found)
        return {"value": value, "f": f, "g": g, "error": error}

    return run


@pytest.mark.parametrize("problem", ["zero weights", "ragged", "NaN"])
def test_cuda_passes_and_broken_it_does_not(solve, problem):
    known, inputs = OPERATORS["sinkhorn_from_cost"], given("sinkhorn_from_cost", problem)

    def definition(t, settings):
        found = known.definition(t, settings)
        del found["carried"]
        return found

    run = emulated_cuda(solve)
    assert not find_wrong_values(definition, run, inputs)
    assert not find_wrong_memory(run, inputs)
    broken = {
        "zero weights": (off_by_a_hundredth(run), "value is off by"),
        "ragged": (blind_to_lengths(run), "f is off by"),
        "NaN": (deaf_to_nan(run), "NaN in its input does not reach"),
    }
    how, found = broken[problem]
    assert found in find_wrong_values(definition, how, inputs)


def off_by_a_hundredth(run):
    def broken(t, settings):
        name, *_ = found = run(t, settings)
        return {**found, name: found[name] * 1.01}

    return broken


def deaf_to_nan(run):
    return lambda t, settings: {name: out.nan_to_num(0.0) for name, out in run(t, settings).items()}


def blind_to_lengths(run):
    return lambda t, settings: run({name: x for name, x in t.items() if name not in "nm"}, settings)


def without(*names):
    return lambda run: (
        lambda t, settings: run({name: x for name, x in t.items() if name not in names}, settings)
    )


def at_settings(**other):
    return lambda run: lambda t, settings: run(t, {**settings, **other})


def off_in_the_gradient(run):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return 1.01 * grad

    return lambda t, settings: run(
        {name: Wrong.apply(x) if x.requires_grad else x for name, x in t.items()}, settings
    )


def cut_off(run):
    return lambda t, settings: {name: out.detach() for name, out in run(t, settings).items()}


def in_half(run):
    def rounded(x):
        return x.bfloat16().to(x.dtype) if x.is_floating_point() else x

    return lambda t, settings: run({name: rounded(x) for name, x in t.items()}, settings)


def cheap(run):
    return lambda t, settings: run({**t, "cost": t["cost"].clamp(max=9)}, settings)


def in_double(run):
    return lambda t, settings: {name: out.double() for name, out in run(t, settings).items()}


def the_other_way_round(run):
    return lambda t, settings: {name: out.flip(-1) for name, out in run(t, settings).items()}


@COMPILED
@pytest.mark.parametrize(
    ("operator", "problem", "breaks", "found"),
    [
        ("sinkhorn", "prompts", off_by_a_hundredth, "value is off by"),
        ("sinkhorn", "prompts", in_half, "is off by"),
        ("sinkhorn", "prompts", off_in_the_gradient, "gradient to x is off by"),
        ("sinkhorn", "zero weights", without("a"), "is off by"),
        ("sinkhorn", "ragged", blind_to_lengths, "is off by"),
        ("sinkhorn", "unbalanced", at_settings(reach=math.inf), "is off by"),
        ("sinkhorn", "dot", at_settings(cost="sqeuclidean"), "is off by"),
        ("sinkhorn", "a tolerance", at_settings(max_iter=2), "is off by"),
        ("sinkhorn", "NaN", deaf_to_nan, "NaN in its input does not reach"),
        ("sinkhorn_from_cost", "forbidden pairs", cheap, "is off by"),
        ("subspace_basis", "a rank", off_by_a_hundredth, "values is off by"),
        ("subspace_basis", "NaN", deaf_to_nan, "NaN in its input does not reach"),
        ("geodesic_cosine", "a few", off_in_the_gradient, "gradient to x is off by"),
        ("geodesic_cosine", "a few", cut_off, "there is no gradient to x"),
        ("geodesic_cosine", "a few", in_double, "is torch.float64"),
        ("principal_angles", "unequal ranks", off_by_a_hundredth, "angles is off by"),
        ("assignment", "square", the_other_way_round, "columns differs"),
        ("displacement", "square", off_by_a_hundredth, "moved is off by"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(operator, problem, breaks, found):
    run = OPERATORS[operator].implementations["native"].run
    assert not wrong_values(operator, problem, run)
    assert found in wrong_values(operator, problem, breaks(run))


def test_a_nan_that_spreads_to_other_problems_is_found():
    def spreads(t, settings):
        found = OPERATORS["sinkhorn_from_cost"].definition(t, settings)
        return {**found, "value": found["value"] + 0 * found["value"].sum()}

    assert "value is finite where it should not be" in wrong_values("sinkhorn_from_cost", "NaN", spreads)


def doubled(t, settings):
    """The least that has an output of its own, made as an operator makes it."""
    out = torch.empty_like(t["x"])
    out.copy_(2 * t["x"])
    return {"out": out}


def beyond(x, first: int, last: int):
    """Memory beside a tensor, in elements from its begin, where it is there at all; a kernel does not ask."""
    x = x.detach()
    begin = x.storage_offset() + first
    if begin < 0 or x.untyped_storage().nbytes() < (x.storage_offset() + last) * x.element_size():
        return x.new_zeros(last - first)
    return x.as_strided((last - first,), (1,), begin)


def writes_behind(t, settings):
    found = doubled(t, settings)
    out = found["out"]
    beyond(out, out.numel(), out.numel() + 1).zero_()
    return found


def writes_before(t, settings):
    found = doubled(t, settings)
    beyond(found["out"], -1, 0).zero_()
    return found


def writes_behind_its_input(t, settings):
    beyond(t["x"], t["x"].numel(), t["x"].numel() + 1).zero_()
    return doubled(t, settings)


def reads_behind(t, settings):
    return {"out": doubled(t, settings)["out"] + 0 * beyond(t["x"], t["x"].numel(), t["x"].numel() + 1)}


def leaves_one_out(t, settings):
    out = torch.empty_like(t["x"])
    out.view(-1)[1:] = 2 * t["x"].view(-1)[1:]
    return {"out": out}


def changes_its_input(t, settings):
    found = doubled(t, settings)
    t["x"].zero_()
    return found


def has_other_bits():
    turn = 0

    def run(t, settings):
        nonlocal turn
        turn += 1
        # one bit, in one number
        out = doubled(t, settings)["out"]
        out.view(-1).view(torch.int32)[3] ^= turn % 2
        return {"out": out}

    return run


@pytest.mark.parametrize(
    ("run", "found"),
    [
        (doubled, ""),
        (writes_behind, "it writes beside its tensors"),
        (writes_before, "it writes beside its tensors"),
        (writes_behind_its_input, "it writes beside its tensors"),
        (reads_behind, "out has other bits the second time"),
        (changes_its_input, "it changes its input x"),
        (has_other_bits(), "out has other bits the second time"),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_what_is_done_to_memory_is_found(run, found):
    inputs = proof_checks.Inputs({"x": torch.arange(12.0).view(3, 4)}, {})
    assert find_wrong_memory(run, inputs) == found


def test_what_is_not_written_is_found():
    inputs = proof_checks.Inputs({"x": 1 + torch.arange(12.0).view(3, 4)}, {})
    found = find_wrong_values(doubled, leaves_one_out, inputs) or find_wrong_memory(leaves_one_out, inputs)
    assert found
