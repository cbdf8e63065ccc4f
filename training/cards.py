"""Measured shares as Markdown tables, and the model cards they go into."""

from pathlib import Path

import torch
from torch import Tensor

from geokernels._files import write_text
from geokernels.metrics import wilson_interval
from geokernels.world import ATTRIBUTES

UNSEEN = 2**40  # seeds from here on were never used in training, whose seeds are hashes


def wilson(right: int, n: int) -> str:
    """A share in percent with its 95% confidence interval (Wilson)."""
    share, low, high = (100 * part for part in wilson_interval(right, n))
    return f"{share:.1f} ({low:.1f} to {high:.1f})"


def table(columns: dict[str, dict[str, str]], kind: str = "attribute") -> str:
    """A Markdown table with one row a key."""
    lines = [f"| {kind} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    rows = next(iter(columns.values()))
    lines += [f"| {a} | " + " | ".join(c[a] for c in columns.values()) + " |" for a in rows]
    return "\n".join(lines)


def confusion(seen: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Truth by verdict, with a last column for none, ``(values, values + 1)`` an attribute.

    Args:
        seen: What the judge says, ``(n, 5)``, -1 where it says none.
        truth: What it should say, ``(n, 5)``.
    """
    by_attribute = {}
    for i, (attribute, values) in enumerate(ATTRIBUTES.items()):
        said = torch.where(seen[:, i] < 0, len(values), seen[:, i])
        cells = (truth[:, i] * (len(values) + 1) + said).bincount(minlength=len(values) * (len(values) + 1))
        by_attribute[attribute] = cells.view(len(values), -1)
    return by_attribute


def confusion_table(attribute: str, matrix: Tensor) -> str:
    """A Markdown confusion matrix, truth by verdict."""
    values = ATTRIBUTES[attribute]
    lines = [f"| {attribute} | " + " | ".join((*values, "none")) + " |", "|---" * (len(values) + 2) + "|"]
    lines += [f"| {v} | " + " | ".join(map(str, row)) + " |" for v, row in zip(values, matrix.tolist())]
    return "\n".join(lines)


def write(card: Path, blocks: dict[str, str]) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->`` in a card, for each block."""
    text = card.read_text()
    for name, block in blocks.items():
        start, stop = f"<!-- {name} -->", f"<!-- /{name} -->"
        if text.count(start) != 1 or text.count(stop) != 1:
            raise ValueError(f"{card} must mark the block {name!r} once with {start} and {stop}")
        before, after = text.split(start)[0], text.split(stop)[1]
        text = f"{before}{start}\n{block}\n{stop}{after}"
    write_text(card, text)
