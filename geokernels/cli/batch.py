"""``geokernels batch``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import Seen, keep_origin, say, sentences, showing, took, warn
from .options import Out, Shard, file_argument
from .typed import shard_given

if TYPE_CHECKING:
    from ..runs.worker import Worker

SOME_FAILED = 1  # exit code
NAMED = 10  # failures that are said at the end; the page has all
ROOT = Path(__file__).resolve().parents[2]


def batch(
    jobs: Annotated[
        Path,
        file_argument(
            "A file of jobs, JSONL or CSV: a line each, with the columns of --template, or its `command` "
            "and options."
        ),
    ],
    out: Out,
    template: Annotated[
        str | None,
        typer.Option(
            help='What is typed for a job, with columns in braces: "morph {picture} --from {a} --to {b}". '
            "A value is one word, whatever stands in it."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="The column that names each job's folder (default: name, or the line's number)."),
    ] = None,
    retries: Annotated[
        int, typer.Option(min=0, max=1000, help="How often a job that failed is tried again.")
    ] = 0,
    shard: Shard = None,
) -> None:
    """Run many jobs, each a command in a folder of its own, one after the other.

    The same call again goes on: finished jobs stay, interrupted ones continue, failed ones are tried again as
    far as --retries allows, and new lines are added. The exit code is 0 if every job is finished, else 1.
    """
    with sentences(batch):
        from ..runs.batch import BatchFolder, BatchJob
        from ..runs.loop import drive
        from ..runs.shards import place_of
        from .jobs import read_jobs

        part = shard_given(shard)
        out = place_of(out, part)
        folder = BatchFolder(out)
        tasks = read_jobs(jobs, template, name)
        resume = folder.begins()
        again = "the same command"
        with folder.claim(resume=resume, overwrite=False), showing(out, look=_ended, again=again) as show:
            worker = _worker()
            try:
                job = BatchJob(tasks, worker, folder, retries=retries, shard=part)
                keep_origin(folder)
                record = drive(job, resume=resume, on_step=show)
            finally:
                worker.close()
    failed = [job for job in record["jobs"] if job["state"] != "finished"]
    for job in failed[:NAMED]:
        warn(f"Failed: {job['name']}: {job['reason']}")
    if len(failed) > NAMED:
        warn(f"Failed: {len(failed) - NAMED} more.")
    count = len(record["jobs"])
    say(f"{count - len(failed)} of {count} jobs are finished: {took(record, out)}")
    if failed:
        raise typer.Exit(SOME_FAILED)


def _ended(jobs, seconds: float) -> Seen:
    """How many jobs are done with."""
    return Seen(jobs.index, jobs.steps, unit="jobs")


def _worker() -> Worker:
    """What runs the jobs; no job takes itself for a part of the batch's own."""
    from ..runs.shards import SLURM, SLURM_ENDS, TORCHRUN
    from ..runs.worker import Worker, without

    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = without(os.environ, (*TORCHRUN, *SLURM, *SLURM_ENDS))
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    # -P: nothing in the current folder is imported in place of the package's
    return Worker([sys.executable, "-P", "-m", "geokernels.cli.worker"], environment)
