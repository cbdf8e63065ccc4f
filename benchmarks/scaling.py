"""Transport between clouds whose rows are spread over processes: time, bytes passed and memory; and on paper.

    python -m benchmarks.scaling --out benchmarks/results/scaling.json

One thread a process, gloo, all processes on this machine. What is on paper is arithmetic: the measured rate
of a thread, and published rates of a GPU and of what connects it. Fills the tables of ``docs/scaling.md``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

import geokernels as gk
from geokernels import distributed
from geokernels._files import write_json
from geokernels.testing import cloud

from .gpu.floors import H200, Target
from .harness.machine import ROOT, machine
from .harness.rows import seconds
from .operators.memory import peak_extra

POINTS, FEATURES = 4096, 64  # of the clouds that are timed
HELD_POINTS, HELD_FEATURES = 6000, 512  # of those whose memory is measured: points are most of it
EPS = 20.0
FEW, MANY = 1, 9  # pairs of half-steps: their difference has no start in it
NUMBER = 4  # bytes, float32
STRIP = 8 << 20  # bytes that the compiled kernel keeps for itself: csrc/cpu/transport_clouds_sweep_kernel.h
HOW = {"whole": 2.0**40, "ring": 0.0}  # what points may take
PAPER_POINTS, PAPER_PROCESSES = (10**6, 10**7), (8, 64)
# bytes a second into one GPU: NVLink of 8 on a board (900 GB/s, both ways together), and one port of NDR
# InfiniBand each between boards (400 Gb/s); NVIDIA's data sheets of HGX H200 and ConnectX-7
NVLINK, INFINIBAND, BOARD = 450e9, 50e9, 8


class Passed(NamedTuple):
    """What a half-step passes and what a rank holds, in bytes, derived.

    Attributes:
        received: By a rank in a half-step, of the other cloud's potentials and, in a ring, points.
        held: By a rank at its worst, beyond its own rows.
    """

    received: float
    held: float


def derived(points: int, features: int, processes: int, how: str) -> Passed:
    """Of two clouds of as many points each, evenly spread."""
    mine = points / processes
    of_others = points - mine
    numbers = features + 1 if how == "ring" else 1
    scaled = 2 * mine * features
    if how == "whole":
        # both clouds, and what the kernel packs: the rows here, and the other cloud
        held = scaled + 2 * points * features + (mine + points) * features
    else:
        # what is sent, one block that is met, its points alone, the next, and both as the kernel packs them
        held = scaled + 3 * mine * (features + 1) + mine * features + 2 * mine * features
    return Passed(NUMBER * of_others * numbers, NUMBER * held + STRIP)


def rows_of(points: int, features: int, rank: int, size: int) -> list[torch.Tensor]:
    """This rank's rows of two clouds."""
    clouds = (cloud(points, features, seed=seed).float() for seed in (0, 1))
    return [rows.tensor_split(size)[rank].clone() for rows in clouds]


def timed(run: Callable[[int], object]) -> dict[str, float]:
    """Of a half-step: seconds on the clock and of the processor, bytes that came in, those of all ranks."""
    found = {}
    for pairs in (FEW, MANY):
        if dist.is_initialized():
            dist.barrier()
        start = time.perf_counter(), time.process_time(), received()
        run(pairs)
        if dist.is_initialized():
            dist.barrier()
        now = time.perf_counter(), time.process_time(), received()
        found[pairs] = [after - before for before, after in zip(start, now)]
    halves = 2 * (MANY - FEW)
    of_one = [(many - few) / halves for few, many in zip(found[FEW], found[MANY])]
    return dict(zip(("wall", "processor", "received"), of_one))


def received() -> int:
    """Bytes that came over the loopback interface since the machine was started."""
    lines = Path("/proc/net/dev").read_text(encoding="ascii").splitlines()
    return next(int(line.split(":")[1].split()[0]) for line in lines if line.strip().startswith("lo:"))


def solve(rows: Sequence[torch.Tensor], how: str, pairs: int) -> None:
    distributed.sinkhorn(*rows, eps=EPS, tol=0.0, max_iter=pairs, memory=HOW[how])


def as_rank(rounds: int, out: Path) -> None:
    """What a process of torchrun measures; the first writes it for all."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    held = rows_of(HELD_POINTS, HELD_FEATURES, rank, size)
    for how in HOW:
        solve([part[:200] for part in held], how, 1)
    found = {how: {"held": peak_extra(lambda how=how: solve(held, how, 1))} for how in HOW}
    rows = rows_of(POINTS, FEATURES, rank, size)
    runs: dict[str, list] = {how: [] for how in HOW}
    for _ in range(rounds):
        for how, seen in runs.items():
            seen.append(timed(lambda pairs, how=how: solve(rows, how, pairs)))
            seen[-1]["received"] /= size
    for how, seen in runs.items():
        found[how] |= best(seen)
    told = [None] * size
    dist.all_gather_object(told, found)
    if rank == 0:
        worst = {how: {key: max(one[how][key] for one in told) for key in found[how]} for how in HOW}
        out.write_text(json.dumps(worst), encoding="utf-8")
    dist.destroy_process_group()


def launched(processes: int, rounds: int) -> dict[str, dict[str, float]]:
    """What that many processes measure, by what they do with points."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(processes), "-m", "benchmarks.scaling", "--rank"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        given = "--rounds", str(rounds), "--out", str(out)
        subprocess.run([*command, *given], cwd=ROOT, env=environment, check=True)
        return json.loads(out.read_text(encoding="utf-8"))


def best(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """The least of each."""
    return {key: min(run[key] for run in runs) for key in runs[0]}


def measure(rounds: int, most: int) -> list[dict]:
    """A row for one process without ranks, and for each number of processes."""
    torch.set_num_threads(1)
    rows = rows_of(POINTS, FEATURES, 0, 1)
    alone = [timed(lambda pairs: gk.sinkhorn(*rows, eps=EPS, tol=0.0, max_iter=pairs)) for _ in range(rounds)]
    measured = [{"processes": 1, "how": "geokernels.sinkhorn", **best(alone)}]
    for processes in range(1, most + 1):
        found = launched(processes, rounds)
        measured += [{"processes": processes, "how": how, **found[how]} for how in HOW]
    return measured


def times(contents: dict) -> str:
    """A line for each number of processes."""
    head = (
        *("processes", "points", "a half-step on the clock", "of the processor, each"),
        *("beside one process, clock", "processor"),
    )
    ones = {row["how"]: row for row in contents["rows"] if row["processes"] == 1}
    lines = []
    for row in contents["rows"]:
        how = row["how"] if row["how"] in HOW else f"`{row['how']}`"
        found = [seconds(row[key]) for key in ("wall", "processor")]
        beside = [f"{ones[row['how']][key] / row[key]:.2f} x" for key in ("wall", "processor")]
        lines.append((str(row["processes"]), how, *found, *beside))
    return _table(head, lines)


def passed(contents: dict) -> str:
    """Bytes, derived and measured."""
    head = ("processes", "points", "received, derived", "measured", "held, derived", "measured")
    lines = []
    for row in contents["rows"]:
        if row["how"] not in HOW:
            continue
        half_step = derived(POINTS, FEATURES, row["processes"], row["how"])
        clouds = derived(HELD_POINTS, HELD_FEATURES, row["processes"], row["how"])
        lines.append(
            (
                str(row["processes"]),
                row["how"],
                *(f"{number / 1e3:.1f} kB" for number in (half_step.received, row["received"])),
                *(f"{number / 1e6:.0f} MB" for number in (clouds.held, row["held"])),
            )
        )
    return _table(head, lines)


def measured_rate(contents: dict) -> float:
    """Pairs a second of one rank alone, by its processor's time."""
    alone = (row for row in contents["rows"] if row["processes"] == 1 and row["how"] in HOW)
    return max(POINTS**2 / row["processor"] for row in alone)


def on_paper(contents: dict) -> str:
    """A half-step of more points on more processors, by arithmetic alone."""
    rate = measured_rate(contents)
    head = (
        *("points a cloud", "processors", "pairs, each", "arithmetic"),
        *("passing, whole", "ring", "held, whole", "ring"),
    )
    lines = []
    for points in PAPER_POINTS:
        for processes in PAPER_PROCESSES:
            each = points**2 / processes
            work = {"bytes": 0, "problems": points, "flops": 2 * FEATURES * each, "exps": each}
            floor, slowest = Target("", "", "", **work).floor(H200)
            link = NVLINK if processes <= BOARD else INFINIBAND
            costs = [derived(points, FEATURES, processes, how) for how in HOW]
            held = [f"{cost.held / 1e9:.2g} GB" for cost in costs]
            passing = [seconds(cost.received / link) for cost in costs]
            size, pairs = f"{points:,}", f"{each:.2g}"
            lines.append((size, f"{processes} H200", pairs, f"{seconds(floor)}, {slowest}", *passing, *held))
            lines.append((size, f"{processes} threads", pairs, _shown(each / rate), "", "", *held))
    return _table(head, lines)


def _shown(time: float) -> str:
    return f"{time / 3600:.1f} h" if time > 1000 else seconds(time)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *lines)) + "\n"


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--rounds", type=int, default=5, help="How often each is timed, in turn; the best counts."
    )
    parser.add_argument("--processes", type=int, default=2, help="The most, one thread each.")
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank:
        as_rank(args.rounds, args.out)
        return
    rows = measure(args.rounds, args.processes)
    write_json(args.out, {"rows": rows, "machine": machine()})
    print(times({"rows": rows}), passed({"rows": rows}), on_paper({"rows": rows}), sep="\n")


if __name__ == "__main__":
    main()
