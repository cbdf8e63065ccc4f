"""The page of samples that were drawn and judged."""

from collections.abc import Sequence

from .page import badge, figure, lasted, page, row, run_section, section, table, text

SHARES = "Shares of the samples, with 95% intervals."
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
        f"<p>{record['steps']['samples']} samples (<strong>{text(record['kind'])}</strong>), drawn and "
        f"judged in {lasted(record)}. The judge reads every picture by image analysis, without any trained "
        "model. ✓ marks what is as asked for, ✗ what is not; where nothing was asked for, there is no "
        "mark.</p>"
    )
    cards = [
        figure(data, sample["caption"] or "a sample", _card(sample))
        for data, sample in zip(pictures, samples)
    ]
    settings = {"kind": record["kind"], **record["config"]["samples"]}
    rows = [tuple(map(text, cells)) for cells in shares]
    return page(
        f"Samples: {record['kind']}",
        lead,
        [
            section(
                "What the judge found",
                table(("attribute", "can be named", "is as asked for"), rows),
                note=SHARES,
            ),
            section("Samples", row(*cards)),
            run_section(record, settings=settings),
        ],
    )


def _card(sample: dict) -> str:
    wanted, seen = sample["wanted"] or {}, sample["seen"] or {}
    marks = [
        badge(value or f"no {a}", value == wanted[a] if a in wanted else None) for a, value in seen.items()
    ]
    return f"{text(sample['caption'] or '')}<br>{' '.join(marks)}"
