"""What is asked on a GPU, and the least time that arithmetic allows for it on one that is published well.

Nothing here is measured, and nothing a promise: a floor is the work counted, over rates of a data sheet.
"""

from dataclasses import dataclass
from typing import NamedTuple

# pairs of half-steps that the CPU's kernels need for the error asked for: the mean of 64 problems; of clouds
SMALL_STEPS, CLOUD_STEPS = 16.4, 2


@dataclass(frozen=True)
class Card:
    """A GPU's published rates.

    Attributes:
        name: Whose.
        multiprocessors: How many.
        bandwidth: Bytes of its memory, a second.
        flops: Float32, a second, a multiply-add counted as two.
        products: The same of bfloat16 on tensor cores, dense.
    """

    name: str
    multiprocessors: int
    bandwidth: float
    flops: float
    products: float

    @property
    def exps(self) -> float:
        """Exponentials a second: 16 lanes of a multiprocessor make them, 128 multiply and add."""
        return self.flops / 2 * 16 / 128


H200 = Card("H200", 132, 4.8e12, 67e12, 989e12)


class Target(NamedTuple):
    """What is asked of one piece of work, and the least that it takes.

    Attributes:
        work: What is computed.
        asked: The target.
        case: Its name among the cases of :mod:`benchmarks.operators.gpu`.
        problems: As many multiprocessors can be at work at once.
        bytes: Inputs read once, outputs written once.
        flops: Of float32.
        products: Flops of products that may run on tensor cores.
        exps: Exponentials.
    """

    work: str
    asked: str
    case: str
    problems: float
    bytes: float
    flops: float = 0
    products: float = 0
    exps: float = 0

    def floor(self, card: Card) -> tuple[float, str]:
        """Seconds, and what needs them: all units run side by side, the slowest of them decides."""
        share = min(1.0, self.problems / card.multiprocessors)
        times = {
            "memory": self.bytes / card.bandwidth,
            "float32": self.flops / (share * card.flops),
            "tensor cores": self.products / (share * card.products),
            "exponentials": self.exps / (share * card.exps),
        }
        slowest = max(times, key=times.get)
        return times[slowest], slowest


def small(problems: int, N: int, D: int | None, steps: float, size: int) -> dict:
    """Transport of N points a side, from points of ``size`` bytes a number, or, without D, from costs."""
    pairs = problems * N * N
    return {
        "problems": problems,
        "bytes": size * (2 * problems * N * D if D else pairs) + 8 * problems * N,
        "flops": 4 * pairs * steps,  # the plan's kernel times a vector, along rows and columns
        "products": 2 * pairs * (D or 0),
        "exps": pairs,
    }


def clouds(N: int, D: int, steps: float) -> dict:
    """Transport of N points a side, costs never kept: a product, and exponentials, serve both half-steps."""
    pairs = steps * N * N
    products, numbers = 2 * pairs * D, 4 * (2 * N * D + 2 * N)
    return {"problems": N, "bytes": numbers, "products": products, "exps": pairs}


def cosines(problems: int, N: int, D: int) -> dict:
    """Two bases and the cosine, with its gradient to one side: ten products of N x N x D, in float32."""
    return {"problems": problems, "bytes": 4 * problems * 5 * N * D, "flops": 2 * 10 * problems * N * N * D}


TARGETS = (
    Target(
        "4096 pairs of clouds 77 x 768, cost included, one launch",
        "20 x POT on the same GPU; 0.8 ms in bfloat16",
        "sinkhorn, 4096 pairs of clouds 77 x 768, GPU",
        **small(4096, 77, 768, SMALL_STEPS, 2),
    ),
    Target(
        "16 costs 77 x 77, latency from Python",
        "50 x the loop of torch, 60 us",
        "sinkhorn, 16 costs 77 x 77, GPU",
        **small(16, 77, None, SMALL_STEPS, 4),
    ),
    Target(
        "clouds 50,000 x 64, streamed",
        "2 x flash-sinkhorn, 20 x KeOps",
        "sinkhorn, clouds 50000 x 64, GPU",
        **clouds(50_000, 64, CLOUD_STEPS),
    ),
    Target(
        "1024 geodesic cosines 16 x 512, forward and backward",
        "50 x torch.linalg",
        "1024 times two bases and geodesic cosine, 16 x 512, gradient to x, GPU",
        **cosines(1024, 16, 512),
    ),
)
