"""Kill every command at random moments, resume it, damage its files, and count what is not as it should be.

    python scripts/campaign.py [--kills 30] [--damages 30] [--full-disks 10] [--seed 0] [--only morph ...]

A run that was killed must continue, or begin again where it had saved nothing, to the result of an
uninterrupted run, bit by bit. A damaged file must be found and said in a sentence, or change nothing. Where
a disk is full the command says so, and goes on from what it had once there is room. Moments, signals and
damages follow from the seed, what a signal meets does not. Prints a table; the exit code is 1 if anything
was wrong.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import campaign_runs as runs
from campaign_damage import damage

GOOD = ("identical", "begun again, identical", "a sentence", "harmless")
HEAD = ("kills", "resumed, identical", "begun again, identical", "damages", "sentences", "harmless")
HEAD += ("full disks", "tracebacks", "wrong")


@dataclass(frozen=True)
class Trial:
    """One thing that is done to one command; ``number`` makes it another trial."""

    command: str
    sort: str
    number: int


@dataclass(frozen=True)
class Found:
    """What came of a trial.

    Attributes:
        trial: Which.
        verdict: One of :data:`GOOD`, or "traceback", or "wrong".
        story: What was done and said.
    """

    trial: Trial
    verdict: str
    story: str


def uninterrupted(command: str, at: Path) -> float:
    """Run a command once; the seconds of the processor that it took."""
    work = runs.command([*_arguments(command, at), "--out", str(at / "whole" / command)])
    process = runs.Process(work, _log(at))
    ended = process.wait()
    if ended.code != 0:
        raise SystemExit(f"{command} fails before anything is done to it: {ended}")
    return process.seconds


def try_out(trial: Trial, *, at: Path, seconds: dict[str, float], seed: int, until: float) -> Found | None:
    """Do what a trial says, and judge what came of it; None if time is up."""
    if time.monotonic() > until:
        return None
    chance = random.Random(f"{seed}/{trial}")
    with tempfile.TemporaryDirectory(dir=at) as scratch:
        out = Path(scratch) / "out"
        run = _Run(trial.command, out, at, chance)
        story = {"kill": _kill, "damage": _damage, "full disk": _fill}[trial.sort](run, seconds, chance)
        return Found(trial, *story)


class _Run:
    """A command in a folder."""

    def __init__(self, command: str, out: Path, at: Path, chance: random.Random):
        self.command, self.out, self.at, self.chance = command, out, at, chance
        self.story: list[str] = []

    def start(self, *more: str, **how) -> runs.Process:
        options = [*_arguments(self.command, self.at), "--out", str(self.out), *more]
        return runs.Process(runs.command(options), self.out.with_suffix(".log"), **how)

    def killed(self, moment: float) -> runs.Ended:
        """Begin the run, and stop it at a moment."""
        number = self.chance.choice(runs.SIGNALS)
        process = self.start()
        process.reach(moment)
        process.kill(number)
        ended = process.wait()
        self.story.append(f"{number.name} after {moment:.2f} s: {ended.code}")
        return ended

    def resumed(self) -> tuple[runs.Ended, bool]:
        """Continue the run, or begin again where there is nothing to continue; whether it was the latter."""
        if self.command in runs.RESUMED_BY_ITSELF:
            return self.start().wait(), True
        ended = self.start("--resume").wait()
        nothing = "holds no checkpoint" in ended.said
        if ended.refused and nothing:
            ended = self.start().wait()
        elif ended.refused and "is finished" in ended.said:
            ended = runs.Ended(0, ended.said)
        self.story.append(f"resumed: {ended.code} {ended.said[-400:] if ended.code else ''}")
        return ended, nothing

    def differs(self) -> list[str]:
        found = runs.differences(self.out, self.at / "whole" / self.command)
        if found:
            self.story.append(f"differs: {', '.join(found)}")
        return found

    def told(self) -> str:
        faults = [p.read_text()[-1500:] for p in self.out.glob("geokernels-fault-*")]
        return "; ".join([*self.story, *faults])


def _kill(run: _Run, seconds: dict, chance: random.Random) -> tuple[str, str]:
    stopped = run.killed(chance.uniform(0, seconds[run.command]))
    if stopped.traceback:
        return "traceback", f"{run.told()}; {stopped.said[-1500:]}"
    ended, again = run.resumed()
    if ended.traceback:
        return "traceback", run.told()
    if ended.code != 0 or run.differs():
        return "wrong", run.told()
    return ("begun again, identical" if again else "identical"), run.told()


def _damage(run: _Run, seconds: dict, chance: random.Random) -> tuple[str, str]:
    run.killed(seconds[run.command] * chance.uniform(0.3, 1.0))
    if not run.out.is_dir() or not any(p.is_file() for p in run.out.rglob("*")):
        return "harmless", f"{run.told()}; nothing was written yet"
    if (run.out / "run.json").exists():
        return "harmless", f"{run.told()}; it was finished, or had begun to be"
    # torch is not run in this process
    damaging = runs.Process(lambda: print(damage(run.out, chance), file=sys.stderr), _log(run.at)).wait()
    run.story.append(damaging.said.strip())
    if damaging.code:
        raise RuntimeError(f"the campaign itself fails: {damaging}")
    ended, _ = run.resumed()
    if ended.traceback:
        return "traceback", run.told()
    if ended.refused:
        return "a sentence", run.told()
    if ended.code != 0 or run.differs():
        return "wrong", run.told()
    return "harmless", run.told()


def _fill(run: _Run, seconds: dict, chance: random.Random) -> tuple[str, str]:
    # what is said goes to a file, too, and must fit
    ended = run.start(largest=int(2 ** chance.uniform(11, 19))).wait()
    run.story.append(f"full disk: {ended.code} {ended.said[-400:] if ended.code else ''}")
    if ended.traceback:
        return "traceback", run.told()
    if ended.code not in (0, 2):
        return "wrong", run.told()
    again, _ = run.resumed()
    if again.traceback:
        return "traceback", run.told()
    return ("wrong" if again.code != 0 or run.differs() else "a sentence"), run.told()


def _arguments(command: str, at: Path) -> list[str]:
    return runs.commands(at / "given")[command]


def _log(at: Path) -> Path:
    return at / f"{os.getpid()}.log"


def table(found: list[Found], names: list[str]) -> str:
    """A row a command."""
    rows = []
    for name in [*names, "all"]:
        mine = [f for f in found if name in (f.trial.command, "all")]
        count = Counter((f.trial.sort, f.verdict) for f in mine)
        sorts, verdicts = Counter(f.trial.sort for f in mine), Counter(f.verdict for f in mine)
        damages = [count["damage", verdict] for verdict in ("a sentence", "harmless")]
        kills = [count["kill", verdict] for verdict in GOOD[:2]]
        bad = [verdicts["traceback"], verdicts["wrong"]]
        rows.append([name, sorts["kill"], *kills, sorts["damage"], *damages, sorts["full disk"], *bad])
    lines = [["command", *HEAD], ["---"] * (len(HEAD) + 1), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def campaign(args: argparse.Namespace, at: Path) -> list[Found]:
    """Every trial that is asked for."""
    (at / "given").mkdir()
    runs.Process(partial(runs.write_inputs, at / "given"), _log(at)).wait()
    names = [name for name in runs.commands(at / "given") if not args.only or name in args.only]
    with multiprocessing.get_context("fork").Pool(args.workers) as pool:
        seconds = dict(zip(names, pool.map(partial(uninterrupted, at=at), names, chunksize=1)))
        print("seconds of each:", json.dumps({k: round(v, 1) for k, v in seconds.items()}), flush=True)
        asked = {"kill": args.kills, "damage": args.damages, "full disk": args.full_disks}
        trials = [Trial(names[i % len(names)], sort, i) for sort, n in asked.items() for i in range(n)]
        random.Random(args.seed).shuffle(trials)
        until = time.monotonic() + 60 * args.minutes
        trying, found = partial(try_out, at=at, seconds=seconds, seed=args.seed, until=until), []
        for one in filter(None, pool.imap_unordered(trying, trials)):
            found.append(one)
            if one.verdict not in GOOD or args.verbose:
                print(f"{one.verdict}: {one.trial}: {one.story}", flush=True)
    print(table(found, names))
    return found


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--damages", type=int, default=30)
    parser.add_argument("--full-disks", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="Begin no trial after these.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", action="append", help="A command of the table; repeat for several.")
    parser.add_argument("--verbose", action="store_true", help="Tell of what was as it should be, too.")
    args = parser.parse_args()
    runs.preload()
    at = Path(tempfile.mkdtemp(prefix="campaign-"))
    try:
        found = campaign(args, at)
    finally:
        shutil.rmtree(at, ignore_errors=True)
    sys.exit(any(one.verdict not in GOOD for one in found))


if __name__ == "__main__":
    main()
