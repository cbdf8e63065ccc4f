"""``geokernels batch``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import Seen, extras, keep_origin, say, sentences, showing, took, warn
from .jobs import SUFFIXES
from .options import Out, Shard, bare, file_argument
from .typed import require_with, shard_given

if TYPE_CHECKING:
    from ..runs.ray_crew import Needs
    from ..runs.worker import Crew, Worker

SOME_FAILED = 1  # exit code
NAMED = 10  # failures that are said at the end; the page has all
# -P: nothing in the current folder is imported in place of the package's
WORKER = ("-P", "-m", "geokernels.cli.worker")


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
    ray: Annotated[
        str | None,
        bare(
            typer.Option(
                "--ray",
                metavar="[ADDRESS]",
                help="Run them on a Ray cluster, several at once: HOST:PORT of its head, or auto for the one "
                "that this machine is a node of (without: one on this machine, while the batch runs).",
            ),
            "local",
            not_before=SUFFIXES,
        ),
    ] = None,
    ray_workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Jobs that Ray runs at once (default: as many as the cluster has room for)."
        ),
    ] = None,
    ray_cpus: Annotated[
        int | None, typer.Option(min=1, help="Cores of each, and as many threads (default: 1).")
    ] = None,
    ray_gpus: Annotated[
        float | None,
        typer.Option(
            min=0, help="GPUs of each; 0.5 has two share one (default: 1 where the cluster has any, else 0)."
        ),
    ] = None,
) -> None:
    """Run many jobs, each a command in a folder of its own, one after the other or on a Ray cluster.

    The same call again goes on: finished jobs stay, interrupted ones continue, failed ones are tried again as
    far as --retries allows, and new lines are added. The exit code is 0 if every job is finished, else 1.
    """
    with sentences(batch):
        from ..runs.batch import BatchFolder, BatchJob
        from ..runs.loop import drive
        from ..runs.shards import place_of
        from .jobs import read_jobs

        needs = _needs(ray, ray_workers, ray_cpus, ray_gpus)
        part = shard_given(shard)
        out = place_of(out, part)
        folder = BatchFolder(out)
        tasks = read_jobs(jobs, template, name)
        resume = folder.begins()
        again = "the same command"
        with (
            folder.claim(resume=resume, overwrite=False),
            showing(out, look=_ended, again=again) as show,
            _crew(ray, needs, folder, len(tasks)) as crew,
        ):
            job = BatchJob(tasks, crew, folder, retries=retries, shard=part)
            keep_origin(folder)
            record = drive(job, resume=resume, on_step=show)
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
    """How many jobs are done with, how many of them failed, and how many run at once."""
    failed = f"{len(jobs.failed)} failed" if jobs.failed else ""
    running = f"{len(jobs.running)} running" if len(jobs.running) > 1 else ""
    return Seen(jobs.index, jobs.steps, failed, running, unit="jobs")


def _needs(ray: str | None, workers: int | None, cpus: int | None, gpus: float | None) -> Needs:
    """What Ray gives to each worker; refuses an address that is none."""
    from ..runs.ray_crew import AUTO, LOCAL, Needs

    require_with("--ray", ray, {"--ray-workers": workers, "--ray-cpus": cpus, "--ray-gpus": gpus})
    if ray is not None and ray not in (AUTO, LOCAL) and not re.fullmatch(r"[^\s/]+:\d{1,5}", ray):
        raise ValueError(f"--ray must be HOST:PORT of a cluster's head, or {AUTO}, got {ray!r}")
    return Needs(cpus or Needs().cpus, gpus, workers)


@contextmanager
def _crew(ray: str | None, needs: Needs, folder, jobs: int) -> Iterator[Crew]:
    """Who runs the jobs; no job takes itself for a part of the batch's own."""
    if ray is None:
        from ..runs.worker import Alone

        with closing(Alone(begin_worker())) as alone:
            yield alone
        return
    from ..runs.ray_crew import crew_on, prepare

    with extras("ray"):
        prepare()
    with crew_on(ray, needs, arguments=WORKER, without=_of_parts(), out=folder, jobs=jobs) as crew:
        yield crew


def begin_worker() -> Worker:
    """What runs the jobs one after another."""
    from ..runs.worker import worker_here

    return worker_here(WORKER, without=_of_parts())


def _of_parts() -> tuple[str, ...]:
    """Variables that say which part of a batch this process does."""
    from ..runs.shards import SLURM, SLURM_ENDS, TORCHRUN

    return (*TORCHRUN, *SLURM, *SLURM_ENDS)
