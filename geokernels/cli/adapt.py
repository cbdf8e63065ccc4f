"""``geokernels adapt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..media.bounds import MOST_MEGAPIXELS
from .console import driven, extras, say, sentences, took
from .encoders import encoders_of, require_clips, warn_of_unknown_words
from .options import (
    CLIP,
    ConfigFile,
    Device,
    From,
    Loss,
    MostMegapixels,
    Out,
    Overwrite,
    Recipe,
    Resume,
    Seed,
    Sets,
    Start,
    Steps,
    Strength,
    To,
    Truncation,
    device_of,
    file_option,
    folder_option,
    formerly,
)
from .settings import Settings, same_names

NOUNS = {"invert": "inversion", "adapt": "adaptation"}  # what stages are called
# of which settings an option is short
OPTIONS = {"encoder_weights": "clip_share", "guess": "start"}
OPTIONS |= same_names("loss train steps strength learning_rate batch pool chunk layers truncation")
OF_INVERSION = {"steps": "real_steps", "chunk": "chunk"}


def adapt(
    source: From,
    target: To,
    out: Out,
    model: Annotated[
        str,
        formerly(
            typer.Option(help="The generator: world for the built-in one, or a StyleGAN2 checkpoint."),
            "--generator",
        ),
    ] = "world",
    recipe: Recipe = None,
    loss: Loss = None,
    clip: Annotated[
        list[str] | None,
        typer.Option(help=f"A CLIP that guides: {CLIP}; repeat for several (default: world)."),
    ] = None,
    clip_weights: Annotated[
        list[Path] | None, file_option("Weights file of each CLIP that needs one, in the order of --clip.")
    ] = None,
    clip_tokenizer: Annotated[
        list[Path] | None,
        folder_option(
            "Folder of each CLIP's tokenizer that is on the hub otherwise, in the order of --clip."
        ),
    ] = None,
    clip_share: Annotated[
        list[float] | None,
        typer.Option(min=0, help="Weight of each CLIP in the loss, in the order of --clip."),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            help="What is trained of a chosen layer: its modulation, or the whole layer (layers) "
            "(default: by recipe)."
        ),
    ] = None,
    start: Start = None,
    steps: Steps = None,
    strength: Strength = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate of the first step.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Latents in each step.")] = None,
    pool: Annotated[int | None, typer.Option(min=1, help="Latents in all; steps take them in turn.")] = None,
    chunk: Annotated[
        int | None, typer.Option(min=1, help="Pictures that are computed at once; less needs less memory.")
    ] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Layers that are trained in each step.")] = None,
    truncation: Truncation = None,
    real: Annotated[
        Path | None, file_option("A photograph to invert, and to draw again with the adapted generator.")
    ] = None,
    real_steps: Annotated[
        int | None, typer.Option(min=1, help="Optimisation steps of the inversion of --real.")
    ] = None,
    lpips: Annotated[
        str | None, typer.Option(help="Invert --real by LPIPS: alex, vgg or squeeze, or NAME=WEIGHTS-FILE.")
    ] = None,
    config_file: ConfigFile = None,
    sets: Sets = None,
    most_megapixels: MostMegapixels = MOST_MEGAPIXELS,
    seed: Seed = 0,
    device: Device = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a generator to draw what a text describes, without any pictures of it."""
    of_inputs = {"checkpoint": "--model", "picture": "--real"}
    with sentences(adapt, encoder_weights="--clip-share", **of_inputs) as names, extras():
        import torch

        from ..media.pictures import read_picture
        from ..models import load_generator
        from ..models.stylegan2_files import FORMATS
        from ..pipelines import Adaptation, AdaptationConfig, WInversionConfig
        from ..runs.adapt import AdaptFolder, AdaptJob

        where = device_of(device)
        for name in clip or []:
            require_clips(clip=name)
        _require_lpips(lpips)
        clips = clip or ["world"]
        built_in = {"--model": model == "world", "--clip": set(clips) == {"world"}}
        kinds = {"adapt": AdaptationConfig, "invert": WInversionConfig}
        settings = Settings(kinds, {"adapt": OPTIONS, "invert": OF_INVERSION}, built_in=built_in)
        config, of_inversion = settings.make("adapt"), settings.make("invert")
        names |= settings.names
        if real is None:
            settings.refuse("invert", "goes with --real, which is not given")
            if lpips is not None:
                raise ValueError(f"--lpips goes with --real, got {lpips} without it")
        ending = Path(model).suffix
        folder = AdaptFolder(out, ending if ending in FORMATS else ".safetensors")
        inputs = [Path(model), *([real] if real else [])]
        with folder.claim(resume=resume, overwrite=overwrite, keep=inputs):
            settings.tell()
            picture = None if real is None else read_picture(real, most_megapixels=most_megapixels).rgb
            network = load_generator(model, device=where)
            encoders = encoders_of(clips, clip_weights or [], clip_tokenizer or [], where)
            chance = torch.Generator().manual_seed(seed)
            adaptation = Adaptation(network, encoders, source, target, config=config, generator=chance)
            inversion = _inversion(network, picture, lpips, of_inversion, seed)
            warn_of_unknown_words(encoders, source, target)
            facts = {
                "model": model if model == "world" else Path(model).name,
                "from": source,
                "to": [target],
                "seeds": [seed],
                "encoders": [encoder.name for encoder in encoders],
                "picture": real and real.name,
                "lpips": lpips,
            }
            job = AdaptJob(network, adaptation, inversion, folder, facts=facts, seed=seed)
            record = driven(job, out, NOUNS, resume=resume)
    say(took(record, out))


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


def _inversion(network, picture, lpips: str | None, config, seed: int):
    """The inversion of ``--real``, or None."""
    if picture is None:
        return None
    import torch

    from ..models.perceptual import load_lpips
    from ..pipelines import WInversion

    where = network.latent_avg.device
    how = {}
    if lpips is not None:
        name, _, file = lpips.partition("=")
        how["perceptual"] = load_lpips(name, file or None, device=where, called=f"--lpips {name}")
    return WInversion(
        network, picture.to(where), config=config, generator=torch.Generator().manual_seed(seed), **how
    )
