"""The formulas that the kernels of the CPU and the GPU share, by themselves."""

import ctypes
import math

import pytest
import torch

from geokernels.reference import path
from geokernels.testing import assert_as_accurate, cloud

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])


@pytest.fixture(scope="module")
def formulas(emulated):
    library = emulated("shared_formulas")

    def call(name, dtype, *arguments):
        kind = {torch.float32: "_float", torch.float64: "_double", None: ""}[dtype]
        types = {float: ctypes.c_double, int: ctypes.c_int64}
        given = (
            ctypes.c_void_p(part.data_ptr()) if isinstance(part, torch.Tensor) else types[type(part)](part)
            for part in arguments
        )
        return getattr(library, name + kind)(*given)

    return call


@DTYPES
@pytest.mark.parametrize("ratio", [1.0, 1e-3, 1e3], ids=str)
def test_a_turn_makes_rows_orthogonal(formulas, ratio, dtype):
    rows = cloud(2, 7, seed=0).to(dtype) * torch.tensor([[1.0], [ratio]]).to(dtype)
    before, squares = rows.clone(), rows.square().sum(-1)
    assert formulas("turn", dtype, rows[0], rows[1], 7, squares.max().item())
    cosine = (rows[0] * rows[1]).sum() / rows.norm(dim=-1).prod()
    # products of short rows are rounded beside the long one
    assert abs(cosine) < 8 * torch.finfo(dtype).eps * max(ratio, 1 / ratio)
    torch.testing.assert_close(rows.square().sum(), squares.sum())
    # by at most an eighth of a circle: neither row takes the other's place
    assert ((rows * before).sum(-1) > 0).all()


def test_a_turn_leaves_alone_what_cannot_be_seen(formulas):
    orthogonal = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).double()
    tiny = torch.tensor([[1.0, 0.0], [1e-17, 1e-17]]).double()
    for rows in (orthogonal, tiny):
        before = rows.clone()
        assert not formulas("turn", torch.float64, rows[0], rows[1], 2, 4.0)
        assert torch.equal(rows, before)


@DTYPES
@pytest.mark.parametrize("reach", [math.inf, 0.5], ids=["balanced", "unbalanced"])
def test_half_step(formulas, reach, dtype):
    eps, out = 0.2, torch.empty(3, dtype=dtype)
    lam = 1.0 if reach == math.inf else reach / (reach + eps)
    for total, potential in ((0.3, -1.5), (1e6, 2.0)):
        formulas("step", dtype, eps, reach, torch.tensor([total, potential, 0.25], dtype=dtype), out)
        scale = total**-lam * math.exp(-(1 - lam) * potential)
        wanted = 1.0 if reach == math.inf else math.exp(-(potential + 0.25) * eps / reach)
        expected = torch.tensor([scale, 0.0 if reach == math.inf else math.log(scale), wanted], dtype=dtype)
        torch.testing.assert_close(out, expected, rtol=16 * torch.finfo(dtype).eps, atol=0)
    # a point that takes no part
    formulas("step", dtype, eps, reach, torch.tensor([0.0, -math.inf, 0.0], dtype=dtype), out)
    assert out[:2].tolist() == [1, 0]


@DTYPES
def test_weights_of_angles(formulas, dtype):
    g = torch.cat([torch.linspace(0, 1, 33), 1 - 2.0 ** -torch.arange(1, 20)]).to(dtype)
    total, difference = torch.empty_like(g), torch.empty_like(g)
    formulas("weights", dtype, g, g.numel(), total, difference)
    for name, ours in (("sum", total), ("difference", difference)):
        assert_as_accurate(
            name, ours, getattr(path.weights(g), name), getattr(path.weights(g.double()), name)
        )


@pytest.mark.parametrize(
    ("found", "returned", "goes_on"),
    [
        ([1.0, 0.1, 0.005], [0.005], [1, 1, 0]),
        # what is returned is worse by as much as can be made up for
        ([0.009, 0.007, 0.003], [0.014, 0.012, 0.008], [1, 1, 0]),
        # nothing more can be had
        ([0.009], [0.05], [0]),
        ([math.nan], [math.nan], [0]),
        # the last one allowed
        ([1.0] * 4, [1.0], [1, 1, 1, 0]),
    ],
)
def test_when_an_iteration_ends(formulas, found, returned, goes_on):
    count = len(found)
    returned = [1.0] * (count - len(returned)) + returned
    out = torch.empty(count, dtype=torch.int32)
    parts = (torch.tensor(part, dtype=torch.float64) for part in (found, returned))
    formulas("stop", None, 0.01, 4, count, *parts, out)
    assert out.tolist() == goes_on


def test_what_rounding_hides_is_not_waited_for(formulas):
    """After a result that rounding made worse than the iteration, as many iterations again, and a few."""
    found = torch.tensor([1.0] * 9 + [0.009] * 91, dtype=torch.float64)
    out = torch.empty(100, dtype=torch.int32)
    formulas("stop", None, 0.01, 1000, 100, found, found + 0.005, out)
    assert out.tolist().index(0) == 27  # the tenth returned 0.014
