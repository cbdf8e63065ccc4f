"""What is measured on a GPU: cases of the CPU's families at sizes that fill one, and one that does not.

Nothing here has been run on a GPU yet; the page shows no row of it until one has.
"""

import importlib
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

import geokernels as gk

from ..harness.case import Case, Rival
from . import clouds as cloud_cases
from . import geodesic as geodesic_cases
from . import transport as transport_cases
from .clouds import Potentials
from .rivals import GEOMLOSS_KEOPS, plan_of, squared_distances
from .transport import EPS, D, N

DIFFERENT = 64  # problems; a larger batch repeats them
FULL, FEW = 4096, 16  # problems that fill a GPU, and that do not
COUPLED = 1000  # pairs of clouds that are coupled exactly
POINTS = {64: 50_000, 1024: 20_000}  # by features


def repeated(batch: int, make: Callable[[], tuple]) -> Callable[[], tuple]:
    """The tensors of ``make``, a batch of ``DIFFERENT`` problems, as one of ``batch`` on the GPU."""

    def on_gpu() -> tuple:
        times = math.ceil(batch / DIFFERENT)
        tensors = (part.cuda() if isinstance(part, Tensor) else part for part in make())
        return tuple(
            part.repeat(times, 1, 1)[:batch] if isinstance(part, Tensor) else part for part in tensors
        )

    return on_gpu


def on_gpu(case: Case, name: str, reason: str, make: Callable[[], tuple], **different) -> Case:
    return replace(
        case, name=name, reason=reason, make=make, device="cuda", threads=None, seconds=5.0, **different
    )


def streamed(precision: str, tol: float) -> Callable:
    """Ours from points, with Triton's products in ``precision``."""

    def run(x: Tensor, y: Tensor, eps: float) -> Potentials:
        most = transport_cases.MOST_STEPS
        solution = gk.sinkhorn(x, y, eps=eps, tol=tol, max_iter=most, backend="triton", precision=precision)
        return solution.f, solution.g

    return run


def flash_sinkhorn(allow_tf32: bool) -> Rival:
    """FlashSinkhorn's alternating half-steps, as few as reach the error, in full float32 or in TF32."""

    def run(x: Tensor, y: Tensor, eps: float, iterations: int) -> Potentials:
        losses = importlib.import_module("flash_sinkhorn")
        solve = losses.SamplesLoss(
            "sinkhorn", eps=eps, n_iters=iterations, backend="alternating", potentials=True,
            allow_tf32=allow_tf32,
        )  # fmt: skip
        return tuple(part.flatten() for part in solve(x, y))

    return Rival(
        run, needs=("flash_sinkhorn",), settings=(1, 2, 3, 5, 8, 12, 20, 30, 50, 100, 200, 500, 1000)
    )


def transport() -> list[Case]:
    of_costs, of_points = transport_cases.cost_cases()[0], transport_cases.cases()[4]
    costs = lambda: transport_cases.given_cost(DIFFERENT, EPS)  # noqa: E731
    points = lambda: transport_cases.points(DIFFERENT)  # noqa: E731
    return [
        on_gpu(
            of_points, f"sinkhorn, {FULL} pairs of clouds {N} x {D}, GPU",
            "a batch that fills the GPU, cost included, to marginal error 1e-4",
            repeated(FULL, points), targets={"ratio": 20},
        ),
        on_gpu(
            of_costs, f"sinkhorn, {FULL} costs {N} x {N}, GPU", "the same with the cost given",
            repeated(FULL, costs), targets={"ratio": 20},
        ),
        on_gpu(
            of_costs, f"sinkhorn, {FEW} costs {N} x {N}, GPU",
            "latency: too few problems to fill the GPU, from Python, to marginal error 1e-4",
            repeated(FEW, costs), targets={"ratio": 50, "seconds": 60e-6},
        ),
    ]  # fmt: skip


def gradient_to_cost(cost: Tensor, eps: float) -> Tensor:
    """The plan, which is the gradient of the value to the cost."""
    leaf = cost.detach().requires_grad_()
    transport_cases.solve(leaf, eps, transport_cases.TOLERANCE).value.sum().backward()
    return leaf.grad


def plan_by(rival: Rival) -> Rival:
    """A rival that leaves the plan, made of the potentials that it finds."""

    def run(cost: Tensor, eps: float, tol: float) -> Tensor:
        return plan_of(rival.run(cost, eps, tol), cost, eps)

    return replace(rival, run=run)


def gradient_error(result: tuple[Tensor, Tensor, Tensor], inputs: tuple) -> float:
    """The marginals' error, or that of the gradient to x, as a share of it, if that is larger."""
    f, g, grad = (part.double() for part in result)
    x, y, eps = inputs
    x, y = x.double(), y.double()
    plan = plan_of((f, g), squared_distances(x, y), eps)
    exact = 2 * (x * plan.sum(-1, keepdim=True) - plan @ y)
    share = ((grad - exact).norm() / exact.norm()).item()
    return max(transport_cases.cloud_error(result, inputs), share)


def gradients() -> list[Case]:
    """Values with their gradients: of costs, and of points."""
    of_costs = transport_cases.cost_cases()[0]
    of_points = next(case for case in transport_cases.cases() if case.name.startswith("sinkhorn value and"))
    costs = lambda: transport_cases.given_cost(DIFFERENT, EPS)  # noqa: E731
    points = lambda: transport_cases.points(DIFFERENT)  # noqa: E731
    return [
        on_gpu(
            of_points, f"sinkhorn value and gradient, {FULL} pairs of clouds {N} x {D}, GPU",
            "one step of moving a batch of clouds, to marginal error 1e-4",
            repeated(FULL, points), error=gradient_error,
        ),
        on_gpu(
            of_costs, f"sinkhorn value and gradient, {FULL} costs {N} x {N}, GPU",
            "the gradient to given costs, which is the plan, to marginal error 1e-4",
            repeated(FULL, costs), ours={"native": gradient_to_cost}, work=None, targets={},
            rivals={name: plan_by(rival) for name, rival in of_costs.rivals.items()},
        ),
    ]  # fmt: skip


def displacement() -> list[Case]:
    of_pairs = next(case for case in transport_cases.cases() if case.name.startswith("displacement"))

    def make() -> tuple:
        return tuple(part.cuda() for part in transport_cases.prompts(COUPLED))

    name = f"displacement, {COUPLED} pairs of clouds {N} x {D}, GPU"
    return [on_gpu(of_pairs, name, of_pairs.reason, make, targets={})]


def clouds() -> list[Case]:
    cases = []
    for features, points in POINTS.items():
        case = cloud_cases.cloud_case("", "", features=features, points=points)
        rivals = case.rivals | {
            "GeomLoss, KeOps": GEOMLOSS_KEOPS,
            "flash-sinkhorn": flash_sinkhorn(allow_tf32=False),
            "flash-sinkhorn, TF32": flash_sinkhorn(allow_tf32=True),
        }
        # all are held to one error against the points as they are given, in float64, and whose products round
        # more must still reach it; in full float32, without matrix units, nobody can be twice as fast
        ours = {
            f"triton, {precision}": streamed(precision, cloud_cases.TOLERANCE)
            for precision in ("bf16x3", "fp32")
        }

        def make(features=features, points=points) -> tuple:
            x, y, eps = cloud_cases.clouds(features, points)
            return x.cuda(), y.cuda(), eps

        cases.append(
            on_gpu(
                case, f"sinkhorn, clouds {points} x {features}, GPU",
                f"costs never formed, to marginal error {cloud_cases.TOLERANCE}",
                make, rivals=rivals, ours=ours,
                # the count of half-steps that the floor needs is made by a backend that runs on the CPU alone
                work=None,
                targets={"ratio to flash-sinkhorn": 2, "ratio to KeOps": 20},
            )
        )  # fmt: skip
    return cases


def geodesic() -> list[Case]:
    by_name = {case.name: case for case in geodesic_cases.cases()}
    case = next(case for name, case in by_name.items() if name.startswith("1024 times"))
    bases = next(case for name, case in by_name.items() if name.startswith("batched bases"))

    def moved(case: Case) -> Callable[[], tuple]:
        return lambda: tuple(part.cuda() for part in case.make())

    through_bases = geodesic_cases.cosine_case(
        "1024 times two bases and geodesic cosine, 16 x 512, gradient to x and through both bases",
        "the same where the subspaces follow the picture", (1024,), (0, 2, 3), 22,
    )  # fmt: skip
    return [
        on_gpu(
            case, f"{case.name}, GPU", case.reason, moved(case),
            ours={"native": case.ours["native"]}, targets={"ratio": 50},
        ),
        on_gpu(through_bases, f"{through_bases.name}, GPU", through_bases.reason, moved(through_bases)),
        on_gpu(bases, f"{bases.name}, GPU", bases.reason, moved(bases), targets={}),
    ]  # fmt: skip


def cases() -> list[Case]:
    """Every case for a GPU."""
    if not torch.cuda.is_available():
        raise ValueError("the GPU's cases need a GPU, torch sees none")
    return [*transport(), *gradients(), *displacement(), *clouds(), *geodesic()]
