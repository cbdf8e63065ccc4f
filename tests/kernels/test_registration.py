"""Every compiled operator is registered as torch wants it, folds a mapped dimension, and repeats its bits."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from geokernels.kernels import native
from geokernels.testing import cloud, orthonormal, weights

pytestmark = pytest.mark.skipif(native.missing is not None, reason=str(native.missing))

NO = (None,) * 3
OF_CLOUDS = 1, 2.0  # squared distances
NO_ANNEALING = 1.0, 0.5


def registered() -> set[str]:
    """Names of the operators that torch knows of; those of Triton's kernels are in their own tests."""
    names = torch._C._dispatch_get_all_op_names()
    names = {name.split("::")[1].split(".")[0] for name in names if name.startswith("geokernels::")}
    return {name for name in names if not name.startswith("triton_")}


def clouds():
    """Points, potentials and weights of two problems."""
    x, y = cloud(2, 4, 3, seed=0), cloud(2, 5, 3, seed=1)
    return x, y, cloud(2, 4, seed=2), cloud(2, 5, seed=3), weights(2, 4, seed=4), weights(2, 5, seed=5)


def frame():
    """Rows and bases, and what the forward pass of the geodesic cosine keeps."""
    parts = (
        *(cloud(2, 5, 17, seed=seed) for seed in (0, 1)),
        *(orthonormal(2, 17, 3, seed=seed).mT.contiguous() for seed in (2, 3)),
    )
    return parts, torch.ops.geokernels.geodesic_cosine(*parts, 1e-12)


def subspace_basis_backward():
    left, directions, values = torch.ops.geokernels.subspace_basis(cloud(2, 5, 17, seed=0), 3, 1e-9)
    return torch.ones_like(directions), torch.ones_like(values), left, directions, values, 3


def geodesic_cosine_backward():
    parts, (cosine, *kept) = frame()
    return torch.ones_like(cosine), *parts, *kept, 1e-12, True, True, False, True


def solve_adjoint_clouds():
    x, y, _, _, a, b = clouds()
    _, f, g, *_ = torch.ops.geokernels.sinkhorn_clouds(
        x, y, a, b, *NO, *OF_CLOUDS, math.inf, *NO_ANNEALING, 500, 1e-13
    )
    grad_f, grad_g = cloud(2, 4, seed=6), cloud(2, 5, seed=7)
    grad_f, grad_g = (part - part.mean(-1, keepdim=True) for part in (grad_f, grad_g))
    return x, y, f, g, a, b, grad_f, grad_g, *OF_CLOUDS, math.inf


def exact_transport_backward():
    cost, a, b = ARGUMENTS["exact_transport"]()
    value, f, g, rows, columns, mass, _ = torch.ops.geokernels.exact_transport(cost, a, b)
    return torch.ones_like(value), cost, a, b, f, g, rows, columns, mass, True, True, False


# arguments that every operator can be called with; those of more kinds are in the tests of its family
ARGUMENTS = {
    "constant": lambda: (cloud(2, 3, seed=0), "an operator"),
    "subspace_basis": lambda: (cloud(2, 5, 17, seed=0), 3, 1e-9),
    "subspace_basis_backward": subspace_basis_backward,
    "principal_angles": lambda: tuple(part.detach() for part in frame()[0][2:]),
    "geodesic_cosine": lambda: (*frame()[0], 1e-12),
    "geodesic_cosine_backward": geodesic_cosine_backward,
    "geodesic_loss": lambda: (
        *(cloud(2, 5, 17, seed=seed) for seed in range(4)),
        None,
        4,
        3,
        1e-6,
        1e-12,
        True,
        True,
    ),
    "sinkhorn": lambda: (cloud(2, 4, 5, seed=0).abs(), *clouds()[4:], *NO, 0.3, math.inf, 200, 1e-10),
    "sinkhorn_carry": lambda: (
        cloud(2, 4, 5, seed=0).abs(),
        cloud(2, 5, 3, seed=6),
        *clouds()[4:],
        *NO,
        0.3,
        math.inf,
        200,
        1e-10,
    ),
    "sinkhorn_points_carry": lambda: (
        *clouds()[:2],
        cloud(2, 5, 3, seed=6),
        *clouds()[4:],
        *NO,
        2,
        3.0,
        math.inf,
        200,
        1e-10,
    ),
    "sinkhorn_points": lambda: (*clouds()[:2], *clouds()[4:], *NO, 2, 3.0, math.inf, 200, 1e-10),
    "point_gradient": lambda: (cloud(2, 4, 5, seed=0), *clouds()[:2], 2),
    "transport_density": lambda: (cloud(2, 4, 5, seed=0), *clouds()[2:4], 0.5),
    "sinkhorn_clouds": lambda: (
        *clouds()[:2],
        *clouds()[4:],
        *NO,
        *OF_CLOUDS,
        math.inf,
        *NO_ANNEALING,
        200,
        1e-10,
    ),
    "multiply_clouds": lambda: (*clouds()[:4], None, None, cloud(2, 5, 2, seed=6), *OF_CLOUDS),
    "differentiate_clouds": lambda: (*clouds()[:4], *(cloud(2, n, 2, seed=n) for n in (4, 5)), 2, 2.0),
    "solve_adjoint_clouds": solve_adjoint_clouds,
    "assignment": lambda: (cloud(2, 3, 4, seed=0),),
    "exact_transport": lambda: (cloud(2, 4, 5, seed=0), *clouds()[4:]),
    "exact_transport_backward": exact_transport_backward,
    "displacement": lambda: (*clouds()[:2], cloud(2, 3, seed=6).sigmoid()),
}


def operator(name):
    return getattr(torch.ops.geokernels, name)


def tensors(found):
    return found if isinstance(found, tuple) else (found,)


def test_no_operator_is_left_out():
    assert registered() == set(ARGUMENTS)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_opcheck(name):
    torch.library.opcheck(operator(name).default, ARGUMENTS[name]())


@pytest.mark.parametrize("name", ARGUMENTS)
def test_vmap_folds_into_the_batch(name, recwarn):
    args = ARGUMENTS[name]()
    mapped = [torch.stack((arg, arg)) if isinstance(arg, torch.Tensor) else arg for arg in args]
    dims = tuple(0 if isinstance(arg, torch.Tensor) else None for arg in args)
    once, twice = (tensors(f) for f in (operator(name)(*args), torch.vmap(operator(name), dims)(*mapped)))
    for part, parts in zip(once, twice, strict=True):
        if part.dim() > 1 or part.numel() == 2:  # not what a call left out, which stays empty
            assert torch.equal(parts[0], part)
            assert torch.equal(parts[1], part)
    assert not [str(w.message) for w in recwarn if "batching rule" in str(w.message)]


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_gpu_has_the_same_shapes_and_derivatives(name):
    # by tensors without a memory, which no kernel runs on
    args = ARGUMENTS[name]()

    def run(device):
        inputs = [
            torch.empty(arg.shape, dtype=arg.dtype, device=device).requires_grad_(arg.is_floating_point())
            if isinstance(arg, torch.Tensor)
            else arg
            for arg in args
        ]
        return tensors(operator(name)(*inputs))

    with FakeTensorMode():
        for there, here in zip(run("cuda"), run("cpu"), strict=True):
            assert there.device.type == "cuda"
            assert (there.shape, there.dtype, there.stride()) == (here.shape, here.dtype, here.stride())
            assert there.requires_grad == here.requires_grad


@pytest.mark.parametrize("name", ARGUMENTS)
def test_runs_and_threads_change_no_bit(name):
    args = ARGUMENTS[name]()
    args = [x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in args]
    if name == "assignment":
        args = ARGUMENTS[name]()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            found.append(tensors(operator(name)(*args)))
    finally:
        torch.set_num_threads(before)
    for once, again, more in zip(*found, strict=True):
        assert torch.equal(once, again)
        assert torch.equal(again, more)
