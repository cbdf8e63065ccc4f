"""The page of a batch: a line for each job, with a link to its own page."""

from collections import Counter
from collections.abc import Sequence

from .page import badge, lasted, page, run_section, section, table, text

GOOD = {"finished": True, "failed": False, "stopped": None}


def batch_page(
    record: dict, typed: Sequence[str], pages: Sequence[str | None], logs: Sequence[str | None]
) -> str:
    """The page of a batch.

    Args:
        record: As in ``run.json``.
        typed: The command of each job.
        pages: The path of each job's own page, from this one; None where it has none.
        logs: The path of what each job printed; None where it printed nothing.
    """
    jobs = record["jobs"]
    count = Counter(job["state"] for job in jobs)
    part = f" This is part {text(record['shard'])} of them." if record["shard"] else ""
    said = ", ".join(f"{count[state]} {state}" for state in GOOD if count[state])
    lead = f"<p>{len(jobs)} jobs: {said or 'none'}.{part} This took {lasted(record)}.</p>"
    failed = [
        (_link(pages, i, job["name"]), text(job["reason"]), str(job["attempts"]), _link(logs, i, "log"))
        for i, job in enumerate(jobs)
        if job["state"] == "failed"
    ]
    lines = [
        (
            _link(pages, i, job["name"]),
            badge(job["state"], GOOD[job["state"]]),
            f"{job['seconds']:.1f}",
            f"<code>{text(typed[i])}</code>",
            _link(logs, i, "log"),
        )
        for i, job in enumerate(jobs)
    ]
    shown = table(("job", "why", "attempts", "what it printed"), failed) if failed else "<p>None.</p>"
    sections = [
        section("Failures", shown),
        section("Jobs", table(("job", "state", "seconds", "command", "what it printed"), lines)),
        run_section(record),
    ]
    return page("A batch of jobs", lead, sections)


def _link(pages: Sequence[str | None], i: int, called: str) -> str:
    """A link from this page to another beside it, or its name alone where it is not there."""
    where = pages[i]
    return text(called) if where is None else f'<a href="{text(where)}">{text(called)}</a>'
