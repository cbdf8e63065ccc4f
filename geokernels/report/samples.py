"""The page of samples that were drawn and judged."""

from collections.abc import Sequence

from .page import badge, figure, lasted, page, row, run_section, section, table, text

SHOWN, SAMPLE_SIDE = 48, 192  # samples that are shown one by one, and their longest side


def samples_page(
    record: dict, samples: Sequence[dict], pictures: Sequence[bytes], shares: Sequence[Sequence[str]]
) -> str:
    """The page of a run: what the judge found in all, and the first pictures one by one.

    Args:
        record: As in ``run.json``.
        samples: As in ``samples.json``.
        pictures: PNGs of the first ``SHOWN`` of them.
        shares: For each attribute its name, how often the judge names it, and how often as asked.
    """
    lead = (
        f"<p>{record['steps']['samples']} of kind <strong>{text(record['kind'])}</strong>, in "
        f"{lasted(record)}. The judge reads pictures by image analysis alone; ✓ and ✗ say "
        "whether it reads what was asked for, where that is known.</p>"
    )
    cards = [
        figure(data, sample["caption"] or "a sample", _card(sample))
        for data, sample in zip(pictures, samples)
    ]
    facts = {"kind": record["kind"], "seeds": record["seeds"], **record["config"]["samples"]}
    rows = [tuple(map(text, cells)) for cells in shares]
    return page(
        f"Samples: {record['kind']}",
        lead,
        [
            section("What the judge found", table(("", "names a value", "as asked"), rows)),
            section("The first of them", row(*cards)),
            run_section(record, settings={"Every setting": facts}),
        ],
    )


def _card(sample: dict) -> str:
    wanted, seen = sample["wanted"] or {}, sample["seen"] or {}
    marks = [
        badge(value or f"no {a}", value == wanted[a] if a in wanted else None) for a, value in seen.items()
    ]
    return f"{text(sample['caption'] or '')}<br>{' '.join(marks)}"
