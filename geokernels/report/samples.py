"""The page of samples that were drawn and judged."""

from torch import Tensor

from ..metrics import wilson_interval
from .page import badge, details, page, picture, row, section, table, text

GRID_SHOWS, PAGE_SHOWS = 100, 48


def shares(counts: dict[str, dict[str, int]]) -> list[tuple[str, str, str]]:
    """Rows of a table: attribute, share named, share as asked, with 95% intervals; "" where there is none."""

    def share(hits: int, trials: int) -> str:
        return str(wilson_interval(hits, trials)) if trials else ""

    return [
        (attribute, share(c["named"], c["samples"]), share(c["as_asked"], c["asked"]))
        for attribute, c in counts.items()
    ]


def samples_page(record: dict, samples: list[dict], pictures: list[Tensor]) -> str:
    """The page of a run: what the judge found in all, and the first pictures one by one."""
    lead = (
        f"<p>{record['count']} of kind <strong>{text(record['kind'])}</strong>, in "
        f"{record['seconds']:.1f} seconds. The judge reads pictures by image analysis alone; ✓ and ✗ say "
        "whether it reads what was asked for, where that is known.</p>"
    )
    cards = [
        picture(shown, sample["caption"] or "a sample", _card(sample), longest=192)
        for shown, sample in zip(pictures[:PAGE_SHOWS], samples)
    ]
    facts = {k: v for k, v in record.items() if k not in ("versions", "machine", "judged", "command")}
    rows = [tuple(map(text, cells)) for cells in shares(record["judged"])]
    return page(
        f"Samples: {record['kind']}",
        lead,
        [
            section("What the judge found", table(("", "names a value", "as asked"), rows)),
            section("The first of them", row(*cards)),
            section("The run", details("Every setting", facts), details("Versions", record["versions"])),
        ],
    )


def _card(sample: dict) -> str:
    wanted, seen = sample["wanted"] or {}, sample["seen"] or {}
    marks = [
        badge(value or f"no {a}", value == wanted[a] if a in wanted else None) for a, value in seen.items()
    ]
    return f"{text(sample['caption'] or '')}<br>{' '.join(marks)}"
