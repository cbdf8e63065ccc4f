"""What measured rows say: who is faster, by how much, and whether what was asked for was reached."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from geokernels._files import read_json, write_text
from geokernels._sealed import seal, unseal

Rows = list[dict]
# a fixed product that takes this much longer than at its best, in a quarter of the rounds, is being disturbed
CANARY_TOLERANCE = 1.5
SAME = ("processor", "gpu", "threads", "torch", "simd", "commit")  # rows that agree in these belong together
PARTS = {"machine", "versions", "peaks", "rows"}  # of a results file


def by_case(rows: Iterable[dict]) -> dict[str, Rows]:
    """Rows of each case, in the order they were measured."""
    cases: dict[str, Rows] = {}
    for row in rows:
        cases.setdefault(row["case"], []).append(row)
    return cases


def cost_of(row: dict) -> float | None:
    """Seconds, or megabytes where these are measured; None for a contender that has neither."""
    return row.get("median_s", row.get("megabytes"))


def ours(rows: Rows) -> dict:
    """The row the ratio is formed with."""
    return next(row for row in rows if row["side"] == "ours")


def best_rival(rows: Rows) -> dict | None:
    """The rival that costs least."""
    timed = [row for row in rows if row["side"] == "rival" and cost_of(row) is not None]
    return min(timed, key=cost_of, default=None)


def ratio(rows: Rows, rival: dict | None = None) -> float | None:
    """The cost of a rival, the best if none is named, over ours; None where one is missing."""
    rival, own = rival or best_rival(rows), cost_of(ours(rows))
    return cost_of(rival) / own if rival and own and cost_of(rival) is not None else None


def seconds(value: float | None) -> str:
    """A time in the unit that suits it."""
    if value is None:
        return ""
    unit, scale = next((u, s) for u, s in (("s", 1), ("ms", 1e3), ("us", 1e6)) if value * s >= 1 or u == "us")
    return f"{value * scale:.3g} {unit}"


class Verdict(NamedTuple):
    """One thing asked of ours.

    Attributes:
        text: What is asked.
        value: What is so; None where it was not measured.
        reached: Whether that is enough.
    """

    text: str
    value: float | None
    reached: bool

    @property
    def state(self) -> str:
        """In a word."""
        return "not measured" if self.value is None else "reached" if self.reached else "missed"


def _verdict(rows: Rows, quantity: str, target: float) -> Verdict:
    row = ours(rows)
    if quantity.startswith("ratio"):
        name = quantity.removeprefix("ratio").removeprefix(" to ")
        named = next((r for r in rows if name and r["name"] == name), None)
        value = None if name and named is None else ratio(rows, named)
        text = f"{target:g} x {name or 'the best rival'}"
        return Verdict(f"at least {text}", value, value is not None and value >= target)
    key, text = {
        "seconds": ("median_s", f"at most {1e6 * target:g} us"),
        "over floor": ("over_floor", f"at most {target:g} x the floor"),
        "megabytes": ("megabytes", f"at most {target:g} MB"),
    }[quantity]
    value = row.get(key)
    return Verdict(text, value, value is not None and value <= target)


def verdicts(rows: Rows) -> list[Verdict]:
    """Everything asked of a case: "ratio", "ratio to NAME", "seconds", "over floor", "megabytes"."""
    return [_verdict(rows, quantity, target) for quantity, target in ours(rows)["targets"].items()]


def judged(rows: Rows) -> Rows:
    """Rows with ``quiet``: whether the machine was, during the case.

    A case's canaries are compared with the best of all cases, so that a machine that was busy at first is
    found out later. Memory has no canary: it does not depend on who else is at work.
    """
    best = min((row["canary_best_s"] for row in rows if "canary_best_s" in row), default=0.0)
    return [row | {"quiet": row.get("canary_upper_s", 0.0) <= CANARY_TOLERANCE * best} for row in rows]


def finished(rows: Rows, machine: dict, *, rivals: bool) -> bool:
    """Whether a case need not be measured again: same machine and commit, nobody disturbed it."""
    return all(
        row["quiet"] and row["rivals"] == rivals and all(row[key] == machine[key] for key in SAME)
        for row in rows
    )


def read(path: Path) -> dict:
    """A results file.

    Raises:
        ValueError: If it is none, or damaged.
    """
    contents = read_json(path)
    lacking = PARTS - (contents.keys() if isinstance(contents, dict) else set())
    if lacking:
        raise ValueError(
            f"{path} must be a results file of this harness, it lacks {', '.join(sorted(lacking))}"
        )
    return unseal(contents, path, kind="bench", remedy="measure again without it")


def write(path: Path, contents: dict) -> None:
    """Replace a results file whole: a reader, or an interruption, never sees half of it."""
    write_text(path, json.dumps(seal(contents, kind="bench"), indent=1) + "\n")
