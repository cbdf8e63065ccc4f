"""``geokernels demo``."""

import time
from itertools import count
from pathlib import Path

from rich.table import Table

from .console import Seen, console, extras, keep_origin, say, sentences, showing, speed_of
from .options import Out, Overwrite, Seed


def demo(
    out: Out = Path("demo"),
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Run the methods on the built-in models, judge what they made, and write a report."""
    with sentences(demo), extras():
        from ..models.clip import load_clip
        from ..runs import demo as parts

        folder = parts.DemoFolder(out)
        earlier = not overwrite and folder.earlier()
        if earlier:
            say(f"Replacing the earlier demo in {out}.")
        folder.claim(resume=False, overwrite=overwrite or earlier)
        keep_origin(folder)
        config = parts.DemoConfig()
        with folder, showing() as show:
            steps, began = count(1), time.monotonic()

            def on_step(name: str, value: str) -> None:
                done = next(steps)
                speed = speed_of(done, time.monotonic() - began)
                show.update("demo", Seen(done, config.total, value, speed), label=name)

            shown = parts.run_demo(load_clip("world"), folder, seed=seed, config=config, on_step=on_step)
    table = Table("edit", *parts.LOSSES)
    for edit in shown.edits:
        cells = [_verdict(edit.morphs[loss].score) for loss in parts.LOSSES]
        table.add_row(f"{edit.texts[0]} → {edit.wanted[edit.attribute]} {edit.attribute}", *cells)
    console().print(table)
    _say_what_was_drawn(shown)
    say(f"Report: {out / 'report.html'}")


def _say_what_was_drawn(shown) -> None:
    say(f"Walk in w: the largest step is {shown.walk.evenness:.1f} times the mean step.")
    if isinstance(shown.drawn, str):
        say(f"Prompts were left out: {shown.drawn}.")
        return
    n = len(shown.drawn.prompts)
    counts = ", ".join(f"{a} {shown.drawn.right(a)}" for a in shown.drawn.wanted[0])
    say(f"Of {n} unseen prompts drawn, the judge reads as asked: {counts}.")


def _verdict(score) -> str:
    made = "made" if score.reached else "not made"
    return f"{made}, {100 * score.kept:.0f}% of the rest kept"
