"""What kernels are proved with: definitions, implementations, small problems, and sizes to time."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .. import reference
from ..reference import Problem
from ..reference.potentials import DensePairs
from . import geodesic, native, subspace, transport, transport_assignment, transport_clouds, triton
from .costs import PRODUCTS
from .proof_checks import Outputs, Run
from .proof_inputs import (
    Make,
    bases,
    clouds,
    costs,
    from_a_start,
    inside,
    matrices,
    pairs_of_rows,
    rows,
    ways,
    with_nan,
)

HALVES = (torch.float16, torch.bfloat16)
DTYPES = {"float32": (torch.float32,), "float64": (torch.float64,), "half": (torch.bfloat16, torch.float16)}


class Implementation(NamedTuple):
    """One way to compute an operator: why it cannot, or None, and how."""

    refuse: Callable[..., str | None]
    run: Run


class Operator(NamedTuple):
    """An operator, and all that its implementations are shown.

    Attributes:
        definition: What all are compared with.
        implementations: By name.
        leaves: The tensors that gradients go to.
        problems: Small ones, by what is particular about them.
        timed: Three of each class of sizes.
    """

    definition: Run
    implementations: Mapping[str, Implementation]
    leaves: tuple[str, ...]
    problems: Mapping[str, Make]
    timed: Mapping[str, tuple[Make, ...]]


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in HALVES else x


# transport


def _problem(t: Mapping[str, Tensor], settings: Mapping) -> Problem:
    lengths = (t["n"], t["m"]) if "n" in t else None
    a, b = (_wide(t[name]) if name in t else None for name in "ab")
    start = _wide(t["start"]) if "start" in t else None
    return Problem(a=a, b=b, lengths=lengths, init=start, **settings)


def _outputs(solution, pairs, problem: Problem, columns: int) -> Outputs:
    """What a solution says, and what its plan carries."""
    v = torch.linspace(-1, 1, 2 * columns, dtype=solution.g.dtype, device=solution.g.device).view(columns, 2)
    v = v.expand(*solution.g.shape[:-1], columns, 2)
    if problem.b is not None:
        v = problem.b[..., None] * v
    if problem.lengths is not None:
        v = torch.where(inside(columns, problem.lengths[1])[..., None], v, 0)
    f, g = (potential.detach() for potential in (solution.f, solution.g))
    carried = pairs.times(f, g, v.detach()).detach()
    if problem.lengths is not None:
        carried = torch.where(inside(carried.shape[-2], problem.lengths[0])[..., None], carried, 0)
    if problem.tol > 0:
        # where it stops differs by a step from one precision to another: the error must be what it says it is
        mass = problem.a * pairs.times(f, g, problem.b[..., None])[..., 0].detach()
        error = (mass - problem.a).abs().sum(-1)
        stops = ((found <= 2 * problem.tol).to(f.dtype) for found in (solution.error, error))
        return dict(zip(("stopped", "solved"), stops, strict=True))
    return {"value": solution.value, "f": f, "g": g, "error": solution.error, "carried": carried}


def _within(cost: Tensor, problem: Problem) -> Tensor:
    if problem.lengths is None:
        return cost
    there = [inside(*of_side) for of_side in zip(cost.shape[-2:], problem.lengths, strict=True)]
    return torch.where(there[0][..., :, None] & there[1][..., None, :], cost, math.inf)


def _of_costs(t, settings) -> Outputs:
    problem, cost = _problem(t, settings), _wide(t["cost"])
    cost = _within(cost, problem)
    return _outputs(reference.solve(cost, problem), DensePairs(cost, problem.eps), problem, cost.shape[-1])


def _native_of_costs(t, settings) -> Outputs:
    problem, cost = _problem(t, settings), _wide(t["cost"])
    cost = _within(cost, problem)
    pairs = transport.Pairs(cost, problem.eps)
    return _outputs(transport.solve(cost, problem), pairs, problem, cost.shape[-1])


def _triton_of_costs(t, settings) -> Outputs:
    from .triton import transport as of_triton  # triton loads on use

    problem, cost = _problem(t, settings), _wide(t["cost"])
    cost = _within(cost, problem)
    pairs = DensePairs(cost, problem.eps)
    return _outputs(of_triton.solve(cost, problem), pairs, problem, cost.shape[-1])


def _clouds(t) -> tuple[Tensor, Tensor]:
    """Points, those that do not count at 0, as the public operator hands them on."""
    x, y = t["x"], t["y"]
    if "n" in t:
        x, y = (
            torch.where(inside(part.shape[-2], t[count])[..., None], part, 0)
            for part, count in ((x, "n"), (y, "m"))
        )
    return x, y


def _of_points(t, settings) -> Outputs:
    problem, (x, y) = _problem(t, settings), map(_wide, _clouds(t))
    cost = _within(reference.pairwise_cost(x, y, problem.cost, problem.p), problem)
    return _outputs(reference.solve(cost, problem), DensePairs(cost, problem.eps), problem, cost.shape[-1])


def _native_of_points(t, settings) -> Outputs:
    problem, (x, y) = _problem(t, settings), _clouds(t)
    if not x.is_cuda or problem.cost == "cosine":  # the GPU's kernel reads half precision itself
        x, y = _wide(x), _wide(y)
    cost, solution = transport.solve_points(x, y, problem)
    return _outputs(solution, transport.Pairs(cost, problem.eps), problem, y.shape[-2])


def _refuse_points(t, settings) -> str | None:
    x = t["x"]
    if transport_clouds.are_large(x, t["y"]):
        return "large clouds have a compiled kernel on the CPU alone"
    if settings.get("cost", "sqeuclidean") not in PRODUCTS:
        return "its costs are made before it"
    return native.refuse(x, devices=("cpu", "cuda"))


def _triton_of_points(t, settings) -> Outputs:
    from .triton.transport_clouds import TRITON  # triton loads on use

    problem, (x, y) = _problem(t, settings), map(_wide, _clouds(t))
    pairs = transport_clouds.Pairs.of(x, y, problem, TRITON, (triton.PRECISIONS.index("fp32"),))
    return _outputs(transport_clouds.solve(pairs, problem), pairs, problem, y.shape[-2])


# subspaces


def _of_rows(decompose: Callable) -> Run:
    def run(t, settings) -> Outputs:
        basis, values = decompose(_wide(t["x"]), settings["rank"])
        return {"values": values, "span": basis @ basis.mT if settings["span"] else basis}

    return run


def _triton_basis(x: Tensor, rank: int):
    from .triton.subspace import decompose_rows  # triton loads on use

    return reference.subspace_basis(x, rank, svd=decompose_rows)


def _of_pairs(cosine: Callable) -> Run:
    def run(t, settings) -> Outputs:
        return {"cosine": cosine(*(_wide(t[name]).contiguous() for name in "xypq"), 1e-12)}

    return run


def _triton_cosine(*args):
    from .triton.geodesic import cosine  # triton loads on use

    return cosine(*args)


def _of_angles(angles: Callable) -> Run:
    return lambda t, settings: {"angles": angles(_wide(t["p"]), _wide(t["q"]))}


# assignment


def _of_matrix(assign: Callable) -> Run:
    return lambda t, settings: {"columns": assign(_wide(t["cost"]))}


def _of_paths(move: Callable) -> Run:
    def run(t, settings) -> Outputs:
        moved, columns = move(*(_wide(t[name]) for name in ("x", "y", "times")))
        return {"moved": moved, "columns": columns}

    return run


def _each(make: Callable[..., Make], **sizes: tuple) -> dict[str, tuple[Make, ...]]:
    return {name.replace("_", " "): tuple(make(*size) for size in three) for name, three in sizes.items()}


OPERATORS: dict[str, Operator] = {
    "sinkhorn": Operator(
        _of_points,
        {
            "native": Implementation(_refuse_points, _native_of_points),
            "triton": Implementation(lambda t, s: triton.refuse(t["x"]), _triton_of_points),
        },
        ("x", "y", "a", "b"),
        {
            # one point, less than a warp, several blocks, and more than one chunk of features
            "one point": clouds(2, 1, 1, 3),
            "zero weights": clouds(2, 17, 33, 5, zeros=2),
            "ragged": clouds(3, 19, 23, 6, ragged=True),
            "unbalanced": clouds(2, 40, 18, 4, zeros=1, reach=3.0),
            "prompts": clouds(2, 77, 77, 96),
            "dot": clouds(2, 20, 30, 8, cost="dot"),
            "cosine": clouds(2, 20, 30, 8, cost="cosine", eps=0.2),
            "a tolerance": clouds(2, 30, 20, 4, tol=1e-3, max_iter=500, eps=1.0),
            "above 128 a side": clouds(1, 200, 150, 16),
            "euclidean": clouds(2, 20, 30, 5, cost="euclidean", eps=1.0),
            "lp": clouds(2, 20, 30, 5, cost="lp", p=1.5, eps=2.0),
            "a start": from_a_start(clouds(2, 30, 20, 4)),
            "large": clouds(1, 300, 520, 20, zeros=1),
            "large and wide": clouds(1, 280, 300, 300, reach=100.0),
            "NaN": with_nan(clouds(3, 17, 20, 5), "x"),
        },
        {
            name: tuple(clouds(*size, max_iter=50) for size in three)
            for name, three in {
                "small": ((1, 33, 33, 64), (16, 64, 64, 512), (256, 16, 48, 128)),
                "middle": ((1, 77, 77, 768), (64, 77, 77, 768), (8, 256, 200, 64)),
                "large": ((1, 1000, 1000, 3), (1, 4096, 4096, 64), (4, 600, 700, 128)),
                "large and wide": ((1, 512, 512, 768), (1, 2048, 2048, 768), (4, 300, 300, 256)),
            }.items()
        },
    ),
    "sinkhorn_from_cost": Operator(
        _of_costs,
        {
            "native": Implementation(lambda t, s: transport.refuse(t["cost"]), _native_of_costs),
            "triton": Implementation(lambda t, s: triton.refuse(t["cost"]), _triton_of_costs),
        },
        ("cost", "a", "b"),
        {
            "one point": costs(2, 1, 1),
            "zero weights": costs(2, 17, 33, zeros=2),
            "forbidden pairs": costs(2, 20, 15, forbidden=True),
            "ragged": costs(3, 19, 23, ragged=True),
            "unbalanced": costs(2, 40, 18, zeros=1, reach=1.0),
            "prompts": costs(2, 77, 77),
            "a tolerance": costs(2, 30, 20, tol=1e-3, max_iter=500, eps=1.0),
            "a start": from_a_start(costs(2, 30, 20)),
            "above 128 a side": costs(1, 256, 150),
            "NaN": with_nan(costs(3, 17, 20), "cost"),
        },
        {
            name: tuple(costs(*size, max_iter=50) for size in three)
            for name, three in {
                "small": ((1, 33, 33), (32, 64, 64), (512, 16, 48)),
                "middle": ((1, 77, 77), (64, 77, 77), (8, 256, 200)),
                "large": ((1, 512, 512), (1, 2048, 2048), (4, 300, 400)),
            }.items()
        },
    ),
    "subspace_basis": Operator(
        _of_rows(reference.subspace_basis),
        {
            "native": Implementation(
                lambda t, s: subspace.refuse_native(t["x"]),
                _of_rows(lambda x, rank: subspace.basis(x, rank, reference.default_rtol(x))),
            ),
            "triton": Implementation(lambda t, s: triton.refuse_rows(t["x"]), _of_rows(_triton_basis)),
        },
        ("x",),
        {
            "one row": rows(2, 1, 5),
            "more rows than features": rows(2, 9, 4),
            "a rank": rows(2, 8, 60, 3),
            "many features": rows(2, 16, 512),
            "many rows": rows(1, 40, 100, 10),
            "NaN": with_nan(rows(3, 6, 20), "x"),
        },
        _each(
            partial(rows, span=False),  # which would take longer than all else
            small=((1, 16, 512), (64, 16, 512), (1024, 8, 512)),
            middle=((1, 64, 512), (16, 40, 768), (128, 64, 512)),
        ),
    ),
    "geodesic_cosine": Operator(
        _of_pairs(lambda *args: reference.geodesic_cosine(*args[:4], eps=args[4])),
        {
            "native": Implementation(
                lambda t, s: geodesic.refuse_native(t["x"], t["p"], t["q"]), _of_pairs(geodesic.cosine)
            ),
            "triton": Implementation(
                lambda t, s: triton.refuse_bases(t["x"], t["p"], t["q"]), _of_pairs(_triton_cosine)
            ),
        },
        ("x", "y", "p", "q"),
        {
            "one direction": pairs_of_rows(2, 3, 5, 1),
            "a few": pairs_of_rows(2, 7, 40, 4),
            "many rows": pairs_of_rows(1, 70, 100, 12),
            "many directions": pairs_of_rows(2, 5, 120, 33),
            "NaN": with_nan(pairs_of_rows(3, 5, 20, 3), "x"),
        },
        _each(
            pairs_of_rows,
            small=((1, 16, 512, 16), (16, 4, 512, 8), (256, 16, 512, 16)),
            middle=((1, 64, 512, 32), (16, 32, 768, 48), (64, 64, 512, 64)),
        ),
    ),
    "principal_angles": Operator(
        _of_angles(reference.principal_angles),
        {
            "native": Implementation(
                lambda t, s: subspace.refuse_angles(t["p"], t["q"]), _of_angles(subspace.angles)
            )
        },
        (),
        {
            "one direction": bases(2, 5, 1, 1),
            "unequal ranks": bases(2, 40, 3, 9),
            "many": bases(1, 120, 33, 40),
            "NaN": with_nan(bases(3, 20, 3, 4), "p"),
        },
        _each(
            bases,
            small=((1, 512, 16, 16), (16, 512, 8, 16), (256, 512, 16, 16)),
            middle=((1, 512, 32, 64), (16, 768, 48, 48), (64, 512, 64, 64)),
        ),
    ),
    "assignment": Operator(
        _of_matrix(reference.assignment),
        {
            "native": Implementation(
                lambda t, s: transport_assignment.refuse(t["cost"]),
                _of_matrix(transport_assignment.assignment),
            )
        },
        (),
        {
            "one": matrices(2, 1, 1),
            "square": matrices(2, 17, 17),
            "more columns": matrices(2, 33, 70),
        },
        _each(
            matrices,
            small=((1, 33, 33), (16, 64, 64), (256, 16, 48)),
            middle=((1, 77, 77), (32, 77, 77), (4, 256, 256)),
            large=((1, 300, 300), (1, 700, 700), (4, 300, 400)),
        ),
    ),
    "displacement": Operator(
        _of_paths(reference.displacement),
        {
            "native": Implementation(
                lambda t, s: transport_assignment.refuse(t["x"]), _of_paths(transport_assignment.displacement)
            )
        },
        ("x", "y", "times"),
        {"one": ways(2, 1, 1, 3), "square": ways(2, 17, 17, 5), "more columns": ways(2, 20, 40, 8)},
        _each(
            ways,
            small=((1, 33, 33, 64), (16, 64, 64, 64), (128, 16, 48, 64)),
            middle=((1, 77, 77, 768), (32, 77, 77, 768), (4, 256, 256, 64)),
            large=((1, 300, 300, 64), (1, 700, 700, 64), (4, 300, 400, 64)),
        ),
    ),
}


def names() -> list[str]:
    """All that can be proved, as ``"native sinkhorn"``; first what has nothing to compile."""
    return [
        f"{implementation} {operator}"
        for implementation in ("native", "triton")
        for operator, known in OPERATORS.items()
        if implementation in known.implementations
    ]
