"""The command line: ``geokernels demo | morph | doctor``.

Models, picture files and reports load when a command runs, so that ``doctor`` needs torch alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from .models.clip import ClipEncoder

BAD_INPUT, INTERRUPTED = 2, 130

app = typer.Typer(
    help="Move pictures by text, with losses that follow the geometry inside CLIP.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def morph(
    picture: Annotated[Path, typer.Argument(help="PNG, JPEG or WebP of any size and mode.")],
    source: Annotated[str, typer.Option("--from", help="What the picture shows.")],
    target: Annotated[str, typer.Option("--to", help="What it shall show.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    loss: Annotated[str, typer.Option(help="geodesic or directional.")] = "geodesic",
    clip: Annotated[str, typer.Option(help="world, or open_clip:NAME.")] = "world",
    clip_weights: Annotated[
        Path | None, typer.Option(help="Weights file for the CLIP: safetensors, or a plain torch state dict.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimisation steps.")] = None,
    strength: Annotated[float | None, typer.Option(help="Weight of the text's direction.")] = None,
    size: Annotated[
        int | None, typer.Option(min=16, help="Longest side at which the edit is optimised.")
    ] = None,
    parametrisation: Annotated[str, typer.Option(help="layer, fourier or pixels.")] = "layer",
    seed: Annotated[int, typer.Option(min=0, help="Chooses views and the edit's start.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; cuda where there is one.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another run in --out.")] = False,
) -> None:
    """Morph a picture from what one text says to what another says."""
    with _sentences(), _extras():
        import torch

        from .pipelines import ClipInversion, ClipInversionConfig
        from .report.driver import run_morph
        from .report.morph import MorphFolder
        from .report.pictures import read_picture

        folder = MorphFolder(out)
        given = {"steps": steps, "strength": strength, "working_size": size}
        config = ClipInversionConfig(
            loss=loss, parametrisation=parametrisation, **{k: v for k, v in given.items() if v is not None}
        )
        original = read_picture(picture)
        where = _device(device)
        encoder = _encoder(clip, clip_weights, where)
        _warn_of_unknown_words(encoder, source, target)
        inversion = ClipInversion(
            original.rgb.to(where),
            [encoder],
            source,
            target,
            config=config,
            generator=torch.Generator().manual_seed(seed),
        )
        folder.claim(resume=resume, overwrite=overwrite)
        facts = {
            "picture": picture.name,
            "from": source,
            "to": target,
            "seed": seed,
            "encoders": [encoder.name],
        }
        with _progress() as progress:
            task = progress.add_task("morphing", total=config.steps, loss="", speed="")

            def show(run: ClipInversion, seconds: float) -> None:
                progress.update(task, completed=run.index, **_pace(run, seconds))

            try:
                record = run_morph(inversion, original, folder, facts=facts, resume=resume, on_step=show)
            except KeyboardInterrupt:
                progress.stop()
                _stop(inversion.index, config.steps, out)
    _say(
        f"{record['seconds']:.1f} s, {record['steps_per_second']:.1f} steps/s. Report: {out / 'report.html'}"
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Chooses the scenes and edits.")] = 0,
) -> None:
    """Draw a few scenes, morph them with both losses, judge the results, and write a report."""
    with _sentences(), _extras():
        from .models.clip import load_clip
        from .report.demo import ATTRIBUTES, LOSSES, run_demo

        _require_demo_folder(out)
        with _progress() as progress:
            task = progress.add_task("drawing", total=None, loss="", speed="")
            done = 0

            def show(name, run) -> None:
                nonlocal done
                done += 1
                total = len(ATTRIBUTES) * len(LOSSES) * run.config.steps
                speed = f"{done / max(progress.tasks[task].elapsed or 0, 1e-9):.1f} steps/s"
                value = f"loss {run.loss:.3f}"
                progress.update(task, description=name, completed=done, total=total, loss=value, speed=speed)

            edits = run_demo(load_clip("world"), out, seed=seed, on_step=show)
    table = Table("edit", "geodesic", "directional")
    for edit in edits:
        cells = [_verdict(edit.morphs[loss].score) for loss in LOSSES]
        table.add_row(f"{edit.texts[0]} → {edit.wanted[edit.attribute]} {edit.attribute}", *cells)
    _out().print(table)
    _say(f"Report: {out / 'report.html'}")


@app.command()
def doctor() -> None:
    """Say what can run on this machine, and for what cannot, why."""
    with _sentences():
        from .report.doctor import backends, facts, missing_extras

        about = Table("what", "value", title="geokernels")
        for name, value in facts().items():
            about.add_row(name, value)
        table = Table("backend", "runs here", "why not", title="backends")
        for name, reason in backends().items():
            table.add_row(name, "no" if reason else "yes", reason or "")
        _out().print(about, table)
        missing = missing_extras()
        if missing:
            _say(f'demo and morph also need {", ".join(missing)}: pip install "geokernels[morph]"')


def main() -> None:
    """Run the command line."""
    app()


@contextmanager
def _sentences() -> Iterator[None]:
    """Turn errors of input into one sentence on stderr and exit code 2."""
    # torch is imported by whoever raises BackendError, so this costs nothing on the way in
    from .kernels.dispatch import BackendError

    try:
        yield
    except (ValueError, TypeError, OSError, FloatingPointError, BackendError) as error:
        _fail(str(error))


@contextmanager
def _extras() -> Iterator[None]:
    """Say how to get what is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("geokernels"):
            raise
        _fail(f'this command needs {error.name}, which is not installed: pip install "geokernels[morph]"')


def _fail(sentence: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"Error: {sentence}", markup=False)
    raise typer.Exit(BAD_INPUT)


def _stop(index: int, steps: int, out: Path) -> None:
    sentence = f"Stopped after step {index} of {steps}; the same command with --resume continues in {out}."
    Console(stderr=True, highlight=False, soft_wrap=True).print(sentence, markup=False)
    raise typer.Exit(INTERRUPTED)


def _say(sentence: str) -> None:
    _out().print(sentence, markup=False)


def _out() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]} {task.fields[speed]}"),
        TimeRemainingColumn(),
        console=_out(),
    )


def _pace(run, seconds: float) -> dict[str, str]:
    return {
        "loss": f"loss {run.loss:.3f}",
        "speed": f"{run.index / max(seconds, 1e-9):.1f} steps/s",
    }


def _device(wanted: str | None) -> str:
    import torch

    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.split(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"--device must be cpu or cuda, got {wanted!r}")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("--device must be one torch can use, got cuda, and torch sees no CUDA device")
    return wanted


def _encoder(clip: str, weights: Path | None, device: str) -> ClipEncoder:
    from .models.clip import load_clip

    kind, _, name = clip.partition(":")
    if clip != "world" and (kind != "open_clip" or not name):
        raise ValueError(f"--clip must be world or open_clip:NAME, got {clip!r}")
    if name and weights is None:
        raise ValueError(f"--clip-weights must name a weights file for {clip}, got none")
    return load_clip(name or clip, weights, device=device)


def _warn_of_unknown_words(encoder: ClipEncoder, *prompts: str) -> None:
    unknown = sorted({word for prompt in prompts for word in encoder.unknown_words(prompt)})
    if unknown:
        from .world import WORDS

        sentence = (
            f"Warning: the world CLIP has never read {', '.join(unknown)} and cannot follow it; "
            f"it knows {', '.join(sorted(WORDS))}."
        )
        Console(stderr=True, highlight=False, soft_wrap=True).print(sentence, markup=False)


def _require_demo_folder(out: Path) -> None:
    """Refuse a folder with other contents; an earlier demonstration is replaced, and said to be."""
    import json

    if out.exists() and not out.is_dir():
        raise ValueError(f"--out must be a folder, {out} is a file")
    if not out.exists() or not any(out.iterdir()):
        return
    record = out / "run.json"
    command = json.loads(record.read_text(encoding="utf-8")).get("command") if record.exists() else None
    if command != "demo":
        raise ValueError(f"--out must be new, empty or an earlier demo, {out} holds something else")
    _say(f"Replacing the earlier demo in {out}.")


def _verdict(score) -> str:
    made = "made" if score.reached else "not made"
    return f"{made}, {100 * score.kept:.0f}% of the rest kept"
