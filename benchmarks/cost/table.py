"""What the variants of a step cost, beside one of them: a results file, and a table of it in Markdown."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from geokernels._files import write_json
from geokernels.environment import versions

from ..harness.machine import machine


class Column(NamedTuple):
    """One figure of every variant.

    Attributes:
        title: At the head.
        key: Under which a variant's row has it; a column that the first variant lacks is left out.
        form: How it is written.
        scale: What it is multiplied by.
        compared: Whether a cell also says how many times less it is than the first variant's.
    """

    title: str
    key: str
    form: str
    scale: float = 1.0
    compared: bool = True


LOSS = Column("final loss", "loss", ".3f", compared=False)  # its cells have the spread too


def cost_table(summary: dict, columns: Sequence[Column], pattern: str) -> str:
    """One line a variant, beside that of ``pattern``, as soon as there is one."""
    rows = summary["variants"]
    first = rows.get(pattern)
    columns = [column for column in columns if column.key in next(iter(rows.values()))]
    titles = ["variant", *(column.title for column in columns)]
    lines = [summary["what"], "", f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, row in rows.items():
        cells = [name]
        for column in columns:
            cell = f"{row[column.key] * column.scale:{column.form}}"
            if column.compared and first:
                cell += f" ({first[column.key] / row[column.key]:.2f} x less)"
            cells.append(f"{cell} ± {row['spread']:{column.form}}" if column is LOSS else cell)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def publish(out: Path, what: str, rows: dict, columns: Sequence[Column], pattern: str) -> None:
    """Write the figures to ``out``, and their table on the screen."""
    summary = {"what": what, "variants": rows, "machine": machine(), "versions": versions()}
    write_json(out, summary)
    print(cost_table(summary, columns, pattern), flush=True)
