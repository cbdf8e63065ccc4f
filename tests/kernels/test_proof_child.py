"""What the child says of implementations: right, wrong, slow, or nothing where circumstances are to blame."""

import json

import pytest
import torch

from geokernels.kernels import proof, proof_cases, proof_checks, proof_child
from geokernels.kernels.proof_cache import Record
from geokernels.kernels.proof_cases import OPERATORS
from geokernels.kernels.proof_child import InconclusiveError, examine
from geokernels.kernels.proof_sizes import CLASSES, class_of

from .proofs import COMPILED

SINGLE = {"float32": (torch.float32,)}


@COMPILED
@pytest.mark.parametrize("operator", OPERATORS)
def test_the_library_passes(operator):
    known = OPERATORS[operator]._replace(timed={})
    precisions = {**SINGLE, "float64": (torch.float64,), "half": (torch.bfloat16,)}
    begun = []
    verdict = examine(known, "native", precisions, "cpu", None, begun.append)
    assert not verdict.wrong
    assert "float64, NaN" in begun or "NaN" not in known.problems
    assert len(begun) >= 3 * len(known.problems) - 12  # large clouds and other costs are refused


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("name", proof_cases.names())
def test_the_kernels_of_a_gpu_pass(name):
    implementation, _, operator = name.partition(" ")
    known = OPERATORS[operator]._replace(timed={})
    assert not examine(known, implementation, proof_cases.DTYPES, "cuda", None).wrong


class Hours:
    """Time that passes as implementations say, and no other."""

    now = 0.0

    def taking(self, run, *hours: float):
        turns = iter(hours)

        def slow(t, settings):
            self.now += next(turns, hours[-1])
            return run(t, settings)

        return slow

    def clock(self, run) -> float:
        began = self.now
        run()
        return self.now - began


@pytest.mark.parametrize(
    ("hours", "taken"),
    [([1.0], True), ([9.0], True), ([9.2], False), ([100.0], False)],
    ids=["ten times", "enough", "noise", "slow"],
)
def test_what_is_slow_is_not_taken(hours, taken):
    time = Hours()
    known = OPERATORS["assignment"]
    small = {"small": known.timed["small"][:1]}
    slow = proof_cases.Operator(
        time.taking(known.definition, 10.0),
        {"native": proof_cases.Implementation(lambda t, s: None, time.taking(known.definition, *hours))},
        (),
        {},
        small,
    )
    verdict = examine(slow, "native", SINGLE, "cpu", time.clock)
    assert verdict.speedups == {"small float32": [pytest.approx(10 / hours[0])]}
    orders = proof.orders_of(Record(verdicts={"native assignment": verdict}))
    assert (orders.get(("assignment", "small float32"), ("reference",))[0] == "native") is taken


def test_the_slower_of_values_and_gradients_counts():
    time = Hours()
    linear = lambda t, settings: {"out": 2 * t["x"]}  # noqa: E731

    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, grad):
            time.now += 50.0
            return 2 * grad

    inputs = proof_checks.Inputs({"x": torch.ones(2, 3)}, {})
    run = time.taking(lambda t, settings: {"out": Slow.apply(t["x"])}, 1.0)
    ratio = proof_checks.speedup(time.taking(linear, 10.0), run, inputs, ("x",), time.clock)
    assert ratio == pytest.approx(10 / 51)


@pytest.mark.parametrize("operator", OPERATORS)
def test_three_sizes_lie_in_each_class(operator):
    assert list(OPERATORS) == list(CLASSES)
    for size, makers in OPERATORS[operator].timed.items():
        assert len(makers) == 3
        for make in makers:
            tensors, settings, _ = make()
            # what is timed is the operator, on cards with little memory too
            assert sum(x.numel() for x in tensors.values()) < 2**26
            assert not settings.get("span")
            x = [x.float() for name, x in tensors.items() if name in ("cost", "x", "y", "p", "q")]
            if operator == "geodesic_cosine":
                x = [x[0], *x[2:]]
            assert class_of(operator, *x) == f"{size} float32"


class TestErrors:
    """What an error says, of whom."""

    def raising(self, error: Exception, *, definition: bool = False):
        def run(t, settings):
            raise error

        known = OPERATORS["assignment"]
        fails = {
            "native": proof_cases.Implementation(lambda t, s: None, known.definition if definition else run)
        }
        return known._replace(implementations=fails, definition=run if definition else known.definition)

    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
            RuntimeError("CUDA error: out of memory"),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"),
            MemoryError(),
            OSError(28, "No space left on device"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_circumstances_say_nothing(self, error):
        with pytest.raises(InconclusiveError):
            examine(self.raising(error), "native", SINGLE, "cpu", None)

    @pytest.mark.parametrize("error", [ValueError("K must be even"), RuntimeError("PassManager::run failed")])
    def test_what_an_implementation_raises_is_its_own(self, error):
        verdict = examine(self.raising(error), "native", SINGLE, "cpu", None)
        assert verdict.wrong["float32"].endswith(f"{type(error).__name__}: {error}")

    def test_nothing_can_be_looked_at_on_a_broken_gpu(self):
        error = RuntimeError("CUDA error: an illegal memory access was encountered")
        with pytest.raises(RuntimeError, match="illegal memory access"):
            examine(self.raising(error), "native", SINGLE, "cpu", None)

    def test_a_definition_that_fails_says_nothing_of_kernels(self):
        broken = self.raising(ValueError("this torch has no LAPACK"), definition=True)
        with pytest.raises(InconclusiveError, match="the definition failed: ValueError: this torch"):
            examine(broken, "native", SINGLE, "cpu", None)


@COMPILED
def test_what_the_child_says():
    lines = []
    plan = proof_cases.names()
    skip = [name for name in plan if name != "native assignment"]
    short = {"assignment": OPERATORS["assignment"]._replace(timed={})}
    proof_child.look(skip, lambda **said: lines.append(json.loads(json.dumps(said))), "cpu", None, short)
    assert lines[0] == {"plan": plan}
    assert lines[1] == {"name": "native assignment", "doing": "start"}
    assert {"name": "native assignment", "doing": "float64, square"} in lines
    assert lines[-2]["verdict"]["wrong"] == {}
    assert lines[-1] == {"done": True}
