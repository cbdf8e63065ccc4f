"""``geokernels adapt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..media.bounds import MOST_MEGAPIXELS
from .console import MostMegapixels, device_of, extras, say, sentences, showing
from .encoders import CLIP, encoders_of, require_clips, warn_of_unknown_words
from .options import file_option, folder_option, seed_option
from .out import out_option


def adapt(
    source: Annotated[str, typer.Option("--from", help="What the generator draws.")],
    target: Annotated[str, typer.Option("--to", help="What it shall draw.")],
    out: Annotated[Path, out_option("Folder for the results.")],
    generator: Annotated[str, typer.Option(help="world, or a StyleGAN2 checkpoint.")] = "world",
    loss: Annotated[str, typer.Option(help="geodesic, directional, global or spherical.")] = "geodesic",
    clip: Annotated[
        list[str] | None, typer.Option(help=f"{CLIP}; repeat for several [default: world].")
    ] = None,
    clip_weights: Annotated[
        list[Path] | None, file_option("Weights file of each CLIP that needs one, in their order.")
    ] = None,
    clip_tokenizer: Annotated[
        list[Path] | None, folder_option("Folder of each tokenizer that is on the hub, in their order.")
    ] = None,
    clip_share: Annotated[
        list[float] | None, typer.Option(min=0, help="Weight of each CLIP in the loss, in their order.")
    ] = None,
    train: Annotated[
        str, typer.Option(help="Of a chosen layer: its modulation, or whole layers.")
    ] = "modulation",
    start: Annotated[bool, typer.Option(help="Look for a start among the generator's own samples.")] = True,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimisation steps.")] = None,
    strength: Annotated[float | None, typer.Option(help="Weight of the text's direction.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of the first step.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Latents a step.")] = None,
    pool: Annotated[int | None, typer.Option(min=1, help="Latents visited in turn.")] = None,
    chunk: Annotated[
        int | None, typer.Option(min=1, help="Pictures at a time where they are independent.")
    ] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="How many learn at a time.")] = None,
    truncation: Annotated[float | None, typer.Option(help="Of the latents' codes.")] = None,
    real: Annotated[Path | None, file_option("A picture to invert and to draw again.")] = None,
    real_steps: Annotated[int | None, typer.Option(min=1, help="Steps of its inversion.")] = None,
    lpips: Annotated[
        str | None, typer.Option(help="Invert by LPIPS: alex, vgg or squeeze, or NAME=WEIGHTS-FILE.")
    ] = None,
    most_megapixels: MostMegapixels = MOST_MEGAPIXELS,
    seed: Annotated[int, seed_option("Chooses latents and samples.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; cuda where there is one.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another run in --out.")] = False,
) -> None:
    """Teach a generator to draw what a text says, from the text alone."""
    with (
        sentences(adapt, encoder_weights="--clip-share", checkpoint="--generator", picture="--real"),
        extras(),
    ):
        import torch

        from ..media.pictures import read_picture
        from ..models import load_generator
        from ..models.clip import imagenet_templates
        from ..models.stylegan2_files import FORMATS
        from ..pipelines import Adaptation, AdaptationConfig
        from ..runs.adapt import AdaptationRun, AdaptFolder, run_adaptation

        picture = None if real is None else read_picture(real, most_megapixels=most_megapixels).rgb
        where = device_of(device)
        for name in clip or []:
            require_clips(clip=name)
        _require_lpips(lpips)
        given = {"steps": steps, "strength": strength, "learning_rate": learning_rate, "batch": batch}
        given |= {"pool": pool, "chunk": chunk, "layers": layers, "truncation": truncation}
        given |= {"encoder_weights": tuple(clip_share or ()) or None, "guess": None if start else 2.0}
        clips = clip or ["world"]
        if clips != ["world"] * len(clips):
            given["templates"] = imagenet_templates()
        config = AdaptationConfig(loss=loss, train=train, **{k: v for k, v in given.items() if v is not None})
        ending = Path(generator).suffix
        folder = AdaptFolder(out, ending if ending in FORMATS else ".safetensors")
        folder.require(resume=resume, overwrite=overwrite)
        model = load_generator(generator, device=where)
        encoders = encoders_of(clips, clip_weights or [], clip_tokenizer or [], where)
        adaptation = Adaptation(
            model, encoders, source, target, config=config, generator=torch.Generator().manual_seed(seed)
        )
        inversion = _inversion(model, picture, real_steps, lpips, chunk, seed)
        warn_of_unknown_words(encoders, source, target)
        run = AdaptationRun(model, adaptation, inversion, seed=seed)
        inputs = [Path(generator), *([real] if real else [])]
        folder.claim(resume=resume, overwrite=overwrite, keep=inputs)
        facts = {
            "generator": generator if generator == "world" else Path(generator).name,
            "from": source,
            "to": target,
            "seed": seed,
            "encoders": [encoder.name for encoder in encoders],
            **({"picture": real.name, "lpips": lpips} if real else {}),
        }
        with folder, showing(out, {"inversion": "inversion", "adaptation": "adaptation"}) as show:

            def on_step(stage, seconds: float) -> None:
                show(None, "inversion" if stage is inversion else "adaptation", stage, seconds)

            record = run_adaptation(run, folder, facts=facts, resume=resume, on_step=on_step)
    say(f"{record['seconds']:.1f} s, {record['steps_per_second']:.1f} steps/s. Report: {out / 'report.html'}")


def _require_lpips(lpips: str | None) -> None:
    """Refuse a network that there is not, and weights that are not there."""
    from .._checks import require_choice
    from ..models.perceptual import BACKBONES
    from ..models.tensor_files import require_file

    if lpips is not None:
        name, _, file = lpips.partition("=")
        require_choice("--lpips", name, BACKBONES)
        if file:
            require_file("--lpips", file)


def _inversion(model, picture, steps: int | None, lpips: str | None, chunk: int | None, seed: int):
    """The inversion of ``--real``, or None."""
    if picture is None:
        for option, value in (("--real-steps", steps), ("--lpips", lpips)):
            if value is not None:
                raise ValueError(f"{option} goes with --real, got {value} without it")
        return None
    import torch

    from ..models.perceptual import load_lpips
    from ..pipelines import WInversion, WInversionConfig

    given = {"steps": steps, "chunk": chunk}
    config = WInversionConfig(**{k: v for k, v in given.items() if v is not None})
    where = model.latent_avg.device
    how = {}
    if lpips is not None:
        name, _, file = lpips.partition("=")
        how["perceptual"] = load_lpips(name, file or None, device=where, called=f"--lpips {name}")
    return WInversion(
        model, picture.to(where), config=config, generator=torch.Generator().manual_seed(seed), **how
    )
