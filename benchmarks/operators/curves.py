"""The same work at other tolerances, sizes and numbers of threads."""

import os
from collections.abc import Callable
from dataclasses import replace

import torch

from ..harness.case import BATCH, ERROR, FEATURES, POINTS, THREADS, Case, Rival
from . import clouds as cloud_cases
from . import geodesic as geodesic_cases
from . import transport as transport_cases

WIDE = 768  # the features of ViT-L/14
SECONDS = 2.0  # a curve shows its trend with fewer rounds than the table
WITHOUT_COMPILING = ("eager", "POT", "OTT-JAX")  # torch.compile spends a minute on so many sizes
CLOUDS_WITHOUT_COMPILING = ("eager in blocks", "KeOps")


def against_tolerance() -> list[Case]:
    """Error against time: every library asked for more and more, ours as well."""
    cases = []
    for tol in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        small = transport_cases.cost_case(
            f"64 costs 77 x 77, eps 0.05, to {tol:g}",
            "how the cost of accuracy grows",
            problems=64,
            tol=tol,
            curve="64 costs 77 x 77",
            series=ERROR,
            at=tol,
            seconds=SECONDS,
        )
        cases.append(small)
    for tol in (1e-1, 1e-2, 1e-3, 1e-4):
        # GeomLoss anneals its way to an error, and reached 8e-3 at best on the table's dense costs
        annealed = ("GeomLoss, KeOps",) if tol >= 1e-2 else ()
        large = cloud_cases.cloud_case(
            f"clouds 4000 x 3, to {tol:g}",
            "the same for clouds that are streamed",
            features=3,
            points=4000,
            tol=tol,
            curve="clouds 4000 x 3",
            names=CLOUDS_WITHOUT_COMPILING + annealed,
            series=ERROR,
            at=tol,
            seconds=SECONDS,
            patience=12.0,
        )
        cases.append(large)
    return cases


def against_sizes() -> list[Case]:
    """Scaling in n, d and the batch."""
    cases = [
        cloud_cases.cloud_case(
            f"clouds {n} x 3",
            "doubling the points quadruples the pairs",
            features=3,
            points=n,
            series=POINTS,
            curve="clouds n x 3",
            at=n,
            seconds=SECONDS,
            names=CLOUDS_WITHOUT_COMPILING,
        )
        for n in (500, 1000, 2000, 4000, 8000)
    ]
    cases += [
        transport_cases.cost_case(
            f"64 costs {n} x {n}",
            "to the largest size that one thread keeps in its cache",
            problems=64,
            size=n,
            series=POINTS,
            curve="64 costs n x n",
            at=n,
            seconds=SECONDS,
            names=WITHOUT_COMPILING,
        )
        for n in (16, 32, 77, 128, 256)
    ]
    cases += [
        transport_cases.cost_case(
            f"one cost {n} x {n}",
            "across 256 rows, beyond which they are swept in groups, and out of the caches",
            problems=0,
            size=n,
            series=POINTS,
            curve="one cost n x n",
            at=n,
            seconds=SECONDS,
            names=WITHOUT_COMPILING,
        )
        for n in (200, 256, 257, 320, 512, 1024, 2048, 4096)
    ]
    cases += [
        cloud_cases.cloud_case(
            f"2000 points in {d} dimensions",
            "from where exponentials dominate to where products do",
            features=d,
            points=2000,
            series=FEATURES,
            curve="clouds 2000 x d",
            at=d,
            seconds=SECONDS,
            names=CLOUDS_WITHOUT_COMPILING,
        )
        for d in (3, 16, 64, 512)
    ]
    return cases + against_rows() + against_directions()


def against_rows() -> list[Case]:
    """Bases of more and more rows: no drop where rotations end, nor where the kernel once did, at 128."""
    return [
        geodesic_cases.basis_case(
            f"basis of {n} rows, {WIDE} features",
            "views of one picture, and templates of many",
            (),
            n,
            WIDE,
            series=POINTS,
            curve=f"basis of n rows, {WIDE} features",
            at=n,
            seconds=SECONDS,
        )
        for n in (64, 128, 129, 160, 256, 512)
    ]


def against_directions() -> list[Case]:
    """Cosines between larger and larger subspaces: no drop where the kernel once ended, at 64."""
    return [
        geodesic_cases.directions_case(
            f"geodesic cosine of {k} directions, {WIDE} features",
            "bases of as many views or templates",
            k,
            WIDE,
            series=POINTS,
            curve=f"geodesic cosine of n directions, {WIDE} features",
            at=k,
            seconds=SECONDS,
        )
        for k in (32, 64, 65, 96, 128, 256)
    ]


def against_batches() -> list[Case]:
    """Scaling in the number of problems a call."""
    cases = [
        transport_cases.cost_case(
            f"{B} costs at once, 77 x 77",
            "from latency to throughput",
            problems=B,
            series=BATCH,
            curve="B costs 77 x 77",
            at=B,
            seconds=SECONDS,
            names=WITHOUT_COMPILING,
        )
        for B in (1, 4, 16, 64, 256)
    ]
    cases += [
        geodesic_cases.cosine_case(
            f"{B} geodesic cosines at once, 16 x 512",
            "from latency to throughput; gradient to x",
            (B,),
            (0,),
            10,
            series=BATCH,
            curve="B geodesic cosines 16 x 512",
            at=B,
            seconds=SECONDS,
        )
        for B in (1, 8, 64, 512)
    ]
    return cases


def on_threads(run: Callable, count: int) -> Callable:
    """The same call with so many threads of torch; setting a number that is set costs next to nothing."""

    def counted(*inputs):
        torch.set_num_threads(count)
        return run(*inputs)

    return counted


def thread_case(case: Case, curve: str) -> list[Case]:
    """Ours alone, with 2, 4, ... threads against one, in turn."""
    (run,) = case.ours.values()
    cores, counts = len(os.sched_getaffinity(0)), []
    while 2 ** (len(counts) + 1) <= cores:
        counts.append(2 ** (len(counts) + 1))
    return [
        replace(
            case,
            name=f"{curve}, {count} threads",
            reason="the same bits on more cores",
            ours={f"{count} threads": on_threads(run, count)},
            rivals={"one thread": Rival(on_threads(run, 1))},
            targets={"ratio to one thread": 1.8} if count == 2 else {},
            work=None,
            series=THREADS,
            curve=curve,
            at=count,
            seconds=3.0,
        )
        for count in counts
    ]


def against_threads() -> list[Case]:
    table = {case.name: case for case in (*transport_cases.cases(), *geodesic_cases.cases())}
    small = cloud_cases.cloud_case("clouds", "", features=64, points=4000)
    chosen = {
        "64 costs 77 x 77": table["sinkhorn, 64 costs 77 x 77"],
        "64 clouds 77 x 768": table["sinkhorn, 64 pairs of clouds 77 x 768"],
        "clouds 4000 x 64": small,
        "1024 geodesic cosines": table["1024 times two bases and geodesic cosine, 16 x 512, gradient to x"],
        "1024 bases 16 x 512": table["batched bases, 1024 x (16 x 512)"],
    }
    return [point for curve, case in chosen.items() for point in thread_case(case, curve)]


def cases() -> list[Case]:
    return against_tolerance() + against_sizes() + against_batches() + against_threads()
