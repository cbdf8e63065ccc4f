"""Cases for a GPU have names of their own, and run: on the CPU, at sizes that it bears."""

import pytest
import torch

from benchmarks import run
from benchmarks.harness.timing import admit
from benchmarks.operators import gpu
from geokernels.kernels import native


class OnGpu(torch.Tensor):
    """A tensor of the CPU that numpy may read only from a copy made there, as it is with those of a GPU."""

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def numpy(self):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy


@pytest.fixture
def cases(monkeypatch):
    """Every case by its name; no more problems than a CPU bears."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda x: x.as_subclass(OnGpu))
    for name, problems in {"DIFFERENT": 2, "FULL": 3, "FEW": 1, "COUPLED": 2}.items():
        monkeypatch.setattr(gpu, name, problems)
    return {case.name: case for case in gpu.cases()}


def test_names_and_targets_are_their_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = gpu.cases()
    names = [case.name for case in found]
    assert len(set(names)) == len(names)
    assert not set(names) & {case.name for case in run.all_cases()}
    assert all(case.device == "cuda" and case.ours and case.rivals for case in found)


@pytest.mark.skipif(native.missing is not None, reason="there is no compiled library")
@pytest.mark.parametrize(
    "name",
    [
        "sinkhorn, 3 pairs of clouds 77 x 768, GPU",
        "sinkhorn, 3 costs 77 x 77, GPU",
        "sinkhorn value and gradient, 3 pairs of clouds 77 x 768, GPU",
        "sinkhorn value and gradient, 3 costs 77 x 77, GPU",
        "displacement, 2 pairs of clouds 77 x 768, GPU",
    ],
)
def test_ours_and_a_rival_are_right(cases, name, monkeypatch):
    case = cases[name]
    inputs = case.make()
    monkeypatch.setattr("benchmarks.harness.timing.sample", lambda *given: 0.0)  # events of a GPU
    for (side, who), contender in case.contenders(rivals=True).items():
        if side == "ours" or who in ("eager", "eager, envelope", "scipy", "torch.cdist, scipy"):
            _, facts, _ = admit(case, contender, inputs)
            assert "why" not in facts, (who, facts)


def test_a_wrong_gradient_is_not_timed(cases):
    case = cases["sinkhorn value and gradient, 3 pairs of clouds 77 x 768, GPU"]
    inputs = case.make()
    f, g, grad = case.ours["native"](*inputs)
    assert case.error((f, g, grad), inputs) <= case.allowed < case.error((f, g, 1.01 * grad), inputs)
