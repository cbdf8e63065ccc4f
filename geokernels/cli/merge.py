"""``geokernels merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from .console import Seen, extras, say, sentences, showing, took
from .options import Out, Overwrite, folder_argument


def merge(
    parts: Annotated[
        list[Path],
        folder_argument("The folders of all parts, in any order, or the folder that they are in."),
    ],
    out: Out,
    overwrite: Overwrite = False,
) -> None:
    """Make one result of the parts of a run, which were made with --shard.

    The result is what the same command leaves without --shard, but for the times; it can be continued and
    repeated like it. Parts that are missing, unfinished or of different settings or versions are refused.
    """
    with sentences(merge), extras():
        from ..runs.batch import BatchFolder
        from ..runs.evaluate import EvalFolder
        from ..runs.held_folder import HeldFolder
        from ..runs.merge import are_lines, merge_batches, merge_evaluations, merge_lines
        from ..runs.parts import parts_of, require_parts

        HeldFolder(out).require_place()
        folders = parts_of(parts)
        if are_lines(folders):
            names = merge_lines(folders, out, overwrite=overwrite)
            say(f"Merged {len(folders)} parts of {', '.join(names)} into {out}.")
            return
        found = require_parts(folders)
        first = found[0].record
        if first["command"] == EvalFolder.command:
            folder, work, unit = EvalFolder(out, tuple(first["methods"])), merge_evaluations, "results"
        else:
            folder, work, unit = BatchFolder(out), merge_batches, "jobs"
        with folder.claim(resume=False, overwrite=overwrite), showing() as show:

            def tell(done: int, total: int) -> None:
                show.update("merging", Seen(done, total, unit=unit))

            record = work(found, folder, tell)
    say(f"Merged {len(found)} parts: {took(record, out)}")
