"""The folder that an interpolation leaves behind."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from .._files import write_text
from .films import mp4_writer
from .folder import RunFolder
from .page import chart, details, figure, film, page, row, section, table, text
from .pictures import fit, gif, strip, write_bytes, write_picture

PAGE = "report.html"
RATE = 10  # frames a second of an MP4
HEAD = ("coupling", "path length", "smoothness", "largest step", "end reached")
NAMES = {
    "ot": "optimal transport",
    "entropic": "entropic transport",
    "row": "row by row",
    "slerp": "row by row, on arcs",
    "random": "random rows",
}
STEMS = f"({'|'.join(['path', *NAMES])})"


@dataclass
class InterpolationFolder(RunFolder):
    """Where one interpolation, or one of each coupling, is written; ``path`` need not exist yet.

    Attributes:
        couplings: How many are written; one alone is called ``path``.
        mp4: Whether MP4 files are.
    """

    couplings: int = 1
    mp4: bool = False

    names = (re.escape(PAGE), rf"{STEMS}/\d{{3,}}\.png", rf"{STEMS}\.(png|gif)", rf"{STEMS}\.mp4")

    def writes(self) -> tuple[str, ...]:
        """The files of one coupling, or of all."""
        stem = "(path)" if self.couplings == 1 else STEMS.replace("path|", "")
        found = [name.replace(STEMS, stem) for name in self.names]
        return tuple(found if self.mp4 else found[:-1])

    command = "interpolate"

    def finish(self, record: dict, frames: Mapping[str, Tensor], labels: Mapping[str, Sequence[str]]) -> None:
        """Write pictures, animations, page and, last, ``run.json``; then the checkpoint goes.

        Args:
            record: Everything for ``run.json`` but the checksums.
            frames: Of every coupling, ``(n, 3, H, W)``.
            labels: A word for each of them.
        """
        names = []
        for coupling, pictures in frames.items():
            names += self._write(coupling if len(frames) > 1 else "path", pictures, mp4=record["mp4"])
        write_text(self.file(PAGE), interpolation_page(record, frames, labels))
        self.end(record, [*names, PAGE])

    def _write(self, stem: str, pictures: Tensor, *, mp4: bool) -> list[str]:
        frames = list(pictures)
        names = [f"{stem}/{i:03d}.png" for i in range(len(frames))]
        for name, frame in zip(names, frames):
            write_picture(self.file(name), frame)
        write_picture(self.file(f"{stem}.png"), strip(frames, height=min(128, pictures.shape[-2])))
        write_bytes(self.file(f"{stem}.gif"), gif([*frames, *frames[-2:0:-1]]))
        names += [f"{stem}.png", f"{stem}.gif"]
        if mp4:
            with mp4_writer(self.file(f"{stem}.mp4")) as add:
                for i, frame in enumerate(frames):
                    add(fit(frame, 512), Fraction(i, RATE))
            names.append(f"{stem}.mp4")
        return names


def scores_table(scores: Mapping[str, dict | None]) -> list[tuple[str, ...]]:
    """Rows of the table of couplings under ``HEAD``; nothing where no distance was measured."""
    return [
        (
            NAMES[coupling],
            f"{score['length']:.3f}",
            f"{score['smoothness']:.3f}",
            f"{score['worst_step']:.2f} x mean",
            f"{100 * score['fidelity']:.1f}%",
        )
        for coupling, score in scores.items()
        if score is not None
    ]


def interpolation_page(
    record: dict, frames: Mapping[str, Tensor], labels: Mapping[str, Sequence[str]]
) -> str:
    """The page of a run."""
    prompts = record["prompts"]
    said = ", ".join(f"<strong>“{text(prompt)}”</strong>" for prompt in prompts)
    lead = (
        f"<p>Pictures by {text(record['model'])} on the way through {said}. Every picture starts from the "
        "same noise unless the settings say otherwise; what changes is what the model reads.</p>"
    )
    ways = [_way(name, pictures, labels[name], prompts) for name, pictures in frames.items()]
    measured = {name: run["score"] for name, run in record["paths"].items()}
    rows = scores_table(measured)
    return page(
        " → ".join(prompts),
        lead,
        [
            *ways,
            *([_measured(record, rows)] if rows else []),
            section(
                "The run",
                f"<p>{record['seconds']:.0f} seconds. {text(_invariant(record['invariance']))}</p>",
                details("Every setting", {**record["config"], "seeds": record["seeds"]}),
                details("Where", record["machine"]),
                details("Versions", record["versions"]),
            ),
        ],
    )


def _way(name: str, pictures: Tensor, labels: Sequence[str], prompts: Sequence[str]) -> str:
    alt = f"On the way from {prompts[0]} to {prompts[-1]}, {NAMES[name]}"
    moving = figure(gif([*pictures, *pictures.flip(0)[1:-1]]), alt, kind="gif")
    return section(NAMES[name].capitalize(), row(moving), film(list(pictures), alt, labels=labels))


def _measured(record: dict, rows: list[tuple[str, ...]]) -> str:
    steps = {name: run["distances"] for name, run in record["paths"].items()}
    history = torch.tensor(list(steps.values()), dtype=torch.float32).T
    note = (
        f"Steps and lengths by {record['distance']}. Smoothness is 1 minus Gini's coefficient of the steps; "
        "the end is reached where the last picture is the one that the last prompt gives by itself."
    )
    curves = chart(history, [NAMES[n] for n in steps], one_scale=True, what="Distance of neighbours")
    return section("How evenly", table(HEAD, [tuple(map(text, r)) for r in rows]), curves, note=note)


def _invariant(measured: dict) -> str:
    return (
        f"Exchanging a prompt's rows changes the model's output by {100 * measured['permuted']:.1g}% of what "
        f"the prompt changes, repeating each of them by {100 * measured['repeated']:.1g}%."
    )
