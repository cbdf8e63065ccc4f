"""``geokernels morph``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import bar, device_of, extras, say, sentences, stop
from .encoders import encoder_of, pace, warn_of_unknown_words


def morph(
    picture: Annotated[Path, typer.Argument(help="PNG, JPEG or WebP of any size and mode.")],
    source: Annotated[str, typer.Option("--from", help="What the picture shows.")],
    target: Annotated[str, typer.Option("--to", help="What it shall show.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    loss: Annotated[str, typer.Option(help="geodesic, directional, global or spherical.")] = "geodesic",
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
    with sentences(), extras():
        import torch

        from ..pipelines import ClipInversion, ClipInversionConfig
        from ..report.driver import run_morph
        from ..report.morph import MorphFolder
        from ..report.pictures import read_picture

        folder = MorphFolder(out)
        given = {"steps": steps, "strength": strength, "working_size": size}
        config = ClipInversionConfig(
            loss=loss, parametrisation=parametrisation, **{k: v for k, v in given.items() if v is not None}
        )
        original = read_picture(picture)
        where = device_of(device)
        encoder = encoder_of(clip, clip_weights, where)
        warn_of_unknown_words([encoder], source, target)
        with bar() as progress:
            progress.add_task("first guess", total=None, loss="", speed="")
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
        with bar() as progress:
            task = progress.add_task("morphing", total=config.steps, loss="", speed="")

            def show(run: ClipInversion, seconds: float) -> None:
                progress.update(task, completed=run.index, **pace(run, seconds))

            try:
                record = run_morph(inversion, original, folder, facts=facts, resume=resume, on_step=show)
            except KeyboardInterrupt:
                progress.stop()
                stop(f"step {inversion.index} of {config.steps}", out)
    say(f"{record['seconds']:.1f} s, {record['steps_per_second']:.1f} steps/s. Report: {out / 'report.html'}")
