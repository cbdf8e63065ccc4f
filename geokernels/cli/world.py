"""``geokernels world sample | train | evaluate``: the rendered world and the models trained on it."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from .clone import EVALUATIONS, TRAININGS, Stopped, evaluate_model, run_training
from .console import (
    INTERRUPTED,
    Seen,
    add,
    console,
    driven,
    extras,
    say,
    sentences,
    took,
    warn,
    warn_of_words,
)
from .options import (
    Device,
    GuidanceScale,
    Out,
    Overwrite,
    Resume,
    SamplingSteps,
    Seed,
    Threads,
    Truncation,
    device_of,
    folder_option,
    out_option,
)

app = typer.Typer(
    help="The rendered world: draw samples of it, train its models, evaluate them.", no_args_is_help=True
)
KINDS = {
    "scenes": "renders with their captions",
    "clips": "moving renders with masks and optical flow",
    "edits": "pairs of renders with masks, in the layout of PIE-Bench",
    "generator": "pictures of the StyleGAN2 generator",
    "diffusion": "pictures of prompts by the diffusion pipeline",
}
# options that not every kind has
OF_KIND = {
    "prompt": ("diffusion",),
    "steps": ("diffusion",),
    "guidance_scale": ("diffusion",),
    "truncation": ("generator",),
    "model": ("generator", "diffusion"),
    "frames": ("clips",),
    "size": ("scenes", "clips", "edits"),
}


def sample(
    kind: Annotated[str, typer.Argument(help=", ".join(f"{k} ({v})" for k, v in KINDS.items()) + ".")],
    out: Out,
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many samples.")] = 16,
    seed: Seed = 0,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="What to draw; repeat for several (default: prompts that no model was trained on)."
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=16, max=4096, help="Side of scenes, clips and edits in pixels (default: 64)."),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=2, max=100_000, help="Frames of each clip (default: 16).")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The generator or diffusion model: a file or folder of weights (default: world)."),
    ] = None,
    steps: SamplingSteps = None,
    guidance_scale: GuidanceScale = None,
    truncation: Truncation = None,
    device: Device = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Draw samples, and check by the judge that they show what they should.

    --out gets the pictures, a grid of them, a list, run.json and report.html. Without options the diffusion
    model takes 50 steps at a guidance scale of 3, and the generator a truncation of 1.
    """
    with sentences(sample, name="--model", checkpoint="--model"), extras():
        from ..metrics.summary import shares
        from ..runs.samples import EDITS, SampleFolder, SampleJob
        from ..world.edit_folder import require_edit_folder

        given = {"prompt": prompt, "steps": steps, "guidance_scale": guidance_scale, "truncation": truncation}
        given |= {"model": model, "frames": frames, "size": size}
        given = {name: value for name, value in given.items() if value not in (None, [])}
        _require_kind(kind, given)
        where, folder = device_of(device), SampleFolder(out)
        with folder.claim(resume=resume, overwrite=overwrite):
            source = _source(kind, count, seed, out, where, **given)
            if model is None:
                _warn_of_unknown_words(prompt or [])
            if kind == "edits":
                require_edit_folder(out / EDITS, seed=seed, size=source.settings["size"], replace=overwrite)
            facts = {"seeds": [seed], "encoders": []}
            job = SampleJob(source, folder, facts=facts, device=where)
            record = driven(job, out, resume=resume, look=_samples)
        table = Table("the judge", "names a value", "as asked")
        for cells in shares(record["judged"]):
            table.add_row(*cells)
        console().print(table)
    say(took(record, out))


def train(
    name: Annotated[str, typer.Argument(help=f"The model: {', '.join(TRAININGS)}.")],
    out: Annotated[
        Path | None,
        out_option("Folder of checkpoints and weights; training continues there (default: runs/NAME)."),
    ] = None,
    vae: Annotated[
        Path | None, folder_option("For diffusion: the folder that `train vae` wrote to (default: runs/vae).")
    ] = None,
    seed: Seed = 0,
    threads: Threads = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Train a tiny network for a few steps.")] = False,
) -> None:
    """Train a model of the world, or continue an interrupted training; needs a clone of the repository."""
    with sentences(train), extras():
        from ..runs.training import TrainingFolder

        if name not in TRAININGS:
            raise ValueError(f"NAME must be one of {', '.join(TRAININGS)}, got {name!r}")
        out = (out or Path("runs", name)).resolve()
        options = ["--out", str(out), "--seed", str(seed), "--threads", str(threads)]
        if name == "diffusion":
            vae = (vae or Path("runs", "vae")).resolve()
            if not (vae / "vae").is_dir():
                raise ValueError(f"--vae must be a folder that `train vae` has finished in, got {vae}")
            options += ["--vae", str(vae)]
        elif vae is not None:
            raise ValueError(f"--vae goes with diffusion, not with {name}")
        folder = TrainingFolder(out)
        if not folder.begun():
            folder.require(resume=False, overwrite=False)
        try:
            with folder.hold():
                run_training(name, [*options, *(["--quick"] if quick else [])])
        except Stopped as stopped:
            if stopped.code == INTERRUPTED:
                warn(f"Stopped; the same command continues from the last checkpoint in {out}.")
            raise typer.Exit(stopped.code) from None


def evaluate(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help=f"The model: {', '.join(EVALUATIONS)}.")],
    write: Annotated[
        bool, typer.Option("--write", help="Write the figures and pictures into the model cards.")
    ] = False,
) -> None:
    """Evaluate a model of the world and compare with its model card; needs a clone of the repository.

    The exit code is 1 if a figure differs from the card. Options of the evaluation itself follow after `--`,
    with absolute paths; `evaluate clip -- --help` lists them.
    """
    with sentences(evaluate), extras():
        if name not in EVALUATIONS:
            raise ValueError(f"NAME must be one of {', '.join(EVALUATIONS)}, got {name!r}")
        try:
            measured = evaluate_model(name, context.args, write=write)
        except Stopped as stopped:
            raise typer.Exit(stopped.code) from None
        for block in measured:
            console().print(f"\n[bold]{block.card}: {block.name}[/bold]")
            console().print(block.text, markup=False)
        other = [f"{block.name} of {block.card}" for block in measured if block.differs]
    if not measured:  # such as --help
        return
    if write:
        say(f"\nWritten to {', '.join(dict.fromkeys(block.path for block in measured))}.")
    elif other:
        warn(f"\nDifferent from the card: {', '.join(other)}.")
        raise typer.Exit(1)
    else:
        say("\nEvery figure is as on the card.")


def _samples(samples, seconds: float) -> Seen:
    """How many samples there are."""
    speed = f"{samples.index / max(seconds, 1e-9):.1f}/s"
    return Seen(samples.index, samples.steps, speed=speed, unit="samples")


def _require_kind(kind: str, given: dict) -> None:
    if kind not in KINDS:
        raise ValueError(f"KIND must be one of {', '.join(KINDS)}, got {kind!r}")
    for name in given:
        if kind not in OF_KIND[name]:
            raise ValueError(
                f"--{name.replace('_', '-')} goes with {' and '.join(OF_KIND[name])}, not with {kind}"
            )


def _warn_of_unknown_words(prompts: list[str]) -> None:
    from ..world import WORDS

    words = {word for prompt in prompts for word in re.findall(r"[^\W_]+", prompt.lower())}
    warn_of_words("the world's diffusion model", words - WORDS)


def _source(kind: str, count: int, seed: int, out: Path, device: str, *, model: str = "world", **given):
    """What draws samples of a kind."""
    from ..models import load_diffusion, load_generator
    from ..runs import sample_sources as sources

    if kind == "scenes":
        return sources.Renders(count, seed, **given)
    if kind == "clips":
        return sources.Clips(count, seed, **given)
    if kind == "edits":
        return sources.Edits(count, seed, out, **given)
    if kind == "generator":
        return sources.Generated(count, seed, load_generator(model, device=device), **given)
    how = {"prompts": given.get("prompt", []), "steps": given.get("steps", 50)}
    how |= {"model": model, "guidance": given.get("guidance_scale", 3.0)}
    return sources.Prompted(count, seed, load_diffusion(model, device=device), **how)


add(app, sample)
add(app, train)
add(app, evaluate, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
