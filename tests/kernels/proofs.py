"""What tests of proofs share: what is concluded of a GPU that is not there, and what a process asks of it."""

import pytest
import torch

from geokernels.kernels import native, proof
from geokernels.kernels.proof_cache import Verdict
from geokernels.kernels.proof_runner import Outcome

COMPILED = pytest.mark.skipif(native.missing is not None, reason="there is no compiled library")
KEY = {"library": "abc", "gpu": "NVIDIA H200"}
PLAN = ("native sinkhorn", "triton sinkhorn")


def verdict(*ratios: float, asked: str = "small float32", **wrong: str) -> Verdict:
    return Verdict("2026-01-02", wrong, {asked: list(ratios)} if ratios else {})


NATIVE = Outcome(PLAN, {PLAN[0]: verdict(5.0, 9.0, 7.0), PLAN[1]: verdict(2.0, 3.0, 4.0)}, {})
KERNELS = ("native", "triton", "reference", "native", "triton")


def begin_anew(monkeypatch) -> None:
    """As another process would."""
    monkeypatch.setattr(proof, "_concluded", {})


def clouds(N=33, M=20, D=8, dtype=torch.float32):
    return torch.empty(2, N, D, dtype=dtype, device="meta"), torch.empty(2, M, D, dtype=dtype, device="meta")


def order(*sizes, **how):
    return proof.order("sinkhorn", *clouds(*sizes, **how))
