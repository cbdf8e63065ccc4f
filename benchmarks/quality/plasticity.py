"""The losses that follow a text against each other, by what they reach and what they keep: a trial, judged.

    python -m benchmarks.quality.plasticity edits adaptations --out runs/plasticity

Nothing is guessed or searched before the first step. The arms differ in the loss alone, and all see the same
views, or latents:

  directional         the cosine of the picture's change with the text's
  geodesic            the same along the geodesic flow between subspaces of the changes, as released: all
                      directions but two, the kernel a constant; IMC alone
  geodesic with IMR   and what holds on to the previous iterate

A stage is a set of trials (``STAGES``); one trial with every arm is a line of ``STAGE.jsonl``, so that a run
that was stopped goes on, and ``--count`` may grow. ``summary.json`` and the drawings are made of the lines
that there are; with no stage named, of these alone. What is asked of edits: ``plasticity_edits.py``; of
adaptations: ``plasticity_adapt.py``.

  reached   the judge finds what was asked (plasticity)
  kept      share of the other attributes that it finds as they were (stability)
  right     both, of one edit or sample

Intervals are of 95%: Wilson's where a trial is all or nothing, the normal one elsewhere, and the middle 95%
of 2,000 resamplings of the trials for hypervolumes and for the differences from the directional loss, which
are taken trial by trial. Seeds below 1000 were used to choose settings; report on others.

On several machines, each does a part, and the parts together are what one would have done:

    python -m benchmarks.quality.plasticity edits --out runs/plasticity --shard 0/4      # to 3/4
    geokernels merge runs/plasticity --out runs/plasticity-whole
    python -m benchmarks.quality.plasticity --out runs/plasticity-whole
"""

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType

from geokernels import world
from geokernels._files import write_json
from geokernels.environment import versions
from geokernels.pipelines import AdaptationConfig, ClipInversionConfig
from geokernels.runs.shards import WHOLE, Shard

from ..harness.machine import machine
from . import plasticity_adapt, plasticity_edits
from .fronts import areas_of, draw_curves, draw_fronts, points_of, summarise
from .lines import add_shard, finished, shard_given, work_through

SEED = 1000


def arms_of(imr: float) -> dict[str, dict]:
    """What each arm changes of a stage's settings; ``imr`` is the weight of the regularisation."""
    return {
        "directional": {"loss": "directional"},
        "geodesic": {"loss": "geodesic", "regularisation": 0.0},
        "geodesic with IMR": {"loss": "geodesic", "regularisation": imr},
    }


# chosen on edits 4 to 11 and adaptations 1 and 6 of seed 3. Of edits: with 1 IMR stays a hundredth of IMC,
# with 100 it holds back what was reached without. Of adaptations, whose previous iterate is eight visits old:
# with 1 and more nothing is reached
ARMS = MappingProxyType(arms_of(10.0))
ARMS_OF_ADAPTATIONS = MappingProxyType(arms_of(0.1))
# as published; of 16 views every step 8 every fourth, for the cost; no step's length depends on their number
EDITS = ClipInversionConfig(
    recipe="published",
    loss="geodesic",  # every arm names its own
    templates=world.TEMPLATES,
    first_opacity=0.5,
    views=8,
    hold=4,
    steps=10_000,
)
# a pool, without which there is no previous iterate; layers are chosen every tenth step, for the cost
_ADAPTATION = AdaptationConfig(
    recipe="published",
    templates=world.TEMPLATES,
    pool=64,
    noise="fixed",
    mixing=0.0,
    choose_every=10,
)
# a batch is one chunk, so that no picture is drawn twice
ADAPTATIONS = {batch: replace(_ADAPTATION, batch=batch, chunk=batch) for batch in (2, 8, 16)}


@dataclass(frozen=True)
class Stage:
    """A set of trials.

    Attributes:
        title: What it is, for people.
        ask: What is asked; see ``plasticity_edits`` and ``plasticity_adapt``.
        count: How many trials are usual.
        config: What the arms have in common.
        readings: Steps after which the judge reads.
        strengths: Of edits, multiples of every weight that pulls; of adaptations, of the learning rate: Adam
            divides the weight of a loss out.
        losses: Names of the arms.
    """

    title: str
    ask: str
    count: int
    config: ClipInversionConfig | AdaptationConfig
    readings: tuple[int, ...]
    strengths: tuple[float, ...] = (1.0,)
    losses: tuple[str, ...] = tuple(ARMS)

    @property
    def arms(self) -> dict[str, dict]:
        """Names to what each changes of ``config``."""
        arms = ARMS if isinstance(self.config, ClipInversionConfig) else ARMS_OF_ADAPTATIONS
        return {name: arms[name] for name in self.losses}

    def header(self, seed: int) -> dict:
        """What all lines of the stage have in common, as JSON gives it back."""
        known = {key: value for key, value in asdict(self).items() if key not in ("title", "count")}
        return json.loads(json.dumps({**known, "losses": self.arms, "seed": seed}))


WEAK_TO_STRONG = (0.125, 1.0, 8.0)
SLOW_TO_FAST = (1.0, 8.0, 64.0)  # at the published rate 20 steps change nothing that the judge sees
STAGES = {
    "edits": Stage("edits of one attribute", "one", 200, EDITS, (10, 20, 40), WEAK_TO_STRONG),
    "long": Stage(
        "long edits", "one", 24, EDITS, (40, 100, 200, 400), (0.125, 1.0), ("directional", "geodesic")
    ),
    "longest": Stage("edits of 1,000 steps", "one", 24, EDITS, (40, 100, 200, 400, 1000)),
    "two": Stage("edits of two attributes", "two", 40, EDITS, (20, 40)),
    "three": Stage("edits of three attributes", "three", 40, EDITS, (20, 40)),
    "order": Stage("edits in another order of words", "order", 40, EDITS, (20, 40)),
    "synonyms": Stage("edits in an unknown word", "synonyms", 40, EDITS, (20, 40)),
    "adaptations": Stage("adaptations", "one", 60, ADAPTATIONS[8], (10, 20), SLOW_TO_FAST),
    "small": Stage("adaptations, batches of 2", "one", 60, ADAPTATIONS[2], (10, 20), (8.0,)),
    "large": Stage("adaptations, batches of 16", "one", 60, ADAPTATIONS[16], (10, 20), (8.0,)),
    "kinds": Stage("adaptations by many sentences", "kinds", 24, ADAPTATIONS[16], (10, 20), (8.0,)),
}


def run_stage(name: str, args: argparse.Namespace, shard: Shard) -> None:
    """Do the trials of a stage that have no line yet."""
    stage = STAGES[name]
    edits = isinstance(stage.config, ClipInversionConfig)
    kind = plasticity_edits if edits else plasticity_adapt
    work = kind.run_edit if edits else kind.run_adaptation
    tasks = [(i, args.seed, stage) for i in range(stage.count if args.count is None else args.count)]
    path = args.out / f"{name}.jsonl"
    how = {"start": kind.start_worker, "workers": args.workers, "shard": shard}
    work_through(path, stage.header(args.seed), tasks, work, **how)


def report(out: Path, pages: Path, seed: int) -> None:
    """Make summary and drawings of the lines that there are, and print the tables."""
    stages = {}
    for name, stage in STAGES.items():
        header = stage.header(seed)
        rows = list(finished(out / f"{name}.jsonl", header).values())
        if rows:
            known = {"title": stage.title, **header, "trials": len(rows)}
            stages[name] = {**known, "arms": summarise(rows)}
    if not stages:
        raise SystemExit(f"{out} holds no trials, and none were asked for")
    write_json(out / "summary.json", {"stages": stages, "machine": machine(), "versions": versions()})
    pages.mkdir(parents=True, exist_ok=True)
    swept = [part for part in stages.values() if len(part["strengths"]) > 2]
    if swept:
        draw_fronts(pages / "fronts.png", swept)
        print(areas_of(swept))
    if "long" in stages:
        draw_curves(pages / "curves.png", stages["long"])
    for part in stages.values():
        print(f"{part['title']}, {part['trials']}\n\n{points_of(part)}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)}")
    parser.add_argument("--count", type=int, help="trials of each; a stage's own number")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="folder of the lines and the summary")
    parser.add_argument("--pages", type=Path, help="folder of the drawings; as --out")
    add_shard(parser)
    args = parser.parse_args(arguments)
    shard = shard_given(parser, args)
    for name in args.stages:
        if name not in STAGES:
            parser.error(f"STAGE must be one of {', '.join(STAGES)}, got {name!r}")
    for name in args.stages:
        run_stage(name, args, shard)
    if shard == WHOLE:
        report(args.out, args.pages or args.out, args.seed)


if __name__ == "__main__":
    main()
