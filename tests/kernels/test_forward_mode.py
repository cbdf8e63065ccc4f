"""Forward mode of every operator is the transpose of its reverse mode, or refuses: never silently zero."""

import pytest
import torch
from torch.autograd import forward_ad

from geokernels.kernels import native, triton

pytestmark = [
    pytest.mark.cpu,
    pytest.mark.skipif(native.missing is not None, reason=str(native.missing)),
    # torch scripts decompositions when it first makes a dual number
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),
]

if not native.missing:
    # what has them registered, so that the registry knows of all
    import geokernels.kernels.triton.geodesic
    import geokernels.kernels.triton.subspace
    import geokernels.kernels.triton.transport
    import geokernels.kernels.triton.transport_clouds  # noqa: F401
    from tests.kernels.test_registration import (
        ARGUMENTS,
        NO,
        NO_ANNEALING,
        OF_CLOUDS,
        clouds,
        operator,
        tensors,
    )

FP32 = 0


def everything() -> list[str]:
    """Names of all operators that torch knows of."""
    names = torch._C._dispatch_get_all_op_names()
    return sorted({name.split("::")[1].split(".")[0] for name in names if name.startswith("geokernels::")})


def triton_geodesic_cosine():
    x, y, p, q, eps = ARGUMENTS["geodesic_cosine"]()
    return x, y, p.mT, q.mT, eps


def triton_geodesic_cosine_backward():
    parts = triton_geodesic_cosine()
    cosine, *kept = torch.ops.geokernels.triton_geodesic_cosine(*parts)
    return torch.ones_like(cosine), *parts[:4], *kept, parts[4]


# of Triton's operators, those that take something else than the compiled ones
OF_TRITON = {
    "triton_decompose_rows": lambda: ARGUMENTS["subspace_basis"]()[:1],
    "triton_geodesic_cosine": triton_geodesic_cosine,
    "triton_geodesic_cosine_backward": triton_geodesic_cosine_backward,
    "triton_sinkhorn": ARGUMENTS["sinkhorn"] if not native.missing else None,
    "triton_sinkhorn_given": ARGUMENTS["sinkhorn"] if not native.missing else None,
    "triton_sinkhorn_clouds": lambda: (
        *clouds()[:2],
        *clouds()[4:],
        *NO,
        *OF_CLOUDS,
        1.0,
        *NO_ANNEALING,
        60,
        1e-12,
        FP32,
    ),
}


def arguments(name: str) -> tuple:
    if name in ARGUMENTS:
        return ARGUMENTS[name]()
    if name in OF_TRITON:
        return OF_TRITON[name]()
    return *ARGUMENTS[name.removeprefix("triton_")](), FP32


# operators that refuse, with what they say
REFUSALS = {
    "constant": "an operator has first derivatives only",
    "subspace_basis_backward": "subspace_basis has first derivatives only",
    "geodesic_cosine_backward": "geodesic_cosine has first derivatives only",
    "exact_transport_backward": "exact_transport has first derivatives only",
    "triton_geodesic_cosine_backward": "geodesic_cosine has first derivatives only",
    "triton_decompose_rows": "triton_decompose_rows has no derivative",
    "principal_angles": "principal_angles has no derivative",
    "sinkhorn_carry": "sinkhorn_carry has no derivative",
    "sinkhorn_points_carry": "sinkhorn_points_carry has no derivative",
}
for _passes in ("", "triton_"):
    REFUSALS[_passes + "differentiate_clouds"] = "no second derivative for the costs 'euclidean' and 'lp'"
    REFUSALS[_passes + "solve_adjoint_clouds"] = "first derivatives only between large clouds"
# whose results are integers
WITHOUT = {"assignment"}
# inputs that a constant of the problem stands for: no derivative reaches them
CONSTANT = {"geodesic_loss": (1, 2, 3)}


def differentiable_part(name):
    """The operator as a function of its floating-point inputs, those, and a tangent for each."""
    args = list(arguments(name))
    at = [i for i, arg in enumerate(args) if isinstance(arg, torch.Tensor) and arg.is_floating_point()]
    at = [i for i in at if i not in CONSTANT.get(name, ())]

    def run(*inputs):
        for i, x in zip(at, inputs, strict=True):
            args[i] = x
        return tuple(part for part in tensors(operator(name)(*args)) if part.is_floating_point())

    chance = torch.Generator().manual_seed(1)
    inputs = tuple(args[i].detach() for i in at)
    moves = [torch.randn(x.shape, generator=chance, dtype=x.dtype) for x in inputs]
    # weights keep their mass: balanced, nothing else has a meaning
    moves = [v - v.mean(-1, keepdim=True) if v.shape in ((2, 4), (2, 5)) else v for v in moves]
    return run, inputs, tuple(moves)


def by_functorch(run, inputs, moves):
    return torch.func.jvp(run, inputs, moves)[1]


def by_dual_numbers(run, inputs, moves):
    with forward_ad.dual_level():
        found = run(*(forward_ad.make_dual(x, v) for x, v in zip(inputs, moves, strict=True)))
        tangents = [forward_ad.unpack_dual(part).tangent for part in found]
    return [torch.zeros_like(part) if v is None else v for part, v in zip(found, tangents, strict=True)]


def by_jacobian(run, inputs, moves):
    jacobians = torch.func.jacfwd(run, argnums=tuple(range(len(inputs))))(*inputs)

    def along(jacobian, x, v):
        return torch.tensordot(jacobian, v, x.dim())

    return [sum(map(along, of_output, inputs, moves)) for of_output in jacobians]


MODES = (by_functorch, by_dual_numbers, by_jacobian)


def test_every_operator_is_known():
    assert set(REFUSALS) | WITHOUT | set(OF_TRITON) <= set(everything())


def cases():
    """Every operator in every mode; Triton's, slow in the interpreter, in one, as the rules are the same."""
    if native.missing:
        return []
    names = [name for name in everything() if name not in WITHOUT]
    compiled = [name for name in names if not name.startswith("triton_")]
    slow = [name for name in names if triton.interpreted and name not in compiled]
    return [(name, mode) for name in compiled for mode in MODES] + [(name, by_functorch) for name in slow]


@pytest.mark.parametrize("name, mode", cases())
def test_forward_mode_is_the_transpose_of_reverse_mode(name, mode):
    run, inputs, moves = differentiable_part(name)
    if name in REFUSALS:
        with pytest.raises(NotImplementedError, match=REFUSALS[name]):
            mode(run, inputs, moves)
        return
    tangents = mode(run, inputs, moves)
    assert any(tangent.abs().max() > 1e-3 for tangent in tangents)
    leaves = [x.clone().requires_grad_() for x in inputs]
    found = run(*leaves)
    for part, tangent in zip(found, tangents, strict=True):
        if not part.requires_grad:
            assert not tangent.any()
            continue
        up = torch.randn(part.shape, generator=torch.Generator().manual_seed(2), dtype=part.dtype)
        grads = torch.autograd.grad(part, leaves, up, retain_graph=True, allow_unused=True)
        pulled = sum((g * v).sum() for g, v in zip(grads, moves, strict=True) if g is not None)
        torch.testing.assert_close((up * tangent).sum(), pulled, rtol=1e-6, atol=1e-8)
