"""No bits in the inputs make a kernel write where it must not, and its memory is as large as what it writes.

Heap corruption shows when memory is freed or asked for again, if at all: the calls run in a child process,
many times over, and crash it where a kernel is at fault.
"""

import subprocess
import sys
from textwrap import indent

import pytest
import torch

import geokernels as gk
from geokernels.kernels import native

LEVELS = native.build_info().get("simd_levels", [])
pytestmark = pytest.mark.skipif(native.missing is not None, reason=str(native.missing))

PRELUDE = """
import itertools, torch
import geokernels as gk
from geokernels.kernels import native
ops = torch.ops.geokernels
bad = 0.0
def spoilt(*shape, dtype=torch.float32):
    x = torch.randn(shape, dtype=dtype)
    x.view(-1)[x.numel() // 2] = bad
    return x
def swallow(call, *args):
    try:
        call(*args)
    except ValueError:
        pass
"""

SPOILT = {
    # rows of every number of lanes, of one to several blocks
    "subspace_basis": """
for rows, dtype in itertools.product((1, 2, 3, 5, 9, 17, 33, 40), (torch.float32, torch.float64)):
    x = spoilt(rows, 17, dtype=dtype)
    for _ in range(10):
        swallow(gk.subspace_basis, x)
        ops.subspace_basis(x, 3, 1e-6)
""",
    "geodesic_cosine": """
for K, L in ((1, 1), (3, 9), (17, 5), (33, 33)):
    x, y, p, q = (torch.randn(3, 4, 40), torch.randn(3, 4, 40), spoilt(3, K, 40), spoilt(3, L, 40))
    for _ in range(10):
        swallow(gk.geodesic_cosine, x, y, p.mT, q.mT)
        cosine, *frame = ops.geodesic_cosine(x, y, p, q, 1e-12)
        ops.geodesic_cosine_backward(cosine, x, y, p, q, *frame, 1e-12, True, True, True, True)
""",
    "principal_angles": """
for K, L in ((2, 3), (9, 17), (33, 20)):
    for _ in range(10):
        ops.principal_angles(spoilt(K, 40), torch.randn(L, 40))
        ops.principal_angles(torch.randn(K, 40), spoilt(L, 40))
""",
    "geodesic_loss": """
for rows in (1, 3, 9, 17, 33):
    for _ in range(10):
        ops.geodesic_loss(spoilt(rows, 40), None, spoilt(rows, 40), None, None, 1, 1, 0.0, 1e-12, True, True)
""",
}


EVERY_LEVEL = """
for level in native.build_info()["simd_levels"]:
    native.set_simd_level(level)
"""
EVERY_VALUE = """
    for bad in map(float, ("nan", "inf", "-inf", "3e38")):
"""


def run(script: str) -> None:
    """Run a script in a process of its own, which a fault of memory would end."""
    child = [sys.executable, "-u", "-c", PRELUDE + script]
    done = subprocess.run(child, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-100:] + done.stderr[-2000:]


def test_values_that_are_not_finite_or_overflow_corrupt_nothing():
    calls = "".join(f"print({name!r}, level, bad)\n{script}" for name, script in SPOILT.items())
    run(EVERY_LEVEL + EVERY_VALUE + indent(calls, " " * 8))


def test_a_loss_with_a_basis_of_more_columns_than_rows_or_more_texts_than_anything():
    run(
        EVERY_LEVEL
        + """
    for columns in (9, 30, 64):
        basis = torch.linalg.qr(torch.randn(64, columns))[0].mT.contiguous()
        for _ in range(30):
            ops.geodesic_loss(torch.randn(2, 64), None, torch.randn(2, 64), None, basis, 2, columns, 0.0,
                              1e-12, True, True)
    for texts in (1000, 20000):
        x, other, basis = torch.randn(1, 2), torch.randn(texts, 2), torch.eye(2)[:1].contiguous()
        for _ in range(30):
            ops.geodesic_loss(x, x + 1, other, other + 1, basis, 1, 1, 0.0, 1e-12, True, True)
"""
    )


@pytest.mark.parametrize("level", LEVELS)
def test_the_loss_of_a_basis_of_more_columns_than_rows_is_right(level, simd_level):
    simd_level(level)
    now = torch.randn(2, 40, dtype=torch.float64)
    other = torch.randn(2, 40, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(40, 30, dtype=torch.float64))[0]
    found, _ = torch.ops.geokernels.geodesic_loss(
        now, None, other, None, basis.mT.contiguous(), 2, 30, 0.0, 1e-12, False, False
    )
    own = gk.subspace_basis(now, 2).basis
    wanted = 1 - gk.geodesic_cosine(now, other, own, basis, backend="reference").mean()
    torch.testing.assert_close(found, wanted)


def column(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("level", LEVELS)
def test_points_that_overflow_the_assignment_go_nowhere(level, simd_level):
    # the costs are finite, and sums of a few of them are not
    simd_level(level)
    x = column(1.2602751913314129e154, -1.1261213354880356e154, -2.0329155e153, -1.0500398287176171e154)
    # the first is what a point of number -1 would be
    y = column(0.0, 0.0, 0.0, 0.0, -5.789184495215585e152)[1:]
    assert ((x - y.mT) ** 2).isfinite().all()
    moved, chosen = torch.ops.geokernels.displacement(x, y, column(0.5)[0])
    assert (chosen == -1).all()
    assert moved.isnan().all()
